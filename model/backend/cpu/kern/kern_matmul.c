/* kern_matmul.c - the innermost loops of large matrix products, and of narrow ones
 *
 * A tile of 6 rows by 2 vectors: 12 sums in flight hide the latency of a fused
 * multiply-add (5 cycles, two units), and with 2 vectors of b and one of a they fit the 16
 * registers of AVX2. Both operands are packed, so that the loop reads on and on.
 * Source: Goto, van de Geijn, "Anatomy of High-Performance Matrix Multiplication", 2008.
 *
 * Dot products, for products of few rows, where packing b would cost more than it brings:
 * b is read once, as it lies, 4 of its rows at a time for up to 3 rows of a.
 */
#include "model/backend/cpu/kern/kern.h"
#include "model/backend/cpu/kern/kern_vec.h"
#include "model/backend/half.h"

#define TILE_ROWS 6
#define TILE_COLS (2 * WIDTH)
#define DOT_COLS 4

extern const struct kern_matmul KERN(matmul);

/* ---- packed ---- */

struct pair {
    vec v0, v1;
};

INLINE void pair_add(struct pair *sum, float a, const struct pair *b)
{
    sum->v0 += a * b->v0;
    sum->v1 += a * b->v1;
}

INLINE void pair_store(const struct pair *sum, float *c, bool is_sum)
{
    struct pair old = {{0}, {0}};

    if (is_sum)
        old = (struct pair){vec_load(c), vec_load(c + WIDTH)};
    *(vec *)c = old.v0 + sum->v0;
    *(vec *)(c + WIDTH) = old.v1 + sum->v1;
}

static void tile(float *c, int64_t ldc, const float *a, const float *b, int64_t k,
                 bool is_sum)
{
    struct pair r0 = {{0}, {0}}, r1 = r0, r2 = r0, r3 = r0, r4 = r0, r5 = r0, row;

    for (int64_t p = 0; p < k; p++, a += TILE_ROWS, b += TILE_COLS) {
        row.v0 = vec_load(b);
        row.v1 = vec_load(b + WIDTH);
        pair_add(&r0, a[0], &row);
        pair_add(&r1, a[1], &row);
        pair_add(&r2, a[2], &row);
        pair_add(&r3, a[3], &row);
        pair_add(&r4, a[4], &row);
        pair_add(&r5, a[5], &row);
    }
    pair_store(&r0, c, is_sum);
    pair_store(&r1, c + ldc, is_sum);
    pair_store(&r2, c + 2 * ldc, is_sum);
    pair_store(&r3, c + 3 * ldc, is_sum);
    pair_store(&r4, c + 4 * ldc, is_sum);
    pair_store(&r5, c + 5 * ldc, is_sum);
}

/* Four floats: what transposing works with at every level. */
typedef float four __attribute__((vector_size(16), aligned(4), __may_alias__));

/* to[i*unit + 0..3] = column i of 4 rows, `ld` apart */
INLINE void transpose_rows(float *to, int64_t unit, const float *from, int64_t ld,
                           int64_t k)
{
    int64_t i = 0;

    for (; i + 4 <= k; i += 4, to += 4 * unit) {
        four r0 = *(const four *)(from + i), r1 = *(const four *)(from + ld + i);
        four r2 = *(const four *)(from + 2 * ld + i);
        four r3 = *(const four *)(from + 3 * ld + i);
        four low01 = __builtin_shufflevector(r0, r1, 0, 4, 1, 5);
        four low23 = __builtin_shufflevector(r2, r3, 0, 4, 1, 5);
        four high01 = __builtin_shufflevector(r0, r1, 2, 6, 3, 7);
        four high23 = __builtin_shufflevector(r2, r3, 2, 6, 3, 7);

        *(four *)to = __builtin_shufflevector(low01, low23, 0, 1, 4, 5);
        *(four *)(to + unit) = __builtin_shufflevector(low01, low23, 2, 3, 6, 7);
        *(four *)(to + 2 * unit) = __builtin_shufflevector(high01, high23, 0, 1, 4, 5);
        *(four *)(to + 3 * unit) = __builtin_shufflevector(high01, high23, 2, 3, 6, 7);
    }
    for (; i < k; i++, to += unit)
        for (int64_t r = 0; r < 4; r++)
            to[r] = from[r * ld + i];
}

static void transpose(float *to, int64_t unit, const float *from, int64_t ld,
                      int64_t n_rows, int64_t k)
{
    int64_t r = 0;

    for (; r + 4 <= n_rows; r += 4)
        transpose_rows(to + r, unit, from + r * ld, ld, k);
    for (; r < n_rows; r++)
        for (int64_t i = 0; i < k; i++)
            to[i * unit + r] = from[r * ld + i];
}

/* ---- dot products ---- */

/* DOT_COLS rows of b, `ld` elements apart. */
struct cols {
    const void *b;
    int64_t ld, k;
};

INLINE vec col_load(const struct cols *b, int64_t col, int64_t p, const bool is_bf16)
{
    if (is_bf16)
        return vec_load_bf16((const uint16_t *)b->b + col * b->ld + p);
    return vec_load((const float *)b->b + col * b->ld + p);
}

