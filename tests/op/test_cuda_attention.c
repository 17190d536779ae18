/* test_cuda_attention.c - the own kernels for attention over host stand-ins, against `ref`
 *
 * cuDNN is told to do no case, so all of them run on own kernels. Threads run in three orders
 * and asynchronous copies land early or late: a race or a missing wait shows as other bits.
 */
#include "tests/op/op_compare.h"

#include <stdlib.h>
#include <string.h>

static const char *const orders[] = {"forward", "reverse", "scrambled"};
#define N_ORDERS (sizeof(orders) / sizeof(orders[0]))
#define SMALL_SHARED "101376" /* bytes of a block on compute capability 8.6 */

static bool is_attention(const struct op_case *op)
{
    return strncmp(op->name, "attention", strlen("attention")) == 0;
}

static void every_case_agrees_with_ref(struct check *check)
{
    struct backend *b = op_open_cuda(check, "scrambled");

    for (int i = 0; b && i < op_n_cases; i++)
        if (is_attention(&op_cases[i]))
            op_check_cases(check, b, &op_cases[i], 1);
    backend_destroy(b);
}

static void bits_do_not_depend_on_order_and_copies(struct check *check)
{
    struct backend *b[N_ORDERS];

    for (size_t i = 0; i < N_ORDERS; i++)
        b[i] = op_open_cuda(check, orders[i]);
    for (int c = 0; c < op_n_cases && b[0] && b[1] && b[2]; c++) {
        struct op_run want, got;

        if (!is_attention(&op_cases[c]))
            continue;
        op_run(&want, b[0], &op_cases[c], DTYPE_F16);
        for (size_t i = 1; i < N_ORDERS; i++) {
            op_run(&got, b[i], &op_cases[c], DTYPE_F16);
            check_that(check, !got.has_failed && op_has_same_bits(&want, &got),
                       "'%s' gives other bits in order '%s'", op_cases[c].name,
                       orders[i]);
            op_run_free(&got);
        }
        op_run_free(&want);
    }
    for (size_t i = 0; i < N_ORDERS; i++)
        backend_destroy(b[i]);
}

/* Where a block may not have what the widest heads take, other kernels do them. */
static void little_shared_memory_is_enough(struct check *check)
{
    struct backend *b;

    setenv("CUDA_HOST_SHARED", SMALL_SHARED, 1);
    b = op_open_cuda(check, "forward");
    for (int i = 0; b && i < op_n_cases; i++)
        if (is_attention(&op_cases[i]) && op_cases[i].n[5] == 256)
            op_check_cases(check, b, &op_cases[i], 1);
    backend_destroy(b);
    unsetenv("CUDA_HOST_SHARED");
}

/* ---- extreme values ---- */

#define KEYS 150
#define HEAD 64
#define N_ROWS 4

/* n rows of HEAD numbers, of which the first is made by `first`; the others are 0 for queries,
 * so that it alone decides about scores. */
static struct tensor rows_of(struct op_run *r, int64_t n, float (*first)(int64_t row))
{
    const int64_t dims[4] = {N_ROWS, n / N_ROWS, HEAD};
    struct tensor wide = op_output(r, DTYPE_F32, dims), x = op_output(r, r->dtype, dims);
    float *host = calloc((size_t)n * HEAD, sizeof(*host));

    for (int64_t i = 0; host && i < n; i++)
        host[i * HEAD] = first(i);
    if (!host || r->has_failed)
        r->has_failed = true;
    else
        op_check(r,
                 r->b->ops->upload(r->b, wide.data, host, tensor_bytes(&wide), &r->err));
    op_check(r, r->b->ops->cast(r->b, &x, &wide, &r->err));
    free(host);
    return x;
}

static float one(int64_t row)
{
    return row >= 0;
}

/* Batch row 0: every score -infinity; 1: large of both signs; 2: the first 100 -infinity, then
 * small; 3: has no keys, and what lies there is no number. */
static float extreme_key(int64_t row)
{
    int64_t j = row % KEYS;

    switch (row / KEYS) {
    case 0:
        return -INFINITY;
    case 1:
        return (float)(j * 977 % 101 - 50) * 600;
    case 2:
        return j < 100 ? -INFINITY : (float)(j % 7) * 1e-3F;
    default:
        return NAN;
    }
}

