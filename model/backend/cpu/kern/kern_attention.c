/* kern_attention.c - the small matrix product and the row operations of attention
 *
 * The product keeps a tile of 4 rows by 1 to 3 vectors of c in registers while it runs
 * over k: 12 sums in flight, enough to hide the latency of a fused multiply-add (4 cycles,
 * two units), and with 3 vectors of b and one of a just the 16 registers of AVX2.
 */
#include "model/backend/cpu/kern/kern.h"
#include "model/backend/cpu/kern/kern_math.h"
#include "model/backend/cpu/kern/kern_vec.h"

#define TILE_ROWS 4

/* 1 to 3 vectors side by side, named so that the compiler keeps them in registers (it
 * does not for an array). `n` is a constant wherever these are called. */
struct vecs {
    vec v0, v1, v2;
};

/* A product of which one tile of c is computed. */
struct product {
    float *c;
    const float *a, *b;
    int64_t ldc, a_row, a_col, ldb, k;
    bool is_sum;
};

extern const struct kern_attention KERN(attention);

INLINE void vecs_load(struct vecs *x, const float *from, const int n)
{
    x->v0 = *(const vec *)from;
    if (n > 1)
        x->v1 = *(const vec *)(from + WIDTH);
    if (n > 2)
        x->v2 = *(const vec *)(from + 2 * (int64_t)WIDTH);
}

INLINE void vecs_store(const struct vecs *x, float *to, bool is_sum, const int n)
{
    struct vecs old = {{0}, {0}, {0}};

    if (is_sum)
        vecs_load(&old, to, n);
    *(vec *)to = x->v0 + old.v0;
    if (n > 1)
        *(vec *)(to + WIDTH) = x->v1 + old.v1;
    if (n > 2)
        *(vec *)(to + 2 * (int64_t)WIDTH) = x->v2 + old.v2;
}

INLINE void vecs_add(struct vecs *x, float a, const struct vecs *b, const int n)
{
    x->v0 += a * b->v0;
    if (n > 1)
        x->v1 += a * b->v1;
    if (n > 2)
        x->v2 += a * b->v2;
}

/* TILE_ROWS rows of c from row i, n vectors wide. */
INLINE void tile(const struct product *p, int64_t i, int64_t j, const int n)
{
    struct vecs r0 = {{0}, {0}, {0}}, r1 = r0, r2 = r0, r3 = r0, b_row;
    const float *a = p->a + i * p->a_row, *b = p->b + j;
    float *c = p->c + i * p->ldc + j;

    for (int64_t at = 0; at < p->k; at++, a += p->a_col, b += p->ldb) {
        vecs_load(&b_row, b, n);
        vecs_add(&r0, a[0], &b_row, n);
        vecs_add(&r1, a[p->a_row], &b_row, n);
        vecs_add(&r2, a[2 * p->a_row], &b_row, n);
        vecs_add(&r3, a[3 * p->a_row], &b_row, n);
    }
    vecs_store(&r0, c, p->is_sum, n);
    vecs_store(&r1, c + p->ldc, p->is_sum, n);
    vecs_store(&r2, c + 2 * p->ldc, p->is_sum, n);
    vecs_store(&r3, c + 3 * p->ldc, p->is_sum, n);
}

/* The same for one row, where fewer than TILE_ROWS are left. */
INLINE void tile_row(const struct product *p, int64_t i, int64_t j, const int n)
{
    struct vecs r = {{0}, {0}, {0}}, b_row;
    const float *a = p->a + i * p->a_row, *b = p->b + j;

    for (int64_t at = 0; at < p->k; at++, a += p->a_col, b += p->ldb) {
        vecs_load(&b_row, b, n);
        vecs_add(&r, a[0], &b_row, n);
    }
    vecs_store(&r, p->c + i * p->ldc + j, p->is_sum, n);
}

/* One stripe of c, n vectors wide. */
INLINE void stripe(const struct product *p, int64_t m, int64_t j, const int n)
{
    int64_t i = 0;

    for (; i + TILE_ROWS <= m; i += TILE_ROWS)
        tile(p, i, j, n);
    for (; i < m; i++)
        tile_row(p, i, j, n);
}

static void gemm(float *c, int64_t ldc, const float *a, int64_t a_row, int64_t a_col,
                 const float *b, int64_t ldb, int64_t m, int64_t n, int64_t k,
                 bool is_sum)
{
    const struct product p = {c, a, b, ldc, a_row, a_col, ldb, k, is_sum};
    int64_t j = 0;

    for (; j + 3 * WIDTH <= n; j += 3 * (int64_t)WIDTH)
        stripe(&p, m, j, 3);
    if (j + 2 * WIDTH <= n) {
        stripe(&p, m, j, 2);
        j += 2 * (int64_t)WIDTH;
    }
    if (j < n)
        stripe(&p, m, j, 1);
}

