/* cudnn.cpp - cuDNN's stand-in: descriptors, engines and plans
 *
 * Refuses what cuDNN refuses: attributes of the wrong type or of another descriptor, or
 * set after finalization, descriptors that are used before it, graphs of operations that
 * its engines do not know (cudnn_graph.cpp), a pack of pointers without one of the
 * tensors. Of two engines that it proposes the first says that it is not deterministic, so
 * that a caller who takes any gets other bits every time; cuDNN itself does not say so of
 * gradients whose dq is summed in memory, and neither does the second.
 * Source: "cuDNN Backend API" and the comments of cudnn_graph.h.
 */
#include "cudnn_parts.h"

#include "cuda_host.h"

#include <algorithm>

#define WORKSPACE_BYTES 4096
#define TILE 128
#define GRADIENT_BYTES 2
#define N_ENGINES 2
#define JITTER 2e-5

using namespace cuda_host_dnn;

namespace
{

/* Which descriptor has an attribute, of which type, and how many values at most. */
struct attribute_rule {
    cudnnBackendDescriptorType_t of;
    cudnnBackendAttributeType_t type;
    int64_t n_max;
    std::vector<int> names;
};

#define N_MANY 1024

const attribute_rule rules[] = {
    {CUDNN_BACKEND_TENSOR_DESCRIPTOR,
     CUDNN_TYPE_INT64,
     1,
     {CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT}},
    {CUDNN_BACKEND_TENSOR_DESCRIPTOR,
     CUDNN_TYPE_DATA_TYPE,
     1,
     {CUDNN_ATTR_TENSOR_DATA_TYPE}},
    {CUDNN_BACKEND_TENSOR_DESCRIPTOR,
     CUDNN_TYPE_INT64,
     8,
     {CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_ATTR_TENSOR_STRIDES}},
    {CUDNN_BACKEND_TENSOR_DESCRIPTOR,
     CUDNN_TYPE_BOOLEAN,
     1,
     {CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_ATTR_TENSOR_IS_BY_VALUE}},
    {CUDNN_BACKEND_POINTWISE_DESCRIPTOR,
     CUDNN_TYPE_POINTWISE_MODE,
     1,
     {CUDNN_ATTR_POINTWISE_MODE}},
    {CUDNN_BACKEND_POINTWISE_DESCRIPTOR,
     CUDNN_TYPE_DATA_TYPE,
     1,
     {CUDNN_ATTR_POINTWISE_MATH_PREC}},
    {CUDNN_BACKEND_POINTWISE_DESCRIPTOR,
     CUDNN_TYPE_INT64,
     1,
     {CUDNN_ATTR_POINTWISE_AXIS}},
    {CUDNN_BACKEND_REDUCTION_DESCRIPTOR,
     CUDNN_TYPE_REDUCTION_OPERATOR_TYPE,
     1,
     {CUDNN_ATTR_REDUCTION_OPERATOR}},
    {CUDNN_BACKEND_REDUCTION_DESCRIPTOR,
     CUDNN_TYPE_DATA_TYPE,
     1,
     {CUDNN_ATTR_REDUCTION_COMP_TYPE}},
    {CUDNN_BACKEND_MATMUL_DESCRIPTOR,
     CUDNN_TYPE_DATA_TYPE,
     1,
     {CUDNN_ATTR_MATMUL_COMP_TYPE}},
    {CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR,
     CUDNN_TYPE_BACKEND_DESCRIPTOR,
     1,
     {CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, CUDNN_ATTR_OPERATION_POINTWISE_XDESC,
      CUDNN_ATTR_OPERATION_POINTWISE_BDESC, CUDNN_ATTR_OPERATION_POINTWISE_YDESC,
      CUDNN_ATTR_OPERATION_POINTWISE_TDESC}},
    {CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR,
     CUDNN_TYPE_BACKEND_DESCRIPTOR,
     1,
     {CUDNN_ATTR_OPERATION_REDUCTION_XDESC, CUDNN_ATTR_OPERATION_REDUCTION_YDESC,
      CUDNN_ATTR_OPERATION_REDUCTION_DESC}},
    {CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR,
     CUDNN_TYPE_BACKEND_DESCRIPTOR,
     1,
     {CUDNN_ATTR_OPERATION_MATMUL_ADESC, CUDNN_ATTR_OPERATION_MATMUL_BDESC,
      CUDNN_ATTR_OPERATION_MATMUL_CDESC, CUDNN_ATTR_OPERATION_MATMUL_DESC,
      CUDNN_ATTR_OPERATION_MATMUL_GEMM_M_OVERRIDE_DESC,
      CUDNN_ATTR_OPERATION_MATMUL_GEMM_N_OVERRIDE_DESC,
      CUDNN_ATTR_OPERATION_MATMUL_GEMM_K_OVERRIDE_DESC}},
    {CUDNN_BACKEND_OPERATION_RESHAPE_DESCRIPTOR,
     CUDNN_TYPE_BACKEND_DESCRIPTOR,
     1,
     {CUDNN_ATTR_OPERATION_RESHAPE_XDESC, CUDNN_ATTR_OPERATION_RESHAPE_YDESC}},
    {CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR,
     CUDNN_TYPE_HANDLE,
     1,
     {CUDNN_ATTR_OPERATIONGRAPH_HANDLE}},
    {CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR,
     CUDNN_TYPE_BACKEND_DESCRIPTOR,
     N_MANY,
     {CUDNN_ATTR_OPERATIONGRAPH_OPS}},
    {CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR,
     CUDNN_TYPE_HEUR_MODE,
     1,
     {CUDNN_ATTR_ENGINEHEUR_MODE}},
    {CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR,
     CUDNN_TYPE_BACKEND_DESCRIPTOR,
     1,
     {CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH}},
    {CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR,
     CUDNN_TYPE_HANDLE,
     1,
     {CUDNN_ATTR_EXECUTION_PLAN_HANDLE}},
    {CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR,
     CUDNN_TYPE_BACKEND_DESCRIPTOR,
     1,
     {CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG}},
    {CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR,
     CUDNN_TYPE_INT64,
     N_MANY,
     {CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS}},
    {CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR,
     CUDNN_TYPE_VOID_PTR,
     N_MANY,
     {CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS}},
    {CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR,
     CUDNN_TYPE_VOID_PTR,
     1,
     {CUDNN_ATTR_VARIANT_PACK_WORKSPACE}},
};

bool is_allowed(descriptor d, int name, cudnnBackendAttributeType_t type, int64_t n)
{
    for (const attribute_rule &rule : rules)
        if (std::count(rule.names.begin(), rule.names.end(), name))
            return rule.of == d->type && rule.type == type && n <= rule.n_max;
    return false;
}

size_t item_bytes(cudnnBackendAttributeType_t type)
{
    switch (type) {
    case CUDNN_TYPE_BOOLEAN:
        return sizeof(bool);
    case CUDNN_TYPE_DATA_TYPE:
    case CUDNN_TYPE_HEUR_MODE:
    case CUDNN_TYPE_NUMERICAL_NOTE:
    case CUDNN_TYPE_POINTWISE_MODE:
    case CUDNN_TYPE_REDUCTION_OPERATOR_TYPE:
        return sizeof(int);
    default:
        return 8;
    }
}

bool has_handle(descriptor d, int name)
{
    cudnnHandle_t handle = nullptr;

    return get(d, name, CUDNN_TYPE_HANDLE, &handle) && handle && handle->stream;
}

int64_t in_tiles(int64_t n)
{
    return (n + TILE - 1) / TILE * TILE;
}

/* A gradient whose sums have a fixed order keeps those of all scores. */
size_t workspace_bytes(const graph &g)
{
    size_t bytes = WORKSPACE_BYTES;

    for (const operation &op : g.operations)
        if (op.letter == 'E' && is_backward(g) && !is_any_order(g))
            bytes += GRADIENT_BYTES *
                     (size_t)(op.y.dims[0] * op.y.dims[1] * in_tiles(op.y.dims[2]) *
                              in_tiles(op.y.dims[3]));
    return bytes;
}

/* Gives the tensors of a pack their memory; numbers given by value are read now. False when
 * one is missing or not fit. */
bool bind_memory(descriptor pack, const graph &g, std::map<int64_t, void *> *memory,
                 std::map<int64_t, float> *numbers)
{
    for (const auto &at : g.tensors) {
        const tensor &t = at.second;
        void *data = nullptr;
        int64_t uid = 0;

        if (t.is_virtual)
            continue;
        for (int64_t n = 0;
             get(pack, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, &uid, n);
             n++)
            if (uid == t.uid && !get(pack, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS,
                                     CUDNN_TYPE_VOID_PTR, &data, n))
                return false;
        if (!data)
            return false;
        if (t.is_by_value)
            (*numbers)[t.uid] = *(float *)data;
        else if ((uintptr_t)data % (uintptr_t)t.align != 0 ||
                 !cuda_host_is_device(data, t.n_bytes()))
            return false;
        (*memory)[t.uid] = data;
    }
    return true;
}

cudnnStatus_t finalize_plan(descriptor d)
{
    descriptor config = part(d, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG,
                             CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
    graph g;

    if (!config || !has_handle(d, CUDNN_ATTR_EXECUTION_PLAN_HANDLE))
        return CUDNN_STATUS_BAD_PARAM;
    d->engine = config->engine;
    d->graph = config->graph;
    return graph_of(d->graph, &g) && has_engine(g) ? CUDNN_STATUS_SUCCESS
                                                   : CUDNN_STATUS_NOT_SUPPORTED;
}

bool is_whole(descriptor d)
{
    cudnnBackendHeurMode_t mode;
    operation op;
    graph g;
    tensor t;

    switch (d->type) {
    case CUDNN_BACKEND_TENSOR_DESCRIPTOR:
        return tensor_of(d, &t);
    case CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR:
    case CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR:
    case CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR:
    case CUDNN_BACKEND_OPERATION_RESHAPE_DESCRIPTOR:
        return operation_of(d, &op);
    case CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR:
        return graph_of(d, &g) && has_handle(d, CUDNN_ATTR_OPERATIONGRAPH_HANDLE);
    case CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR:
        return get(d, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, &mode) &&
               part(d, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH,
                    CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
    default:
        return true;
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

void cudnnGetLastErrorString(char *message, size_t max_size)
{
    if (max_size)
        message[0] = '\0';
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
    cuda_host_attribute a = {type, n, {}};

    if (!d || d->is_final || n < 1 || !value || !is_allowed(d, name, type, n))
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
    graph g;

    if (!d || (d->type != CUDNN_BACKEND_ENGINE_DESCRIPTOR && !d->is_final))
        return CUDNN_STATUS_BAD_PARAM;
    *n = 1;
    if (name == CUDNN_ATTR_ENGINEHEUR_RESULTS && type == CUDNN_TYPE_BACKEND_DESCRIPTOR)
        return give_configs(d, n_wanted, n, value);
    if (n_wanted < 1)
        return CUDNN_STATUS_BAD_PARAM;
    if (name == CUDNN_ATTR_ENGINECFG_ENGINE && type == CUDNN_TYPE_BACKEND_DESCRIPTOR)
        (*(descriptor *)value)->engine = d->engine;
    else if (name == CUDNN_ATTR_ENGINE_GLOBAL_INDEX && type == CUDNN_TYPE_INT64)
        *(int64_t *)value = d->engine;
    else if (name == CUDNN_ATTR_ENGINE_NUMERICAL_NOTE &&
             type == CUDNN_TYPE_NUMERICAL_NOTE)
        *(cudnnBackendNumericalNote_t *)value =
            d->engine == 0 ? CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC
                           : CUDNN_NUMERICAL_NOTE_TENSOR_CORE;
    else if (name == CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE &&
             type == CUDNN_TYPE_INT64 && graph_of(d->graph, &g))
        *(int64_t *)value = (int64_t)workspace_bytes(g);
    else
        return CUDNN_STATUS_BAD_PARAM;
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendFinalize(cudnnBackendDescriptor_t d)
{
    cudnnStatus_t status = CUDNN_STATUS_SUCCESS;

    if (d->type == CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR)
        status = finalize_plan(d);
    else if (!is_whole(d))
        status = CUDNN_STATUS_BAD_PARAM;
    d->is_final = status == CUDNN_STATUS_SUCCESS;
    return status;
}

cudnnStatus_t cudnnBackendExecute(cudnnHandle_t handle, cudnnBackendDescriptor_t plan,
                                  cudnnBackendDescriptor_t pack)
{
    static int n_runs;
    std::map<int64_t, void *> memory;
    std::map<int64_t, float> numbers;
    void *workspace = nullptr;
    double jitter = 0;
    graph g;

    if (!plan->is_final || !pack->is_final || !graph_of(plan->graph, &g) ||
        !bind_memory(pack, g, &memory, &numbers) ||
        !get(pack, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, &workspace) ||
        !cuda_host_is_device(workspace, workspace_bytes(g)))
        return CUDNN_STATUS_BAD_PARAM;
    if (plan->engine == 0 || is_any_order(g))
        jitter = JITTER * (n_runs++ % 2);
    auto work = [g, memory, numbers, jitter]() mutable {
        for (auto &number : numbers)
            memory[number.first] = &number.second;
        return compute(g, memory, jitter);
    };
    return cuda_host_ask(handle->stream, work) == cudaSuccess
               ? CUDNN_STATUS_SUCCESS
               : CUDNN_STATUS_EXECUTION_FAILED;
}
