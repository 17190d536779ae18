/* Cases of products, norms and pointwise operations. */
#include "tests/op/op_cases.h"

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

void run_fused_matmul(struct op_run *r)
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

void run_matmul(struct op_run *r)
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

void run_bias_bwd(struct op_run *r)
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

void run_layernorm(struct op_run *r)
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

void run_rmsnorm(struct op_run *r)
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

/* ---- pointwise: n = N, D; activation in n[2] ---- */

void run_act(struct op_run *r)
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

void run_swiglu(struct op_run *r)
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
void run_add_scale_cast(struct op_run *r)
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
