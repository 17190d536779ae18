/* What a micro batch holds must not change what its rank exchanges with the others: text
 * alone, images and videos side by side and several of them in a row, dealt out so that
 * some ranks have no media at all. Losses, gradients and updates are those of one rank. */
#include "common/base/rng.h"
#include "model/neva/neva.h"
#include "model/optim/optim.h"
#include "tests/op/expect.h"
#include "tests/op/tiny.h"

#include <stdlib.h>

#define SAMPLES 8
#define TOKENS 36
#define STEPS 2
#define PLACES 2 /* of media in a row */
#define SAME 1e-5
#define SAME_WEIGHTS 1e-4 /* behind AdamW, which divides by small numbers */

/* Frames in each place. Micro batches of two: none, videos and images, an image, a video;
 * of one: half of them have none. */
static const int64_t frames_of[SAMPLES][PLACES] = {
    {0, 0}, {0, 0}, {3, 0}, {1, 2}, {1, 0}, {0, 0}, {0, 0}, {1, 1},
};

struct mixed {
    int32_t tokens[SAMPLES * TOKENS], labels[SAMPLES * TOKENS], lens[SAMPLES];
    uint8_t *pixels;
};

static int64_t n_frames(int64_t first, int64_t count)
{
    int64_t n = 0;

    for (int64_t i = first; i < first + count; i++)
        for (int place = 0; place < PLACES; place++)
            n += frames_of[i][place];
    return n;
}

/* Two words before every place, text up to the row's end. */
static void row_fill(struct mixed *mixed, const struct neva_config *config,
                     int64_t sample, struct rng_key key)
{
    int32_t *tokens = mixed->tokens + sample * TOKENS;
    int32_t *labels = mixed->labels + sample * TOKENS;
    int64_t len = TOKENS - sample % 3, at = 0;

    mixed->lens[sample] = (int32_t)len;
    for (int64_t t = 0; t < TOKENS; t++) {
        uint64_t draw = (uint64_t)(sample * TOKENS + t);

        tokens[t] =
            t < len ? (int32_t)rng_below(key, draw, (uint64_t)config->llm.vocab) : 0;
        labels[t] = -1;
    }
    for (int place = 0; place < PLACES; place++) {
        int64_t n = frames_of[sample][place] * neva_features(config);

        at += 2;
        for (int64_t i = 0; i < n; i++)
            tokens[at++] = NEVA_TOKEN_MEDIA;
    }
    EXPECT(at + 2 < len);
    for (int64_t t = at; t + 1 < len; t++)
        labels[t] = tokens[t + 1];
}

static void mixed_init(struct mixed *mixed, const struct neva_config *config)
{
    struct rng_key key = {5, rng_stream("mixed")};
    int64_t side = config->vision.image_size;
    int64_t n = n_frames(0, SAMPLES) * side * side * 3;

    *mixed = (struct mixed){.pixels = malloc((size_t)n)};
    for (int64_t i = 0; i < SAMPLES; i++)
        row_fill(mixed, config, i, key);
    for (int64_t i = 0; i < n; i++)
        mixed->pixels[i] = (uint8_t)rng_below(key, (uint64_t)(1000000 + i), 256);
}

/* Samples [first, first + count), with the frames that this rank encodes. */
static struct neva_batch part_of(const struct mixed *mixed, const struct neva *model,
                                 int64_t first, int64_t count)
{
    int64_t side = neva_config(model)->vision.image_size, frame, n_mine;
    int64_t n = n_frames(first, count);

    neva_frame_range(model, n, &frame, &n_mine);
    frame += n_frames(0, first);
    return (struct neva_batch){.n_samples = count,
                               .n_tokens = TOKENS,
                               .tokens = mixed->tokens + first * TOKENS,
                               .labels = mixed->labels + first * TOKENS,
                               .lens = mixed->lens + first,
                               .n_frames = n,
                               .pixels = mixed->pixels + frame * side * side * 3};
}

/* ---- one layout ---- */

struct run {
    struct neva_config config;
    int n_ranks, n_data, n_micro; /* micro batches of each data rank */
    double loss[STEPS], norm[STEPS];
    float *grads; /* of the first step */
    float *values;
};

/* One global batch. totals: loss and labels of all data ranks. */
static int global_batch(struct tiny_rank *rank, const struct run *run, struct neva *model,
                        const struct mixed *mixed, double totals[2], struct err *err)
{
    int64_t each = SAMPLES / run->n_data / run->n_micro;

    for (int i = 0; i < run->n_micro; i++) {
        int64_t first = (rank->data_rank * run->n_micro + i) * each;
        struct neva_batch part = part_of(mixed, model, first, each);
        struct neva_loss loss;

        if (neva_step(model, &part, &loss, err) < 0)
            return -1;
    }
    return tiny_totals(rank, model, totals, err);
}

