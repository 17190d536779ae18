/* test_cuda_fused.c - what the CUDA backend does in one pass, counted over the stand-ins, and
 * that it does the same in several where cuBLASLt has no epilogue for it
 */
#include "model/nn/stack.h"
#include "tests/cuda_host/counts.h"
#include "tests/op/op_compare.h"

#include <stdlib.h>
#include <string.h>

#define M 24
#define N 32
#define K 16

/* Of this thread, since it began. */
struct cuda_counts {
    uint64_t kernels;  /* own ones */
    uint64_t products; /* of cuBLASLt, bare */
    uint64_t fused;    /* with an epilogue */
};

static struct cuda_counts counts_now(void)
{
    struct cuda_host_counts now = cuda_host_counts();

    return (struct cuda_counts){now.n_kernels, now.n_products, now.n_fused};
}

static struct cuda_counts counts_since(const struct cuda_counts *before)
{
    struct cuda_counts now = counts_now();

    return (struct cuda_counts){now.kernels - before->kernels,
                                now.products - before->products,
                                now.fused - before->fused};
}

/* ---- one product ---- */

/* What a product is asked for, in bf16, beside dimensions that suit cuBLASLt. */
struct asked {
    const char *what;
    bool has_bias, has_residual, keeps, is_back, is_weights; /* the last: dw and db */
    enum activation act;
    struct cuda_counts want;
};

static int run_asked(struct backend *b, const struct asked *asked, struct err *err)
{
    const int64_t nk[] = {N, K}, mk[] = {M, K}, mn[] = {M, N}, n = N;
    struct tensor a, w, c, other, bias, dw, db;
    struct matmul_args args = {.trans_b = !asked->is_back,
                               .bias = asked->has_bias ? &bias : NULL,
                               .residual = asked->has_residual ? &other : NULL,
                               .act = asked->act,
                               .pre_act = asked->keeps ? &other : NULL,
                               .slope_at = asked->is_back ? &other : NULL};
    struct matmul_args sums = {.trans_a = true, .beta = 1, .bias_grad = &db};
    int rc = -1;

    /* memory is the backend's until it is destroyed */
    if (backend_tensor(b, &a, DTYPE_BF16, 2, mk, err) < 0 ||
        backend_tensor(b, &w, DTYPE_BF16, 2, asked->is_back ? (int64_t[]){K, N} : nk,
                       err) < 0 ||
        backend_tensor(b, &c, DTYPE_BF16, 2, mn, err) < 0 ||
        backend_tensor(b, &other, DTYPE_BF16, 2, mn, err) < 0 ||
        backend_tensor(b, &bias, DTYPE_BF16, 1, &n, err) < 0 ||
        backend_tensor(b, &dw, DTYPE_F32, 2, nk, err) < 0 ||
        backend_tensor(b, &db, DTYPE_F32, 1, &n, err) < 0)
        return -1;
    rc = asked->is_weights ? b->ops->matmul(b, &dw, &c, &a, &sums, err)
                           : b->ops->matmul(b, &c, &a, &w, &args, err);
    if (rc == 0)
        rc = b->ops->sync(b, err);
    for (int i = 0; i < 7; i++)
        b->ops->free(b, (void *[]){a.data, w.data, c.data, other.data, bias.data, dw.data,
                                   db.data}[i]);
    return rc;
}

static void check_asked(struct check *check, struct backend *b, const struct asked *asked)
{
    struct cuda_counts before = counts_now(), got;
    struct err err = {0};

    check_that(check, run_asked(b, asked, &err) == 0, "%s: %s", asked->what, err.text);
    got = counts_since(&before);
    check_that(check, memcmp(&got, &asked->want, sizeof(got)) == 0,
               "%s takes %d kernels, %d bare and %d fused products", asked->what,
               (int)got.kernels, (int)got.products, (int)got.fused);
}

static void what_cublaslt_can_do_goes_with_the_product(struct check *check)
{
    static const struct asked all[] = {
        {.what = "a product", .want = {0, 1, 0}},
        {.what = "a bias", .has_bias = true, .want = {0, 0, 1}},
        {.what = "a residual", .has_residual = true, .want = {0, 1, 0}},
        {.what = "bias and residual",
         .has_bias = true,
         .has_residual = true,
         .want = {0, 0, 1}},
        {.what = "GELU's tanh form", .act = ACT_GELU_TANH, .want = {0, 0, 1}},
        {.what = "GELU's tanh form, kept",
         .has_bias = true,
         .act = ACT_GELU_TANH,
         .keeps = true,
         .want = {0, 0, 1}},
        {.what = "its slope", .act = ACT_GELU_TANH, .is_back = true, .want = {0, 0, 1}},
        {.what = "GELU, kept",
         .has_bias = true,
         .act = ACT_GELU,
         .keeps = true,
         .want = {1, 0, 1}},
        {.what = "slope of quick GELU",
         .act = ACT_QUICK_GELU,
         .is_back = true,
         .want = {1, 1, 0}},
        {.what = "gradients of weights and bias", .is_weights = true, .want = {1, 0, 1}},
    };
    struct backend *b = op_open_cuda(check, NULL);

    for (size_t i = 0; b && i < sizeof(all) / sizeof(all[0]); i++)
        check_asked(check, b, &all[i]);
    backend_destroy(b);
}

