/* test_cuda_groups.c - collectives between devices, over the stand-ins of CUDA and NCCL
 * (tests/cuda_host): values against the host's collectives, those beside other work, ranks
 * that share a device, and ranks that leave, never come, or do something else.
 */
#include "common/base/clock.h"
#include "common/base/stage.h"
#include "model/comm/internal.h"
#include "model/nn/nn.h"
#include "tests/op/device_ranks.h"
#include "tests/op/expect.h"

#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#define RANKS_MAX DEVICE_RANKS_MAX
#define TIMEOUT_MS 20000
#define SHORT_MS 300
#define N_MAX DEVICE_RANKS_NUMBERS_MAX

/* ---- values ---- */

enum what { SUM, MAX, GATHER, SCATTER, BROADCAST, WHAT_COUNT };

/* On the host: what the group's other way gives. */
static int on_host(struct device_rank *rank, enum what what, float *out, const float *x,
                   int64_t n, struct err *err)
{
    size_t bytes = (size_t)n * sizeof(*x);

    if (what == GATHER)
        return comm_all_gather(rank->comm, out, x, bytes, err);
    if (what == SCATTER)
        return comm_reduce_scatter(rank->comm, out, x, n, err);
    memcpy(out, x, bytes);
    if (what == BROADCAST)
        return comm_broadcast(rank->comm, out, bytes, rank->n_ranks - 1, err);
    return comm_all_reduce(rank->comm, out, n, what == MAX ? COMM_MAX : COMM_SUM, err);
}

static int on_device(struct device_rank *rank, enum what what, float *out, float *x,
                     int64_t n, struct err *err)
{
    size_t bytes = (size_t)n * sizeof(*x);

    switch (what) {
    case GATHER:
        return comm_device_all_gather(rank->comm, out, x, bytes, err);
    case SCATTER:
        return comm_device_reduce_scatter(rank->comm, out, x, n, err);
    case BROADCAST:
        return comm_device_broadcast(rank->comm, x, bytes, rank->n_ranks - 1, err);
    default:
        return comm_device_all_reduce(rank->comm, x, n, what == MAX ? COMM_MAX : COMM_SUM,
                                      err);
    }
}

static void compare(struct device_rank *rank, enum what what, int64_t n)
{
    static const char *const names[] = {"sum", "max", "gather", "scatter", "broadcast"};
    int64_t n_in = what == SCATTER ? n * rank->n_ranks : n;
    int64_t n_out = what == GATHER ? n * rank->n_ranks : n;
    const struct backend_ops *ops = rank->b->ops;
    float x[N_MAX * RANKS_MAX], want[N_MAX * RANKS_MAX], got[N_MAX * RANKS_MAX];
    struct tensor in = {0}, out = {0};
    struct err err = {0};
    size_t out_bytes = (size_t)n_out * sizeof(float);
    bool is_in_place = what != GATHER && what != SCATTER;

    device_ranks_fill(x, n_in, rank->rank);
    EXPECT_OK(on_host(rank, what, want, x, n, &err), &err);
    EXPECT_OK(backend_tensor(rank->b, &in, DTYPE_F32, 1, &n_in, &err), &err);
    EXPECT_OK(backend_tensor(rank->b, &out, DTYPE_F32, 1, &n_out, &err), &err);
    EXPECT_OK(ops->upload(rank->b, in.data, x, tensor_bytes(&in), &err), &err);
    EXPECT_OK(on_device(rank, what, out.data, in.data, n, &err), &err);
    EXPECT_OK(
        ops->download(rank->b, got, is_in_place ? in.data : out.data, out_bytes, &err),
        &err);
    EXPECT_MSG(memcmp(got, want, out_bytes) == 0, "%s of %d by %d ranks is another",
               names[what], (int)n, rank->n_ranks);
    ops->free(rank->b, in.data);
    ops->free(rank->b, out.data);
}

