/* kern_pointwise.c - the formulas are those of ref_pointwise.c
 *
 * tanh is not needed: 0.5 (1 + tanh u) = sigmoid(2u), so GELU's tanh form and quick GELU
 * are both x sigmoid(z(x)), with slope s + x s (1 - s) z'(x).
 */
#include "model/backend/cpu/kern/kern.h"
#include "model/backend/cpu/kern/kern_math.h"

#define GELU_A 1.59576912F   /* 2 sqrt(2/pi) */
#define GELU_B 0.0713548163F /* 0.044715 GELU_A */
#define QUICK 1.702F

extern const struct kern_pointwise KERN(pointwise);

static void exp_fwd(float *y, const float *x, int64_t n)
{
#pragma omp simd
    for (int64_t i = 0; i < n; i++)
        y[i] = kern_exp(x[i]);
}

static void scale(float *y, const float *x, float s, int64_t n)
{
#pragma omp simd
    for (int64_t i = 0; i < n; i++)
        y[i] = s * x[i];
}

static void add(float *y, const float *a, const float *b, float s, int64_t n)
{
#pragma omp simd
    for (int64_t i = 0; i < n; i++)
        y[i] = a[i] + s * b[i];
}

static void rotate(float *x0, float *x1, const float *cosines, const float *sines,
                   float sign, int64_t n)
{
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        float c = cosines[i], s = sign * sines[i], u = x0[i], v = x1[i];

        x0[i] = u * c - v * s;
        x1[i] = v * c + u * s;
    }
}

static void gelu_fwd(float *y, const float *x, int64_t n)
{
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        float density;

        y[i] = x[i] * kern_normal_cdf(x[i], &density);
    }
}

static void gelu_tanh_fwd(float *y, const float *x, int64_t n)
{
#pragma omp simd
    for (int64_t i = 0; i < n; i++)
        y[i] = x[i] * kern_sigmoid(x[i] * (GELU_A + GELU_B * x[i] * x[i]));
}

static void quick_gelu_fwd(float *y, const float *x, int64_t n)
{
#pragma omp simd
    for (int64_t i = 0; i < n; i++)
        y[i] = x[i] * kern_sigmoid(QUICK * x[i]);
}

static void relu_squared_fwd(float *y, const float *x, int64_t n)
{
#pragma omp simd
    for (int64_t i = 0; i < n; i++)
        y[i] = (x[i] > 0 ? x[i] : 0.0F * x[i]) * x[i];
}

static void act_fwd(float *y, const float *x, int64_t n, enum activation act)
{
    switch (act) {
    case ACT_NONE:
        scale(y, x, 1, n);
        break;
    case ACT_GELU:
        gelu_fwd(y, x, n);
        break;
    case ACT_GELU_TANH:
        gelu_tanh_fwd(y, x, n);
        break;
    case ACT_QUICK_GELU:
        quick_gelu_fwd(y, x, n);
        break;
    case ACT_RELU_SQUARED:
        relu_squared_fwd(y, x, n);
        break;
    }
}

static void gelu_bwd(float *dx, const float *dy, const float *x, int64_t n)
{
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        float density;
        float cdf = kern_normal_cdf(x[i], &density);

        dx[i] = dy[i] * (cdf + x[i] * density);
    }
}

static void gelu_tanh_bwd(float *dx, const float *dy, const float *x, int64_t n)
{
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        float s = kern_sigmoid(x[i] * (GELU_A + GELU_B * x[i] * x[i]));
        float dz = GELU_A + 3.0F * GELU_B * x[i] * x[i];

        dx[i] = dy[i] * (s + x[i] * s * (1.0F - s) * dz);
    }
}

static void quick_gelu_bwd(float *dx, const float *dy, const float *x, int64_t n)
{
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        float s = kern_sigmoid(QUICK * x[i]);

        dx[i] = dy[i] * (s + QUICK * x[i] * s * (1.0F - s));
    }
}

static void relu_squared_bwd(float *dx, const float *dy, const float *x, int64_t n)
{
#pragma omp simd
    for (int64_t i = 0; i < n; i++)
        dx[i] = dy[i] * (x[i] > 0 ? 2.0F * x[i] : 0.0F * x[i]);
}

static void act_bwd(float *dx, const float *dy, const float *x, int64_t n,
                    enum activation act)
{
    switch (act) {
    case ACT_NONE:
        scale(dx, dy, 1, n);
        break;
    case ACT_GELU:
        gelu_bwd(dx, dy, x, n);
        break;
    case ACT_GELU_TANH:
        gelu_tanh_bwd(dx, dy, x, n);
        break;
    case ACT_QUICK_GELU:
        quick_gelu_bwd(dx, dy, x, n);
        break;
    case ACT_RELU_SQUARED:
        relu_squared_bwd(dx, dy, x, n);
        break;
    }
}

static void swiglu_fwd(float *y, const float *gate, const float *value, int64_t n)
{
#pragma omp simd
    for (int64_t i = 0; i < n; i++)
        y[i] = gate[i] * kern_sigmoid(gate[i]) * value[i];
}

static void swiglu_bwd(float *dgate, float *dvalue, const float *dy, const float *gate,
                       const float *value, int64_t n)
{
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        float g = gate[i], s = kern_sigmoid(g), d = dy[i];

        dgate[i] = d * value[i] * s * (1.0F + g * (1.0F - s));
        dvalue[i] = d * g * s;
    }
}

const struct kern_pointwise KERN(pointwise) = {
    .exp = exp_fwd,
    .act_fwd = act_fwd,
    .act_bwd = act_bwd,
    .swiglu_fwd = swiglu_fwd,
    .swiglu_bwd = swiglu_bwd,
    .add = add,
    .scale = scale,
    .rotate = rotate,
};
