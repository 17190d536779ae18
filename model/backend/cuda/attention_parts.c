#include "model/backend/cuda/attention_parts.h"

#define ALIGN_BYTES 16

typedef cudnnBackendDescriptor_t descriptor;

/* ---- descriptors ---- */

void sdpa_parts_fini(struct sdpa_parts *parts)
{
    while (parts->n > 0)
        cudnnBackendDestroyDescriptor(parts->at[--parts->n]);
}

int sdpa_check(cudnnStatus_t status, const char *what, struct err *err)
{
    char text[128] = "";

    if (status == CUDNN_STATUS_SUCCESS)
        return 0;
    cudnnGetLastErrorString(text, sizeof(text));
    return err_set(err, status / 1000 == 3 ? ERR_UNSUPPORTED : ERR_IO,
                   "%s of cuDNN: %s %.100s", what, cudnnGetErrorString(status), text);
}

descriptor sdpa_make(struct sdpa_parts *parts, cudnnBackendDescriptorType_t type,
                     struct err *err)
{
    descriptor d = NULL;

    if (parts->n == SDPA_PARTS_MAX) {
        err_set(err, ERR_LIMIT, "a plan of more than %d descriptors", SDPA_PARTS_MAX);
        return NULL;
    }
    if (sdpa_check(cudnnBackendCreateDescriptor(type, &d), "descriptor", err) < 0)
        return NULL;
    parts->at[parts->n++] = d;
    return d;
}

int sdpa_set(descriptor d, cudnnBackendAttributeName_t name,
             cudnnBackendAttributeType_t type, int64_t n, const void *value,
             struct err *err)
{
    return sdpa_check(cudnnBackendSetAttribute(d, name, type, n, value), "attribute",
                      err);
}

int sdpa_set_descriptor(descriptor d, cudnnBackendAttributeName_t name, descriptor value,
                        struct err *err)
{
    return sdpa_set(d, name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, (const void *)&value, err);
}

int sdpa_finish(descriptor d, const char *what, struct err *err)
{
    return sdpa_check(cudnnBackendFinalize(d), what, err);
}

/* ---- tensors ---- */

descriptor sdpa_tensor(struct sdpa_graph *g, int64_t uid, cudnnDataType_t type,
                       enum sdpa_kind kind, struct sdpa_layout at)
{
    descriptor d = sdpa_make(g->parts, CUDNN_BACKEND_TENSOR_DESCRIPTOR, g->err);
    const int64_t align = type == CUDNN_DATA_INT32 && kind == IN_MEMORY
                              ? (int64_t)sizeof(int32_t) /* lengths, from any row on */
                              : ALIGN_BYTES;
    const bool is_virtual = kind == VIRTUAL, is_by_value = kind == BY_VALUE;

    if (!d ||
        sdpa_set(d, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &type, g->err) <
            0 ||
        sdpa_set(d, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, 4, at.dims, g->err) <
            0 ||
        sdpa_set(d, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, 4, at.strides, g->err) <
            0 ||
        sdpa_set(d, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1, &uid, g->err) < 0 ||
        sdpa_set(d, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, 1, &align,
                 g->err) < 0 ||
        sdpa_set(d, CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_TYPE_BOOLEAN, 1, &is_virtual,
                 g->err) < 0 ||
        sdpa_set(d, CUDNN_ATTR_TENSOR_IS_BY_VALUE, CUDNN_TYPE_BOOLEAN, 1, &is_by_value,
                 g->err) < 0 ||
        sdpa_finish(d, "tensor", g->err) < 0)
        return NULL;
    return d;
}

/* ---- operations ---- */

static descriptor operation(struct sdpa_graph *g, cudnnBackendDescriptorType_t type)
{
    if (g->n_operations == SDPA_OPERATIONS_MAX) {
        err_set(g->err, ERR_LIMIT, "a graph of more than %d operations",
                SDPA_OPERATIONS_MAX);
        return NULL;
    }
    return sdpa_make(g->parts, type, g->err);
}

/* Optional tensors are NULL and left out. */
static int join(struct sdpa_graph *g, descriptor op, cudnnBackendAttributeName_t name,
                descriptor x)
{
    return x ? sdpa_set_descriptor(op, name, x, g->err) : 0;
}

static descriptor add_operation(struct sdpa_graph *g, descriptor op, const char *what,
                                descriptor out)
{
    if (sdpa_finish(op, what, g->err) < 0)
        return NULL;
    g->operations[g->n_operations++] = op;
    return out;
}

