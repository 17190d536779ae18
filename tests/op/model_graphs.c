/* Training and generation with recorded stretches against the same without: the same bits,
 * over shapes that come and go, evaluation in between, several micro batches a step,
 * recomputation; and proof, by the stand-in's own count, that operations were replayed. */
#include "model/generate/generate.h"
#include "model/neva/internal.h"
#include "model/optim/optim.h"
#include "tests/cuda_host/counts.h"
#include "tests/op/expect.h"
#include "tests/op/tiny.h"

#include <stdlib.h>
#include <string.h>

#define N_SHAPES 2
#define NEW 6
#define PROMPTS 3
#define DRAWS 6
#define SAME 1e-4 /* nine steps of AdamW, which divides by small numbers */

/* What a global batch is made of, and what is done before it. */
static const struct step {
    int shapes[2]; /* of its micro batches, -1: none */
    bool has_evaluation;
} steps[] = {
    {{0, -1}, false}, {{0, -1}, false}, {{0, -1}, false},
    {{1, -1}, false}, {{0, 1}, true},   {{1, 1}, false},
    {{0, -1}, true},  {{1, 0}, true},   {{0, 0}, false},
};
#define STEPS ((int)(sizeof(steps) / sizeof(steps[0])))

static const int64_t sizes[N_SHAPES][3] = {{2, 26, 1},
                                           {3, 18, 0}}; /* B, T, frames each */

struct run {
    struct neva_config config;
    const char *backend;
    int n_devices, n_ranks, n_steps;
    float *values;
    double norm[STEPS], evaluated[STEPS];
    int32_t answers[3][PROMPTS * NEW], drawn[DRAWS][PROMPTS * NEW];
    uint64_t asked[STEPS], launched[STEPS]; /* on the device, for each step */
    struct backend_replay replay;
};

/* ---- the stand-in's count ---- */

/* Since the last time, in this thread. */
static void count(struct cuda_host_counts *last, uint64_t *asked, uint64_t *launched)
{
    struct cuda_host_counts now = cuda_host_counts();

    *asked = now.n_asked - last->n_asked;
    *launched = now.n_graphs - last->n_graphs;
    *last = now;
}

/* ---- one run ---- */

/* Batches of the same shape differ with every step. */
static void batch_init(struct tiny_batch *batch, const struct run *run, int shape,
                       uint64_t seed)
{
    tiny_batch_init(batch, &run->config, sizes[shape][0], sizes[shape][1],
                    sizes[shape][2], seed);
}

static int micro_batch(struct run *run, struct tiny_rank *rank, struct neva *model,
                       int shape, uint64_t seed, int64_t *n_labels, struct err *err)
{
    struct tiny_batch all;
    struct neva_batch part;
    struct neva_loss loss;
    int rc;

    batch_init(&all, run, shape, seed);
    part = tiny_part(&all, &run->config, 0, sizes[shape][0], rank->rank, rank->n_ranks);
    rc = neva_step(model, &part, &loss, err);
    *n_labels += loss.n_labels;
    tiny_batch_fini(&all);
    return rc;
}

static int evaluate(struct run *run, struct tiny_rank *rank, struct neva *model, int step,
                    struct err *err)
{
    struct tiny_batch all;
    struct neva_batch part;
    struct neva_loss loss;
    int rc;

    batch_init(&all, run, 0, 77);
    part = tiny_part(&all, &run->config, 0, sizes[0][0], rank->rank, rank->n_ranks);
    rc = tiny_evaluate(model, &part, &loss, err);
    run->evaluated[step] = loss.sum;
    tiny_batch_fini(&all);
    return rc;
}

static int train_step(struct run *run, struct tiny_rank *rank, struct neva *model,
                      int step, struct err *err)
{
    struct optim_report report;
    int64_t n_labels = 0;

    if (steps[step].has_evaluation && evaluate(run, rank, model, step, err) < 0)
        return -1;
    for (int i = 0; i < 2 && steps[step].shapes[i] >= 0; i++)
        if (micro_batch(run, rank, model, steps[step].shapes[i],
                        (uint64_t)step * 2 + (uint64_t)i, &n_labels, err) < 0)
            return -1;
    if (optim_step(model, rank->data, &tiny_optim, step, n_labels, &report, err) < 0)
        return -1;
    run->norm[step] = report.grad_norm;
    return 0;
}

/* Prompts of one shape, then of another, then of the first again. */
static int ask(struct run *run, struct tiny_rank *rank, struct neva *model, int turn,
               struct err *err)
{
    struct generate_args args = {.max_new_tokens = NEW, .end_token = -1};
    int64_t lens[PROMPTS], n = turn == 1 ? 1 : PROMPTS;
    struct tiny_batch all;
    struct neva_batch prompts;
    int rc;

