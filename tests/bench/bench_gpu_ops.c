/* Products and attention of a 7B model. */
#include "tests/bench/bench_gpu.h"

#include "common/base/rng.h"
#include "model/backend/half.h"
#include "tests/bench/bench_gpu_lt.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define COLD_BYTES                                                                       \
    ((int64_t)256 << 20) /* more than any cache: what copies fill together */
#define COPIES_MAX 16
#define BLOCK ((int64_t)1 << 18) /* random numbers, repeated over each tensor */
#define TOKENS 4096
#define TENSORS_MAX (3 * COPIES_MAX)

/* Tensors that go away together. */
struct pile {
    struct backend *b;
    void *memory[TENSORS_MAX];
    int n;
};

static void pile_fini(struct pile *pile)
{
    for (int i = 0; i < pile->n; i++)
        pile->b->ops->free(pile->b, pile->memory[i]);
    pile->n = 0;
}

/* Random numbers; F32: zeros, to be added to. */
static int pile_add(struct pile *pile, struct tensor *out, enum dtype dtype, int n_dims,
                    const int64_t *dims, struct err *err)
{
    struct rng_key key = {1, 2};
    int64_t n, block;
    uint16_t *host;
    int rc = 0;

    if (backend_tensor(pile->b, out, dtype, n_dims, dims, err) < 0)
        return -1;
    pile->memory[pile->n++] = out->data;
    if (dtype == DTYPE_F32)
        return 0;
    n = tensor_count(out);
    block = n < BLOCK ? n : BLOCK;
    host = malloc((size_t)block * sizeof(*host));
    if (!host)
        return err_set(err, ERR_NOMEM, "cannot allocate random numbers");
    for (int64_t i = 0; i < block; i++)
        host[i] = bf16_of_float((float)rng_normal(key, (uint64_t)i));
    for (int64_t at = 0; at < n && rc == 0; at += block)
        rc = pile->b->ops->upload(
            pile->b, (char *)out->data + (size_t)at * sizeof(*host), host,
            (size_t)(n - at < block ? n - at : block) * sizeof(*host), err);
    free(host);
    return rc;
}

/* ---- products ---- */

struct product {
    struct pile pile;
    struct lt_shape shape;
    struct tensor a[COPIES_MAX], b[COPIES_MAX], c[COPIES_MAX];
    int64_t n_run;
};

static int run_ours(void *arg, int64_t n, struct err *err)
{
    struct product *p = arg;
    struct backend *b = p->pile.b;
    const struct matmul_args args = {.trans_a = p->shape.trans_a,
                                     .trans_b = p->shape.trans_b,
                                     .beta = p->shape.adds ? 1 : 0};

    for (int64_t i = 0; i < n; i++) {
        int64_t copy = p->n_run++ % p->shape.n_copies;

        if (b->ops->matmul(b, &p->c[copy], &p->a[copy], &p->b[copy], &args, err) < 0)
            return -1;
    }
    return b->ops->sync(b, err);
}

static int product_init(struct product *p, struct err *err)
{
    const struct lt_shape *s = &p->shape;
    const int64_t a[] = {s->trans_a ? s->k : s->m, s->trans_a ? s->m : s->k};
    const int64_t b[] = {s->trans_b ? s->n : s->k, s->trans_b ? s->k : s->n};
    const int64_t c[] = {s->m, s->n};

    for (int i = 0; i < s->n_copies; i++)
        if (pile_add(&p->pile, &p->a[i], s->type, 2, a, err) < 0 ||
            pile_add(&p->pile, &p->b[i], s->type, 2, b, err) < 0 ||
            pile_add(&p->pile, &p->c[i], s->c_type, 2, c, err) < 0)
            return -1;
    return 0;
}

/* What one product moves when nothing is in a cache. */
static double product_bytes(const struct lt_shape *s)
{
    return (double)dtype_bytes(s->type) * (double)(s->m * s->k + s->k * s->n) +
           (double)dtype_bytes(s->c_type) * (double)(s->m * s->n);
}

static struct series rates(const struct series *seconds, double work)
{
    struct series out = {.n = seconds->n};

    for (int i = 0; i < out.n; i++)
        out.values[i] = work / seconds->values[i];
    return out;
}

