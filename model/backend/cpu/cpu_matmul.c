/* cpu_matmul.c - matrix products: straight to oneDNN, or through fp32 in blocks
 *
 * bf16 without units for it, and fp16, are converted block by block to fp32: as exact as
 * oneDNN's own (sums are fp32 either way), about as fast as fp32.
 */
#include "model/backend/cpu/cpu.h"
#include "model/backend/cpu/cpu_ops.h"
#include "model/backend/cpu/onednn.h"

#include <string.h>

/* a block of an operand holds so many elements at most, 16 MiB of fp32, unless k is huge */
#define BLOCK_ELEMENTS (4 << 20)

static void zero_c(const struct cpu *cpu, struct tensor *c, const struct tensor *bias,
                   int64_t m, int64_t n, float beta)
{
    float piece[CPU_CHUNK];
    float other[CPU_CHUNK];

    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j += CPU_CHUNK) {
            int64_t count = n - j < CPU_CHUNK ? n - j : CPU_CHUNK;
            const float *old =
                beta != 0 ? cpu_read(cpu, c, i * n + j, count, piece) : NULL;
            const float *add = bias ? cpu_read(cpu, bias, j, count, other) : NULL;

            for (int64_t x = 0; x < count; x++)
                piece[x] = (old ? beta * old[x] : 0) + (add ? add[x] : 0);
            cpu_write(cpu, c, i * n + j, count, piece);
        }
}

static bool is_direct(const struct cpu *cpu, const struct tensor *c,
                      const struct tensor *a, const struct tensor *b,
                      const struct tensor *bias)
{
    if (a->dtype != b->dtype || (bias && bias->dtype != a->dtype))
        return false;
    if (a->dtype == DTYPE_F32)
        return c->dtype == DTYPE_F32;
    return a->dtype == DTYPE_BF16 && onednn_has_bf16(cpu->onednn) &&
           (c->dtype == DTYPE_F32 || c->dtype == DTYPE_BF16);
}

/* A block of a matrix, converted: rows [r, r+n_rows), columns [c, c+n_cols) of what is
 * stored with `ld` columns. */
struct block {
    const struct cpu *cpu;
    const struct tensor *x;
    float *out;
    int64_t ld, r, c, n_cols;
};

static void load_rows(void *context, int64_t first, int64_t last, int thread)
{
    const struct block *b = context;

    (void)thread;
    for (int64_t i = first; i < last; i++) {
        float *to = b->out + i * b->n_cols;
        const float *from =
            cpu_read(b->cpu, b->x, (b->r + i) * b->ld + b->c, b->n_cols, to);

        if (from != to)
            memcpy(to, from, (size_t)b->n_cols * sizeof(float));
    }
}

static void load_block(const struct cpu *cpu, float *out, const struct tensor *x,
                       int64_t r, int64_t n_rows, int64_t c, int64_t n_cols)
{
    struct block block = {cpu, x, out, tensor_flat(x).dims[1], r, c, n_cols};

    cpu_parallel(cpu, n_rows, 1 + CPU_CHUNK / (n_cols + 1), load_rows, &block);
}

static void store_rows(void *context, int64_t first, int64_t last, int thread)
{
    const struct block *b = context;

    (void)thread;
    for (int64_t i = first; i < last; i++)
        cpu_write(b->cpu, b->x, (b->r + i) * b->ld + b->c, b->n_cols,
                  b->out + i * b->n_cols);
}

/* The product in blocks of c, all three matrices converted. */
struct blocked {
    struct cpu *cpu;
    struct tensor *c;
    const struct tensor *a, *b;
    const struct matmul_args *args;
    int64_t m, n, k;
    int64_t m_block, n_block;
    float *a_part, *b_part, *c_part, *bias;
};

