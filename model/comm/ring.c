/* Ranks anywhere, each sending to the next and receiving from the one before.
 *
 * A large all-reduce is a reduce-scatter and an all-gather around the ring (Patarasuk &
 * Yuan, "Bandwidth optimal all-reduce", 2009): part p is summed in the order p+1, p+2, ...,
 * p, which is the same in every run, and then the same bits go to everybody. Of a small one
 * the time is that of the way: everybody gathers all of it and sums in the order of ranks,
 * in half as many turns. Which one it is depends on its size and the group's alone.
 * Every message starts with what the sender is doing. In a turn all send and receive at
 * once, so it takes the time of one way, not of both.
 */
#include "model/comm/internal.h"

#include <stdlib.h>
#include <string.h>

#define RING_SMALL_BYTES ((size_t)64 << 10) /* an all-reduce whose turns cost more */

struct ring {
    struct comm comm;
    struct comm_link link;
    char *room; /* what comes in, to be added */
    size_t room_bytes;
};

static int next_of(const struct comm *comm)
{
    return (comm->rank + 1) % comm->size;
}

static int before(const struct comm *comm)
{
    return (comm->rank + comm->size - 1) % comm->size;
}

/* Until flush_next the bytes are the link's. */
static int post_next(struct ring *r, const void *bytes, size_t n_bytes, struct err *err)
{
    int to = next_of(&r->comm);

    if (r->link.post(r->link.state, to, &r->comm.call, sizeof(r->comm.call), err) < 0 ||
        (n_bytes && r->link.post(r->link.state, to, bytes, n_bytes, err) < 0))
        return err_wrap(err, "cannot send to rank %d", to);
    return 0;
}

static int flush_next(struct ring *r, struct err *err)
{
    if (r->link.flush(r->link.state, r->comm.timeout_ms, err) < 0)
        return err_wrap(err, "cannot send to rank %d", next_of(&r->comm));
    return 0;
}

static int receive_before(struct ring *r, void *bytes, size_t n_bytes, struct err *err)
{
    int from = before(&r->comm);
    struct comm_call theirs;

    if (r->link.recv(r->link.state, from, &theirs, sizeof(theirs), r->comm.timeout_ms,
                     err) < 0)
        return err_wrap(err, "rank %d did not come", from);
    if (comm_check_call(&r->comm, from, &theirs, err) < 0)
        return -1;
    if (n_bytes &&
        r->link.recv(r->link.state, from, bytes, n_bytes, r->comm.timeout_ms, err) < 0)
        return err_wrap(err, "rank %d did not finish", from);
    return 0;
}

/* One step around: `out` to the next rank, `in` from the one before. */
static int turn(struct ring *r, const void *out, size_t out_bytes, void *in,
                size_t in_bytes, struct err *err)
{
    if (post_next(r, out, out_bytes, err) < 0 || receive_before(r, in, in_bytes, err) < 0)
        return -1;
    return flush_next(r, err);
}

static int need_room(struct ring *r, size_t n_bytes, struct err *err)
{
    char *grown;

    if (r->room && r->room_bytes >= n_bytes)
        return 0;
    n_bytes = n_bytes ? n_bytes : 1;
    grown = realloc(r->room, n_bytes);
    if (!grown)
        return err_set(err, ERR_NOMEM, "cannot allocate %zu bytes", n_bytes);
    r->room = grown;
    r->room_bytes = n_bytes;
    return 0;
}

/* Part p of n items divided over the ranks, as equal as can be. */
struct part {
    char *data;
    int64_t n;
    size_t n_bytes;
};

static struct part part_of(const struct comm *comm, void *x, int64_t n, int p)
{
    size_t item = comm_item_bytes(comm->call.kind);
    int64_t share, rest, first;

    p = (p % comm->size + comm->size) % comm->size;
    share = n / comm->size;
    rest = n % comm->size;
    first = p * share + (p < rest ? p : rest);
    share += p < rest;
    return (struct part){(char *)x + (size_t)first * item, share, (size_t)share * item};
}

/* Afterwards part `rank + shift` is complete here: it goes around once, everybody adding. */
static int reduce_parts(struct ring *r, void *x, int64_t n, int shift, struct err *err)
{
    struct comm *comm = &r->comm;

    for (int step = 1; step < comm->size; step++) {
        struct part out = part_of(comm, x, n, comm->rank + shift - step);
        struct part in = part_of(comm, x, n, comm->rank + shift - step - 1);

        if (turn(r, out.data, out.n_bytes, r->room, in.n_bytes, err) < 0)
            return -1;
        comm_combine(in.data, r->room, in.n, comm->call.kind);
    }
    return 0;
}

