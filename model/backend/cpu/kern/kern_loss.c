#include "model/backend/cpu/kern/kern.h"
#include "model/backend/cpu/kern/kern_math.h"

extern const struct kern_loss KERN(loss);

static float max(const float *x, int64_t n)
{
    float largest = -INFINITY;

#pragma omp simd reduction(max : largest)
    for (int64_t i = 0; i < n; i++)
        largest = x[i] > largest ? x[i] : largest;
    return largest;
}

static float sum_exp(const float *x, float max, int64_t n)
{
    float sum = 0;

#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; i++)
        sum += kern_exp(x[i] - max);
    return sum;
}

static void slope(float *y, const float *x, float max, float factor, int64_t n)
{
#pragma omp simd
    for (int64_t i = 0; i < n; i++)
        y[i] = kern_exp(x[i] - max) * factor;
}

const struct kern_loss KERN(loss) = {
    .max = max,
    .sum_exp = sum_exp,
    .slope = slope,
};
