/* test_op_grad.c - every backward operation of `ref` against finite differences
 *
 * With L = sum dy y, the gradient of each input is compared with the five-point formula
 *   L' = (8 (L(x+h) - L(x-h)) - (L(x+2h) - L(x-2h))) / 12h,  error O(h^4)
 * (Abramowitz, Stegun 1964, 25.3.6). L is summed in double, but y is rounded to fp32:
 * with h = 1/32 that leaves about 1e-7 / h = 3e-6 per unit of L, and h^4/30 = 3e-8 times the
 * fifth derivative. The bound, 1e-3 of the largest gradient of that input, is far above
 * both and far below any mistake in a formula.
 */
#include "model/backend/backend.h"
#include "tests/op/check.h"

#include "common/base/rng.h"

#include <stdlib.h>
#include <string.h>

#define STEP 0x1p-5F
#define BOUND 1e-3
#define INPUTS_MAX 4
#define DIMS(...) ((const int64_t[4]){__VA_ARGS__})

struct grad {
    struct backend *b;
    struct err err;
    const char *name;
    int64_t n[6];
    enum activation act;
    bool is_causal;
    const struct tensor *lens;
    /* the inputs that have gradients, those gradients, output and its gradient */
    struct tensor in[INPUTS_MAX], d_in[INPUTS_MAX], y, dy;
    struct tensor kept[3]; /* what forward keeps for backward */
    int n_in;
    void (*fwd)(struct grad *g);
    void (*bwd)(struct grad *g);
};

static struct tensor new_tensor(struct grad *g, const int64_t dims[4], uint64_t stream)
{
    struct tensor x = {0};
    int n_dims = 0;

    while (n_dims < 4 && dims[n_dims] > 0)
        n_dims++;
    if (backend_tensor(g->b, &x, DTYPE_F32, n_dims, dims, &g->err) < 0)
        abort(); /* a few KB: the machine is unusable */
    for (int64_t i = 0; i < tensor_count(&x); i++)
        ((float *)x.data)[i] =
            (float)rng_normal((struct rng_key){rng_stream(g->name), stream}, (uint64_t)i);
    return x;
}

/* The host's memory is that of `ref`. */
static struct tensor table(const int32_t *numbers, int64_t n)
{
    return tensor_of((void *)numbers, DTYPE_I32, 1, &n);
}

static void add_input(struct grad *g, const int64_t dims[4])
{
    g->in[g->n_in] = new_tensor(g, dims, (uint64_t)g->n_in);
    g->d_in[g->n_in] = new_tensor(g, dims, 0);
    /* += ones must start from 0; the others are overwritten */
    memset(g->d_in[g->n_in].data, 0, tensor_bytes(&g->d_in[g->n_in]));
    g->n_in++;
}

static void set_output(struct grad *g, const int64_t dims[4])
{
    g->y = new_tensor(g, dims, 100);
    g->dy = new_tensor(g, dims, 101);
}

static double loss(struct grad *g)
{
    double sum = 0;

    g->fwd(g);
    for (int64_t i = 0; i < tensor_count(&g->y); i++)
        sum += (double)((float *)g->dy.data)[i] * ((float *)g->y.data)[i];
    return sum;
}

static double loss_at(struct grad *g, float *x, float value)
{
    float old = *x;
    double l;

    *x = value;
    l = loss(g);
    *x = old;
    return l;
}

static double slope(struct grad *g, float *x)
{
    double near = loss_at(g, x, *x + STEP) - loss_at(g, x, *x - STEP);
    double far = loss_at(g, x, *x + 2 * STEP) - loss_at(g, x, *x - 2 * STEP);

    return (8 * near - far) / (12 * (double)STEP);
}

