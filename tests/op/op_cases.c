/* op_cases.c - every operation over a table of shapes
 *
 * Sizes are odd, single, or just beside the widths of vectors and blocks; that is where
 * kernels go wrong.
 */
#include "tests/op/op_run.h"

#include "common/base/rng.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#define D OP_DIMS

enum {
    TRANS_A = 1,
    TRANS_B = 2,
    BIAS = 4,
    BETA = 8,
    C_F32 = 16, /* c is F32 whatever T is */
    CAUSAL = 32,
    JOINT = 64,        /* q, k, v are columns of one product */
    LENS = 128,        /* rows have fewer keys than there is room for */
    FROZEN = 256,      /* no gradients of parameters wanted */
    AROUND_ZERO = 512, /* LayerNorm1P */
    LINEAR = 1024,     /* scaling of rope */
    LLAMA3 = 2048,
    RESIDUAL = 4096,   /* is added to what is multiplied, or normed, and to gradients */
    PRE_ACT = 8192,    /* what an activation is taken of is kept */
    SLOPE = 16384,     /* back through an activation */
    BIAS_GRAD = 32768, /* with a product */
    SHIFTED = 65536, /* vectors and matrices beside the product begin one element later */
    ADDED_F32 = 131072, /* the residual of a norm is F32 whatever T is */
    INFINITE = 262144,  /* one of the gradients is */
    NOT_A_NUMBER = 524288
};

#define IDS_MAX 640

/* ids [n], each below `limit` or -1 (every seventh); fixed by the case's name */
static struct tensor make_ids(struct op_run *run, int64_t n, int64_t limit)
{
    int32_t ids[IDS_MAX];
    struct rng_key key = {rng_stream(run->op->name), rng_stream("ids")};

    for (int64_t i = 0; i < n; i++)
        ids[i] = i % 7 == 6 ? -1 : (int32_t)rng_below(key, (uint64_t)i, (uint64_t)limit);
    return op_table(run, ids, n);
}

/* ---- linear algebra: n = m, n, k, activation ---- */

/* A matrix beside the product, its first element off every vector's alignment if asked. */
static struct tensor beside(struct op_run *r, const char *name, enum dtype dtype,
                            int64_t rows, int64_t columns)
{
    bool is_shifted = r->op->flags & SHIFTED;
    struct tensor x = name ? op_input(r, name, dtype, 1, 0, D(rows * columns + 1))
                           : op_output(r, dtype, D(rows * columns + 1));

    return tensor_of((char *)x.data + (is_shifted ? dtype_bytes(dtype) : 0), dtype,
                     rows == 1 ? 1 : 2, rows == 1 ? D(columns) : D(rows, columns));
}

static void run_fused_matmul(struct op_run *r)
{
    const int64_t *n = r->op->n;
    unsigned f = r->op->flags;
    enum dtype c_type = f & C_F32 ? DTYPE_F32 : r->dtype;
    struct tensor a =
        op_input(r, "a", r->dtype, 0.5, 0, f & TRANS_A ? D(n[2], n[0]) : D(n[0], n[2]));
    struct tensor b =
        op_input(r, "b", r->dtype, 0.5, 0, f & TRANS_B ? D(n[1], n[2]) : D(n[2], n[1]));
    struct tensor bias = beside(r, "bias", r->dtype, 1, n[1]);
    struct tensor bias_grad = beside(r, "bias_grad", DTYPE_F32, 1, n[0]);
    struct tensor residual = beside(r, "residual", c_type, n[0], n[1]);
    struct tensor pre_act = beside(r, NULL, c_type, n[0], n[1]);
    struct tensor slope_at = beside(r, "slope_at", c_type, n[0], n[1]);
    struct tensor c = f & BETA ? op_input(r, "c", c_type, 1, 0, D(n[0], n[1]))
                               : op_output(r, c_type, D(n[0], n[1]));
    struct matmul_args args = {.trans_a = f & TRANS_A,
                               .trans_b = f & TRANS_B,
                               .beta = f & BETA ? 1 : 0,
                               .bias = f & BIAS ? &bias : NULL,
                               .residual = f & RESIDUAL ? &residual : NULL,
                               .act = (enum activation)n[3],
                               .pre_act = f & PRE_ACT ? &pre_act : NULL,
                               .slope_at = f & SLOPE ? &slope_at : NULL,
                               .bias_grad = f & BIAS_GRAD ? &bias_grad : NULL};

    op_check(r, r->b->ops->matmul(r->b, &c, &a, &b, &args, &r->err));
    op_keep(r, "c", &c);
    op_keep(r, "bias_grad", &bias_grad);
    op_keep(r, "residual", &residual);
    if (f & PRE_ACT)
        op_keep(r, "pre_act", &pre_act);
}

static void run_matmul(struct op_run *r)
{
    const int64_t *n = r->op->n;
    unsigned f = r->op->flags;
    enum dtype c_type = f & C_F32 ? DTYPE_F32 : r->dtype;
    struct tensor a =
        op_input(r, "a", r->dtype, 1, 0, f & TRANS_A ? D(n[2], n[0]) : D(n[0], n[2]));
    struct tensor b =
        op_input(r, "b", r->dtype, 1, 0, f & TRANS_B ? D(n[1], n[2]) : D(n[2], n[1]));
    struct tensor bias = op_input(r, "bias", r->dtype, 1, 0, D(n[1]));
    struct tensor c = f & BETA ? op_input(r, "c", c_type, 1, 0, D(n[0], n[1]))
                               : op_output(r, c_type, D(n[0], n[1]));
    struct matmul_args args = {.trans_a = f & TRANS_A,
                               .trans_b = f & TRANS_B,
                               .beta = f & BETA ? 1 : 0,
                               .bias = f & BIAS ? &bias : NULL};

    op_check(r, r->b->ops->matmul(r->b, &c, &a, &b, &args, &r->err));
    op_keep(r, "c", &c);
}

