#include "model/backend/cuda/attention_graph.h"

#define OPERATIONS_MAX 40
#define UID_VIRTUAL 100 /* and up: tensors that never exist */
#define ALIGN_BYTES 16
#define AXIS_ROW 2
#define AXIS_COLUMN 3

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

/* A graph in the making. Everything below returns NULL when something failed, and when it
 * is given NULL, so that a chain of calls needs one check at its end; err has the first
 * failure. */
struct graph {
    struct sdpa_parts *parts;
    const struct sdpa_key *key;
    descriptor operations[OPERATIONS_MAX];
    int n_operations;
    int64_t n_virtual;
    struct err *err;
};

enum kind { IN_MEMORY, VIRTUAL, BY_VALUE };

struct layout {
    int64_t dims[4], strides[4];
};

static descriptor tensor(struct graph *g, int64_t uid, cudnnDataType_t type,
                         enum kind kind, struct layout at)
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

static struct layout packed(int64_t b, int64_t heads, int64_t rows, int64_t columns)
{
    return (struct layout){{b, heads, rows, columns},
                           {heads * rows * columns, rows * columns, columns, 1}};
}

static struct layout turned(struct layout at)
{
    return (struct layout){{at.dims[0], at.dims[1], at.dims[3], at.dims[2]},
                           {at.strides[0], at.strides[1], at.strides[3], at.strides[2]}};
}

/* [B,heads,rows,K]: rows of `heads` heads each, `stride` elements apart. */
static struct layout rows_of(const struct sdpa_key *key, int64_t heads, int64_t rows,
                             int64_t stride)
{
    return (struct layout){{key->b, heads, rows, key->k},
                           {rows * stride, key->k, stride, 1}};
}

static struct layout q_layout(const struct sdpa_key *key)
{
    return rows_of(key, key->h, key->tq, key->q_stride);
}

static struct layout kv_layout(const struct sdpa_key *key)
{
    return rows_of(key, key->g, key->tk, key->kv_stride);
}

static struct layout o_layout(const struct sdpa_key *key)
{
    return rows_of(key, key->h, key->tq, key->o_stride);
}

static struct layout scores_layout(const struct sdpa_key *key)
{
    return packed(key->b, key->h, key->tq, key->tk);
}

static struct layout stats_layout(const struct sdpa_key *key)
{
    return packed(key->b, key->h, key->tq, 1);
}

static cudnnDataType_t half_type(const struct graph *g)
{
    return g->key->is_bf16 ? CUDNN_DATA_BFLOAT16 : CUDNN_DATA_HALF;
}

static descriptor half(struct graph *g, enum sdpa_uid uid, struct layout at)
{
    return tensor(g, uid, half_type(g), IN_MEMORY, at);
}

static descriptor number(struct graph *g, enum sdpa_uid uid)
{
    return tensor(g, uid, CUDNN_DATA_FLOAT, BY_VALUE, packed(1, 1, 1, 1));
}

static descriptor lens(struct graph *g, enum sdpa_uid uid)
{
    return tensor(g, uid, CUDNN_DATA_INT32, IN_MEMORY, packed(g->key->b, 1, 1, 1));
}

static descriptor passing(struct graph *g, cudnnDataType_t type, struct layout at)
{
    return tensor(g, UID_VIRTUAL + g->n_virtual++, type, VIRTUAL, at);
}

/* ---- operations ---- */

static descriptor operation(struct graph *g, cudnnBackendDescriptorType_t type)
{
    if (g->n_operations == OPERATIONS_MAX) {
        err_set(g->err, ERR_LIMIT, "a graph of more than %d operations", OPERATIONS_MAX);
        return NULL;
    }
    return sdpa_make(g->parts, type, g->err);
}

/* Optional tensors are NULL and left out. */
static int join(struct graph *g, descriptor op, cudnnBackendAttributeName_t name,
                descriptor x)
{
    return x ? sdpa_set_descriptor(op, name, x, g->err) : 0;
}

static descriptor add_operation(struct graph *g, descriptor op, const char *what,
                                descriptor out)
{
    if (sdpa_finish(op, what, g->err) < 0)
        return NULL;
    g->operations[g->n_operations++] = op;
    return out;
}

