/* kern_attention.c - the small matrix product and the row operations of attention
 *
 * The product keeps a tile of 4 rows by 1 to 3 vectors of c in registers while it runs
 * over k: 12 sums in flight, enough to hide the latency of a fused multiply-add (4 cycles,
 * two units), and with 3 vectors of b and one of a just the 16 registers of AVX2.
 */
#include "model/backend/cpu/kern/kern.h"
#include "model/backend/cpu/kern/kern_math.h"

#define TILE_ROWS 4

#if defined(__AVX512F__)
#define WIDTH 16
#elif defined(__AVX__)
#define WIDTH 8
#else
#define WIDTH 4
#endif

/* WIDTH floats at any address (GCC and Clang vector extension) */
typedef float vec __attribute__((vector_size(WIDTH * sizeof(float)), aligned(4)));

extern const struct kern_attention KERN(attention);

/* A product of which one tile of c is computed. */
struct product {
    float *c;
    const float *a, *b;
    int64_t ldc, a_row, a_col, ldb, k;
    bool is_sum;
};

static inline vec vec_load(const float *x)
{
    vec v;

    memcpy(&v, x, sizeof(v));
    return v;
}

/* n_rows and n_vecs are constants where this is called, so the loops over them unroll and
 * acc lives in registers. */
static inline __attribute__((always_inline)) void
tile(const struct product *p, int64_t i, int64_t j, const int n_rows, const int n_vecs)
{
    const float *a = p->a + i * p->a_row, *b = p->b + j;
    float *c = p->c + i * p->ldc + j;
    vec acc[TILE_ROWS][3] = {{{0}}};

    for (int64_t at = 0; at < p->k; at++) {
        vec bv[3];

        for (int v = 0; v < n_vecs; v++)
            bv[v] = vec_load(b + (int64_t)v * WIDTH);
        for (int r = 0; r < n_rows; r++)
            for (int v = 0; v < n_vecs; v++)
                acc[r][v] += a[r * p->a_row] * bv[v];
        a += p->a_col;
        b += p->ldb;
    }
    for (int r = 0; r < n_rows; r++)
        for (int v = 0; v < n_vecs; v++) {
            float *to = c + r * p->ldc + (int64_t)v * WIDTH;
            vec sum = p->is_sum ? vec_load(to) + acc[r][v] : acc[r][v];

            memcpy(to, &sum, sizeof(sum));
        }
}

/* One stripe of c, n_vecs vectors wide. */
static inline __attribute__((always_inline)) void
stripe(const struct product *p, int64_t m, int64_t j, const int n_vecs)
{
    int64_t i = 0;

    for (; i + TILE_ROWS <= m; i += TILE_ROWS)
        tile(p, i, j, TILE_ROWS, n_vecs);
    for (; i < m; i++)
        tile(p, i, j, 1, n_vecs);
}

static void gemm(float *c, int64_t ldc, const float *a, int64_t a_row, int64_t a_col,
                 const float *b, int64_t ldb, int64_t m, int64_t n, int64_t k,
                 bool is_sum)
{
    struct product p = {c, a, b, ldc, a_row, a_col, ldb, k, is_sum};
    int64_t j = 0;

    for (; j + 3 * WIDTH <= n; j += 3 * WIDTH)
        stripe(&p, m, j, 3);
    if (j + 2 * WIDTH <= n) {
        stripe(&p, m, j, 2);
        j += 2 * WIDTH;
    }
    if (j < n)
        stripe(&p, m, j, 1);
}

static void zero(float *p, int64_t first, int64_t last)
{
    for (int64_t i = first; i < last; i++)
        p[i] = 0;
}

static float softmax(float *p, float *max, int64_t n, int64_t n_pad)
{
    float largest = -INFINITY, sum = 0;

#pragma omp simd reduction(max : largest)
    for (int64_t i = 0; i < n; i++)
        largest = p[i] > largest ? p[i] : largest;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; i++) {
        float e = kern_exp(p[i] - largest);

        p[i] = e;
        sum += e;
    }
    zero(p, n, n_pad);
    *max = largest;
    return sum;
}

static void softmax_again(float *p, float lse, int64_t n, int64_t n_pad)
{
#pragma omp simd
    for (int64_t i = 0; i < n; i++)
        p[i] = kern_exp(p[i] - lse);
    zero(p, n, n_pad);
}

static float dot(const float *x, const float *y, int64_t n)
{
    float sum = 0;

#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; i++)
        sum += x[i] * y[i];
    return sum;
}

static void softmax_bwd(float *dp, const float *p, int64_t n, int64_t n_pad)
{
    float mean = dot(dp, p, n);

#pragma omp simd
    for (int64_t i = 0; i < n; i++)
        dp[i] = p[i] * (dp[i] - mean);
    zero(dp, n, n_pad);
}

const struct kern_attention KERN(attention) = {
    .width = WIDTH,
    .gemm = gemm,
    .softmax = softmax,
    .softmax_again = softmax_again,
    .softmax_bwd = softmax_bwd,
    .dot = dot,
};
