/* Training with a loss scale: what it changes in fp16, that it changes nothing in fp32, and
 * steps that are skipped on all ranks because a gradient overflowed on one. */
#include "model/optim/loss_scale.h"
#include "model/optim/optim.h"
#include "tests/op/expect.h"
#include "tests/op/tiny.h"

#include <stdlib.h>
#include <string.h>

#define SAMPLES 4
#define TOKENS 26
#define FRAMES_EACH 2
#define STEPS_MAX 40

struct scaled {
    struct neva_config config;
    struct loss_scale_config scale;
    int n_steps;
    uint64_t bad;  /* bit: in this step a gradient of the last rank overflows */
    float *values; /* whole, after the last step */
    double loss[STEPS_MAX], norm[STEPS_MAX], scales[STEPS_MAX];
    uint64_t skipped[8]; /* by rank: which steps were skipped there */
    int64_t n_skipped;
};

static int rank_of(const struct tiny_rank *rank)
{
    return rank->data_rank * rank->n_ranks + rank->rank;
}

/* As a product that ran over the largest fp16 leaves it, in a slice that no other tensor
 * rank has. */
static void overflow(struct neva *model)
{
    struct param *param = param_find(
        neva_params(model), "model.language_model.layers.1.mlp.down_proj.weight");

    ((float *)param->grad.data)[3] = INFINITY;
}

static int scaled_step(struct tiny_rank *rank, struct neva *model,
                       const struct tiny_batch *all, int step, struct loss_scale *s,
                       struct scaled *run, struct err *err)
{
    struct optim_config optim = tiny_optim;
    struct optim_report report;
    double totals[2];

    optim.skips_overflow = true;
    neva_set_loss_scale(model, s->scale);
    if (tiny_global_batch(rank, model, all, 1, totals, err) < 0)
        return -1;
    if ((run->bad >> step & 1) && rank_of(rank) == rank->n_ranks * rank->n_data - 1)
        overflow(model);
    if (optim_step(model, rank->data, &optim, step - s->n_skipped, (int64_t)totals[1],
                   &report, err) < 0)
        return -1;
    loss_scale_update(s, &run->scale, report.is_skipped);
    run->skipped[rank_of(rank)] |= (uint64_t)report.is_skipped << step;
    if (rank_of(rank) == 0) {
        run->loss[step] = totals[0] / totals[1];
        run->norm[step] = report.grad_norm;
        run->scales[step] = s->scale;
        run->n_skipped = s->n_skipped;
    }
    return 0;
}

static void body(struct tiny_rank *rank)
{
    struct scaled *run = rank->arg;
    struct neva *model = NULL;
    struct loss_scale s;
    struct tiny_batch all;
    struct err err = {0};
    int rc;

    loss_scale_init(&s, &run->scale);
    tiny_batch_init(&all, &run->config, SAMPLES, TOKENS, FRAMES_EACH, 9);
    rc = neva_create(&model, &run->config, rank->backend, rank->tensor, &err);
    for (int step = 0; rc == 0 && step < run->n_steps; step++)
        rc = scaled_step(rank, model, &all, step, &s, run, &err);
    if (EXPECT_OK(rc, &err) && rank->data_rank == 0)
        tiny_collect(model, TINY_VALUE, run->values);
    neva_destroy(model);
    tiny_batch_fini(&all);
}

static struct scaled run_scaled(const char *backend, enum dtype dtype, int n_ranks,
                                int n_data, int n_steps, uint64_t bad, double scale)
{
    struct scaled run = {.config = tiny_config(),
                         .scale = {scale, dtype == DTYPE_F16 ? STEPS_MAX : 4, 2},
                         .n_steps = n_steps,
                         .bad = bad};

    run.config.dtype = dtype;
    run.values = calloc((size_t)neva_n_params(&run.config), sizeof(float));
    tiny_run(backend, n_ranks, n_data, body, &run);
    return run;
}

/* A scale that is a power of two changes no bit in fp32. */
static void expect_same_bits(const struct scaled *got, const struct scaled *want)
{
    size_t n = (size_t)neva_n_params(&want->config);

    EXPECT_MSG(memcmp(got->values, want->values, n * sizeof(float)) == 0,
               "weights differ");
}

static void a_scale_changes_nothing_in_fp32(void)
{
    struct scaled plain = run_scaled("ref", DTYPE_F32, 1, 1, 4, 0, 1);
    struct scaled scaled = run_scaled("ref", DTYPE_F32, 1, 1, 4, 0, 0x1p20);

    EXPECT(scaled.scales[2] == 0x1p20 && scaled.scales[3] == 0x1p21);
    for (int i = 0; i < 4; i++) {
        EXPECT(scaled.loss[i] == plain.loss[i]);
        EXPECT(expect_near(scaled.norm[i], plain.norm[i], 1e-12, 0));
    }
    expect_same_bits(&scaled, &plain);
    free(plain.values);
    free(scaled.values);
}

/* Steps 1, 2 and 4 of 7 overflow on one rank: the others make 4 updates, as a run of four
 * steps does; and the scale is 2^10 until the second overflow, halved by it and by the
 * third, for there were not 4 good ones between. */