static void run_bias_bwd(struct op_run *r)
{
    const int64_t *n = r->op->n;
    struct tensor dy = op_input(r, "dy", r->dtype, 1, 0, D(n[0], n[1]));
    struct tensor db = op_input(r, "db", DTYPE_F32, 1, 0, D(n[1]));

    op_check(r, r->b->ops->bias_bwd(r->b, &db, &dy, &r->err));
    op_keep(r, "db", &db);
}

/* ---- norms: n = N, D ---- */

/* What is added before a norm, and to its gradient: in place, or (FROZEN) from elsewhere. */
struct residual {
    bool is_there;
    struct tensor added, sum, other;
    const struct tensor *d_residual;
};

static void make_residual(struct op_run *r, struct residual *out, struct tensor *dx)
{
    const int64_t *n = r->op->n;
    enum dtype dtype = r->op->flags & ADDED_F32 ? DTYPE_F32 : r->dtype;

    *out = (struct residual){.is_there = r->op->flags & RESIDUAL};
    if (!out->is_there)
        return;
    out->added = op_input(r, "added", dtype, 1, 0, D(n[0], n[1]));
    out->sum = op_output(r, r->dtype, D(n[0], n[1]));
    out->other = op_input(r, "d_residual", r->dtype, 1, 0, D(n[0], n[1]));
    out->d_residual = &out->other;
    if (r->op->flags & FROZEN)
        return;
    *dx = out->other;
    out->d_residual = dx;
}

static void keep_residual(struct op_run *r, const struct residual *res)
{
    if (res->is_there)
        op_keep(r, "sum", &res->sum);
}

static void run_layernorm(struct op_run *r)
{
    const int64_t *n = r->op->n;
    bool is_frozen = r->op->flags & FROZEN;
    float shift = r->op->flags & AROUND_ZERO ? 1 : 0;
    struct tensor x = op_input(r, "x", r->dtype, 1, 3, D(n[0], n[1]));
    struct tensor w = op_input(r, "w", r->dtype, 0.5, 1, D(n[1]));
    struct tensor bias = op_input(r, "bias", r->dtype, 1, 0, D(n[1]));
    struct tensor dy = op_input(r, "dy", r->dtype, 1, 0, D(n[0], n[1]));
    struct tensor dw = op_input(r, "dw", DTYPE_F32, 1, 0, D(n[1]));
    struct tensor dbias = op_input(r, "dbias", DTYPE_F32, 1, 0, D(n[1]));
    struct tensor y = op_output(r, r->dtype, D(n[0], n[1]));
    struct tensor dx = op_output(r, r->dtype, D(n[0], n[1]));
    struct tensor mean = op_output(r, DTYPE_F32, D(n[0]));
    struct tensor rstd = op_output(r, DTYPE_F32, D(n[0]));
    struct residual res;

    make_residual(r, &res, &dx);
    if (res.is_there)
        op_check(r, r->b->ops->add_layernorm_fwd(r->b, &y, &mean, &rstd, &res.sum, &x,
                                                 &res.added, &w, &bias, shift, 1e-5F,
                                                 &r->err));
    else
        op_check(r, r->b->ops->layernorm_fwd(r->b, &y, &mean, &rstd, &x, &w, &bias, shift,
                                             1e-5F, &r->err));
    op_check(r, r->b->ops->layernorm_bwd(r->b, &dx, is_frozen ? NULL : &dw,
                                         is_frozen ? NULL : &dbias, &dy, res.d_residual,
                                         res.is_there ? &res.sum : &x, &w, &mean, &rstd,
                                         shift, &r->err));
    keep_residual(r, &res);
    op_keep(r, "y", &y);
    op_keep(r, "mean", &mean);
    op_keep(r, "rstd", &rstd);
    op_keep(r, "dx", &dx);
    op_keep(r, "dw", &dw);
    op_keep(r, "dbias", &dbias);
}

static void run_rmsnorm(struct op_run *r)
{
    const int64_t *n = r->op->n;
    struct tensor x = op_input(r, "x", r->dtype, 1, 0.5, D(n[0], n[1]));
    struct tensor w = op_input(r, "w", r->dtype, 0.5, 1, D(n[1]));
    struct tensor dy = op_input(r, "dy", r->dtype, 1, 0, D(n[0], n[1]));
    struct tensor dw = op_input(r, "dw", DTYPE_F32, 1, 0, D(n[1]));
    struct tensor y = op_output(r, r->dtype, D(n[0], n[1]));
    struct tensor dx = op_output(r, r->dtype, D(n[0], n[1]));
    struct tensor rstd = op_output(r, DTYPE_F32, D(n[0]));
    struct residual res;

    make_residual(r, &res, &dx);
    if (res.is_there)
        op_check(r, r->b->ops->add_rmsnorm_fwd(r->b, &y, &rstd, &res.sum, &x, &res.added,
                                               &w, 1e-5F, &r->err));
    else
        op_check(r, r->b->ops->rmsnorm_fwd(r->b, &y, &rstd, &x, &w, 1e-5F, &r->err));
    op_check(r, r->b->ops->rmsnorm_bwd(r->b, &dx, r->op->flags & FROZEN ? NULL : &dw, &dy,
                                       res.d_residual, res.is_there ? &res.sum : &x, &w,
                                       &rstd, &r->err));
    keep_residual(r, &res);
    op_keep(r, "y", &y);
    op_keep(r, "rstd", &rstd);
    op_keep(r, "dx", &dx);
    op_keep(r, "dw", &dw);
}

/* ---- rope: n = N, heads in all, heads turned, K, rot_dims, first position ---- */

