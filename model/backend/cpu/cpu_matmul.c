/* cpu_matmul.c - matrix products: to oneDNN, or in blocks of our own
 *
 * - Few rows of a against rows of b (generation): dot products, b read once as it is.
 *   Every row gets the same bits whatever the number of rows.
 * - F32, and BF16 where the processor has units for it: oneDNN.
 * - BF16 without such units, and F16: packed to fp32 in blocks as the loops want them, so
 *   that converting costs what packing costs anyway. Sums are in fp32 and rounded once.
 *   Sums over k are never divided among threads: the bits do not depend on their number.
 */
#include "model/backend/cpu/cpu.h"
#include "model/backend/cpu/cpu_ops.h"
#include "model/backend/cpu/onednn.h"

#include <string.h>

/* With so many rows at most, dot products: beyond, packing pays. */
#define DOT_ROWS_MAX 64
#define DOT_ROWS_BF16 3 /* rows that are multiplied together */
#define DOT_COLS 8      /* columns of c at a time: their part of b stays in the cache */

/* A block of packed b holds so many floats (8 MiB, in the last cache) and columns; a
 * thread's block of a and the sums for it stay in the second cache. */
#define B_FLOATS (2 << 20)
#define B_COLS_MAX 1024
#define B_COLS_MIN 128
#define A_TILES 12
#define K_BLOCK 384
#define PACK_ROWS 4 /* converted together, then transposed */

struct product {
    struct cpu *cpu;
    struct tensor *c;
    const struct tensor *a, *b;
    const struct matmul_args *args;
    int64_t m, n, k;
    struct cpu_scratch scratch;
    /* packed products: rows [k_first, k_end) of op(b)'s columns [first, first + n_cols)
     * are in `packed` */
    float *packed, *totals; /* totals: where k is packed in several parts */
    int64_t first, n_cols;
    int64_t k_block, k_first, k_end;
    /* dot products: a as fp32 [m,k] */
    float *rows;
};

static int64_t round_up(int64_t n, int64_t unit)
{
    return (n + unit - 1) / unit * unit;
}

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* c[i, j...j+n) from the sums of products, see struct matmul_args; n <= CPU_CHUNK */
static void finish_row(const struct product *x, int64_t i, int64_t j, int64_t n,
                       float *sums)
{
    const struct kern_pointwise *kern = x->cpu->kern->pointwise;
    const struct matmul_args *args = x->args;
    int64_t at = i * x->n + j;
    float buf[CPU_CHUNK];

    if (args->bias)
        kern->add(sums, sums, cpu_read(x->cpu, args->bias, j, n, buf), 1, n);
    if (args->residual)
        kern->add(sums, sums, cpu_read(x->cpu, args->residual, at, n, buf), 1, n);
    if (args->beta != 0)
        kern->add(sums, sums, cpu_read(x->cpu, x->c, at, n, buf), args->beta, n);
    if (args->pre_act)
        cpu_write(x->cpu, args->pre_act, at, n, sums);
    if (args->slope_at)
        kern->act_bwd(sums, sums, cpu_read(x->cpu, args->slope_at, at, n, buf), n,
                      args->act);
    else if (args->act != ACT_NONE)
        kern->act_fwd(sums, sums, n, args->act);
    cpu_write(x->cpu, x->c, at, n, sums);
}

/* An empty sum, k = 0. */
static void zero_c(const struct product *x)
{
    float sums[CPU_CHUNK];

    for (int64_t i = 0; i < x->m; i++)
        for (int64_t j = 0; j < x->n; j += CPU_CHUNK) {
            int64_t n = least(x->n - j, CPU_CHUNK);

            memset(sums, 0, (size_t)n * sizeof(float));
            finish_row(x, i, j, n, sums);
        }
}

/* ---- dot products ---- */

/* b is multiplied as it lies; else converted first: once, where many rows want it. */
static bool is_read_there(const struct product *x)
{
    return x->b->dtype == DTYPE_F32 ||
           (x->b->dtype == DTYPE_BF16 && x->m <= DOT_ROWS_BF16);
}

