#include "model/backend/cpu/kern/kern.h"

#include <math.h>

extern const struct kern_optim KERN(optim);

static double sum_squares(const float *x, int64_t n)
{
    double sum = 0;

#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; i++)
        sum += (double)x[i] * (double)x[i];
    return sum;
}

/* as ref_optim.c, in fp32 */
static void adamw(float *w, float *m, float *v, const float *grad,
                  const struct adamw_args *args, float scale, float rate, float root,
                  float keep, int64_t n)
{
    float beta1 = args->beta1, beta2 = args->beta2, eps = args->eps;
    float rest1 = 1.0F - beta1, rest2 = 1.0F - beta2;

#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        float g = grad[i] * scale;
        float mi = beta1 * m[i] + rest1 * g;
        float vi = beta2 * v[i] + rest2 * g * g;

        m[i] = mi;
        v[i] = vi;
        w[i] = keep * w[i] - rate * mi / (sqrtf(vi) * root + eps);
    }
}

const struct kern_optim KERN(optim) = {
    .sum_squares = sum_squares,
    .adamw = adamw,
};
