/* ref_pointwise.c - activations (formulas at each), sums and casts */
#include "model/backend/ref/ref.h"

#include <math.h>

#define SQRT_1_2 0.70710678118654752440  /* sqrt(1/2) */
#define SQRT_2_PI 0.79788456080286535588 /* sqrt(2/pi) */
#define RSQRT_2PI 0.39894228040143267794 /* 1/sqrt(2 pi) */

static double sigmoid(double x)
{
    return 1 / (1 + exp(-x));
}

/* GELU: Hendrycks, Gimpel 2016, x Phi(x), and its tanh form; quick GELU: x sigmoid(1.702 x),
 * as in CLIP; squared ReLU: So et al. 2021. */
double ref_act_value(enum activation act, double x)
{
    switch (act) {
    case ACT_NONE:
        break;
    case ACT_GELU:
        return x * 0.5 * (1 + erf(x * SQRT_1_2));
    case ACT_GELU_TANH:
        return 0.5 * x * (1 + tanh(SQRT_2_PI * (x + 0.044715 * x * x * x)));
    case ACT_QUICK_GELU:
        return x * sigmoid(1.702 * x);
    case ACT_RELU_SQUARED:
        return x > 0 ? x * x : 0 * x; /* 0 x: NaN gets through */
    }
    return x;
}

double ref_act_slope(enum activation act, double x)
{
    double t, s;

    switch (act) {
    case ACT_NONE:
        break;
    case ACT_GELU: /* Phi(x) + x phi(x) */
        return 0.5 * (1 + erf(x * SQRT_1_2)) + x * RSQRT_2PI * exp(-0.5 * x * x);
    case ACT_GELU_TANH:
        t = tanh(SQRT_2_PI * (x + 0.044715 * x * x * x));
        return 0.5 * (1 + t) +
               0.5 * x * (1 - t * t) * SQRT_2_PI * (1 + 3 * 0.044715 * x * x);
    case ACT_QUICK_GELU:
        s = sigmoid(1.702 * x);
        return s + 1.702 * x * s * (1 - s);
    case ACT_RELU_SQUARED:
        return x > 0 ? 2 * x : 0 * x;
    }
    return 1;
}

int ref_act_fwd(struct backend *b, struct tensor *y, const struct tensor *x,
                enum activation act, struct err *err)
{
    int64_t n = tensor_count(x);

    (void)b;
    (void)err;
    for (int64_t i = 0; i < n; i++)
        ref_put(y, i, ref_act_value(act, ref_get(x, i)));
    return 0;
}

int ref_act_bwd(struct backend *b, struct tensor *dx, const struct tensor *dy,
                const struct tensor *x, enum activation act, struct err *err)
{
    int64_t n = tensor_count(x);

    (void)b;
    (void)err;
    for (int64_t i = 0; i < n; i++)
        ref_put(dx, i, ref_get(dy, i) * ref_act_slope(act, ref_get(x, i)));
    return 0;
}

/* SwiGLU: Shazeer 2020; silu(x) = x sigmoid(x). x [N,2F]: gate, then value. */
int ref_swiglu_fwd(struct backend *b, struct tensor *y, const struct tensor *x,
                   struct err *err)
{
    struct tensor rows = tensor_flat(y);
    int64_t f = rows.dims[1];

    (void)b;
    (void)err;
    for (int64_t i = 0; i < rows.dims[0]; i++)
        for (int64_t j = 0; j < f; j++) {
            double gate = ref_get(x, i * 2 * f + j);

            ref_put(y, i * f + j, gate * sigmoid(gate) * ref_get(x, i * 2 * f + f + j));
        }
    return 0;
}

/* d silu(x)/dx = s (1 + x (1 - s)), s = sigmoid(x) */
int ref_swiglu_bwd(struct backend *b, struct tensor *dx, const struct tensor *dy,
                   const struct tensor *x, struct err *err)
{
    struct tensor rows = tensor_flat(dy);
    int64_t f = rows.dims[1];

    (void)b;
    (void)err;
    for (int64_t i = 0; i < rows.dims[0]; i++)
        for (int64_t j = 0; j < f; j++) {
            int64_t at_gate = i * 2 * f + j, at_value = at_gate + f;
            double gate = ref_get(x, at_gate), value = ref_get(x, at_value);
            double s = sigmoid(gate), g = ref_get(dy, i * f + j);

            ref_put(dx, at_gate, g * value * s * (1 + gate * (1 - s)));
            ref_put(dx, at_value, g * gate * s);
        }
    return 0;
}

int ref_add(struct backend *b, struct tensor *y, const struct tensor *a,
            const struct tensor *bb, float s, struct err *err)
{
    int64_t n = tensor_count(a), period = tensor_count(bb);

    (void)b;
    (void)err;
    for (int64_t i = 0; i < n; i++)
        ref_put(y, i, ref_get(a, i) + (double)s * ref_get(bb, i % period));
    return 0;
}

int ref_scale(struct backend *b, struct tensor *x, float s, struct err *err)
{
    int64_t n = tensor_count(x);

    (void)b;
    (void)err;
    for (int64_t i = 0; i < n; i++)
        ref_put(x, i, (double)s * ref_get(x, i));
    return 0;
}

int ref_cast(struct backend *b, struct tensor *y, const struct tensor *x, struct err *err)
{
    int64_t n = tensor_count(x);

    (void)b;
    (void)err;
    for (int64_t i = 0; i < n; i++)
        ref_put(y, i, ref_get(x, i));
    return 0;
}
