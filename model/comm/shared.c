/* Ranks that share memory: threads of one process, or processes of one node.
 *
 * Every rank has a desk (what it is doing, how many phases it has come to) and two slots.
 * In phase p it writes its piece into slot p % 2, counts its desk up to p + 1, and waits
 * until all desks are at least there; then everybody reads everybody's slot. Slot p % 2 is
 * written again in phase p + 2, which a rank enters only after all came to p + 1, that is,
 * after all have read phase p. So one wait a piece is enough and nothing is ever locked: a
 * rank killed at any moment leaves the others waiting, and they find out.
 */
#define _GNU_SOURCE /* syscall: futex */
#include "model/comm/internal.h"

#include "common/base/clock.h"
#include "common/base/stage.h"
#include "model/comm/segment.h"

#include <errno.h>
#include <linux/futex.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define REGION_MAGIC 0x766e6376u
#define LINE_BYTES 128    /* two cache lines: neighbours prefetch in pairs */
#define SPIN_NS 40000     /* wait this long before going to sleep: a wake costs as much */
#define SPINS_PER_LOOK 64 /* between two looks at the clock */
#define SLEEP_MS 100      /* look for dead peers this often */
#define SLOT_BYTES_MIN 4096
#define THREADS_SLOT_BYTES ((size_t)64 << 10)

struct desk {
    _Alignas(LINE_BYTES) atomic_uint arrived; /* phases this rank has come to; a futex */
    atomic_uint n_sleeping;                   /* others asleep on `arrived` */
    atomic_int pid;                           /* 0: not here yet */
    atomic_ullong number;      /* of the last between devices it asked for */
    struct comm_call calls[2]; /* of the phases whose slots they go with */
};

struct region {
    atomic_uint magic;    /* set last, by who made the region */
    atomic_uint n_users;  /* threads: who leaves last frees */
    atomic_uint given_up; /* 1 + the first rank that failed; 0: none */
    uint32_t n_ranks;
    uint64_t slot_bytes;
    struct desk desks[];
};

struct shared {
    struct comm comm;
    struct region *region;
    char *slots;         /* [n_ranks, 2, slot_bytes] */
    size_t mapped_bytes; /* 0: memory of this process */
    unsigned phase;
};

static size_t slots_offset(int n_ranks)
{
    return sizeof(struct region) + (size_t)n_ranks * sizeof(struct desk);
}

static size_t region_bytes(int n_ranks, size_t slot_bytes)
{
    return slots_offset(n_ranks) + (size_t)n_ranks * 2 * slot_bytes;
}

static char *slot(struct shared *s, int rank, unsigned phase)
{
    return s->slots + ((size_t)rank * 2 + phase % 2) * s->region->slot_bytes;
}

/* ---- waiting ---- */

static void futex_wait(atomic_uint *word, unsigned seen, int64_t ms)
{
    struct timespec limit = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};

    syscall(SYS_futex, (void *)word, FUTEX_WAIT, seen, &limit, NULL, 0);
}

static void futex_wake_all(atomic_uint *word)
{
    syscall(SYS_futex, (void *)word, FUTEX_WAKE, INT32_MAX, NULL, NULL, 0);
}

static bool has_come(struct shared *s, int rank)
{
    unsigned arrived = atomic_load(&s->region->desks[rank].arrived);

    return (int)(arrived - s->phase) >= 0;
}

static bool spin_until_come(struct shared *s, int rank)
{
    int64_t end_ns = clock_mono_ns() + SPIN_NS;

    do {
        for (int i = 0; i < SPINS_PER_LOOK; i++) {
            if (has_come(s, rank))
                return true;
#if defined(__x86_64__) || defined(__i386__)
            __builtin_ia32_pause();
#endif
        }
    } while (clock_mono_ns() < end_ns);
    return false;
}

static bool is_dead(struct shared *s, int rank)
{
    int pid = atomic_load(&s->region->desks[rank].pid);

    return s->mapped_bytes && pid && kill(pid, 0) < 0 && errno == ESRCH;
}

/* The ranks that have not come, as "1, 3". */
static const char *missing(struct shared *s, char *out, size_t n_bytes)
{
    size_t used = 0;

    out[0] = '\0';
    for (int rank = 0; rank < s->comm.size && used + 16 < n_bytes; rank++)
        if (!has_come(s, rank))
            used += (size_t)snprintf(out + used, n_bytes - used, "%s%d", used ? ", " : "",
                                     rank);
    return out;
}

