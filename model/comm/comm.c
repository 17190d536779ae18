#include "model/comm/internal.h"

#include "common/base/clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *kind_name(uint32_t kind)
{
    static const char *const names[COMM_KIND_COUNT] = {
        [COMM_KIND_NONE] = "nothing",
        [COMM_KIND_SUM_F32] = "all-reduce (sum, F32)",
        [COMM_KIND_MAX_F32] = "all-reduce (max, F32)",
        [COMM_KIND_SUM_F64] = "all-reduce (sum, F64)",
        [COMM_KIND_MAX_F64] = "all-reduce (max, F64)",
        [COMM_KIND_GATHER] = "all-gather",
        [COMM_KIND_SCATTER] = "reduce-scatter",
        [COMM_KIND_BROADCAST] = "broadcast",
        [COMM_KIND_BARRIER] = "barrier",
    };

    return kind < COMM_KIND_COUNT ? names[kind] : "an unknown collective";
}

/* The collective without operation and type: what somebody who watches wants to know. */
static const char *stage_name(uint32_t kind)
{
    switch (kind) {
    case COMM_KIND_GATHER:
    case COMM_KIND_SCATTER:
    case COMM_KIND_BROADCAST:
    case COMM_KIND_BARRIER:
        return kind_name(kind);
    default:
        return "all-reduce";
    }
}

int comm_init(struct comm *comm, const struct comm_ops *ops, const char *name, int rank,
              int n_ranks, int64_t timeout_ms, struct err *err)
{
    if (n_ranks < 1 || n_ranks > COMM_RANKS_MAX || rank < 0 || rank >= n_ranks)
        return err_set(err, ERR_INVALID, "group '%s': rank %d of %d (at most %d)", name,
                       rank, n_ranks, COMM_RANKS_MAX);
    if (timeout_ms < 1)
        return err_set(err, ERR_INVALID, "group '%s': timeout of %lld ms", name,
                       (long long)timeout_ms);
    comm->ops = ops;
    comm->rank = rank;
    comm->size = n_ranks;
    comm->timeout_ms = timeout_ms;
    snprintf(comm->name, sizeof(comm->name), "%s", name);
    return 0;
}

int comm_create_solo(struct comm **out, const char *name, struct err *err)
{
    struct comm *comm = calloc(1, sizeof(*comm));

    if (!comm)
        return err_set(err, ERR_NOMEM, "cannot allocate group '%s'", name);
    if (comm_init(comm, NULL, name, 0, 1, 1, err) < 0) {
        free(comm);
        return -1;
    }
    *out = comm;
    return 0;
}

void comm_destroy(struct comm *comm)
{
    if (!comm)
        return;
    if (comm->device)
        comm->device->slot = NULL;
    if (comm->ops)
        comm->ops->destroy(comm);
    else
        free(comm);
}

int comm_rank(const struct comm *comm)
{
    return comm->rank;
}

int comm_size(const struct comm *comm)
{
    return comm->size;
}

int64_t comm_take_ns(struct comm *comm)
{
    int64_t ns = comm->total_ns;

    comm->total_ns = 0;
    return comm->device ? ns + comm->device->ops->take_ns(comm->device) : ns;
}

/* ---- arithmetic ---- */

size_t comm_item_bytes(uint32_t kind)
{
    switch (kind) {
    case COMM_KIND_SUM_F32:
    case COMM_KIND_MAX_F32:
    case COMM_KIND_SCATTER:
        return sizeof(float);
    case COMM_KIND_SUM_F64:
    case COMM_KIND_MAX_F64:
        return sizeof(double);
    default:
        return 1;
    }
}

static void combine_f32(float *restrict y, const float *restrict x, int64_t n,
                        bool is_max)
{
    if (is_max)
        for (int64_t i = 0; i < n; i++)
            y[i] = x[i] > y[i] || x[i] != x[i] ? x[i] : y[i]; /* not-a-number stays */
    else
        for (int64_t i = 0; i < n; i++)
            y[i] += x[i];
}

static void combine_f64(double *restrict y, const double *restrict x, int64_t n,
                        bool is_max)
{
    if (is_max)
        for (int64_t i = 0; i < n; i++)
            y[i] = x[i] > y[i] || x[i] != x[i] ? x[i] : y[i];
    else
        for (int64_t i = 0; i < n; i++)
            y[i] += x[i];
}

void comm_combine(void *y, const void *x, int64_t n, uint32_t kind)
{
    bool is_max = kind == COMM_KIND_MAX_F32 || kind == COMM_KIND_MAX_F64;

    if (comm_item_bytes(kind) == sizeof(double))
        combine_f64(y, x, n, is_max);
    else
        combine_f32(y, x, n, is_max);
}

