/* test_cuda_group_graphs.c - recorded stretches in which ranks exchange between devices, over
 * the stand-ins of CUDA and NCCL (tests/cuda_host): all ranks run, record or launch the same,
 * collectives keep their numbers, and ranks that are lost over one are named. */
#include "model/comm/internal.h"
#include "tests/op/device_ranks.h"
#include "tests/op/expect.h"

#include <string.h>

#define TIMEOUT_MS 20000
#define SHORT_MS 300
#define N 16
#define PER_RUN 2 /* collectives of one */

/* x = the sum of all ranks' x, of which each has the same then, and again over the ranks. */
struct sums {
    struct device_rank *rank;
    struct tensor x, spare;
    float want[N];
    int n_runs, n_asked_peers;
    /* What this rank does besides, or instead of going on; NULL: nothing. */
    int (*inside)(struct sums *sums, struct err *err);
    bool leaves; /* instead of what the others agree on */
};

static int agree(void *peers, int64_t mine, int64_t *least, int64_t *greatest,
                 struct err *err)
{
    struct sums *sums = peers;

    sums->n_asked_peers++;
    if (comm_range(sums->rank->comm, mine, least, greatest, err) < 0)
        return -1;
    return sums->leaves ? err_set(err, ERR_STATE, "this rank leaves") : 0;
}

static int run_sums(void *context, struct err *err)
{
    struct sums *sums = context;
    struct device_rank *rank = sums->rank;
    float *x = sums->x.data;

    sums->n_runs++;
    if (comm_device_all_reduce(rank->comm, x, N, COMM_SUM, err) < 0 ||
        rank->b->ops->scale(rank->b, &sums->x, 0.25F, err) < 0 ||
        (sums->inside && sums->inside(sums, err) < 0))
        return -1;
    return comm_device_all_reduce(rank->comm, x, N, COMM_SUM, err);
}

static void sums_init(struct sums *sums, struct device_rank *rank)
{
    struct err err = {0};

    *sums = (struct sums){.rank = rank,
                          .x = device_ranks_tensor(rank, N),
                          .spare = device_ranks_tensor(rank, N)};
    device_ranks_fill(sums->want, N, rank->rank);
    EXPECT_OK(comm_all_reduce(rank->comm, sums->want, N, COMM_SUM, &err), &err);
    for (int i = 0; i < N; i++) /* so that every run multiplies it by the same */
        sums->want[i] /= (float)rank->n_ranks;
}

static void sums_fini(struct sums *sums)
{
    sums->rank->b->ops->free(sums->rank->b, sums->x.data);
    sums->rank->b->ops->free(sums->rank->b, sums->spare.data);
}

static int use(struct sums *sums, struct err *err)
{
    const struct backend_stretch stretch = {
        .name = "sums", .fixed = {N}, .agree = agree, .peers = sums};

    return backend_replay(sums->rank->b, &stretch, run_sums, sums, err);
}

static void use_and_check(struct sums *sums)
{
    struct device_rank *rank = sums->rank;
    float got[N], factor = (float)(rank->n_ranks * rank->n_ranks) / 4;
    struct err err = {0};

    if (!EXPECT_OK(use(sums, &err), &err) ||
        !EXPECT_OK(rank->b->ops->download(rank->b, got, sums->x.data, sizeof(got), &err),
                   &err))
        return;
    for (int i = 0; i < N; i++) {
        sums->want[i] *= factor;
        EXPECT_MSG(got[i] == sums->want[i], "element %d is %g, not %g", i, (double)got[i],
                   (double)sums->want[i]);
    }
}

static void expect_counts(const struct sums *sums, int recorded, int launched,
                          int refused, int runs)
{
    const struct backend_replay *replay = &sums->rank->b->replay;

    EXPECT_MSG((int)replay->n_recorded == recorded &&
                   (int)replay->n_launched == launched &&
                   (int)replay->n_refused == refused && sums->n_runs == runs,
               "%d recorded, %d launched, %d refused, %d runs; not %d, %d, %d, %d",
               (int)replay->n_recorded, (int)replay->n_launched, (int)replay->n_refused,
               sums->n_runs, recorded, launched, refused, runs);
}

/* ---- as one wants it ---- */

static void replay_body(struct device_rank *rank)
{
    struct sums sums;

    sums_init(&sums, rank);
    for (int i = 0; i < 6; i++) {
        use_and_check(&sums);
        EXPECT_MSG(rank->comm->device_number == (uint64_t)(i + 1) * PER_RUN,
                   "number %d after use %d", (int)rank->comm->device_number, i + 1);
    }
    expect_counts(&sums, 1, 5, 0, 2);
    EXPECT_MSG(sums.n_asked_peers == 7,
               "asked %d times: each use, and once when recorded", sums.n_asked_peers);
    sums_fini(&sums);
}

static void ranks_replay_what_they_exchange(void)
{
    for (int n = 2; n <= DEVICE_RANKS_MAX; n++)
        device_ranks_run(n, n, TIMEOUT_MS, replay_body);
}