/* Few rows: how fast the weights are read; many: operations. */
static void report(struct bench *bench, const char *key, const struct lt_shape *s,
                   const struct timed *timed, int n_tried)
{
    static const char *const sides[] = {"vneva", "cublaslt"};
    bool is_decode = s->m <= 8 && !bench->is_tiny;
    double work = is_decode ? product_bytes(s) * 1e-9
                            : 2e-12 * (double)s->m * (double)s->n * (double)s->k;
    char note[96];

    for (int i = 0; i < 2; i++) {
        struct series rate = rates(&timed[i].seconds, work);

        snprintf(note, sizeof(note), "%lld x %lld x %lld", (long long)s->m,
                 (long long)s->n, (long long)s->k);
        if (i == 1)
            snprintf(note, sizeof(note), "fastest of %d algorithms", n_tried);
        bench_figure(bench, key, sides[i], &rate, is_decode ? "GB/s" : "TFLOP/s", note);
    }
}

static int measure_product(struct bench *bench, struct lt *lt, const char *key,
                           struct lt_shape shape, struct err *err)
{
    struct product *p = calloc(1, sizeof(*p));
    struct timed timed[2];
    int n_tried = 0, rc = -1;

    if (!p)
        return err_set(err, ERR_NOMEM, "cannot allocate a product");
    shape.n_copies = (int)fmin(fmax((double)COLD_BYTES / product_bytes(&shape), 1),
                               bench->is_tiny ? 2 : COPIES_MAX);
    p->shape = shape;
    p->pile.b = bench->backend;
    timed[0] = (struct timed){.run = run_ours, .arg = p};
    timed[1] = (struct timed){.run = lt_run, .arg = lt};
    if (product_init(p, err) == 0 && lt_prepare(lt, &shape, &n_tried, err) == 0 &&
        bench_time(bench, timed, 2, err) == 0) {
        report(bench, key, &shape, timed, n_tried);
        rc = 0;
    }
    pile_fini(&p->pile);
    free(p);
    return rc;
}

/* y [rows,to] = x w^T */
static struct lt_shape forward(int64_t rows, int64_t to, int64_t from)
{
    return (struct lt_shape){.m = rows,
                             .n = to,
                             .k = from,
                             .trans_b = true,
                             .type = DTYPE_BF16,
                             .c_type = DTYPE_BF16};
}

/* Forward, and gradients of x and w as nn/ asks for them. */
static int measure_layer(struct bench *bench, struct lt *lt, const char *name, int64_t to,
                         int64_t from, struct err *err)
{
    int64_t rows = bench->is_tiny ? 24 : TOKENS;
    const struct {
        const char *what;
        struct lt_shape shape;
    } all[] = {
        {"fwd", forward(rows, to, from)},
        {"dgrad",
         {.m = rows, .n = from, .k = to, .type = DTYPE_BF16, .c_type = DTYPE_BF16}},
        {"wgrad",
         {.m = to,
          .n = from,
          .k = rows,
          .trans_a = true,
          .adds = true,
          .type = DTYPE_BF16,
          .c_type = DTYPE_F32}},
        {"1row", forward(1, to, from)},
        {"8rows", forward(8, to, from)},
    };

    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        char key[KEY_MAX];

        snprintf(key, sizeof(key), "matmul.%s.%s", name, all[i].what);
        if (measure_product(bench, lt, key, all[i].shape, err) < 0)
            return err_wrap(err, "%s", key);
    }
    return 0;
}

int bench_matmul(struct bench *bench, struct err *err)
{
    static const struct {
        const char *name;
        int64_t to, from;
    } layers[] = {{"qkv", 12288, 4096},
                  {"out", 4096, 4096},
                  {"upgate", 22016, 4096},
                  {"down", 4096, 11008},
                  {"head", 32000, 4096}};
    int64_t smaller = bench->is_tiny ? 256 : 1;
    struct lt *lt = NULL;
    int rc = lt_open(&lt, err);

    for (size_t i = 0; i < sizeof(layers) / sizeof(layers[0]) && rc == 0; i++)
        rc = measure_layer(bench, lt, layers[i].name, layers[i].to / smaller,
                           layers[i].from / smaller, err);
    lt_close(lt);
    return rc;
}

/* ---- attention ---- */

struct attention {
    struct pile pile;
    struct tensor joint, d_joint, q, k, v, dq, dk, dv, o, d_o, lse;
    struct attention_args args;
    bool is_bwd;
};