static void run_rope(struct op_run *r)
{
    const int64_t *n = r->op->n;
    struct tensor x = op_input(r, "x", r->dtype, 1, 0, D(n[0], n[1], n[3]));
    struct tensor back = op_input(r, "back", r->dtype, 1, 0, D(n[0], n[1], n[3]));
    int32_t numbers[IDS_MAX];
    struct tensor positions;
    struct rope_args args = {.rot_dims = n[4],
                             .theta = 1e4F,
                             .factor = 8,
                             .low_freq_factor = 1,
                             .high_freq_factor = 4,
                             .original_positions = 128};

    if (r->op->flags & (LINEAR | LLAMA3))
        args.scaling = r->op->flags & LINEAR ? ROPE_LINEAR : ROPE_LLAMA3;
    for (int64_t i = 0; i < n[0]; i++)
        numbers[i] = (int32_t)(n[5] + i * 3);
    positions = op_table(r, numbers, n[0]);
    op_check(r, r->b->ops->rope(r->b, &x, n[2], &positions, &args, false, &r->err));
    op_check(r, r->b->ops->rope(r->b, &back, n[2], &positions, &args, true, &r->err));
    op_keep(r, "x", &x);
    op_keep(r, "back", &back);
}

/* ---- attention: n = B, Tq, Tk, H, G, K ---- */

#define ROWS_MAX 40

/* Rows are given between all and few of their keys, never fewer than Tq. */
static void make_lens(const struct op_run *r, int32_t *lens)
{
    const int64_t *n = r->op->n;

    for (int64_t i = 0; i < n[0]; i++)
        lens[i] = (int32_t)(n[2] - i * (n[2] - n[1]) / n[0]);
    if (n[0] > 1 && !(r->op->flags & CAUSAL))
        lens[n[0] - 1] = 1;
}

struct attention_case {
    struct tensor joint, q, k, v;
    struct attention_args args;
    int32_t lens[ROWS_MAX];
    struct tensor kv_lens;
};

static void view_joint(struct attention_case *a, const struct tensor *joint,
                       const int64_t *n)
{
    struct tensor at = *joint;
    size_t element = dtype_bytes(joint->dtype), head = (size_t)n[5] * element;

    a->q = tensor_of(at.data, at.dtype, 3, D(n[0], n[1], n[3] * n[5]));
    a->k = tensor_of((char *)at.data + (size_t)n[3] * head, at.dtype, 3,
                     D(n[0], n[2], n[4] * n[5]));
    a->v = tensor_of((char *)a->k.data + (size_t)n[4] * head, at.dtype, 3,
                     D(n[0], n[2], n[4] * n[5]));
}

static void make_attention(struct op_run *r, struct attention_case *a)
{
    const int64_t *n = r->op->n;
    int64_t width = (n[3] + 2 * n[4]) * n[5];

    a->args = (struct attention_args){.n_heads = n[3],
                                      .n_kv_heads = n[4],
                                      .causal = r->op->flags & CAUSAL,
                                      .scale = 1 / sqrtf((float)n[5])};
    if (r->op->flags & JOINT) {
        a->joint = op_input(r, "joint", r->dtype, 1, 0, D(n[0], n[1], width));
        a->args.q_stride = a->args.kv_stride = width;
        view_joint(a, &a->joint, n);
        return;
    }
    a->q = op_input(r, "q", r->dtype, 1, 0, D(n[0], n[1], n[3] * n[5]));
    a->k = op_input(r, "k", r->dtype, 1, 0, D(n[0], n[2], n[4] * n[5]));
    a->v = op_input(r, "v", r->dtype, 1, 0, D(n[0], n[2], n[4] * n[5]));
    if (!(r->op->flags & LENS))
        return;
    make_lens(r, a->lens);
    a->kv_lens = op_table(r, a->lens, n[0]);
    a->args.kv_lens = &a->kv_lens;
    for (int64_t i = 0; i < n[0]; i++) {
        op_poison_rows(r, &a->k, i * n[2] + a->lens[i], (i + 1) * n[2]);
        op_poison_rows(r, &a->v, i * n[2] + a->lens[i], (i + 1) * n[2]);
    }
}

static void run_attention(struct op_run *r)
{
    const int64_t *n = r->op->n;
    struct attention_case in = {0}, out = {0};
    struct tensor o = op_output(r, r->dtype, D(n[0], n[1], n[3] * n[5]));
    struct tensor lse = op_output(r, DTYPE_F32, D(n[0], n[3], n[1]));
    struct tensor d_o = op_input(r, "d_o", r->dtype, 1, 0, D(n[0], n[1], n[3] * n[5]));

    make_attention(r, &in);
    if (r->op->flags & JOINT) {
        out.joint = op_output(r, r->dtype, D(n[0], n[1], in.args.q_stride));
        view_joint(&out, &out.joint, n);
    } else {
        out.q = op_output(r, r->dtype, D(n[0], n[1], n[3] * n[5]));
        out.k = op_output(r, r->dtype, D(n[0], n[2], n[4] * n[5]));
        out.v = op_output(r, r->dtype, D(n[0], n[2], n[4] * n[5]));
    }
    if (r->has_failed)
        return;
    op_check(r, r->b->ops->attention_fwd(r->b, &o, &lse, &in.q, &in.k, &in.v, &in.args,
                                         &r->err));
    op_check(r, r->b->ops->attention_bwd(r->b, &out.q, &out.k, &out.v, &d_o, &in.q, &in.k,
                                         &in.v, &o, &lse, &in.args, &r->err));
    op_keep(r, "o", &o);
    op_keep(r, "lse", &lse);
    if (r->op->flags & JOINT) {
        op_keep(r, "dqkv", &out.joint);
    } else {
        op_keep(r, "dq", &out.q);
        op_keep(r, "dk", &out.k);
        op_keep(r, "dv", &out.v);
    }
}

