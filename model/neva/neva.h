/* neva.h - the VideoNeVA model: CLIP or SigLIP ViT over frames, projector, decoder
 *
 * Owns: parameters, gradients, optimizer moments and activations, in arenas of the
 * backend it is given. Borrows: backend and communicator, which must outlive it.
 * Threads: one. COLLECTIVE calls must be made by every rank of the tensor-parallel group
 * in the same order.
 * The decoder is LLaMA's or a relative: its settings make it Mistral's, Qwen2's or, as
 * NeMo's NVGPT, Nemotron's.
 * Source of the architecture: Hugging Face's LlavaForConditionalGeneration and NeMo's
 * MegatronNevaModel.
 */
#ifndef VNEVA_MODEL_NEVA_NEVA_H
#define VNEVA_MODEL_NEVA_NEVA_H

#include "model/backend/backend.h"
#include "model/comm/comm.h"
#include "model/neva/param.h"
#include "model/nn/nn.h"

/* In neva_batch.tokens: here one row of projected features goes (frames of the batch in
 * order, patches of a frame in order). */
#define NEVA_TOKEN_MEDIA (-1)

/* Hugging Face's CLIPVisionModel or SiglipVisionModel. */
enum neva_encoder { NEVA_ENCODER_CLIP, NEVA_ENCODER_SIGLIP };
/* Which rows of the selected layer become features: NeMo's vision_select_feature. */
enum neva_select { NEVA_SELECT_PATCH, NEVA_SELECT_CLS_PATCH };
/* mlp_downsample is NeMo's and VILA 1.5's: 2 x 2 patches become one, then a norm ("norm"
 * in the table, beside linear_1 and linear_2) and two layers. */
enum neva_projector {
    NEVA_PROJECTOR_LINEAR,
    NEVA_PROJECTOR_MLP2X_GELU,
    NEVA_PROJECTOR_MLP_DOWNSAMPLE
};
/* The decoder's feed-forward layers: down(act(gate) * up), or down(act(up)). */
enum neva_mlp { NEVA_MLP_SWIGLU, NEVA_MLP_RELU_SQUARED, NEVA_MLP_GELU };
enum neva_recompute {
    NEVA_RECOMPUTE_NONE,
    NEVA_RECOMPUTE_SELECTIVE,
    NEVA_RECOMPUTE_FULL
};
enum neva_recompute_method { NEVA_RECOMPUTE_UNIFORM, NEVA_RECOMPUTE_BLOCK };

struct neva_config {
    struct {
        enum neva_encoder encoder;
        int64_t image_size, patch, width, ffn_width, n_layers, n_heads;
        /* index of Hugging Face's hidden_states: 0 the embeddings, n the output of layer
         * n; -1 the output of the last layer, -2 of the one before */
        int64_t select_layer;
        enum neva_select select_feature;
        int64_t class_token_length; /* 1: CLIP's; or 0, always 0 with SigLIP */
        bool has_head; /* SigLIP's pooling head (vision_use_head): carried, never run */
        enum activation act;
        float eps;
        float mean[3], std[3];
        bool freeze;
    } vision;
    enum neva_projector projector;
    bool projector_no_bias; /* LLaVA's multimodal_projector_bias: false */
    struct {
        int64_t vocab, width, ffn_width, n_layers, n_heads, n_kv_heads;
        struct nn_norm norm;
        enum neva_mlp mlp;
        bool has_bias;     /* in q, k, v, o and the feed-forward layers */
        bool has_qkv_bias; /* in q, k, v at least */
        /* rot_dims and theta: see neva_rotary_dims for NeMo's rotary_percentage */
        struct rope_args rope;
        bool tied; /* share_embeddings_and_output_weights */
        bool freeze;
    } llm;
    int64_t max_tokens; /* encoder_seq_length: bound of T */
    enum dtype dtype;   /* compute type */
    float init_std;
    bool scaled_init; /* use_scaled_init_method: output layers by 1/sqrt(2 layers) */
    uint64_t seed;
    enum neva_recompute recompute;
    enum neva_recompute_method recompute_method;
    int64_t recompute_layers; /* uniform: group size; block: how many recompute */
};

struct neva;

/* Checks the configuration first: ERR_INVALID names the NeMo key at fault and what would
 * do. Weights are initialised from (seed, parameter name, element): the same for every
 * layout. COLLECTIVE */
int neva_create(struct neva **out, const struct neva_config *config, struct backend *b,
                struct comm *tensor_group, struct err *err);
/* The same without weights: each part must be loaded (weights_load) or made
 * (neva_init_fresh) before the first pass. */
int neva_create_bare(struct neva **out, const struct neva_config *config,
                     struct backend *b, struct comm *tensor_group, struct err *err);
/* Makes the weights of these parts as neva_create does; parts: 1 << enum param_group,
 * joined. */
int neva_init_fresh(struct neva *model, unsigned parts, struct err *err);
void neva_destroy(struct neva *model);

/* Dimensions of a head that are rotated: NeMo's rotary_percentage of head_size, rounded
 * down as Megatron and Hugging Face's partial_rotary_factor do. */
int64_t neva_rotary_dims(int64_t head_size, double percentage);

/* Patches of a frame: (image_size / patch)^2, the quotient rounded down. */
int64_t neva_patches(const struct neva_config *config);
/* Features a frame gives, each of which takes a token's place: NEVA_TOKEN_MEDIA times
 * frames. */