/* This rank fails: the others need not wait for their own timeouts. */
static int give_up(struct shared *s)
{
    unsigned none = 0;

    atomic_compare_exchange_strong(&s->region->given_up, &none,
                                   (unsigned)s->comm.rank + 1);
    futex_wake_all(&s->region->desks[s->comm.rank].arrived);
    return -1;
}

static int sleep_until_come(struct shared *s, int rank, struct err *err)
{
    struct desk *desk = &s->region->desks[rank];
    int64_t deadline_ms = clock_mono_ms() + s->comm.timeout_ms;
    char list[64];

    while (!has_come(s, rank)) {
        unsigned seen = atomic_load(&desk->arrived);
        unsigned given_up = atomic_load(&s->region->given_up);
        int64_t left_ms = deadline_ms - clock_mono_ms();

        if (given_up)
            return err_set(err, ERR_PEER, "rank %u gave up; not there: rank %s",
                           given_up - 1, missing(s, list, sizeof(list)));
        if (is_dead(s, rank)) {
            err_set(err, ERR_PEER, "rank %d died (process %d)", rank,
                    atomic_load(&desk->pid));
            return give_up(s);
        }
        if (left_ms <= 0) {
            err_set(err, ERR_TIMEOUT, "rank %s did not come within %lld ms",
                    missing(s, list, sizeof(list)), (long long)s->comm.timeout_ms);
            return give_up(s);
        }
        atomic_fetch_add(&desk->n_sleeping, 1);
        if (!has_come(s, rank))
            futex_wait(&desk->arrived, seen, left_ms < SLEEP_MS ? left_ms : SLEEP_MS);
        atomic_fetch_sub(&desk->n_sleeping, 1);
        stage_sign();
    }
    return 0;
}

/* ---- one phase ---- */

/* Room for this rank's piece of the coming phase. */
static char *my_slot(struct shared *s)
{
    return slot(s, s->comm.rank, s->phase);
}

/* Says that this rank's piece is there, and waits until everybody's is. Afterwards the
 * pieces are in slot(s, rank, s->phase - 1). */
static int meet(struct shared *s, struct err *err)
{
    struct desk *mine = &s->region->desks[s->comm.rank];

    mine->calls[s->phase % 2] = s->comm.call;
    s->phase++;
    atomic_store(&mine->arrived, s->phase);
    if (atomic_load(&mine->n_sleeping))
        futex_wake_all(&mine->arrived);
    for (int rank = 0; rank < s->comm.size; rank++) {
        if (!has_come(s, rank) && !spin_until_come(s, rank) &&
            sleep_until_come(s, rank, err) < 0)
            return -1;
        if (comm_check_call(&s->comm, rank,
                            &s->region->desks[rank].calls[(s->phase - 1) % 2], err) < 0)
            return give_up(s);
    }
    return 0;
}

static const char *piece_of(struct shared *s, int rank)
{
    return slot(s, rank, s->phase - 1);
}

/* ---- collectives ---- */

/* y [n] = reduction of all ranks' pieces in the order of the ranks; y holds mine. */
static void reduce_pieces(struct shared *s, char *y, int64_t n, uint32_t kind)
{
    bool is_sum = kind != COMM_KIND_MAX_F32 && kind != COMM_KIND_MAX_F64;

    if (s->comm.size == 2 &&
        is_sum) { /* a + b = b + a: the other's is all there is to add */
        comm_combine(y, piece_of(s, 1 - s->comm.rank), n, kind);
        return;
    }
    if (s->comm.rank != 0)
        memcpy(y, piece_of(s, 0), (size_t)n * comm_item_bytes(kind));
    for (int rank = 1; rank < s->comm.size; rank++)
        comm_combine(y, piece_of(s, rank), n, kind);
}

static int shared_all_reduce(struct comm *comm, void *x, int64_t n, struct err *err)
{
    struct shared *s = (struct shared *)comm;
    size_t item = comm_item_bytes(comm->call.kind);
    int64_t most = (int64_t)(s->region->slot_bytes / item), count;
    char *at = x;

    do {
        count = n < most ? n : most;
        memcpy(my_slot(s), at, (size_t)count * item);
        if (meet(s, err) < 0)
            return -1;
        reduce_pieces(s, at, count, comm->call.kind);
        at += (size_t)count * item;
        n -= count;
    } while (n > 0);
    return 0;
}