static int run_block(struct blocked *x, int64_t i, int64_t j, struct err *err)
{
    int64_t m = x->m - i < x->m_block ? x->m - i : x->m_block;
    int64_t n = x->n - j < x->n_block ? x->n - j : x->n_block;
    struct onednn_gemm gemm = {
        .m = m,
        .n = n,
        .k = x->k,
        .lda = x->args->trans_a ? m : x->k,
        .ldb = x->args->trans_b ? x->k : n,
        .ldc = n,
        .trans_a = x->args->trans_a,
        .trans_b = x->args->trans_b,
        .ab_type = DTYPE_F32,
        .c_type = DTYPE_F32,
        .beta = x->args->beta,
        .a = x->a_part,
        .b = x->b_part,
        .bias = x->bias ? x->bias + j : NULL,
        .c = x->c_part,
    };
    struct block out = {x->cpu, x->c, x->c_part, x->n, i, j, n};

    if (x->args->trans_a)
        load_block(x->cpu, x->a_part, x->a, 0, x->k, i, m);
    else
        load_block(x->cpu, x->a_part, x->a, i, m, 0, x->k);
    if (x->args->beta != 0)
        load_block(x->cpu, x->c_part, x->c, i, m, j, n);
    if (onednn_gemm(x->cpu->onednn, &gemm, err) < 0)
        return -1;
    cpu_parallel(x->cpu, m, 1 + CPU_CHUNK / (n + 1), store_rows, &out);
    return 0;
}

static int64_t block_size(int64_t n, int64_t k)
{
    int64_t size = BLOCK_ELEMENTS / (k > 0 ? k : 1);

    if (size < 64)
        size = 64;
    return size < n ? size : n;
}

static int run_blocks(struct blocked *x, struct err *err)
{
    struct cpu_scratch scratch;
    int64_t a_size, b_size, c_size;

    x->m_block = block_size(x->m, x->k);
    x->n_block = block_size(x->n, x->k);
    a_size = (x->m_block * x->k + 15) / 16 * 16;
    b_size = (x->n_block * x->k + 15) / 16 * 16;
    c_size = (x->m_block * x->n_block + 15) / 16 * 16;
    if (cpu_scratch(x->cpu, a_size + b_size + c_size + x->n, 0, &scratch, err) < 0)
        return -1;
    x->a_part = scratch.shared;
    x->b_part = x->a_part + a_size;
    x->c_part = x->b_part + b_size;
    x->bias = x->args->bias ? x->c_part + c_size : NULL;
    if (x->bias)
        load_block(x->cpu, x->bias, x->args->bias, 0, 1, 0, x->n);
    for (int64_t j = 0; j < x->n; j += x->n_block) {
        int64_t n = x->n - j < x->n_block ? x->n - j : x->n_block;

        if (x->args->trans_b)
            load_block(x->cpu, x->b_part, x->b, j, n, 0, x->k);
        else
            load_block(x->cpu, x->b_part, x->b, 0, x->k, j, n);
        for (int64_t i = 0; i < x->m; i += x->m_block)
            if (run_block(x, i, j, err) < 0)
                return -1;
    }
    return 0;
}

int cpu_matmul(struct backend *b, struct tensor *c, const struct tensor *a,
               const struct tensor *bb, const struct matmul_args *args, struct err *err)
{
    struct cpu *cpu = cpu_of(b);
    struct tensor a2 = tensor_flat(a), b2 = tensor_flat(bb), c2 = tensor_flat(c);
    int64_t m = c2.dims[0], n = c2.dims[1];
    int64_t k = args->trans_a ? a2.dims[0] : a2.dims[1];
    struct onednn_gemm gemm = {
        .m = m,
        .n = n,
        .k = k,
        .lda = a2.dims[1],
        .ldb = b2.dims[1],
        .ldc = n,
        .trans_a = args->trans_a,
        .trans_b = args->trans_b,
        .ab_type = a->dtype,
        .c_type = c->dtype,
        .beta = args->beta,
        .a = a->data,
        .b = bb->data,
        .bias = args->bias ? args->bias->data : NULL,
        .c = c->data,
    };
    struct blocked blocked = {
        .cpu = cpu, .c = c, .a = a, .b = bb, .args = args, .m = m, .n = n, .k = k};

    if (m == 0 || n == 0)
        return 0;
    if (k == 0) { /* an empty sum */
        zero_c(cpu, c, args->bias, m, n, args->beta);
        return 0;
    }
    if (is_direct(cpu, c, a, bb, args->bias))
        return onednn_gemm(cpu->onednn, &gemm, err);
    return run_blocks(&blocked, err);
}
