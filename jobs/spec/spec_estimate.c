#include "jobs/spec/spec_estimate.h"

#include "jobs/spec/spec_memory.h"

#include <string.h>

static int64_t ceil_divide(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

/* Gated activations have a third matrix. */
static int64_t n_ffn_matrices(const struct spec *spec)
{
    return strstr(spec->model.activation, "glu") ? 3 : 2;
}

static int64_t kv_width(const struct spec *spec)
{
    return spec->model.hidden_size / spec->model.num_attention_heads *
           spec->model.num_query_groups;
}

/* ---- parameters ---- */

/* One layer of either: four square matrices, two of the feed-forward, two norms. */
static int64_t vision_layer(const struct spec *spec)
{
    int64_t width = spec->vision.hidden_size, ffn = spec->vision.ffn_hidden_size;

    return 4 * (width * width + width) + 2 * width * ffn + ffn + width + 4 * width;
}

/* CLIP: patches without bias, a class token, positions, a norm before the layers and one
 * after them. SigLIP: patches with a bias, positions, a norm after the layers. */
static int64_t count_vision(const struct spec *spec, int64_t n_patches)
{
    int64_t width = spec->vision.hidden_size, patch = spec->vision.patch_dim;
    int64_t n_class = spec_class_tokens(spec), n_vectors = spec_is_siglip(spec) ? 3 : 4;

    return width * 3 * patch * patch + n_class * width + (n_patches + n_class) * width +
           n_vectors * width + spec->vision.num_layers * vision_layer(spec);
}

/* What lies behind the selected layer is carried along and not trained. */
static int64_t count_trained_vision(const struct spec *spec, int64_t n_vision)
{
    int64_t layer = spec->vision.vision_select_layer;
    int64_t behind = layer < 0 ? -layer - 1 : spec->vision.num_layers - layer;

    if (spec->vision.freeze)
        return 0;
    return n_vision - behind * vision_layer(spec) - 2 * spec->vision.hidden_size;
}

static int64_t count_projector(const struct spec *spec)
{
    const char *type = spec->mm_cfg.mm_mlp_adapter_type;
    bool is_joined = strcmp(type, "mlp_downsample") == 0;
    int64_t from = spec->vision.hidden_size * (is_joined ? 4 : 1);
    int64_t to = spec->model.hidden_size, first = from * to + to;

    if (strcmp(type, "linear") == 0)
        return first;
    return first + to * to + to + (is_joined ? 2 * from : 0);
}

/* Entries of the LLM that tensor parallelism divides, of one layer. */
static int64_t layer_matrices(const struct spec *spec)
{
    int64_t width = spec->model.hidden_size;

    return 2 * width * width + 2 * width * kv_width(spec) +
           n_ffn_matrices(spec) * width * spec->model.ffn_hidden_size;
}

/* Norms, and biases where there are any, of one layer. */
static int64_t layer_vectors(const struct spec *spec)
{
    int64_t width = spec->model.hidden_size, ffn = spec->model.ffn_hidden_size;
    int64_t norm = strcmp(spec->model.normalization, "rmsnorm") == 0 ? width : 2 * width;
    int64_t qkv = width + 2 * kv_width(spec);
    int64_t others = 2 * width + (n_ffn_matrices(spec) - 1) * ffn;

    return 2 * norm + (spec->model.bias || spec->model.qkv_bias ? qkv : 0) +
           (spec->model.bias ? others : 0);
}

static int64_t n_vocab_matrices(const struct spec *spec)
{
    return spec->model.share_embeddings_and_output_weights ? 1 : 2;
}

static int64_t count_llm(const struct spec *spec, int64_t vocab)
{
    int64_t width = spec->model.hidden_size;
    int64_t norm = strcmp(spec->model.normalization, "rmsnorm") == 0 ? width : 2 * width;

    return n_vocab_matrices(spec) * vocab * width + norm +
           spec->model.num_layers * (layer_matrices(spec) + layer_vectors(spec));
}

/* ---- memory ---- */

/* Weights of the LLM on one rank: matrices divided, vectors whole. */
static int64_t llm_on_rank(const struct spec *spec, int64_t vocab)
{
    int64_t ranks = spec->model.tensor_model_parallel_size;
    int64_t width = spec->model.hidden_size;

    return n_vocab_matrices(spec) * ceil_divide(vocab, ranks) * width + width +
           spec->model.num_layers *
               (ceil_divide(layer_matrices(spec), ranks) + layer_vectors(spec));
}

static void count_memory(struct spec_estimate *e, const struct spec *spec, int64_t vocab)
{
    int64_t bytes = spec_value_bytes(spec), llm = llm_on_rank(spec, vocab);
    int64_t all = e->n_vision + e->n_projector + llm;
    int64_t trained = count_trained_vision(spec, e->n_vision) + e->n_projector +
                      (spec->mm_cfg.llm_freeze ? 0 : llm);

    e->weight_bytes = (uint64_t)(all * bytes + (bytes < 4 ? trained * 4 : 0));
    e->gradient_bytes = (uint64_t)(trained * 4);
    e->optimizer_bytes = (uint64_t)(trained * 8);
}

uint64_t spec_estimate_bytes(const struct spec_estimate *e)
{
    return e->weight_bytes + e->gradient_bytes + e->optimizer_bytes +
           e->activation_bytes + e->logit_bytes + e->backend_bytes;
}

void spec_estimate(struct spec_estimate *out, const struct spec *spec, int64_t vocab,
                   int64_t n_tokens, bool is_on_gpu)
{
    int64_t side = spec->vision.crop_size / spec->vision.patch_dim;
    int64_t frames = spec->data.splice_single_frame ? 1 : spec->data.num_frames;

    memset(out, 0, sizeof(*out));
    out->n_ranks = spec_n_ranks(spec);
    out->n_data_parallel = out->n_ranks / spec->model.tensor_model_parallel_size;
    out->n_micro_batches =
        ceil_divide(spec->model.global_batch_size,
                    spec->model.micro_batch_size * out->n_data_parallel);
    out->n_patches = side * side;
    out->n_frame_tokens = spec_frame_tokens(spec);
    out->n_media_tokens = frames > 0 ? frames * out->n_frame_tokens : 0;
    out->n_vision = count_vision(spec, out->n_patches);
    out->n_projector = count_projector(spec);
    out->n_llm = count_llm(spec, vocab);
    out->n_trained = count_trained_vision(spec, out->n_vision) + out->n_projector +
                     (spec->mm_cfg.llm_freeze ? 0 : out->n_llm);
    count_memory(out, spec, vocab);
    spec_memory(out, spec, vocab, n_tokens, is_on_gpu);
}