    tiny_batch_init(&all, &run->config, n, 20, 1, 90 + (uint64_t)turn);
    prompts = tiny_part(&all, &run->config, 0, n, rank->rank, rank->n_ranks);
    rc = generate_tokens(model, &prompts, &args, run->answers[turn], lens, err);
    tiny_batch_fini(&all);
    return rc;
}

/* The same prompts again and again, one setting changed: a pass that was recorded with the
 * other must not be taken for it, though its cache lies in the same place (as on a GPU, whose
 * pool gives the same memory again). */
static int draw(struct run *run, struct tiny_rank *rank, struct neva *model,
                struct err *err)
{
    static const int32_t streams[PROMPTS] = {3, 1, 4};
    struct generate_draw draw = {.top_k = 30,
                                 .top_p = 0.95F,
                                 .repetition_penalty = 1.1F,
                                 .seed = 9,
                                 .streams = streams};
    struct generate_args args = {.max_new_tokens = NEW, .end_token = -1, .draw = &draw};
    int64_t lens[PROMPTS];
    struct tiny_batch all;
    struct neva_batch prompts;
    int rc = 0;

    tiny_batch_init(&all, &run->config, PROMPTS, 20, 1, 93);
    prompts = tiny_part(&all, &run->config, 0, PROMPTS, rank->rank, rank->n_ranks);
    for (int i = 0; i < DRAWS && rc == 0; i++) {
        draw.temperature = i % 2 ? 2 : 0.5F;
        rc = generate_tokens(model, &prompts, &args, run->drawn[i], lens, err);
    }
    tiny_batch_fini(&all);
    return rc;
}

static void body(struct tiny_rank *rank)
{
    struct run *run = rank->arg;
    struct neva *model = NULL;
    struct err err = {0};
    struct cuda_host_counts last = cuda_host_counts();
    struct run unseen = *run; /* of all ranks but the first */
    struct run *mine = rank->rank == 0 ? run : &unseen;
    bool is_counted = rank->n_ranks == 1 && strcmp(run->backend, "cuda") == 0;
    bool is_fine = EXPECT_OK(
        neva_create(&model, &run->config, rank->backend, rank->tensor, &err), &err);

    if (is_counted)
        count(&last, &mine->asked[0], &mine->launched[0]);
    for (int step = 0; is_fine && step < run->n_steps; step++) {
        is_fine = EXPECT_OK(train_step(mine, rank, model, step, &err), &err);
        if (is_counted)
            count(&last, &mine->asked[step], &mine->launched[step]);
    }
    for (int turn = 0; is_fine && turn < 3; turn++)
        is_fine = EXPECT_OK(ask(mine, rank, model, turn, &err), &err);
    is_fine = is_fine && EXPECT_OK(draw(mine, rank, model, &err), &err);
    if (is_fine)
        tiny_collect(model, TINY_VALUE, run->values);
    mine->replay = rank->backend->replay;
    neva_destroy(model);
}

static struct run run_on(int n_devices, const struct neva_config *config,
                         const char *backend, int n_ranks, int n_steps,
                         const char *graphs)
{
    struct run run = {.config = *config,
                      .backend = backend,
                      .n_devices = n_devices,
                      .n_ranks = n_ranks,
                      .n_steps = n_steps};

    run.values = calloc((size_t)neva_n_params(config), sizeof(float));
    setenv("CUDA_HOST_DEVICES", n_devices == 1 ? "1" : "4", 1);
    setenv("VNEVA_CUDA_GRAPHS", graphs, 1);
    tiny_run_on(backend, n_devices, n_ranks, 1, body, &run);
    unsetenv("VNEVA_CUDA_GRAPHS");
    return run;
}

static struct run run_with(const struct neva_config *config, const char *backend,
                           int n_ranks, int n_steps, const char *graphs)
{
    return run_on(1, config, backend, n_ranks, n_steps, graphs);
}

/* ---- comparison ---- */

static void expect_same_bits(const struct run *got, const struct run *want)
{
    size_t n = (size_t)neva_n_params(&want->config);

    for (int i = 0; i < STEPS; i++)
        EXPECT_MSG(got->norm[i] == want->norm[i] &&
                       got->evaluated[i] == want->evaluated[i],
                   "step %d: norm %.17g, not %.17g; evaluated %.17g, not %.17g", i,
                   got->norm[i], want->norm[i], got->evaluated[i], want->evaluated[i]);
    EXPECT_MSG(memcmp(got->values, want->values, n * sizeof(float)) == 0,
               "weights differ");
    EXPECT_MSG(memcmp(got->answers, want->answers, sizeof(want->answers)) == 0,
               "answers differ");
    for (int i = 0; i < DRAWS; i++)
        EXPECT_MSG(memcmp(got->drawn[i], want->drawn[i], sizeof(want->drawn[i])) == 0,
                   "drawn answers differ, round %d", i);
}

