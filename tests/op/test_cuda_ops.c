/* test_cuda_ops.c - the CUDA backend over host stand-ins (tests/cuda_host), against `ref`
 *
 * libvneva_cuda.so beside this program is made of the plugin's own sources. The order in
 * which the threads of a kernel run must not matter: a race shows as other bits.
 */
#include "model/backend/sample.h"
#include "tests/op/op_compare.h"

#include <stdlib.h>
#include <string.h>

static const char *const orders[] = {"forward", "reverse", "scrambled"};
#define N_ORDERS (sizeof(orders) / sizeof(orders[0]))

static void every_operation_agrees_with_ref(struct check *check)
{
    struct backend *b = op_open_cuda(check, "forward");

    if (b)
        op_check_backend(check, b);
    backend_destroy(b);
}

static void bits_do_not_depend_on_the_order_of_threads(struct check *check)
{
    static const enum dtype types[] = {DTYPE_F32, DTYPE_BF16};
    struct backend *b[N_ORDERS];

    for (size_t i = 0; i < N_ORDERS; i++)
        b[i] = op_open_cuda(check, orders[i]);
    for (int c = 0; c < op_n_cases && b[0] && b[1] && b[2]; c++)
        for (size_t t = 0; t < sizeof(types) / sizeof(types[0]); t++) {
            struct op_run want, got;

            op_run(&want, b[0], &op_cases[c], types[t]);
            for (size_t i = 1; i < N_ORDERS; i++) {
                op_run(&got, b[i], &op_cases[c], types[t]);
                check_that(check, !got.has_failed && op_has_same_bits(&want, &got),
                           "'%s' gives other bits with threads in order '%s'",
                           op_cases[c].name, orders[i]);
                op_run_free(&got);
            }
            op_run_free(&want);
        }
    for (size_t i = 0; i < N_ORDERS; i++)
        backend_destroy(b[i]);
}

/* ---- extreme values: what overflows, is not a number, or is all there is ---- */

#define EXTREME_ROWS 6
#define EXTREME_COLUMNS 40

/* Row by row: large, infinite, not a number, all equal, tiny, minus infinity throughout. */
static float extreme(int64_t row, int64_t column)
{
    static const float large[] = {1e4F, -1e4F, 88, -88, 105, -105, 0, -0.0F};

    switch (row) {
    case 0:
        return large[column % 8];
    case 1:
        return column == 7 ? INFINITY : (float)column;
    case 2:
        return column == 9 ? NAN : (float)column;
    case 3:
        return 3;
    case 4:
        return (float)column * 1e-40F;
    default:
        return -INFINITY;
    }
}

static struct tensor extremes(struct op_run *r, int64_t n_rows)
{
    const int64_t dims[4] = {n_rows, EXTREME_COLUMNS};
    struct tensor wide = op_output(r, DTYPE_F32, dims), x = op_output(r, r->dtype, dims);
    float host[EXTREME_ROWS * EXTREME_COLUMNS];

    for (int64_t i = 0; i < n_rows * EXTREME_COLUMNS; i++)
        host[i] = extreme(i / EXTREME_COLUMNS, i % EXTREME_COLUMNS);
    op_check(r, r->b->ops->upload(r->b, wide.data, host, tensor_bytes(&wide), &r->err));
    op_check(r, r->b->ops->cast(r->b, &x, &wide, &r->err));
    return x;
}

static void run_extreme_act(struct op_run *r)
{
    const int64_t dims[4] = {EXTREME_ROWS, EXTREME_COLUMNS};
    enum activation act = (enum activation)r->op->n[0];
    struct tensor x = extremes(r, EXTREME_ROWS), y = op_output(r, r->dtype, dims);
    struct tensor dx = op_output(r, r->dtype, dims);

    op_check(r, r->b->ops->act_fwd(r->b, &y, &x, act, &r->err));
    op_check(r, r->b->ops->act_bwd(r->b, &dx, &y, &x, act, &r->err));
    op_keep(r, "x", &x);
    op_keep(r, "y", &y);
    op_keep(r, "dx", &dx);
}