static void an_overflow_on_one_rank_skips_the_step_on_all(void)
{
    static const double scales[] = {0x1p10, 0x1p10, 0x1p9, 0x1p9, 0x1p8, 0x1p8, 0x1p8};
    static const int layouts[][2] = {{1, 2}, {2, 1}, {2, 2}};

    for (size_t i = 0; i < sizeof(layouts) / sizeof(layouts[0]); i++) {
        int n_ranks = layouts[i][0], n_data = layouts[i][1];
        struct scaled want = run_scaled("ref", DTYPE_F32, n_ranks, n_data, 4, 0, 0x1p10);
        struct scaled got = run_scaled("ref", DTYPE_F32, n_ranks, n_data, 7,
                                       1U << 1 | 1U << 2 | 1U << 4, 0x1p10);

        for (int rank = 0; rank < n_ranks * n_data; rank++)
            EXPECT_MSG(got.skipped[rank] == got.bad, "TP %d DP %d rank %d skipped %x",
                       n_ranks, n_data, rank, (unsigned)got.skipped[rank]);
        for (int step = 0; step < 7; step++)
            EXPECT_MSG(got.scales[step] == scales[step], "step %d: scale %g", step,
                       got.scales[step]);
        EXPECT(got.n_skipped == 3 && got.norm[1] == 0 && got.norm[3] > 0);
        EXPECT(got.loss[2] == got.loss[1] && got.loss[1] == want.loss[1]);
        EXPECT(got.loss[3] == want.loss[1] && got.loss[6] == want.loss[3]);
        expect_same_bits(&got, &want);
        free(want.values);
        free(got.values);
    }
}

/* The first steps of a scale that is too large overflow by themselves. */
static void fp16_finds_its_scale_and_learns(void)
{
    static const char *const backends[] = {"ref", "cpu"};

    for (int i = 0; i < 2; i++) {
        struct scaled run =
            run_scaled(backends[i], DTYPE_F16, 2, 1, STEPS_MAX, 0, 0x1p24);

        EXPECT_MSG(run.n_skipped >= 2 && run.n_skipped <= 20, "%s: %d steps skipped",
                   backends[i], (int)run.n_skipped);
        EXPECT(run.skipped[0] == run.skipped[1] &&
               run.skipped[0] == (1ULL << run.n_skipped) - 1);
        EXPECT_MSG(run.loss[STEPS_MAX - 1] < 0.6 * run.loss[0], "%s: loss %g, then %g",
                   backends[i], run.loss[0], run.loss[STEPS_MAX - 1]);
        free(run.values);
    }
}

/* ---- why there is a scale ---- */

struct gradient {
    double scale;
    enum dtype dtype;
    float *grads;
};

static void gradient_body(struct tiny_rank *rank)
{
    struct gradient *g = rank->arg;
    struct neva_config config = tiny_config();
    struct neva *model = NULL;
    struct neva_loss loss;
    struct tiny_batch all;
    struct err err = {0};

    config.dtype = g->dtype;
    tiny_batch_init(&all, &config, SAMPLES, TOKENS, FRAMES_EACH, 9);
    EXPECT_OK(neva_create(&model, &config, rank->backend, rank->tensor, &err), &err);
    neva_set_loss_scale(model, g->scale);
    EXPECT_OK(neva_step(model, &all.batch, &loss, &err), &err);
    tiny_collect(model, TINY_GRAD, g->grads);
    neva_destroy(model);
    tiny_batch_fini(&all);
}

/* Distance from fp32's gradient, in parts of it. */
static double lost_in_fp16(const float *exact, int64_t n, double scale)
{
    struct gradient g = {scale, DTYPE_F16, calloc((size_t)n, sizeof(float))};
    double lost;

    tiny_run("ref", 1, 1, gradient_body, &g);
    for (int64_t i = 0; i < n; i++)
        g.grads[i] /= (float)scale; /* a power of two */
    lost = tiny_distance(g.grads, exact, n);
    free(g.grads);
    return lost;
}

/* The factor is there before anything is rounded to fp16: gradients as small as 2^-24 of
 * what they are here, as those of a mean over 16 million tokens, would be lost. */
static void small_gradients_survive_by_their_scale(void)
{
    struct neva_config config = tiny_config();
    int64_t n = neva_n_params(&config);
    struct gradient exact = {1, DTYPE_F32, calloc((size_t)n, sizeof(float))};

    tiny_run("ref", 1, 1, gradient_body, &exact);
    EXPECT_MSG(lost_in_fp16(exact.grads, n, 0x1p8) < 0.01, "%g at 2^8",
               lost_in_fp16(exact.grads, n, 0x1p8));
    EXPECT_MSG(lost_in_fp16(exact.grads, n, 0x1p-24) > 0.5, "%g at 2^-24",
               lost_in_fp16(exact.grads, n, 0x1p-24));
    free(exact.grads);
}

int main(void)
{
    EXPECT_RUN(a_scale_changes_nothing_in_fp32);
    EXPECT_RUN(an_overflow_on_one_rank_skips_the_step_on_all);
    EXPECT_RUN(fp16_finds_its_scale_and_learns);
    EXPECT_RUN(small_gradients_survive_by_their_scale);
    return expect_end();
}