/* ---- pointwise: n = N, D; activation in n[2] ---- */

static void run_act(struct op_run *r)
{
    const int64_t *n = r->op->n;
    enum activation act = (enum activation)n[2];
    struct tensor x = op_input(r, "x", r->dtype, 3, 0, D(n[0], n[1]));
    struct tensor dy = op_input(r, "dy", r->dtype, 1, 0, D(n[0], n[1]));
    struct tensor y = op_output(r, r->dtype, D(n[0], n[1]));
    struct tensor dx = op_output(r, r->dtype, D(n[0], n[1]));

    op_check(r, r->b->ops->act_fwd(r->b, &y, &x, act, &r->err));
    op_check(r, r->b->ops->act_bwd(r->b, &dx, &dy, &x, act, &r->err));
    op_keep(r, "y", &y);
    op_keep(r, "dx", &dx);
}

static void run_swiglu(struct op_run *r)
{
    const int64_t *n = r->op->n;
    struct tensor x = op_input(r, "x", r->dtype, 3, 0, D(n[0], 2 * n[1]));
    struct tensor dy = op_input(r, "dy", r->dtype, 1, 0, D(n[0], n[1]));
    struct tensor y = op_output(r, r->dtype, D(n[0], n[1]));
    struct tensor dx = op_output(r, r->dtype, D(n[0], 2 * n[1]));

    op_check(r, r->b->ops->swiglu_fwd(r->b, &y, &x, &r->err));
    op_check(r, r->b->ops->swiglu_bwd(r->b, &dx, &dy, &x, &r->err));
    op_keep(r, "y", &y);
    op_keep(r, "dx", &dx);
}

/* n[2]: rows of the second operand; the sum is also made in place, then scaled and cast */
static void run_add_scale_cast(struct op_run *r)
{
    const int64_t *n = r->op->n;
    struct tensor a = op_input(r, "a", r->dtype, 1, 0, D(n[0], n[1]));
    struct tensor b = op_input(r, "b", r->dtype, 1, 0, D(n[2], n[1]));
    struct tensor y = op_output(r, r->dtype, D(n[0], n[1]));
    struct tensor wide = op_input(r, "wide", DTYPE_F32, 1, 0, D(n[2], n[1]));
    struct tensor f32 = op_output(r, DTYPE_F32, D(n[0], n[1]));
    struct tensor f16 = op_output(r, DTYPE_F16, D(n[0], n[1]));

    op_check(r, r->b->ops->add(r->b, &y, &a, &b, -0.75F, &r->err));
    op_keep(r, "sum", &y);
    op_check(r, r->b->ops->add(r->b, &y, &y, &wide, 1, &r->err));
    op_keep(r, "with f32", &y);
    op_check(r, r->b->ops->cast(r->b, &f32, &y, &r->err));
    op_check(r, r->b->ops->cast(r->b, &f16, &y, &r->err));
    op_check(r, r->b->ops->add(r->b, &a, &a, &b, 2, &r->err));
    op_check(r, r->b->ops->scale(r->b, &a, 0.3F, &r->err));
    op_keep(r, "in place", &a);
    op_keep(r, "f32", &f32);
    op_keep(r, "f16", &f16);
}

/* ---- rows: n = N, D, rows of the table, first ---- */

static void run_embed(struct op_run *r)
{
    const int64_t *n = r->op->n;
    struct tensor w = op_input(r, "w", r->dtype, 1, 0, D(n[2], n[1]));
    struct tensor dw = op_input(r, "dw", DTYPE_F32, 1, 0, D(n[2], n[1]));
    struct tensor dy = op_input(r, "dy", r->dtype, 1, 0, D(n[0], n[1]));
    struct tensor y = op_output(r, r->dtype, D(n[0], n[1]));
    /* some fall outside on either side */
    struct tensor ids = make_ids(r, n[0], n[2] + 2 * n[3]);

    op_check(r, r->b->ops->embed_fwd(r->b, &y, &w, &ids, (int32_t)n[3], &r->err));
    op_check(r, r->b->ops->embed_bwd(r->b, &dw, &dy, &ids, (int32_t)n[3], &r->err));
    op_keep(r, "y", &y);
    op_keep(r, "dw", &dw);
}

/* n = rows moved, D, rows there are */
static void run_scatter_gather(struct op_run *r)
{
    const int64_t *n = r->op->n;
    struct tensor x = op_input(r, "x", r->dtype, 1, 0, D(n[0], n[1]));
    struct tensor y = op_input(r, "y", r->dtype, 1, 0, D(n[2], n[1]));
    struct tensor back = op_output(r, r->dtype, D(n[0], n[1]));
    int32_t numbers[IDS_MAX];
    struct tensor rows;

    for (int64_t i = 0; i < n[0]; i++) /* distinct, not in order */
        numbers[i] = (int32_t)rng_permute(5, 0, (uint64_t)i, (uint64_t)n[2]);
    rows = op_table(r, numbers, n[0]);
    op_check(r, r->b->ops->scatter_rows(r->b, &y, &x, &rows, &r->err));
    op_keep(r, "y", &y);
    op_check(r, r->b->ops->gather_rows(r->b, &back, &y, &rows, &r->err));
    op_keep(r, "back", &back);
}

/* n = frames, size, patch */
static void run_patchify(struct op_run *r)
{
    const int64_t *n = r->op->n;
    int64_t side = n[1] / n[2];
    const float mean[3] = {0.48F, 0.46F, 0.41F}, std[3] = {0.27F, 0.26F, 0.28F};
    struct tensor rgb = op_input(r, "rgb", DTYPE_U8, 0, 0, D(n[0], n[1], n[1], 3));
    struct tensor y = op_output(r, r->dtype, D(n[0] * side * side, 3 * n[2] * n[2]));

    op_check(r, r->b->ops->patchify(r->b, &y, &rgb, n[2], mean, std, &r->err));
    op_keep(r, "y", &y);
}

