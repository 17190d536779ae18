/* internal.h - what the files of model/neva share, and optim, checkpoint, generate */
#ifndef VNEVA_MODEL_NEVA_INTERNAL_H
#define VNEVA_MODEL_NEVA_INTERNAL_H

#include "model/neva/neva.h"
#include "model/nn/arena.h"
#include "model/nn/head.h"
#include "model/nn/stack.h"

#define NEVA_RANKS_MAX 1024 /* tensor-parallel ranks: bounds host tables of ranks */
/* Micro batches of a step or an evaluation that the device may be behind the host, and as
 * many again. */
#define NEVA_BEHIND_MAX 4
#define NEVA_PROJECTOR_EPS 1e-5F /* of mlp_downsample's norm: PyTorch's default */

/* ---- config.c: pure ---- */

int neva_config_check(const struct neva_config *config, int n_ranks, struct err *err);
/* Vision layers that are run: those up to select_layer. */
int64_t neva_vision_layers(const struct neva_config *config);
/* Tokens of a frame inside the encoder: patches and class token. */
int64_t neva_vision_tokens(const struct neva_config *config);
/* Patches on each side of a frame. */
int64_t neva_grid(const struct neva_config *config);
/* Rows of the encoder that lie behind each other in one feature: 4 of mlp_downsample. */
int64_t neva_feature_rows(const struct neva_config *config);
struct block_config neva_vision_block(const struct neva_config *config);
struct block_config neva_llm_block(const struct neva_config *config, int n_ranks);
/* Rank r's share [*first, *first + *count) of n_frames. */
void neva_frame_share(int64_t n_frames, int rank, int n_ranks, int64_t *first,
                      int64_t *count);

/* ---- param.c ---- */

/* The whole table for rank `rank` of n_ranks, without memory. Checked config. */
int param_table_build(struct param_table *table, const struct neva_config *config,
                      int rank, int n_ranks, struct err *err);
void param_table_fini(struct param_table *table);

enum param_part { PARAM_VALUE, PARAM_MASTER, PARAM_GRAD, PARAM_MOMENTS };

/* Places one part of every parameter that has it. */
void param_table_layout(struct param_table *table, enum param_part part, enum dtype dtype,
                        struct arena *arena);

/* ---- acts.c: one shape's activations ---- */

struct neva_shape {
    int64_t n_samples, n_tokens; /* B, T */
    int64_t n_frames;            /* of all ranks */
    bool is_training;
};

/* Fl: frames of this rank; S: the encoder's tokens of a frame; Q: features of a frame,
 * each of J rows of the encoder (neva_feature_rows). */
struct vision_acts {
    struct tensor pixels;        /* [Fl,S,S,3] U8 */
    struct tensor patches;       /* [Fl*P, 3pp] T */
    struct tensor embedded;      /* [Fl*S, D] before CLIP's first norm; SigLIP's x[0] */
    struct tensor rows, classes; /* patch rows [Fl*P,D], class rows [Fl,D] */
    struct tensor mean, rstd;    /* of the first norm */
    struct tensor features;      /* [Fl*Q, J*D] selected */
    struct tensor d;             /* [Fl*S, D] gradient of the residual stream */
};

struct projector_acts {
    struct tensor mean, rstd, normed; /* [Fl*Q], [Fl*Q, J*D] mlp_downsample only */
    struct tensor up, hidden;         /* [Fl*Q, D'] with two layers only */
    struct tensor out;                /* [Fl*Q, D'] */
    struct tensor d_out, d_up, d_normed, d_features;
    struct tensor gathered; /* [R, most frames of a rank * Q, D'] ; out lies inside */
};

struct text_acts {
    struct tensor wide; /* F32 room for sums over ranks */
    struct tensor d;    /* [N,D'] gradient of the residual stream */
};

/* Numbers of rows, or the like: filled on the host, read by operations in the backend's
 * memory once uploaded. */
struct neva_table {
    int32_t *host;
    struct tensor there; /* I32 [in use] */
};

/* Tables of a micro batch, all sized by the shape: one block on the host and its twin among
 * the activations. Those of the batch come first and are uploaded with it, at once; the
 * others when the shape is laid out. */
