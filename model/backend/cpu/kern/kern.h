/* kern.h - the inner loops of the cpu backend, built once per instruction set
 *
 * The same sources are compiled for each level the compiler knows (on x86-64: base, avx2,
 * avx512) and one level is chosen when the backend is created, so that one binary runs
 * everywhere. All loops are over contiguous fp32; other types are converted in pieces
 * that stay in the L1 cache. Sums are in fp32 lanes added in a fixed order: the same level
 * gives the same bits on every machine and for any number of threads.
 *
 * Owns nothing, allocates nothing, cannot fail. Threads: any.
 * An output may be the same array as an input, but may not overlap it otherwise.
 */
#ifndef VNEVA_MODEL_BACKEND_CPU_KERN_KERN_H
#define VNEVA_MODEL_BACKEND_CPU_KERN_KERN_H

#include "model/backend/backend.h"

/* kern_<file> of the level this file is compiled for */
#define KERN_JOIN(name, level) kern_##name##_##level
#define KERN_EXPAND(name, level) KERN_JOIN(name, level)
#define KERN(name) KERN_EXPAND(name, KERN_LEVEL)

struct kern_convert {
    void (*from_bf16)(float *y, const uint16_t *x, int64_t n);
    void (*to_bf16)(uint16_t *y, const float *x, int64_t n);
    void (*from_f16)(float *y, const uint16_t *x, int64_t n);
    void (*to_f16)(uint16_t *y, const float *x, int64_t n);
};

struct kern_pointwise {
    void (*exp)(float *y, const float *x, int64_t n); /* error: see kern_math.h */
    void (*act_fwd)(float *y, const float *x, int64_t n, enum activation act);
    void (*act_bwd)(float *dx, const float *dy, const float *x, int64_t n,
                    enum activation act);
    /* y = silu(gate) value */
    void (*swiglu_fwd)(float *y, const float *gate, const float *value, int64_t n);
    void (*swiglu_bwd)(float *dgate, float *dvalue, const float *dy, const float *gate,
                       const float *value, int64_t n);
    void (*add)(float *y, const float *a, const float *b, float s, int64_t n);
    void (*scale)(float *y, const float *x, float s, int64_t n);
    /* turns the pairs (x0[i], x1[i]) by the angles given; sign -1: back */
    void (*rotate)(float *x0, float *x1, const float *cosines, const float *sines,
                   float sign, int64_t n);
};

struct kern_norm {
    /* of a row of n */
    void (*moments)(float *mean, float *rstd, const float *x, int64_t n, float eps);
    float (*rms)(const float *x, int64_t n, float eps); /* 1/sqrt(avg x^2 + eps) */
    /* y = (x - mean) rstd w + bias (NULL: 0) */
    void (*apply)(float *y, const float *x, const float *w, const float *bias, float mean,
                  float rstd, int64_t n);
    /* dx =, dw += (NULL: not wanted); is_centred: LayerNorm, else RMSNorm with mean 0 */
    void (*bwd)(float *dx, float *dw, const float *dy, const float *x, const float *w,
                float mean, float rstd, bool is_centred, int64_t n);
};

struct kern_attention {
    int width; /* floats in a vector; n of gemm, ldb, ldc are multiples of it */
    /* c [m,n] = or += a [m,k] b [k,n]; a[i,p] at a[i*a_row + p*a_col]; b, c by rows */
    void (*gemm)(float *c, int64_t ldc, const float *a, int64_t a_row, int64_t a_col,
                 const float *b, int64_t ldb, int64_t m, int64_t n, int64_t k,
                 bool is_sum);
    /* s [n_keys] = scale * products of q [n] with the rows of k, `ld` apart */
    void (*scores)(float *s, const float *q, const float *k, int64_t ld, int64_t n_keys,
                   int64_t n, float scale);
    /* The same for keys in BF16, read as they lie in a cache. */
    void (*scores_bf16)(float *s, const float *q, const uint16_t *k, int64_t ld,
                        int64_t n_keys, int64_t n, float scale);
    /* o [n] = sum of p [n_keys] times the rows of v, `ld` apart */
    void (*weigh_bf16)(float *o, const float *p, const uint16_t *v, int64_t ld,
                       int64_t n_keys, int64_t n);
    /* to [n_cols, round_up(n_rows)] = factor * transpose of from, padding 0 */
    void (*transpose)(float *to, int64_t ld_to, const float *from, int64_t ld_from,
                      int64_t n_rows, int64_t n_cols, float factor);
    /* x [n_rows, n_cols] *= factors [n_rows] */
    void (*scale_rows)(float *x, int64_t ld, const float *factors, int64_t n_rows,
                       int64_t n_cols);
    /* Rows of scores, of n and then padding to n_pad, a multiple of width, that becomes 0:
     * p = exp(p - max p); returns their sum and max */
    float (*softmax)(float *p, float *max, int64_t n, int64_t n_pad);
    /* p = exp(p - lse) */
    void (*softmax_again)(float *p, float lse, int64_t n, int64_t n_pad);
    /* dp = scale p (dp - sum p dp); p is 0 in the padding */
    void (*softmax_bwd)(float *dp, const float *p, float scale, int64_t n_pad);
};

struct kern_matmul {
    int tile_rows, tile_cols;
    /* c [tile_rows,tile_cols] = or += sum over p < k of a [p,tile_rows] b [p,tile_cols],
     * both packed in that order, b at a multiple of its vectors */
    void (*tile)(float *c, int64_t ldc, const float *a, const float *b, int64_t k,
                 bool is_sum);
    /* to [k,unit], columns [0,n_rows) = transpose of from [n_rows,k], rows `ld` apart */
    void (*transpose)(float *to, int64_t unit, const float *from, int64_t ld,
                      int64_t n_rows, int64_t k);
    /* c [m,n] = products of the rows of a [m,k] with those of b [n,k], F32 or BF16. Every
     * element is summed in the same order whatever m and n are. */
    void (*dots)(float *c, int64_t ldc, const float *a, int64_t m, const void *b,
                 enum dtype b_type, int64_t n, int64_t k);
};

struct kern_loss {
    float (*max)(const float *x, int64_t n); /* -infinity for n = 0 */
    float (*sum_exp)(const float *x, float max, int64_t n);
    void (*slope)(float *y, const float *x, float max, float factor, int64_t n);
};

struct kern_optim {
    double (*sum_squares)(const float *x, int64_t n);
    /* the gradient times scale; rate = lr/(1-b1^t), root = 1/sqrt(1-b2^t), keep = 1 - lr
     * decay */
    void (*adamw)(float *w, float *m, float *v, const float *grad,
                  const struct adamw_args *args, float scale, float rate, float root,
                  float keep, int64_t n);
};

struct kern {
    const char *name;
    const struct kern_convert *convert;
    const struct kern_pointwise *pointwise;
    const struct kern_norm *norm;
    const struct kern_attention *attention;
    const struct kern_matmul *matmul;
    const struct kern_loss *loss;
    const struct kern_optim *optim;
};

/* The named level ("base", "avx2", "avx512"), or the best one for NULL. NULL when this
 * build or this machine does not have it. */
const struct kern *kern_find(const char *name);

#endif
