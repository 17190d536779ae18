/* The layout must not change the mathematics: tensor-parallel ranks, data-parallel ranks,
 * micro batches, recomputation and backends give the same loss and gradients. */
#include "model/neva/neva.h"
#include "tests/op/expect.h"
#include "tests/op/tiny.h"

#include <stdlib.h>
#include <string.h>

#define SAMPLES 4
#define TOKENS 26
#define FRAMES_EACH 3 /* 12 frames: uneven over 4 ranks in micro batches of one sample */
#define SAME 1e-5

/* One layout: loss and whole gradients it gave. */
struct run {
    struct neva_config config;
    const char *backend;
    int n_ranks, n_data, n_micro; /* micro batches of each data rank */
    bool is_device;               /* pretends that memory is not the host's */
    double loss;
    int64_t n_labels;
    float *grad;
};

static int steps(struct tiny_rank *rank, struct run *run, struct neva *model,
                 const struct tiny_batch *all, struct err *err)
{
    double totals[2];

    if (tiny_global_batch(rank, model, all, run->n_micro, totals, err) < 0)
        return -1;
    if (rank->rank == 0 && rank->data_rank == 0) {
        run->loss = totals[0];
        run->n_labels = (int64_t)totals[1];
    }
    return neva_reduce_grad(model, err);
}

static void body(struct tiny_rank *rank)
{
    struct run *run = rank->arg;
    struct neva *model = NULL;
    struct backend_ops device = *rank->backend->ops;
    const struct backend_ops *kept = rank->backend->ops;
    struct tiny_batch all;
    struct err err = {0};

    device.is_host = false;
    if (run->is_device)
        rank->backend->ops = &device;
    tiny_batch_init(&all, &run->config, SAMPLES, TOKENS, FRAMES_EACH, 5);
    if (EXPECT_OK(neva_create(&model, &run->config, rank->backend, rank->tensor, &err),
                  &err) &&
        EXPECT_OK(steps(rank, run, model, &all, &err), &err) &&
        EXPECT_OK(tiny_sum_grads(rank, model, &err), &err) && rank->data_rank == 0)
        tiny_collect(model, TINY_GRAD, run->grad);
    neva_destroy(model);
    rank->backend->ops = kept;
    tiny_batch_fini(&all);
}

static struct run run_layout(const struct neva_config *config, const char *backend,
                             int n_ranks, int n_data, int n_micro)
{
    struct run run = {.config = *config,
                      .backend = backend,
                      .n_ranks = n_ranks,
                      .n_data = n_data,
                      .n_micro = n_micro};

    run.grad = calloc((size_t)neva_n_params(config), sizeof(float));
    tiny_run(backend, n_ranks, n_data, body, &run);
    return run;
}

/* The norm of the difference against the norm of all. */
static void compare_grads(const struct run *got, const struct run *want, double bound)
{
    int64_t n = neva_n_params(&want->config);
    double all = 0, diff = 0, worst = 0;

    for (int64_t i = 0; i < n; i++) {
        double d = (double)got->grad[i] - (double)want->grad[i];

        all += (double)want->grad[i] * (double)want->grad[i];
        diff += d * d;
        worst = fmax(worst, fabs(d));
    }
    EXPECT(all > 0);
    EXPECT_MSG(sqrt(diff) <= bound * sqrt(all) && isfinite(diff),
               "%s TP %d DP %d, %d micro batches: gradients differ by %g of the norm, at "
               "most %g",
               got->backend, got->n_ranks, got->n_data, got->n_micro, sqrt(diff / all),
               worst);
    EXPECT_MSG(got->n_labels == want->n_labels &&
                   expect_near(got->loss, want->loss, bound, 0),
               "%s TP %d DP %d, %d micro batches: loss %.9g of %lld labels, not %.9g of "
               "%lld",
               got->backend, got->n_ranks, got->n_data, got->n_micro, got->loss,
               (long long)got->n_labels, want->loss, (long long)want->n_labels);
}

/* Runs the layout and compares with `want`. bound 0: the same bits. */
static void expect_same(const struct run *want, const struct neva_config *config,
                        const char *backend, int n_ranks, int n_data, int n_micro,
                        double bound)
{
    struct run got = run_layout(config, backend, n_ranks, n_data, n_micro);

    compare_grads(&got, want, bound);
    free(got.grad);
}

static void layouts_of(const struct neva_config *config)
{
    struct run want = run_layout(config, "ref", 1, 1, 1);

    expect_same(&want, config, "ref", 1, 1, 2, SAME);
    expect_same(&want, config, "ref", 1, 1, 4, SAME);
    expect_same(&want, config, "ref", 2, 1, 1, SAME);
    expect_same(&want, config, "ref", 4, 1, 1, SAME);
    expect_same(&want, config, "ref", 4, 1, 4, SAME);
    expect_same(&want, config, "ref", 1, 2, 1, SAME);
    expect_same(&want, config, "ref", 2, 2, 2, SAME);
    free(want.grad);
}

static void tensor_and_data_ranks_and_micro_batches_change_nothing(void)
{
    struct neva_config config = tiny_config();

    layouts_of(&config);
}

static void nor_do_they_with_a_tied_head(void)
{
    struct neva_config config = tiny_config();

    config.llm.tied = true;
    config.projector = NEVA_PROJECTOR_LINEAR;
    config.vision.class_token_length = 0;
    layouts_of(&config);
}