struct neva_index {
    struct neva_table ids;        /* [N]: token, or -1 at media */
    struct neva_table grad_ids;   /* and behind the row's end, where gradients are 0 */
    struct neva_table media_rows; /* rows of [N] where features go, in order */
    struct neva_table label_rows, labels;
    struct neva_table positions;                     /* [N]: t, for the rotation */
    struct neva_table patch_rows, class_rows, zeros; /* of the encoder's [Fl*S] rows */
    /* [Fl*Q*J]: row of the encoder's; -1 behind the grid's edge */
    struct neva_table feature_rows;
    /* [Fl*S]: the way back; -1 where the row is not selected */
    struct neva_table row_features;
    float *head; /* HEAD_ROWS_MAX * 3: answers of a generation */
    int64_t n_media, n_labels;
    struct tensor block; /* I32, all twins */
    void *memory;        /* all that is on the host */
    size_t n_bytes;
};

/* What a global batch adds up to. In the backend's memory, in one piece, so that one
 * download brings what is asked about a step. */
struct neva_tally {
    double evaluated; /* loss of the micro batches since neva_begin_evaluation */
    double loss;      /* of the micro batches since neva_zero_grad */
    struct update_verdict verdict;
    double
        squares[]; /* of the gradient of each trained parameter, in the table's order */
};

/* Of gradients over the data group: reduce.c. */
struct neva_reduction {
    size_t bucket_bytes;
    struct comm *group; /* beside the backward pass; NULL: optim_step does it all */
    int n_passed;       /* places that the backward pass has come to */
    size_t summed_from; /* bytes into the arena: from here on it is asked for */
};

struct neva {
    struct neva_config config;
    struct backend *backend;
    struct comm *group;
    struct param_table params;
    struct arena values, masters, grads, moments, acts;
    struct nn vision_nn, llm_nn; /* whole, split */
    struct stack vision, llm;
    struct head head;
    struct head_scratch head_scratch;
    struct {
        struct param *class_embedding, *patch, *patch_bias, *position;
        struct param *norm_w, *norm_b;
    } encoder; /* NULL: this one has not got it */
    struct {
        struct param *norm_w, *norm_b, *w1, *b1, *w2, *b2;
    } projector; /* likewise */
    struct param *embed;
    struct neva_shape shape; /* laid out now */
    struct block_rows vision_rows, llm_rows;
    struct vision_acts vision_acts;
    struct projector_acts projector_acts;
    struct text_acts text_acts;
    struct neva_index index;
    struct neva_tally *tally; /* the backend's memory */
    size_t tally_bytes;
    struct {
        int n;         /* micro batches since the mark */
        bool has_mark; /* a download on its way */
        double loss;   /* what it brings: only that it has come is of use */
    } behind;
    struct update_list trained;           /* empty until neva_need_list */
    int64_t n_frames_seen, n_labels_seen; /* by trained steps since neva_zero_grad */
    bool has_partial_grads;               /* of the divided frames */
    struct neva_reduction reduction;
    struct {
        struct arena room;
        const uint8_t
            *pixels;    /* the host's, of the batch whose frames are on their way */
        size_t n_bytes; /* of them */
    } ahead;
};

/* Plans and places everything a micro batch of this shape needs; keeps it as long as the
 * shape stays. */
int neva_prepare(struct neva *model, const struct neva_shape *shape, struct err *err);
/* Uploads the batch's tables, or all of them. */
int neva_index_upload(struct neva *model, bool is_whole, struct err *err);

/* ---- neva.c ---- */

/* Parameter table and layers without any memory: enough to plan. */
int neva_init_plan(struct neva *model, const struct neva_config *config, int rank,
                   int n_ranks, struct err *err);
void neva_fini_plan(struct neva *model);

/* Elements [first, first + n) of the whole tensor, as neva_init_fresh makes them. */
void neva_fresh_values(const struct neva_config *config, const struct param *param,
                       int64_t first, int64_t n, float *out);
/* 0 when every rank of the group says 0; else -1 on all of them, the text on those that
 * did not fail saying that another did. COLLECTIVE */
int neva_agree(struct neva *model, int rc, struct err *err);

/* Gradients, then moments: made when first needed, all zero; behind them the list of what
 * is trained. */
int neva_need_grads(struct neva *model, struct err *err);
int neva_need_moments(struct neva *model, struct err *err);
int neva_need_list(struct neva *model, struct err *err);
/* Writes this rank's slice of a parameter (F32, local_dims) as master and value. */
int neva_param_write(struct neva *model, struct param *param, const float *host,
                     struct err *err);

