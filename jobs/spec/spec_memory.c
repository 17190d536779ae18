/* What a rank of a training run holds at its peak, by the formulae of the layout in
 * model/neva/acts.c, model/nn/stack.c, block.c and head.c; a test compares both. Values of
 * the compute type and of fp32 are counted apart, one row of a batch at a time; the layout's
 * padding to 64 bytes is left out. */
#include "jobs/spec/spec_memory.h"

#include <string.h>

#define HEAD_ROWS_MAX 1024 /* rows whose logits the model holds at once */
#define TOKENS_STEP 8      /* rows of a batch are padded to a multiple */
#define MIB ((int64_t)1 << 20)
/* Backend cuda: cuBLASLt's workspace, and sums of blocks before they are added, at most so
 * many rows of them. */
#define CUDA_WORKSPACE_BYTES (32 * MIB)
#define CUDA_SUM_ROWS 264 /* two a processor of a large GPU */
/* And what an attention's gradient takes in halves, where cuDNN does it: those of scores, 2
 * bytes each, in tiles, of as many rows and heads as a bound allows. */
#define CUDA_SCORES_MAX ((int64_t)1 << 30)
#define CUDA_SCORES_TILE 128

/* Backend cpu, in floats: the part of a matrix that is packed at a time, and of its columns;
 * tiles of each thread; rows of queries and matrices [T, head size] an attention works on. */
#define CPU_PACKED_MAX (2 * MIB)
#define CPU_COLUMNS_MAX 1024
#define CPU_TILES 101376
#define CPU_QUERIES 32
#define CPU_HEAD_MATRICES 5
#define CPU_THREADS_ASSUMED 8 /* where the specification does not say */

struct values {
    int64_t compute, wide; /* of the compute type, of fp32 */
};

/* A stack of layers as this rank has it. */
struct layers {
    int64_t n, rows; /* layers that run, rows of a micro batch */
    int64_t width, attn, kv, ffn, up, heads;
    bool is_trained, is_rms, has_backward;
    bool is_full, is_block, is_selective;
    int64_t group; /* of recomputation */
};