static void time_body(struct device_rank *rank)
{
    struct sums sums;
    struct err err = {0};
    int64_t ns;

    sums_init(&sums, rank);
    for (int i = 0; i < 3; i++)
        use_and_check(&sums);
    (void)comm_take_ns(rank->comm);
    use_and_check(&sums);
    EXPECT((ns = comm_take_ns(rank->comm)) > 0);
    EXPECT_MSG(ns < 1000000000, "%lld ns for one launch", (long long)ns);
    EXPECT(rank->comm->device->ops->take_ns(rank->comm->device) == 0);
    for (int i = 0; i < 2; i++) /* two on their way, with the same events */
        EXPECT_OK(use(&sums, &err), &err);
    EXPECT_OK(rank->b->ops->sync(rank->b, &err), &err);
    EXPECT(rank->comm->device->ops->take_ns(rank->comm->device) > 0);
    sums_fini(&sums);
}

static void their_time_is_counted(void)
{
    device_ranks_run(2, 2, TIMEOUT_MS, time_body);
}

/* ---- what not all can do ---- */

static int upload(struct sums *sums, struct err *err)
{
    struct device_rank *rank = sums->rank;
    const float unused[N] = {0};

    return rank->b->ops->upload(rank->b, sums->spare.data, unused, sizeof(unused), err);
}

static void refusing_body(struct device_rank *rank)
{
    struct sums sums;
    const struct backend_replay *replay = &rank->b->replay;

    sums_init(&sums, rank);
    if (rank->rank == 1)
        sums.inside = upload;
    for (int i = 0; i < 5; i++)
        use_and_check(&sums);
    expect_counts(&sums, 0, 0, 2, 7); /* each, and twice in vain */
    EXPECT(rank->comm->device_number == 5 * PER_RUN);
    EXPECT_MSG(strstr(replay->refusal.text, rank->rank == 1
                                                ? "sums: an upload cannot be recorded"
                                                : "sums: another rank could not"),
               "'%s'", replay->refusal.text);
    sums_fini(&sums);
}

static void what_one_rank_cannot_record_none_does(void)
{
    device_ranks_run(2, 2, TIMEOUT_MS, refusing_body);
    device_ranks_run(3, 3, TIMEOUT_MS, refusing_body);
}

static void dropping_body(struct device_rank *rank)
{
    struct sums sums;

    sums_init(&sums, rank);
    for (int i = 0; i < 3; i++)
        use_and_check(&sums);
    if (rank->rank == 1)
        backend_allow_tf32(rank->b, true); /* its graphs have products without */
    for (int i = 0; i < 3; i++)
        use_and_check(&sums);
    expect_counts(&sums, 2, 5, 0, 3);
    sums_fini(&sums);
}

static void a_rank_that_dropped_its_own_records_with_the_others(void)
{
    device_ranks_run(2, 2, TIMEOUT_MS, dropping_body);
}

static int beside(struct sums *sums, struct err *err)
{
    struct device_rank *rank = sums->rank;

    if (comm_device_all_reduce_beside(rank->second, sums->x.data, N, COMM_MAX, err) < 0)
        return -1;
    return comm_device_join(rank->second, err);
}

static void beside_body(struct device_rank *rank)
{
    struct sums sums;

    sums_init(&sums, rank);
    sums.inside = beside;
    for (int i = 0; i < 4; i++)
        use_and_check(&sums);
    expect_counts(&sums, 0, 0, 2, 6);
    EXPECT_MSG(
        strstr(rank->b->replay.refusal.text, "no recording of what goes on beside"),
        "'%s'", rank->b->replay.refusal.text);
    EXPECT_MSG(rank->second->device_number == 4, "number %d: one of each use",
               (int)rank->second->device_number);
    sums_fini(&sums);
}

static void sums_beside_are_not_recorded(void)
{
    device_ranks_run(2, 2, TIMEOUT_MS, beside_body);
}

static int join(struct sums *sums, struct err *err)
{
    return comm_device_join(sums->rank->second, err);
}

static void join_body(struct device_rank *rank)
{
    struct sums sums;
    struct err err = {0};

    sums_init(&sums, rank);
    sums.inside = join;
    for (int i = 0; i < 3; i++) {
        EXPECT_OK(comm_device_all_reduce_beside(rank->second, sums.spare.data, N,
                                                COMM_MAX, &err),
                  &err);
        use_and_check(&sums);
    }
    expect_counts(&sums, 0, 0, 2, 5);
    EXPECT_MSG(strstr(rank->b->replay.refusal.text, "no recording of a wait for"), "'%s'",
               rank->b->replay.refusal.text);
    EXPECT(rank->second->device_number == 3);
    sums_fini(&sums);
}

static void a_wait_for_sums_beside_is_not_recorded(void)
{
    device_ranks_run(2, 2, TIMEOUT_MS, join_body);
}

