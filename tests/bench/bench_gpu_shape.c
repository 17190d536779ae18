#include "tests/bench/bench_gpu_shape.h"

#include "common/base/rng.h"
#include "model/neva/internal.h"

#include <stdlib.h>

#define BLOCK ((int64_t)1 << 22) /* random numbers, repeated over each weight */
#define ROOM 0.9 /* of the free memory that a plan may take: it is good to a tenth */

static struct shape shape_7b(void)
{
    return (struct shape){
        .config =
            {
                .vision = {.image_size = 224,
                           .patch = 14,
                           .width = 1024,
                           .ffn_width = 4096,
                           .n_layers = 24,
                           .n_heads = 16,
                           .select_layer = -2,
                           .class_token_length = 1,
                           .act = ACT_QUICK_GELU,
                           .freeze = true,
                           .eps = 1e-5F,
                           .mean = {0.48145466F, 0.4578275F, 0.40821073F},
                           .std = {0.26862954F, 0.26130258F, 0.27577711F}},
                .projector = NEVA_PROJECTOR_MLP2X_GELU,
                .llm = {.vocab = 32000,
                        .width = 4096,
                        .ffn_width = 11008,
                        .n_layers = 32,
                        .n_heads = 32,
                        .n_kv_heads = 32,
                        .norm = {NN_NORM_RMS, 1e-5F},
                        .rope = {.rot_dims = 128, .theta = 10000}},
                .max_tokens = 4096,
                .dtype = DTYPE_BF16,
                .init_std = 0.02F,
                .seed = 1,
            },
        .n_tokens = 4096,
        .n_frames = 8,
        .n_labels = 1024,
        .n_prompt = 2112,
        .n_new = 128,
    };
}

/* What a fiber can do: the same with small numbers. */
static struct shape shape_tiny(void)
{
    struct shape s = shape_7b();

    s.config.vision.image_size = 28;
    s.config.vision.width = 32;
    s.config.vision.ffn_width = 64;
    s.config.vision.n_layers = 3;
    s.config.vision.n_heads = 2;
    s.config.llm.vocab = 64;
    s.config.llm.width = 32;
    s.config.llm.ffn_width = 48;
    s.config.llm.n_layers = 2;
    s.config.llm.n_heads = 2;
    s.config.llm.n_kv_heads = 2;
    s.config.llm.rope.rot_dims = 16;
    s.config.max_tokens = 32;
    s.n_tokens = 24;
    s.n_frames = 2;
    s.n_labels = 6;
    s.n_prompt = 12;
    s.n_new = 4;
    return s;
}

/* The quickstart's model. */
static struct shape shape_quickstart(void)
{
    struct shape s = shape_tiny();

    s.config.vision.image_size = 56;
    s.config.vision.width = 96;
    s.config.vision.ffn_width = 384;
    s.config.vision.n_heads = 4;
    s.config.llm.vocab = 512;
    s.config.llm.width = 96;
    s.config.llm.ffn_width = 256;
    s.config.llm.n_layers = 4;
    s.config.llm.n_heads = 4;
    s.config.llm.n_kv_heads = 4;
    s.config.llm.rope.rot_dims = 24;
    s.config.max_tokens = 128;
    s.n_tokens = 128;
    s.n_frames = 4;
    return s;
}

static struct shape shape_of(const struct bench *bench)
{
    return bench->is_tiny ? shape_tiny() : shape_7b();
}

struct shape shape_frozen(const struct bench *bench)
{
    struct shape s = shape_of(bench);

    s.config.llm.freeze = true;
    return s;
}

/* As many layers as fit. */
struct shape shape_trained(const struct bench *bench)
{
    struct shape s = shape_of(bench);
    struct backend_memory memory;

    bench->backend->ops->memory(bench->backend, &memory);
    s.config.recompute = NEVA_RECOMPUTE_FULL;
    s.config.recompute_layers = 1;
    while (s.config.llm.n_layers > 1 && memory.total > 0 &&
           (double)neva_plan_bytes(&s.config, 1, 1, s.n_tokens, s.n_frames, true) >
               ROOM * (double)memory.free)
        s.config.llm.n_layers--;
    return s;
}

struct shape shape_answer(const struct bench *bench)
{
    struct shape s = shape_frozen(bench);

    s.config.dtype = DTYPE_F16;
    return s;
}

struct shape shape_small(const struct bench *bench)
{
    return bench->is_tiny ? shape_tiny() : shape_quickstart();
}

struct neva_batch shape_batch(const struct shape *s, int64_t n_rows, int64_t n_tokens)
{
    return batch_make(&s->config, n_rows, n_tokens, s->n_frames, s->n_labels);
}

/* ---- a model whose weights are made on the device ---- */

/* Random numbers of both types, there once. */
struct noise {
    struct tensor f32, half;
};