/* Columns [DOT_COLS * first, DOT_COLS * last) of c. */
static void dot_columns(void *context, int64_t first, int64_t last, int thread)
{
    const struct product *x = context;
    bool is_there = is_read_there(x);
    float *sums = x->scratch.each + thread * x->scratch.stride;
    float *buf = sums + x->m * DOT_COLS;

    for (int64_t j = first * DOT_COLS; j < least(x->n, last * DOT_COLS); j += DOT_COLS) {
        int64_t n = least(x->n - j, DOT_COLS);
        size_t b_at = (size_t)(j * x->k) * dtype_bytes(x->b->dtype);
        const void *b = (const char *)x->b->data + b_at;

        if (!is_there)
            b = cpu_read(x->cpu, x->b, j * x->k, n * x->k, buf);
        x->cpu->kern->matmul->dots(sums, DOT_COLS, x->rows, x->m, b,
                                   is_there ? x->b->dtype : DTYPE_F32, n, x->k);
        for (int64_t i = 0; i < x->m; i++)
            finish_row(x, i, j, n, sums + i * DOT_COLS);
    }
}

static int run_dots(struct product *x, struct err *err)
{
    int64_t n_blocks = (x->n + DOT_COLS - 1) / DOT_COLS;
    int64_t n_converted = is_read_there(x) ? 0 : DOT_COLS * x->k;
    const float *rows;

    if (cpu_scratch(x->cpu, x->m * x->k, x->m * DOT_COLS + n_converted, &x->scratch,
                    err) < 0)
        return -1;
    rows = cpu_read(x->cpu, x->a, 0, x->m * x->k, x->scratch.shared);
    x->rows = (float *)rows; /* only read */
    cpu_parallel(x->cpu, n_blocks, 1 + CPU_CHUNK / (x->k + 1), dot_columns, x);
    return 0;
}

/* ---- packed products ---- */

/* What is packed of a matrix stored with `ld` columns: `count` rows (or columns) from
 * `first` on, and of each the k elements from `from` on. They end up in tiles of `unit`,
 * [k,unit] each, `stride` floats from one to the next; the last is filled up with 0. */
struct part {
    const struct tensor *x;
    int64_t ld, first, count, from, k, unit, stride;
};

static void pack_rows(const struct cpu *cpu, float *to, const struct part *p)
{
    float buf[PACK_ROWS * K_BLOCK];

    for (int64_t i = 0; i < p->count; i += p->unit, to += p->stride) {
        int64_t n_rows = least(p->count - i, p->unit);

        if (n_rows < p->unit)
            memset(to, 0, (size_t)(p->unit * p->k) * sizeof(float));
        for (int64_t r = 0; r < n_rows; r += PACK_ROWS) {
            int64_t n = least(n_rows - r, PACK_ROWS), ld = p->k, row = p->first + i + r;
            const float *rows = buf;

            for (int64_t at = 0; at < n && p->x->dtype != DTYPE_F32; at++)
                cpu_read(cpu, p->x, (row + at) * p->ld + p->from, ld, buf + at * ld);
            if (p->x->dtype == DTYPE_F32) {
                rows = (const float *)p->x->data + row * p->ld + p->from;
                ld = p->ld;
            }
            cpu->kern->matmul->transpose(to + r, p->unit, rows, ld, n, p->k);
        }
    }
}

static void pack_columns(const struct cpu *cpu, float *to, const struct part *p)
{
    float buf[B_COLS_MAX];
    int64_t width = round_up(p->count, p->unit);

    memset(buf, 0, (size_t)width * sizeof(float));
    for (int64_t i = 0; i < p->k; i++, to += p->unit) {
        int64_t at = (p->from + i) * p->ld + p->first;

        const float *row = cpu_read(cpu, p->x, at, p->count, buf);

        if (row != buf)
            memcpy(buf, row, (size_t)p->count * sizeof(float));
        for (int64_t j = 0; j < width; j += p->unit)
            memcpy(to + j / p->unit * p->stride, buf + j,
                   (size_t)p->unit * sizeof(float));
    }
}

