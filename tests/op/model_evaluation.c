/* Evaluations of many micro batches: what they add up to, on every backend and layout; how
 * often the host waits for the device, as the stand-ins count it (tests/cuda_host/counts.h);
 * and frames that are brought ahead. */
#include "model/neva/internal.h"
#include "tests/cuda_host/counts.h"
#include "tests/op/expect.h"
#include "tests/op/tiny.h"

#include <stdlib.h>
#include <string.h>

#define TOKENS 26
#define FRAMES_EACH 2
#define MICRO 4 /* micro batches of all data ranks, of one sample each */
#define SAME 1e-5

/* One way to evaluate the same samples, and what came out of it. */
struct run {
    const char *backend;
    int n_ranks, n_data, n_micro; /* n_micro: of all data ranks */
    bool is_ahead;             /* and the host's frames are gone when they are wanted */
    double sum, n_labels;      /* of all data ranks */
    uint64_t n_early, n_waits; /* of the last rank; n_early before the evaluation's end */
};

/* The frames of the next micro batch; then they are gone from the host. */
static int bring(struct neva *model, struct tiny_batch *all, struct neva_batch *part,
                 struct err *err)
{
    int64_t side = neva_config(model)->vision.image_size, first, count;

    if (neva_prefetch(model, part, err) < 0)
        return -1;
    neva_frame_range(model, part->n_frames, &first, &count);
    memset(all->pixels + (part->pixels - all->batch.pixels), 0,
           (size_t)(count * side * side * 3));
    return 0;
}

static int evaluate_all(struct tiny_rank *rank, struct run *run, struct neva *model,
                        struct tiny_batch *all, double sums[2], struct err *err)
{
    int n_each = run->n_micro / run->n_data;
    struct cuda_host_counts before = cuda_host_counts();

    sums[1] = 0;
    if (neva_begin_evaluation(model, err) < 0)
        return -1;
    for (int i = rank->data_rank * n_each; i < (rank->data_rank + 1) * n_each; i++) {
        struct neva_batch part =
            tiny_part(all, neva_config(model), i, 1, rank->rank, rank->n_ranks);
        struct neva_loss loss;

        if (neva_evaluate(model, &part, &loss, err) < 0)
            return -1;
        EXPECT(isnan(loss.sum)); /* nobody has waited */
        sums[1] += (double)loss.n_labels;
        if (!run->is_ahead || i + 1 == (rank->data_rank + 1) * n_each)
            continue;
        part = tiny_part(all, neva_config(model), i + 1, 1, rank->rank, rank->n_ranks);
        if (bring(model, all, &part, err) < 0)
            return -1;
    }
    run->n_early = cuda_host_counts().n_waits - before.n_waits;
    if (neva_end_evaluation(model, &sums[0], err) < 0)
        return -1;
    run->n_waits = cuda_host_counts().n_waits - before.n_waits;
    return 0;
}

/* Twice: what is made once is made the first time. */
static void body(struct tiny_rank *rank)
{
    struct run mine = *(struct run *)rank->arg;
    struct neva_config config = tiny_config();
    struct neva *model = NULL;
    struct err err = {0};
    double sums[2], first = 0;
    int rc = neva_create(&model, &config, rank->backend, rank->tensor, &err);

    for (int i = 0; rc == 0 && i < 2; i++) {
        struct tiny_batch all;

        tiny_batch_init(&all, &config, mine.n_micro, TOKENS, FRAMES_EACH, 5);
        first = i == 1 ? sums[0] : 0;
        rc = evaluate_all(rank, &mine, model, &all, sums, &err);
        tiny_batch_fini(&all);
    }
    EXPECT(rc < 0 || sums[0] == first);
    if (rc == 0)
        rc = comm_all_reduce_f64(rank->data, sums, 2, COMM_SUM, &err);
    EXPECT_OK(rc, &err);
    neva_destroy(model);
    mine.sum = sums[0];
    mine.n_labels = sums[1];
    if (rank->rank == rank->n_ranks - 1 && rank->data_rank == rank->n_data - 1)
        *(struct run *)rank->arg = mine;
}

