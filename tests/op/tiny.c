#include "tests/op/tiny.h"

#include "common/base/rng.h"
#include "tests/op/expect.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define COMM_TIMEOUT_MS 180000 /* fibers of a busy machine */
#define RANKS_MAX 8

const struct optim_config tiny_optim = {.lr = 1e-2F,
                                        .min_lr = 1e-3F,
                                        .warmup_steps = 1,
                                        .max_steps = 10,
                                        .beta1 = 0.9F,
                                        .beta2 = 0.95F,
                                        .eps = 1e-8F,
                                        .weight_decay = 0.1F,
                                        .clip = 1};

struct neva_config tiny_config(void)
{
    return (struct neva_config){
        .vision = {.image_size = 8,
                   .patch = 4,
                   .width = 12,
                   .ffn_width = 20,
                   .n_layers = 3,
                   .n_heads = 2,
                   .select_layer = -2,
                   .class_token_length = 1,
                   .act = ACT_QUICK_GELU,
                   .eps = 1e-5F,
                   .mean = {0.48F, 0.46F, 0.41F},
                   .std = {0.27F, 0.26F, 0.28F}},
        .projector = NEVA_PROJECTOR_MLP2X_GELU,
        .llm = {.vocab = 61,
                .width = 16,
                .ffn_width = 22,
                .n_layers = 3,
                .n_heads = 4,
                .n_kv_heads = 4,
                .norm = {NN_NORM_RMS, 1e-5F},
                .rope = {.rot_dims = 4, .theta = 10000}},
        .max_tokens = 64,
        .dtype = DTYPE_F32,
        .init_std = 0.2F,
        .scaled_init = true,
        .seed = 7,
    };
}

struct neva_config tiny_decoder_config(enum tiny_decoder decoder)
{
    struct neva_config config = tiny_config();

    switch (decoder) {
    case TINY_NEMOTRON:
        config.llm.norm.kind = NN_NORM_LAYER_1P;
        config.llm.mlp = NEVA_MLP_RELU_SQUARED;
        config.llm.rope.rot_dims = 2;
        break;
    case TINY_GPT:
        config.llm.norm.kind = NN_NORM_LAYER;
        config.llm.mlp = NEVA_MLP_GELU;
        config.llm.has_bias = true;
        break;
    case TINY_QWEN2:
        config.llm.has_qkv_bias = true;
        config.llm.rope.scaling = ROPE_LINEAR;
        config.llm.rope.factor = 3;
        break;
    default:
        break;
    }
    return config;
}

struct neva_config tiny_vision_config(enum tiny_vision vision)
{
    struct neva_config config = tiny_config();

    switch (vision) {
    case TINY_SIGLIP:
        config.vision.encoder = NEVA_ENCODER_SIGLIP;
        config.vision.image_size = 13;
        config.vision.class_token_length = 0;
        config.vision.has_head = true;
        config.vision.act = ACT_GELU_TANH;
        config.projector = NEVA_PROJECTOR_MLP_DOWNSAMPLE;
        break;
    case TINY_CLASS:
        config.vision.select_feature = NEVA_SELECT_CLS_PATCH;
        config.vision.select_layer = 2;
        config.projector_no_bias = true;
        break;
    default:
        break;
    }
    return config;
}

/* ---- batches ---- */

static void row_fill(struct tiny_batch *out, const struct neva_config *config,
                     int64_t sample, int64_t n_media, struct rng_key key)
{
    int64_t n_tokens = out->batch.n_tokens, vocab = config->llm.vocab;
    int64_t len = n_tokens - (int64_t)rng_below(key, (uint64_t)sample, 4);
    int32_t *tokens = out->tokens + sample * n_tokens;
    int32_t *labels = out->labels + sample * n_tokens;

    out->lens[sample] = (int32_t)len;
    for (int64_t t = 0; t < n_tokens; t++) {
        uint64_t draw = (uint64_t)(1000 + sample * n_tokens + t);

        tokens[t] = (int32_t)rng_below(key, draw, (uint64_t)vocab);
        labels[t] = -1;
        if (t >= 1 && t < 1 + n_media)
            tokens[t] = NEVA_TOKEN_MEDIA;
        else if (t >= len)
            tokens[t] = 0;
        else if (t > n_media && rng_u64(key, draw) & 1)
            labels[t] = (int32_t)rng_below(key, draw + 100000, (uint64_t)vocab);
    }
}