static void run_extreme_loss(struct op_run *r)
{
    const int64_t dims[4] = {EXTREME_ROWS};
    struct tensor x = extremes(r, EXTREME_ROWS), max = op_output(r, DTYPE_F32, dims);
    struct tensor sum = op_output(r, DTYPE_F32, dims);
    struct tensor target = op_output(r, DTYPE_F32, dims);
    struct tensor index = op_output(r, DTYPE_I32, dims);
    struct tensor labels =
        op_table(r, (const int32_t[EXTREME_ROWS]){0, 7, 3, -1, 5, 1}, EXTREME_ROWS);

    op_check(r, r->b->ops->argmax(r->b, &target, &index, &x, EXTREME_COLUMNS, &r->err));
    op_keep(r, "value", &target);
    op_keep(r, "argmax", &index);
    op_check(r, r->b->ops->xent_max(r->b, &max, &x, EXTREME_COLUMNS, &r->err));
    op_check(r, r->b->ops->xent_sum(r->b, &sum, &target, &x, &max, &labels, 0,
                                    EXTREME_COLUMNS, &r->err));
    op_check(r, r->b->ops->xent_bwd(r->b, &x, &max, &sum, &labels, 0, EXTREME_COLUMNS,
                                    &r->err));
    op_keep(r, "max", &max);
    op_keep(r, "sum", &sum);
    op_keep(r, "target", &target);
    op_keep(r, "dlogits", &x);
}

/* Rows whose largest logit is not finite draw token 0, and say so by the value. */
static void run_extreme_draw(struct op_run *r)
{
    const int64_t n[4] = {EXTREME_ROWS}, dims[4] = {EXTREME_ROWS, EXTREME_COLUMNS};
    const struct sample_args args = {.n_real = EXTREME_COLUMNS,
                                     .top_k = r->op->n[0],
                                     .seed = 5,
                                     .temperature = 0.8F,
                                     .top_p = 0.9F,
                                     .repetition_penalty = 1,
                                     .end_token = -1};
    struct tensor x = extremes(r, EXTREME_ROWS), logits = op_output(r, DTYPE_F32, dims);
    struct tensor tokens = op_output(r, DTYPE_I32, n), value = op_output(r, DTYPE_F32, n);
    struct tensor steps =
        op_table(r, (const int32_t[EXTREME_ROWS]){0, 7, 3, 1, 5, 1}, EXTREME_ROWS);
    struct tensor seen = {0};

    op_check(r, r->b->ops->cast(r->b, &logits, &x, &r->err));
    op_check(r, r->b->ops->sample(r->b, &value, &tokens, &logits, &seen, &steps, &steps,
                                  &args, &r->err));
    op_keep(r, "drawn", &tokens);
    op_keep(r, "largest", &value);
}

static void run_extreme_norm(struct op_run *r)
{
    const int64_t rows[4] = {EXTREME_ROWS}, dims[4] = {EXTREME_ROWS, EXTREME_COLUMNS};
    const int64_t columns[4] = {EXTREME_COLUMNS};
    struct tensor x = extremes(r, EXTREME_ROWS), y = op_output(r, r->dtype, dims);
    struct tensor w = op_input(r, "w", r->dtype, 1, 0, columns);
    struct tensor rstd = op_output(r, DTYPE_F32, rows);
    struct tensor mean = op_output(r, DTYPE_F32, rows);

    op_check(r, r->b->ops->rmsnorm_fwd(r->b, &y, &rstd, &x, &w, 1e-5F, &r->err));
    op_keep(r, "rms", &y);
    op_check(r, r->b->ops->layernorm_fwd(r->b, &y, &mean, &rstd, &x, &w, &w, 1, 1e-5F,
                                         &r->err));
    op_keep(r, "layernorm", &y);
    op_keep(r, "mean", &mean);
}

/* Keys and queries are the same rows; values that are not a number reach those who see
 * them and nobody else. */
