#include "model/neva/internal.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Names are those of LlavaForConditionalGeneration.state_dict() in Hugging Face
 * transformers 4.52 and later, with a decoder of one of its classes Llama, Mistral, Qwen2,
 * StableLm (all gated) and Nemotron. Source: https://github.com/huggingface/transformers,
 * src/transformers/models: llava, clip, siglip and those decoders. mlp_downsample, which
 * that class does not have, has its norm beside linear_1 and linear_2. */
#define VISION "model.vision_tower.vision_model."
#define PROJECTOR "model.multi_modal_projector."
#define LLM "model.language_model."

struct param *param_find(const struct param_table *table, const char *name)
{
    for (int i = 0; i < table->n_params; i++)
        if (strcmp(table->params[i].name, name) == 0)
            return &table->params[i];
    return NULL;
}

struct param_slice param_slice(const struct param *param)
{
    int axis = param->shard_axis < 0 ? 0 : param->shard_axis;
    struct param_slice slice = {.outer = 1, .inner = 1};

    for (int i = 0; i < axis; i++)
        slice.outer *= param->dims[i];
    for (int i = axis + 1; i < param->n_dims; i++)
        slice.inner *= param->dims[i];
    slice.whole = param->dims[axis];
    slice.local = param->local_dims[axis];
    slice.first = param->shard_axis < 0 ? 0 : param->first;
    slice.n_real = param->shard_axis < 0 ? slice.whole : param->n_real;
    return slice;
}

void param_table_fini(struct param_table *table)
{
    free(table->params);
    *table = (struct param_table){0};
}

struct builder {
    const struct neva_config *config;
    struct param *params; /* NULL: only counting */
    int n_params;
    int rank, n_ranks;
    enum param_group group;
    bool is_trained;
};

/* This rank's slice: whole units of the axis, padding behind the last. */
static void shard(struct param *param, int rank, int n_ranks)
{
    int axis = param->shard_axis;
    int64_t n, share, first, last;

    memcpy(param->local_dims, param->dims, sizeof(param->dims));
    if (axis < 0)
        return;
    n = param->dims[axis] / param->unit;
    share = (n + n_ranks - 1) / n_ranks;
    first = rank * share < n ? rank * share : n;
    last = first + share < n ? first + share : n;
    param->first = first * param->unit;
    param->n_real = (last - first) * param->unit;
    param->local_dims[axis] = share * param->unit;
}

