/* What goes on beside the model's work, over the stand-ins of CUDA and NCCL. Gradients summed
 * beside the backward pass: the same bits as summed after it, for every layout, bucket and
 * order of streams; and those of the host's sums but for rounding. Frames brought ahead: the
 * same bits as brought in time. */
#include "model/comm/internal.h"
#include "model/neva/internal.h"
#include "model/optim/optim.h"
#include "tests/op/expect.h"
#include "tests/op/tiny.h"

#include <stdlib.h>
#include <string.h>

#define SAMPLES 4
#define TOKENS 16
#define FRAMES_EACH 1
#define STEPS 2
#define MICRO 2 /* micro batches of a data rank */
#define SAME 1e-4

/* One way to train, and what came out of it. */
struct run {
    struct neva_config config;
    int n_ranks, n_data, n_devices; /* n_devices 0: all on one, through the host */
    bool is_beside, is_uneven;      /* uneven: a rank's last micro batch has no labels */
    bool begins_anew;               /* after sums that were begun and given up */
    size_t bucket_bytes;
    double norm[STEPS];
    float *values;
    uint64_t n_beside; /* asked for before optim_step, by rank 0 */
};

static int micro_batches(struct tiny_rank *rank, struct run *run, struct neva *model,
                         const struct tiny_batch *all, double *n_labels, struct err *err)
{
    int64_t each = SAMPLES / run->n_data / MICRO;
    int32_t masked[SAMPLES * TOKENS];

    memset(masked, -1, sizeof(masked));
    for (int i = 0; i < MICRO; i++) {
        struct neva_batch part =
            tiny_part(all, &run->config, (rank->data_rank * MICRO + i) * each, each,
                      rank->rank, rank->n_ranks);
        struct neva_loss loss;

        if (i == MICRO - 1 && run->is_beside)
            neva_begin_reduction(model, rank->data);
        if (i == MICRO - 1 && run->is_uneven && rank->data_rank == 1)
            part.labels = masked;
        if (neva_step(model, &part, &loss, err) < 0)
            return -1;
        *n_labels += (double)loss.n_labels;
    }
    return 0;
}

static int train(struct tiny_rank *rank, struct run *run, struct neva *model,
                 const struct tiny_batch *all, struct err *err)
{
    bool is_first = rank->rank == 0 && rank->data_rank == 0;
    double unused = 0;

    neva_set_bucket_bytes(model, run->bucket_bytes);
    if (run->begins_anew && (micro_batches(rank, run, model, all, &unused, err) < 0 ||
                             neva_zero_grad(model, err) < 0))
        return -1;
    for (int step = 0; step < STEPS; step++) {
        struct optim_report report;
        uint64_t before = rank->data->device_number;
        double n_labels = 0;

        if (micro_batches(rank, run, model, all, &n_labels, err) < 0)
            return -1;
        if (is_first)
            run->n_beside += rank->data->device_number - before;
        if (comm_all_reduce_f64(rank->data, &n_labels, 1, COMM_SUM, err) < 0 ||
            optim_step(model, rank->data, &tiny_optim, step, (int64_t)n_labels, &report,
                       err) < 0)
            return -1;
        if (is_first)
            run->norm[step] = report.grad_norm;
    }
    if (rank->data_rank == 0)
        tiny_collect(model, TINY_VALUE, run->values);
    return 0;
}

static void body(struct tiny_rank *rank)
{
    struct run *run = rank->arg;
    struct neva *model = NULL;
    struct tiny_batch all;
    struct err err = {0};

    EXPECT(comm_has_device(rank->data) == (run->n_devices > 0));
    tiny_batch_init(&all, &run->config, SAMPLES, TOKENS, FRAMES_EACH, 5);
    if (EXPECT_OK(neva_create(&model, &run->config, rank->backend, rank->tensor, &err),
                  &err))
        EXPECT_OK(train(rank, run, model, &all, &err), &err);
    neva_destroy(model);
    tiny_batch_fini(&all);
}

static void run_it(struct run *run)
{
    run->values = calloc((size_t)neva_n_params(&run->config), sizeof(float));
    tiny_run_on("cuda", run->n_devices ? run->n_devices : 1, run->n_ranks, run->n_data,
                body, run);
}