static void values_body(struct device_rank *rank)
{
    static const int64_t sizes[] = {1, 5, N_MAX};

    EXPECT(comm_has_device(rank->comm));
    for (enum what what = SUM; what < WHAT_COUNT; what++)
        for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
            compare(rank, what, sizes[i]);
}

static void devices_give_what_the_host_gives(void)
{
    for (int n = 2; n <= RANKS_MAX; n++)
        device_ranks_run(n, n, TIMEOUT_MS, values_body);
}

/* More collectives on their way than are told apart, without a wait between. */
static void many_body(struct device_rank *rank)
{
    const struct backend_ops *ops = rank->b->ops;
    struct tensor x = {0};
    int64_t n = 3;
    float host[] = {1, 2, 3};
    struct err err = {0};

    EXPECT_OK(backend_tensor(rank->b, &x, DTYPE_F32, 1, &n, &err), &err);
    EXPECT_OK(ops->upload(rank->b, x.data, host, sizeof(host), &err), &err);
    for (int i = 0; i < 100; i++)
        EXPECT_OK(comm_device_all_reduce(rank->comm, x.data, n,
                                         i % 2 ? COMM_MAX : COMM_SUM, &err) < 0 ||
                      ops->scale(rank->b, &x, i % 2 ? 1 : 0.5F, &err) < 0,
                  &err);
    EXPECT_OK(ops->download(rank->b, host, x.data, sizeof(host), &err), &err);
    EXPECT_MSG(host[0] == 1 && host[2] == 3, "%g, %g", (double)host[0], (double)host[2]);
    ops->free(rank->b, x.data);
}

static void collectives_keep_their_order_with_other_work(void)
{
    device_ranks_run(2, 2, TIMEOUT_MS, many_body);
}

/* ---- beside other work ---- */

/* x doubled, y summed over the ranks while z is worked on, then all halved: y = sum. */
static void beside_body(struct device_rank *rank)
{
    const struct backend_ops *ops = rank->b->ops;
    int64_t n = N_MAX;
    struct tensor y = device_ranks_tensor(rank, n), z = device_ranks_tensor(rank, n);
    float want[N_MAX], got[N_MAX], mine[N_MAX];
    struct err err = {0};

    device_ranks_fill(want, n, rank->rank);
    EXPECT_OK(comm_all_reduce(rank->comm, want, n, COMM_SUM, &err), &err);
    for (int i = 0; i < 3; i++) { /* the events are used again */
        EXPECT_OK(ops->scale(rank->b, &y, 2, &err), &err);
        EXPECT_OK(
            comm_device_all_reduce_beside(rank->second, y.data, n / 2, COMM_SUM, &err),
            &err);
        EXPECT_OK(ops->scale(rank->b, &z, 2, &err), &err);
        EXPECT_OK(comm_device_all_reduce(rank->comm, z.data, n, COMM_MAX, &err), &err);
        EXPECT_OK(comm_device_all_reduce_beside(rank->second, (float *)y.data + n / 2,
                                                n - n / 2, COMM_SUM, &err),
                  &err);
        EXPECT_OK(comm_device_join(rank->second, &err), &err);
        EXPECT_OK(ops->scale(rank->b, &y, 0.5F, &err), &err);
        if (i < 2)
            EXPECT_OK(ops->scale(rank->b, &y, 1 / (float)rank->n_ranks, &err), &err);
    }
    EXPECT_OK(ops->download(rank->b, got, y.data, sizeof(got), &err), &err);
    device_ranks_fill(mine, n, rank->rank);
    for (int64_t i = 0; i < n; i++)
        if (!expect_near((double)got[i], (double)want[i], 1e-5, 1e-5)) {
            EXPECT_MSG(false, "element %d of a sum beside is %g, not %g; this rank's %g",
                       (int)i, (double)got[i], (double)want[i], (double)mine[i]);
            break;
        }
    ops->free(rank->b, y.data);
    ops->free(rank->b, z.data);
}