/* Tiles of b's columns, packed behind each other for every block of k. */
static void pack_b(void *context, int64_t first, int64_t last, int thread)
{
    const struct product *x = context;
    int64_t unit = x->cpu->kern->matmul->tile_cols;
    int64_t width = round_up(x->n_cols, unit);
    struct part part = {.x = x->b,
                        .ld = x->args->trans_b ? x->k : x->n,
                        .first = x->first + first * unit,
                        .count = least(x->n_cols, last * unit) - first * unit,
                        .from = x->k_first,
                        .unit = unit};

    (void)thread;
    for (; part.from < x->k_end; part.from += x->k_block) {
        float *to = x->packed + (part.from - x->k_first) * width;

        part.k = least(x->k_end - part.from, x->k_block);
        part.stride = unit * part.k;
        if (x->args->trans_b)
            pack_rows(x->cpu, to + first * part.stride, &part);
        else
            pack_columns(x->cpu, to + first * part.stride, &part);
    }
}

/* Tiles of a's rows [i, i + m), columns [p, p + k) of op(a). */
static void pack_a(const struct product *x, float *to, int64_t i, int64_t m, int64_t p,
                   int64_t k)
{
    int64_t unit = x->cpu->kern->matmul->tile_rows;
    const struct part part = {.x = x->a,
                              .ld = x->args->trans_a ? x->m : x->k,
                              .first = i,
                              .count = m,
                              .from = p,
                              .k = k,
                              .unit = unit,
                              .stride = unit * k};

    if (x->args->trans_a)
        pack_columns(x->cpu, to, &part);
    else
        pack_rows(x->cpu, to, &part);
}

/* sums [m, width] = rows [i, i + m) of op(a) times the packed columns */
static void sum_block(const struct product *x, float *sums, float *a, int64_t i,
                      int64_t m)
{
    const struct kern_matmul *kern = x->cpu->kern->matmul;
    int64_t rows = kern->tile_rows, cols = kern->tile_cols;
    int64_t width = round_up(x->n_cols, cols);

    for (int64_t p = x->k_first; p < x->k_end; p += x->k_block) {
        int64_t k = least(x->k_end - p, x->k_block);
        const float *b = x->packed + (p - x->k_first) * width;

        pack_a(x, a, i, m, p, k);
        for (int64_t j = 0; j < width; j += cols)
            for (int64_t r = 0; r < m; r += rows)
                kern->tile(sums + r * width + j, width, a + r * k, b + j * k, k, p > 0);
    }
}

/* Rows of c, in tiles. */
static void packed_rows(void *context, int64_t first, int64_t last, int thread)
{
    const struct product *x = context;
    int64_t unit = x->cpu->kern->matmul->tile_rows;
    int64_t width = round_up(x->n_cols, x->cpu->kern->matmul->tile_cols);
    float *a = x->scratch.each + thread * x->scratch.stride;
    float *own = a + A_TILES * unit * x->k_block;

    for (int64_t tile = first; tile < last; tile += A_TILES) {
        int64_t end = least(last, tile + A_TILES) * unit, i = tile * unit;
        int64_t m = least(x->m, end) - i;
        float *sums = x->totals ? x->totals + i * width : own;

        sum_block(x, sums, a, i, m);
        for (int64_t r = 0; r < m && x->k_end == x->k; r++)
            finish_row(x, i + r, x->first, x->n_cols, sums + r * width);
    }
}

/* How much of b is packed at a time. */
struct plan {
    int64_t n_cols, k, n_totals; /* columns, rows of op(b), floats of totals */
};

/* As many columns as B_FLOATS has room for, whole columns if there are enough of them, so
 * that a is not packed too often; else, if c is small, parts of more. */
static struct plan plan_of(const struct product *x)
{
    int64_t rows = x->cpu->kern->matmul->tile_rows;
    int64_t cols = x->cpu->kern->matmul->tile_cols;
    int64_t n_most = least(round_up(x->n, cols), B_COLS_MAX);
    int64_t n_cols = B_FLOATS / x->k / cols * cols, m = round_up(x->m, rows);

    if (n_cols >= n_most)
        return (struct plan){n_most, x->k, 0};
    if (n_cols < n_most / 2 && m * n_most <= B_FLOATS / 2)
        return (struct plan){n_most, B_FLOATS / n_most / x->k_block * x->k_block,
                             m * n_most};
    n_cols = n_cols < B_COLS_MIN ? least(B_COLS_MIN, n_most) : n_cols;
    return (struct plan){n_cols, x->k, 0};
}