/* bound 0: the same bits */
static void compare(const struct run *got, const struct run *want, const char *what,
                    double bound)
{
    int64_t n = neva_n_params(&want->config);
    double worst = 0;

    for (int64_t i = 0; i < n; i++)
        worst = fmax(worst, fabs((double)got->values[i] - (double)want->values[i]));
    EXPECT_MSG(worst <= bound, "TP %d DP %d, buckets of %zu, %s: weights differ by %g",
               got->n_ranks, got->n_data, got->bucket_bytes, what, worst);
    for (int i = 0; i < STEPS; i++)
        EXPECT_MSG(expect_near(got->norm[i], want->norm[i], bound, 0),
                   "TP %d DP %d, buckets of %zu, %s: norm %.9g, not %.9g", got->n_ranks,
                   got->n_data, got->bucket_bytes, what, got->norm[i], want->norm[i]);
}

/* Beside, with streams of both orders, against after; and that against the host's sums. */
static void compare_ways(struct run like, bool has_host)
{
    static const char *const orders[] = {"late", "early"};
    struct run after = like, host = like;

    run_it(&after);
    EXPECT(after.n_beside == 0);
    for (int i = 0; i < 2; i++) {
        struct run beside = like;

        beside.is_beside = true;
        setenv("CUDA_HOST_STREAMS", orders[i], 1);
        run_it(&beside);
        compare(&beside, &after, orders[i], 0);
        EXPECT((beside.n_beside > 0) == (like.bucket_bytes < 1 << 20));
        free(beside.values);
    }
    unsetenv("CUDA_HOST_STREAMS");
    host.n_devices = 0;
    if (has_host) {
        run_it(&host);
        compare(&after, &host, "through the host", SAME);
    }
    free(host.values);
    free(after.values);
}

static struct run data_ranks(const struct neva_config *config, size_t bucket_bytes)
{
    return (struct run){.config = *config,
                        .n_ranks = 1,
                        .n_data = 2,
                        .n_devices = 2,
                        .bucket_bytes = bucket_bytes};
}

static void every_bucket_gives_the_same_bits(void)
{
    static const size_t sizes[] = {1, 6000, 1 << 20};
    struct neva_config config = tiny_config();

    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
        compare_ways(data_ranks(&config, sizes[i]), i == 0);
}

static void so_does_every_model(void)
{
    for (int vision = 1; vision < TINY_VISION_COUNT; vision++) {
        struct neva_config config = tiny_vision_config((enum tiny_vision)vision);

        config.llm.tied = vision == 1;
        compare_ways(data_ranks(&config, 1), false);
    }
}

static void frozen_parts_have_no_buckets(void)
{
    struct neva_config config = tiny_config();

    config.vision.freeze = true;
    compare_ways(data_ranks(&config, 1), false);
    config.llm.freeze = true;
    compare_ways(data_ranks(&config, 1), false);
    config.vision.freeze = false;
    compare_ways(data_ranks(&config, 1), false);
}

/* Gradients of divided frames wait for their sum over the tensor group. */
static void two_groups_work_at_once(void)
{
    struct neva_config config = tiny_config();
    struct run run = data_ranks(&config, 1);

    run.n_ranks = 2;
    run.n_devices = 4;
    compare_ways(run, true);
}

static void a_rank_without_labels_asks_for_its_buckets_later(void)
{
    struct neva_config config = tiny_config();
    struct run run = data_ranks(&config, 1);

    run.is_uneven = true;
    compare_ways(run, true);
}

static void sums_that_are_given_up_leave_nothing(void)
{
    struct neva_config config = tiny_config();
    struct run want = data_ranks(&config, 1), got;

    want.is_beside = true;
    got = want;
    got.begins_anew = true;
    run_it(&want);
    run_it(&got);
    compare(&got, &want, "begun anew", 0);
    free(got.values);
    free(want.values);
}

static void more_cannot_be_added_body(struct tiny_rank *rank)
{
    struct neva_config config = tiny_config();
    struct neva *model = NULL;
    struct tiny_batch all;
    struct neva_loss loss;
    struct optim_report report;
    struct err err = {0};

    tiny_batch_init(&all, &config, 1, TOKENS, 1, 5);
    EXPECT_OK(neva_create(&model, &config, rank->backend, rank->tensor, &err), &err);
    neva_begin_reduction(model, rank->data);
    EXPECT_OK(neva_step(model, &all.batch, &loss, &err), &err);
    EXPECT(neva_step(model, &all.batch, &loss, &err) < 0 && err.code == ERR_STATE);
    EXPECT_OK(optim_step(model, rank->data, &tiny_optim, 0, loss.n_labels, &report, &err),
              &err);
    EXPECT_OK(neva_step(model, &all.batch, &loss, &err), &err);
    EXPECT_OK(rank->backend->ops->sync(rank->backend, &err), &err);
    neva_destroy(model);
    tiny_batch_fini(&all);
}