static void run_extreme_attention(struct op_run *r)
{
    const int64_t dims[4] = {1, 5, EXTREME_COLUMNS}, stats[4] = {1, 2, 5};
    struct tensor x = extremes(r, 5), q = op_input(r, "q", r->dtype, 1, 0, dims);
    struct tensor o = op_output(r, r->dtype, dims), lse = op_output(r, DTYPE_F32, stats);
    struct tensor k = tensor_of(q.data, q.dtype, 3, dims);
    struct tensor v = tensor_of(x.data, x.dtype, 3, dims);
    struct attention_args args = {
        .n_heads = 2, .n_kv_heads = 2, .causal = true, .scale = 0.2F};

    op_check(r, r->b->ops->attention_fwd(r->b, &o, &lse, &q, &k, &v, &args, &r->err));
    op_keep(r, "o", &o);
    op_keep(r, "lse", &lse);
}

static void extreme_values_give_what_they_give_on_ref(struct check *check)
{
    static const struct op_case cases[] = {
        {"extreme gelu", run_extreme_act, {ACT_GELU}, 0},
        {"extreme gelu_tanh", run_extreme_act, {ACT_GELU_TANH}, 0},
        {"extreme quick_gelu", run_extreme_act, {ACT_QUICK_GELU}, 0},
        {"extreme relu_squared", run_extreme_act, {ACT_RELU_SQUARED}, 0},
        {"extreme loss", run_extreme_loss, {0}, 0},
        {"extreme draw", run_extreme_draw, {0}, 0},
        {"extreme draw, top k", run_extreme_draw, {3}, 0},
        {"extreme norm", run_extreme_norm, {0}, 0},
        {"extreme attention", run_extreme_attention, {0}, 0},
    };
    struct backend *b = op_open_cuda(check, "forward");

    if (b)
        op_check_cases(check, b, cases, sizeof(cases) / sizeof(cases[0]));
    backend_destroy(b);
}

/* ---- nothing to do ---- */

static void no_rows(struct check *check, struct backend *b, enum dtype dtype)
{
    struct tensor w = {0}, none, stat, ids, dw = {0};
    struct matmul_args tn = {.trans_a = true, .beta = 1}, nt = {.trans_b = true};
    struct matmul_args biased = {.trans_a = true, .bias = &w};
    const int64_t n = 8;
    struct err err = {0};
    float sums[64];
    bool is_fine =
        backend_tensor(b, &w, dtype, 1, &n, &err) == 0 &&
        backend_tensor(b, &dw, DTYPE_F32, 2, (const int64_t[]){n, n}, &err) == 0;

    none = tensor_of(w.data, dtype, 2, (const int64_t[]){0, n});
    stat = tensor_of(w.data, DTYPE_F32, 1, (const int64_t[]){0});
    ids = tensor_of(w.data, DTYPE_I32, 1, (const int64_t[]){0});
    is_fine =
        is_fine && b->ops->matmul(b, &none, &none, &dw, &nt, &err) == 0 &&
        b->ops->matmul(b, &dw, &none, &none, &tn, &err) == 0 &&
        b->ops->matmul(b, &dw, &none, &none, &biased, &err) == 0 &&
        b->ops->bias_bwd(b, &w, &none, &err) == 0 &&
        b->ops->rmsnorm_fwd(b, &none, &stat, &none, &w, 1e-5F, &err) == 0 &&
        b->ops->rmsnorm_bwd(b, &none, &dw, &none, NULL, &none, &w, &stat, &err) == 0 &&
        b->ops->layernorm_fwd(b, &none, &stat, &stat, &none, &w, &w, 0, 1e-5F, &err) ==
            0 &&
        b->ops->act_fwd(b, &none, &none, ACT_GELU, &err) == 0 &&
        b->ops->swiglu_fwd(b, &none, &none, &err) == 0 &&
        b->ops->add(b, &none, &none, &none, 1, &err) == 0 &&
        b->ops->cast(b, &stat, &none, &err) == 0 &&
        b->ops->embed_fwd(b, &none, &dw, &ids, 0, &err) == 0 &&
        b->ops->embed_bwd(b, &dw, &none, &ids, 0, &err) == 0 &&
        b->ops->scatter_rows(b, &dw, &none, &ids, &err) == 0 &&
        b->ops->xent_max(b, &stat, &none, n, &err) == 0 &&
        b->ops->zero(b, w.data, 0, &err) == 0 &&
        b->ops->copy(b, w.data, dw.data, 0, &err) == 0 &&
        b->ops->download(b, sums, dw.data, sizeof(sums), &err) == 0;
    check_that(check, is_fine, "%s", err.text);
    for (int i = 0; is_fine && i < 64; i++)
        is_fine = sums[i] == 0;
    check_that(check, is_fine, "something came of nothing");
    b->ops->free(b, w.data);
    b->ops->free(b, dw.data);
}