/* Gradients of all data ranks together, whole. */
static int collect_grads(struct tiny_rank *rank, const struct run *run,
                         struct neva *model, struct err *err)
{
    if (neva_reduce_grad(model, err) < 0 || tiny_sum_grads(rank, model, err) < 0)
        return -1;
    if (rank->data_rank == 0)
        tiny_collect(model, TINY_GRAD, run->grads);
    return 0;
}

static int train(struct tiny_rank *rank, struct run *run, struct neva *model,
                 const struct mixed *mixed, struct err *err)
{
    double totals[2];

    if (global_batch(rank, run, model, mixed, totals, err) < 0 ||
        collect_grads(rank, run, model, err) < 0 || neva_zero_grad(model, err) < 0)
        return -1;
    for (int step = 0; step < STEPS; step++) {
        struct optim_report report;

        if (global_batch(rank, run, model, mixed, totals, err) < 0 ||
            optim_step(model, rank->data, &tiny_optim, step, (int64_t)totals[1], &report,
                       err) < 0)
            return -1;
        if (rank->rank == 0 && rank->data_rank == 0) {
            run->loss[step] = totals[0];
            run->norm[step] = report.grad_norm;
        }
    }
    if (rank->data_rank == 0)
        tiny_collect(model, TINY_VALUE, run->values);
    return 0;
}

static void body(struct tiny_rank *rank)
{
    struct run *run = rank->arg;
    struct neva *model = NULL;
    struct mixed mixed;
    struct err err = {0};

    mixed_init(&mixed, &run->config);
    if (EXPECT_OK(neva_create(&model, &run->config, rank->backend, rank->tensor, &err),
                  &err))
        EXPECT_OK(train(rank, run, model, &mixed, &err), &err);
    neva_destroy(model);
    free(mixed.pixels);
}

static struct run run_layout(const struct neva_config *config, int n_ranks, int n_data,
                             int n_micro)
{
    size_t n = (size_t)neva_n_params(config);
    struct run run = {.config = *config,
                      .n_ranks = n_ranks,
                      .n_data = n_data,
                      .n_micro = n_micro,
                      .grads = calloc(n, sizeof(float)),
                      .values = calloc(n, sizeof(float))};

    tiny_run("ref", n_ranks, n_data, body, &run);
    return run;
}

static void run_fini(struct run *run)
{
    free(run->grads);
    free(run->values);
}

static void expect_same(const struct run *want, int n_ranks, int n_data, int n_micro)
{
    struct run got = run_layout(&want->config, n_ranks, n_data, n_micro);
    int64_t n = neva_n_params(&want->config);

    for (int step = 0; step < STEPS; step++) {
        EXPECT_MSG(expect_near(got.loss[step], want->loss[step], SAME, 0),
                   "TP %d DP %d, %d micro batches: loss %.9g, not %.9g, in step %d",
                   n_ranks, n_data, n_micro, got.loss[step], want->loss[step], step);
        EXPECT(expect_near(got.norm[step], want->norm[step], SAME, 0));
    }
    EXPECT_MSG(tiny_distance(got.grads, want->grads, n) <= SAME,
               "TP %d DP %d, %d micro batches: gradients differ by %g of their norm",
               n_ranks, n_data, n_micro, tiny_distance(got.grads, want->grads, n));
    EXPECT_MSG(tiny_distance(got.values, want->values, n) <= SAME_WEIGHTS,
               "TP %d DP %d, %d micro batches: weights differ by %g of their norm",
               n_ranks, n_data, n_micro, tiny_distance(got.values, want->values, n));
    run_fini(&got);
}

static void layouts_of(const struct neva_config *config)
{
    static const int layouts[][3] = {{1, 1, 4}, {2, 1, 1}, {2, 1, 8}, {1, 2, 2},
                                     {1, 4, 1}, {1, 8, 1}, {2, 2, 1}, {2, 2, 4},
                                     {2, 4, 1}, {4, 1, 4}};
    struct run want = run_layout(config, 1, 1, 1);

    EXPECT(want.loss[1] < want.loss[0]);
    for (size_t i = 0; i < sizeof(layouts) / sizeof(layouts[0]); i++)
        expect_same(&want, layouts[i][0], layouts[i][1], layouts[i][2]);
    run_fini(&want);
}

static void ranks_with_and_without_media_do_the_same(void)
{
    for (int vision = 0; vision < TINY_VISION_COUNT; vision++) {
        struct neva_config config = tiny_vision_config((enum tiny_vision)vision);

        layouts_of(&config);
    }
}

static void they_do_with_frozen_parts(void)
{
    struct neva_config config = tiny_config();

    config.vision.freeze = true;
    layouts_of(&config);
    config.llm.freeze = true; /* nothing is left to train without media */
    layouts_of(&config);
}

int main(void)
{
    EXPECT_RUN(ranks_with_and_without_media_do_the_same);
    EXPECT_RUN(they_do_with_frozen_parts);
    return expect_end();
}