static void check_input(struct check *check, struct grad *g, int i)
{
    float *x = g->in[i].data, *dx = g->d_in[i].data;
    int64_t n = tensor_count(&g->in[i]), at = 0;
    double worst = 0, largest = 0;

    for (int64_t e = 0; e < n; e++) {
        double error = fabs(slope(g, &x[e]) - dx[e]);

        largest = fmax(largest, fabs((double)dx[e]));
        if (!(error <= worst)) {
            worst = error;
            at = e;
        }
    }
    check_that(check, worst <= BOUND * largest && largest > 0,
               "%s: gradient of input %d, element %lld, is off by %.3g (largest %.3g)",
               g->name, i, (long long)at, worst, largest);
}

/* Checks all inputs, then frees everything. */
static void check_grad(struct check *check, struct grad *g)
{
    loss(g);
    g->bwd(g);
    for (int i = 0; i < g->n_in; i++)
        check_input(check, g, i);
    for (int i = 0; i < INPUTS_MAX; i++) {
        g->b->ops->free(g->b, g->in[i].data);
        g->b->ops->free(g->b, g->d_in[i].data);
    }
    for (int i = 0; i < 3; i++)
        g->b->ops->free(g->b, g->kept[i].data);
    g->b->ops->free(g->b, g->y.data);
    g->b->ops->free(g->b, g->dy.data);
    backend_destroy(g->b);
}

static struct grad grad_of(const char *name, void (*fwd)(struct grad *),
                           void (*bwd)(struct grad *))
{
    struct grad g = {.name = name, .fwd = fwd, .bwd = bwd};

    if (backend_create(&g.b, "ref", 0, 1, &g.err) < 0)
        abort();
    return g;
}

/* ---- y = x w^T + bias, with the three products a linear layer makes ---- */

static void linear_fwd(struct grad *g)
{
    struct matmul_args args = {.trans_b = true, .bias = &g->in[2]};

    g->b->ops->matmul(g->b, &g->y, &g->in[0], &g->in[1], &args, &g->err);
}

static void linear_bwd(struct grad *g)
{
    struct matmul_args dx = {0}, dw = {.trans_a = true, .beta = 1};

    g->b->ops->matmul(g->b, &g->d_in[0], &g->dy, &g->in[1], &dx, &g->err);
    g->b->ops->matmul(g->b, &g->d_in[1], &g->dy, &g->in[0], &dw, &g->err);
    g->b->ops->bias_bwd(g->b, &g->d_in[2], &g->dy, &g->err);
}

static void linear_gradients_are_slopes(struct check *check)
{
    struct grad g = grad_of("linear", linear_fwd, linear_bwd);

    add_input(&g, DIMS(4, 5));
    add_input(&g, DIMS(3, 5));
    add_input(&g, DIMS(3));
    set_output(&g, DIMS(4, 3));
    check_grad(check, &g);
}

/* ---- y = x + act(x w1^T + b1) w2^T, in the four products of either pass ---- */

/* inputs x, w1, b1, w2; kept: what act is taken of, its value, the gradient of the former */
static void mlp_fwd(struct grad *g)
{
    struct matmul_args up = {
        .trans_b = true, .bias = &g->in[2], .act = g->act, .pre_act = &g->kept[0]};
    struct matmul_args down = {.trans_b = true, .residual = &g->in[0]};

    g->b->ops->matmul(g->b, &g->kept[1], &g->in[0], &g->in[1], &up, &g->err);
    g->b->ops->matmul(g->b, &g->y, &g->kept[1], &g->in[3], &down, &g->err);
}

static void mlp_bwd(struct grad *g)
{
    struct matmul_args back = {.act = g->act, .slope_at = &g->kept[0]};
    struct matmul_args dw1 = {.trans_a = true, .beta = 1, .bias_grad = &g->d_in[2]};
    struct matmul_args dw2 = {.trans_a = true, .beta = 1}, dx = {.residual = &g->dy};

    g->b->ops->matmul(g->b, &g->d_in[3], &g->dy, &g->kept[1], &dw2, &g->err);
    g->b->ops->matmul(g->b, &g->kept[2], &g->dy, &g->in[3], &back, &g->err);
    g->b->ops->matmul(g->b, &g->d_in[1], &g->kept[2], &g->in[0], &dw1, &g->err);
    g->b->ops->matmul(g->b, &g->d_in[0], &g->kept[2], &g->in[1], &dx, &g->err);
}