static int shared_all_gather(struct comm *comm, char *out, const char *mine,
                             size_t n_bytes, struct err *err)
{
    struct shared *s = (struct shared *)comm;
    size_t first = 0, count;
    char *own = out + (size_t)comm->rank * n_bytes;

    do {
        count = n_bytes - first;
        if (count > s->region->slot_bytes)
            count = s->region->slot_bytes;
        memcpy(my_slot(s), mine + first, count);
        if (meet(s, err) < 0)
            return -1;
        for (int rank = 0; rank < comm->size; rank++)
            if (rank != comm->rank)
                memcpy(out + (size_t)rank * n_bytes + first, piece_of(s, rank), count);
        first += count;
    } while (first < n_bytes);
    if (own != mine)
        memcpy(own, mine, n_bytes);
    return 0;
}

/* Each rank's part in turn; only that rank reads. */
static int shared_reduce_scatter(struct comm *comm, float *out, const float *x, int64_t n,
                                 struct err *err)
{
    struct shared *s = (struct shared *)comm;
    int64_t most = (int64_t)(s->region->slot_bytes / sizeof(*x));

    for (int rank = 0; rank < comm->size; rank++) {
        int64_t first = 0, count;

        do {
            const float *from = x + rank * n + first;

            count = n - first < most ? n - first : most;
            memcpy(my_slot(s), from, (size_t)count * sizeof(*x));
            if (meet(s, err) < 0)
                return -1;
            if (rank == comm->rank) {
                memcpy(out + first, from, (size_t)count * sizeof(*x));
                reduce_pieces(s, (char *)(out + first), count, comm->call.kind);
            }
            first += count;
        } while (first < n);
    }
    return 0;
}

static int shared_broadcast(struct comm *comm, char *bytes, size_t n_bytes, int root,
                            struct err *err)
{
    struct shared *s = (struct shared *)comm;
    size_t count;

    do {
        count = n_bytes < s->region->slot_bytes ? n_bytes : s->region->slot_bytes;
        if (comm->rank == root)
            memcpy(my_slot(s), bytes, count);
        if (meet(s, err) < 0)
            return -1;
        if (comm->rank != root)
            memcpy(bytes, piece_of(s, root), count);
        bytes += count;
        n_bytes -= count;
    } while (n_bytes > 0);
    return 0;
}

static int shared_barrier(struct comm *comm, struct err *err)
{
    return meet((struct shared *)comm, err);
}

static void shared_post_number(struct comm *comm, uint64_t number)
{
    struct shared *s = (struct shared *)comm;

    atomic_store(&s->region->desks[comm->rank].number, number);
}

static int64_t shared_read_number(struct comm *comm, int rank)
{
    struct shared *s = (struct shared *)comm;

    if (is_dead(s, rank))
        return -1;
    return (int64_t)atomic_load(&s->region->desks[rank].number);
}

static void shared_destroy(struct comm *comm)
{
    struct shared *s = (struct shared *)comm;

    if (s->mapped_bytes)
        munmap(s->region, s->mapped_bytes);
    else if (atomic_fetch_sub(&s->region->n_users, 1) == 1)
        free(s->region);
    free(s);
}

static const struct comm_ops shared_ops = {
    .all_reduce = shared_all_reduce,
    .all_gather = shared_all_gather,
    .reduce_scatter = shared_reduce_scatter,
    .broadcast = shared_broadcast,
    .barrier = shared_barrier,
    .destroy = shared_destroy,
    .post_number = shared_post_number,
    .read_number = shared_read_number,
};

/* ---- threads ---- */

static void region_fill(struct region *region, int n_ranks, size_t slot_bytes)
{
    region->n_ranks = (uint32_t)n_ranks;
    region->slot_bytes = slot_bytes;
    atomic_store(&region->n_users, (unsigned)n_ranks);
    atomic_store(&region->magic, REGION_MAGIC);
}

static void attach(struct shared *s, struct region *region)
{
    s->region = region;
    s->slots = (char *)region + slots_offset((int)region->n_ranks);
}