static struct run run_it(struct run run)
{
    tiny_run_on(run.backend, run.n_ranks * run.n_data, run.n_ranks, run.n_data, body,
                &run);
    return run;
}

static struct run alone(const char *backend, int n_micro)
{
    return (struct run){
        .backend = backend, .n_ranks = 1, .n_data = 1, .n_micro = n_micro};
}

/* ---- what they add up to ---- */

static void every_backend_and_layout_has_the_same_loss(void)
{
    static const char *const backends[] = {"ref", "cpu", "cuda"};
    static const int layouts[][2] = {{1, 1}, {2, 1}, {1, 2}, {2, 2}};
    struct run want = run_it(alone("ref", MICRO));

    EXPECT(want.sum > 1 && want.n_labels > MICRO);
    for (size_t i = 0; i < 3; i++)
        for (size_t k = 0; k < 4; k++) {
            struct run got = alone(backends[i], MICRO);

            got.n_ranks = layouts[k][0];
            got.n_data = layouts[k][1];
            got = run_it(got);
            EXPECT_MSG(
                expect_near(got.sum, want.sum, SAME, 0) && got.n_labels == want.n_labels,
                "%s, TP %d DP %d: loss %.9g of %g, not %.9g of %g", got.backend,
                got.n_ranks, got.n_data, got.sum, got.n_labels, want.sum, want.n_labels);
        }
}

static double one_by_one(struct neva *model, const struct neva_batch *parts, int n)
{
    struct err err = {0};
    double sum = 0;

    for (int i = 0; i < n; i++) {
        struct neva_loss loss = {0};

        EXPECT_OK(tiny_evaluate(model, &parts[i], &loss, &err), &err);
        sum += loss.sum;
    }
    return sum;
}

static void add(struct neva *model, const struct neva_batch *parts, int n)
{
    struct neva_loss loss;
    struct err err = {0};

    for (int i = 0; i < n; i++)
        EXPECT_OK(neva_evaluate(model, &parts[i], &loss, &err), &err);
}

static double end(struct neva *model)
{
    struct err err = {0};
    double sum = NAN;

    EXPECT_OK(neva_end_evaluation(model, &sum, &err), &err);
    return sum;
}

/* The micro batch without labels adds nothing; one given up leaves nothing. */
static void sums_of(struct neva *model, struct neva_batch parts[MICRO])
{
    struct err err = {0};
    double want = one_by_one(model, parts, MICRO), got;

    EXPECT_OK(neva_begin_evaluation(model, &err), &err);
    add(model, parts + 1, 2); /* given up */
    EXPECT_OK(neva_begin_evaluation(model, &err), &err);
    add(model, parts, MICRO);
    got = end(model);
    EXPECT_MSG(got == want, "the device adds up to %.17g, the host to %.17g", got, want);
    EXPECT_OK(neva_begin_evaluation(model, &err), &err);
    EXPECT(end(model) == 0); /* none at all */
}

/* A global batch of two: what its steps add up to is theirs alone. */
static void sums_between_steps(struct neva *model, struct neva_batch parts[MICRO])
{
    struct neva_loss want = {0}, got = {0}, loss;
    struct err err = {0};

    for (int has_evaluation = 0; has_evaluation < 2; has_evaluation++) {
        EXPECT_OK(neva_zero_grad(model, &err), &err);
        EXPECT_OK(neva_step(model, &parts[0], &loss, &err), &err);
        if (has_evaluation)
            EXPECT(one_by_one(model, parts + 2, 1) > 0);
        EXPECT_OK(neva_step(model, &parts[3], &loss, &err), &err);
        EXPECT_OK(neva_read_loss(model, has_evaluation ? &got : &want, &err), &err);
    }
    EXPECT_MSG(got.sum == want.sum && got.n_labels == want.n_labels,
               "an evaluation changes a step's loss from %.17g to %.17g", want.sum,
               got.sum);
}

