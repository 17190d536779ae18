#include "model/backend/cpu/kern/kern.h"
#include "model/backend/half.h"

extern const struct kern_convert KERN(convert);

static void from_bf16(float *y, const uint16_t *x, int64_t n)
{
#pragma omp simd
    for (int64_t i = 0; i < n; i++)
        y[i] = bf16_to_float(x[i]);
}

static void to_bf16(uint16_t *y, const float *x, int64_t n)
{
#pragma omp simd
    for (int64_t i = 0; i < n; i++)
        y[i] = bf16_of_float(x[i]);
}

static void from_f16(float *y, const uint16_t *x, int64_t n)
{
#pragma omp simd
    for (int64_t i = 0; i < n; i++)
        y[i] = f16_to_float(x[i]);
}

static void to_f16(uint16_t *y, const float *x, int64_t n)
{
#pragma omp simd
    for (int64_t i = 0; i < n; i++)
        y[i] = f16_of_float(x[i]);
}

const struct kern_convert KERN(convert) = {
    .from_bf16 = from_bf16,
    .to_bf16 = to_bf16,
    .from_f16 = from_f16,
    .to_f16 = to_f16,
};