static void fused_products_have_gradients_that_are_slopes(struct check *check)
{
    static const enum activation acts[] = {ACT_NONE, ACT_GELU, ACT_GELU_TANH,
                                           ACT_QUICK_GELU, ACT_RELU_SQUARED};

    for (size_t i = 0; i < sizeof(acts) / sizeof(acts[0]); i++) {
        struct grad g = grad_of("mlp", mlp_fwd, mlp_bwd);

        g.act = acts[i];
        add_input(&g, DIMS(4, 5));
        add_input(&g, DIMS(6, 5));
        add_input(&g, DIMS(6));
        add_input(&g, DIMS(5, 6));
        set_output(&g, DIMS(4, 5));
        for (int k = 0; k < 3; k++)
            g.kept[k] = new_tensor(&g, DIMS(4, 6), 0);
        for (int64_t e = 0; e < 20; e++) /* far less than the way to ReLU's kink */
            ((float *)g.in[0].data)[e] *= 0.5F;
        check_grad(check, &g);
    }
}

/* ---- norms ---- */

static void layernorm_fwd(struct grad *g)
{
    g->b->ops->layernorm_fwd(g->b, &g->y, &g->kept[0], &g->kept[1], &g->in[0], &g->in[1],
                             &g->in[2], 0, 1e-5F, &g->err);
}

static void layernorm_bwd(struct grad *g)
{
    g->b->ops->layernorm_bwd(g->b, &g->d_in[0], &g->d_in[1], &g->d_in[2], &g->dy, NULL,
                             &g->in[0], &g->in[1], &g->kept[0], &g->kept[1], 0, &g->err);
}

static void layernorm1p_fwd(struct grad *g)
{
    g->b->ops->layernorm_fwd(g->b, &g->y, &g->kept[0], &g->kept[1], &g->in[0], &g->in[1],
                             &g->in[2], 1, 1e-5F, &g->err);
}

static void layernorm1p_bwd(struct grad *g)
{
    g->b->ops->layernorm_bwd(g->b, &g->d_in[0], &g->d_in[1], &g->d_in[2], &g->dy, NULL,
                             &g->in[0], &g->in[1], &g->kept[0], &g->kept[1], 1, &g->err);
}

static void check_layernorm(struct check *check, struct grad g)
{
    add_input(&g, DIMS(3, 7));
    add_input(&g, DIMS(7));
    add_input(&g, DIMS(7));
    set_output(&g, DIMS(3, 7));
    g.kept[0] = new_tensor(&g, DIMS(3), 0);
    g.kept[1] = new_tensor(&g, DIMS(3), 0);
    check_grad(check, &g);
}

static void layernorm_gradients_are_slopes(struct check *check)
{
    check_layernorm(check, grad_of("layernorm", layernorm_fwd, layernorm_bwd));
    check_layernorm(check, grad_of("layernorm1p", layernorm1p_fwd, layernorm1p_bwd));
}

static void rmsnorm_fwd(struct grad *g)
{
    g->b->ops->rmsnorm_fwd(g->b, &g->y, &g->kept[0], &g->in[0], &g->in[1], 1e-5F,
                           &g->err);
}

static void rmsnorm_bwd(struct grad *g)
{
    g->b->ops->rmsnorm_bwd(g->b, &g->d_in[0], &g->d_in[1], &g->dy, NULL, &g->in[0],
                           &g->in[1], &g->kept[0], &g->err);
}

static void rmsnorm_gradients_are_slopes(struct check *check)
{
    struct grad g = grad_of("rmsnorm", rmsnorm_fwd, rmsnorm_bwd);

    add_input(&g, DIMS(3, 7));
    add_input(&g, DIMS(7));
    set_output(&g, DIMS(3, 7));
    g.kept[0] = new_tensor(&g, DIMS(3), 0);
    check_grad(check, &g);
}