int64_t neva_features(const struct neva_config *config);
/* Parameters of the whole model, all ranks. */
int64_t neva_n_params(const struct neva_config *config);
/* Floating-point operations of one training step over n_samples rows of n_tokens (T), all
 * ranks together: forward, backward and recomputation, for the reports. n_labels: label
 * tokens, the only rows the head works on. Counted as model/neva/README.md says. */
double neva_step_flops(const struct neva_config *config, int64_t n_samples,
                       int64_t n_tokens, int64_t n_frames, int64_t n_labels);
/* Peak bytes on one rank for this micro batch: parameters, gradients, optimizer state and
 * activations. Pure; says what neva_create and neva_step will take, within 10 %. */
uint64_t neva_plan_bytes(const struct neva_config *config, int tensor_parallel,
                         int64_t micro_batch, int64_t n_tokens, int64_t n_frames,
                         bool is_training);

const struct neva_config *neva_config(const struct neva *model);
struct param_table *neva_params(struct neva *model);
struct backend *neva_backend(struct neva *model);
struct comm *neva_tensor_group(struct neva *model);

/* The part [first, first+count) of a batch's n_frames that this rank encodes: contiguous,
 * as equal as can be. Only those need be decoded here. */
void neva_frame_range(const struct neva *model, int64_t n_frames, int64_t *first,
                      int64_t *count);

/* One micro batch, host memory, borrowed for the call. Rows shorter than T are padded on
 * the right with token 0 and label -1; `lens` says where each ends. */
struct neva_batch {
    int64_t n_samples, n_tokens; /* B, T */
    const int32_t *tokens;       /* [B,T], NEVA_TOKEN_MEDIA where features go */
    const int32_t *labels;       /* [B,T], shifted: label of t is token t+1; -1 masked */
    const int32_t *lens;         /* [B] */
    int64_t n_frames;            /* of the whole micro batch, all ranks */
    const uint8_t *pixels;       /* [count of neva_frame_range, S, S, 3] RGB */
};

struct neva_loss {
    double sum;       /* of -log p over label tokens, natural logarithm */
    int64_t n_labels; /* how many there were */
};

/* Forward and backward: adds d(loss sum)/d(parameter) to the gradients, which are made at
 * the first step, and optimizer state at the first optim_step: a model that only evaluates
 * or generates never has them. Activations are planned once for each shape (B, T, frames)
 * and reused while it stays. Returns while the device works, a few micro batches behind at
 * most: of `loss` only n_labels is known, sum is NAN. The device adds up the sums of the
 * micro batches; optim_step reports them, neva_read_loss asks for them. COLLECTIVE */
int neva_step(struct neva *model, const struct neva_batch *batch, struct neva_loss *loss,
              struct err *err);
/* Of this rank's steps since neva_zero_grad. Waits for the device. */
int neva_read_loss(struct neva *model, struct neva_loss *loss, struct err *err);
/* Brings the frames of the batch that the next neva_step or neva_evaluate takes to the device,
 * beside what it was asked for before; until then next->pixels stays the address by which
 * that call knows them, though the array itself may be changed when this returns. Another
 * batch may come instead. Where memory is the host's nothing happens. Not collective. */
int neva_prefetch(struct neva *model, const struct neva_batch *next, struct err *err);
/* Takes all memory that steps of up to this shape need, before the first of them: gradients,
 * optimizer state, activations. */
int neva_reserve(struct neva *model, int64_t n_samples, int64_t n_tokens,
                 int64_t n_frames, struct err *err);
/* The loss of micro batches without learning from them: begin, evaluate each, end. An
 * evaluation may be given up before its end, and lie between two steps of a global batch. */
int neva_begin_evaluation(struct neva *model, struct err *err);
/* Forward only. Returns while the device works, as neva_step does: of `loss` only n_labels is
 * known, sum is NAN; the device adds the loss to those since neva_begin_evaluation, in double
 * and in the order of the calls. COLLECTIVE */
int neva_evaluate(struct neva *model, const struct neva_batch *batch,
                  struct neva_loss *loss, struct err *err);
/* *loss_sum = what this rank's micro batches add up to; 0 without any. Waits for the device. */
int neva_end_evaluation(struct neva *model, double *loss_sum, struct err *err);
/* Sums that neva_begin_reduction has begun are of no use any more. */
int neva_zero_grad(struct neva *model, struct err *err);
/* From the next neva_step on its gradients are those of `scale` times the loss, which
 * itself is reported as it is; optim_step divides by it. Above 0; 1 at first. */
void neva_set_loss_scale(struct neva *model, double scale);

/* Gradients of data-parallel ranks that exchange between devices are summed in buckets of at
 * least so many bytes (but the last); the same on every rank. NEVA_BUCKET_BYTES at first. */
#define NEVA_BUCKET_BYTES ((size_t)100 << 20)
void neva_set_bucket_bytes(struct neva *model, size_t n_bytes);
/* The next neva_step is the last before optim_step, which must follow: each bucket of
 * gradients is summed over this group as soon as it is final, beside the backward pass, and
 * optim_step does the rest. Same bits as without. Nothing happens where the group's ranks do
 * not exchange between devices (comm_has_device). COLLECTIVE in the group: all or none */
void neva_begin_reduction(struct neva *model, struct comm *data_group);

/* After a step each tensor-parallel rank holds the part of the vision encoder's and the
 * projector's gradients that comes from its own frames. This sums them over the tensor
 * group, in one exchange; once per global batch. optim_step calls it; call it before
 * reading those gradients. COLLECTIVE */
int neva_reduce_grad(struct neva *model, struct err *err);

#endif