/* ---- loss: n = N, V/R, real columns, first ---- */

static void run_xent(struct op_run *r)
{
    const int64_t *n = r->op->n;
    struct tensor logits = op_input(r, "logits", r->dtype, 4, 0, D(n[0], n[1]));
    struct tensor max = op_output(r, DTYPE_F32, D(n[0]));
    struct tensor sum = op_output(r, DTYPE_F32, D(n[0]));
    struct tensor target = op_output(r, DTYPE_F32, D(n[0]));
    struct tensor index = op_output(r, DTYPE_I32, D(n[0]));
    struct tensor value = op_output(r, DTYPE_F32, D(n[0]));
    struct tensor labels = make_ids(r, n[0], n[1] + 2 * n[3]);
    struct tensor total = op_output(r, DTYPE_I32, D(2)); /* a double */
    int32_t first = (int32_t)n[3];

    op_check(r, r->b->ops->zero(r->b, total.data, tensor_bytes(&total), &r->err));
    op_check(r, r->b->ops->argmax(r->b, &value, &index, &logits, n[2], &r->err));
    op_check(r, r->b->ops->xent_max(r->b, &max, &logits, n[2], &r->err));
    op_check(r, r->b->ops->xent_sum(r->b, &sum, &target, &logits, &max, &labels, first,
                                    n[2], &r->err));
    op_check(
        r, r->b->ops->xent_bwd(r->b, &logits, &max, &sum, &labels, first, n[2], &r->err));
    op_keep(r, "argmax", &index);
    op_keep(r, "value", &value);
    op_keep(r, "max", &max);
    op_keep(r, "sum", &sum);
    op_keep(r, "target", &target);
    op_keep(r, "dlogits", &logits);
    for (int i = 0; i < 2; i++) /* two micro batches */
        op_check(r, r->b->ops->xent_total(r->b, total.data, &max, &sum, &target, &labels,
                                          &r->err));
    op_keep_doubles(r, "total", total.data, 1);
}

/* ---- optimizer: n = first item, items, step, clip in tenths ---- */

/* nothing at either end and between, less than a pack, a whole chunk, two and a part */
static const int64_t update_sizes[] = {
    0, 1, 7, UPDATE_CHUNK, 0, 2 * UPDATE_CHUNK + 1031, 8, 131, 0};

struct update_case {
    struct tensor master, m, v, grad, weight;
    int64_t offsets[sizeof(update_sizes) / sizeof(update_sizes[0])];
    int64_t n_elements;
};

static void make_update(struct op_run *r, struct update_case *u)
{
    const int64_t *n = r->op->n;

    *u = (struct update_case){0};
    for (int64_t i = 0; i < n[1]; i++) { /* joined: behind each other, so not aligned */
        u->offsets[i] = u->n_elements;
        u->n_elements += update_sizes[n[0] + i];
        if (!(r->op->flags & JOINT))
            u->n_elements = (u->n_elements + 15) / 16 * 16;
    }
    u->n_elements++; /* a tensor has elements */
    u->master = op_input(r, "master", DTYPE_F32, 1, 0, D(u->n_elements));
    u->m = op_input(r, "m", DTYPE_F32, 0.1, 0, D(u->n_elements));
    u->v = op_input(r, "v", DTYPE_F32, 0.001, 0.1, D(u->n_elements));
    u->grad = op_input(r, "grad", DTYPE_F32, 1, 0, D(u->n_elements));
    u->weight = op_output(r, r->dtype, D(u->n_elements));
}

/* Every other item has decay, every third no weight, one is counted elsewhere. */
static void list_update(struct op_run *r, const struct update_case *u,
                        struct update_list *list)
{
    const int64_t *n = r->op->n;
    struct update_item *items = calloc((size_t)n[1], sizeof(*items));

    for (int64_t i = 0; items && i < n[1]; i++) {
        int64_t at = u->offsets[i];

        items[i] = (struct update_item){
            .master = (float *)u->master.data + at,
            .m = (float *)u->m.data + at,
            .v = (float *)u->v.data + at,
            .grad = (float *)u->grad.data + at,
            .weight = i % 3 == 2
                          ? NULL
                          : (char *)u->weight.data + (size_t)at * dtype_bytes(r->dtype),
            .n = update_sizes[n[0] + i],
            .has_decay = i % 2 == 0,
            .is_counted = n[0] + i != 2,
        };
    }
    op_check(
        r, update_list_init(list, r->b, items, items ? (int)n[1] : 0, r->dtype, &r->err));
}

static void spoil(struct op_run *r, const struct update_case *u, float value)
{
    int64_t at = u->n_elements - 1 - update_sizes[7] / 2; /* in one that is not empty */

    op_check(r, r->b->ops->upload(r->b, (float *)u->grad.data + at, &value, sizeof(value),
                                  &r->err));
}

/* Fails the run when x is not, bit by bit, what it was made of. */
static void expect_untouched(struct op_run *r, const char *name, const struct tensor *x,
                             double spread, double mean)
{
    struct tensor same = op_input(r, name, DTYPE_F32, spread, mean, D(tensor_count(x)));
    size_t n_bytes = tensor_bytes(x);
    char *host = malloc(2 * n_bytes);

    if (host && !r->has_failed) {
        op_check(r, r->b->ops->download(r->b, host, x->data, n_bytes, &r->err));
        op_check(r,
                 r->b->ops->download(r->b, host + n_bytes, same.data, n_bytes, &r->err));
        if (memcmp(host, host + n_bytes, n_bytes) != 0)
            op_check(r, err_set(&r->err, ERR_STATE, "%s has changed", name));
    }
    free(host);
}