static void what_cublaslt_cannot_do_comes_behind_it(struct check *check)
{
    static const char *const epilogues[] = {"bias", "none"};

    for (size_t i = 0; i < sizeof(epilogues) / sizeof(epilogues[0]); i++) {
        struct cuda_counts before, got;
        struct backend *b;

        setenv("CUDA_HOST_LT_EPILOGUES", epilogues[i], 1);
        b = op_open_cuda(check, NULL);
        before = b ? counts_now() : (struct cuda_counts){0};
        for (int c = 0; b && c < op_n_cases; c++) {
            struct op_case op = op_cases[c];

            op.flags |= OP_ROUNDS_TWICE; /* a bias is behind the product now */
            if (strncmp(op.name, "matmul", strlen("matmul")) == 0)
                op_check_cases(check, b, &op, 1);
        }
        got = b ? counts_since(&before) : before;
        check_that(check, got.products > 0 && (got.fused > 0) == (i == 0),
                   "'%s': %d fused products", epilogues[i], (int)got.fused);
        backend_destroy(b);
    }
    unsetenv("CUDA_HOST_LT_EPILOGUES");
}

/* ---- one layer ---- */

#define TOKENS 16
#define WIDTH 32
#define HEAD 8
#define FFN 48

/* A layer of its own memory, zeros throughout. */
struct layer {
    struct nn nn;
    struct stack stack;
    struct block_rows rows;
    struct tensor d, positions;
    struct arena arena, weights;
};

static struct block_config config_of(bool is_decoder, bool is_trained)
{
    return (struct block_config){
        .width = WIDTH,
        .n_heads = WIDTH / HEAD,
        .n_kv_heads = WIDTH / HEAD,
        .head_size = HEAD,
        .ffn_width = FFN,
        .norm = {is_decoder ? NN_NORM_RMS : NN_NORM_LAYER, 1e-5F},
        .is_gated = is_decoder,
        .is_causal = is_decoder,
        .is_trained = is_trained,
        .act = is_decoder ? ACT_NONE : ACT_GELU_TANH,
        .rope = {.rot_dims = is_decoder ? HEAD : 0, .theta = 1e4F},
    };
}

/* All weights there are, or their gradients. */
static void place_weights(struct block_weights *w, bool has_biases, enum dtype dtype,
                          int64_t up, struct arena *arena)
{
    const int64_t s = 3 * WIDTH;

    w->norm1_w = arena_take_1d(arena, dtype, WIDTH);
    w->qkv_w = arena_take_2d(arena, dtype, s, WIDTH);
    w->out_w = arena_take_2d(arena, dtype, WIDTH, WIDTH);
    w->norm2_w = arena_take_1d(arena, dtype, WIDTH);
    w->up_w = arena_take_2d(arena, dtype, up, WIDTH);
    w->down_w = arena_take_2d(arena, dtype, WIDTH, FFN);
    if (!has_biases)
        return;
    w->norm1_b = arena_take_1d(arena, dtype, WIDTH);
    w->qkv_b = arena_take_1d(arena, dtype, s);
    w->out_b = arena_take_1d(arena, dtype, WIDTH);
    w->norm2_b = arena_take_1d(arena, dtype, WIDTH);
    w->up_b = arena_take_1d(arena, dtype, up);
    w->down_b = arena_take_1d(arena, dtype, WIDTH);
}

static void place(struct layer *l, struct arena *arena)
{
    const struct stack_policy policy = {.is_training = true, .n_layers = 1};
    const struct block_config *config = &l->stack.config;
    struct block *block = l->stack.blocks;
    int64_t up = config->is_gated ? 2 * FFN : FFN;

    *block = (struct block){0};
    place_weights(&block->w, !config->is_gated, DTYPE_BF16, up, arena);
    if (config->is_trained)
        place_weights(&block->dw, !config->is_gated, DTYPE_F32, up, arena);
    l->positions = arena_take_1d(arena, DTYPE_I32, TOKENS);
    l->rows = (struct block_rows){1, TOKENS, &l->positions};
    l->d = arena_take_2d(arena, DTYPE_BF16, TOKENS, WIDTH);
    stack_layout(&l->stack, &policy, &l->rows, DTYPE_BF16, arena);
    stack_scratch_layout(&l->stack, &l->rows, DTYPE_BF16, arena);
}

static int layer_open(struct layer *l, struct backend *b, bool is_decoder,
                      bool is_trained, struct err *err)
{
    struct block_config config = config_of(is_decoder, is_trained);
    struct arena plan = {0};

    *l = (struct layer){.nn = {.backend = b, .dtype = DTYPE_BF16}};
    if (stack_init(&l->stack, &config, 1, err) < 0)
        return -1;
    place(l, &plan);
    if (arena_reserve(&l->arena, b, plan.peak, err) < 0 ||
        b->ops->zero(b, l->arena.base, plan.peak, err) < 0)
        return -1;
    place(l, &l->arena);
    return 0;
}