static int64_t ceil_divide(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

static int64_t most(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

int64_t spec_value_bytes(const struct spec *spec)
{
    const char *precision = spec->trainer.precision;

    return strcmp(precision, "32") == 0 || strcmp(precision, "tf32") == 0 ? 4 : 2;
}

static int64_t bytes_of(const struct spec *spec, struct values v)
{
    return v.compute * spec_value_bytes(spec) + v.wide * 4;
}

static struct values sum(struct values a, struct values b)
{
    return (struct values){a.compute + b.compute, a.wide + b.wide};
}

static struct values times(struct values v, int64_t n)
{
    return (struct values){v.compute * n, v.wide * n};
}

/* ---- layers ---- */

static void set_policy(struct layers *l, const struct spec *spec)
{
    const char *granularity = spec->model.activations_checkpoint_granularity;
    const char *method = spec->model.activations_checkpoint_method;

    l->group = spec->model.activations_checkpoint_num_layers;
    l->is_full = granularity && strcmp(granularity, "full") == 0;
    l->is_selective = granularity && strcmp(granularity, "selective") == 0;
    l->is_block = method && strcmp(method, "block") == 0;
}

static struct layers llm_layers(const struct spec *spec, int64_t n_rows)
{
    int64_t ranks = spec->model.tensor_model_parallel_size;
    int64_t width = spec->model.hidden_size, heads = spec->model.num_attention_heads;
    bool is_gated = strstr(spec->model.activation, "glu") != NULL;
    int64_t ffn = ceil_divide(spec->model.ffn_hidden_size, ranks);
    struct layers l = {
        .n = spec->model.num_layers,
        .rows = n_rows,
        .width = width,
        .attn = width / ranks,
        .kv = width / heads * spec->model.num_query_groups / ranks,
        .ffn = ffn,
        .up = is_gated ? 2 * ffn : ffn,
        .heads = heads / ranks,
        .is_trained = !spec->mm_cfg.llm_freeze,
        .is_rms = strcmp(spec->model.normalization, "rmsnorm") == 0,
        .has_backward = true,
    };

    set_policy(&l, spec);
    return l;
}

static struct layers vision_layers(const struct spec *spec, int64_t n_rows)
{
    int64_t layer = spec->vision.vision_select_layer;
    struct layers l = {
        .n = layer < 0 ? spec->vision.num_layers + 1 + layer : layer,
        .rows = n_rows,
        .width = spec->vision.hidden_size,
        .attn = spec->vision.hidden_size,
        .kv = spec->vision.hidden_size,
        .ffn = spec->vision.ffn_hidden_size,
        .up = spec->vision.ffn_hidden_size,
        .heads = spec->vision.num_attention_heads,
        .is_trained = !spec->vision.freeze,
        .has_backward = !spec->vision.freeze,
    };

    set_policy(&l, spec);
    return l;
}

static bool is_gated(const struct layers *l)
{
    return l->up > l->ffn;
}

/* What one layer keeps of a row for its backward pass, besides its input. */
static struct values kept_of_layer(const struct layers *l)
{
    struct values v = {l->attn + 2 * l->kv + l->width, l->is_rms ? 2 : 4};

    if (l->has_backward || is_gated(l))
        v.compute += l->up;
    if (l->has_backward && !l->is_selective)
        v = sum(v, (struct values){l->attn, l->heads});
    if (l->is_trained)
        v.compute += 2 * l->width + l->ffn;
    return v;
}

/* What all layers keep of a micro batch. Layers that are computed again share the memory of
 * one group; the others have their own. */
static struct values kept_of_layers(const struct layers *l)
{
    int64_t group = l->group < 1 ? 1 : l->group, inputs = l->n + 1, own = l->n;

    if (group > l->n)
        group = most(l->n, 1);
    if (!l->has_backward) {
        inputs = l->n < 1 ? 1 : 2;
        own = l->n < 1 ? 0 : 1;
    } else if (l->is_full && l->is_block) {
        own = l->n - group + 1;
    } else if (l->is_full) {
        inputs = group + ceil_divide(l->n, group);
        own = group;
    }
    if (l->n == 0)
        own = 0;
    return times(sum(times(kept_of_layer(l), own), (struct values){inputs * l->width, 0}),
                 l->rows);
}

/* What a layer needs while it runs. */
static struct values scratch_of_layers(const struct layers *l)
{
    struct values v = {2 * l->width + l->ffn + l->attn, l->heads};

    if (l->has_backward)
        v.compute += most((is_gated(l) ? l->ffn : 0) + l->up, 2 * l->attn + 2 * l->kv);
    return times(v, l->rows);
}

/* ---- the encoder, the projector ---- */

struct frames {
    int64_t here, most; /* of a micro batch: on the rank that has most of them */
    int64_t patches, rows, features, joined;
};

static int64_t n_frames(const struct spec *spec, const struct spec_estimate *e,
                        int64_t n_tokens)
{
    int64_t each = spec->data.splice_single_frame ? 1 : spec->data.num_frames;

    if (each < 0) /* all there are: as many as there is room for */
        each = e->n_frame_tokens ? n_tokens / e->n_frame_tokens : 0;
    return spec->model.micro_batch_size * each;
}

static struct values kept_of_encoder(const struct spec *spec, const struct layers *l,
                                     const struct frames *f)
{
    int64_t side = spec->vision.patch_dim;
    struct values v = {f->patches * 3 * side * side, 0};

    if (!spec_is_siglip(spec)) /* the norm in front of the layers */
        v = sum(v, (struct values){l->rows * l->width, 2 * l->rows});
    if (l->has_backward)
        v.compute += l->rows * l->width;
    return sum(v, kept_of_layers(l));
}

static int64_t pixel_bytes(const struct spec *spec, const struct frames *f)
{
    return f->here * spec->vision.crop_size * spec->vision.crop_size * 3;
}

static int64_t scratch_of_encoder(const struct spec *spec, const struct layers *l,
                                  const struct frames *f)
{
    struct values v = {(f->patches + f->here) * l->width, 0};

    return pixel_bytes(spec, f) + bytes_of(spec, sum(v, scratch_of_layers(l)));
}

static struct values kept_of_projector(const struct spec *spec, const struct frames *f)
{
    int64_t n = f->here * f->features, width = spec->model.hidden_size;
    int64_t from = spec->vision.hidden_size * f->joined;
    int64_t ranks = spec->model.tensor_model_parallel_size;
    struct values v = {n * from + ranks * f->most * f->features * width, 0};

    if (f->joined > 1)
        v = sum(v, (struct values){n * from, 2 * n});
    if (strcmp(spec->mm_cfg.mm_mlp_adapter_type, "linear") != 0)
        v.compute += n * width;
    return v;
}

static struct values scratch_of_projector(const struct spec *spec, const struct frames *f)
{
    int64_t n = f->here * f->features, width = spec->model.hidden_size;
    int64_t from = spec->vision.hidden_size * f->joined;
    struct values v = {n * (width + from), 0};

    if (f->joined > 1)
        v.compute += n * from;
    if (strcmp(spec->mm_cfg.mm_mlp_adapter_type, "linear") != 0)
        v.compute += 2 * n * width;
    return v;
}

static struct frames frames_of(const struct spec *spec, const struct spec_estimate *e,
                               int64_t n_tokens)
{
    int64_t all = n_frames(spec, e, n_tokens);
    int64_t share = ceil_divide(all, spec->model.tensor_model_parallel_size);
    bool is_joined = strcmp(spec->mm_cfg.mm_mlp_adapter_type, "mlp_downsample") == 0;

    return (struct frames){
        .here = share,
        .most = share,
        .patches = share * e->n_patches,
        .rows = share * (e->n_patches + spec_class_tokens(spec)),
        .features = e->n_frame_tokens,
        .joined = is_joined ? 4 : 1,
    };
}

/* ---- all of it ---- */

/* Logits, in fp32 and once more in a smaller compute type, and what lies beside them. */
static int64_t head_bytes(const struct spec *spec, int64_t n_rows, int64_t vocab,
                          int64_t *logit_bytes)
{
    int64_t n = n_rows < HEAD_ROWS_MAX ? n_rows : HEAD_ROWS_MAX;
    int64_t entries = ceil_divide(vocab, spec->model.tensor_model_parallel_size);
    int64_t bytes = spec_value_bytes(spec);

    *logit_bytes = n * entries * (4 + (bytes < 4 ? bytes : 0));
    return *logit_bytes + n * (3 * spec->model.hidden_size * bytes + 5 * 4);
}

static int64_t kept_of_text(const struct spec *spec, const struct layers *l)
{
    struct values v = {l->rows * l->width, 0}; /* the gradient of the residual stream */

    if (spec->model.tensor_model_parallel_size > 1 && spec_value_bytes(spec) < 4)
        v.wide = l->rows * l->width; /* sums over ranks */
    return bytes_of(spec, sum(v, kept_of_layers(l)));
}

static int64_t packed(int64_t rows, int64_t columns)
{
    return rows * (columns < CPU_COLUMNS_MAX ? columns : CPU_COLUMNS_MAX);
}

/* What the backends take besides what they hand out: the largest need of one operation. */
static int64_t cpu_bytes(const struct spec *spec, const struct layers *llm, int64_t vocab)
{
    int64_t threads = spec->n_threads > 0 ? spec->n_threads : CPU_THREADS_ASSUMED;
    int64_t widest = most(llm->width, llm->ffn),
            n_tokens = spec->model.encoder_seq_length;
    int64_t product = most(packed(llm->width, most(llm->up, vocab)),
                           packed(most(llm->rows, most(widest, vocab)), llm->width));
    int64_t attention =
        n_tokens * (CPU_HEAD_MATRICES * (llm->attn / llm->heads) + 2 * CPU_QUERIES);

    product = product < CPU_PACKED_MAX ? product : CPU_PACKED_MAX;
    return 4 * most(product + threads * CPU_TILES, threads * attention);
}

/* Scores of n_tokens queries and keys a row; where heads share keys, gradients of these for
 * every head; sums of do * o. */
static int64_t cuda_attention_bytes(const struct layers *llm, int64_t n_tokens)
{
    int64_t length = ceil_divide(n_tokens, CUDA_SCORES_TILE) * CUDA_SCORES_TILE;
    int64_t scores = 2 * (llm->rows / n_tokens) * llm->heads * length * length;
    int64_t of_keys = llm->kv < llm->attn ? 2 * 2 * llm->rows * llm->attn : 0;

    return (scores < CUDA_SCORES_MAX ? scores : CUDA_SCORES_MAX) + of_keys +
           4 * llm->rows * llm->heads;
}

static int64_t cuda_bytes(const struct spec *spec, const struct layers *llm,
                          int64_t n_tokens)
{
    int64_t sums = 4 * 2 * CUDA_SUM_ROWS * most(llm->width, llm->up);
    int64_t attention = spec_value_bytes(spec) == 2 ? cuda_attention_bytes(llm, n_tokens)
                                                    : 4 * llm->rows * llm->heads;

    return CUDA_WORKSPACE_BYTES + most(sums, attention);
}

void spec_memory(struct spec_estimate *e, const struct spec *spec, int64_t vocab,
                 int64_t n_tokens, bool is_on_gpu)
{
    int64_t padded = ceil_divide(n_tokens, TOKENS_STEP) * TOKENS_STEP;
    int64_t length = spec->model.encoder_seq_length;
    int64_t n_padded = padded < length ? padded : length;
    int64_t rows = spec->model.micro_batch_size * n_padded;
    struct frames frames = frames_of(spec, e, n_tokens);
    struct layers llm = llm_layers(spec, rows), vision = vision_layers(spec, frames.rows);
    int64_t encoder = bytes_of(spec, kept_of_encoder(spec, &vision, &frames));
    int64_t kept = bytes_of(spec, kept_of_projector(spec, &frames)) +
                   kept_of_text(spec, &llm) + (vision.has_backward ? encoder : 0);
    int64_t logits, head = head_bytes(spec, rows, vocab, &logits);
    int64_t of_vision = scratch_of_encoder(spec, &vision, &frames) +
                        bytes_of(spec, scratch_of_projector(spec, &frames)) +
                        (vision.has_backward ? 0 : encoder);
    int64_t of_llm = bytes_of(spec, scratch_of_layers(&llm)) + head;

    if (is_on_gpu) /* the next micro batch's frames */
        kept += pixel_bytes(spec, &frames);
    e->logit_bytes = of_vision > of_llm ? 0 : (uint64_t)logits;
    e->activation_bytes = (uint64_t)(kept + most(of_vision, of_llm)) - e->logit_bytes;
    e->backend_bytes = (uint64_t)(is_on_gpu ? cuda_bytes(spec, &llm, n_padded)
                                            : cpu_bytes(spec, &llm, vocab));
}