static int noise_init(struct noise *noise, struct backend *b, enum dtype half, int64_t n,
                      struct err *err)
{
    struct rng_key key = {1, 3};
    float *host = must_alloc((size_t)n * sizeof(*host));
    int rc = -1;

    for (int64_t i = 0; i < n; i++)
        host[i] = (float)rng_normal(key, (uint64_t)i);
    if (backend_tensor(b, &noise->f32, DTYPE_F32, 1, &n, err) == 0 &&
        backend_tensor(b, &noise->half, half, 1, &n, err) == 0 &&
        b->ops->upload(b, noise->f32.data, host, tensor_bytes(&noise->f32), err) == 0 &&
        b->ops->cast(b, &noise->half, &noise->f32, err) == 0)
        rc = b->ops->sync(b, err);
    free(host);
    return rc;
}

static void noise_fini(struct noise *noise, struct backend *b)
{
    if (noise->f32.data)
        b->ops->free(b, noise->f32.data);
    if (noise->half.data)
        b->ops->free(b, noise->half.data);
}

static int fill_param(struct neva *model, struct param *param, const struct noise *noise,
                      struct err *err)
{
    struct backend *b = neva_backend(model);
    struct tensor to = param->master.data ? param->master : param->value;
    const struct tensor *from = to.dtype == DTYPE_F32 ? &noise->f32 : &noise->half;
    size_t all = tensor_bytes(&to), block = tensor_bytes(from);

    for (size_t at = 0; at < all; at += block)
        if (b->ops->copy(b, (char *)to.data + at, from->data,
                         all - at < block ? all - at : block, err) < 0)
            return -1;
    if (b->ops->scale(b, &to, param->init_std, err) < 0)
        return -1;
    return to.data == param->value.data ? 0 : b->ops->cast(b, &param->value, &to, err);
}

/* Norms and biases as they begin. */
static int fill_constant(struct neva *model, struct param *param, struct err *err)
{
    int64_t n = tensor_count(&param->value);
    float *host = must_alloc((size_t)n * sizeof(*host));
    int rc;

    neva_fresh_values(neva_config(model), param, 0, n, host);
    rc = neva_param_write(model, param, host, err);
    free(host);
    return rc;
}

int model_create(struct neva **out, struct bench *bench, const struct neva_config *config,
                 struct comm *solo, struct err *err)
{
    struct backend *b = bench->backend;
    struct noise noise = {0};
    int rc = -1;

    *out = NULL;
    if (noise_init(&noise, b, config->dtype, bench->is_tiny ? 1024 : BLOCK, err) == 0 &&
        neva_create_bare(out, config, b, solo, err) == 0)
        rc = 0;
    for (int i = 0; rc == 0 && i < neva_params(*out)->n_params; i++) {
        struct param *param = &neva_params(*out)->params[i];

        rc = param->init == INIT_NORMAL ? fill_param(*out, param, &noise, err)
                                        : fill_constant(*out, param, err);
    }
    noise_fini(&noise, b);
    if (rc < 0) {
        neva_destroy(*out);
        *out = NULL;
    }
    return rc;
}

/* ---- for a peer ---- */

static void print_shape(const char *name, const struct shape *s, const char *end)
{
    const struct neva_config *c = &s->config;

    printf(
        "\"%s\": {\"params\": %lld, \"tokens\": %lld, \"frames\": %lld, \"labels\": "
        "%lld, \"prompt\": %lld, \"new\": %lld, \"image_size\": %lld, \"patch\": %lld, "
        "\"vision_width\": %lld, \"vision_ffn\": %lld, \"vision_layers\": %lld, "
        "\"vision_heads\": %lld, \"select_layer\": %lld, \"vocab\": %lld, \"width\": "
        "%lld, \"ffn\": %lld, \"layers\": %lld, \"heads\": %lld, \"max_tokens\": "
        "%lld}%s",
        name, (long long)neva_n_params(c), (long long)s->n_tokens, (long long)s->n_frames,
        (long long)s->n_labels, (long long)s->n_prompt, (long long)s->n_new,
        (long long)c->vision.image_size, (long long)c->vision.patch,
        (long long)c->vision.width, (long long)c->vision.ffn_width,
        (long long)c->vision.n_layers, (long long)c->vision.n_heads,
        (long long)c->vision.select_layer, (long long)c->llm.vocab,
        (long long)c->llm.width, (long long)c->llm.ffn_width, (long long)c->llm.n_layers,
        (long long)c->llm.n_heads, (long long)c->max_tokens, end);
}

int bench_shapes(struct bench *bench, struct err *err)
{
    struct shape frozen = shape_frozen(bench), trained = shape_trained(bench);
    struct shape tiny = shape_small(bench);

    (void)err;
    printf("{");
    print_shape("frozen", &frozen, ", ");
    print_shape("trained", &trained, ", ");
    print_shape("tiny", &tiny, "}\n");
    return 0;
}