static void sums_go_on_beside_other_work(void)
{
    static const char *const streams[] = {"late", "early"};

    for (int i = 0; i < 2; i++) {
        setenv("CUDA_HOST_STREAMS", streams[i], 1);
        for (int n = 2; n <= RANKS_MAX; n++)
            device_ranks_run(n, n, TIMEOUT_MS, beside_body);
    }
    unsetenv("CUDA_HOST_STREAMS");
}

static int64_t device_ns(struct comm *comm)
{
    return comm->device->ops->take_ns(comm->device);
}

/* Of a collective beside only what the other work waits for it counts. */
static void time_body(struct device_rank *rank)
{
    struct tensor x = device_ranks_tensor(rank, N_MAX);
    struct err err = {0};

    EXPECT_OK(comm_device_all_reduce(rank->comm, x.data, N_MAX, COMM_SUM, &err), &err);
    EXPECT_OK(rank->b->ops->sync(rank->b, &err), &err);
    EXPECT(device_ns(rank->comm) > 0);
    EXPECT(device_ns(rank->comm) == 0);
    EXPECT_OK(comm_device_all_reduce_beside(rank->second, x.data, N_MAX, COMM_SUM, &err),
              &err);
    EXPECT_OK(comm_barrier(rank->comm, &err), &err);
    EXPECT(device_ns(rank->second) == 0);
    EXPECT_OK(comm_device_join(rank->second, &err), &err);
    EXPECT_OK(rank->b->ops->sync(rank->b, &err), &err);
    EXPECT(device_ns(rank->second) > 0);
    rank->b->ops->free(rank->b, x.data);
}

static void time_between_devices_is_counted(void)
{
    device_ranks_run(2, 2, TIMEOUT_MS, time_body);
}

/* ---- the way through the host ---- */

static void staged_body(struct device_rank *rank)
{
    struct nn nn = {.backend = rank->b, .group = rank->comm, .dtype = DTYPE_F32};
    struct tensor x = {0};
    int64_t n = 2;
    float host[] = {1, 2};
    struct err err = {0};

    EXPECT(!comm_has_device(rank->comm));
    EXPECT_OK(backend_tensor(rank->b, &x, DTYPE_F32, 1, &n, &err), &err);
    EXPECT_OK(rank->b->ops->upload(rank->b, x.data, host, sizeof(host), &err), &err);
    EXPECT_OK(nn_all_reduce(&nn, rank->comm, &x, COMM_SUM, &err), &err);
    EXPECT_OK(rank->b->ops->download(rank->b, host, x.data, sizeof(host), &err), &err);
    EXPECT(host[0] == (float)rank->n_ranks && host[1] == (float)(2 * rank->n_ranks));
    rank->b->ops->free(rank->b, x.data);
    nn_fini(&nn);
}

static void ranks_that_share_a_device_go_through_the_host(void)
{
    device_ranks_run(2, 1, TIMEOUT_MS, staged_body);
    device_ranks_run(4, 3, TIMEOUT_MS, staged_body); /* two of four share one */
}

static void without_nccl_ranks_go_through_the_host(void)
{
    setenv("CUDA_HOST_NCCL_VERSION", "22105", 1);
    device_ranks_run(2, 2, TIMEOUT_MS, staged_body);
    unsetenv("CUDA_HOST_NCCL_VERSION");
}

static void *full_main(void *arg)
{
    struct device_rank *rank = arg;
    struct err err = {0};

    EXPECT(nn_open_group(rank->b, rank->comm, &err) < 0);
    EXPECT_MSG(err.code == ERR_NOMEM && strstr(err.text, "group 'tensor'") &&
                   strstr(err.text, "has no memory for it"),
               "code %d, '%s'", (int)err.code, err.text);
    return NULL;
}

static void a_full_device_is_no_lost_peer(void)
{
    setenv("CUDA_HOST_NCCL_FULL", "1", 1);
    device_ranks_run_main(2, 2, TIMEOUT_MS, full_main, NULL);
    unsetenv("CUDA_HOST_NCCL_FULL");
}

/* ---- ranks that leave, never come, or do something else ---- */