int comm_create_threads(struct comm **out, const char *name, int n_ranks,
                        int64_t timeout_ms, struct err *err)
{
    size_t n_bytes = region_bytes(n_ranks > 0 ? n_ranks : 1, THREADS_SLOT_BYTES);
    struct region *region = NULL;
    struct comm check;

    if (comm_init(&check, NULL, name, 0, n_ranks, timeout_ms, err) < 0)
        return -1;
    if (posix_memalign((void **)&region, LINE_BYTES, n_bytes) != 0)
        return err_set(err, ERR_NOMEM, "cannot allocate group '%s'", name);
    memset(region, 0, slots_offset(n_ranks));
    region_fill(region, n_ranks, THREADS_SLOT_BYTES);
    for (int rank = 0; rank < n_ranks; rank++) {
        struct shared *s = calloc(1, sizeof(*s));

        if (!s) {
            for (int i = 0; i < rank; i++)
                free(out[i]);
            free(region);
            return err_set(err, ERR_NOMEM, "cannot allocate group '%s'", name);
        }
        comm_init(&s->comm, &shared_ops, name, rank, n_ranks, timeout_ms, NULL);
        attach(s, region);
        out[rank] = &s->comm;
    }
    return 0;
}

/* ---- processes ---- */

static int segment_map(struct shared *s, int fd, size_t slot_bytes, struct err *err)
{
    size_t n_bytes = region_bytes(s->comm.size, slot_bytes);
    int64_t deadline_ms = clock_mono_ms() + s->comm.timeout_ms;
    struct region *region =
        mmap(NULL, n_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

    if (region == MAP_FAILED)
        return err_set(err, ERR_NOMEM, "cannot map %zu bytes of shared memory: %s",
                       n_bytes, strerror(errno));
    s->mapped_bytes = n_bytes;
    s->region = region;
    if (s->comm.rank == 0)
        region_fill(region, s->comm.size, slot_bytes);
    while (atomic_load(&region->magic) != REGION_MAGIC) {
        if (clock_mono_ms() >= deadline_ms)
            return err_set(err, ERR_TIMEOUT,
                           "rank 0 did not make the shared memory ready");
        segment_wait();
    }
    if (region->n_ranks != (uint32_t)s->comm.size || region->slot_bytes != slot_bytes)
        return err_set(err, ERR_PEER,
                       "rank 0 has %u ranks and slots of %llu bytes, rank %d has %d and "
                       "%zu",
                       region->n_ranks, (unsigned long long)region->slot_bytes,
                       s->comm.rank, s->comm.size, slot_bytes);
    attach(s, region);
    atomic_store(&region->desks[s->comm.rank].pid, (int)getpid());
    return 0;
}

static int shm_join(struct shared *s, const char *segment, size_t slot_bytes,
                    struct err *err)
{
    size_t n_bytes = region_bytes(s->comm.size, slot_bytes);
    bool is_maker = s->comm.rank == 0;
    int fd = is_maker ? segment_make(segment, n_bytes, err)
                      : segment_find(segment, n_bytes, s->comm.timeout_ms, err);
    int rc = -1;

    if (fd < 0)
        return -1;
    if (segment_map(s, fd, slot_bytes, err) == 0 && meet(s, err) == 0)
        rc = 0;
    close(fd);
    if (is_maker)
        shm_unlink(segment); /* all are there, or never will be */
    return rc;
}

int comm_create_shm(struct comm **out, const char *name, const char *segment, int rank,
                    int n_ranks, size_t slot_bytes, int64_t timeout_ms, struct err *err)
{
    struct shared *s = calloc(1, sizeof(*s));
    char path[SEGMENT_NAME_MAX];

    if (!s)
        return err_set(err, ERR_NOMEM, "cannot allocate group '%s'", name);
    slot_bytes = slot_bytes / LINE_BYTES * LINE_BYTES;
    if (slot_bytes < SLOT_BYTES_MIN)
        slot_bytes = SLOT_BYTES_MIN;
    snprintf(path, sizeof(path), "%s%s", segment[0] == '/' ? "" : "/", segment);
    s->comm.call.kind = COMM_KIND_BARRIER; /* number 0: the meeting */
    if (comm_init(&s->comm, &shared_ops, name, rank, n_ranks, timeout_ms, err) < 0 ||
        shm_join(s, path, slot_bytes, err) < 0) {
        if (s->mapped_bytes)
            munmap(s->region, s->mapped_bytes);
        free(s);
        return err_wrap(err, "group '%s', shared memory of %d ranks", name, n_ranks);
    }
    *out = &s->comm;
    return 0;
}
