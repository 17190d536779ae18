/* Every collective over every transport: values, odd sizes, sizes above a slot, the same
 * bits on all ranks; then ranks that do different things, never come, or die. */
#include "common/base/clock.h"
#include "model/comm/comm.h"
#include "tests/op/expect.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define RANKS_MAX 4
#define TIMEOUT_MS 20000
#define SHORT_MS 300
#define SLOT_BYTES ((size_t)4096)

enum transport { THREADS, SHM, RING, TRANSPORT_COUNT };

/* ---- a link over socket pairs: one between each rank and the next ---- */

struct piece {
    const char *at;
    size_t n_bytes;
};

struct sockets {
    int to_next, from_before;
    struct piece posted[COMM_LINK_POSTS_MAX];
    int n_posted;
};

static int link_post(void *state, int to_rank, const void *bytes, size_t n_bytes,
                     struct err *err)
{
    struct sockets *s = state;

    (void)to_rank;
    if (s->n_posted == COMM_LINK_POSTS_MAX)
        return err_set(err, ERR_LIMIT, "not flushed");
    s->posted[s->n_posted++] = (struct piece){bytes, n_bytes};
    return 0;
}

/* Sends of what was posted what the socket takes. */
static int send_some(struct sockets *s, struct err *err)
{
    while (s->n_posted) {
        struct piece *piece = &s->posted[0];
        ssize_t n =
            send(s->to_next, piece->at, piece->n_bytes, MSG_NOSIGNAL | MSG_DONTWAIT);

        if (n < 0 && errno == EAGAIN)
            return 0;
        if (n <= 0)
            return err_set(err, ERR_PEER, "the connection is gone");
        piece->at += n;
        piece->n_bytes -= (size_t)n;
        if (!piece->n_bytes)
            s->posted[0] = s->posted[--s->n_posted];
    }
    return 0;
}

/* Until something comes (`is_in`) or what was posted can go on. */
static int link_wait(struct sockets *s, bool is_in, int64_t timeout_ms, struct err *err)
{
    struct pollfd polls[] = {{.fd = is_in ? s->from_before : -1, .events = POLLIN},
                             {.fd = s->n_posted ? s->to_next : -1, .events = POLLOUT}};

    if (poll(polls, 2, (int)timeout_ms) <= 0)
        return err_set(err, ERR_TIMEOUT, "nothing came within %lld ms",
                       (long long)timeout_ms);
    return 0;
}

static int link_flush(void *state, int64_t timeout_ms, struct err *err)
{
    struct sockets *s = state;

    while (s->n_posted)
        if (link_wait(s, false, timeout_ms, err) < 0 || send_some(s, err) < 0)
            return -1;
    return 0;
}

static int link_recv(void *state, int from_rank, void *bytes, size_t n_bytes,
                     int64_t timeout_ms, struct err *err)
{
    struct sockets *s = state;
    char *at = bytes;

    (void)from_rank;
    while (n_bytes > 0) {
        ssize_t n;

        if (send_some(s, err) < 0 || link_wait(s, true, timeout_ms, err) < 0)
            return -1;
        n = recv(s->from_before, at, n_bytes, MSG_DONTWAIT);
        if (n == 0 || (n < 0 && errno != EAGAIN))
            return err_set(err, ERR_PEER, "the connection is gone");
        at += n > 0 ? n : 0;
        n_bytes -= n > 0 ? (size_t)n : 0;
    }
    return 0;
}

/* ---- ranks as threads ---- */

struct world {
    enum transport transport;
    int n_ranks;
    int64_t timeout_ms;
    void (*body)(struct comm *comm);
    char segment[64];
    struct comm *threads[RANKS_MAX];
    struct sockets sockets[RANKS_MAX];
};

struct member {
    struct world *world;
    int rank;
};

static int join(struct world *w, int rank, struct comm **out, struct err *err)
{
    struct comm_link link = {&w->sockets[rank], link_post, link_flush, link_recv};

    switch (w->transport) {
    case THREADS:
        *out = w->threads[rank];
        return 0;
    case SHM:
        return comm_create_shm(out, "test", w->segment, rank, w->n_ranks, SLOT_BYTES,
                               w->timeout_ms, err);
    default:
        return comm_create_ring(out, "test", &link, rank, w->n_ranks, w->timeout_ms, err);
    }
}