int comm_check_call(const struct comm *comm, int their_rank,
                    const struct comm_call *theirs, struct err *err)
{
    const struct comm_call *mine = &comm->call;

    if (theirs->number == mine->number && theirs->kind == mine->kind &&
        theirs->n_bytes == mine->n_bytes && theirs->root == mine->root)
        return 0;
    return err_set(
        err, ERR_PEER,
        "rank %d is at number %llu, %s of %llu bytes from root %u, and rank %d "
        "at number %llu, %s of %llu bytes from root %u",
        their_rank, (unsigned long long)theirs->number, kind_name(theirs->kind),
        (unsigned long long)theirs->n_bytes, theirs->root, comm->rank,
        (unsigned long long)mine->number, kind_name(mine->kind),
        (unsigned long long)mine->n_bytes, mine->root);
}

/* ---- the collectives ---- */

/* Numbers a call and marks its stage; true when there is somebody to talk to. */
static bool begin(struct comm *comm, enum comm_kind kind, size_t n_bytes, int root)
{
    comm->call = (struct comm_call){.number = comm->call.number + 1,
                                    .n_bytes = n_bytes,
                                    .kind = kind,
                                    .root = (uint32_t)root};
    if (comm->size == 1)
        return false;
    comm->before = stage_begin(stage_name(kind), comm->name, STAGE_WAITING);
    comm->begun_ns = clock_mono_ns();
    return true;
}

/* Of a call that began so: counts its time, and gives an error group, kind and number. */
static int end(struct comm *comm, int rc, struct err *err)
{
    comm->total_ns += clock_mono_ns() - comm->begun_ns;
    stage_end(comm->before);
    if (rc == 0)
        return 0;
    return err_wrap(err, "group '%s', %s number %llu", comm->name,
                    kind_name(comm->call.kind), (unsigned long long)comm->call.number);
}

int comm_all_reduce(struct comm *comm, float *x, int64_t n, enum comm_op op,
                    struct err *err)
{
    if (!begin(comm, op == COMM_MAX ? COMM_KIND_MAX_F32 : COMM_KIND_SUM_F32,
               (size_t)n * sizeof(*x), 0))
        return 0;
    return end(comm, comm->ops->all_reduce(comm, x, n, err), err);
}

int comm_all_reduce_f64(struct comm *comm, double *x, int64_t n, enum comm_op op,
                        struct err *err)
{
    if (!begin(comm, op == COMM_MAX ? COMM_KIND_MAX_F64 : COMM_KIND_SUM_F64,
               (size_t)n * sizeof(*x), 0))
        return 0;
    return end(comm, comm->ops->all_reduce(comm, x, n, err), err);
}

int comm_all_gather(struct comm *comm, void *out, const void *mine, size_t n_bytes,
                    struct err *err)
{
    if (begin(comm, COMM_KIND_GATHER, n_bytes, 0))
        return end(comm, comm->ops->all_gather(comm, out, mine, n_bytes, err), err);
    if (out != mine)
        memcpy(out, mine, n_bytes);
    return 0;
}

int comm_reduce_scatter(struct comm *comm, float *out, const float *x, int64_t n,
                        struct err *err)
{
    if (begin(comm, COMM_KIND_SCATTER, (size_t)n * sizeof(*x), 0))
        return end(comm, comm->ops->reduce_scatter(comm, out, x, n, err), err);
    if (out != x)
        memcpy(out, x, (size_t)n * sizeof(*x));
    return 0;
}

int comm_broadcast(struct comm *comm, void *bytes, size_t n_bytes, int root,
                   struct err *err)
{
    if (root < 0 || root >= comm->size)
        return err_set(err, ERR_INVALID, "group '%s': no rank %d to broadcast from",
                       comm->name, root);
    if (!begin(comm, COMM_KIND_BROADCAST, n_bytes, root))
        return 0;
    return end(comm, comm->ops->broadcast(comm, bytes, n_bytes, root, err), err);
}

int comm_barrier(struct comm *comm, struct err *err)
{
    if (!begin(comm, COMM_KIND_BARRIER, 0, 0))
        return 0;
    return end(comm, comm->ops->barrier(comm, err), err);
}

int comm_range(struct comm *comm, int64_t mine, int64_t *least, int64_t *greatest,
               struct err *err)
{
    double ends[2] = {-(double)mine, (double)mine};
    int64_t before_ns = comm->total_ns;
    int rc = comm_all_reduce_f64(comm, ends, 2, COMM_MAX, err);

    comm->total_ns = before_ns;
    if (rc < 0)
        return -1;
    *least = (int64_t)-ends[0];
    *greatest = (int64_t)ends[1];
    return 0;
}