static void nor_with_another_decoder(void)
{
    for (int decoder = 1; decoder < TINY_DECODER_COUNT; decoder++) {
        struct neva_config config = tiny_decoder_config((enum tiny_decoder)decoder);

        layouts_of(&config);
    }
}

static void nor_with_another_encoder_or_projector(void)
{
    for (int vision = 1; vision < TINY_VISION_COUNT; vision++) {
        struct neva_config config = tiny_vision_config((enum tiny_vision)vision);

        layouts_of(&config);
    }
}

static void nor_with_frozen_parts(void)
{
    struct neva_config config = tiny_config();

    config.llm.freeze = true;
    layouts_of(&config);
    config.vision.freeze = true;
    layouts_of(&config);
}

/* 5 words over 4 ranks: the last rank holds none. */
static void a_rank_without_vocabulary_takes_part(void)
{
    struct neva_config config = tiny_config();

    config.llm.vocab = 5;
    layouts_of(&config);
}

static void recomputation_of(struct neva_config config)
{
    static const struct {
        enum neva_recompute what;
        enum neva_recompute_method method;
        int64_t n;
    } ways[] = {
        {NEVA_RECOMPUTE_SELECTIVE, NEVA_RECOMPUTE_UNIFORM, 0},
        {NEVA_RECOMPUTE_FULL, NEVA_RECOMPUTE_UNIFORM, 1},
        {NEVA_RECOMPUTE_FULL, NEVA_RECOMPUTE_UNIFORM, 2},
        {NEVA_RECOMPUTE_FULL, NEVA_RECOMPUTE_UNIFORM, 9},
        {NEVA_RECOMPUTE_FULL, NEVA_RECOMPUTE_BLOCK, 2},
        {NEVA_RECOMPUTE_FULL, NEVA_RECOMPUTE_BLOCK, 9},
    };

    for (int frozen = 0; frozen < 2; frozen++) {
        struct run want;

        config.llm.freeze = frozen;
        config.recompute = NEVA_RECOMPUTE_NONE;
        want = run_layout(&config, "ref", 2, 1, 1);
        for (size_t i = 0; i < sizeof(ways) / sizeof(ways[0]); i++) {
            config.recompute = ways[i].what;
            config.recompute_method = ways[i].method;
            config.recompute_layers = ways[i].n;
            expect_same(&want, &config, "ref", 2, 1, 1, 0);
        }
        free(want.grad);
    }
}

static void recomputation_gives_the_same_bits(void)
{
    for (int decoder = 0; decoder < TINY_DECODER_COUNT; decoder++)
        recomputation_of(tiny_decoder_config((enum tiny_decoder)decoder));
    for (int vision = 1; vision < TINY_VISION_COUNT; vision++)
        recomputation_of(tiny_vision_config((enum tiny_vision)vision));
}

static void cpu_agrees_with_ref(struct neva_config config)
{
    struct run want = run_layout(&config, "ref", 1, 1, 1);

    expect_same(&want, &config, "cpu", 1, 1, 1, SAME);
    expect_same(&want, &config, "cpu", 2, 1, 2, SAME);
    config.dtype = DTYPE_BF16; /* 8 bits: an error of 2^-8 a rounding */
    expect_same(&want, &config, "cpu", 1, 1, 1, 0.05);
    expect_same(&want, &config, "ref", 2, 1, 1, 0.05);
    config.dtype = DTYPE_F16;
    expect_same(&want, &config, "ref", 2, 1, 1, 0.01);
    free(want.grad);
}

static void the_cpu_backend_agrees_with_ref(void)
{
    for (int decoder = 0; decoder < TINY_DECODER_COUNT; decoder++)
        cpu_agrees_with_ref(tiny_decoder_config((enum tiny_decoder)decoder));
    for (int vision = 1; vision < TINY_VISION_COUNT; vision++)
        cpu_agrees_with_ref(tiny_vision_config((enum tiny_vision)vision));
}

static void device_memory_is_exchanged_through_the_host(void)
{
    struct neva_config config = tiny_config();
    struct run want, got;

    for (int is_half = 0; is_half < 2; is_half++) {
        config.dtype = is_half ? DTYPE_BF16 : DTYPE_F32;
        want = run_layout(&config, "ref", 2, 1, 1);
        got = (struct run){.config = config,
                           .backend = "ref",
                           .n_ranks = 2,
                           .n_data = 1,
                           .n_micro = 1,
                           .is_device = true,
                           .grad = calloc((size_t)neva_n_params(&config), sizeof(float))};
        tiny_run("ref", 2, 1, body, &got);
        compare_grads(&got, &want, 0);
        free(got.grad);
        free(want.grad);
    }
}

int main(void)
{
    EXPECT_RUN(tensor_and_data_ranks_and_micro_batches_change_nothing);
    EXPECT_RUN(nor_do_they_with_a_tied_head);
    EXPECT_RUN(nor_with_another_decoder);
    EXPECT_RUN(nor_with_another_encoder_or_projector);
    EXPECT_RUN(nor_with_frozen_parts);
    EXPECT_RUN(a_rank_without_vocabulary_takes_part);
    EXPECT_RUN(recomputation_gives_the_same_bits);
    EXPECT_RUN(the_cpu_backend_agrees_with_ref);
    EXPECT_RUN(device_memory_is_exchanged_through_the_host);
    return expect_end();
}