/* Asks for two all-reduces of n and waits; the error of the wait, or of asking. */
static void expect_failure(struct device_rank *rank, int64_t n, enum err_code code,
                           const char *text)
{
    struct tensor x = {0};
    struct err err = {0};
    int rc = 0;

    EXPECT_OK(backend_tensor(rank->b, &x, DTYPE_F32, 1, &n, &err), &err);
    for (int i = 0; i < 2 && rc == 0; i++)
        rc = comm_device_all_reduce(rank->comm, x.data, n, COMM_SUM, &err);
    if (rc == 0)
        rc = rank->b->ops->sync(rank->b, &err);
    EXPECT_MSG(rc < 0 && err.code == code, "code %d, %s", (int)err.code, err.text);
    EXPECT_MSG(strstr(err.text, "group 'tensor'") && strstr(err.text, text) &&
                   strstr(err.text, "number"),
               "'%s' does not say '%s'", err.text, text);
    /* from then on the group says so at once, and the device is free */
    EXPECT(comm_device_all_reduce(rank->comm, x.data, n, COMM_SUM, &err) < 0);
    EXPECT_MSG(err.code == ERR_STATE, "code %d, %s", (int)err.code, err.text);
    EXPECT_OK(rank->b->ops->sync(rank->b, &err), &err);
    rank->b->ops->free(rank->b, x.data);
}

static void leaving_body(struct device_rank *rank)
{
    if (rank->rank == 1) {
        backend_destroy(rank->b);
        rank->b = NULL;
        EXPECT(!comm_has_device(rank->comm));
        return;
    }
    expect_failure(rank, 8, ERR_PEER, "lost the others: a rank has left");
}

static void a_rank_that_leaves_is_an_error_for_the_others(void)
{
    device_ranks_run(3, 3, TIMEOUT_MS, leaving_body);
}

/* Rank 1 leaves when it has seen what rank 0 does. */
static struct {
    struct stage_board *board;
    atomic_bool is_watching;
} watched;

static void watching_body(struct device_rank *rank)
{
    int64_t begun_ms = clock_mono_ms();
    struct stage_now now = {.text = ""};

    if (rank->rank == 0) {
        while (!watched.is_watching)
            sched_yield();
        expect_failure(rank, 8, ERR_PEER, "a rank has left");
        return;
    }
    watched.is_watching = true;
    while (!strstr(now.text, "between devices") &&
           clock_mono_ms() - begun_ms < TIMEOUT_MS)
        stage_read(watched.board, &now);
    EXPECT_MSG(strcmp(now.text, "exchange between devices of group tensor") == 0 &&
                   now.limit_ms == 0,
               "'%s', limit %d ms", now.text, (int)now.limit_ms);
    backend_destroy(rank->b);
    rank->b = NULL;
}

/* So a rank that others keep is not taken for stuck. */
static void a_rank_that_waits_says_so(void)
{
    struct err err = {0};
    int fd = -1;

    if (!EXPECT_OK(stage_make(&watched.board, &fd, &err), &err) ||
        !EXPECT_OK(stage_attach(fd, "rank0", &err), &err))
        return;
    stage_set_limit(1000);
    stage_begin("forward", NULL, STAGE_LIMITED);
    device_ranks_run(2, 2, TIMEOUT_MS, watching_body);
    stage_unmake(watched.board);
}

static void late_body(struct device_rank *rank)
{
    if (rank->rank == 0)
        expect_failure(rank, 8, ERR_TIMEOUT, "not there: rank 1 (at number 0)");
}

static void a_rank_that_never_comes_ends_the_wait(void)
{
    device_ranks_run(2, 2, SHORT_MS, late_body);
}

/* Rank 1 comes to the sum beside and to nothing else: rank 0's is held up by a collective of
 * another group, which is to blame, and both communicators end. */
static atomic_bool held_up_is_over;

