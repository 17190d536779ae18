/* cudnn_parts.h - inside of cuDNN's stand-in: descriptors, and graphs of operations */
#ifndef VNEVA_TESTS_CUDA_HOST_CUDNN_PARTS_H
#define VNEVA_TESTS_CUDA_HOST_CUDNN_PARTS_H

#include "cudnn.h"

#include <cstring>
#include <map>
#include <string>
#include <vector>

struct cuda_host_cudnn {
    cudaStream_t stream;
};

struct cuda_host_attribute {
    cudnnBackendAttributeType_t type;
    int64_t n;
    std::vector<char> bytes;
};

struct cuda_host_descriptor {
    cudnnBackendDescriptorType_t type;
    std::map<int, cuda_host_attribute> attributes;
    bool is_final;
    int engine;                     /* of an engine, its configuration, a plan */
    cudnnBackendDescriptor_t graph; /* likewise */
};

namespace cuda_host_dnn
{

typedef cudnnBackendDescriptor_t descriptor;

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

/* A descriptor that an attribute names, which must be whole; else NULL. */
descriptor part(descriptor d, int name, cudnnBackendDescriptorType_t type, int64_t i = 0);

/* ---- cudnn_graph.cpp ---- */

struct tensor {
    int64_t uid, align, dims[4], strides[4];
    cudnnDataType_t type;
    bool is_virtual, is_by_value;

    size_t item() const;
    size_t n_bytes() const; /* from the first element to behind the last */
};

bool tensor_of(descriptor d, tensor *out);

/* One operation, with what it needs. */
struct operation {
    enum { MATMUL, POINTWISE, REDUCTION, RESHAPE } kind;
    int mode;     /* of POINTWISE and REDUCTION */
    int64_t axis; /* of GEN_INDEX */
    tensor x, y;  /* x: a of MATMUL; y: c of it */
    tensor b, t;  /* uid 0: there is none */
    tensor m, n, k;
    char letter; /* in the signature of a graph */
};

/* False when a part is missing, or does not fit the others. */
bool operation_of(descriptor d, operation *out);

struct graph {
    std::vector<operation> operations;
    std::map<int64_t, tensor> tensors; /* by uid */
};

bool graph_of(descriptor d, graph *out);

/* Whether the graph is an attention that an engine of cuDNN has. */
bool has_engine(const graph &g);
bool is_backward(const graph &g);
bool is_any_order(const graph &g); /* dq is summed in memory */

/* ---- cudnn_compute.cpp ---- */

/* Memory of every tensor that is not virtual; jitter: relative error of written products. */
cudaError_t compute(const graph &g, std::map<int64_t, void *> memory, double jitter);

} /* namespace cuda_host_dnn */

#endif