static void layer_close(struct layer *l)
{
    stack_fini(&l->stack);
    arena_fini(&l->arena);
    nn_fini(&l->nn);
}

/* The backend's operations with attention counted by itself: its kernels are a matter of
 * their own. */
static struct {
    struct backend_ops ops;
    const struct backend_ops *real;
    uint64_t kernels; /* of attention */
} apart;

static int fwd_apart(struct backend *b, struct tensor *o, struct tensor *lse,
                     const struct tensor *q, const struct tensor *k,
                     const struct tensor *v, const struct attention_args *args,
                     struct err *err)
{
    struct cuda_counts before = counts_now();
    int rc = apart.real->attention_fwd(b, o, lse, q, k, v, args, err);

    apart.kernels += counts_since(&before).kernels;
    return rc;
}

static int bwd_apart(struct backend *b, struct tensor *dq, struct tensor *dk,
                     struct tensor *dv, const struct tensor *d_o, const struct tensor *q,
                     const struct tensor *k, const struct tensor *v,
                     const struct tensor *o, const struct tensor *lse,
                     const struct attention_args *args, struct err *err)
{
    struct cuda_counts before = counts_now();
    int rc = apart.real->attention_bwd(b, dq, dk, dv, d_o, q, k, v, o, lse, args, err);

    apart.kernels += counts_since(&before).kernels;
    return rc;
}

/* Most that a layer may ask for in either pass, attention aside: fewer is better, more is a
 * pass over memory that was not there. */
struct bound {
    const char *what;
    bool is_decoder, is_trained;
    struct cuda_counts fwd, bwd;
};

/* counts of one pass, without attention */
static int run_pass(struct layer *l, bool is_forward, struct cuda_counts *counts,
                    struct err *err)
{
    struct backend *b = l->nn.backend;
    struct cuda_counts before = counts_now();
    int rc;

    apart.kernels = 0;
    rc = is_forward ? stack_fwd(&l->nn, &l->stack, &l->rows, NULL, err)
                    : stack_bwd_part(&l->nn, &l->stack, &l->d, 0, l->stack.n_layers,
                                     &l->rows, err);
    *counts = counts_since(&before);
    counts->kernels -= apart.kernels;
    return rc < 0 ? -1 : b->ops->sync(b, err);
}

static bool is_within(const struct cuda_counts *got, const struct cuda_counts *most)
{
    uint64_t products = got->products + got->fused;

    return products > 0 && products <= most->products && got->kernels <= most->kernels;
}

static void check_layer(struct check *check, struct backend *b, const struct bound *bound)
{
    struct cuda_counts fwd = {0}, bwd = {0};
    struct err err = {0};
    struct layer l;

    check_that(check,
               layer_open(&l, b, bound->is_decoder, bound->is_trained, &err) == 0 &&
                   run_pass(&l, true, &fwd, &err) == 0 &&
                   run_pass(&l, false, &bwd, &err) == 0,
               "%s", err.text);
    printf("%s: forward %d kernels and %d products, backward %d and %d\n", bound->what,
           (int)fwd.kernels, (int)(fwd.products + fwd.fused), (int)bwd.kernels,
           (int)(bwd.products + bwd.fused));
    check_that(check, is_within(&fwd, &bound->fwd) && is_within(&bwd, &bound->bwd),
               "%s asks for more than it did", bound->what);
    layer_close(&l);
}

/* Kernels forward: two norms, and of a decoder rotation and SwiGLU. Backward the same; norms
 * that are trained add up sums of blocks, each gradient of a bias is added by a kernel. */
static void a_layer_takes_no_more_passes_than_it_did(struct check *check)
{
    static const struct bound bounds[] = {
        {"decoder, frozen", true, false, {4, 4, 0}, {4, 4, 0}},
        {"decoder, trained", true, true, {4, 4, 0}, {6, 8, 0}},
        {"encoder, frozen", false, false, {2, 4, 0}, {2, 4, 0}},
        {"encoder, trained", false, true, {2, 4, 0}, {10, 8, 0}},
    };
    struct backend *b = op_open_cuda(check, NULL);

    if (!b)
        return;
    apart.real = b->ops;
    apart.ops = *b->ops;
    apart.ops.attention_fwd = fwd_apart;
    apart.ops.attention_bwd = bwd_apart;
    b->ops = &apart.ops;
    for (size_t i = 0; i < sizeof(bounds) / sizeof(bounds[0]); i++)
        check_layer(check, b, &bounds[i]);
    b->ops = apart.real;
    backend_destroy(b);
}

int main(void)
{
    struct check check = {0};

    check_run(&check, what_cublaslt_can_do_goes_with_the_product);
    check_run(&check, what_cublaslt_cannot_do_comes_behind_it);
    check_run(&check, a_layer_takes_no_more_passes_than_it_did);
    return check_end(&check);
}