static void run_extreme(struct op_run *r)
{
    const int64_t tq = r->op->n[0], dims[4] = {N_ROWS, tq, HEAD};
    const int64_t stats[4] = {N_ROWS, 1, tq}, kv[4] = {N_ROWS, KEYS, HEAD};
    const int32_t lens[N_ROWS] = {KEYS, KEYS, KEYS, 0};
    struct tensor q = rows_of(r, N_ROWS * tq, one);
    struct tensor k = rows_of(r, (int64_t)N_ROWS * KEYS, extreme_key);
    struct tensor v = op_input(r, "v", r->dtype, 1, 0, kv);
    struct tensor o = op_output(r, r->dtype, dims), lse = op_output(r, DTYPE_F32, stats);
    struct tensor kv_lens = op_table(r, lens, N_ROWS);
    struct attention_args args = {
        .n_heads = 1, .n_kv_heads = 1, .scale = 1, .kv_lens = &kv_lens};

    op_check(r, r->b->ops->attention_fwd(r->b, &o, &lse, &q, &k, &v, &args, &r->err));
    op_keep(r, "o", &o);
    op_keep(r, "lse", &lse);
}

/* Gradients where scores are large, and of a row that has no keys. */
static void run_extreme_gradient(struct op_run *r)
{
    const int64_t tq = r->op->n[0], dims[4] = {2, tq, HEAD}, stats[4] = {2, 1, tq};
    const int64_t kv[4] = {2, KEYS, HEAD};
    const int32_t lens[2] = {KEYS, 0};
    struct tensor q = op_input(r, "q", r->dtype, 5, 0, dims);
    struct tensor k = op_input(r, "k", r->dtype, 1, 0, kv);
    struct tensor v = op_input(r, "v", r->dtype, 1, 0, kv);
    struct tensor d_o = op_input(r, "d_o", r->dtype, 1, 0, dims);
    struct tensor o = op_output(r, r->dtype, dims), lse = op_output(r, DTYPE_F32, stats);
    struct tensor dq = op_output(r, r->dtype, dims), dk = op_output(r, r->dtype, kv);
    struct tensor dv = op_output(r, r->dtype, kv);
    struct tensor kv_lens = op_table(r, lens, 2);
    struct attention_args args = {
        .n_heads = 1, .n_kv_heads = 1, .scale = 0.125F, .kv_lens = &kv_lens};

    op_poison_rows(r, &k, KEYS, (int64_t)2 * KEYS);
    op_poison_rows(r, &v, KEYS, (int64_t)2 * KEYS);
    op_check(r, r->b->ops->attention_fwd(r->b, &o, &lse, &q, &k, &v, &args, &r->err));
    op_check(r, r->b->ops->attention_bwd(r->b, &dq, &dk, &dv, &d_o, &q, &k, &v, &o, &lse,
                                         &args, &r->err));
    op_keep(r, "lse", &lse);
    op_keep(r, "dq", &dq);
    op_keep(r, "dk", &dk);
    op_keep(r, "dv", &dv);
}

static void extreme_values_give_what_they_give_on_ref(struct check *check)
{
    static const struct op_case cases[] = {
        {"attention, extreme scores", run_extreme, {3}, 0},
        {"attention, extreme scores, one query", run_extreme, {1}, 0},
        {"attention, gradients of large scores", run_extreme_gradient, {5}, 0},
    };
    struct backend *b = op_open_cuda(check, "reverse");

    if (b)
        op_check_cases(check, b, cases, sizeof(cases) / sizeof(cases[0]));
    backend_destroy(b);
}

int main(void)
{
    struct check check = {0};

    setenv("VNEVA_CUDA_ATTENTION", "own", 1);
    check_run(&check, every_case_agrees_with_ref);
    check_run(&check, bits_do_not_depend_on_order_and_copies);
    check_run(&check, little_shared_memory_is_enough);
    check_run(&check, extreme_values_give_what_they_give_on_ref);
    return check_end(&check);
}
