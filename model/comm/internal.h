/* internal.h - what a transport implements */
#ifndef VNEVA_MODEL_COMM_INTERNAL_H
#define VNEVA_MODEL_COMM_INTERNAL_H

#include "common/base/stage.h"
#include "model/comm/device.h"

#include <stdbool.h>

#define COMM_NAME_MAX 32
#define COMM_RANKS_MAX 1024

enum comm_kind {
    COMM_KIND_NONE,
    COMM_KIND_SUM_F32,
    COMM_KIND_MAX_F32,
    COMM_KIND_SUM_F64,
    COMM_KIND_MAX_F64,
    COMM_KIND_GATHER,
    COMM_KIND_SCATTER,
    COMM_KIND_BROADCAST,
    COMM_KIND_BARRIER,
    COMM_KIND_COUNT
};

/* What a rank says it is doing, so that ranks that do different things find out. */
struct comm_call {
    uint64_t number;  /* from 1 */
    uint64_t n_bytes; /* of one rank's part */
    uint32_t kind;    /* enum comm_kind */
    uint32_t root;
};

/* A transport fills these; comm.c has filled comm->call and handles groups of one. Texts
 * of errors say which ranks; comm.c adds group, collective and number. */
struct comm_ops {
    int (*all_reduce)(struct comm *comm, void *x, int64_t n, struct err *err);
    int (*all_gather)(struct comm *comm, char *out, const char *mine, size_t n_bytes,
                      struct err *err);
    int (*reduce_scatter)(struct comm *comm, float *out, const float *x, int64_t n,
                          struct err *err);
    int (*broadcast)(struct comm *comm, char *bytes, size_t n_bytes, int root,
                     struct err *err);
    int (*barrier)(struct comm *comm, struct err *err);
    void (*destroy)(struct comm *comm);
    /* For messages about collectives between devices, or NULL: the others may see the number
     * of the last that this rank has asked for; that of another rank, -1: it is gone. */
    void (*post_number)(struct comm *comm, uint64_t number);
    int64_t (*read_number)(struct comm *comm, int rank);
};

/* Transports embed this first. */
struct comm {
    const struct comm_ops *ops; /* NULL: one rank alone */
    char name[COMM_NAME_MAX];
    int rank, size;
    int64_t timeout_ms;
    struct comm_call call;    /* the collective at work */
    struct stage_mark before; /* what it interrupts */
    int64_t begun_ns, total_ns;
    struct comm_device *device; /* borrowed; NULL: host memory alone */
    /* Of the last collective between devices. They have numbers of their own, for ranks need
     * not ask for those beside other work between the same collectives of the host. */
    uint64_t device_number;
};

/* Refuses names, ranks, sizes and timeouts that cannot be; fills the common part. */
int comm_init(struct comm *comm, const struct comm_ops *ops, const char *name, int rank,
              int n_ranks, int64_t timeout_ms, struct err *err);

/* y[i] = op(y[i], x[i]); kind tells type and operation */
void comm_combine(void *y, const void *x, int64_t n, uint32_t kind);
size_t comm_item_bytes(uint32_t kind);

/* ERR_PEER naming both calls when `theirs` is not what this rank is doing. */
int comm_check_call(const struct comm *comm, int their_rank,
                    const struct comm_call *theirs, struct err *err);

#endif