static void *member_main(void *arg)
{
    struct member *member = arg;
    struct comm *comm = NULL;
    struct err err = {0};

    if (EXPECT_OK(join(member->world, member->rank, &comm, &err), &err)) {
        EXPECT(comm_rank(comm) == member->rank);
        EXPECT(comm_size(comm) == member->world->n_ranks);
        member->world->body(comm);
        comm_destroy(comm);
    }
    return NULL;
}

static void run_world(enum transport transport, int n_ranks, int64_t timeout_ms,
                      void (*body)(struct comm *comm))
{
    static atomic_int n_worlds; /* makes names of segments fresh */
    struct world w = {transport, n_ranks, timeout_ms,       body,
                      "",        {NULL},  {{.n_posted = 0}}};
    struct member members[RANKS_MAX];
    pthread_t threads[RANKS_MAX];
    struct err err = {0};

    snprintf(w.segment, sizeof(w.segment), "vneva-test-%d-%d", (int)getpid(), n_worlds++);
    if (transport == THREADS)
        EXPECT_OK(comm_create_threads(w.threads, "test", n_ranks, timeout_ms, &err),
                  &err);
    for (int rank = 0; rank < n_ranks; rank++) {
        int pair[2];

        EXPECT(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
        w.sockets[rank].to_next = pair[0];
        w.sockets[(rank + 1) % n_ranks].from_before = pair[1];
    }
    for (int rank = 0; rank < n_ranks; rank++) {
        members[rank] = (struct member){&w, rank};
        EXPECT(pthread_create(&threads[rank], NULL, member_main, &members[rank]) == 0);
    }
    for (int rank = 0; rank < n_ranks; rank++)
        pthread_join(threads[rank], NULL);
    for (int rank = 0; rank < n_ranks; rank++) {
        close(w.sockets[rank].to_next);
        close(w.sockets[rank].from_before);
    }
}

static void for_all(void (*body)(struct comm *comm))
{
    for (enum transport t = 0; t < TRANSPORT_COUNT; t++)
        for (int n_ranks = 1; n_ranks <= RANKS_MAX; n_ranks++)
            run_world(t, n_ranks, TIMEOUT_MS, body);
}

/* ---- values ---- */

static const int64_t sizes[] = {0, 1, 3, 7, 1023, 1024, 1025, 5000, 30011};

#define N_SIZES ((int)(sizeof(sizes) / sizeof(sizes[0])))

/* Numbers whose sums are not exact in fp32, so that the order shows. */
static float value(int rank, int64_t i)
{
    return (float)(rank + 1) * 0.1F + (float)(i % 97) * 0.013F - (float)(rank * i % 5);
}

static void all_reduce_body(struct comm *comm)
{
    int n_ranks = comm_size(comm);
    struct err err = {0};

    for (int s = 0; s < N_SIZES; s++) {
        int64_t n = sizes[s];
        float *x = calloc((size_t)n + 1, sizeof(*x));
        float *all = calloc((size_t)(n * n_ranks) + 1, sizeof(*all));

        for (int64_t i = 0; i < n; i++)
            x[i] = value(comm_rank(comm), i);
        EXPECT_OK(comm_all_reduce(comm, x, n, COMM_SUM, &err), &err);
        for (int64_t i = 0; i < n; i++) {
            double want = 0;

            for (int rank = 0; rank < n_ranks; rank++)
                want += (double)value(rank, i);
            EXPECT(expect_near((double)x[i], want, 1e-6, 1e-5));
        }
        EXPECT_OK(comm_all_gather(comm, all, x, (size_t)n * sizeof(*x), &err), &err);
        for (int rank = 1; rank < n_ranks; rank++)
            EXPECT_MSG(memcmp(all, all + rank * n, (size_t)n * sizeof(*x)) == 0,
                       "ranks 0 and %d have other bits", rank);
        for (int64_t i = 0; i < n; i++)
            x[i] = value((comm_rank(comm) + (int)i) % n_ranks, i);
        EXPECT_OK(comm_all_reduce(comm, x, n, COMM_MAX, &err), &err);
        for (int64_t i = 0; i < n; i++) {
            float want = value(0, i);

            for (int rank = 1; rank < n_ranks; rank++)
                want = value(rank, i) > want ? value(rank, i) : want;
            EXPECT(x[i] == want);
        }
        free(x);
        free(all);
    }
}

static void all_reduce_sums_and_takes_the_largest(void)
{
    for_all(all_reduce_body);
}

static void f64_body(struct comm *comm)
{
    double x[3] = {1e15 + comm_rank(comm), comm_rank(comm), -comm_rank(comm)};
    double n = comm_size(comm), sum = n * (n - 1) / 2;
    struct err err = {0};

    EXPECT_OK(comm_all_reduce_f64(comm, x, 3, COMM_SUM, &err), &err);
    EXPECT(x[0] == n * 1e15 + sum && x[1] == sum && x[2] == -sum);
    x[1] = comm_rank(comm);
    EXPECT_OK(comm_all_reduce_f64(comm, x, 2, COMM_MAX, &err), &err);
    EXPECT(x[1] == n - 1);
}

static void doubles_keep_their_digits(void)
{
    for_all(f64_body);
}

static void range_body(struct comm *comm)
{
    int64_t least = 0, greatest = 0, far = (int64_t)1 << 52;
    struct err err = {0};

    (void)comm_take_ns(comm);
    EXPECT_OK(comm_range(comm, far - comm_rank(comm), &least, &greatest, &err), &err);
    EXPECT(least == far - comm_size(comm) + 1 && greatest == far);
    EXPECT_OK(comm_range(comm, -comm_rank(comm), &least, &greatest, &err), &err);
    EXPECT(least == 1 - comm_size(comm) && greatest == 0);
    EXPECT(comm_take_ns(comm) == 0);
}

static void ranks_know_the_range_of_what_they_say(void)
{
    for_all(range_body);
}

static void gather_body(struct comm *comm)
{
    struct err err = {0};

    for (int s = 0; s < N_SIZES; s++) {
        size_t n = (size_t)sizes[s];
        unsigned char *out = malloc(n * (size_t)comm_size(comm) + 1);
        unsigned char *mine = out + n * (size_t)comm_rank(comm); /* lies inside out */

        for (size_t i = 0; i < n; i++)
            mine[i] = (unsigned char)(i * 7 + (size_t)comm_rank(comm));
        EXPECT_OK(comm_all_gather(comm, out, mine, n, &err), &err);
        for (size_t i = 0; i < n * (size_t)comm_size(comm); i++)
            if (!EXPECT(out[i] == (unsigned char)(i % n * 7 + i / n)))
                break;
        free(out);
    }
}

static void all_gather_puts_ranks_in_order(void)
{
    for_all(gather_body);
}

static void scatter_body(struct comm *comm)
{
    int n_ranks = comm_size(comm), rank = comm_rank(comm);
    struct err err = {0};

    for (int s = 0; s < N_SIZES; s++) {
        int64_t n = sizes[s];
        float *x = malloc(((size_t)(n * n_ranks) + 1) * sizeof(*x));
        float *out = malloc(((size_t)n + 1) * sizeof(*out));

        for (int64_t i = 0; i < n * n_ranks; i++)
            x[i] = value(rank, i);
        EXPECT_OK(comm_reduce_scatter(comm, out, x, n, &err), &err);
        for (int64_t i = 0; i < n; i++) {
            double want = 0;

            for (int r = 0; r < n_ranks; r++)
                want += (double)value(r, rank * n + i);
            EXPECT(expect_near((double)out[i], want, 1e-6, 1e-5));
        }
        for (int64_t i = 0; i < n * n_ranks; i++)
            EXPECT(x[i] == value(rank, i)); /* only read */
        free(x);
        free(out);
    }
}

static void reduce_scatter_gives_each_rank_its_part(void)
{
    for_all(scatter_body);
}

static void broadcast_body(struct comm *comm)
{
    struct err err = {0};

    for (int root = 0; root < comm_size(comm); root++)
        for (int s = 0; s < N_SIZES; s++) {
            size_t n = (size_t)sizes[s];
            char *x = malloc(n + 1);

            memset(x, comm_rank(comm) == root ? 'a' + root : '?', n);
            EXPECT_OK(comm_broadcast(comm, x, n, root, &err), &err);
            for (size_t i = 0; i < n; i++)
                if (!EXPECT(x[i] == 'a' + root))
                    break;
            free(x);
        }
    EXPECT(comm_broadcast(comm, NULL, 0, comm_size(comm), &err) < 0);
}

static void broadcast_reaches_every_rank_from_any(void)
{
    for_all(broadcast_body);
}

/* No rank leaves a barrier before all have come to it. */
static atomic_int n_come;

static void barrier_body(struct comm *comm)
{
    struct err err = {0};

    for (int round = 1; round <= 50; round++) {
        n_come++;
        EXPECT_OK(comm_barrier(comm, &err), &err);
        EXPECT(n_come >= round * comm_size(comm));
        EXPECT_OK(comm_barrier(comm, &err), &err);
    }
    if (comm_rank(comm) == 0)
        n_come = 0;
}

static void barrier_waits_for_all(void)
{
    for_all(barrier_body);
}

/* ---- what goes wrong ---- */

static void different_body(struct comm *comm)
{
    float x[8] = {0};
    struct err err = {0};
    int rc;

    EXPECT_OK(comm_barrier(comm, &err), &err);
    if (comm_rank(comm) == 1)
        rc = comm_all_gather(comm, x, x + 1, sizeof(*x), &err);
    else
        rc = comm_all_reduce(comm, x, 8, COMM_SUM, &err);
    EXPECT_MSG(rc < 0 && err.code != ERR_NONE, "rank %d did not notice", comm_rank(comm));
    if (err.code == ERR_PEER && !strstr(err.text, "gave up") &&
        !strstr(err.text, "the connection"))
        EXPECT_MSG(strstr(err.text, "number 2") && strstr(err.text, "all-gather") &&
                       strstr(err.text, "all-reduce"),
                   "%s", err.text);
}

static void sizes_body(struct comm *comm)
{
    float x[8] = {0};
    struct err err = {0};

    EXPECT(comm_all_reduce(comm, x, 4 + comm_rank(comm), COMM_SUM, &err) < 0);
}

static void ranks_that_do_different_things_find_out(void)
{
    for (enum transport t = 0; t < TRANSPORT_COUNT; t++)
        for (int n_ranks = 2; n_ranks <= RANKS_MAX; n_ranks++) {
            run_world(t, n_ranks, SHORT_MS, different_body);
            run_world(t, n_ranks, SHORT_MS, sizes_body);
        }
}

/* Rank 1 meets the others once and then stays away. */
static void absent_body(struct comm *comm)
{
    float x[4] = {0};
    struct err err = {0};

    EXPECT_OK(comm_barrier(comm, &err), &err);
    if (comm_rank(comm) == 1)
        return;
    EXPECT(comm_all_reduce(comm, x, 4, COMM_SUM, &err) < 0);
    EXPECT_MSG(err.code == ERR_TIMEOUT || err.code == ERR_PEER, "%s", err.text);
    EXPECT_MSG(strstr(err.text, "group 'test'") && strstr(err.text, "all-reduce") &&
                   strstr(err.text, "number 2"),
               "%s", err.text);
}

static void absent_shared_body(struct comm *comm)
{
    struct err err = {0};

    absent_body(comm);
    if (comm_rank(comm) == 1)
        return;
    EXPECT(comm_barrier(comm, &err) < 0); /* and stays that way */
    EXPECT_MSG(strstr(err.text, "rank 1") || strstr(err.text, ", 1"), "%s", err.text);
}

static void a_rank_that_never_comes_is_named(void)
{
    run_world(RING, 2, SHORT_MS, absent_body);
    run_world(RING, 4, SHORT_MS, absent_body);
    run_world(THREADS, 2, SHORT_MS, absent_shared_body);
    run_world(THREADS, 4, SHORT_MS, absent_shared_body);
    run_world(SHM, 3, SHORT_MS, absent_shared_body);
}

static void a_group_that_is_not_complete_is_not_made(void)
{
    struct comm *comm = NULL;
    struct err err = {0};
    char segment[64];

    snprintf(segment, sizeof(segment), "vneva-test-%d-alone", (int)getpid());
    EXPECT(comm_create_shm(&comm, "tensor", segment, 0, 3, SLOT_BYTES, SHORT_MS, &err) <
           0);
    EXPECT_MSG(err.code == ERR_TIMEOUT && strstr(err.text, "rank 1, 2 did not come"),
               "%s", err.text);
    EXPECT(comm_create_shm(&comm, "tensor", segment, 1, 2, SLOT_BYTES, SHORT_MS, &err) <
           0);
    EXPECT_MSG(err.code == ERR_TIMEOUT && strstr(err.text, "rank 0"), "%s", err.text);
    EXPECT(comm_create_solo(&comm, "x", &err) == 0);
    comm_destroy(comm);
    EXPECT(comm_create_shm(&comm, "x", segment, 2, 2, SLOT_BYTES, SHORT_MS, &err) < 0);
    EXPECT_MSG(err.code == ERR_INVALID, "%s", err.text);
}

/* ---- processes ---- */

static int child_rank(const char *segment, int rank, int n_ranks)
{
    struct comm *comm = NULL;
    struct err err = {0};
    float x[2000];

    if (comm_create_shm(&comm, "tensor", segment, rank, n_ranks, SLOT_BYTES, TIMEOUT_MS,
                        &err) < 0)
        return 1;
    for (int round = 0;; round++) { /* until killed */
        for (int i = 0; i < 2000; i++)
            x[i] = (float)(rank + round);
        if (comm_all_reduce(comm, x, 2000, COMM_SUM, &err) < 0)
            return 2;
    }
}

static void a_killed_process_is_named_long_before_the_timeout(void)
{
    struct comm *comm = NULL;
    struct err err = {0};
    char segment[64];
    int64_t start_ms;
    float x[2000];
    pid_t child;
    int status, rc;

    snprintf(segment, sizeof(segment), "vneva-test-%d-kill", (int)getpid());
    child = fork();
    if (child == 0)
        _exit(child_rank(segment, 1, 2));
    EXPECT_OK(
        comm_create_shm(&comm, "tensor", segment, 0, 2, SLOT_BYTES, TIMEOUT_MS, &err),
        &err);
    for (int round = 0; round < 100; round++) {
        for (int i = 0; i < 2000; i++)
            x[i] = (float)round;
        EXPECT_OK(comm_all_reduce(comm, x, 2000, COMM_SUM, &err), &err);
        EXPECT(x[0] == (float)(2 * round + 1) && x[1999] == x[0]);
    }
    kill(child, SIGKILL);
    waitpid(child, &status, 0);
    start_ms = clock_mono_ms();
    do /* what the child had sent before it died may still be there */
        rc = comm_all_reduce(comm, x, 2000, COMM_SUM, &err);
    while (rc == 0);
    EXPECT_MSG(err.code == ERR_PEER && strstr(err.text, "rank 1 died"), "%s", err.text);
    EXPECT(clock_mono_ms() - start_ms < TIMEOUT_MS / 2);
    comm_destroy(comm);
}

/* A segment as a rank 0 that was killed while it waited leaves it. Its lock is *fd's. */
static void leave_segment(char path[64], const char *name, int age_s, int *fd)
{
    time_t then = time(NULL) - age_s;
    struct timespec times[2] = {{.tv_sec = then}, {.tv_sec = then}};

    snprintf(path, 64, "/vneva-test-%d-%s", (int)getpid(), name);
    *fd = shm_open(path, O_RDWR | O_CREAT | O_EXCL, 0600);
    EXPECT(*fd >= 0 && futimens(*fd, times) == 0);
}

static bool has_segment(const char *path)
{
    int fd = shm_open(path, O_RDWR, 0);

    if (fd >= 0)
        close(fd);
    return fd >= 0;
}

static void meet_body(struct comm *comm)
{
    struct err err = {0};

    EXPECT_OK(comm_barrier(comm, &err), &err);
}

static void what_a_killed_maker_left_is_removed_by_the_next(void)
{
    char old[64], young[64], held[64];
    int fds[3];

    leave_segment(old, "old", 3600, &fds[0]);
    leave_segment(young, "young", 5, &fds[1]);
    leave_segment(held, "held", 3600, &fds[2]);
    EXPECT(flock(fds[2], LOCK_EX) == 0);
    run_world(SHM, 2, TIMEOUT_MS, meet_body);
    EXPECT_MSG(!has_segment(old), "'%s' is left", old);
    EXPECT_MSG(has_segment(young), "'%s' may be in use", young);
    EXPECT_MSG(has_segment(held), "the maker of '%s' lives", held);
    shm_unlink(young);
    shm_unlink(held);
    for (int i = 0; i < 3; i++)
        close(fds[i]);
}

int main(void)
{
    EXPECT_RUN(all_reduce_sums_and_takes_the_largest);
    EXPECT_RUN(doubles_keep_their_digits);
    EXPECT_RUN(ranks_know_the_range_of_what_they_say);
    EXPECT_RUN(all_gather_puts_ranks_in_order);
    EXPECT_RUN(reduce_scatter_gives_each_rank_its_part);
    EXPECT_RUN(broadcast_reaches_every_rank_from_any);
    EXPECT_RUN(barrier_waits_for_all);
    EXPECT_RUN(ranks_that_do_different_things_find_out);
    EXPECT_RUN(a_rank_that_never_comes_is_named);
    EXPECT_RUN(a_group_that_is_not_complete_is_not_made);
    EXPECT_RUN(what_a_killed_maker_left_is_removed_by_the_next);
    EXPECT_RUN(a_killed_process_is_named_long_before_the_timeout);
    return expect_end();
}