INLINE float col_value(const struct cols *b, int64_t col, int64_t p, const bool is_bf16)
{
    if (is_bf16)
        return bf16_to_float(((const uint16_t *)b->b)[col * b->ld + p]);
    return ((const float *)b->b)[col * b->ld + p];
}

/* Asks for the memory of what the next call reads: rows are too short for the processor
 * to find out by itself, four at a time. */
INLINE void prefetch(const struct cols *b, int64_t ahead, const bool is_bf16)
{
    const char *at = b->b;

    if (is_bf16) {
        __builtin_prefetch(at + ahead * (int64_t)sizeof(uint16_t));
    } else {
        at += ahead * (int64_t)sizeof(float);
        __builtin_prefetch(at);
        __builtin_prefetch(at + DOT_COLS * WIDTH * sizeof(float) / 2);
    }
}

struct quad {
    vec c0, c1, c2, c3;
};

INLINE void quad_add(struct quad *sum, const float *a, const struct quad *b)
{
    vec x = vec_load(a);

    sum->c0 += x * b->c0;
    sum->c1 += x * b->c1;
    sum->c2 += x * b->c2;
    sum->c3 += x * b->c3;
}

/* The lanes' sum and what is left behind the last whole vector. */
INLINE float finish(vec sum, const float *a, const struct cols *b, int64_t col,
                    const bool is_bf16)
{
    float total = 0;

    for (int i = 0; i < WIDTH; i++)
        total += sum[i];
    for (int64_t p = b->k / WIDTH * WIDTH; p < b->k; p++)
        total += a[p] * col_value(b, col, p, is_bf16);
    return total;
}

INLINE void quad_finish(float *c, const struct quad *sum, const float *a,
                        const struct cols *b, int64_t n, const bool is_bf16)
{
    c[0] = finish(sum->c0, a, b, 0, is_bf16);
    if (n > 1)
        c[1] = finish(sum->c1, a, b, 1, is_bf16);
    if (n > 2)
        c[2] = finish(sum->c2, a, b, 2, is_bf16);
    if (n > 3)
        c[3] = finish(sum->c3, a, b, 3, is_bf16);
}

/* m rows of a, m = 1, 2 or 3, by n <= DOT_COLS rows of b. Where n is less, the last is
 * taken again and left out. */
INLINE void dot_tile(float *c, int64_t ldc, const float *a, const struct cols *b,
                     int64_t n, const int m, const bool is_bf16)
{
    struct quad r0 = {{0}, {0}, {0}, {0}}, r1 = r0, r2 = r0, row;
    int64_t last = n - 1, col1 = last < 1 ? last : 1, col2 = last < 2 ? last : 2;

    for (int64_t p = 0; p + WIDTH <= b->k; p += WIDTH) {
        prefetch(b, DOT_COLS * (b->ld + p), is_bf16);
        row.c0 = col_load(b, 0, p, is_bf16);
        row.c1 = col_load(b, col1, p, is_bf16);
        row.c2 = col_load(b, col2, p, is_bf16);
        row.c3 = col_load(b, last, p, is_bf16);
        quad_add(&r0, a + p, &row);
        if (m > 1)
            quad_add(&r1, a + b->k + p, &row);
        if (m > 2)
            quad_add(&r2, a + 2 * b->k + p, &row);
    }
    quad_finish(c, &r0, a, b, n, is_bf16);
    if (m > 1)
        quad_finish(c + ldc, &r1, a + b->k, b, n, is_bf16);
    if (m > 2)
        quad_finish(c + 2 * ldc, &r2, a + 2 * b->k, b, n, is_bf16);
}

INLINE void dot_rows(float *c, int64_t ldc, const float *a, int64_t m, const void *from,
                     int64_t n, int64_t k, const bool is_bf16)
{
    size_t row_bytes = (size_t)k * (is_bf16 ? sizeof(uint16_t) : sizeof(float));

    for (int64_t j = 0; j < n; j += DOT_COLS) {
        int64_t count = n - j < DOT_COLS ? n - j : DOT_COLS, i = 0;
        struct cols b = {(const char *)from + (size_t)j * row_bytes, k, k};

        for (; i + 3 <= m; i += 3)
            dot_tile(c + i * ldc + j, ldc, a + i * k, &b, count, 3, is_bf16);
        if (m - i == 2)
            dot_tile(c + i * ldc + j, ldc, a + i * k, &b, count, 2, is_bf16);
        else if (m - i == 1)
            dot_tile(c + i * ldc + j, ldc, a + i * k, &b, count, 1, is_bf16);
    }
}

static void dots(float *c, int64_t ldc, const float *a, int64_t m, const void *b,
                 enum dtype b_type, int64_t n, int64_t k)
{
    if (b_type == DTYPE_BF16)
        dot_rows(c, ldc, a, m, b, n, k, true);
    else
        dot_rows(c, ldc, a, m, b, n, k, false);
}

const struct kern_matmul KERN(matmul) = {
    .tile_rows = TILE_ROWS,
    .tile_cols = TILE_COLS,
    .tile = tile,
    .transpose = transpose,
    .dots = dots,
};
