#include "model/backend/cuda/attention_graph.h"

#define UID_VIRTUAL 100 /* and up: tensors that never exist */
#define AXIS_ROW 2
#define AXIS_COLUMN 3

typedef cudnnBackendDescriptor_t descriptor;

/* ---- tensors ---- */

/* A graph of attention in the making. What returns a descriptor returns NULL when it fails
 * and when it is given NULL, so that a chain of calls needs one check at its end. */
struct making {
    struct sdpa_graph graph;
    const struct sdpa_key *key;
    int64_t n_virtual;
};

static struct sdpa_layout packed(int64_t b, int64_t heads, int64_t rows, int64_t columns)
{
    return (struct sdpa_layout){{b, heads, rows, columns},
                                {heads * rows * columns, rows * columns, columns, 1}};
}

static struct sdpa_layout turned(struct sdpa_layout at)
{
    return (struct sdpa_layout){
        {at.dims[0], at.dims[1], at.dims[3], at.dims[2]},
        {at.strides[0], at.strides[1], at.strides[3], at.strides[2]}};
}

/* [B,heads,rows,K]: rows of `heads` heads each, `stride` elements apart. */
static struct sdpa_layout rows_of(const struct sdpa_key *key, int64_t heads, int64_t rows,
                                  int64_t stride)
{
    return (struct sdpa_layout){{key->b, heads, rows, key->k},
                                {rows * stride, key->k, stride, 1}};
}

static struct sdpa_layout q_layout(const struct sdpa_key *key)
{
    return rows_of(key, key->h, key->tq, key->q_stride);
}

static struct sdpa_layout kv_layout(const struct sdpa_key *key)
{
    return rows_of(key, key->g, key->tk, key->kv_stride);
}

static struct sdpa_layout o_layout(const struct sdpa_key *key)
{
    return rows_of(key, key->h, key->tq, key->o_stride);
}

static struct sdpa_layout scores_layout(const struct sdpa_key *key)
{
    return packed(key->b, key->h, key->tq, key->tk);
}

static struct sdpa_layout stats_layout(const struct sdpa_key *key)
{
    return packed(key->b, key->h, key->tq, 1);
}

static cudnnDataType_t half_type(const struct making *g)
{
    return g->key->is_bf16 ? CUDNN_DATA_BFLOAT16 : CUDNN_DATA_HALF;
}

static descriptor half(struct making *g, enum sdpa_uid uid, struct sdpa_layout at)
{
    return sdpa_tensor(&g->graph, uid, half_type(g), IN_MEMORY, at);
}

static descriptor number(struct making *g, enum sdpa_uid uid)
{
    return sdpa_tensor(&g->graph, uid, CUDNN_DATA_FLOAT, BY_VALUE, packed(1, 1, 1, 1));
}

static descriptor lens(struct making *g, enum sdpa_uid uid)
{
    return sdpa_tensor(&g->graph, uid, CUDNN_DATA_INT32, IN_MEMORY,
                       packed(g->key->b, 1, 1, 1));
}

static descriptor passing(struct making *g, cudnnDataType_t type, struct sdpa_layout at)
{
    return sdpa_tensor(&g->graph, UID_VIRTUAL + g->n_virtual++, type, VIRTUAL, at);
}

/* ---- operations ---- */

static descriptor unary(struct making *g, cudnnPointwiseMode_t mode, descriptor y,
                        descriptor x)
{
    return sdpa_pointwise(
        &g->graph, (struct sdpa_pointwise_kind){.mode = mode, .math = CUDNN_DATA_FLOAT},
        y, x, NULL, NULL);
}

static descriptor binary(struct making *g, cudnnPointwiseMode_t mode, descriptor y,
                         descriptor x, descriptor b)
{
    return b ? sdpa_pointwise(
                   &g->graph,
                   (struct sdpa_pointwise_kind){.mode = mode, .math = CUDNN_DATA_FLOAT},
                   y, x, b, NULL)
             : NULL;
}

/* Virtual fp32, like the scores. */
static descriptor scores(struct making *g)
{
    return passing(g, CUDNN_DATA_FLOAT, scores_layout(g->key));
}

static descriptor stats(struct making *g)
{
    return passing(g, CUDNN_DATA_FLOAT, stats_layout(g->key));
}

