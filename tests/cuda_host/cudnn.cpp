/* cudnn.cpp - cuDNN's stand-in: descriptors of attention, checked, and plain loops
 *
 * Refuses what cuDNN refuses: attributes of the wrong type, or set after finalization,
 * descriptors that are used before it, tensors that do not fit each other, types, head
 * sizes, strides and alignments that its kernels do not have, a pack of pointers without
 * one of the tensors. Of two engines that it proposes the first is not deterministic, so
 * that a caller who takes any gets other bits every time.
 * Source: "cuDNN Backend API" and the comments of cudnn_graph.h.
 */
#include "cudnn.h"
#include "cuda_host.h"

extern "C" {
#include "model/backend/half.h"
}

#include <cmath>
#include <cstring>
#include <map>
#include <vector>

#define WORKSPACE_BYTES 4096
#define HEAD_MAX 128
#define N_ENGINES 2

struct cuda_host_cudnn {
    cudaStream_t stream;
};

struct attribute {
    cudnnBackendAttributeType_t type;
    int64_t n;
    std::vector<char> bytes;
};

struct cuda_host_descriptor {
    cudnnBackendDescriptorType_t type;
    std::map<int, attribute> attributes;
    bool is_final;
    int engine;                     /* of an engine, its configuration, a plan */
    cudnnBackendDescriptor_t graph; /* likewise */
};

namespace
{

typedef cudnnBackendDescriptor_t descriptor;

size_t item_bytes(cudnnBackendAttributeType_t type)
{
    switch (type) {
    case CUDNN_TYPE_BOOLEAN:
        return sizeof(bool);
    case CUDNN_TYPE_DATA_TYPE:
    case CUDNN_TYPE_HEUR_MODE:
    case CUDNN_TYPE_NUMERICAL_NOTE:
        return sizeof(int);
    default:
        return 8;
    }
}

/* The i-th value of an attribute; false when it is not there, or of another type. */
template <typename T>
bool get(descriptor d, int name, cudnnBackendAttributeType_t type, T *out, int64_t i = 0)
{
    auto at = d->attributes.find(name);

    if (at == d->attributes.end() || at->second.type != type || i >= at->second.n)
        return false;
    memcpy(out, at->second.bytes.data() + (size_t)i * sizeof(T), sizeof(T));
    return true;
}

/* A descriptor that an attribute names, which must be whole. */
descriptor part(descriptor d, int name, cudnnBackendDescriptorType_t type)
{
    descriptor of = nullptr;

    if (!get(d, name, CUDNN_TYPE_BACKEND_DESCRIPTOR, &of) || !of || of->type != type ||
        !of->is_final)
        return nullptr;
    return of;
}

/* ---- tensors ---- */

struct view {
    int64_t uid, align, dims[4], strides[4];
    cudnnDataType_t type;
    bool is_by_value;
    void *data;

    size_t item() const
    {
        return type == CUDNN_DATA_FLOAT ? sizeof(float) : sizeof(uint16_t);
    }

    int64_t at(int64_t b, int64_t h, int64_t s, int64_t c) const
    {
        return b * strides[0] + h * strides[1] + s * strides[2] + c * strides[3];
    }

    size_t n_bytes() const
    {
        return (size_t)(at(dims[0] - 1, dims[1] - 1, dims[2] - 1, dims[3] - 1) + 1) *
               item();
    }

    double get(int64_t b, int64_t h, int64_t s, int64_t c) const
    {
        int64_t i = at(b, h, s, c);

        if (type == CUDNN_DATA_FLOAT)
            return ((float *)data)[i];
        return type == CUDNN_DATA_BFLOAT16 ? bf16_to_float(((uint16_t *)data)[i])
                                           : f16_to_float(((uint16_t *)data)[i]);
    }