/* y = norm(sum) + sum, sum = x + added: the second way back is d_residual */

static void add_layernorm_fwd(struct grad *g)
{
    g->b->ops->add_layernorm_fwd(g->b, &g->y, &g->kept[0], &g->kept[1], &g->kept[2],
                                 &g->in[0], &g->in[3], &g->in[1], &g->in[2], 1, 1e-5F,
                                 &g->err);
    g->b->ops->add(g->b, &g->y, &g->y, &g->kept[2], 1, &g->err);
}

static void add_layernorm_bwd(struct grad *g)
{
    struct tensor *dx = &g->d_in[0];

    memcpy(dx->data, g->dy.data, tensor_bytes(dx)); /* added to in place */
    g->b->ops->layernorm_bwd(g->b, dx, &g->d_in[1], &g->d_in[2], &g->dy, dx, &g->kept[2],
                             &g->in[1], &g->kept[0], &g->kept[1], 1, &g->err);
    memcpy(g->d_in[3].data, dx->data, tensor_bytes(dx));
}

static void add_rmsnorm_fwd(struct grad *g)
{
    g->b->ops->add_rmsnorm_fwd(g->b, &g->y, &g->kept[0], &g->kept[2], &g->in[0],
                               &g->in[2], &g->in[1], 1e-5F, &g->err);
    g->b->ops->add(g->b, &g->y, &g->y, &g->kept[2], 1, &g->err);
}

static void add_rmsnorm_bwd(struct grad *g)
{
    struct tensor *dx = &g->d_in[0];

    g->b->ops->rmsnorm_bwd(g->b, dx, &g->d_in[1], &g->dy, &g->dy, &g->kept[2], &g->in[1],
                           &g->kept[0], &g->err);
    memcpy(g->d_in[2].data, dx->data, tensor_bytes(dx));
}

static void norms_of_sums_have_gradients_that_are_slopes(struct check *check)
{
    struct grad layer = grad_of("add layernorm", add_layernorm_fwd, add_layernorm_bwd);
    struct grad rms = grad_of("add rmsnorm", add_rmsnorm_fwd, add_rmsnorm_bwd);
    struct grad *both[] = {&layer, &rms};

    for (int i = 0; i < 2; i++) {
        struct grad *g = both[i];

        add_input(g, DIMS(3, 7));
        add_input(g, DIMS(7));
        if (g == &layer)
            add_input(g, DIMS(7));
        add_input(g, DIMS(3, 7));
        set_output(g, DIMS(3, 7));
        g->kept[0] = new_tensor(g, DIMS(3), 0);
        g->kept[1] = new_tensor(g, DIMS(3), 0);
        g->kept[2] = new_tensor(g, DIMS(3, 7), 0);
        check_grad(check, g);
    }
}

/* ---- attention: n = B, Tq, Tk, H, G, K ---- */

static struct attention_args args_of(const struct grad *g)
{
    return (struct attention_args){.n_heads = g->n[3],
                                   .n_kv_heads = g->n[4],
                                   .causal = g->is_causal,
                                   .scale = 0.6F,
                                   .kv_lens = g->lens};
}

static void attention_fwd(struct grad *g)
{
    struct attention_args args = args_of(g);

    g->b->ops->attention_fwd(g->b, &g->y, &g->kept[0], &g->in[0], &g->in[1], &g->in[2],
                             &args, &g->err);
}

static void attention_bwd(struct grad *g)
{
    struct attention_args args = args_of(g);

    g->b->ops->attention_bwd(g->b, &g->d_in[0], &g->d_in[1], &g->d_in[2], &g->dy,
                             &g->in[0], &g->in[1], &g->in[2], &g->y, &g->kept[0], &args,
                             &g->err);
}

