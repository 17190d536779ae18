/* cudnn_graph.cpp - what cuDNN refuses of tensors, operations and graphs
 *
 * A graph is an attention when the letters of its operations, in order, are a sentence of
 * the patterns below: those that the engines of cuDNN 9 know. tests/op/cudnn_plans.c shows
 * the graphs of model/backend/cuda to the library itself, where it is installed.
 */
#include "cudnn_parts.h"

#include <cstdlib>
#include <regex.h>

#define HEAD_MAX 128
#define ALIGN_BYTES 16

/* M product, R reduction, T reshape; elementwise: * + - / E exp, L log, I index, > at
 * least, < less, & and, ? choice, = copy. */
#define PADDING "(II<<&\\?)?"
#define CAUSAL "(II(\\+-)?>\\?)?"
static const char forward_pattern[] = "^M\\*" PADDING CAUSAL "R-ERL\\+/M$";
static const char backward_pattern[] =
    "^\\*R\\*M\\*" PADDING "-" CAUSAL "ETMR?M-\\*\\*TMR?TM=?$";

namespace cuda_host_dnn
{

descriptor part(descriptor d, int name, cudnnBackendDescriptorType_t type, int64_t i)
{
    descriptor of = nullptr;

    if (!get(d, name, CUDNN_TYPE_BACKEND_DESCRIPTOR, &of, i) || !of || of->type != type ||
        !of->is_final)
        return nullptr;
    return of;
}

/* ---- tensors ---- */

size_t tensor::item() const
{
    switch (type) {
    case CUDNN_DATA_BOOLEAN:
        return 1;
    case CUDNN_DATA_HALF:
    case CUDNN_DATA_BFLOAT16:
        return sizeof(uint16_t);
    default:
        return sizeof(float);
    }
}

size_t tensor::n_bytes() const
{
    int64_t last = 0;

    for (int i = 0; i < 4; i++)
        last += (dims[i] - 1) * strides[i];
    return (size_t)(last + 1) * item();
}

bool tensor_of(descriptor d, tensor *out)
{
    if (!get(d, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, &out->uid) ||
        !get(d, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, &out->align) ||
        !get(d, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, &out->type))
        return false;
    out->is_virtual = out->is_by_value = false;
    get(d, CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_TYPE_BOOLEAN, &out->is_virtual);
    get(d, CUDNN_ATTR_TENSOR_IS_BY_VALUE, CUDNN_TYPE_BOOLEAN, &out->is_by_value);
    for (int64_t i = 0; i < 4; i++)
        if (!get(d, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, &out->dims[i], i) ||
            !get(d, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, &out->strides[i], i) ||
            out->dims[i] < 1 || out->strides[i] < 1)
            return false;
    return out->uid != 0 && out->align >= (int64_t)out->item() &&
           !(out->is_virtual && out->is_by_value);
}

static bool is_same(const tensor &a, const tensor &b)
{
    return a.align == b.align && a.type == b.type && a.is_virtual == b.is_virtual &&
           a.is_by_value == b.is_by_value &&
           memcmp(a.dims, b.dims, sizeof(a.dims)) == 0 &&
           memcmp(a.strides, b.strides, sizeof(a.strides)) == 0;
}

/* Every dimension of b is that of a, or 1. */
static bool does_spread(const tensor &b, const tensor &a)
{
    for (int i = 0; i < 4; i++)
        if (b.dims[i] != a.dims[i] && b.dims[i] != 1)
            return false;
    return true;
}

static bool has_same_dims(const tensor &a, const tensor &b)
{
    return memcmp(a.dims, b.dims, sizeof(a.dims)) == 0;
}

/* A tensor that an operation must have, or may. */
static bool take(descriptor d, int name, tensor *out, bool is_needed = true)
{
    descriptor at = part(d, name, CUDNN_BACKEND_TENSOR_DESCRIPTOR);

    out->uid = 0;
    return at ? tensor_of(at, out) : !is_needed && !d->attributes.count(name);
}

/* ---- operations ---- */

static bool is_number(cudnnDataType_t type)
{
    return type == CUDNN_DATA_FLOAT || type == CUDNN_DATA_HALF ||
           type == CUDNN_DATA_BFLOAT16;
}

struct pointwise_rule {
    int mode, n_operands;
    char letter;
};

static const pointwise_rule pointwise_rules[] = {
    {CUDNN_POINTWISE_ADD, 2, '+'},       {CUDNN_POINTWISE_MUL, 2, '*'},
    {CUDNN_POINTWISE_DIV, 2, '/'},       {CUDNN_POINTWISE_SUB, 2, '-'},
    {CUDNN_POINTWISE_EXP, 1, 'E'},       {CUDNN_POINTWISE_LOG, 1, 'L'},
    {CUDNN_POINTWISE_IDENTITY, 1, '='},  {CUDNN_POINTWISE_CMP_GE, 2, '>'},
    {CUDNN_POINTWISE_CMP_LT, 2, '<'},    {CUDNN_POINTWISE_LOGICAL_AND, 2, '&'},
    {CUDNN_POINTWISE_GEN_INDEX, 1, 'I'}, {CUDNN_POINTWISE_BINARY_SELECT, 3, '?'},
};

static bool fit_types(const operation &op, cudnnDataType_t math)
{
    const cudnnDataType_t x = op.x.type, y = op.y.type;
    const cudnnDataType_t b = op.b.uid ? op.b.type : x;

    switch (op.letter) {
    case 'I':
        return y == CUDNN_DATA_INT32 && op.axis >= 0 && op.axis < 4;
    case '<':
    case '>':
        return x == b && y == CUDNN_DATA_BOOLEAN && math == CUDNN_DATA_BOOLEAN;
    case '&':
        return x == CUDNN_DATA_BOOLEAN && b == x && y == x && math == x;
    case '?':
        return op.t.type == CUDNN_DATA_BOOLEAN && has_same_dims(op.t, op.y) &&
               is_number(x) && is_number(b) && is_number(y) && math == CUDNN_DATA_FLOAT;
    default:
        return (x == CUDNN_DATA_INT32 && b == x && y == x && math == x) ||
               (is_number(x) && is_number(b) && is_number(y) && math == CUDNN_DATA_FLOAT);
    }
}

static bool pointwise_of(descriptor d, operation *op)
{
    descriptor kind = part(d, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR,
                           CUDNN_BACKEND_POINTWISE_DESCRIPTOR);
    cudnnPointwiseMode_t mode;
    cudnnDataType_t math;

    op->kind = operation::POINTWISE;
    op->axis = -1;
    if (!kind ||
        !get(kind, CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, &mode) ||
        !get(kind, CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_TYPE_DATA_TYPE, &math))
        return false;
    get(kind, CUDNN_ATTR_POINTWISE_AXIS, CUDNN_TYPE_INT64, &op->axis);
    op->mode = mode;
    for (const pointwise_rule &rule : pointwise_rules)
        if (rule.mode == mode) {
            op->letter = rule.letter;
            return take(d, CUDNN_ATTR_OPERATION_POINTWISE_XDESC, &op->x) &&
                   take(d, CUDNN_ATTR_OPERATION_POINTWISE_YDESC, &op->y) &&
                   take(d, CUDNN_ATTR_OPERATION_POINTWISE_BDESC, &op->b, false) &&
                   take(d, CUDNN_ATTR_OPERATION_POINTWISE_TDESC, &op->t, false) &&
                   (op->b.uid != 0) == (rule.n_operands > 1) &&
                   (op->t.uid != 0) == (rule.n_operands > 2) &&
                   has_same_dims(op->x, op->y) &&
                   (!op->b.uid || does_spread(op->b, op->y)) && fit_types(*op, math);
        }
    return false;
}

/* Neighbours are summed: y has a divisor of every dimension of x. */
static bool reduction_of(descriptor d, operation *op)
{
    descriptor kind =
        part(d, CUDNN_ATTR_OPERATION_REDUCTION_DESC, CUDNN_BACKEND_REDUCTION_DESCRIPTOR);
    cudnnReduceTensorOp_t mode;
    cudnnDataType_t math;

    op->kind = operation::REDUCTION;
    op->letter = 'R';
    if (!kind ||
        !get(kind, CUDNN_ATTR_REDUCTION_OPERATOR, CUDNN_TYPE_REDUCTION_OPERATOR_TYPE,
             &mode) ||
        !get(kind, CUDNN_ATTR_REDUCTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, &math) ||
        math != CUDNN_DATA_FLOAT ||
        !take(d, CUDNN_ATTR_OPERATION_REDUCTION_XDESC, &op->x) ||
        !take(d, CUDNN_ATTR_OPERATION_REDUCTION_YDESC, &op->y))
        return false;
    op->mode = mode;
    for (int i = 0; i < 4; i++)
        if (op->x.dims[i] % op->y.dims[i] != 0)
            return false;
    return is_number(op->x.type) && is_number(op->y.type);
}

static bool is_extent(const tensor &t, int64_t b)
{
    return !t.uid || (t.type == CUDNN_DATA_INT32 && t.dims[0] == b && t.dims[1] == 1 &&
                      t.dims[2] == 1 && t.dims[3] == 1);
}

/* c [B,H,M,N] = a [B,.,M,K] b [B,.,K,N]: fewer heads serve several each. */
static bool matmul_of(descriptor d, operation *op)
{
    descriptor kind =
        part(d, CUDNN_ATTR_OPERATION_MATMUL_DESC, CUDNN_BACKEND_MATMUL_DESCRIPTOR);
    const tensor &a = op->x, &b = op->b, &c = op->y;
    cudnnDataType_t math;

    op->kind = operation::MATMUL;
    op->letter = 'M';
    return kind && get(kind, CUDNN_ATTR_MATMUL_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, &math) &&
           math == CUDNN_DATA_FLOAT &&
           take(d, CUDNN_ATTR_OPERATION_MATMUL_ADESC, &op->x) &&
           take(d, CUDNN_ATTR_OPERATION_MATMUL_BDESC, &op->b) &&
           take(d, CUDNN_ATTR_OPERATION_MATMUL_CDESC, &op->y) &&
           take(d, CUDNN_ATTR_OPERATION_MATMUL_GEMM_M_OVERRIDE_DESC, &op->m, false) &&
           take(d, CUDNN_ATTR_OPERATION_MATMUL_GEMM_N_OVERRIDE_DESC, &op->n, false) &&
           take(d, CUDNN_ATTR_OPERATION_MATMUL_GEMM_K_OVERRIDE_DESC, &op->k, false) &&
           is_number(a.type) && is_number(b.type) && is_number(c.type) &&
           a.dims[0] == c.dims[0] && b.dims[0] == c.dims[0] &&
           c.dims[1] % a.dims[1] == 0 && c.dims[1] % b.dims[1] == 0 &&
           a.dims[2] == c.dims[2] && a.dims[3] == b.dims[2] && b.dims[3] == c.dims[3] &&
           is_extent(op->m, c.dims[0]) && is_extent(op->n, c.dims[0]) &&
           is_extent(op->k, c.dims[0]);
}

static bool reshape_of(descriptor d, operation *op)
{
    op->kind = operation::RESHAPE;
    op->letter = 'T';
    return take(d, CUDNN_ATTR_OPERATION_RESHAPE_XDESC, &op->x) &&
           take(d, CUDNN_ATTR_OPERATION_RESHAPE_YDESC, &op->y) &&
           op->x.n_bytes() / op->x.item() == op->y.n_bytes() / op->y.item();
}

bool operation_of(descriptor d, operation *out)
{
    memset(out, 0, sizeof(*out));
    switch (d->type) {
    case CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR:
        return pointwise_of(d, out);
    case CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR:
        return reduction_of(d, out);
    case CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR:
        return matmul_of(d, out);
    case CUDNN_BACKEND_OPERATION_RESHAPE_DESCRIPTOR:
        return reshape_of(d, out);
    default:
        return false;
    }
}

/* ---- graphs ---- */

/* A uid means the same tensor everywhere. */
static bool add_tensor(graph *g, const tensor &t)
{
    auto at = g->tensors.find(t.uid);

    if (!t.uid)
        return true;
    if (at != g->tensors.end())
        return is_same(at->second, t);
    g->tensors[t.uid] = t;
    return true;
}

/* Virtual tensors come from one operation each, the others from one at most. */
static bool has_producers(const graph &g)
{
    std::map<int64_t, int> n;

    for (const operation &op : g.operations)
        if (++n[op.y.uid] > 1 || op.y.is_by_value)
            return false;
    for (const auto &t : g.tensors)
        if (t.second.is_virtual && n[t.first] == 0)
            return false;
    return true;
}

bool graph_of(descriptor d, graph *out)
{
    descriptor at = nullptr;

    for (int64_t i = 0;
         get(d, CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR, &at, i);
         i++) {
        operation op;

        if (!at || !at->is_final || !operation_of(at, &op))
            return false;
        for (const tensor *t : {&op.x, &op.y, &op.b, &op.t, &op.m, &op.n, &op.k})
            if (!add_tensor(out, *t))
                return false;
        out->operations.push_back(op);
    }
    return !out->operations.empty() && has_producers(*out);
}

static std::string signature(const graph &g)
{
    std::string letters;

    for (const operation &op : g.operations)
        letters += op.letter;
    return letters;
}

static bool matches(const graph &g, const char *pattern)
{
    regex_t compiled;
    int rc = regcomp(&compiled, pattern, REG_EXTENDED | REG_NOSUB);

    if (rc != 0)
        abort();
    rc = regexec(&compiled, signature(g).c_str(), 0, nullptr, 0);
    regfree(&compiled);
    return rc == 0;
}

bool is_backward(const graph &g)
{
    return matches(g, backward_pattern);
}

bool is_any_order(const graph &g)
{
    return g.operations.back().letter == '=';
}

/* What its kernels read and write by whole vectors. */
static bool fits_kernels(const tensor &t)
{
    bool is_half = t.type == CUDNN_DATA_HALF || t.type == CUDNN_DATA_BFLOAT16;
    int column = t.strides[3] == 1 ? 3 : 2; /* or its transpose */

    if (!is_half || t.is_virtual)
        return true;
    return t.align >= ALIGN_BYTES && t.strides[column] == 1 && t.dims[column] % 8 == 0 &&
           t.dims[column] <= HEAD_MAX && t.strides[5 - column] % 8 == 0;
}

bool has_engine(const graph &g)
{
    if (!is_backward(g) && !matches(g, forward_pattern))
        return false;
    for (const auto &t : g.tensors)
        if (!fits_kernels(t.second))
            return false;
    return true;
}

} /* namespace cuda_host_dnn */
