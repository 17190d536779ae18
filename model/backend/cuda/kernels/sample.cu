/* sample.cu - drawing the next token
 *
 * One block a row. The smallest logit that a filter keeps is found bit by bit of its key
 * (sample.h), from the highest: 32 passes over the row, which lies in the processor's cache
 * after the first. Every thread meets the same columns in each pass.
 */
#include "model/backend/cuda/kernels/device.cuh"
#include "model/backend/sample.h"

#include <limits.h>

namespace
{

/* What the logits weigh whose keys are not below; largest: of the row, or NaN to count them. */
__device__ float weight_from(const float *z, int64_t n_real, uint32_t key, float largest)
{
    float sum = 0;

    for (int64_t i = threadIdx.x; i < n_real; i += blockDim.x)
        if (sample_key(z[i]) >= key)
            sum += isnan(largest) ? 1 : expf(z[i] - largest);
    return block_sum(sum);
}

/* The largest key from which on there is more than `least` weight; 0: there is none. */
__device__ uint32_t find_key(const float *z, int64_t n_real, float least, float largest)
{
    uint32_t key = 0;

    for (int bit = 31; bit >= 0; bit--)
        if (weight_from(z, n_real, key | 1U << bit, largest) > least)
            key |= 1U << bit;
    return key;
}

/* The key of the smallest logit that the filters keep. */
__device__ uint32_t filter(const struct sample_args &args, const float *z, float largest)
{
    uint32_t least = 0;

    if (args.temperature <= 0)
        return 0;
    if (args.top_k > 0 && args.top_k < args.n_real)
        least = find_key(z, args.n_real, (float)args.top_k - 0.5F, NAN);
    if (args.top_p < 1) {
        float total = weight_from(z, args.n_real, least, largest);
        uint32_t key = find_key(z, args.n_real, args.top_p * total, largest);

        least = key > least ? key : least;
    }
    return least;
}

/* The logits that count, in place; the largest, NaN where there is one. */
__device__ float count(const struct sample_args &args, float *z, const uint32_t *seen,
                       int32_t step)
{
    float largest = -INFINITY, is_wrong = 0;

    for (int64_t i = threadIdx.x; i < args.n_real; i += blockDim.x) {
        float x = sample_logit(&args, z[i], i, sample_was_seen(seen, i), step);

        z[i] = x;
        is_wrong = isnan(x) ? 1 : is_wrong;
        largest = fmaxf(largest, x);
    }
    largest = block_max(largest);
    return block_max(is_wrong) > 0 ? NAN : largest;
}

__global__ void __launch_bounds__(2 * BLOCK, 2)
    sample(float *value, int32_t *tokens, float *logits, uint32_t *seen,
           const int32_t *streams, const int32_t *steps, struct sample_args args,
           int64_t rows, int64_t v, int64_t n_words)
{
    for (int64_t n = blockIdx.x; n < rows; n += gridDim.x) {
        uint32_t *words = seen ? seen + n * n_words : NULL;
        float *z = logits + n * v, best = -INFINITY;
        float largest = count(args, z, words, steps[n]);
        uint32_t least = isfinite(largest) ? filter(args, z, largest) : 0;
        int at = INT_MAX;

        for (int64_t i = threadIdx.x; i < args.n_real; i += blockDim.x) {
            float x = z[i];

            if (sample_key(x) < least)
                continue;
            if (args.temperature > 0)
                x += sample_noise(&args, i, streams[n], steps[n]);
            take_better(&best, &at, x, (int)i);
        }
        block_best(&best, &at);
        if (threadIdx.x > 0)
            continue;
        at = isfinite(largest) && best > -INFINITY ? at : 0;
        if (words)
            words[at / 32] |= 1U << (at % 32);
        value[n] = largest;
        tokens[n] = at;
    }
}

} /* namespace */

int cuda_sample(struct backend *b, struct tensor *value, struct tensor *tokens,
                struct tensor *logits, struct tensor *seen, const struct tensor *streams,
                const struct tensor *steps, const struct sample_args *args,
                struct err *err)
{
    struct tensor flat = tensor_flat(logits);
    int64_t rows = flat.dims[0], v = flat.dims[1];

    if (rows == 0)
        return 0;
    CUDA_LAUNCH(sample, dim3(grid_x(rows)), dim3(block_for(v, 1)), 0, cuda_of(b)->stream,
                (float *)value->data, (int32_t *)tokens->data, (float *)logits->data,
                (uint32_t *)seen->data, (const int32_t *)streams->data,
                (const int32_t *)steps->data, *args, rows, v, sample_words(args->n_real));
    return cuda_launched("next token", err);
}