static int run_attention(void *arg, int64_t n, struct err *err)
{
    struct attention *a = arg;
    struct backend *b = a->pile.b;

    for (int64_t i = 0; i < n; i++)
        if ((a->is_bwd
                 ? b->ops->attention_bwd(b, &a->dq, &a->dk, &a->dv, &a->d_o, &a->q, &a->k,
                                         &a->v, &a->o, &a->lse, &a->args, err)
                 : b->ops->attention_fwd(b, &a->o, &a->lse, &a->q, &a->k, &a->v, &a->args,
                                         err)) < 0)
            return -1;
    return b->ops->sync(b, err);
}

/* Columns of a joint product, as in the model. */
static struct tensor part_of(const struct tensor *joint, int64_t width, int part)
{
    return tensor_of((char *)joint->data +
                         (size_t)(width * part) * dtype_bytes(joint->dtype),
                     joint->dtype, 3, (const int64_t[]){1, joint->dims[1], width});
}

static int attention_init(struct attention *a, int64_t tokens, int64_t heads,
                          int64_t head_size, struct err *err)
{
    int64_t width = heads * head_size;
    const int64_t joint[] = {1, tokens, 3 * width}, out[] = {1, tokens, width};
    const int64_t lse[] = {1, heads, tokens};

    if (pile_add(&a->pile, &a->joint, DTYPE_BF16, 3, joint, err) < 0 ||
        pile_add(&a->pile, &a->d_joint, DTYPE_BF16, 3, joint, err) < 0 ||
        pile_add(&a->pile, &a->o, DTYPE_BF16, 3, out, err) < 0 ||
        pile_add(&a->pile, &a->d_o, DTYPE_BF16, 3, out, err) < 0 ||
        pile_add(&a->pile, &a->lse, DTYPE_F32, 3, lse, err) < 0)
        return -1;
    a->q = part_of(&a->joint, width, 0);
    a->k = part_of(&a->joint, width, 1);
    a->v = part_of(&a->joint, width, 2);
    a->dq = part_of(&a->d_joint, width, 0);
    a->dk = part_of(&a->d_joint, width, 1);
    a->dv = part_of(&a->d_joint, width, 2);
    a->args = (struct attention_args){.n_heads = heads,
                                      .n_kv_heads = heads,
                                      .causal = true,
                                      .scale = 1 / sqrtf((float)head_size),
                                      .q_stride = 3 * width,
                                      .kv_stride = 3 * width};
    return 0;
}

/* Forward first: backward reads what it left. */
static int measure_attention(struct bench *bench, struct backend *b, const char *side,
                             struct err *err)
{
    int64_t tokens = bench->is_tiny ? 24 : TOKENS, heads = bench->is_tiny ? 2 : 32;
    int64_t head_size = bench->is_tiny ? 8 : 128;
    /* q k^T and p v of the pairs that are not masked; backward has five such products */
    double flops =
        4.0 * (double)(heads * head_size) * (double)tokens * (double)(tokens + 1) / 2;
    struct attention a = {.pile = {.b = b}};
    struct timed timed = {.run = run_attention, .arg = &a};
    struct backend_about about;
    int rc = attention_init(&a, tokens, heads, head_size, err);

    for (int bwd = 0; bwd < 2 && rc == 0; bwd++) {
        struct series rate;

        a.is_bwd = bwd;
        rc = bench_time(bench, &timed, 1, err);
        if (rc < 0)
            break;
        rate = rates(&timed.seconds, flops * (bwd ? 2.5 : 1) * 1e-12);
        b->ops->about(b, &about);
        bench_figure(bench, bwd ? "attention.bwd" : "attention.fwd", side, &rate,
                     "TFLOP/s", about.attention);
    }
    pile_fini(&a.pile);
    return rc;
}

int bench_attention(struct bench *bench, struct err *err)
{
    struct backend *own = NULL;
    int rc;

    if (measure_attention(bench, bench->backend, "vneva", err) < 0)
        return err_wrap(err, "attention as it is chosen");
    setenv("VNEVA_CUDA_ATTENTION", "own", 1);
    rc = backend_create(&own, "cuda", 0, 0, err);
    unsetenv("VNEVA_CUDA_ATTENTION");
    if (rc == 0)
        rc = measure_attention(bench, own, "own", err);
    backend_destroy(own);
    return rc < 0 ? err_wrap(err, "attention by own kernels") : 0;
}