static void scores(float *s, const float *q, const float *k, int64_t ld, int64_t n_keys,
                   int64_t n, float scale)
{
    for (int64_t t = 0; t < n_keys; t++) {
        const float *row = k + t * ld;
        float sum = 0;

#pragma omp simd reduction(+ : sum)
        for (int64_t i = 0; i < n; i++)
            sum += q[i] * row[i];
        s[t] = scale * sum;
    }
}

static void scores_bf16(float *s, const float *q, const uint16_t *k, int64_t ld,
                        int64_t n_keys, int64_t n, float scale)
{
    for (int64_t t = 0; t < n_keys; t++) {
        const uint16_t *row = k + t * ld;
        float sum = 0;

#pragma omp simd reduction(+ : sum)
        for (int64_t i = 0; i < n; i++)
            sum += q[i] * bf16_to_float(row[i]);
        s[t] = scale * sum;
    }
}

/* Four keys at a time, so that o is read and written a quarter as often. */
static void weigh_bf16(float *o, const float *p, const uint16_t *v, int64_t ld,
                       int64_t n_keys, int64_t n)
{
    int64_t t = 0;

    memset(o, 0, (size_t)n * sizeof(float));
    for (; t + 4 <= n_keys; t += 4) {
        const uint16_t *v0 = v + t * ld, *v1 = v0 + ld, *v2 = v1 + ld, *v3 = v2 + ld;

#pragma omp simd
        for (int64_t i = 0; i < n; i++)
            o[i] += (p[t] * bf16_to_float(v0[i]) + p[t + 1] * bf16_to_float(v1[i])) +
                    (p[t + 2] * bf16_to_float(v2[i]) + p[t + 3] * bf16_to_float(v3[i]));
    }
    for (; t < n_keys; t++) {
        const uint16_t *row = v + t * ld;

#pragma omp simd
        for (int64_t i = 0; i < n; i++)
            o[i] += p[t] * bf16_to_float(row[i]);
    }
}

static void transpose(float *to, int64_t ld_to, const float *from, int64_t ld_from,
                      int64_t n_rows, int64_t n_cols, float factor)
{
    int64_t n_pad = (n_rows + WIDTH - 1) / WIDTH * WIDTH;

    for (int64_t i = 0; i < n_cols; i++) {
        for (int64_t t = 0; t < n_rows; t++)
            to[i * ld_to + t] = factor * from[t * ld_from + i];
        for (int64_t t = n_rows; t < n_pad; t++)
            to[i * ld_to + t] = 0;
    }
}

static void scale_rows(float *x, int64_t ld, const float *factors, int64_t n_rows,
                       int64_t n_cols)
{
    for (int64_t t = 0; t < n_rows; t++) {
        float *row = x + t * ld, factor = factors[t];

#pragma omp simd
        for (int64_t i = 0; i < n_cols; i++)
            row[i] *= factor;
    }
}

/* exp(-infinity) is 0: padded so, the loops below need no odd ends. */
static void pad(float *p, int64_t n, int64_t n_pad)
{
    for (int64_t i = n; i < n_pad; i++)
        p[i] = -INFINITY;
}

static float softmax(float *p, float *max, int64_t n, int64_t n_pad)
{
    float largest = -INFINITY, sum = 0;

    if (n == 0) {
        memset(p, 0, (size_t)n_pad * sizeof(float));
        *max = largest;
        return 0;
    }
    pad(p, n, n_pad);
#pragma omp simd reduction(max : largest)
    for (int64_t i = 0; i < n_pad; i++)
        largest = p[i] > largest ? p[i] : largest;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n_pad; i++) {
        float e = kern_exp(p[i] - largest);

        p[i] = e;
        sum += e;
    }
    *max = largest;
    return sum;
}

static void softmax_again(float *p, float lse, int64_t n, int64_t n_pad)
{
    if (n == 0) { /* lse is -infinity */
        memset(p, 0, (size_t)n_pad * sizeof(float));
        return;
    }
    pad(p, n, n_pad);
#pragma omp simd
    for (int64_t i = 0; i < n_pad; i++)
        p[i] = kern_exp(p[i] - lse);
}

static void softmax_bwd(float *dp, const float *p, float scale, int64_t n_pad)
{
    float mean = 0;

#pragma omp simd reduction(+ : mean)
    for (int64_t i = 0; i < n_pad; i++)
        mean += p[i] * dp[i];
#pragma omp simd
    for (int64_t i = 0; i < n_pad; i++)
        dp[i] = scale * p[i] * (dp[i] - mean);
}

const struct kern_attention KERN(attention) = {
    .width = WIDTH,
    .gemm = gemm,
    .scores = scores,
    .scores_bf16 = scores_bf16,
    .weigh_bf16 = weigh_bf16,
    .transpose = transpose,
    .scale_rows = scale_rows,
    .softmax = softmax,
    .softmax_again = softmax_again,
    .softmax_bwd = softmax_bwd,
};
