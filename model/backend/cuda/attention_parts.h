/* attention_parts.h - descriptors of cuDNN's backend API, and graphs of operations of them
 *
 * Owns: what is made goes into `parts`, to be destroyed with them.
 * Threads: none; one caller at a time.
 * Source: "cuDNN Backend API".
 */
#ifndef VNEVA_MODEL_BACKEND_CUDA_ATTENTION_PARTS_H
#define VNEVA_MODEL_BACKEND_CUDA_ATTENTION_PARTS_H

#include "common/base/err.h"

#include <cudnn.h>
#include <stdbool.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Descriptors in the order in which they were created. */
#define SDPA_PARTS_MAX 256

struct sdpa_parts {
    cudnnBackendDescriptor_t at[SDPA_PARTS_MAX];
    int n;
};

void sdpa_parts_fini(struct sdpa_parts *parts);

/* ERR_UNSUPPORTED where cuDNN says so, else ERR_IO. */
int sdpa_check(cudnnStatus_t status, const char *what, struct err *err);

/* NULL with err filled when it cannot be made. */
cudnnBackendDescriptor_t sdpa_make(struct sdpa_parts *parts,
                                   cudnnBackendDescriptorType_t type, struct err *err);
int sdpa_set(cudnnBackendDescriptor_t d, cudnnBackendAttributeName_t name,
             cudnnBackendAttributeType_t type, int64_t n, const void *value,
             struct err *err);
int sdpa_set_descriptor(cudnnBackendDescriptor_t d, cudnnBackendAttributeName_t name,
                        cudnnBackendDescriptor_t value, struct err *err);
int sdpa_finish(cudnnBackendDescriptor_t d, const char *what, struct err *err);

/* ---- graphs: functions return NULL with err filled when something fails, and NULL alone
 * when they are given NULL ---- */

#define SDPA_OPERATIONS_MAX 40

struct sdpa_graph {
    struct sdpa_parts *parts;
    cudnnBackendDescriptor_t operations[SDPA_OPERATIONS_MAX];
    int n_operations;
    struct err *err;
};

/* In memory, bound when a plan runs; between operations only; a number that is read when a
 * plan is asked for. */
enum sdpa_kind { IN_MEMORY, VIRTUAL, BY_VALUE };

/* [B, heads, rows, columns]; strides in elements */
struct sdpa_layout {
    int64_t dims[4], strides[4];
};

cudnnBackendDescriptor_t sdpa_tensor(struct sdpa_graph *g, int64_t uid,
                                     cudnnDataType_t type, enum sdpa_kind kind,
                                     struct sdpa_layout at);

struct sdpa_pointwise_kind {
    cudnnPointwiseMode_t mode;
    cudnnDataType_t math;
    bool has_axis; /* GEN_INDEX */
    int64_t axis;
};

/* y = mode(x, b, t); b and t NULL where the mode has one operand, or two. */
cudnnBackendDescriptor_t
sdpa_pointwise(struct sdpa_graph *g, struct sdpa_pointwise_kind how,
               cudnnBackendDescriptor_t y, cudnnBackendDescriptor_t x,
               cudnnBackendDescriptor_t b, cudnnBackendDescriptor_t t);

/* y = x, reduced where y has smaller dimensions. */
cudnnBackendDescriptor_t sdpa_reduction(struct sdpa_graph *g, cudnnReduceTensorOp_t mode,
                                        cudnnBackendDescriptor_t y,
                                        cudnnBackendDescriptor_t x);

/* How many of a product's rows, columns and summands are real, by row of the batch; NULL:
 * all. */
struct sdpa_extents {
    cudnnBackendDescriptor_t m, n, k;
};

/* c = a b of each matrix; heads of a or b may serve several of c. */
cudnnBackendDescriptor_t sdpa_matmul(struct sdpa_graph *g, cudnnBackendDescriptor_t c,
                                     cudnnBackendDescriptor_t a,
                                     cudnnBackendDescriptor_t b,
                                     struct sdpa_extents real);

/* y: the elements of x by other dimensions and strides; a transpose has both turned. */
cudnnBackendDescriptor_t sdpa_reshape(struct sdpa_graph *g, cudnnBackendDescriptor_t y,
                                      cudnnBackendDescriptor_t x);

#ifdef __cplusplus
}
#endif

#endif