/* The number of each score's row or column. */
static descriptor index_of(struct making *g, descriptor s, int64_t axis,
                           cudnnDataType_t math)
{
    return sdpa_pointwise(&g->graph,
                          (struct sdpa_pointwise_kind){.mode = CUDNN_POINTWISE_GEN_INDEX,
                                                       .math = math,
                                                       .axis = axis,
                                                       .has_axis = true},
                          passing(g, CUDNN_DATA_INT32, scores_layout(g->key)), s, NULL,
                          NULL);
}

static descriptor add_lens(struct making *g, cudnnPointwiseMode_t mode, descriptor index,
                           descriptor n)
{
    return sdpa_pointwise(
        &g->graph, (struct sdpa_pointwise_kind){.mode = mode, .math = CUDNN_DATA_INT32},
        passing(g, CUDNN_DATA_INT32, scores_layout(g->key)), index, n, NULL);
}

static descriptor compare(struct making *g, cudnnPointwiseMode_t mode, descriptor a,
                          descriptor b)
{
    return b ? sdpa_pointwise(
                   &g->graph,
                   (struct sdpa_pointwise_kind){.mode = mode, .math = CUDNN_DATA_BOOLEAN},
                   passing(g, CUDNN_DATA_BOOLEAN, scores_layout(g->key)), a, b, NULL)
             : NULL;
}

/* s where it is allowed, elsewhere minus infinity. */
static descriptor select_scores(struct making *g, descriptor s, descriptor allowed)
{
    return allowed ? sdpa_pointwise(&g->graph,
                                    (struct sdpa_pointwise_kind){
                                        .mode = CUDNN_POINTWISE_BINARY_SELECT,
                                        .math = CUDNN_DATA_FLOAT},
                                    scores(g), s, number(g, UID_MASK), allowed)
                   : NULL;
}

/* ---- attention ---- */

/* What both passes begin with. */
struct inputs {
    descriptor q, kt, scale, lse;
    descriptor q_lens, kv_lens; /* NULL without lengths */
};

static int make_inputs(struct making *g, struct inputs *in)
{
    const struct sdpa_key *key = g->key;

    in->q = half(g, UID_Q, q_layout(key));
    in->kt = half(g, UID_K, turned(kv_layout(key)));
    in->scale = number(g, UID_SCALE);
    in->lse =
        sdpa_tensor(&g->graph, UID_LSE, CUDNN_DATA_FLOAT, IN_MEMORY, stats_layout(key));
    in->q_lens = in->kv_lens = NULL;
    if (key->has_lens) {
        in->q_lens = lens(g, UID_Q_LENS);
        in->kv_lens = lens(g, UID_KV_LENS);
        if (!in->q_lens || !in->kv_lens)
            return -1;
    }
    return in->q && in->kt && in->scale && in->lse ? 0 : -1;
}

static descriptor scaled_scores(struct making *g, const struct inputs *in)
{
    descriptor s = sdpa_matmul(&g->graph, scores(g), in->q, in->kt,
                               (struct sdpa_extents){.m = in->q_lens, .n = in->kv_lens});

    return binary(g, CUDNN_POINTWISE_MUL, scores(g), s, in->scale);
}

/* Queries and keys that there are not. */
static descriptor mask_padding(struct making *g, const struct inputs *in, descriptor s)
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
static descriptor mask_causal(struct making *g, const struct inputs *in, descriptor s)
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
static descriptor softmax(struct making *g, const struct inputs *in, descriptor s)
{
    descriptor max, e, sum;

    max = sdpa_reduction(&g->graph, CUDNN_REDUCE_TENSOR_MAX, stats(g), s);
    e = unary(g, CUDNN_POINTWISE_EXP, scores(g),
              binary(g, CUDNN_POINTWISE_SUB, scores(g), s, max));
    sum = sdpa_reduction(&g->graph, CUDNN_REDUCE_TENSOR_ADD, stats(g), e);
    if (!binary(g, CUDNN_POINTWISE_ADD, in->lse, max,
                unary(g, CUDNN_POINTWISE_LOG, stats(g), sum)))
        return NULL;
    return binary(g, CUDNN_POINTWISE_DIV, passing(g, half_type(g), scores_layout(g->key)),
                  e, sum);
}

