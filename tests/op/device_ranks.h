/* device_ranks.h - ranks as threads, each with a backend `cuda`, over the stand-ins of
 * tests/cuda_host, and two groups of all of them: "tensor" and "data"
 */
#ifndef VNEVA_TESTS_OP_DEVICE_RANKS_H
#define VNEVA_TESTS_OP_DEVICE_RANKS_H

#include "model/backend/backend.h"
#include "model/comm/device.h"

#define DEVICE_RANKS_MAX 4
#define DEVICE_RANKS_NUMBERS_MAX 1000

struct device_rank {
    int rank, n_ranks;
    struct comm *comm, *second; /* the second has the same ranks */
    struct backend *b;          /* a body may end it and leave NULL */
    void (*body)(struct device_rank *rank);
};

/* Both groups open between devices, then the body, on every rank. Groups end before or after
 * backends. */
void device_ranks_run(int n_ranks, int n_devices, int64_t timeout_ms,
                      void (*body)(struct device_rank *rank));
/* The same with a thread's function of one's own. */
void device_ranks_run_main(int n_ranks, int n_devices, int64_t timeout_ms,
                           void *(*thread)(void *rank),
                           void (*body)(struct device_rank *rank));

/* Whole numbers: their sums are exact in any order. */
void device_ranks_fill(float *x, int64_t n, int rank);
/* The rank's on its device; the caller frees data. */
struct tensor device_ranks_tensor(struct device_rank *rank, int64_t n);

#endif