static void no_rows_are_fine(struct check *check)
{
    struct backend *b = op_open_cuda(check, "forward");

    if (b) {
        no_rows(check, b, DTYPE_F32);
        no_rows(check, b, DTYPE_BF16);
    }
    backend_destroy(b);
}

/* More than the ring holds, while nobody waits for the device. */
static void host_memory_may_change_as_soon_as_an_upload_returns(struct check *check)
{
    enum { N = 3 << 20, TIMES = 5 };
    struct backend *b = op_open_cuda(check, "forward");
    float *host = malloc(N * sizeof(float));
    void *parts[TIMES];
    struct err err = {0};

    for (int i = 0; b && i < TIMES; i++) {
        for (int j = 0; j < N; j++)
            host[j] = (float)(i * N + j);
        check_that(check,
                   b->ops->alloc(b, &parts[i], N * sizeof(float), &err) == 0 &&
                       b->ops->upload(b, parts[i], host, N * sizeof(float), &err) == 0,
                   "%s", err.text);
        memset(host, 0, N * sizeof(float));
    }
    for (int i = 0; b && i < TIMES; i++) {
        int n_wrong = 0;

        check_that(check,
                   b->ops->download(b, host, parts[i], N * sizeof(float), &err) == 0,
                   "%s", err.text);
        for (int j = 0; j < N; j++)
            n_wrong += host[j] != (float)(i * N + j);
        check_that(check, n_wrong == 0, "%d wrong numbers in part %d", n_wrong, i);
        b->ops->free(b, parts[i]);
    }
    free(host);
    backend_destroy(b);
}

/* Two arrays after each other through one place, the second while the first is still to be
 * read: neither may be early or late. */
static void bring_ahead(struct check *check, struct backend *b, size_t n_bytes)
{
    unsigned char *host = malloc(n_bytes), *got = malloc(n_bytes);
    void *place = NULL, *kept[2] = {NULL, NULL};
    struct err err = {0};
    bool is_fine = b->ops->ahead_upload(b, NULL, NULL, 0, &err) == 0 &&
                   b->ops->alloc(b, &place, n_bytes, &err) == 0 &&
                   b->ops->ahead_used(b, &err) == 0;

    for (int i = 0; i < 2 && is_fine; i++) {
        memset(host, i + 1, n_bytes);
        is_fine = b->ops->alloc(b, &kept[i], n_bytes, &err) == 0 &&
                  b->ops->ahead_upload(b, place, host, n_bytes, &err) == 0;
        memset(host, 0, n_bytes);
        is_fine = is_fine && b->ops->ahead_take(b, &err) == 0 &&
                  b->ops->copy(b, kept[i], place, n_bytes, &err) == 0 &&
                  b->ops->ahead_used(b, &err) == 0;
    }
    for (int i = 0; i < 2 && is_fine; i++) {
        is_fine = b->ops->download(b, got, kept[i], n_bytes, &err) == 0;
        check_that(check, got[0] == i + 1 && got[n_bytes - 1] == i + 1,
                   "%zu bytes brought ahead, array %d: they are %d and %d", n_bytes, i,
                   got[0], got[n_bytes - 1]);
    }
    check_that(check, is_fine, "%s", err.text);
    b->ops->free(b, place);
    b->ops->free(b, kept[0]);
    b->ops->free(b, kept[1]);
    free(host);
    free(got);
}

