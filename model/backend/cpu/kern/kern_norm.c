/* kern_norm.c - rows of LayerNorm and RMSNorm; the formulas are those of ref_norm.c */
#include "model/backend/cpu/kern/kern.h"

#include <math.h>

extern const struct kern_norm KERN(norm);

static void moments(float *mean, float *rstd, const float *x, int64_t n, float eps)
{
    float sum = 0, squares = 0, mu;

#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; i++)
        sum += x[i];
    mu = sum / (float)n;
    /* from the mean, not E x^2 - mean^2, which cancels */
#pragma omp simd reduction(+ : squares)
    for (int64_t i = 0; i < n; i++)
        squares += (x[i] - mu) * (x[i] - mu);
    *mean = mu;
    *rstd = 1.0F / sqrtf(squares / (float)n + eps);
}

static float rms(const float *x, int64_t n, float eps)
{
    float squares = 0;

#pragma omp simd reduction(+ : squares)
    for (int64_t i = 0; i < n; i++)
        squares += x[i] * x[i];
    return 1.0F / sqrtf(squares / (float)n + eps);
}

static void apply(float *y, const float *x, const float *w, const float *bias, float mean,
                  float rstd, int64_t n)
{
    if (bias) {
#pragma omp simd
        for (int64_t i = 0; i < n; i++)
            y[i] = (x[i] - mean) * rstd * w[i] + bias[i];
    } else {
#pragma omp simd
        for (int64_t i = 0; i < n; i++)
            y[i] = (x[i] - mean) * rstd * w[i];
    }
}

static void bwd(float *dx, float *dw, const float *dy, const float *x, const float *w,
                float mean, float rstd, bool is_centred, int64_t n)
{
    float sum_g = 0, sum_gx = 0;

#pragma omp simd reduction(+ : sum_g, sum_gx)
    for (int64_t i = 0; i < n; i++) {
        float g = dy[i] * w[i];

        sum_g += g;
        sum_gx += g * ((x[i] - mean) * rstd);
    }
    sum_g = is_centred ? sum_g / (float)n : 0;
    sum_gx /= (float)n;
    if (dw) {
#pragma omp simd
        for (int64_t i = 0; i < n; i++)
            dw[i] += dy[i] * ((x[i] - mean) * rstd);
    }
#pragma omp simd
    for (int64_t i = 0; i < n; i++)
        dx[i] = rstd * (dy[i] * w[i] - sum_g - (x[i] - mean) * rstd * sum_gx);
}

const struct kern_norm KERN(norm) = {
    .moments = moments,
    .rms = rms,
    .apply = apply,
    .bwd = bwd,
};