static descriptor pointwise_kind(struct graph *g, cudnnPointwiseMode_t mode,
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

/* y = mode(x, b, t); b and t NULL where the mode has one operand, or two. */
static descriptor pointwise(struct graph *g, descriptor kind, descriptor y, descriptor x,
                            descriptor b, descriptor t)
{
    descriptor op;

    if (!kind || !y || !x)
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

static descriptor unary(struct graph *g, cudnnPointwiseMode_t mode, descriptor y,
                        descriptor x)
{
    return pointwise(g, pointwise_kind(g, mode, CUDNN_DATA_FLOAT, NULL), y, x, NULL,
                     NULL);
}

static descriptor binary(struct graph *g, cudnnPointwiseMode_t mode, descriptor y,
                         descriptor x, descriptor b)
{
    return b ? pointwise(g, pointwise_kind(g, mode, CUDNN_DATA_FLOAT, NULL), y, x, b,
                         NULL)
             : NULL;
}

/* Virtual fp32, like the scores. */
static descriptor scores(struct graph *g)
{
    return passing(g, CUDNN_DATA_FLOAT, scores_layout(g->key));
}

static descriptor stats(struct graph *g)
{
    return passing(g, CUDNN_DATA_FLOAT, stats_layout(g->key));
}

/* The number of each score's row or column. */
static descriptor index_of(struct graph *g, descriptor s, int64_t axis,
                           cudnnDataType_t math)
{
    return pointwise(g, pointwise_kind(g, CUDNN_POINTWISE_GEN_INDEX, math, &axis),
                     passing(g, CUDNN_DATA_INT32, scores_layout(g->key)), s, NULL, NULL);
}

static descriptor add_lens(struct graph *g, cudnnPointwiseMode_t mode, descriptor index,
                           descriptor n)
{
    return pointwise(g, pointwise_kind(g, mode, CUDNN_DATA_INT32, NULL),
                     passing(g, CUDNN_DATA_INT32, scores_layout(g->key)), index, n, NULL);
}

static descriptor compare(struct graph *g, cudnnPointwiseMode_t mode, descriptor a,
                          descriptor b)
{
    return b ? pointwise(g, pointwise_kind(g, mode, CUDNN_DATA_BOOLEAN, NULL),
                         passing(g, CUDNN_DATA_BOOLEAN, scores_layout(g->key)), a, b,
                         NULL)
             : NULL;
}

/* s where it is allowed, elsewhere minus infinity. */
static descriptor select_scores(struct graph *g, descriptor s, descriptor allowed)
{
    return allowed ? pointwise(g,
                               pointwise_kind(g, CUDNN_POINTWISE_BINARY_SELECT,
                                              CUDNN_DATA_FLOAT, NULL),
                               scores(g), s, number(g, UID_MASK), allowed)
                   : NULL;
}

static descriptor reduction(struct graph *g, cudnnReduceTensorOp_t mode, descriptor y,
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

/* How many of a product's rows, columns and summands are real, by row of the batch. */
struct extents {
    descriptor m, n, k;
};

static descriptor matmul(struct graph *g, descriptor c, descriptor a, descriptor b,
                         struct extents real)
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

/* The same elements in other dimensions; here always: rows as columns. */
static descriptor reshape(struct graph *g, descriptor y, descriptor x)
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

/* ---- attention ---- */

/* What both passes begin with. */
struct inputs {
    descriptor q, kt, scale, lse;
    descriptor q_lens, kv_lens; /* NULL without lengths */
};

static int make_inputs(struct graph *g, struct inputs *in)
{
    const struct sdpa_key *key = g->key;

    in->q = half(g, UID_Q, q_layout(key));
    in->kt = half(g, UID_K, turned(kv_layout(key)));
    in->scale = number(g, UID_SCALE);
    in->lse = tensor(g, UID_LSE, CUDNN_DATA_FLOAT, IN_MEMORY, stats_layout(key));
    in->q_lens = in->kv_lens = NULL;
    if (key->has_lens) {
        in->q_lens = lens(g, UID_Q_LENS);
        in->kv_lens = lens(g, UID_KV_LENS);
        if (!in->q_lens || !in->kv_lens)
            return -1;
    }
    return in->q && in->kt && in->scale && in->lse ? 0 : -1;
}

static descriptor scaled_scores(struct graph *g, const struct inputs *in)
{
    descriptor s = matmul(g, scores(g), in->q, in->kt,
                          (struct extents){.m = in->q_lens, .n = in->kv_lens});

    return binary(g, CUDNN_POINTWISE_MUL, scores(g), s, in->scale);
}

/* Queries and keys that there are not. */
static descriptor mask_padding(struct graph *g, const struct inputs *in, descriptor s)
{
    descriptor row, column, allowed;

    if (!g->key->has_lens)
        return s;
    row = index_of(g, s, AXIS_ROW, CUDNN_DATA_INT32);
    column = index_of(g, s, AXIS_COLUMN, CUDNN_DATA_INT32);
    row = compare(g, CUDNN_POINTWISE_CMP_LT, row, in->q_lens);
    column = compare(g, CUDNN_POINTWISE_CMP_LT, column, in->kv_lens);
    allowed = compare(g, CUDNN_POINTWISE_LOGICAL_AND, row, column);
    return select_scores(g, s, allowed);
}

/* Keys behind the query: row >= column, or, with lengths, row + keys - queries >= column. */
static descriptor mask_causal(struct graph *g, const struct inputs *in, descriptor s)
{
    descriptor row, column;

    if (!g->key->is_causal)
        return s;
    row = index_of(g, s, AXIS_ROW, CUDNN_DATA_FLOAT);
    column = index_of(g, s, AXIS_COLUMN, CUDNN_DATA_FLOAT);
    if (g->key->has_lens) {
        row = add_lens(g, CUDNN_POINTWISE_ADD, row, in->kv_lens);
        row = add_lens(g, CUDNN_POINTWISE_SUB, row, in->q_lens);
    }
    return select_scores(g, s, compare(g, CUDNN_POINTWISE_CMP_GE, row, column));
}

/* P in T from scores, and lse. */
static descriptor softmax(struct graph *g, const struct inputs *in, descriptor s)
{
    descriptor max, e, sum;

    max = reduction(g, CUDNN_REDUCE_TENSOR_MAX, stats(g), s);
    e = unary(g, CUDNN_POINTWISE_EXP, scores(g),
              binary(g, CUDNN_POINTWISE_SUB, scores(g), s, max));
    sum = reduction(g, CUDNN_REDUCE_TENSOR_ADD, stats(g), e);
    if (!binary(g, CUDNN_POINTWISE_ADD, in->lse, max,
                unary(g, CUDNN_POINTWISE_LOG, stats(g), sum)))
        return NULL;
    return binary(g, CUDNN_POINTWISE_DIV, passing(g, half_type(g), scores_layout(g->key)),
                  e, sum);
}

static int forward(struct graph *g)
{
    const struct sdpa_key *key = g->key;
    struct inputs in;
    descriptor s, p;

    if (make_inputs(g, &in) < 0)
        return -1;
    s = mask_padding(g, &in, scaled_scores(g, &in));
    p = softmax(g, &in, mask_causal(g, &in, s));
    return matmul(g, half(g, UID_O, o_layout(key)), p, half(g, UID_V, kv_layout(key)),
                  (struct extents){.m = in.q_lens, .k = in.kv_lens})
               ? 0
               : -1;
}

/* to [B,G,Tk,K] = x^T y of scores x and rows y, over the heads of a group. */
static int gradient_of_keys(struct graph *g, const struct inputs *in, enum sdpa_uid to,
                            descriptor x, descriptor y)
{
    const struct sdpa_key *key = g->key;
    descriptor xt = reshape(g, passing(g, half_type(g), turned(scores_layout(key))), x);
    descriptor out = half(g, to, kv_layout(key));
    const struct extents real = {.m = in->kv_lens, .k = in->q_lens};

    if (key->h == key->g)
        return matmul(g, out, xt, y, real) ? 0 : -1;
    return reduction(
               g, CUDNN_REDUCE_TENSOR_ADD, out,
               matmul(g,
                      passing(g, half_type(g), packed(key->b, key->h, key->tk, key->k)),
                      xt, y, real))
               ? 0
               : -1;
}

/* dq [B,H,Tq,K] = ds k */
static int gradient_of_queries(struct graph *g, const struct inputs *in, descriptor ds)
{
    const struct sdpa_key *key = g->key;
    descriptor k = reshape(g, passing(g, CUDNN_DATA_FLOAT, kv_layout(key)), in->kt);
    descriptor dq = half(g, UID_DQ, q_layout(key)), sum;
    const struct extents real = {.m = in->q_lens, .k = in->kv_lens};

    if (!key->is_any_order)
        return matmul(g, dq, ds, k, real) ? 0 : -1;
    sum = tensor(g, UID_DQ_SUM, CUDNN_DATA_FLOAT, IN_MEMORY,
                 packed(key->b, key->h, key->tq, key->k));
    return unary(g, CUDNN_POINTWISE_IDENTITY, dq, matmul(g, sum, ds, k, real)) ? 0 : -1;
}

/* [B,H,Tq,1] = sums over the columns of do * o */
static descriptor dot_of_outputs(struct graph *g, descriptor d_o)
{
    const struct sdpa_key *key = g->key;
    descriptor product =
        passing(g, CUDNN_DATA_FLOAT, packed(key->b, key->h, key->tq, key->k));
    descriptor dot = tensor(g, UID_DOT, CUDNN_DATA_FLOAT, IN_MEMORY, stats_layout(key));

    product = binary(g, CUDNN_POINTWISE_MUL, product, d_o, half(g, UID_O, o_layout(key)));
    return binary(g, CUDNN_POINTWISE_MUL, dot,
                  reduction(g, CUDNN_REDUCE_TENSOR_ADD, stats(g), product),
                  number(g, UID_ONE));
}

static int backward(struct graph *g)
{
    const struct sdpa_key *key = g->key;
    descriptor d_o = half(g, UID_DO, o_layout(key)), dot, s, p, ds;
    struct inputs in;

    if (!d_o || make_inputs(g, &in) < 0)
        return -1;
    dot = dot_of_outputs(g, d_o);
    s = mask_padding(g, &in, scaled_scores(g, &in));
    s = binary(g, CUDNN_POINTWISE_SUB, scores(g), s, in.lse);
    p = unary(g, CUDNN_POINTWISE_EXP, scores(g), mask_causal(g, &in, s));
    if (gradient_of_keys(g, &in, UID_DV, p, d_o) < 0)
        return -1;
    ds = matmul(g, scores(g), d_o, half(g, UID_V, turned(kv_layout(key))),
                (struct extents){.m = in.q_lens, .n = in.kv_lens});
    ds = binary(g, CUDNN_POINTWISE_SUB, scores(g), ds, dot);
    ds = binary(g, CUDNN_POINTWISE_MUL, scores(g), ds, p);
    ds = binary(g, CUDNN_POINTWISE_MUL, scores(g), ds, in.scale);
    if (gradient_of_keys(g, &in, UID_DK, ds, in.q) < 0)
        return -1;
    return gradient_of_queries(g, &in, ds);
}

descriptor sdpa_graph(struct sdpa_parts *parts, const struct sdpa_key *key,
                      cudnnHandle_t handle, struct err *err)
{
    struct graph g = {.parts = parts, .key = key, .err = err};
    descriptor graph;

    if ((key->is_bwd ? backward(&g) : forward(&g)) < 0)
        return NULL;
    graph = sdpa_make(parts, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR, err);
    if (!graph ||
        sdpa_set(graph, CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR,
                 g.n_operations, (const void *)g.operations, err) < 0 ||
        (handle && sdpa_set(graph, CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, 1,
                            (const void *)&handle, err) < 0) ||
        sdpa_finish(graph, "graph of attention", err) < 0)
        return NULL;
    return graph;
}