static void what_comes_ahead_is_neither_early_nor_late(struct check *check)
{
    static const char *const streams[] = {"late", "early"};

    for (int i = 0; i < 2; i++) {
        struct backend *b;

        setenv("CUDA_HOST_STREAMS", streams[i], 1);
        b = op_open_cuda(check, "forward");
        if (b) {
            bring_ahead(check, b, 1000);
            bring_ahead(check, b, (size_t)20 << 20); /* more than the ring holds */
        }
        backend_destroy(b);
    }
    unsetenv("CUDA_HOST_STREAMS");
}

static void too_much_memory_is_an_error_that_says_what_would_help(struct check *check)
{
    struct backend *b = op_open_cuda(check, "forward");
    struct err err = {0};
    void *data;

    if (!b)
        return;
    setenv("CUDA_HOST_MEMORY", "100000000", 1);
    check_that(check,
               b->ops->alloc(b, &data, (size_t)1 << 30, &err) < 0 &&
                   err.code == ERR_NOMEM && strstr(err.text, "1024 MiB on GPU 0") &&
                   strstr(err.text, "smaller micro batch"),
               "'%s'", err.text);
    unsetenv("CUDA_HOST_MEMORY");
    check_that(check, b->ops->alloc(b, &data, 1000, &err) == 0, "%s", err.text);
    b->ops->free(b, data);
    check_that(check, b->ops->sync(b, &err) == 0, "%s", err.text);
    backend_destroy(b);
}

/* c [1,1] F32 = a [1,2] b [2,1] of that type; both factors are 1 + 2^-11 and 1. */
static float small_product(struct check *check, struct backend *b, enum dtype dtype)
{
    const int64_t row[] = {1, 2}, column[] = {2, 1}, one[] = {1, 1};
    const float values[] = {1 + 0x1p-11F, 1};
    const uint16_t halves[] = {0x3c00, 0x3c00};
    const void *host = dtype == DTYPE_F32 ? (const void *)values : halves;
    struct matmul_args args = {0};
    struct tensor x = {0}, y = {0}, c = {0};
    struct err err = {0};
    float out = 0;

    check_that(check,
               backend_tensor(b, &x, dtype, 2, row, &err) == 0 &&
                   backend_tensor(b, &y, dtype, 2, column, &err) == 0 &&
                   backend_tensor(b, &c, DTYPE_F32, 2, one, &err) == 0 &&
                   b->ops->upload(b, x.data, host, tensor_bytes(&x), &err) == 0 &&
                   b->ops->upload(b, y.data, host, tensor_bytes(&y), &err) == 0 &&
                   b->ops->matmul(b, &c, &x, &y, &args, &err) == 0 &&
                   b->ops->download(b, &out, c.data, sizeof(out), &err) == 0,
               "%s", err.text);
    b->ops->free(b, x.data);
    b->ops->free(b, y.data);
    b->ops->free(b, c.data);
    return out;
}

/* 1 + 2^-11 lies between two numbers of TF32, of which 1 is the even one. */
static void tf32_is_for_products_of_fp32_that_ask_for_it(struct check *check)
{
    const float exact = (1 + 0x1p-11F) * (1 + 0x1p-11F) + 1;
    struct backend *b = op_open_cuda(check, "forward"), *ref = NULL;
    struct err err = {0};

    if (!b)
        return;
    check_that(check, small_product(check, b, DTYPE_F32) == exact, "fp32 is rounded");
    backend_allow_tf32(b, true);
    check_that(check, small_product(check, b, DTYPE_F32) == 2, "TF32 is not used");
    check_that(check, small_product(check, b, DTYPE_F16) == 2, "fp16 is not as before");
    backend_allow_tf32(b, false);
    check_that(check, small_product(check, b, DTYPE_F32) == exact, "TF32 stays");
    backend_destroy(b);
    check_that(check, backend_create(&ref, "ref", 0, 1, &err) == 0, "%s", err.text);
    backend_allow_tf32(ref, true);
    check_that(check, small_product(check, ref, DTYPE_F32) == exact, "ref rounds");
    backend_destroy(ref);
}

