#include "model/tensor.h"

size_t dtype_bytes(enum dtype dtype)
{
    switch (dtype) {
    case DTYPE_F32:
    case DTYPE_I32:
        return 4;
    case DTYPE_BF16:
    case DTYPE_F16:
        return 2;
    case DTYPE_U8:
        return 1;
    }
    return 0;
}

const char *dtype_name(enum dtype dtype)
{
    switch (dtype) {
    case DTYPE_F32:
        return "F32";
    case DTYPE_BF16:
        return "BF16";
    case DTYPE_F16:
        return "F16";
    case DTYPE_I32:
        return "I32";
    case DTYPE_U8:
        return "U8";
    }
    return "unknown";
}

int64_t tensor_count(const struct tensor *tensor)
{
    int64_t count = 1;

    for (int i = 0; i < tensor->n_dims; i++)
        count *= tensor->dims[i];
    return count;
}

size_t tensor_bytes(const struct tensor *tensor)
{
    return (size_t)tensor_count(tensor) * dtype_bytes(tensor->dtype);
}

struct tensor tensor_of(void *data, enum dtype dtype, int n_dims, const int64_t *dims)
{
    struct tensor tensor = {.data = data, .dtype = dtype, .n_dims = n_dims};

    for (int i = 0; i < n_dims; i++)
        tensor.dims[i] = dims[i];
    return tensor;
}

struct tensor tensor_flat(const struct tensor *tensor)
{
    int64_t dims[2] = {1, tensor->n_dims ? tensor->dims[tensor->n_dims - 1] : 1};

    for (int i = 0; i + 1 < tensor->n_dims; i++)
        dims[0] *= tensor->dims[i];
    return tensor_of(tensor->data, tensor->dtype, 2, dims);
}

struct tensor tensor_rows(const struct tensor *tensor, int64_t first, int64_t count)
{
    struct tensor part = *tensor;
    int64_t row = 1;

    for (int i = 1; i < tensor->n_dims; i++)
        row *= tensor->dims[i];
    part.dims[0] = count;
    part.data = (char *)tensor->data + (size_t)(first * row) * dtype_bytes(tensor->dtype);
    return part;
}