static void keep_verdict(struct op_run *r, const struct update_verdict *verdict)
{
    struct update_verdict host = {0};
    struct tensor out = op_output(r, DTYPE_F32, D(3));
    float values[3];

    op_check(r, r->b->ops->download(r->b, &host, verdict, sizeof(host), &r->err));
    values[0] = host.is_finite ? (float)host.norm : 0;
    values[1] = host.is_finite ? host.scale : 0;
    values[2] = (float)host.is_finite;
    op_check(r, r->b->ops->upload(r->b, out.data, values, sizeof(values), &r->err));
    op_keep(r, "verdict", &out);
}

static void run_update(struct op_run *r)
{
    const int64_t *n = r->op->n;
    struct update_case u;
    struct update_list list = {0};
    struct tensor memory = op_output(r, DTYPE_I32, D(4 + 2 * n[1]));
    struct update_verdict *verdict = memory.data;
    double *squares = (double *)memory.data + 2;
    struct adamw_args args = {.lr = 0.01F,
                              .beta1 = 0.9F,
                              .beta2 = 0.98F,
                              .eps = 1e-8F,
                              .weight_decay = 0.1F,
                              .step = n[2]};

    make_update(r, &u);
    list_update(r, &u, &list);
    if (r->op->flags & (INFINITE | NOT_A_NUMBER))
        spoil(r, &u, r->op->flags & INFINITE ? -INFINITY : NAN);
    op_check(r, r->b->ops->sum_squares(r->b, squares, &list, &r->err));
    op_check(
        r, r->b->ops->judge(r->b, verdict, squares, n[1], 4, (double)n[3] / 10, &r->err));
    op_check(r, r->b->ops->adamw(r->b, &list, verdict, &args, &r->err));
    op_keep_doubles(r, "squares", squares, n[1]);
    keep_verdict(r, verdict);
    op_keep(r, "weight", &u.weight);
    op_keep(r, "master", &u.master);
    op_keep(r, "m", &u.m);
    op_keep(r, "v", &u.v);
    op_keep(r, "grad", &u.grad);
    if (r->op->flags & (INFINITE | NOT_A_NUMBER)) {
        expect_untouched(r, "master", &u.master, 1, 0);
        expect_untouched(r, "m", &u.m, 0.1, 0);
        expect_untouched(r, "v", &u.v, 0.001, 0.1);
    }
    update_list_fini(&list, r->b);
}

