/* cuda_counts.h - what the CUDA backend asked of its stand-ins (tests/cuda_host) */
#ifndef VNEVA_TESTS_OP_CUDA_COUNTS_H
#define VNEVA_TESTS_OP_CUDA_COUNTS_H

#include "model/backend/backend.h"

#include <stdint.h>

/* Since the process began. */
struct cuda_counts {
    uint64_t kernels;  /* own ones */
    uint64_t products; /* of cuBLASLt, bare */
    uint64_t fused;    /* with an epilogue */
};

/* b: a backend of that plugin. All 0 when it is another, real one. */
struct cuda_counts cuda_counts_of(const struct backend *b);

/* What came after `before`. */
struct cuda_counts cuda_counts_since(const struct backend *b,
                                     const struct cuda_counts *before);

#endif