void tiny_batch_init(struct tiny_batch *out, const struct neva_config *config,
                     int64_t n_samples, int64_t n_tokens, int64_t n_frames_each,
                     uint64_t seed)
{
    struct rng_key key = {seed, rng_stream("tiny")};
    size_t n = (size_t)(n_samples * n_tokens), side = (size_t)config->vision.image_size;
    size_t n_pixels = (size_t)(n_samples * n_frames_each) * side * side * 3;

    *out = (struct tiny_batch){.tokens = calloc(n, sizeof(int32_t)),
                               .labels = calloc(n, sizeof(int32_t)),
                               .lens = calloc((size_t)n_samples, sizeof(int32_t)),
                               .pixels = calloc(n_pixels + 1, 1)};
    out->batch = (struct neva_batch){n_samples,   n_tokens,  out->tokens,
                                     out->labels, out->lens, n_samples * n_frames_each,
                                     out->pixels};
    for (int64_t i = 0; i < n_samples; i++)
        row_fill(out, config, i, n_frames_each * neva_features(config), key);
    for (size_t i = 0; i < n_pixels; i++)
        out->pixels[i] = (uint8_t)rng_below(key, 1000000 + i, 256);
}

void tiny_batch_fini(struct tiny_batch *batch)
{
    free(batch->tokens);
    free(batch->labels);
    free(batch->lens);
    free(batch->pixels);
}

struct neva_batch tiny_part(const struct tiny_batch *all,
                            const struct neva_config *config, int64_t first,
                            int64_t count, int rank, int n_ranks)
{
    struct neva_batch part = all->batch;
    int64_t frames_each = part.n_frames / part.n_samples,
            side = config->vision.image_size;
    int64_t n_frames = count * frames_each, share = n_frames / n_ranks;
    int64_t rest = n_frames % n_ranks;
    int64_t frame = first * frames_each + rank * share + (rank < rest ? rank : rest);

    part.n_samples = count;
    part.n_frames = n_frames;
    part.tokens += first * part.n_tokens;
    part.labels += first * part.n_tokens;
    part.lens += first;
    part.pixels += frame * side * side * 3;
    return part;
}

int tiny_evaluate(struct neva *model, const struct neva_batch *batch,
                  struct neva_loss *loss, struct err *err)
{
    if (neva_begin_evaluation(model, err) < 0 ||
        neva_evaluate(model, batch, loss, err) < 0)
        return -1;
    return neva_end_evaluation(model, &loss->sum, err);
}

/* ---- ranks ---- */

struct job {
    struct tiny_rank rank;
    void (*body)(struct tiny_rank *rank);
};

static void *job_main(void *arg)
{
    struct job *job = arg;
    struct tiny_rank *rank = &job->rank;
    struct err err = {0};

    if (EXPECT_OK(nn_open_group(rank->backend, rank->tensor, &err), &err) &&
        EXPECT_OK(nn_open_group(rank->backend, rank->data, &err), &err))
        job->body(rank);
    return NULL;
}

static void group_create(struct comm **out, const char *name, int n)
{
    struct err err = {0};

    if (n == 1)
        EXPECT_OK(comm_create_solo(out, name, &err), &err);
    else
        EXPECT_OK(comm_create_threads(out, name, n, COMM_TIMEOUT_MS, &err), &err);
}

