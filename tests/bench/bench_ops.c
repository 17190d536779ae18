/* bench_ops.c - the machine's matmul rate, and the rate of the operations that matter
 *
 * Not a test: figures for people and for docs. Usage: bench_ops [threads] [backend]
 * The peak is what oneDNN reaches on one large product in the same run; the shares say
 * how close an operation of the quickstart's sizes comes to it. Floating-point operations
 * are counted as multiply-adds twice, causal attention at half; memory-bound operations
 * are given in GB/s.
 */
#include "common/base/clock.h"
#include "model/backend/backend.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TENSORS_MAX 12
#define SECONDS_MIN 0.3
#define DIMS(...) ((const int64_t[4]){__VA_ARGS__})

struct bench {
    struct backend *b;
    struct err err;
    double peak[2]; /* GFLOP/s, of fp32 and bf16 */
    enum dtype dtype;
    int64_t n[6];
    struct tensor x[TENSORS_MAX];
    struct update_list list; /* of the tensors, for the optimizer */
};

struct row {
    const char *name;
    void (*make)(struct bench *bench);
    int (*run)(struct bench *bench);
    enum dtype dtype;
    double flops; /* or 0 */
    double bytes; /* or 0 */
    int64_t n[6];
};

/* New tensors of ones and twos, so that no arithmetic is special. */
static void make(struct bench *bench, int i, enum dtype dtype, const int64_t dims[4])
{
    int n_dims = 0;
    int64_t n;

    while (n_dims < 4 && dims[n_dims] > 0)
        n_dims++;
    if (backend_tensor(bench->b, &bench->x[i], dtype, n_dims, dims, &bench->err) < 0)
        return;
    n = tensor_count(&bench->x[i]);
    for (int64_t at = 0; at < n; at++) {
        float value = (float)(at * 2654435761U % 1000) / 500 - 1;
        uint32_t bits;

        memcpy(&bits, &value, sizeof(bits));
        if (dtype == DTYPE_F32)
            ((float *)bench->x[i].data)[at] = value;
        else
            ((uint16_t *)bench->x[i].data)[at] = (uint16_t)(bits >> 16);
    }
}

static void make_matmul(struct bench *t)
{
    make(t, 0, t->dtype, DIMS(t->n[0], t->n[1]));
    make(t, 1, t->dtype, DIMS(t->n[0], t->n[2]));
    make(t, 2, t->dtype, DIMS(t->n[1], t->n[2]));
}

/* y = x w^T */
static int run_matmul(struct bench *t)
{
    struct matmul_args args = {.trans_b = true};

    return t->b->ops->matmul(t->b, &t->x[0], &t->x[1], &t->x[2], &args, &t->err);
}

/* dw += dy^T x */
static void make_matmul_dw(struct bench *t)
{
    make(t, 0, DTYPE_F32, DIMS(t->n[0], t->n[1]));
    make(t, 1, t->dtype, DIMS(t->n[2], t->n[0]));
    make(t, 2, t->dtype, DIMS(t->n[2], t->n[1]));
}

static int run_matmul_dw(struct bench *t)
{
    struct matmul_args args = {.trans_a = true, .beta = 1};

    return t->b->ops->matmul(t->b, &t->x[0], &t->x[1], &t->x[2], &args, &t->err);
}

/* n = B, T, H, K, causal */
static void make_attention(struct bench *t)
{
    for (int i = 0; i < 8; i++)
        make(t, i, t->dtype, DIMS(t->n[0], t->n[1], t->n[2] * t->n[3]));
    make(t, 8, DTYPE_F32, DIMS(t->n[0], t->n[2], t->n[1]));
}

static struct attention_args attention_args_of(const struct bench *t)
{
    return (struct attention_args){.n_heads = t->n[2],
                                   .n_kv_heads = t->n[2],
                                   .causal = t->n[4] != 0,
                                   .scale = 1 / sqrtf((float)t->n[3])};
}

static int run_attention_fwd(struct bench *t)
{
    struct attention_args args = attention_args_of(t);

    return t->b->ops->attention_fwd(t->b, &t->x[3], &t->x[8], &t->x[0], &t->x[1],
                                    &t->x[2], &args, &t->err);
}

static void make_attention_bwd(struct bench *t)
{
    make_attention(t);
    run_attention_fwd(t); /* lse must be true: it goes into an exponent */
}

static int run_attention_bwd(struct bench *t)
{
    struct attention_args args = attention_args_of(t);

    return t->b->ops->attention_bwd(t->b, &t->x[5], &t->x[6], &t->x[7], &t->x[4],
                                    &t->x[0], &t->x[1], &t->x[2], &t->x[3], &t->x[8],
                                    &args, &t->err);
}

/* n = N, D: 0 x, 1 w, 2 y, 3 dy, 4 rstd, 5 dw */
static void make_norm(struct bench *t)
{
    make(t, 0, t->dtype, DIMS(t->n[0], t->n[1]));
    make(t, 1, t->dtype, DIMS(t->n[1]));
    make(t, 2, t->dtype, DIMS(t->n[0], t->n[1]));
    make(t, 3, t->dtype, DIMS(t->n[0], t->n[1]));
    make(t, 4, DTYPE_F32, DIMS(t->n[0]));
    make(t, 5, DTYPE_F32, DIMS(t->n[1]));
}

