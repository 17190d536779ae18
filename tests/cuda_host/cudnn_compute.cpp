/* cudnn_compute.cpp - a graph of operations, one after the other, element by element
 *
 * Sums and virtual tensors are in double: what cuDNN rounds on the way is its own affair,
 * and what is to be shown here is that the graph is the one that is meant.
 */
#include "cudnn_parts.h"

extern "C" {
#include "model/backend/half.h"
}

#include <cmath>

namespace cuda_host_dnn
{

typedef std::map<int64_t, void *> memories;

struct index {
    int64_t at[4];
};

static int64_t offset(const tensor &t, const index &i)
{
    int64_t sum = 0;

    for (int d = 0; d < 4; d++)
        sum += (t.dims[d] == 1 ? 0 : i.at[d]) * t.strides[d];
    return sum;
}

static double load(const tensor &t, const void *data, int64_t i)
{
    if (t.is_virtual)
        return ((const double *)data)[i];
    switch (t.type) {
    case CUDNN_DATA_FLOAT:
        return ((const float *)data)[i];
    case CUDNN_DATA_INT32:
        return ((const int32_t *)data)[i];
    case CUDNN_DATA_BOOLEAN:
        return ((const char *)data)[i];
    case CUDNN_DATA_BFLOAT16:
        return bf16_to_float(((const uint16_t *)data)[i]);
    default:
        return f16_to_float(((const uint16_t *)data)[i]);
    }
}

static void store(const tensor &t, void *data, int64_t i, double value)
{
    if (t.is_virtual) {
        ((double *)data)[i] = value;
        return;
    }
    switch (t.type) {
    case CUDNN_DATA_FLOAT:
        ((float *)data)[i] = (float)value;
        break;
    case CUDNN_DATA_INT32:
        ((int32_t *)data)[i] = (int32_t)value;
        break;
    case CUDNN_DATA_BOOLEAN:
        ((char *)data)[i] = value != 0;
        break;
    case CUDNN_DATA_BFLOAT16:
        ((uint16_t *)data)[i] = bf16_of_float((float)value);
        break;
    default:
        ((uint16_t *)data)[i] = f16_of_float((float)value);
    }
}

/* One operation at work. */
struct work {
    const operation &op;
    memories &memory;

    double get(const tensor &t, const index &i) const
    {
        return load(t, memory.at(t.uid), offset(t, i));
    }

    /* How much of a product is real in row b of the batch. */
    int64_t extent(const tensor &t, int64_t b, int64_t all) const
    {
        return t.uid ? (int64_t)get(t, {{b, 0, 0, 0}}) : all;
    }

    double matmul(const index &i) const
    {
        const int64_t b = i.at[0], row = i.at[2], column = i.at[3];
        const int64_t k = extent(op.k, b, op.x.dims[3]);
        const int64_t ha = i.at[1] / (op.y.dims[1] / op.x.dims[1]);
        const int64_t hb = i.at[1] / (op.y.dims[1] / op.b.dims[1]);
        double sum = 0;

        if (row >= extent(op.m, b, op.y.dims[2]) ||
            column >= extent(op.n, b, op.y.dims[3]))
            return 0;
        for (int64_t j = 0; j < k; j++)
            sum += get(op.x, {{b, ha, row, j}}) * get(op.b, {{b, hb, j, column}});
        return sum;
    }

    double reduction(const index &i) const
    {
        int64_t n[4], at[4];
        double sum = op.mode == CUDNN_REDUCE_TENSOR_MAX ? -INFINITY : 0;

        for (int d = 0; d < 4; d++)
            n[d] = op.x.dims[d] / op.y.dims[d];
        for (int64_t j = 0; j < n[0] * n[1] * n[2] * n[3]; j++) {
            int64_t rest = j;

            for (int d = 3; d >= 0; d--) {
                at[d] = i.at[d] * n[d] + rest % n[d];
                rest /= n[d];
            }
            double x = get(op.x, {{at[0], at[1], at[2], at[3]}});

            if (op.mode == CUDNN_REDUCE_TENSOR_ADD)
                sum += x;
            else
                sum = std::isnan(x) || x > sum ? x : sum;
        }
        return sum;
    }

    double pointwise(const index &i) const
    {
        const double x = op.letter == 'I' ? 0 : get(op.x, i);
        const double b = op.b.uid ? get(op.b, i) : 0;

        switch (op.letter) {
        case '+':
            return x + b;
        case '*':
            return x * b;
        case '/':
            return x / b;
        case '-':
            return x - b;
        case 'E':
            return exp(x);
        case 'L':
            return log(x);
        case '>':
            return x >= b;
        case '<':
            return x < b;
        case '&':
            return x != 0 && b != 0;
        case 'I':
            return (double)i.at[op.axis];
        case '?':
            return get(op.t, i) != 0 ? x : b;
        default:
            return x;
        }
    }

    double value(const index &i) const
    {
        switch (op.kind) {
        case operation::MATMUL:
            return matmul(i);
        case operation::REDUCTION:
            return reduction(i);
        case operation::POINTWISE:
            return pointwise(i);
        default: /* the same place in memory */
            return load(op.x, memory.at(op.x.uid), offset(op.y, i));
        }
    }
};

static void compute_one(const operation &op, memories &memory, double jitter)
{
    const work w = {op, memory};
    const double factor =
        op.kind == operation::MATMUL && !op.y.is_virtual ? 1 + jitter : 1;
    index i;

    for (i.at[0] = 0; i.at[0] < op.y.dims[0]; i.at[0]++)
        for (i.at[1] = 0; i.at[1] < op.y.dims[1]; i.at[1]++)
            for (i.at[2] = 0; i.at[2] < op.y.dims[2]; i.at[2]++)
                for (i.at[3] = 0; i.at[3] < op.y.dims[3]; i.at[3]++)
                    store(op.y, memory.at(op.y.uid), offset(op.y, i),
                          w.value(i) * factor);
}

static bool is_ready(const operation &op, const std::map<int64_t, bool> &is_done)
{
    for (const tensor *t : {&op.x, &op.b, &op.t})
        if (t->uid && is_done.count(t->uid) && !is_done.at(t->uid))
            return false;
    return true;
}

/* Operations may stand in any order; a circle of them is an error. */
cudaError_t compute(const graph &g, memories memory, double jitter)
{
    std::map<int64_t, std::vector<double>> passing;
    std::map<int64_t, bool> is_done; /* of what operations make */
    std::vector<const operation *> left;

    for (const auto &t : g.tensors)
        if (t.second.is_virtual) {
            passing[t.first].resize(t.second.n_bytes() / t.second.item());
            memory[t.first] = passing[t.first].data();
        }
    for (const operation &op : g.operations) {
        is_done[op.y.uid] = false;
        left.push_back(&op);
    }
    while (!left.empty()) {
        size_t next = 0;

        while (next < left.size() && !is_ready(*left[next], is_done))
            next++;
        if (next == left.size())
            return cudaErrorLaunchFailure;
        compute_one(*left[next], memory, jitter);
        is_done[left[next]->y.uid] = true;
        left.erase(left.begin() + (std::ptrdiff_t)next);
    }
    return cudaSuccess;
}

} /* namespace cuda_host_dnn */
