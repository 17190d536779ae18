/* device.h - collectives over the memory of devices, beside a group of ranks
 *
 * A group exchanges host memory. Where each of its ranks has a device of its own, and a
 * library that lets devices talk to each other, it gets a second way that takes memory of
 * the device and needs no host: calls return when the work is asked for, in the order of
 * the device's stream, and whoever waits for the device finds out what failed. Sums are
 * taken in an order of the library's own: the same bits on every rank and in every run of
 * the same machines, but not those of the host's collectives.
 * A sum may also go on beside the device's other work, so that one hides the other.
 * The library's side (`nccl.c`) lives in the CUDA plugin, which cannot call comm.c: all it
 * needs to know of a group is in here.
 * Owns: whoever opened it (the backend) owns a comm_device; a group only borrows it, and
 * either may end first.
 */
#ifndef VNEVA_MODEL_COMM_DEVICE_H
#define VNEVA_MODEL_COMM_DEVICE_H

#include "model/comm/comm.h"

#include <stdbool.h>

#define COMM_DEVICE_ID_BYTES 16     /* a UUID: one device on all machines */
#define COMM_DEVICE_TOKEN_BYTES 128 /* what ranks find each other by */
#define COMM_DEVICE_NAME_MAX 32

struct comm_device;

/* Memory is the device's; number: of the collective among the group's between devices, from
 * 1, for messages. */
struct comm_device_ops {
    int (*all_reduce)(struct comm_device *device, uint64_t number, float *x, int64_t n,
                      enum comm_op op, struct err *err);
    int (*all_reduce_f64)(struct comm_device *device, uint64_t number, double *x,
                          int64_t n, enum comm_op op, struct err *err);
    int (*all_gather)(struct comm_device *device, uint64_t number, void *out,
                      const void *mine, size_t n_bytes, struct err *err);
    int (*reduce_scatter)(struct comm_device *device, uint64_t number, float *out,
                          const float *x, int64_t n, struct err *err);
    int (*broadcast)(struct comm_device *device, uint64_t number, void *bytes,
                     size_t n_bytes, int root, struct err *err);
    int (*all_reduce_beside)(struct comm_device *device, uint64_t number, float *x,
                             int64_t n, enum comm_op op, struct err *err);
    int (*join)(struct comm_device *device, struct err *err);
    /* Of the device, since the last call of this: see comm_take_ns. */
    int64_t (*take_ns)(struct comm_device *device);
};

/* Implementations embed this first, and clear *slot, where there is one, when they end. */
struct comm_device {
    const struct comm_device_ops *ops;
    struct comm_device **slot; /* where the group keeps it */
};

struct comm_device_args {
    char name[COMM_DEVICE_NAME_MAX];
    char token[COMM_DEVICE_TOKEN_BYTES];
    int rank, n_ranks;
    int64_t timeout_ms; /* without progress in a collective, or while the ranks meet */
    /* The host begins or ends to wait for a collective: so that whoever watches the rank
     * knows that others keep it. Only while the device's slot is set. */
    void (*note_wait)(void *group, bool begins);
    /* Who of the other ranks has not asked for collective `number`, as "rank 1 (at number
     * 4), rank 3 (gone)"; "" when all have. -1: nobody here knows. Likewise. */
    int (*name_missing)(void *group, uint64_t number, char *out, size_t n_bytes);
    /* So many more collectives are asked for than comm_device_* was called for (recorded ones
     * are repeated together), or, below 0, so many less; the number of the last. Likewise. */
    uint64_t (*count)(void *group, int64_t n_more);
    void (*note_sign)(void); /* the host waits still; called at least once a second */
    void *group;
};

/* What a backend offers. */
struct comm_devices {
    void *state;
    /* ERR_UNSUPPORTED: the library is not there. */
    int (*identify)(void *state, char id[COMM_DEVICE_ID_BYTES], struct err *err);
    int (*make_token)(void *state, char token[COMM_DEVICE_TOKEN_BYTES], struct err *err);
    /* Meets the other ranks, which open the same token. What is opened lives as long as the
     * backend, used or not. */
    int (*open)(void *state, struct comm_device **out,
                const struct comm_device_args *args, struct err *err);
};

/* Gives the group its second way, or, where ranks share a device or one has no library,
 * leaves it without and says so in the log. devices NULL: this rank has none. COLLECTIVE */
int comm_open_devices(struct comm *comm, const struct comm_devices *devices,
                      struct err *err);
bool comm_has_device(const struct comm *comm);

/* As the functions of comm.h, on memory of the device; what they return tells of asking, not
 * of the work. Only where comm_has_device. A maximum may lose not-a-numbers. COLLECTIVE */
int comm_device_all_reduce(struct comm *comm, float *x, int64_t n, enum comm_op op,
                           struct err *err);
int comm_device_all_reduce_f64(struct comm *comm, double *x, int64_t n, enum comm_op op,
                               struct err *err);
int comm_device_all_gather(struct comm *comm, void *out, const void *mine, size_t n_bytes,
                           struct err *err);
int comm_device_reduce_scatter(struct comm *comm, float *out, const float *x, int64_t n,
                               struct err *err);
int comm_device_broadcast(struct comm *comm, void *bytes, size_t n_bytes, int root,
                          struct err *err);

/* As comm_device_all_reduce, beside what the device is asked from here on until
 * comm_device_join: x, complete by what was asked before, may be neither read nor written
 * until then. COLLECTIVE, in one order with the other collectives between devices */
int comm_device_all_reduce_beside(struct comm *comm, float *x, int64_t n, enum comm_op op,
                                  struct err *err);
/* What the device is asked from here on comes behind all that goes on beside. */
int comm_device_join(struct comm *comm, struct err *err);

#endif