static void more_cannot_be_added_to_sums(void)
{
    tiny_run_on("cuda", 2, 1, 2, more_cannot_be_added_body, NULL);
}

/* ---- frames of the next micro batch ---- */

#define BATCHES 3
#define PASSES (2 * BATCHES)

struct ahead {
    bool is_ahead;
    float *values;
};

/* Which of the batches pass i takes is foreseen, but for one that comes in between, and one
 * that is evaluated first. After a prefetch the host's frames are gone. */
static int passes(struct neva *model, struct tiny_batch *all, struct tiny_batch *other,
                  const uint8_t *frames, const struct ahead *ahead, size_t n_bytes,
                  struct err *err)
{
    for (int i = 0; i < PASSES; i++) {
        struct tiny_batch *it = &all[i % BATCHES], *next = &all[(i + 1) % BATCHES];
        struct neva_loss loss;

        if (neva_step(model, &it->batch, &loss, err) < 0)
            return -1;
        memcpy(it->pixels, frames + (size_t)(i % BATCHES) * n_bytes, n_bytes);
        if (i == 3 && neva_prefetch(model, &other->batch, err) < 0)
            return -1;
        if (i + 1 == PASSES || !ahead->is_ahead)
            continue;
        if (neva_prefetch(model, &next->batch, err) < 0)
            return -1;
        if (i == 1 && neva_evaluate(model, &other->batch, &loss, err) < 0)
            return -1; /* what was brought is of no use any more */
        if (i != 1)
            memset(next->pixels, 0, n_bytes);
    }
    return 0;
}

static void ahead_body(struct tiny_rank *rank)
{
    struct ahead *ahead = rank->arg;
    struct neva_config config = tiny_config();
    size_t n_bytes =
        (size_t)(2 * config.vision.image_size * config.vision.image_size * 3);
    struct tiny_batch all[BATCHES], other;
    uint8_t *frames = malloc(BATCHES * n_bytes);
    struct neva *model = NULL;
    struct err err = {0};

    tiny_batch_init(&other, &config, 2, TOKENS, 2, 99);
    for (int i = 0; i < BATCHES; i++) {
        tiny_batch_init(&all[i], &config, 2, TOKENS, 1, (uint64_t)i);
        memcpy(frames + (size_t)i * n_bytes, all[i].pixels, n_bytes);
    }
    if (EXPECT_OK(neva_create(&model, &config, rank->backend, rank->tensor, &err),
                  &err) &&
        EXPECT_OK(neva_reserve(model, 2, TOKENS, 2, &err), &err) &&
        EXPECT_OK(passes(model, all, &other, frames, ahead, n_bytes, &err), &err))
        tiny_collect(model, TINY_GRAD, ahead->values);
    neva_destroy(model);
    for (int i = 0; i < BATCHES; i++)
        tiny_batch_fini(&all[i]);
    tiny_batch_fini(&other);
    free(frames);
}

static struct ahead run_ahead(bool is_ahead)
{
    struct neva_config config = tiny_config();
    struct ahead ahead = {is_ahead,
                          calloc((size_t)neva_n_params(&config), sizeof(float))};

    tiny_run_on("cuda", 1, 1, 1, ahead_body, &ahead);
    return ahead;
}

static void frames_that_come_ahead_give_the_same_bits(void)
{
    static const char *const orders[] = {"late", "early"};
    struct neva_config config = tiny_config();
    size_t n_bytes = (size_t)neva_n_params(&config) * sizeof(float);

    for (int i = 0; i < 2; i++) {
        struct ahead want, got;

        setenv("CUDA_HOST_STREAMS", orders[i], 1);
        want = run_ahead(false);
        got = run_ahead(true);
        EXPECT_MSG(memcmp(want.values, got.values, n_bytes) == 0,
                   "frames brought ahead give other gradients, streams %s", orders[i]);
        free(want.values);
        free(got.values);
    }
    unsetenv("CUDA_HOST_STREAMS");
}

int main(void)
{
    setenv("CUDA_HOST_DEVICES", "4", 1);
    EXPECT_RUN(every_bucket_gives_the_same_bits);
    EXPECT_RUN(so_does_every_model);
    EXPECT_RUN(frozen_parts_have_no_buckets);
    EXPECT_RUN(two_groups_work_at_once);
    EXPECT_RUN(a_rank_without_labels_asks_for_its_buckets_later);
    EXPECT_RUN(sums_that_are_given_up_leave_nothing);
    EXPECT_RUN(more_cannot_be_added_to_sums);
    EXPECT_RUN(frames_that_come_ahead_give_the_same_bits);
    return expect_end();
}