static void expect_same_with_graphs_on(int n_ranks, const struct neva_config *config)
{
    struct run with = run_on(n_ranks, config, "cuda", n_ranks, STEPS, "on");
    struct run without = run_on(n_ranks, config, "cuda", n_ranks, STEPS, "off");

    expect_same_bits(&with, &without);
    EXPECT_MSG(with.replay.n_launched > 0 && with.replay.n_refused == 0,
               "%d launched, %d refused: %s", (int)with.replay.n_launched,
               (int)with.replay.n_refused, with.replay.refusal.text);
    EXPECT(without.replay.n_recorded == 0 && without.replay.n_launched == 0);
    free(with.values);
    free(without.values);
}

static void expect_same_with_graphs(const struct neva_config *config)
{
    expect_same_with_graphs_on(1, config);
}

static void steps_and_answers_are_the_same_bits(void)
{
    struct neva_config config = tiny_config();

    expect_same_with_graphs(&config);
}

static void so_they_are_with_recomputation_and_frozen_parts(void)
{
    struct neva_config config = tiny_config();

    config.llm.n_layers = 5; /* more than one part */
    config.dtype = DTYPE_BF16;
    config.recompute = NEVA_RECOMPUTE_FULL;
    config.recompute_layers = 2;
    expect_same_with_graphs(&config);
    config.recompute_method = NEVA_RECOMPUTE_BLOCK;
    config.recompute_layers = 3;
    config.vision.freeze = config.llm.freeze = true;
    expect_same_with_graphs(&config);
}

/* What is not refreshed would be wrong with and without graphs: so `ref` is asked too. */
static void what_is_replayed_sees_the_batch_at_hand(void)
{
    struct neva_config config = tiny_config();
    struct run got, want;

    config.llm.n_layers = 1;
    got = run_with(&config, "cuda", 1, STEPS, "on");
    want = run_with(&config, "ref", 1, STEPS, "on");
    for (int i = 0; i < STEPS; i++)
        EXPECT_MSG(expect_near(got.norm[i], want.norm[i], SAME, 0) &&
                       expect_near(got.evaluated[i], want.evaluated[i], SAME, 0),
                   "step %d: norm %.9g, not %.9g; evaluated %.9g, not %.9g", i,
                   got.norm[i], want.norm[i], got.evaluated[i], want.evaluated[i]);
    EXPECT(memcmp(got.answers, want.answers, sizeof(want.answers)) == 0);
    free(got.values);
    free(want.values);
}

/* The third step is the first that is replayed: what is asked piece by piece then is the
 * tables, the head and the optimizer. */
static void a_step_of_known_shape_is_a_few_launches(void)
{
    struct neva_config config = tiny_config();
    struct run run;

    config.llm.n_layers = 8;
    run = run_with(&config, "cuda", 1, 3, "on");
    EXPECT_MSG(run.launched[0] == 0 && run.launched[2] == 7,
               "%d launched in the first step, %d in the third, not 0 and 7",
               (int)run.launched[0], (int)run.launched[2]);
    EXPECT_MSG(run.asked[0] > run.asked[2] + 200,
               "%d asked in the first step, still %d in the third", (int)run.asked[0],
               (int)run.asked[2]);
    free(run.values);
}

static void ranks_that_exchange_between_devices_replay_too(void)
{
    struct neva_config config = tiny_config();

    config.recompute = NEVA_RECOMPUTE_FULL;
    config.recompute_layers = 1;
    expect_same_with_graphs_on(2, &config);
}

static void ranks_that_exchange_through_the_host_run_as_they_are(void)
{
    struct neva_config config = tiny_config();
    struct run run = run_with(&config, "cuda", 2, 3, "on");

    EXPECT(run.replay.n_launched == 0 && run.replay.n_refused == 0);
    free(run.values);
}

int main(void)
{
    EXPECT_RUN(steps_and_answers_are_the_same_bits);
    EXPECT_RUN(so_they_are_with_recomputation_and_frozen_parts);
    EXPECT_RUN(what_is_replayed_sees_the_batch_at_hand);
    EXPECT_RUN(a_step_of_known_shape_is_a_few_launches);
    EXPECT_RUN(ranks_that_exchange_between_devices_replay_too);
    EXPECT_RUN(ranks_that_exchange_through_the_host_run_as_they_are);
    return expect_end();
}