static int run_rmsnorm_fwd(struct bench *t)
{
    return t->b->ops->rmsnorm_fwd(t->b, &t->x[2], &t->x[4], &t->x[0], &t->x[1], 1e-5F,
                                  &t->err);
}

static int run_rmsnorm_bwd(struct bench *t)
{
    return t->b->ops->rmsnorm_bwd(t->b, &t->x[2], &t->x[5], &t->x[3], NULL, &t->x[0],
                                  &t->x[1], &t->x[4], &t->err);
}

/* n = N, F */
static void make_swiglu(struct bench *t)
{
    make(t, 0, t->dtype, DIMS(t->n[0], 2 * t->n[1]));
    make(t, 1, t->dtype, DIMS(t->n[0], t->n[1]));
    make(t, 2, t->dtype, DIMS(t->n[0], t->n[1]));
    make(t, 3, t->dtype, DIMS(t->n[0], 2 * t->n[1]));
}

static int run_swiglu_fwd(struct bench *t)
{
    return t->b->ops->swiglu_fwd(t->b, &t->x[1], &t->x[0], &t->err);
}

static int run_swiglu_bwd(struct bench *t)
{
    return t->b->ops->swiglu_bwd(t->b, &t->x[3], &t->x[2], &t->x[0], &t->err);
}

static int run_gelu_fwd(struct bench *t)
{
    return t->b->ops->act_fwd(t->b, &t->x[3], &t->x[0], ACT_QUICK_GELU, &t->err);
}

static int run_gelu_bwd(struct bench *t)
{
    return t->b->ops->act_bwd(t->b, &t->x[3], &t->x[0], &t->x[0], ACT_QUICK_GELU,
                              &t->err);
}

/* as many elements as n, in one tensor */
static void make_adamw(struct bench *t)
{
    struct update_item *items = calloc(1, sizeof(*items));

    for (int i = 0; i < 4; i++)
        make(t, i, DTYPE_F32, DIMS(t->n[0]));
    make(t, 4, DTYPE_F32, DIMS(4)); /* room for a verdict */
    t->b->ops->zero(t->b, t->x[2].data, tensor_bytes(&t->x[2]), &t->err);
    if (items)
        *items = (struct update_item){.master = t->x[0].data,
                                      .m = t->x[1].data,
                                      .v = t->x[2].data,
                                      .grad = t->x[3].data,
                                      .n = t->n[0],
                                      .has_decay = true};
    update_list_init(&t->list, t->b, items, items ? 1 : 0, DTYPE_F32, &t->err);
}

static int run_adamw(struct bench *t)
{
    struct adamw_args args = {1e-3F, 0.9F, 0.98F, 1e-8F, 0.1F, 10};
    const struct update_verdict fine = {.scale = 1, .is_finite = true};
    struct update_verdict *verdict = t->x[4].data;

    if (t->b->ops->upload(t->b, verdict, &fine, sizeof(fine), &t->err) < 0)
        return -1;
    return t->b->ops->adamw(t->b, &t->list, verdict, &args, &t->err);
}

/* Seconds of one call: the best of many, since other processes only ever add to it. */
static double best_of(struct bench *t, int (*run)(struct bench *))
{
    double best = INFINITY, total = 0;

    if (run(t) < 0)
        return NAN;
    for (int i = 0; total < SECONDS_MIN || i < 3; i++) {
        int64_t start = clock_mono_ns();
        double seconds;

        if (run(t) < 0 || t->b->ops->sync(t->b, &t->err) < 0)
            return NAN;
        seconds = (double)(clock_mono_ns() - start) * 1e-9;
        best = seconds < best ? seconds : best;
        total += seconds;
    }
    return best;
}

static double measure(struct bench *t, const struct row *row)
{
    double seconds;

    memset(t->x, 0, sizeof(t->x));
    memcpy(t->n, row->n, sizeof(t->n));
    t->dtype = row->dtype;
    row->make(t);
    seconds = best_of(t, row->run);
    update_list_fini(&t->list, t->b);
    for (int i = 0; i < TENSORS_MAX; i++)
        t->b->ops->free(t->b, t->x[i].data);
    return seconds;
}

static void print_row(struct bench *t, const struct row *row)
{
    double seconds = measure(t, row);
    double peak = t->peak[row->dtype == DTYPE_BF16];

    printf("%-36s %-5s %10.3f", row->name, dtype_name(row->dtype), seconds * 1e3);
    if (row->flops > 0)
        printf(" %10.1f %7.0f %%", row->flops / seconds * 1e-9,
               row->flops / seconds * 1e-9 / peak * 100);
    else
        printf(" %10s %9s", "", "");
    if (row->bytes > 0)
        printf(" %8.1f", row->bytes / seconds * 1e-9);
    printf("\n");
}

