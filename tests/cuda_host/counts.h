/* counts.h - what a thread has asked of the stand-ins, for tests that are linked with them */
#ifndef VNEVA_TESTS_CUDA_HOST_COUNTS_H
#define VNEVA_TESTS_CUDA_HOST_COUNTS_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct cuda_host_counts {
    /* Times that the host waited: for a stream, or an event, that was not done; or would have
     * on a device, for memory that is not pinned, or that is pinned or freed. Asking whether a
     * stream is done counts too, once it is. */
    uint64_t n_waits;
    uint64_t
        n_asked; /* things asked of streams, not by graphs: kernels, copies, events */
    uint64_t n_graphs;            /* launched */
    uint64_t n_kernels;           /* own ones, recorded ones included */
    uint64_t n_products, n_fused; /* of cuBLASLt: bare, and with an epilogue */
};

/* Since the thread began; never reset. */
__attribute__((visibility("default"))) struct cuda_host_counts cuda_host_counts(void);

#ifdef __cplusplus
}
#endif

#endif