static int ring_all_gather(struct comm *comm, char *out, const char *mine, size_t n_bytes,
                           struct err *err)
{
    struct ring *r = (struct ring *)comm;
    char *own = out + (size_t)comm->rank * n_bytes;

    if (own != mine)
        memcpy(own, mine, n_bytes);
    for (int step = 0; step + 1 < comm->size; step++) {
        int from = (comm->rank - step + comm->size) % comm->size;
        int to = (comm->rank - step - 1 + comm->size) % comm->size;

        if (turn(r, out + (size_t)from * n_bytes, n_bytes, out + (size_t)to * n_bytes,
                 n_bytes, err) < 0)
            return -1;
    }
    return 0;
}

/* Turns beyond the first carry other parts than the first: is it worth their latency? */
static bool is_small(const struct comm *comm, size_t n_bytes)
{
    return comm->size == 2 || n_bytes <= RING_SMALL_BYTES;
}

/* Everybody's x [n], gathered, summed here in the order of ranks. */
static int reduce_gathered(struct ring *r, void *x, int64_t n, struct err *err)
{
    struct comm *comm = &r->comm;
    size_t n_bytes = (size_t)n * comm_item_bytes(comm->call.kind);

    if (need_room(r, (size_t)comm->size * n_bytes, err) < 0 ||
        ring_all_gather(comm, r->room, x, n_bytes, err) < 0)
        return -1;
    memcpy(x, r->room, n_bytes);
    for (int rank = 1; rank < comm->size; rank++)
        comm_combine(x, r->room + (size_t)rank * n_bytes, n, comm->call.kind);
    return 0;
}

static int ring_all_reduce(struct comm *comm, void *x, int64_t n, struct err *err)
{
    struct ring *r = (struct ring *)comm;
    size_t item = comm_item_bytes(comm->call.kind);

    if (is_small(comm, (size_t)n * item))
        return reduce_gathered(r, x, n, err);
    if (need_room(r, ((size_t)n / (size_t)comm->size + 1) * item, err) < 0 ||
        reduce_parts(r, x, n, 0, err) < 0)
        return -1;
    for (int step = 0; step + 1 < comm->size; step++) {
        struct part out = part_of(comm, x, n, comm->rank - step);
        struct part in = part_of(comm, x, n, comm->rank - step - 1);

        if (turn(r, out.data, out.n_bytes, in.data, in.n_bytes, err) < 0)
            return -1;
    }
    return 0;
}

static int ring_reduce_scatter(struct comm *comm, float *out, const float *x, int64_t n,
                               struct err *err)
{
    struct ring *r = (struct ring *)comm;
    size_t part_bytes = (size_t)n * sizeof(*x), all = (size_t)comm->size * part_bytes;
    char *copy;

    if (need_room(r, part_bytes + all, err) < 0)
        return -1;
    copy = r->room + part_bytes; /* x is not ours to change */
    memcpy(copy, x, all);
    if (reduce_parts(r, copy, n * comm->size, 0, err) < 0)
        return -1;
    memcpy(out, copy + (size_t)comm->rank * part_bytes, part_bytes);
    return 0;
}

/* From the root around to the rank before it. */
static int ring_broadcast(struct comm *comm, char *bytes, size_t n_bytes, int root,
                          struct err *err)
{
    struct ring *r = (struct ring *)comm;

    if (comm->rank != root && receive_before(r, bytes, n_bytes, err) < 0)
        return -1;
    if (next_of(comm) == root)
        return 0;
    return post_next(r, bytes, n_bytes, err) < 0 ? -1 : flush_next(r, err);
}

/* After turn t a rank knows that the t ranks before it came. */
static int ring_barrier(struct comm *comm, struct err *err)
{
    for (int t = 1; t < comm->size; t++)
        if (turn((struct ring *)comm, NULL, 0, NULL, 0, err) < 0)
            return -1;
    return 0;
}

static void ring_destroy(struct comm *comm)
{
    struct ring *r = (struct ring *)comm;

    free(r->room);
    free(r);
}

static const struct comm_ops ring_ops = {
    .all_reduce = ring_all_reduce,
    .all_gather = ring_all_gather,
    .reduce_scatter = ring_reduce_scatter,
    .broadcast = ring_broadcast,
    .barrier = ring_barrier,
    .destroy = ring_destroy,
};

int comm_create_ring(struct comm **out, const char *name, const struct comm_link *link,
                     int rank, int n_ranks, int64_t timeout_ms, struct err *err)
{
    struct ring *r = calloc(1, sizeof(*r));

    if (!r)
        return err_set(err, ERR_NOMEM, "cannot allocate group '%s'", name);
    if (comm_init(&r->comm, &ring_ops, name, rank, n_ranks, timeout_ms, err) < 0) {
        free(r);
        return -1;
    }
    r->link = *link;
    *out = &r->comm;
    return 0;
}