static void held_up_body(struct device_rank *rank)
{
    struct tensor x = device_ranks_tensor(rank, 8);
    struct err err = {0};

    if (rank->rank == 0)
        EXPECT_OK(comm_device_all_reduce(rank->comm, x.data, 8, COMM_SUM, &err), &err);
    EXPECT_OK(comm_device_all_reduce_beside(rank->second, x.data, 8, COMM_SUM, &err),
              &err);
    EXPECT_OK(comm_device_join(rank->second, &err), &err);
    while (rank->rank == 1 && !held_up_is_over)
        sched_yield();
    EXPECT(rank->b->ops->sync(rank->b, &err) < 0);
    held_up_is_over = true;
    if (rank->rank == 0)
        EXPECT_MSG(err.code == ERR_TIMEOUT && strstr(err.text, "group 'tensor'") &&
                       strstr(err.text, "not there: rank 1 (at number 0)") &&
                       strstr(err.text, "number 1 of 32 bytes"),
                   "code %d, '%s'", (int)err.code, err.text);
    else
        EXPECT_MSG(err.code == ERR_PEER && strstr(err.text, "group 'data'"), "'%s'",
                   err.text);
    EXPECT(comm_device_all_reduce(rank->comm, x.data, 8, COMM_SUM, &err) < 0);
    EXPECT(comm_device_all_reduce(rank->second, x.data, 8, COMM_SUM, &err) < 0);
    EXPECT_OK(rank->b->ops->sync(rank->b, &err), &err);
    rank->b->ops->free(rank->b, x.data);
}

static void a_collective_that_is_held_up_is_not_blamed(void)
{
    device_ranks_run(2, 2, SHORT_MS, held_up_body);
}

/* A collective beside that nobody else comes to: found out in the wait for other work. */
static void alone_beside_body(struct device_rank *rank)
{
    struct tensor x = device_ranks_tensor(rank, 8);
    struct err err = {0};

    if (rank->rank == 0) {
        EXPECT_OK(comm_device_all_reduce_beside(rank->second, x.data, 8, COMM_SUM, &err),
                  &err);
        EXPECT_OK(comm_device_join(rank->second, &err), &err);
        EXPECT(rank->b->ops->sync(rank->b, &err) < 0);
        EXPECT_MSG(err.code == ERR_TIMEOUT && strstr(err.text, "group 'data'") &&
                       strstr(err.text, "not there: rank 1 (at number 0)"),
                   "code %d, '%s'", (int)err.code, err.text);
    }
    rank->b->ops->free(rank->b, x.data);
}

static void a_sum_beside_that_nobody_comes_to_ends(void)
{
    device_ranks_run(2, 2, SHORT_MS, alone_beside_body);
}

static void different_body(struct device_rank *rank)
{
    expect_failure(rank, 8 + rank->rank, ERR_IO, "different things");
}

static void ranks_that_do_different_things_find_out(void)
{
    device_ranks_run(2, 2, TIMEOUT_MS, different_body);
}

int main(void)
{
    EXPECT_RUN(devices_give_what_the_host_gives);
    EXPECT_RUN(collectives_keep_their_order_with_other_work);
    EXPECT_RUN(sums_go_on_beside_other_work);
    EXPECT_RUN(time_between_devices_is_counted);
    EXPECT_RUN(ranks_that_share_a_device_go_through_the_host);
    EXPECT_RUN(without_nccl_ranks_go_through_the_host);
    EXPECT_RUN(a_full_device_is_no_lost_peer);
    EXPECT_RUN(a_rank_that_leaves_is_an_error_for_the_others);
    EXPECT_RUN(a_rank_that_never_comes_ends_the_wait);
    EXPECT_RUN(a_collective_that_is_held_up_is_not_blamed);
    EXPECT_RUN(a_sum_beside_that_nobody_comes_to_ends);
    EXPECT_RUN(ranks_that_do_different_things_find_out);
    /* last: a process has one stage, and from then on ranks as threads would share it */
    EXPECT_RUN(a_rank_that_waits_says_so);
    return expect_end();
}