static void sums_body(struct tiny_rank *rank)
{
    struct neva_config config = tiny_config();
    struct neva_batch parts[MICRO];
    int32_t masked[TOKENS];
    struct neva *model = NULL;
    struct tiny_batch all;
    struct err err = {0};

    memset(masked, -1, sizeof(masked));
    tiny_batch_init(&all, &config, MICRO, TOKENS, FRAMES_EACH, 5);
    for (int i = 0; i < MICRO; i++)
        parts[i] = tiny_part(&all, &config, i, 1, 0, 1);
    parts[1].labels = masked;
    if (EXPECT_OK(neva_create(&model, &config, rank->backend, rank->tensor, &err),
                  &err)) {
        sums_of(model, parts);
        sums_between_steps(model, parts);
    }
    neva_destroy(model);
    tiny_batch_fini(&all);
}

static void the_device_adds_what_the_host_would(void)
{
    tiny_run("ref", 1, 1, sums_body, NULL);
    tiny_run("cpu", 1, 1, sums_body, NULL);
    tiny_run("cuda", 1, 1, sums_body, NULL);
}

/* ---- how often the host waits ---- */

static void expect_waits(struct run run, int n_early, int n_waits)
{
    run = run_it(run);
    EXPECT_MSG(run.n_early == (uint64_t)n_early && run.n_waits == (uint64_t)n_waits,
               "%d micro batches, TP %d DP %d: %d waits, %d of them before the end",
               run.n_micro, run.n_ranks, run.n_data, (int)run.n_waits, (int)run.n_early);
}

static void the_host_waits_once(void)
{
    struct run run = alone("cuda", 3);

    expect_waits(run, 0, 1);
    run.is_ahead = true;
    expect_waits(run, 0, 1);
    run.n_micro = 2 * NEVA_BEHIND_MAX;
    expect_waits(run, 0, 1);
}

/* The second of the marks waits for the first, with NEVA_BEHIND_MAX micro batches between. */
static void of_many_micro_batches_old_ones_are_waited_for(void)
{
    expect_waits(alone("cuda", 2 * NEVA_BEHIND_MAX + 1), 1, 2);
}

/* With communicators an event is asked for instead, so as to see when a peer is gone. */
static void nor_is_more_waited_for_between_devices(void)
{
    static const int layouts[][2] = {{2, 1}, {1, 2}, {2, 2}};

    for (size_t i = 0; i < sizeof(layouts) / sizeof(layouts[0]); i++) {
        struct run run = alone("cuda", MICRO);

        run.n_ranks = layouts[i][0];
        run.n_data = layouts[i][1];
        expect_waits(run, 0, 0);
    }
}

/* ---- frames of the next micro batch ---- */

static void frames_that_come_ahead_give_the_same_bits(void)
{
    static const char *const orders[] = {"late", "early"};

    for (int i = 0; i < 2; i++)
        for (int n_ranks = 1; n_ranks <= 2; n_ranks++) {
            struct run want = alone("cuda", MICRO), got;

            setenv("CUDA_HOST_STREAMS", orders[i], 1);
            want.n_ranks = n_ranks;
            got = want;
            got.is_ahead = true;
            want = run_it(want);
            got = run_it(got);
            EXPECT_MSG(got.sum == want.sum, "streams %s: loss %.17g, not %.17g",
                       orders[i], got.sum, want.sum);
        }
    unsetenv("CUDA_HOST_STREAMS");
}

int main(void)
{
    setenv("CUDA_HOST_DEVICES", "4", 1);
    EXPECT_RUN(every_backend_and_layout_has_the_same_loss);
    EXPECT_RUN(the_device_adds_what_the_host_would);
    EXPECT_RUN(the_host_waits_once);
    EXPECT_RUN(of_many_micro_batches_old_ones_are_waited_for);
    EXPECT_RUN(nor_is_more_waited_for_between_devices);
    EXPECT_RUN(frames_that_come_ahead_give_the_same_bits);
    return expect_end();
}