static int of_second_group(struct sums *sums, struct err *err)
{
    return comm_device_all_reduce(sums->rank->second, sums->x.data, N, COMM_MAX, err);
}

static void second_group_body(struct device_rank *rank)
{
    struct sums sums;

    sums_init(&sums, rank);
    sums.inside = of_second_group;
    for (int i = 0; i < 4; i++)
        use_and_check(&sums);
    expect_counts(&sums, 0, 0, 2, 6);
    EXPECT_MSG(strstr(rank->b->replay.refusal.text,
                      "group 'data': no recording of a second group's collectives"),
               "'%s'", rank->b->replay.refusal.text);
    EXPECT(rank->second->device_number == 4);
    sums_fini(&sums);
}

/* CUDA was seen to hang over graphs of several communicators. */
static void one_group_is_recorded(void)
{
    device_ranks_run(2, 2, TIMEOUT_MS, second_group_body);
}

/* ---- failures ---- */

static void expect_given_up(struct sums *sums)
{
    struct device_rank *rank = sums->rank;
    struct err err = {0};

    EXPECT(comm_device_all_reduce(rank->comm, sums->x.data, N, COMM_SUM, &err) < 0);
    EXPECT_MSG(err.code == ERR_STATE, "code %d, %s", (int)err.code, err.text);
    EXPECT_OK(rank->b->ops->sync(rank->b, &err), &err);
}

static void lost_body(struct device_rank *rank)
{
    struct sums sums;
    struct err err = {0};
    int rc;

    sums_init(&sums, rank);
    for (int i = 0; i < 3; i++)
        use_and_check(&sums);
    sums.leaves = rank->rank == 1; /* the others launch what it does not */
    rc = use(&sums, &err);
    if (rank->rank == 1) {
        EXPECT(rc < 0);
        sums_fini(&sums);
        return;
    }
    EXPECT_OK(rc, &err);
    EXPECT(rank->b->ops->sync(rank->b, &err) < 0);
    EXPECT_MSG(err.code == ERR_TIMEOUT &&
                   strstr(err.text, "group 'tensor', recorded collectives number 7 to 8 "
                                    "of 128 bytes between devices") &&
                   strstr(err.text, "not there: rank 1 (at number 6)") &&
                   strstr(err.text, "the last that ended here is number 6"),
               "code %d, '%s'", (int)err.code, err.text);
    expect_given_up(&sums);
    sums_fini(&sums);
}

/* And communicators end though graphs had their collectives: the stand-in sees to it. */
static void a_rank_that_does_not_launch_is_named(void)
{
    device_ranks_run(2, 2, SHORT_MS, lost_body);
}

static void ending_body(struct device_rank *rank)
{
    struct sums sums;
    struct err err = {0};

    sums_init(&sums, rank);
    for (int i = 0; i < 3; i++)
        use_and_check(&sums);
    sums.leaves = rank->rank == 1;
    EXPECT((use(&sums, &err) == 0) == (rank->rank == 0));
    sums_fini(&sums); /* in the order of the stream, behind the launch */
    backend_destroy(rank->b);
    rank->b = NULL;
}

/* The stand-in sees to it that an abort comes before the end of the graph. */
static void a_backend_ends_with_a_launch_that_cannot(void)
{
    device_ranks_run(2, 2, TIMEOUT_MS, ending_body);
}

static int wrong(struct sums *sums, struct err *err)
{
    float host[N] = {0};

    if (sums->n_runs != 2) /* the recording */
        return 0;
    return comm_device_all_reduce(sums->rank->comm, host, N, COMM_SUM, err);
}

static void wrong_body(struct device_rank *rank)
{
    struct sums sums;
    struct err err = {0};

    sums_init(&sums, rank);
    sums.inside = wrong;
    use_and_check(&sums);
    EXPECT(use(&sums, &err) < 0);
    EXPECT_MSG(strstr(err.text, "group 'tensor', all-reduce number 4 between devices") &&
                   strstr(err.text, "invalid argument"),
               "'%s'", err.text);
    expect_given_up(&sums);
    sums_fini(&sums);
}

static void a_failure_while_recording_is_told(void)
{
    device_ranks_run(2, 2, TIMEOUT_MS, wrong_body);
}

int main(void)
{
    EXPECT_RUN(ranks_replay_what_they_exchange);
    EXPECT_RUN(their_time_is_counted);
    EXPECT_RUN(what_one_rank_cannot_record_none_does);
    EXPECT_RUN(a_rank_that_dropped_its_own_records_with_the_others);
    EXPECT_RUN(sums_beside_are_not_recorded);
    EXPECT_RUN(a_wait_for_sums_beside_is_not_recorded);
    EXPECT_RUN(one_group_is_recorded);
    EXPECT_RUN(a_rank_that_does_not_launch_is_named);
    EXPECT_RUN(a_backend_ends_with_a_launch_that_cannot);
    EXPECT_RUN(a_failure_while_recording_is_told);
    return expect_end();
}