/* Adds a parameter whose shape, sharding and initialisation `spec` gives. */
static void add(struct builder *b, struct param spec, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static void add(struct builder *b, struct param spec, const char *format, ...)
{
    va_list args;

    if (b->params) {
        va_start(args, format);
        vsnprintf(spec.name, sizeof(spec.name), format, args);
        va_end(args);
        spec.group = b->group;
        spec.is_trained = b->is_trained;
        spec.decay = spec.n_dims > 1;
        shard(&spec, b->rank, b->n_ranks);
        b->params[b->n_params] = spec;
    }
    b->n_params++;
}

static struct param vector(int64_t n, enum param_init init)
{
    return (struct param){.n_dims = 1, .dims = {n}, .shard_axis = -1, .init = init};
}

static struct param matrix(int64_t rows, int64_t columns, float std)
{
    return (struct param){.n_dims = 2,
                          .dims = {rows, columns},
                          .shard_axis = -1,
                          .init = INIT_NORMAL,
                          .init_std = std};
}

static struct param sharded(struct param spec, int axis, int64_t unit)
{
    spec.shard_axis = axis;
    spec.unit = unit;
    return spec;
}

static struct param joined(struct param spec)
{
    spec.is_joined = true;
    return spec;
}

/* Standard deviation of the layers that write into the residual stream. */
static float output_std(const struct neva_config *config, int64_t n_layers)
{
    float std = config->init_std;

    return config->scaled_init ? std / sqrtf(2.0F * (float)n_layers) : std;
}

/* ---- the vision encoder: every rank has all of it ---- */

static void add_vision_layer(struct builder *b, int64_t layer)
{
    const struct neva_config *config = b->config;
    int64_t d = config->vision.width, f = config->vision.ffn_width;
    float std = config->init_std, out = output_std(config, config->vision.n_layers);
    static const char *const heads[] = {"q", "k", "v"};
    long long n = layer;

    add(b, vector(d, INIT_ONE), VISION "encoder.layers.%lld.layer_norm1.weight", n);
    add(b, vector(d, INIT_ZERO), VISION "encoder.layers.%lld.layer_norm1.bias", n);
    for (int i = 0; i < 3; i++)
        add(b, i ? joined(matrix(d, d, std)) : matrix(d, d, std),
            VISION "encoder.layers.%lld.self_attn.%s_proj.weight", n, heads[i]);
    for (int i = 0; i < 3; i++)
        add(b, i ? joined(vector(d, INIT_ZERO)) : vector(d, INIT_ZERO),
            VISION "encoder.layers.%lld.self_attn.%s_proj.bias", n, heads[i]);
    add(b, matrix(d, d, out), VISION "encoder.layers.%lld.self_attn.out_proj.weight", n);
    add(b, vector(d, INIT_ZERO), VISION "encoder.layers.%lld.self_attn.out_proj.bias", n);
    add(b, vector(d, INIT_ONE), VISION "encoder.layers.%lld.layer_norm2.weight", n);
    add(b, vector(d, INIT_ZERO), VISION "encoder.layers.%lld.layer_norm2.bias", n);
    add(b, matrix(f, d, std), VISION "encoder.layers.%lld.mlp.fc1.weight", n);
    add(b, vector(f, INIT_ZERO), VISION "encoder.layers.%lld.mlp.fc1.bias", n);
    add(b, matrix(d, f, out), VISION "encoder.layers.%lld.mlp.fc2.weight", n);
    add(b, vector(d, INIT_ZERO), VISION "encoder.layers.%lld.mlp.fc2.bias", n);
}

static void add_vision_embeddings(struct builder *b)
{
    const struct neva_config *config = b->config;
    bool is_siglip = config->vision.encoder == NEVA_ENCODER_SIGLIP;
    int64_t d = config->vision.width, p = config->vision.patch;
    float std = config->init_std;
    struct param patch = {.n_dims = 4,
                          .dims = {d, 3, p, p},
                          .shard_axis = -1,
                          .init = INIT_NORMAL,
                          .init_std = std};

    if (config->vision.class_token_length) {
        struct param class_embedding = vector(d, INIT_NORMAL);

        class_embedding.init_std = std;
        add(b, class_embedding, VISION "embeddings.class_embedding");
    }
    add(b, patch, VISION "embeddings.patch_embedding.weight");
    if (is_siglip)
        add(b, vector(d, INIT_ZERO), VISION "embeddings.patch_embedding.bias");
    add(b, matrix(neva_vision_tokens(config), d, std),
        VISION "embeddings.position_embedding.weight");
    if (is_siglip)
        return;
    add(b, vector(d, INIT_ONE), VISION "pre_layrnorm.weight"); /* sic */
    add(b, vector(d, INIT_ZERO), VISION "pre_layrnorm.bias");
}

/* SigLIP's attention pooling: nothing here runs it. */
static void add_vision_head(struct builder *b)
{
    const struct neva_config *config = b->config;
    int64_t d = config->vision.width, f = config->vision.ffn_width;
    float std = config->init_std;
    struct param probe = {.n_dims = 3,
                          .dims = {1, 1, d},
                          .shard_axis = -1,
                          .init = INIT_NORMAL,
                          .init_std = std};

    add(b, probe, VISION "head.probe");
    add(b, matrix(3 * d, d, std), VISION "head.attention.in_proj_weight");
    add(b, vector(3 * d, INIT_ZERO), VISION "head.attention.in_proj_bias");
    add(b, matrix(d, d, std), VISION "head.attention.out_proj.weight");
    add(b, vector(d, INIT_ZERO), VISION "head.attention.out_proj.bias");
    add(b, vector(d, INIT_ONE), VISION "head.layernorm.weight");
    add(b, vector(d, INIT_ZERO), VISION "head.layernorm.bias");
    add(b, matrix(f, d, std), VISION "head.mlp.fc1.weight");
    add(b, vector(f, INIT_ZERO), VISION "head.mlp.fc1.bias");
    add(b, matrix(d, f, std), VISION "head.mlp.fc2.weight");
    add(b, vector(d, INIT_ZERO), VISION "head.mlp.fc2.bias");
}

static void add_vision(struct builder *b)
{
    const struct neva_config *config = b->config;
    int64_t d = config->vision.width;

    b->group = PARAM_VISION;
    b->is_trained = !config->vision.freeze;
    add_vision_embeddings(b);
    for (int64_t i = 0; i < config->vision.n_layers; i++) {
        if (i >= neva_vision_layers(config))
            b->is_trained = false; /* behind the selected layer: carried, never run */
        add_vision_layer(b, i);
    }
    b->is_trained = false;
    add(b, vector(d, INIT_ONE), VISION "post_layernorm.weight");
    add(b, vector(d, INIT_ZERO), VISION "post_layernorm.bias");
    if (config->vision.has_head)
        add_vision_head(b);
}

static void add_projector(struct builder *b)
{
    const struct neva_config *config = b->config;
    int64_t from = config->vision.width * neva_feature_rows(config);
    int64_t to = config->llm.width;

    b->group = PARAM_PROJECTOR;
    b->is_trained = true;
    if (config->projector == NEVA_PROJECTOR_MLP_DOWNSAMPLE) {
        add(b, vector(from, INIT_ONE), PROJECTOR "norm.weight");
        add(b, vector(from, INIT_ZERO), PROJECTOR "norm.bias");
    }
    add(b, matrix(to, from, config->init_std), PROJECTOR "linear_1.weight");
    if (!config->projector_no_bias)
        add(b, vector(to, INIT_ZERO), PROJECTOR "linear_1.bias");
    if (config->projector == NEVA_PROJECTOR_LINEAR)
        return;
    add(b, matrix(to, to, config->init_std), PROJECTOR "linear_2.weight");
    if (!config->projector_no_bias)
        add(b, vector(to, INIT_ZERO), PROJECTOR "linear_2.bias");
}

/* ---- the decoder ---- */

static void add_llm_norm(struct builder *b, const char *name)
{
    enum nn_norm_kind kind = b->config->llm.norm.kind;
    int64_t d = b->config->llm.width;

    add(b, vector(d, kind == NN_NORM_LAYER_1P ? INIT_ZERO : INIT_ONE), LLM "%s.weight",
        name);
    if (kind != NN_NORM_RMS)
        add(b, vector(d, INIT_ZERO), LLM "%s.bias", name);
}

static void add_llm_attention(struct builder *b, int64_t layer)
{
    const struct neva_config *config = b->config;
    int64_t d = config->llm.width, k = d / config->llm.n_heads;
    int64_t kv = config->llm.n_kv_heads * k;
    const int64_t rows[] = {d, kv, kv};
    float std = config->init_std, out = output_std(config, config->llm.n_layers);
    static const char *const heads[] = {"q", "k", "v"};
    long long n = layer;

    for (int i = 0; i < 3; i++) {
        struct param w = sharded(matrix(rows[i], d, std), 0, k);

        add(b, i ? joined(w) : w, LLM "layers.%lld.self_attn.%s_proj.weight", n,
            heads[i]);
    }
    for (int i = 0; i < 3 && (config->llm.has_bias || config->llm.has_qkv_bias); i++) {
        struct param bias = sharded(vector(rows[i], INIT_ZERO), 0, k);

        add(b, i ? joined(bias) : bias, LLM "layers.%lld.self_attn.%s_proj.bias", n,
            heads[i]);
    }
    add(b, sharded(matrix(d, d, out), 1, k), LLM "layers.%lld.self_attn.o_proj.weight",
        n);
    if (config->llm.has_bias)
        add(b, vector(d, INIT_ZERO), LLM "layers.%lld.self_attn.o_proj.bias", n);
}

static void add_llm_mlp(struct builder *b, int64_t layer)
{
    const struct neva_config *config = b->config;
    int64_t d = config->llm.width, f = config->llm.ffn_width;
    bool is_gated = config->llm.mlp == NEVA_MLP_SWIGLU;
    struct param up = sharded(matrix(f, d, config->init_std), 0, 1);
    struct param up_bias = sharded(vector(f, INIT_ZERO), 0, 1);
    struct param down =
        sharded(matrix(d, f, output_std(config, config->llm.n_layers)), 1, 1);
    long long n = layer;

    if (is_gated)
        add(b, up, LLM "layers.%lld.mlp.gate_proj.weight", n);
    add(b, is_gated ? joined(up) : up, LLM "layers.%lld.mlp.up_proj.weight", n);
    if (is_gated && config->llm.has_bias)
        add(b, up_bias, LLM "layers.%lld.mlp.gate_proj.bias", n);
    if (config->llm.has_bias)
        add(b, is_gated ? joined(up_bias) : up_bias, LLM "layers.%lld.mlp.up_proj.bias",
            n);
    add(b, down, LLM "layers.%lld.mlp.down_proj.weight", n);
    if (config->llm.has_bias)
        add(b, vector(d, INIT_ZERO), LLM "layers.%lld.mlp.down_proj.bias", n);
}

static void add_llm_layer(struct builder *b, int64_t layer)
{
    char name[PARAM_NAME_MAX];

    snprintf(name, sizeof(name), "layers.%lld.input_layernorm", (long long)layer);
    add_llm_norm(b, name);
    add_llm_attention(b, layer);
    snprintf(name, sizeof(name), "layers.%lld.post_attention_layernorm",
             (long long)layer);
    add_llm_norm(b, name);
    add_llm_mlp(b, layer);
}

static void add_llm(struct builder *b)
{
    const struct neva_config *config = b->config;
    struct param vocab =
        sharded(matrix(config->llm.vocab, config->llm.width, config->init_std), 0, 1);

    b->group = PARAM_LLM;
    b->is_trained = !config->llm.freeze;
    add(b, vocab, LLM "embed_tokens.weight");
    for (int64_t i = 0; i < config->llm.n_layers; i++)
        add_llm_layer(b, i);
    add_llm_norm(b, "norm");
    if (!config->llm.tied)
        add(b, vocab, "lm_head.weight");
}

int param_table_build(struct param_table *table, const struct neva_config *config,
                      int rank, int n_ranks, struct err *err)
{
    struct builder b = {.config = config, .rank = rank, .n_ranks = n_ranks};

    for (int pass = 0; pass < 2; pass++) { /* count, then fill */
        b.n_params = 0;
        add_vision(&b);
        add_projector(&b);
        add_llm(&b);
        if (pass == 0) {
            b.params = calloc((size_t)b.n_params, sizeof(*b.params));
            if (!b.params)
                return err_set(err, ERR_NOMEM, "cannot allocate a table of %d parameters",
                               b.n_params);
        }
    }
    *table = (struct param_table){b.params, b.n_params};
    return 0;
}

/* ---- memory ---- */

static struct tensor place(const struct param *param, enum dtype dtype,
                           struct arena *arena)
{
    if (param->is_joined)
        return arena_take_joined(arena, dtype, param->n_dims, param->local_dims);
    return arena_take(arena, dtype, param->n_dims, param->local_dims);
}

void param_table_layout(struct param_table *table, enum param_part part, enum dtype dtype,
                        struct arena *arena)
{
    for (int i = 0; i < table->n_params; i++) {
        struct param *param = &table->params[i];

        if (part == PARAM_VALUE) {
            param->value = place(param, dtype, arena);
            if (dtype == DTYPE_F32)
                param->master = param->value;
        }
        if (!param->is_trained)
            continue;
        if (part == PARAM_MASTER && dtype != DTYPE_F32)
            param->master = place(param, DTYPE_F32, arena);
        if (part == PARAM_GRAD)
            param->grad = place(param, DTYPE_F32, arena);
        if (part == PARAM_MOMENTS) {
            param->m = arena_take(arena, DTYPE_F32, param->n_dims, param->local_dims);
            param->v = arena_take(arena, DTYPE_F32, param->n_dims, param->local_dims);
        }
    }
}