static descriptor pointwise_kind(struct sdpa_graph *g, cudnnPointwiseMode_t mode,
                                 cudnnDataType_t math, const int64_t *axis)
{
    descriptor d = sdpa_make(g->parts, CUDNN_BACKEND_POINTWISE_DESCRIPTOR, g->err);

    if (!d ||
        sdpa_set(d, CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, 1, &mode,
                 g->err) < 0 ||
        sdpa_set(d, CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_TYPE_DATA_TYPE, 1, &math,
                 g->err) < 0 ||
        (axis &&
         sdpa_set(d, CUDNN_ATTR_POINTWISE_AXIS, CUDNN_TYPE_INT64, 1, axis, g->err) < 0) ||
        sdpa_finish(d, "kind of elementwise operation", g->err) < 0)
        return NULL;
    return d;
}

descriptor sdpa_pointwise(struct sdpa_graph *g, struct sdpa_pointwise_kind how,
                          descriptor y, descriptor x, descriptor b, descriptor t)
{
    descriptor kind, op;

    if (!y || !x)
        return NULL;
    kind = pointwise_kind(g, how.mode, how.math, how.has_axis ? &how.axis : NULL);
    if (!kind)
        return NULL;
    op = operation(g, CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR);
    if (!op || join(g, op, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, kind) < 0 ||
        join(g, op, CUDNN_ATTR_OPERATION_POINTWISE_XDESC, x) < 0 ||
        join(g, op, CUDNN_ATTR_OPERATION_POINTWISE_BDESC, b) < 0 ||
        join(g, op, CUDNN_ATTR_OPERATION_POINTWISE_TDESC, t) < 0 ||
        join(g, op, CUDNN_ATTR_OPERATION_POINTWISE_YDESC, y) < 0)
        return NULL;
    return add_operation(g, op, "elementwise operation", y);
}

descriptor sdpa_reduction(struct sdpa_graph *g, cudnnReduceTensorOp_t mode, descriptor y,
                          descriptor x)
{
    descriptor kind = sdpa_make(g->parts, CUDNN_BACKEND_REDUCTION_DESCRIPTOR, g->err), op;
    const cudnnDataType_t math = CUDNN_DATA_FLOAT;

    if (!kind || !x || !y ||
        sdpa_set(kind, CUDNN_ATTR_REDUCTION_OPERATOR, CUDNN_TYPE_REDUCTION_OPERATOR_TYPE,
                 1, &mode, g->err) < 0 ||
        sdpa_set(kind, CUDNN_ATTR_REDUCTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &math,
                 g->err) < 0 ||
        sdpa_finish(kind, "kind of reduction", g->err) < 0)
        return NULL;
    op = operation(g, CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR);
    if (!op || join(g, op, CUDNN_ATTR_OPERATION_REDUCTION_DESC, kind) < 0 ||
        join(g, op, CUDNN_ATTR_OPERATION_REDUCTION_XDESC, x) < 0 ||
        join(g, op, CUDNN_ATTR_OPERATION_REDUCTION_YDESC, y) < 0)
        return NULL;
    return add_operation(g, op, "reduction", y);
}

descriptor sdpa_matmul(struct sdpa_graph *g, descriptor c, descriptor a, descriptor b,
                       struct sdpa_extents real)
{
    descriptor kind = sdpa_make(g->parts, CUDNN_BACKEND_MATMUL_DESCRIPTOR, g->err), op;
    const cudnnDataType_t math = CUDNN_DATA_FLOAT;

    if (!kind || !a || !b || !c ||
        sdpa_set(kind, CUDNN_ATTR_MATMUL_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &math,
                 g->err) < 0 ||
        sdpa_finish(kind, "kind of product", g->err) < 0)
        return NULL;
    op = operation(g, CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR);
    if (!op || join(g, op, CUDNN_ATTR_OPERATION_MATMUL_DESC, kind) < 0 ||
        join(g, op, CUDNN_ATTR_OPERATION_MATMUL_ADESC, a) < 0 ||
        join(g, op, CUDNN_ATTR_OPERATION_MATMUL_BDESC, b) < 0 ||
        join(g, op, CUDNN_ATTR_OPERATION_MATMUL_CDESC, c) < 0 ||
        join(g, op, CUDNN_ATTR_OPERATION_MATMUL_GEMM_M_OVERRIDE_DESC, real.m) < 0 ||
        join(g, op, CUDNN_ATTR_OPERATION_MATMUL_GEMM_N_OVERRIDE_DESC, real.n) < 0 ||
        join(g, op, CUDNN_ATTR_OPERATION_MATMUL_GEMM_K_OVERRIDE_DESC, real.k) < 0)
        return NULL;
    return add_operation(g, op, "product", c);
}

descriptor sdpa_reshape(struct sdpa_graph *g, descriptor y, descriptor x)
{
    descriptor op;

    if (!x || !y)
        return NULL;
    op = operation(g, CUDNN_BACKEND_OPERATION_RESHAPE_DESCRIPTOR);
    if (!op || join(g, op, CUDNN_ATTR_OPERATION_RESHAPE_XDESC, x) < 0 ||
        join(g, op, CUDNN_ATTR_OPERATION_RESHAPE_YDESC, y) < 0)
        return NULL;
    return add_operation(g, op, "reshape", y);
}
