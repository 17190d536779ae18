/* comm.h - collectives over a named group of ranks
 *
 * Every rank of the group calls the same collectives in the same order. The result is
 * the same bits on every rank, and the same in every run: sums are taken in a fixed
 * order of ranks.
 * Transports of the `cpu` communicator: threads of one process (tests), POSIX shared
 * memory (ranks of one node), and a link the caller provides (ranks of several nodes;
 * worker/ gives it one over common/net). device.h has the way
 * between devices (NCCL, in the CUDA plugin).
 * Threads: one caller per comm. Buffers are host memory, F32 unless said otherwise.
 * Errors: ERR_PEER or ERR_TIMEOUT after timeout_ms without progress; the text names the
 * group, the collective, its number and the ranks that did not come.
 */
#ifndef VNEVA_MODEL_COMM_COMM_H
#define VNEVA_MODEL_COMM_COMM_H

#include "common/base/err.h"

#include <stddef.h>
#include <stdint.h>

struct comm;

enum comm_op { COMM_SUM, COMM_MAX };

/* One rank alone: every collective is the identity. */
int comm_create_solo(struct comm **out, const char *name, struct err *err);

/* n ranks as threads of this process: out[0..n). For tests. */
int comm_create_threads(struct comm **out, const char *name, int n_ranks,
                        int64_t timeout_ms, struct err *err);

/* Ranks of one node. `segment` names the shared memory, the same on every rank, fresh for
 * every attempt; `slot_bytes` bounds one exchange (longer ones are cut into pieces).
 * Returns when all ranks are there. The memory goes away with the last process. */
int comm_create_shm(struct comm **out, const char *name, const char *segment, int rank,
                    int n_ranks, size_t slot_bytes, int64_t timeout_ms, struct err *err);

/* Ranks anywhere: a ring over whatever moves bytes in order between neighbours. A collective
 * posts what it has to say, receives, and flushes: what was posted must go out while it
 * receives, for all ranks post first. */
#define COMM_LINK_POSTS_MAX 2 /* pieces posted before a flush, all to one rank */
struct comm_link {
    void *state;
    /* The bytes stay as they are until flush. */
    int (*post)(void *state, int to_rank, const void *bytes, size_t n_bytes,
                struct err *err);
    /* Waits until all that was posted is on its way; it need not have arrived. */
    int (*flush)(void *state, int64_t timeout_ms, struct err *err);
    /* Exactly n_bytes, or it fails. */
    int (*recv)(void *state, int from_rank, void *bytes, size_t n_bytes,
                int64_t timeout_ms, struct err *err);
};
int comm_create_ring(struct comm **out, const char *name, const struct comm_link *link,
                     int rank, int n_ranks, int64_t timeout_ms, struct err *err);

void comm_destroy(struct comm *comm); /* NULL is fine */

int comm_rank(const struct comm *comm);
int comm_size(const struct comm *comm);
/* Time spent in collectives since the last call of this, waiting for the others included; of
 * those between devices (device.h) the time that the device's other work stood still for
 * them, as far as they are done. */
int64_t comm_take_ns(struct comm *comm);

/* COLLECTIVE, in place: x [n] F32 = reduction over the ranks */
int comm_all_reduce(struct comm *comm, float *x, int64_t n, enum comm_op op,
                    struct err *err);
/* COLLECTIVE, in place, double: for counts and losses */
int comm_all_reduce_f64(struct comm *comm, double *x, int64_t n, enum comm_op op,
                        struct err *err);
/* COLLECTIVE: out [size, n_bytes], rank r's bytes at row r; mine may lie inside out */
int comm_all_gather(struct comm *comm, void *out, const void *mine, size_t n_bytes,
                    struct err *err);
/* COLLECTIVE: out [n] F32 = this rank's part of the sum of x [size, n] */
int comm_reduce_scatter(struct comm *comm, float *out, const float *x, int64_t n,
                        struct err *err);
/* COLLECTIVE: bytes of rank `root` on every rank */
int comm_broadcast(struct comm *comm, void *bytes, size_t n_bytes, int root,
                   struct err *err);
int comm_barrier(struct comm *comm, struct err *err);
/* COLLECTIVE: the least and the greatest of what the ranks say; exact up to 2^53. So they choose
 * the same way to do something. Not part of comm_take_ns. */
int comm_range(struct comm *comm, int64_t mine, int64_t *least, int64_t *greatest,
               struct err *err);

#endif
