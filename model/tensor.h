/* tensor.h - a view of contiguous typed numbers
 *
 * Shapes are slowest dimension first. A tensor does not own its data: memory belongs to
 * an arena of a backend. `data` may be device memory: only the backend reads it.
 */
#ifndef VNEVA_MODEL_TENSOR_H
#define VNEVA_MODEL_TENSOR_H

#include <stddef.h>
#include <stdint.h>

#define TENSOR_DIMS_MAX 5

enum dtype { DTYPE_F32, DTYPE_BF16, DTYPE_F16, DTYPE_I32, DTYPE_U8 };

struct tensor {
    void *data;
    enum dtype dtype;
    int n_dims;
    int64_t dims[TENSOR_DIMS_MAX];
};

size_t dtype_bytes(enum dtype dtype);
const char *dtype_name(enum dtype dtype); /* safetensors' names: "F32", "BF16"... */

/* Number of elements, and of bytes. Products were checked when the tensor was made. */
int64_t tensor_count(const struct tensor *tensor);
size_t tensor_bytes(const struct tensor *tensor);

/* A tensor over memory that is there already. */
struct tensor tensor_of(void *data, enum dtype dtype, int n_dims, const int64_t *dims);

/* The same elements seen as [rows, columns], columns the last dimension. */
struct tensor tensor_flat(const struct tensor *tensor);

/* Rows [first, first + count) of the slowest dimension. */
struct tensor tensor_rows(const struct tensor *tensor, int64_t first, int64_t count);

#endif