/* Points the layers' weights (and gradients, once there) at the table's memory. */
void neva_bind(struct neva *model);

/* As neva_zero_grad, where the gradients are zero already. */
int neva_begin_batch(struct neva *model, struct err *err);

/* ---- tally.c ---- */

int neva_tally_init(struct neva *model, struct err *err);
/* The list of what is trained as well. */
void neva_tally_fini(struct neva *model);
/* Before a micro batch: waits for one that was asked for long ago, so that what the host is
 * doing tells where the device is, within NEVA_BEHIND_MAX to twice as many. */
int neva_keep_close(struct neva *model, struct err *err);
/* The device was waited for: none of the micro batches is behind. */
void neva_forget_marks(struct neva *model);
/* One of the tally's. */
int neva_zero_loss(struct neva *model, double *loss, struct err *err);

/* ---- ahead.c ---- */

/* Room for the frames of a micro batch with n_frames, where neva_prefetch needs any. */
int neva_ahead_reserve(struct neva *model, int64_t n_frames, struct err *err);
/* out = this rank's frames: those that were prefetched, or the host's. */
int neva_bring_pixels(struct neva *model, const struct tensor *out, const uint8_t *pixels,
                      struct err *err);
void neva_ahead_forget(struct neva *model);

/* ---- reduce.c ---- */

/* The gradients are final now: of the head and the norm in front of it; of the decoder from
 * this layer on; of the words; of the projector; of the encoder from this layer on. After
 * neva_begin_reduction full buckets are asked for. COLLECTIVE in the data group */
int neva_reduce_head(struct neva *model, struct err *err);
int neva_reduce_llm(struct neva *model, int64_t layer, struct err *err);
int neva_reduce_words(struct neva *model, struct err *err);
int neva_reduce_projector(struct neva *model, struct err *err);
int neva_reduce_vision(struct neva *model, int64_t layer, struct err *err);
/* ERR_STATE: they are summed, more cannot be added. */
int neva_check_reduction(const struct neva *model, struct err *err);
/* Waits, on the device, for what was asked for; the rest is not summed. */
int neva_drop_reduction(struct neva *model, struct err *err);
/* All gradients are sums over the ranks for what is asked from here on; those of divided
 * frames too. COLLECTIVE in both groups */
int neva_end_reduction(struct neva *model, struct comm *data_group, struct err *err);

/* ---- vision.c: frames of this rank to rows of features ---- */

/* The frames of this rank, for the next vision_fwd. */
int vision_upload(struct neva *model, const uint8_t *pixels, struct err *err);
/* Encodes and projects this rank's frames, gathers all ranks' and puts them on the media
 * rows of the decoder's input. COLLECTIVE */
int vision_fwd(struct neva *model, struct err *err);
/* From the gradient of the decoder's input to the gradients of the projector. */
int vision_projector_bwd(struct neva *model, struct err *err);
/* From there to those of the encoder's layers [first, end), in parts from the last layers to
 * the first (stack_bwd_part); with layer 0 those of what is in front of them. */
int vision_encoder_bwd(struct neva *model, int64_t first, int64_t end, struct err *err);

/* ---- text.c ---- */

/* Checks the batch, fills its tables and uploads them. */
int neva_index_fill(struct neva *model, const struct neva_batch *batch, bool has_labels,
                    struct err *err);
/* Embeds the text rows of the decoder's input. COLLECTIVE */
int text_fwd(struct neva *model, struct err *err);
int text_bwd(struct neva *model, struct err *err);

/* ---- passes.c ---- */

/* Everything up to the decoder's last residual stream. caches: for generation. COLLECTIVE
 */
int neva_forward(struct neva *model, const struct neva_batch *batch,
                 const struct block_cache *caches, struct err *err);
/* From the gradient of that stream, text_acts.d, to all gradients. COLLECTIVE */
int neva_backward(struct neva *model, const struct neva_batch *batch, struct err *err);

/* backend_replay for a stretch of operations on the model's memory, laid out as it is now;
 * part and memory: what else fixes them. Where the ranks' exchanges go through the host,
 * everything runs as it is. COLLECTIVE */
int neva_replay(struct neva *model, const char *name, uint64_t part, const void *memory,
                int (*run)(void *context, struct err *err), void *context,
                struct err *err);

#endif