static void check_attention(struct check *check, const char *name, const int64_t n[6],
                            bool is_causal, const struct tensor *lens)
{
    struct grad g = grad_of(name, attention_fwd, attention_bwd);

    memcpy(g.n, n, sizeof(g.n));
    g.is_causal = is_causal;
    g.lens = lens;
    add_input(&g, DIMS(n[0], n[1], n[3] * n[5]));
    add_input(&g, DIMS(n[0], n[2], n[4] * n[5]));
    add_input(&g, DIMS(n[0], n[2], n[4] * n[5]));
    set_output(&g, DIMS(n[0], n[1], n[3] * n[5]));
    g.kept[0] = new_tensor(&g, DIMS(n[0], n[3], n[1]), 0);
    check_grad(check, &g);
}

static void attention_gradients_are_slopes(struct check *check)
{
    const struct tensor lens = table((const int32_t[]){5, 3}, 2);

    check_attention(check, "attention", (const int64_t[6]){2, 3, 3, 2, 2, 4}, false,
                    NULL);
    check_attention(check, "attention causal", (const int64_t[6]){1, 4, 4, 2, 2, 3}, true,
                    NULL);
    check_attention(check, "attention grouped", (const int64_t[6]){1, 3, 3, 4, 2, 3},
                    true, NULL);
    check_attention(check, "attention with lens", (const int64_t[6]){2, 2, 6, 2, 1, 3},
                    true, &lens);
}

/* ---- rope: turned back is the transpose ---- */

static const int32_t some_positions[4] = {0, 1, 2, 900};
static const struct rope_args rope_args = {.rot_dims = 4, .theta = 100};

static void rope_fwd(struct grad *g)
{
    const struct tensor positions = table(some_positions, 4);

    memcpy(g->y.data, g->in[0].data, tensor_bytes(&g->y));
    g->b->ops->rope(g->b, &g->y, 2, &positions, &rope_args, false, &g->err);
}

static void rope_bwd(struct grad *g)
{
    const struct tensor positions = table(some_positions, 4);

    memcpy(g->d_in[0].data, g->dy.data, tensor_bytes(&g->dy));
    g->b->ops->rope(g->b, &g->d_in[0], 2, &positions, &rope_args, true, &g->err);
}

static void rope_gradient_is_the_inverse(struct check *check)
{
    struct grad g = grad_of("rope", rope_fwd, rope_bwd);

    add_input(&g, DIMS(4, 3, 6));
    set_output(&g, DIMS(4, 3, 6));
    check_grad(check, &g);
}

/* ---- pointwise ---- */

static void act_fwd(struct grad *g)
{
    g->b->ops->act_fwd(g->b, &g->y, &g->in[0], g->act, &g->err);
}

static void act_bwd(struct grad *g)
{
    g->b->ops->act_bwd(g->b, &g->d_in[0], &g->dy, &g->in[0], g->act, &g->err);
}

static void activation_gradients_are_slopes(struct check *check)
{
    static const struct {
        enum activation act;
        const char *name;
    } acts[] = {{ACT_NONE, "none"},
                {ACT_GELU, "gelu"},
                {ACT_GELU_TANH, "gelu tanh"},
                {ACT_QUICK_GELU, "quick gelu"},
                {ACT_RELU_SQUARED, "relu squared"}};

    for (size_t i = 0; i < sizeof(acts) / sizeof(acts[0]); i++) {
        struct grad g = grad_of(acts[i].name, act_fwd, act_bwd);

        g.act = acts[i].act;
        add_input(&g, DIMS(5, 9));
        set_output(&g, DIMS(5, 9));
        for (int64_t e = 0; e < 45; e++) { /* the kink of ReLU is no place for slopes */
            float *x = (float *)g.in[0].data + e;

            *x += fabsf(*x) < 0.1F ? 0.5F : 0;
        }
        check_grad(check, &g);
    }
}