const struct op_case op_cases[] = {
    {"matmul 1x1x1", run_matmul, {1, 1, 1}, 0},
    {"matmul 7x5x3", run_matmul, {7, 5, 3}, BIAS},
    {"matmul 33x17x65 nt", run_matmul, {33, 17, 65}, TRANS_B | BIAS},
    {"matmul 33x96x64 tn f32 +=", run_matmul, {33, 96, 64}, TRANS_A | BETA | C_F32},
    {"matmul 24x31x19 tt", run_matmul, {24, 31, 19}, TRANS_A | TRANS_B},
    {"matmul 128x96x96 nt", run_matmul, {128, 96, 96}, TRANS_B | BIAS},
    {"matmul 1x515x96", run_matmul, {1, 515, 96}, TRANS_B},
    {"matmul 65x33x129 +=", run_matmul, {65, 33, 129}, BETA},
    {"matmul 96x24x301 tn +=", run_matmul, {96, 24, 301}, TRANS_A | BETA | C_F32 | BIAS},
    {"matmul 5x37x70 nt", run_matmul, {5, 37, 70}, TRANS_B | BIAS},
    {"matmul 64x9x33 nt +=", run_matmul, {64, 9, 33}, TRANS_B | BETA},
    {"matmul 131x70x801 nt", run_matmul, {131, 70, 801}, TRANS_B | BIAS},
    {"matmul 73x1100x17 tn", run_matmul, {73, 1100, 17}, TRANS_A | BIAS},
    {"matmul 7x257x17000", run_matmul, {7, 257, 17000}, BIAS},
    {"matmul 24x32x40 nt + residual",
     run_fused_matmul,
     {24, 32, 40},
     TRANS_B | BIAS | RESIDUAL},
    {"matmul 131x33x70 nt + residual",
     run_fused_matmul,
     {131, 33, 70},
     TRANS_B | RESIDUAL},
    {"matmul 70x35x9 f32 + residual, shifted",
     run_fused_matmul,
     {70, 35, 9},
     BIAS | RESIDUAL | C_F32 | SHIFTED},
    {"matmul 9x16x24 nt gelu_tanh",
     run_fused_matmul,
     {9, 16, 24, ACT_GELU_TANH},
     TRANS_B | BIAS | OP_ROUNDS_TWICE},
    {"matmul 72x40x24 nt gelu_tanh kept",
     run_fused_matmul,
     {72, 40, 24, ACT_GELU_TANH},
     TRANS_B | BIAS | PRE_ACT | OP_ROUNDS_TWICE},
    {"matmul 67x40x24 nt gelu_tanh kept, no bias",
     run_fused_matmul,
     {67, 40, 24, ACT_GELU_TANH},
     TRANS_B | PRE_ACT | OP_ROUNDS_TWICE},
    {"matmul 72x40x24 nt gelu_tanh kept, shifted",
     run_fused_matmul,
     {72, 40, 24, ACT_GELU_TANH},
     TRANS_B | BIAS | PRE_ACT | SHIFTED | OP_ROUNDS_TWICE},
    {"matmul 67x37x24 nt gelu_tanh kept",
     run_fused_matmul,
     {67, 37, 24, ACT_GELU_TANH},
     TRANS_B | BIAS | PRE_ACT | OP_ROUNDS_TWICE},
    {"matmul 67x40x24 nt quick_gelu kept",
     run_fused_matmul,
     {67, 40, 24, ACT_QUICK_GELU},
     TRANS_B | BIAS | PRE_ACT | OP_ROUNDS_TWICE},
    {"matmul 7x24x40 nt gelu",
     run_fused_matmul,
     {7, 24, 40, ACT_GELU},
     TRANS_B | BIAS | OP_ROUNDS_TWICE},
    {"matmul 67x17x9 relu_squared kept",
     run_fused_matmul,
     {67, 17, 9, ACT_RELU_SQUARED},
     PRE_ACT | OP_ROUNDS_TWICE},
    {"matmul 131x17x9 nt no activation kept",
     run_fused_matmul,
     {131, 17, 9, ACT_NONE},
     TRANS_B | PRE_ACT},
    {"matmul 67x40x24 back through gelu_tanh",
     run_fused_matmul,
     {67, 40, 24, ACT_GELU_TANH},
     SLOPE | OP_ROUNDS_TWICE},
    {"matmul 67x39x24 back through gelu_tanh, shifted",
     run_fused_matmul,
     {67, 39, 24, ACT_GELU_TANH},
     SLOPE | SHIFTED | OP_ROUNDS_TWICE},
    {"matmul 130x24x70 back through gelu",
     run_fused_matmul,
     {130, 24, 70, ACT_GELU},
     SLOPE | OP_ROUNDS_TWICE},
    {"matmul 5x17x9 nt back through relu_squared",
     run_fused_matmul,
     {5, 17, 9, ACT_RELU_SQUARED},
     TRANS_B | SLOPE | OP_ROUNDS_TWICE},
    {"matmul 96x64x301 tn += with bias_grad",
     run_fused_matmul,
     {96, 64, 301},
     TRANS_A | BETA | C_F32 | BIAS_GRAD},
    {"matmul 33x17x70 tn with bias_grad",
     run_fused_matmul,
     {33, 17, 70},
     TRANS_A | BIAS_GRAD | SHIFTED},
    {"matmul 40x24x9 tn with bias and bias_grad",
     run_fused_matmul,
     {40, 24, 9},
     TRANS_A | C_F32 | BIAS | BIAS_GRAD},
    {"bias_bwd 1x7", run_bias_bwd, {1, 7}, 0},
    {"bias_bwd 333x97", run_bias_bwd, {333, 97}, 0},
    {"bias_bwd 700x264", run_bias_bwd, {700, 264}, 0},
    {"layernorm 1x3", run_layernorm, {1, 3}, 0},
    {"layernorm 5x17", run_layernorm, {5, 17}, 0},
    {"layernorm 261x96", run_layernorm, {261, 96}, 0},
    {"layernorm 3x1031 frozen", run_layernorm, {3, 1031}, FROZEN},
    {"layernorm 9x6208", run_layernorm, {9, 6208}, 0},
    {"layernorm1p 5x97", run_layernorm, {5, 97}, AROUND_ZERO},
    {"layernorm1p 7x33 frozen", run_layernorm, {7, 33}, AROUND_ZERO | FROZEN},
    {"layernorm 9x97 of a sum", run_layernorm, {9, 97}, RESIDUAL},
    {"layernorm1p 9x264 of a sum in f32",
     run_layernorm,
     {9, 264},
     RESIDUAL | ADDED_F32 | AROUND_ZERO},
    {"layernorm 3x1031 of a sum, frozen", run_layernorm, {3, 1031}, RESIDUAL | FROZEN},
    {"rmsnorm 5x17 of a sum", run_rmsnorm, {5, 17}, RESIDUAL},
    {"rmsnorm 33x264 of a sum in f32", run_rmsnorm, {33, 264}, RESIDUAL | ADDED_F32},
    {"rmsnorm 7x1032 of a sum, frozen", run_rmsnorm, {7, 1032}, RESIDUAL | FROZEN},
    {"rmsnorm 1x3", run_rmsnorm, {1, 3}, 0},
    {"rmsnorm 261x96", run_rmsnorm, {261, 96}, 0},
    {"rmsnorm 9x1031 frozen", run_rmsnorm, {9, 1031}, FROZEN},
    {"rmsnorm 7x1032", run_rmsnorm, {7, 1032}, 0},
    {"rope 7x3x24", run_rope, {7, 3, 3, 24, 24, 0}, 0},
    {"rope 5x6x32, 4 heads, 16 dims", run_rope, {5, 6, 4, 32, 16, 1000}, 0},
    {"rope 3x1x12 far", run_rope, {3, 1, 1, 12, 12, 100000}, 0},
    {"rope 9x2x16 linear", run_rope, {9, 2, 2, 16, 8, 20}, LINEAR},
    {"rope 9x2x64 llama3", run_rope, {9, 2, 2, 64, 64, 200}, LLAMA3},
    {"attention 1x1x1", run_attention, {1, 1, 1, 1, 1, 4}, 0},
    {"attention 2x17 full", run_attention, {2, 17, 17, 3, 3, 12}, 0},
    {"attention 2x37 causal", run_attention, {2, 37, 37, 4, 4, 24}, CAUSAL},
    {"attention 2x33 causal joint grouped",
     run_attention,
     {2, 33, 33, 4, 2, 24},
     CAUSAL | JOINT},
    {"attention 1x70 causal k64", run_attention, {1, 70, 70, 2, 1, 64}, CAUSAL},
    {"attention 1x40 k128", run_attention, {1, 40, 40, 1, 1, 128}, JOINT},
    {"attention 2x17 of 21 full grouped", run_attention, {2, 17, 21, 4, 2, 16}, 0},
    {"attention 3x9 joint grouped", run_attention, {3, 9, 9, 4, 2, 24}, JOINT},
    {"attention 3x1 of 19 cached", run_attention, {3, 1, 19, 4, 2, 24}, CAUSAL | LENS},
    {"attention 2x4 of 37 cached", run_attention, {2, 4, 37, 4, 2, 32}, CAUSAL | LENS},
    {"attention 2x1 of 413 cached", run_attention, {2, 1, 413, 2, 1, 24}, CAUSAL | LENS},
    {"attention 1x5 of 300", run_attention, {1, 5, 300, 2, 2, 12}, CAUSAL},
    {"attention 2x5 of 23 cached", run_attention, {2, 5, 23, 2, 2, 13}, CAUSAL | LENS},
    {"attention 3x9 of 40 lens", run_attention, {3, 9, 40, 2, 1, 16}, LENS},
    {"attention 2x40 of 7, blind queries", run_attention, {2, 40, 7, 1, 1, 8}, CAUSAL},
    {"attention 1x33 causal joint k80",
     run_attention,
     {1, 33, 33, 4, 2, 80},
     CAUSAL | JOINT},
    {"attention 1x24 causal many heads", run_attention, {1, 24, 24, 8, 8, 16}, CAUSAL},
    {"attention 2x12 of 29 causal grouped", run_attention, {2, 12, 29, 4, 2, 16}, CAUSAL},
    {"attention 1x19 causal k160", run_attention, {1, 19, 19, 2, 2, 160}, CAUSAL},
    /* more than one tile of queries and of keys, in each size of tile */
    {"attention 1x150 causal joint k64",
     run_attention,
     {1, 150, 150, 2, 1, 64},
     CAUSAL | JOINT},
    {"attention 2x130 of 141 k72", run_attention, {2, 130, 141, 1, 1, 72}, 0},
    {"attention 2x67 of 131 cached k80",
     run_attention,
     {2, 67, 131, 2, 1, 80},
     CAUSAL | LENS},
    {"attention 2x19 of 99 lens k96", run_attention, {2, 19, 99, 1, 1, 96}, LENS},
    {"attention 1x133 causal grouped k128",
     run_attention,
     {1, 133, 133, 2, 1, 128},
     CAUSAL},
    {"attention 1x35 of 77 causal k256", run_attention, {1, 35, 77, 1, 1, 256}, CAUSAL},
    {"attention 2x1 of 200 cached grouped k64",
     run_attention,
     {2, 1, 200, 6, 1, 64},
     CAUSAL | LENS},
    {"attention 1x1 of 300 k128", run_attention, {1, 1, 300, 2, 2, 128}, 0},
    {"attention 2x1 of 40 cached k200",
     run_attention,
     {2, 1, 40, 2, 1, 200},
     CAUSAL | LENS},
    {"gelu 3x1031", run_act, {3, 1031, ACT_GELU}, 0},
    {"gelu_tanh 3x1031", run_act, {3, 1031, ACT_GELU_TANH}, 0},
    {"quick_gelu 3x1031", run_act, {3, 1031, ACT_QUICK_GELU}, 0},
    {"relu_squared 3x1031", run_act, {3, 1031, ACT_RELU_SQUARED}, 0},
    {"no activation 1x5", run_act, {1, 5, ACT_NONE}, 0},
    {"swiglu 1x1", run_swiglu, {1, 1}, 0},
    {"swiglu 7x1031", run_swiglu, {7, 1031}, 0},
    {"swiglu 5x264", run_swiglu, {5, 264}, 0},
    {"add 5x31 same", run_add_scale_cast, {5, 31, 5}, 0},
    {"add 96x1031 one row", run_add_scale_cast, {96, 1031, 1}, 0},
    {"add 6x7 two rows", run_add_scale_cast, {6, 7, 2}, 0},
    {"add 9x264 one row", run_add_scale_cast, {9, 264, 1}, 0},
    {"embed 1x5", run_embed, {1, 5, 3, 0}, 0},
    {"embed 50x97 of 11, a part", run_embed, {50, 97, 11, 4}, 0},
    {"embed 60x1031", run_embed, {60, 1031, 5, 0}, 0},
    {"embed 60x264", run_embed, {60, 264, 5, 0}, 0},
    {"embed 600x24, over several blocks of ids", run_embed, {600, 24, 40, 3}, 0},
    {"scatter 9x31 of 20", run_scatter_gather, {9, 31, 20}, 0},
    {"scatter 64x7 of 64", run_scatter_gather, {64, 7, 64}, 0},
    {"scatter 9x64 of 20", run_scatter_gather, {9, 64, 20}, 0},
    {"patchify 2x12/4", run_patchify, {2, 12, 4}, 0},
    {"patchify 1x45/15", run_patchify, {1, 45, 15}, 0},
    {"xent 1x1", run_xent, {1, 1, 1, 0}, 0},
    {"xent 33x515", run_xent, {33, 515, 515, 0}, 0},
    {"xent 20x64, 51 real, a part", run_xent, {20, 64, 51, 30}, 0},
    {"xent 9x24, padding only", run_xent, {9, 24, 0, 24}, 0},
    {"update of nothing", run_update, {0, 1, 1, 10}, 0},
    {"update of 1", run_update, {1, 1, 1, 0}, 0},
    {"update of 2, step 100000", run_update, {1, 2, 100000, 1}, 0},
    {"update of a chunk", run_update, {3, 1, 17, 0}, 0},
    {"update of 9", run_update, {0, 9, 17, 10}, 0},
    {"update of 9 joined", run_update, {0, 9, 17, 10}, JOINT},
    {"update of 9, infinite", run_update, {0, 9, 17, 10}, INFINITE},
    {"update of 5 joined, not a number", run_update, {4, 5, 1, 10}, JOINT | NOT_A_NUMBER},
};

const int op_n_cases = (int)(sizeof(op_cases) / sizeof(op_cases[0]));
