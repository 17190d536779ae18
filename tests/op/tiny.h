/* tiny.h - a model small enough for finite differences, micro batches for it, and ranks
 * as threads
 */
#ifndef VNEVA_TESTS_OP_TINY_H
#define VNEVA_TESTS_OP_TINY_H

#include "model/neva/neva.h"
#include "model/optim/optim.h"

/* Width 16, 4 heads on 4 key-value heads, 3 vision layers of which 2 are run, 3 decoder
 * layers, 61 words (no power of two, no multiple of 2 or 4), inner width 22. */
struct neva_config tiny_config(void);

/* The same with another decoder. Nemotron: layernorm1p, squared ReLU, half of each head
 * rotated. GPT: layernorm, GELU, all biases. Qwen2: biases in q, k, v, scaled rotation. */
enum tiny_decoder { TINY_LLAMA, TINY_NEMOTRON, TINY_GPT, TINY_QWEN2, TINY_DECODER_COUNT };
struct neva_config tiny_decoder_config(enum tiny_decoder decoder);

/* The same with another encoder and projector. SigLIP: a grid of 3 x 3 with a pixel over,
 * pooling head, mlp_downsample. Class: CLIP's class token is a feature too, a layer counted
 * from the front, no biases in the projector. */
enum tiny_vision { TINY_CLIP, TINY_SIGLIP, TINY_CLASS, TINY_VISION_COUNT };
struct neva_config tiny_vision_config(enum tiny_vision vision);

/* A micro batch that owns its memory. Rows start with their frames' features; lengths
 * differ; about half of the text tokens carry labels. Depends on seed alone. */
struct tiny_batch {
    struct neva_batch batch;
    int32_t *tokens, *labels, *lens;
    uint8_t *pixels; /* of all frames */
};
void tiny_batch_init(struct tiny_batch *out, const struct neva_config *config,
                     int64_t n_samples, int64_t n_tokens, int64_t n_frames_each,
                     uint64_t seed);
void tiny_batch_fini(struct tiny_batch *batch);

/* Samples [first, first + count) of a batch, with the frames that rank `rank` of n_ranks
 * encodes. Borrows. */
struct neva_batch tiny_part(const struct tiny_batch *all,
                            const struct neva_config *config, int64_t first,
                            int64_t count, int rank, int n_ranks);

/* The loss of one micro batch, without learning from it. COLLECTIVE */
int tiny_evaluate(struct neva *model, const struct neva_batch *batch,
                  struct neva_loss *loss, struct err *err);

/* AdamW with a warm-up, decay and clipping, so that each of them counts. */
extern const struct optim_config tiny_optim;

/* One rank of a layout: what a test's function gets. */
struct tiny_rank {
    int rank, n_ranks; /* in the tensor group */
    int data_rank, n_data;
    struct comm *tensor, *data;
    struct backend *backend;
    void *arg;
};

/* Runs `body` on n_ranks x n_data threads, each with a backend of its own; all on the first
 * device, or on n_devices in turn. */
void tiny_run(const char *backend, int n_ranks, int n_data,
              void (*body)(struct tiny_rank *rank), void *arg);
void tiny_run_on(const char *backend, int n_devices, int n_ranks, int n_data,
                 void (*body)(struct tiny_rank *rank), void *arg);

/* Forward and backward of this data rank's share of `all`, in n_micro micro batches. totals:
 * loss and labels of all data ranks, as tiny_totals has them. COLLECTIVE */
int tiny_global_batch(struct tiny_rank *rank, struct neva *model,
                      const struct tiny_batch *all, int n_micro, double totals[2],
                      struct err *err);
/* Loss and labels of all data ranks' steps since neva_zero_grad. COLLECTIVE */
int tiny_totals(struct tiny_rank *rank, struct neva *model, double totals[2],
                struct err *err);
/* Gradients of all data ranks together, as optim_step sums them; memory is the host's.
 * COLLECTIVE */
int tiny_sum_grads(struct tiny_rank *rank, struct neva *model, struct err *err);

/* Every parameter's whole gradient (or weight), one after another in the table's order,
 * gathered from the ranks: each rank adds its slices. out has neva_n_params floats. */
enum tiny_what { TINY_VALUE, TINY_GRAD, TINY_M };
void tiny_collect(struct neva *model, enum tiny_what what, float *out);

/* |got - want| / |want| of n numbers; not a number where all that is wanted is zero. */
double tiny_distance(const float *got, const float *want, int64_t n);

#endif