    void put(int64_t b, int64_t h, int64_t s, int64_t c, double value) const
    {
        int64_t i = at(b, h, s, c);

        if (type == CUDNN_DATA_FLOAT)
            ((float *)data)[i] = (float)value;
        else
            ((uint16_t *)data)[i] = type == CUDNN_DATA_BFLOAT16
                                        ? bf16_of_float((float)value)
                                        : f16_of_float((float)value);
    }
};

bool view_of(descriptor d, view *v)
{
    if (!get(d, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, &v->uid) ||
        !get(d, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, &v->align) ||
        !get(d, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, &v->type))
        return false;
    v->is_by_value = false;
    get(d, CUDNN_ATTR_TENSOR_IS_BY_VALUE, CUDNN_TYPE_BOOLEAN, &v->is_by_value);
    v->data = nullptr;
    for (int64_t i = 0; i < 4; i++)
        if (!get(d, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, &v->dims[i], i) ||
            !get(d, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, &v->strides[i], i) ||
            v->dims[i] < 1 || v->strides[i] < 1)
            return false;
    return v->align >= (int64_t)v->item();
}

/* ---- attention ---- */

enum role { Q, K, V, O, LSE, SCALE, DO, DQ, DK, DV, N_ROLES };

const int fwd_names[] = {
    CUDNN_ATTR_OPERATION_SDPA_FWD_QDESC,     CUDNN_ATTR_OPERATION_SDPA_FWD_KDESC,
    CUDNN_ATTR_OPERATION_SDPA_FWD_VDESC,     CUDNN_ATTR_OPERATION_SDPA_FWD_ODESC,
    CUDNN_ATTR_OPERATION_SDPA_FWD_STATSDESC, CUDNN_ATTR_OPERATION_SDPA_FWD_SCALEDESC};
const int bwd_names[] = {
    CUDNN_ATTR_OPERATION_SDPA_BWD_QDESC,     CUDNN_ATTR_OPERATION_SDPA_BWD_KDESC,
    CUDNN_ATTR_OPERATION_SDPA_BWD_VDESC,     CUDNN_ATTR_OPERATION_SDPA_BWD_ODESC,
    CUDNN_ATTR_OPERATION_SDPA_BWD_STATSDESC, CUDNN_ATTR_OPERATION_SDPA_BWD_SCALEDESC,
    CUDNN_ATTR_OPERATION_SDPA_BWD_DODDESC,   CUDNN_ATTR_OPERATION_SDPA_BWD_DQDESC,
    CUDNN_ATTR_OPERATION_SDPA_BWD_DKDESC,    CUDNN_ATTR_OPERATION_SDPA_BWD_DVDESC};

struct attention {
    bool is_bwd;
    int n_roles;
    view at[N_ROLES];
};

bool attention_of(descriptor op, attention *a)
{
    a->is_bwd = op->type == CUDNN_BACKEND_OPERATION_SDPA_BWD_DESCRIPTOR;
    a->n_roles = a->is_bwd ? N_ROLES : DO;
    for (int i = 0; i < a->n_roles; i++) {
        descriptor t = part(op, a->is_bwd ? bwd_names[i] : fwd_names[i],
                            CUDNN_BACKEND_TENSOR_DESCRIPTOR);

        if (!t || !view_of(t, &a->at[i]))
            return false;
    }
    return true;
}

bool has_dims(const view &v, int64_t b, int64_t h, int64_t s, int64_t c)
{
    return v.dims[0] == b && v.dims[1] == h && v.dims[2] == s && v.dims[3] == c;
}

bool does_fit(const attention &a)
{
    const view &q = a.at[Q], &k = a.at[K];
    int64_t b = q.dims[0], h = q.dims[1], tq = q.dims[2], d = q.dims[3];
    int64_t g = k.dims[1], tk = k.dims[2];
    bool fits = has_dims(k, b, g, tk, d) && has_dims(a.at[V], b, g, tk, d) &&
                has_dims(a.at[O], b, h, tq, d) && has_dims(a.at[LSE], b, h, tq, 1) &&
                has_dims(a.at[SCALE], 1, 1, 1, 1) && h % g == 0 &&
                a.at[LSE].type == CUDNN_DATA_FLOAT &&
                a.at[SCALE].type == CUDNN_DATA_FLOAT && a.at[SCALE].is_by_value;

    if (fits && a.is_bwd)
        fits = has_dims(a.at[DO], b, h, tq, d) && has_dims(a.at[DQ], b, h, tq, d) &&
               has_dims(a.at[DK], b, g, tk, d) && has_dims(a.at[DV], b, g, tk, d);
    return fits;
}

/* What no engine does. */
bool has_engine(const attention &a)
{
    for (int i = 0; i < a.n_roles; i++) {
        const view &v = a.at[i];

        if (i == LSE || i == SCALE)
            continue;
        if (v.type == CUDNN_DATA_FLOAT || v.type != a.at[Q].type || v.strides[3] != 1 ||
            v.dims[3] % 8 != 0 || v.dims[3] > HEAD_MAX || v.align < 16 ||
            v.strides[2] % 8 != 0)
            return false;
    }
    return true;
}

struct row {
    int64_t b, h, g, t;
    std::vector<double> p;
};

double dot(const view &x, int64_t b, int64_t hx, int64_t tx, const view &y, int64_t hy,
           int64_t ty)
{
    double sum = 0;

    for (int64_t c = 0; c < x.dims[3]; c++)
        sum += x.get(b, hx, tx, c) * y.get(b, hy, ty, c);
    return sum;
}

void fwd_row(const attention &a, double scale, row &r)
{
    double max = -INFINITY, sum = 0;
    int64_t n = a.at[K].dims[2];

    for (int64_t j = 0; j < n; j++) {
        r.p[(size_t)j] = scale * dot(a.at[Q], r.b, r.h, r.t, a.at[K], r.g, j);
        max = fmax(max, r.p[(size_t)j]);
    }
    for (double &p : r.p) {
        p = exp(p - max);
        sum += p;
    }
    for (int64_t c = 0; c < a.at[V].dims[3]; c++) {
        double o = 0;

        for (int64_t j = 0; j < n; j++)
            o += r.p[(size_t)j] / sum * a.at[V].get(r.b, r.g, j, c);
        a.at[O].put(r.b, r.h, r.t, c, o);
    }
    a.at[LSE].put(r.b, r.h, r.t, 0, max + log(sum));
}

/* dk and dv are summed over queries in double, [2, B, G, Tk, K]. */
void bwd_row(const attention &a, double scale, row &r, double *sums)
{
    int64_t n = a.at[K].dims[2], d = a.at[K].dims[3];
    int64_t first = (r.b * a.at[K].dims[1] + r.g) * n * d;
    double *dk = sums, *dv = sums + a.at[K].dims[0] * a.at[K].dims[1] * n * d, mean = 0;
    std::vector<double> dp((size_t)n), dq((size_t)d, 0.0);

    for (int64_t j = 0; j < n; j++) {
        r.p[(size_t)j] = exp(scale * dot(a.at[Q], r.b, r.h, r.t, a.at[K], r.g, j) -
                             a.at[LSE].get(r.b, r.h, r.t, 0));
        dp[(size_t)j] = dot(a.at[DO], r.b, r.h, r.t, a.at[V], r.g, j);
        mean += r.p[(size_t)j] * dp[(size_t)j];
    }
    for (int64_t j = 0; j < n; j++)
        for (int64_t c = 0; c < d; c++) {
            double ds = scale * r.p[(size_t)j] * (dp[(size_t)j] - mean);

            dq[(size_t)c] += ds * a.at[K].get(r.b, r.g, j, c);
            dk[first + j * d + c] += ds * a.at[Q].get(r.b, r.h, r.t, c);
            dv[first + j * d + c] += r.p[(size_t)j] * a.at[DO].get(r.b, r.h, r.t, c);
        }
    for (int64_t c = 0; c < d; c++)
        a.at[DQ].put(r.b, r.h, r.t, c, dq[(size_t)c]);
}

void put_sums(const view &to, const double *sums)
{
    for (int64_t b = 0; b < to.dims[0]; b++)
        for (int64_t h = 0; h < to.dims[1]; h++)
            for (int64_t s = 0; s < to.dims[2]; s++)
                for (int64_t c = 0; c < to.dims[3]; c++)
                    to.put(b, h, s, c, *sums++);
}

cudaError_t compute(const attention &a, double scale)
{
    const view &q = a.at[Q], &k = a.at[K];
    size_t n_kv = (size_t)(k.dims[0] * k.dims[1] * k.dims[2] * k.dims[3]);
    std::vector<double> sums(a.is_bwd ? 2 * n_kv : 0, 0.0);
    row r;

    r.p.resize((size_t)k.dims[2]);
    for (r.b = 0; r.b < q.dims[0]; r.b++)
        for (r.h = 0; r.h < q.dims[1]; r.h++)
            for (r.t = 0; r.t < q.dims[2]; r.t++) {
                r.g = r.h / (q.dims[1] / k.dims[1]);
                if (a.is_bwd)
                    bwd_row(a, scale, r, sums.data());
                else
                    fwd_row(a, scale, r);
            }
    if (a.is_bwd) {
        put_sums(a.at[DK], sums.data());
        put_sums(a.at[DV], sums.data() + n_kv);
    }
    return cudaSuccess;
}

/* The one operation of a graph. */
bool graph_attention(descriptor graph, attention *a)
{
    descriptor op = nullptr;

    return get(graph, CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR,
               &op) &&
           op && op->is_final && attention_of(op, a);
}

bool has_handle(descriptor d, int name)
{
    cudnnHandle_t handle = nullptr;

    return get(d, name, CUDNN_TYPE_HANDLE, &handle) && handle && handle->stream;
}

/* Gives the tensors of a pack their memory; false when one is missing or not fit. */
bool bind(descriptor pack, attention *a)
{
    for (int i = 0; i < a->n_roles; i++) {
        view &v = a->at[i];
        int64_t uid = 0;

        for (int64_t n = 0;
             get(pack, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, &uid, n);
             n++)
            if (uid == v.uid && !get(pack, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS,
                                     CUDNN_TYPE_VOID_PTR, &v.data, n))
                return false;
        if (!v.data || (uintptr_t)v.data % (uintptr_t)v.align != 0 ||
            (!v.is_by_value && !cuda_host_is_device(v.data, v.n_bytes())))
            return false;
    }
    return true;
}

cudnnStatus_t finalize_plan(descriptor d)
{
    descriptor config = part(d, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG,
                             CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
    attention a;

    if (!config || !has_handle(d, CUDNN_ATTR_EXECUTION_PLAN_HANDLE))
        return CUDNN_STATUS_BAD_PARAM;
    d->engine = config->engine;
    d->graph = config->graph;
    return graph_attention(d->graph, &a) && has_engine(a) ? CUDNN_STATUS_SUCCESS
                                                          : CUDNN_STATUS_NOT_SUPPORTED;
}

cudnnStatus_t finalize(descriptor d)
{
    attention a;
    view v;

    switch (d->type) {
    case CUDNN_BACKEND_TENSOR_DESCRIPTOR:
        return view_of(d, &v) ? CUDNN_STATUS_SUCCESS : CUDNN_STATUS_BAD_PARAM;
    case CUDNN_BACKEND_OPERATION_SDPA_FWD_DESCRIPTOR:
    case CUDNN_BACKEND_OPERATION_SDPA_BWD_DESCRIPTOR:
        return attention_of(d, &a) && does_fit(a) ? CUDNN_STATUS_SUCCESS
                                                  : CUDNN_STATUS_BAD_PARAM;
    case CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR:
        return graph_attention(d, &a) && has_handle(d, CUDNN_ATTR_OPERATIONGRAPH_HANDLE)
                   ? CUDNN_STATUS_SUCCESS
                   : CUDNN_STATUS_BAD_PARAM;
    case CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR: {
        cudnnBackendHeurMode_t mode;

        return get(d, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, &mode) &&
                       part(d, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH,
                            CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR)
                   ? CUDNN_STATUS_SUCCESS
                   : CUDNN_STATUS_BAD_PARAM;
    }
    case CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR:
        return finalize_plan(d);
    default:
        return CUDNN_STATUS_SUCCESS;
    }
}

cudnnStatus_t give_configs(descriptor heur, int64_t n_wanted, int64_t *n, void *value)
{
    descriptor graph = part(heur, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH,
                            CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);

    *n = N_ENGINES;
    for (int64_t i = 0; i < n_wanted && i < N_ENGINES; i++) {
        descriptor to = ((descriptor *)value)[i];

        if (!to || to->type != CUDNN_BACKEND_ENGINECFG_DESCRIPTOR)
            return CUDNN_STATUS_BAD_PARAM;
        to->engine = (int)i;
        to->graph = graph;
        to->is_final = true;
    }
    return CUDNN_STATUS_SUCCESS;
}

} /* namespace */

const char *cudnnGetErrorString(cudnnStatus_t status)
{
    return status == CUDNN_STATUS_NOT_SUPPORTED ? "CUDNN_STATUS_NOT_SUPPORTED"
           : status == CUDNN_STATUS_BAD_PARAM   ? "CUDNN_STATUS_BAD_PARAM"
                                                : "CUDNN_STATUS_EXECUTION_FAILED";
}

size_t cudnnGetVersion(void)
{
    return 91900;
}

cudnnStatus_t cudnnCreate(cudnnHandle_t *out)
{
    *out = new cuda_host_cudnn{nullptr};
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnDestroy(cudnnHandle_t handle)
{
    delete handle;
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnSetStream(cudnnHandle_t handle, cudaStream_t stream)
{
    handle->stream = stream;
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendCreateDescriptor(cudnnBackendDescriptorType_t type,
                                           cudnnBackendDescriptor_t *out)
{
    *out = new cuda_host_descriptor{type, {}, false, 0, nullptr};
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendDestroyDescriptor(cudnnBackendDescriptor_t d)
{
    delete d;
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendSetAttribute(cudnnBackendDescriptor_t d,
                                       cudnnBackendAttributeName_t name,
                                       cudnnBackendAttributeType_t type, int64_t n,
                                       const void *value)
{
    attribute a = {type, n, {}};

    if (!d || d->is_final || n < 1 || !value)
        return CUDNN_STATUS_BAD_PARAM;
    a.bytes.resize((size_t)n * item_bytes(type));
    memcpy(a.bytes.data(), value, a.bytes.size());
    d->attributes[name] = a;
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendGetAttribute(cudnnBackendDescriptor_t d,
                                       cudnnBackendAttributeName_t name,
                                       cudnnBackendAttributeType_t type, int64_t n_wanted,
                                       int64_t *n, void *value)
{
    if (!d || (d->type != CUDNN_BACKEND_ENGINE_DESCRIPTOR && !d->is_final))
        return CUDNN_STATUS_BAD_PARAM;
    *n = 1;
    if (name == CUDNN_ATTR_ENGINEHEUR_RESULTS && type == CUDNN_TYPE_BACKEND_DESCRIPTOR)
        return give_configs(d, n_wanted, n, value);
    if (n_wanted < 1)
        return CUDNN_STATUS_BAD_PARAM;
    if (name == CUDNN_ATTR_ENGINECFG_ENGINE && type == CUDNN_TYPE_BACKEND_DESCRIPTOR)
        (*(descriptor *)value)->engine = d->engine;
    else if (name == CUDNN_ATTR_ENGINE_NUMERICAL_NOTE &&
             type == CUDNN_TYPE_NUMERICAL_NOTE)
        *(cudnnBackendNumericalNote_t *)value =
            d->engine == 0 ? CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC
                           : CUDNN_NUMERICAL_NOTE_TENSOR_CORE;
    else if (name == CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE && type == CUDNN_TYPE_INT64)
        *(int64_t *)value = WORKSPACE_BYTES;
    else
        return CUDNN_STATUS_BAD_PARAM;
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendFinalize(cudnnBackendDescriptor_t d)
{
    cudnnStatus_t status = finalize(d);

    d->is_final = status == CUDNN_STATUS_SUCCESS;
    return status;
}

cudnnStatus_t cudnnBackendExecute(cudnnHandle_t handle, cudnnBackendDescriptor_t plan,
                                  cudnnBackendDescriptor_t pack)
{
    void *workspace = nullptr;
    attention a;
    double scale;

    if (!plan->is_final || !pack->is_final || !graph_attention(plan->graph, &a) ||
        !bind(pack, &a) ||
        !get(pack, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, &workspace) ||
        !cuda_host_is_device(workspace, WORKSPACE_BYTES))
        return CUDNN_STATUS_BAD_PARAM;
    scale = *(float *)a.at[SCALE].data; /* by value: read now */
    if (plan->engine == 0) {
        static int n_runs;

        scale *= 1 + 1e-4 * (n_runs++ % 2);
    }
    return cuda_host_ask(handle->stream, [a, scale] { return compute(a, scale); }) ==
                   cudaSuccess
               ? CUDNN_STATUS_SUCCESS
               : CUDNN_STATUS_EXECUTION_FAILED;
}