static void without_a_gpu_auto_takes_the_cpu(struct check *check)
{
    struct backend *b = NULL;
    struct err err = {0}, why = {0};

    setenv("CUDA_HOST_DEVICES", "0", 1);
    check_that(check,
               backend_create(&b, "cuda", 0, 1, &err) < 0 && err.code == ERR_UNSUPPORTED,
               "code %d: %s", (int)err.code, err.text);
    check_that(check, strstr(err.text, "no GPU is there") != NULL, "'%s'", err.text);
    check_that(check, backend_create(&b, "auto", 0, 1, &err) == 0 && b->ops->is_host,
               "%s", err.text);
    backend_destroy(b);
    check_that(check,
               backend_create_auto(&b, 0, 1, &why, &err) == 0 && b->ops->is_host &&
                   strstr(why.text, "no GPU is there") != NULL,
               "'%s' '%s'", err.text, why.text);
    backend_destroy(b);
    setenv("CUDA_HOST_DEVICES", "2", 1);
    check_that(check,
               backend_create(&b, "cuda", -1, 1, &err) < 0 && err.code == ERR_INVALID,
               "'%s'", err.text);
    check_that(check, backend_create(&b, "cuda", 5, 1, &err) == 0, "%s", err.text);
    backend_destroy(b);
    check_that(check,
               backend_create_auto(&b, 1, 1, &why, &err) == 0 && !b->ops->is_host &&
                   !why.code,
               "'%s' '%s'", err.text, why.text);
    backend_destroy(b);
    unsetenv("CUDA_HOST_DEVICES");
}

/* Whose code does attention without a mask, in bf16. */
static const char *attention_of(struct check *check, struct backend_about *about)
{
    struct backend *b = op_open_cuda(check, "forward");
    struct op_run run;
    int i = 0;

    about->attention = "";
    if (!b)
        return "";
    b->ops->about(b, about);
    check_that(check, strcmp(about->attention, "") == 0, "'%s'", about->attention);
    while (i + 1 < op_n_cases && strcmp(op_cases[i].name, "attention 1x40 k128") != 0)
        i++;
    op_run(&run, b, &op_cases[i], DTYPE_BF16);
    check_that(check, !run.has_failed, "%s", run.err.text);
    op_run_free(&run);
    b->ops->about(b, about);
    backend_destroy(b);
    return about->attention;
}

static void the_backend_says_what_computes_and_can_do_without_cudnn(struct check *check)
{
    struct backend_about about = {.attention = ""};

    check_that(check, strcmp(attention_of(check, &about), "cuDNN") == 0, "%s computes",
               about.attention);
    check_that(check,
               strcmp(about.device, "host stand-in, compute capability 9.1") == 0 &&
                   strcmp(about.libraries, "CUDA 13.0 (driver up to 13.0), cuBLASLt "
                                           "13.0.0, cuDNN 9.19.0") == 0,
               "'%s', '%s'", about.device, about.libraries);
    setenv("VNEVA_CUDA_ATTENTION", "own", 1);
    check_that(check, strcmp(attention_of(check, &about), "own kernels") == 0,
               "%s computes", about.attention);
    unsetenv("VNEVA_CUDA_ATTENTION");
}

int main(void)
{
    struct check check = {0};

    check_run(&check, every_operation_agrees_with_ref);
    check_run(&check, bits_do_not_depend_on_the_order_of_threads);
    check_run(&check, extreme_values_give_what_they_give_on_ref);
    check_run(&check, no_rows_are_fine);
    check_run(&check, host_memory_may_change_as_soon_as_an_upload_returns);
    check_run(&check, what_comes_ahead_is_neither_early_nor_late);
    check_run(&check, too_much_memory_is_an_error_that_says_what_would_help);
    check_run(&check, tf32_is_for_products_of_fp32_that_ask_for_it);
    check_run(&check, the_backend_says_what_computes_and_can_do_without_cudnn);
    check_run(&check, without_a_gpu_auto_takes_the_cpu);
    return check_end(&check);
}
