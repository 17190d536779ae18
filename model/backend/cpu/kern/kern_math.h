/* kern_math.h - elementary functions that loops over them can vectorise
 *
 * No branches, no library calls. NaN goes in and comes out.
 */
#ifndef VNEVA_MODEL_BACKEND_CPU_KERN_KERN_MATH_H
#define VNEVA_MODEL_BACKEND_CPU_KERN_KERN_MATH_H

#include "model/backend/half.h"

#include <math.h>

/* e^x: relative error below 1.2e-7 (one unit in the last place) for x in
 * [-87.3, 88.37]; 0 below, infinity above (tests/op/test_cpu_kern.c holds it to that).
 *
 * x = n ln 2 + r, |r| <= ln 2 / 2 (Cody, Waite 1980: ln 2 in two parts, n times the first
 * is exact); e^r = 1 + r + r^2 q(r) with q of degree 4 interpolating
 * (e^r - 1 - r)/r^2 at the Chebyshev nodes, error below 1e-8; 2^n through the exponent. */
static inline float kern_exp(float x)
{
    const float magic = 0x1.8p23F; /* adding it rounds to an integer in the low bits */
    float shifted = x * 1.44269502F + magic;
    float n = shifted - magic;
    float r = (x - n * 0.693145752F) - n * 1.42860677e-6F;
    float q = 0.5F + r * (0.166665778F + r * (0.0416665561F +
                                              r * (0.00836317334F + r * 0.00139261759F)));
    float scale = float_of_bits((float_bits(shifted) + 127U) << 23);
    float y = (1.0F + (r + r * r * q)) * scale;

    y = x < -87.3F ? 0.0F : y;
    return x > 88.37F ? INFINITY : y;
}

static inline float kern_sigmoid(float x)
{
    return 1.0F / (1.0F + kern_exp(-x));
}

/* Phi(x), the normal distribution function, and phi(x), its density.
 * Abramowitz, Stegun 1964, 7.1.26: erfc(z) = t p(t) exp(-z^2), t = 1/(1 + 0.3275911 z),
 * absolute error below 1.5e-7, so half of that here; z = |x|/sqrt(2). */
static inline float kern_normal_cdf(float x, float *density)
{
    float e = kern_exp(-0.5F * x * x);
    float t = 1.0F / (1.0F + 0.23164189F * fabsf(x)); /* 0.3275911/sqrt(2) */
    float p = 0.5F * 1.061405429F;
    float tail;

    p = p * t - 0.5F * 1.453152027F;
    p = p * t + 0.5F * 1.421413741F;
    p = p * t - 0.5F * 0.284496736F;
    p = p * t + 0.5F * 0.254829592F;
    tail = p * t * e;
    *density = 0.398942280F * e;
    return x > 0 ? 1.0F - tail : tail;
}

#endif
