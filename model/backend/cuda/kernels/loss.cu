/* loss.cu - cross entropy over a divided vocabulary, and the most probable token
 *
 * One block a row; formulas: ref_loss.c. Columns from n_real on are padding and not read.
 */
#include "model/backend/cuda/kernels/device.cuh"

#include <limits.h>

namespace
{

template <typename T>
__global__ void __launch_bounds__(2 * BLOCK, 2)
    xent_max(float *max, const T *logits, int64_t rows, int64_t v, int64_t n_real)
{
    for (int64_t n = blockIdx.x; n < rows; n += gridDim.x) {
        float largest = -INFINITY;

        for (int64_t i = threadIdx.x; i < n_real; i += blockDim.x)
            largest = fmaxf(largest, to_float(logits[n * v + i]));
        largest = block_max(largest);
        if (threadIdx.x == 0)
            max[n] = largest;
    }
}

template <typename T>
__global__ void __launch_bounds__(2 * BLOCK, 2)
    xent_sum(float *sum, float *target, const T *logits, const float *max,
             const int32_t *labels, int32_t first, int64_t rows, int64_t v,
             int64_t n_real)
{
    for (int64_t n = blockIdx.x; n < rows; n += gridDim.x) {
        int64_t label = (int64_t)labels[n] - first;
        bool is_here = labels[n] >= 0 && label >= 0 && label < n_real;
        float total = 0, m = max[n];

        for (int64_t i = threadIdx.x; i < n_real; i += blockDim.x)
            total += expf(to_float(logits[n * v + i]) - m);
        total = block_sum(total);
        if (threadIdx.x > 0)
            continue;
        sum[n] = total;
        target[n] = is_here ? to_float(logits[n * v + label]) : 0;
    }
}

template <typename T>
__global__ void __launch_bounds__(2 * BLOCK, 2)
    xent_bwd(T *logits, const float *max, const float *sum, const int32_t *labels,
             int32_t first, int64_t rows, int64_t v, int64_t n_real)
{
    for (int64_t n = blockIdx.x; n < rows; n += gridDim.x) {
        int64_t label = (int64_t)labels[n] - first;
        int64_t n_sloped = labels[n] >= 0 ? n_real : 0;
        float m = max[n], share = 1 / sum[n];

        for (int64_t i = threadIdx.x; i < v; i += blockDim.x) {
            float slope = 0;

            if (i < n_sloped)
                slope = expf(to_float(logits[n * v + i]) - m) * share - (i == label);
            put(logits + n * v + i, slope);
        }
    }
}

/* *total += the losses of all rows; one block */
__global__ void __launch_bounds__(2 * BLOCK, 2)
    xent_total(double *total, const float *max, const float *sum, const float *target,
               const int32_t *labels, int64_t rows)
{
    double mine = 0;

    for (int64_t n = threadIdx.x; n < rows; n += blockDim.x)
        if (labels[n] >= 0)
            mine += log((double)sum[n]) + (double)max[n] - (double)target[n];
    mine = block_sum(mine);
    if (threadIdx.x == 0)
        *total += mine;
}

template <typename T>
__global__ void __launch_bounds__(2 * BLOCK, 2)
    argmax(float *value, int32_t *index, const T *logits, int64_t rows, int64_t v,
           int64_t n_real)
{
    for (int64_t n = blockIdx.x; n < rows; n += gridDim.x) {
        float best = -INFINITY;
        int at = INT_MAX;

        for (int64_t i = threadIdx.x; i < n_real; i += blockDim.x)
            take_better(&best, &at, to_float(logits[n * v + i]), (int)i);
        block_best(&best, &at);
        if (threadIdx.x == 0) {
            value[n] = best;
            /* nothing above -infinity: the first, if there is one */
            index[n] = best > -INFINITY ? at : n_real > 0 ? 0 : -1;
        }
    }
}

} /* namespace */

int cuda_xent_max(struct backend *b, struct tensor *max, const struct tensor *logits,
                  int64_t n_real, struct err *err)
{
    struct tensor flat = tensor_flat(logits);
    int64_t rows = flat.dims[0], v = flat.dims[1];

    if (rows == 0)
        return 0;
    with_type(logits->dtype, [&](auto zero) {
        typedef decltype(zero) T;

        CUDA_LAUNCH(xent_max<T>, dim3(grid_x(rows)), dim3(block_for(v, 1)), 0,
                    cuda_of(b)->stream, (float *)max->data, (const T *)logits->data, rows,
                    v, n_real);
    });
    return cuda_launched("largest logit", err);
}

int cuda_xent_sum(struct backend *b, struct tensor *sum, struct tensor *target,
                  const struct tensor *logits, const struct tensor *max,
                  const struct tensor *labels, int32_t first, int64_t n_real,
                  struct err *err)
{
    struct tensor flat = tensor_flat(logits);
    int64_t rows = flat.dims[0], v = flat.dims[1];

    if (rows == 0)
        return 0;
    with_type(logits->dtype, [&](auto zero) {
        typedef decltype(zero) T;

        CUDA_LAUNCH(xent_sum<T>, dim3(grid_x(rows)), dim3(block_for(v, 1)), 0,
                    cuda_of(b)->stream, (float *)sum->data, (float *)target->data,
                    (const T *)logits->data, (const float *)max->data,
                    (const int32_t *)labels->data, first, rows, v, n_real);
    });
    return cuda_launched("cross entropy", err);
}

int cuda_xent_bwd(struct backend *b, struct tensor *logits, const struct tensor *max,
                  const struct tensor *sum, const struct tensor *labels, int32_t first,
                  int64_t n_real, struct err *err)
{
    struct tensor flat = tensor_flat(logits);
    int64_t rows = flat.dims[0], v = flat.dims[1];

    if (rows == 0)
        return 0;
    with_type(logits->dtype, [&](auto zero) {
        typedef decltype(zero) T;

        CUDA_LAUNCH(xent_bwd<T>, dim3(grid_x(rows)), dim3(block_for(v, 1)), 0,
                    cuda_of(b)->stream, (T *)logits->data, (const float *)max->data,
                    (const float *)sum->data, (const int32_t *)labels->data, first, rows,
                    v, n_real);
    });
    return cuda_launched("gradient of cross entropy", err);
}

int cuda_xent_total(struct backend *b, double *total, const struct tensor *max,
                    const struct tensor *sum, const struct tensor *target,
                    const struct tensor *labels, struct err *err)
{
    int64_t rows = tensor_count(max);

    if (rows == 0)
        return 0;
    CUDA_LAUNCH(xent_total, dim3(1), dim3(block_for(rows, 1)), 0, cuda_of(b)->stream,
                total, (const float *)max->data, (const float *)sum->data,
                (const float *)target->data, (const int32_t *)labels->data, rows);
    return cuda_launched("sum of losses", err);
}

int cuda_argmax(struct backend *b, struct tensor *value, struct tensor *index,
                const struct tensor *logits, int64_t n_real, struct err *err)
{
    struct tensor flat = tensor_flat(logits);
    int64_t rows = flat.dims[0], v = flat.dims[1];

    if (rows == 0)
        return 0;
    with_type(logits->dtype, [&](auto zero) {
        typedef decltype(zero) T;

        CUDA_LAUNCH(argmax<T>, dim3(grid_x(rows)), dim3(block_for(v, 1)), 0,
                    cuda_of(b)->stream, (float *)value->data, (int32_t *)index->data,
                    (const T *)logits->data, rows, v, n_real);
    });
    return cuda_launched("most probable token", err);
}