#define MATMUL(type, m, n, k)                                                            \
    {                                                                                    \
        "matmul " #m "x" #n "x" #k, make_matmul, run_matmul, type,                       \
            2.0 * (m) * (n) * (k), 0,                                                    \
        {                                                                                \
            m, n, k                                                                      \
        }                                                                                \
    }
#define MATMUL_DW(type, m, n, k)                                                         \
    {                                                                                    \
        "matmul dw " #m "x" #n "x" #k, make_matmul_dw, run_matmul_dw, type,              \
            2.0 * (m) * (n) * (k), 0,                                                    \
        {                                                                                \
            m, n, k                                                                      \
        }                                                                                \
    }
/* two products forward, five backward; half of them masked */
#define ATTENTION(type, b, t, h, k)                                                      \
    {"attention fwd causal B" #b " T" #t " H" #h " K" #k,                                \
     make_attention,                                                                     \
     run_attention_fwd,                                                                  \
     type,                                                                               \
     2.0 * (b) * (h) * (t) * (t) * (k),                                                  \
     0,                                                                                  \
     {b, t, h, k, 1}},                                                                   \
    {                                                                                    \
        "attention bwd causal B" #b " T" #t " H" #h " K" #k, make_attention_bwd,         \
            run_attention_bwd, type, 5.0 * (b) * (h) * (t) * (t) * (k), 0,               \
        {                                                                                \
            b, t, h, k, 1                                                                \
        }                                                                                \
    }

static const struct row rows[] = {
    MATMUL(DTYPE_F32, 3200, 96, 96),
    MATMUL(DTYPE_F32, 3200, 512, 96),
    MATMUL(DTYPE_F32, 3200, 96, 512),
    MATMUL_DW(DTYPE_F32, 96, 96, 3200),
    MATMUL_DW(DTYPE_F32, 512, 96, 3200),
    ATTENTION(DTYPE_F32, 32, 100, 4, 24),
    ATTENTION(DTYPE_F32, 1, 1024, 8, 64),
    {"rmsnorm fwd 3200x96",
     make_norm,
     run_rmsnorm_fwd,
     DTYPE_F32,
     0,
     2.0 * 4 * 3200 * 96,
     {3200, 96}},
    {"rmsnorm bwd 3200x96",
     make_norm,
     run_rmsnorm_bwd,
     DTYPE_F32,
     0,
     3.0 * 4 * 3200 * 96,
     {3200, 96}},
    {"swiglu fwd 3200x256",
     make_swiglu,
     run_swiglu_fwd,
     DTYPE_F32,
     0,
     3.0 * 4 * 3200 * 256,
     {3200, 256}},
    {"swiglu bwd 3200x256",
     make_swiglu,
     run_swiglu_bwd,
     DTYPE_F32,
     0,
     5.0 * 4 * 3200 * 256,
     {3200, 256}},
    {"quick gelu fwd 3200x512",
     make_swiglu,
     run_gelu_fwd,
     DTYPE_F32,
     0,
     2.0 * 4 * 3200 * 512,
     {3200, 256}},
    {"quick gelu bwd 3200x512",
     make_swiglu,
     run_gelu_bwd,
     DTYPE_F32,
     0,
     3.0 * 4 * 3200 * 512,
     {3200, 256}},
    {"adamw 1M", make_adamw, run_adamw, DTYPE_F32, 0, 8.0 * 4 * 1e6, {1000000}},
    MATMUL(DTYPE_BF16, 3200, 96, 96),
    MATMUL(DTYPE_BF16, 3200, 512, 96),
    MATMUL_DW(DTYPE_BF16, 512, 96, 3200),
    ATTENTION(DTYPE_BF16, 32, 100, 4, 24),
};

int main(int argc, char **argv)
{
    static const struct row peaks[2] = {MATMUL(DTYPE_F32, 1024, 1024, 1024),
                                        MATMUL(DTYPE_BF16, 1024, 1024, 1024)};
    struct bench bench = {0};
    int n_threads = argc > 1 ? (int)strtol(argv[1], NULL, 10) : 1;

    if (backend_create(&bench.b, argc > 2 ? argv[2] : "cpu", 0, n_threads, &bench.err) <
        0) {
        fprintf(stderr, "bench_ops: %s\n", bench.err.text);
        return 5;
    }
    printf("backend %s, %d thread(s), bf16 units: %s\n\n", bench.b->ops->name, n_threads,
           backend_is_fast(bench.b, DTYPE_BF16) ? "yes" : "no");
    printf("%-36s %-5s %10s %10s %9s %8s\n", "operation", "type", "ms", "GFLOP/s",
           "of peak", "GB/s");
    for (int i = 0; i < 2; i++) {
        bench.peak[i] = peaks[i].flops / measure(&bench, &peaks[i]) * 1e-9;
        printf("%-36s %-5s %10s %10.1f\n", "large product (peak)",
               dtype_name(peaks[i].dtype), "", bench.peak[i]);
    }
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        print_row(&bench, &rows[i]);
    backend_destroy(bench.b);
    if (bench.err.code)
        fprintf(stderr, "bench_ops: %s\n", bench.err.text);
    return bench.err.code ? 5 : 0;
}