void tiny_run_on(const char *backend, int n_devices, int n_ranks, int n_data,
                 void (*body)(struct tiny_rank *rank), void *arg)
{
    struct comm *tensor[RANKS_MAX][RANKS_MAX], *data[RANKS_MAX][RANKS_MAX];
    struct job jobs[RANKS_MAX * RANKS_MAX];
    pthread_t threads[RANKS_MAX * RANKS_MAX];
    struct err err = {0};
    int n = n_ranks * n_data;

    for (int d = 0; d < n_data; d++)
        group_create(tensor[d], "tensor", n_ranks);
    for (int r = 0; r < n_ranks; r++)
        group_create(data[r], "data", n_data);
    for (int i = 0; i < n; i++) {
        int r = i % n_ranks, d = i / n_ranks;

        jobs[i] = (struct job){
            {r, n_ranks, d, n_data, tensor[d][r], data[r][d], NULL, arg}, body};
        EXPECT_OK(backend_create(&jobs[i].rank.backend, backend, i % n_devices, 1, &err),
                  &err);
    }
    for (int i = 0; i < n; i++)
        EXPECT(pthread_create(&threads[i], NULL, job_main, &jobs[i]) == 0);
    for (int i = 0; i < n; i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < n; i++) {
        comm_destroy(jobs[i].rank.tensor);
        comm_destroy(jobs[i].rank.data);
        backend_destroy(jobs[i].rank.backend);
    }
}

void tiny_run(const char *backend, int n_ranks, int n_data,
              void (*body)(struct tiny_rank *rank), void *arg)
{
    tiny_run_on(backend, 1, n_ranks, n_data, body, arg);
}

/* ---- what ranks do, and what came out of it ---- */

int tiny_global_batch(struct tiny_rank *rank, struct neva *model,
                      const struct tiny_batch *all, int n_micro, double totals[2],
                      struct err *err)
{
    int64_t each = all->batch.n_samples / rank->n_data / n_micro;

    for (int i = 0; i < n_micro; i++) {
        int64_t first = (rank->data_rank * n_micro + i) * each;
        struct neva_batch part =
            tiny_part(all, neva_config(model), first, each, rank->rank, rank->n_ranks);
        struct neva_loss loss;

        if (neva_step(model, &part, &loss, err) < 0)
            return -1;
    }
    return tiny_totals(rank, model, totals, err);
}

int tiny_totals(struct tiny_rank *rank, struct neva *model, double totals[2],
                struct err *err)
{
    struct neva_loss loss;

    if (neva_read_loss(model, &loss, err) < 0)
        return -1;
    totals[0] = loss.sum;
    totals[1] = (double)loss.n_labels;
    return comm_all_reduce_f64(rank->data, totals, 2, COMM_SUM, err);
}

int tiny_sum_grads(struct tiny_rank *rank, struct neva *model, struct err *err)
{
    struct param_table *table = neva_params(model);

    for (int i = 0; i < table->n_params; i++) {
        const struct tensor *grad = &table->params[i].grad;

        if (grad->data && comm_all_reduce(rank->data, grad->data, tensor_count(grad),
                                          COMM_SUM, err) < 0)
            return -1;
    }
    return 0;
}

void tiny_collect(struct neva *model, enum tiny_what what, float *out)
{
    struct param_table *table = neva_params(model);
    struct backend *b = neva_backend(model);
    bool is_first = comm_rank(neva_tensor_group(model)) == 0;
    struct err err = {0};

    for (int i = 0; i < table->n_params; i++) {
        const struct param *param = &table->params[i];
        struct param_slice s = param_slice(param);
        struct tensor x = what == TINY_VALUE  ? param->master
                          : what == TINY_GRAD ? param->grad
                                              : param->m;
        float *local = malloc(tensor_bytes(&param->value) * 4);

        if (x.data && (param->shard_axis >= 0 || is_first)) {
            EXPECT_OK(b->ops->download(b, local, x.data, tensor_bytes(&x), &err), &err);
            for (int64_t o = 0; o < s.outer; o++)
                memcpy(out + (o * s.whole + s.first) * s.inner,
                       local + o * s.local * s.inner,
                       (size_t)(s.n_real * s.inner) * sizeof(float));
        }
        free(local);
        out += s.outer * s.whole * s.inner;
    }
}

double tiny_distance(const float *got, const float *want, int64_t n)
{
    double diff = 0, all = 0;

    for (int64_t i = 0; i < n; i++) {
        double d = (double)got[i] - (double)want[i];

        diff += d * d;
        all += (double)want[i] * (double)want[i];
    }
    return sqrt(diff / all);
}