static int forward(struct making *g)
{
    const struct sdpa_key *key = g->key;
    struct inputs in;
    descriptor s, p;

    if (make_inputs(g, &in) < 0)
        return -1;
    s = mask_padding(g, &in, scaled_scores(g, &in));
    p = softmax(g, &in, mask_causal(g, &in, s));
    return sdpa_matmul(&g->graph, half(g, UID_O, o_layout(key)), p,
                       half(g, UID_V, kv_layout(key)),
                       (struct sdpa_extents){.m = in.q_lens, .k = in.kv_lens})
               ? 0
               : -1;
}

/* to [B,G,Tk,K] = x^T y of scores x and rows y, over the heads of a group. */
static int gradient_of_keys(struct making *g, const struct inputs *in, enum sdpa_uid to,
                            descriptor x, descriptor y)
{
    const struct sdpa_key *key = g->key;
    descriptor xt =
        sdpa_reshape(&g->graph, passing(g, half_type(g), turned(scores_layout(key))), x);
    descriptor out = half(g, to, kv_layout(key));
    const struct sdpa_extents real = {.m = in->kv_lens, .k = in->q_lens};

    if (key->h == key->g)
        return sdpa_matmul(&g->graph, out, xt, y, real) ? 0 : -1;
    return sdpa_reduction(&g->graph, CUDNN_REDUCE_TENSOR_ADD, out,
                          sdpa_matmul(&g->graph,
                                      passing(g, half_type(g),
                                              packed(key->b, key->h, key->tk, key->k)),
                                      xt, y, real))
               ? 0
               : -1;
}

/* dq [B,H,Tq,K] = ds k */
static int gradient_of_queries(struct making *g, const struct inputs *in, descriptor ds)
{
    const struct sdpa_key *key = g->key;
    descriptor k =
        sdpa_reshape(&g->graph, passing(g, CUDNN_DATA_FLOAT, kv_layout(key)), in->kt);
    descriptor dq = half(g, UID_DQ, q_layout(key)), sum;
    const struct sdpa_extents real = {.m = in->q_lens, .k = in->kv_lens};

    if (!key->is_any_order)
        return sdpa_matmul(&g->graph, dq, ds, k, real) ? 0 : -1;
    sum = sdpa_tensor(&g->graph, UID_DQ_SUM, CUDNN_DATA_FLOAT, IN_MEMORY,
                      packed(key->b, key->h, key->tq, key->k));
    return unary(g, CUDNN_POINTWISE_IDENTITY, dq,
                 sdpa_matmul(&g->graph, sum, ds, k, real))
               ? 0
               : -1;
}

/* [B,H,Tq,1] = sums over the columns of do * o */
static descriptor dot_of_outputs(struct making *g, descriptor d_o)
{
    const struct sdpa_key *key = g->key;
    descriptor product =
        passing(g, CUDNN_DATA_FLOAT, packed(key->b, key->h, key->tq, key->k));
    descriptor dot =
        sdpa_tensor(&g->graph, UID_DOT, CUDNN_DATA_FLOAT, IN_MEMORY, stats_layout(key));

    product = binary(g, CUDNN_POINTWISE_MUL, product, d_o, half(g, UID_O, o_layout(key)));
    return binary(g, CUDNN_POINTWISE_MUL, dot,
                  sdpa_reduction(&g->graph, CUDNN_REDUCE_TENSOR_ADD, stats(g), product),
                  number(g, UID_ONE));
}

static int backward(struct making *g)
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
    ds = sdpa_matmul(&g->graph, scores(g), d_o, half(g, UID_V, turned(kv_layout(key))),
                     (struct sdpa_extents){.m = in.q_lens, .n = in.kv_lens});
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
    struct making g = {.graph = {.parts = parts, .err = err}, .key = key};
    descriptor graph;

    if ((key->is_bwd ? backward(&g) : forward(&g)) < 0)
        return NULL;
    graph = sdpa_make(parts, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR, err);
    if (!graph ||
        sdpa_set(graph, CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR,
                 g.graph.n_operations, (const void *)g.graph.operations, err) < 0 ||
        (handle && sdpa_set(graph, CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, 1,
                            (const void *)&handle, err) < 0) ||
        sdpa_finish(graph, "graph of attention", err) < 0)
        return NULL;
    return graph;
}