static int run_packed(struct product *x, struct err *err)
{
    int64_t rows = x->cpu->kern->matmul->tile_rows;
    int64_t cols = x->cpu->kern->matmul->tile_cols;
    int64_t n_k_blocks = (x->k + K_BLOCK - 1) / K_BLOCK;
    struct plan plan;

    x->k_block = (x->k + n_k_blocks - 1) / n_k_blocks;
    plan = plan_of(x);
    if (cpu_scratch(x->cpu, plan.k * plan.n_cols + plan.n_totals,
                    A_TILES * rows * (x->k_block + plan.n_cols), &x->scratch, err) < 0)
        return -1;
    x->packed = x->scratch.shared;
    x->totals = plan.n_totals > 0 ? x->packed + plan.k * plan.n_cols : NULL;
    for (x->first = 0; x->first < x->n; x->first += plan.n_cols) {
        x->n_cols = least(x->n - x->first, plan.n_cols);
        for (x->k_first = 0; x->k_first < x->k; x->k_first += plan.k) {
            x->k_end = least(x->k, x->k_first + plan.k);
            cpu_parallel(x->cpu, (x->n_cols + cols - 1) / cols, 1, pack_b, x);
            cpu_parallel(x->cpu, (x->m + rows - 1) / rows, 1, packed_rows, x);
        }
    }
    return 0;
}

/* ---- the choice ---- */

static bool is_direct(const struct product *x)
{
    enum dtype type = x->a->dtype;

    if (x->b->dtype != type || (x->args->bias && x->args->bias->dtype != type))
        return false;
    if (type == DTYPE_F32)
        return x->c->dtype == DTYPE_F32;
    return type == DTYPE_BF16 && onednn_has_bf16(x->cpu->onednn) &&
           (x->c->dtype == DTYPE_F32 || x->c->dtype == DTYPE_BF16);
}

/* Activations come after the product, in a pass of their own: oneDNN would not keep what
 * they are taken of. */
static int run_direct(const struct product *x, struct err *err)
{
    const struct matmul_args *args = x->args;
    struct tensor *sum = args->pre_act ? args->pre_act : x->c;
    const struct onednn_gemm gemm = {
        .m = x->m,
        .n = x->n,
        .k = x->k,
        .lda = x->args->trans_a ? x->m : x->k,
        .ldb = x->args->trans_b ? x->k : x->n,
        .ldc = x->n,
        .trans_a = x->args->trans_a,
        .trans_b = x->args->trans_b,
        .ab_type = x->a->dtype,
        .c_type = x->c->dtype,
        .beta = x->args->beta,
        .a = x->a->data,
        .b = x->b->data,
        .bias = args->bias ? args->bias->data : NULL,
        .residual = args->residual ? args->residual->data : NULL,
        .c = sum->data,
    };

    if (onednn_gemm(x->cpu->onednn, &gemm, err) < 0)
        return -1;
    if (args->slope_at)
        return cpu_act_bwd(&x->cpu->base, sum, sum, args->slope_at, args->act, err);
    if (args->act == ACT_NONE && sum == x->c)
        return 0;
    return cpu_act_fwd(&x->cpu->base, x->c, sum, args->act, err);
}

/* The product without bias_grad. */
static int multiply(struct product *x, struct err *err)
{
    if (x->m == 0 || x->n == 0)
        return 0;
    if (x->k == 0) {
        zero_c(x);
        return 0;
    }
    if (x->m <= DOT_ROWS_MAX && x->args->trans_b && !x->args->trans_a)
        return run_dots(x, err);
    if (is_direct(x))
        return run_direct(x, err);
    return run_packed(x, err);
}

int cpu_matmul(struct backend *b, struct tensor *c, const struct tensor *a,
               const struct tensor *bb, const struct matmul_args *args, struct err *err)
{
    struct tensor a2 = tensor_flat(a), c2 = tensor_flat(c);
    struct product x = {.cpu = cpu_of(b),
                        .c = c,
                        .a = a,
                        .b = bb,
                        .args = args,
                        .m = c2.dims[0],
                        .n = c2.dims[1],
                        .k = args->trans_a ? a2.dims[0] : a2.dims[1]};

    if (multiply(&x, err) < 0)
        return -1;
    return args->bias_grad ? cpu_bias_bwd(b, args->bias_grad, a, err) : 0;
}