static void swiglu_fwd(struct grad *g)
{
    g->b->ops->swiglu_fwd(g->b, &g->y, &g->in[0], &g->err);
}

static void swiglu_bwd(struct grad *g)
{
    g->b->ops->swiglu_bwd(g->b, &g->d_in[0], &g->dy, &g->in[0], &g->err);
}

static void swiglu_gradients_are_slopes(struct check *check)
{
    struct grad g = grad_of("swiglu", swiglu_fwd, swiglu_bwd);

    add_input(&g, DIMS(3, 10));
    set_output(&g, DIMS(3, 5));
    check_grad(check, &g);
}

/* ---- embedding and loss ---- */

static const int32_t some_ids[6] = {4, 7, -1, 5, 5, 100};

static void embed_fwd(struct grad *g)
{
    const struct tensor ids = table(some_ids, 6);

    g->b->ops->embed_fwd(g->b, &g->y, &g->in[0], &ids, 4, &g->err);
}

static void embed_bwd(struct grad *g)
{
    const struct tensor ids = table(some_ids, 6);

    g->b->ops->embed_bwd(g->b, &g->d_in[0], &g->dy, &ids, 4, &g->err);
}

static void embedding_gradients_are_slopes(struct check *check)
{
    struct grad g = grad_of("embed", embed_fwd, embed_bwd);

    add_input(&g, DIMS(4, 3));
    set_output(&g, DIMS(6, 3));
    check_grad(check, &g);
}

static const int32_t some_labels[4] = {1, -1, 4, 0};

/* y [N] = loss of each row: log(sum) + max - target, 0 where masked; 5 of 7 are real */
static void xent_fwd(struct grad *g)
{
    const struct tensor labels = table(some_labels, 4);
    float *y = g->y.data;

    g->b->ops->xent_max(g->b, &g->kept[0], &g->in[0], 5, &g->err);
    g->b->ops->xent_sum(g->b, &g->kept[1], &g->kept[2], &g->in[0], &g->kept[0], &labels,
                        0, 5, &g->err);
    for (int i = 0; i < 4; i++) {
        const float *max = g->kept[0].data, *sum = g->kept[1].data;
        const float *target = g->kept[2].data;

        y[i] = some_labels[i] < 0 ? 0 : logf(sum[i]) + max[i] - target[i];
    }
}

static void xent_bwd(struct grad *g)
{
    const struct tensor labels = table(some_labels, 4);

    memcpy(g->d_in[0].data, g->in[0].data, tensor_bytes(&g->in[0]));
    g->b->ops->xent_bwd(g->b, &g->d_in[0], &g->kept[0], &g->kept[1], &labels, 0, 5,
                        &g->err);
}

static void cross_entropy_gradients_are_slopes(struct check *check)
{
    struct grad g = grad_of("xent", xent_fwd, xent_bwd);

    add_input(&g, DIMS(4, 7));
    set_output(&g, DIMS(4));
    for (int i = 0; i < 4; i++) /* the backward pass is of the plain sum */
        ((float *)g.dy.data)[i] = 1;
    for (int i = 0; i < 3; i++)
        g.kept[i] = new_tensor(&g, DIMS(4), 0);
    check_grad(check, &g);
}

int main(void)
{
    struct check check = {0};

    check_run(&check, linear_gradients_are_slopes);
    check_run(&check, fused_products_have_gradients_that_are_slopes);
    check_run(&check, layernorm_gradients_are_slopes);
    check_run(&check, rmsnorm_gradients_are_slopes);
    check_run(&check, norms_of_sums_have_gradients_that_are_slopes);
    check_run(&check, attention_gradients_are_slopes);
    check_run(&check, rope_gradient_is_the_inverse);
    check_run(&check, activation_gradients_are_slopes);
    check_run(&check, swiglu_gradients_are_slopes);
    check_run(&check, embedding_gradients_are_slopes);
    check_run(&check, cross_entropy_gradients_are_slopes);
    return check_end(&check);
}
