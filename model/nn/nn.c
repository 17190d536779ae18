#include "model/nn/nn.h"

#include "model/comm/device.h"

#include <stdlib.h>

void nn_fini(struct nn *nn)
{
    free(nn->staging);
    *nn = (struct nn){0};
}

bool nn_is_split(const struct nn *nn)
{
    return nn->group && comm_size(nn->group) > 1;
}

static float norm_shift(const struct nn_norm *norm)
{
    return norm->kind == NN_NORM_LAYER_1P ? 1 : 0;
}

int nn_norm_fwd(struct nn *nn, const struct nn_norm *norm, struct tensor *y,
                struct tensor *mean, struct tensor *rstd, const struct tensor *x,
                const struct tensor *w, const struct tensor *b, struct err *err)
{
    const struct backend_ops *ops = nn->backend->ops;

    if (norm->kind == NN_NORM_RMS)
        return ops->rmsnorm_fwd(nn->backend, y, rstd, x, w, norm->eps, err);
    return ops->layernorm_fwd(nn->backend, y, mean, rstd, x, w, b, norm_shift(norm),
                              norm->eps, err);
}

int nn_norm_add_fwd(struct nn *nn, const struct nn_norm *norm, struct tensor *y,
                    struct tensor *mean, struct tensor *rstd, struct tensor *sum,
                    const struct tensor *x, const struct tensor *added,
                    const struct tensor *w, const struct tensor *b, struct err *err)
{
    const struct backend_ops *ops = nn->backend->ops;

    if (norm->kind == NN_NORM_RMS)
        return ops->add_rmsnorm_fwd(nn->backend, y, rstd, sum, x, added, w, norm->eps,
                                    err);
    return ops->add_layernorm_fwd(nn->backend, y, mean, rstd, sum, x, added, w, b,
                                  norm_shift(norm), norm->eps, err);
}

int nn_norm_bwd(struct nn *nn, const struct nn_norm *norm, struct tensor *dx,
                struct tensor *dw, struct tensor *db, const struct tensor *dy,
                const struct tensor *d_residual, const struct tensor *x,
                const struct tensor *w, const struct tensor *mean,
                const struct tensor *rstd, struct err *err)
{
    const struct backend_ops *ops = nn->backend->ops;

    dw = dw && dw->data ? dw : NULL;
    db = db && db->data ? db : NULL;
    if (norm->kind == NN_NORM_RMS)
        return ops->rmsnorm_bwd(nn->backend, dx, dw, dy, d_residual, x, w, rstd, err);
    return ops->layernorm_bwd(nn->backend, dx, dw, db, dy, d_residual, x, w, mean, rstd,
                              norm_shift(norm), err);
}

/* NULL where a tensor does not exist. */
static const struct tensor *existing(const struct tensor *x)
{
    return x && x->data ? x : NULL;
}

int nn_linear_fwd(struct nn *nn, struct tensor *y, const struct tensor *x,
                  const struct tensor *w, const struct tensor *bias, struct err *err)
{
    struct matmul_args args = {.trans_b = true, .bias = existing(bias)};

    return nn->backend->ops->matmul(nn->backend, y, x, w, &args, err);
}

int nn_linear_act_fwd(struct nn *nn, struct tensor *y, struct tensor *pre_act,
                      const struct tensor *x, const struct tensor *w,
                      const struct tensor *bias, enum activation act, struct err *err)
{
    struct matmul_args args = {
        .trans_b = true, .bias = existing(bias), .act = act, .pre_act = pre_act};

    return nn->backend->ops->matmul(nn->backend, y, x, w, &args, err);
}

int nn_linear_bwd_x(struct nn *nn, struct tensor *dx, const struct tensor *dy,
                    const struct tensor *w, struct err *err)
{
    struct matmul_args args = {0};

    return nn->backend->ops->matmul(nn->backend, dx, dy, w, &args, err);
}

int nn_linear_act_bwd_x(struct nn *nn, struct tensor *d_pre_act, const struct tensor *dy,
                        const struct tensor *w, const struct tensor *pre_act,
                        enum activation act, struct err *err)
{
    struct matmul_args args = {.act = act, .slope_at = pre_act};

    return nn->backend->ops->matmul(nn->backend, d_pre_act, dy, w, &args, err);
}

int nn_linear_bwd_w(struct nn *nn, struct tensor *dw, struct tensor *db,
                    const struct tensor *dy, const struct tensor *x, struct err *err)
{
    struct matmul_args args = {
        .trans_a = true, .beta = 1, .bias_grad = db && db->data ? db : NULL};

    return nn->backend->ops->matmul(nn->backend, dw, dy, x, &args, err);
}

/* Where a product that is to be summed over ranks goes: F32, so that the sum is. */
static struct tensor *sum_target(struct nn *nn, struct tensor *y, struct tensor *wide)
{
    if (y->dtype == DTYPE_F32)
        return y;
    *wide = tensor_of(nn->wide->data, DTYPE_F32, y->n_dims, y->dims);
    return wide;
}

static int sum_finish(struct nn *nn, struct tensor *y, struct tensor *target,
                      struct err *err)
{
    if (nn_all_reduce(nn, nn->group, target, COMM_SUM, err) < 0)
        return -1;
    if (target == y)
        return 0;
    return nn->backend->ops->cast(nn->backend, y, target, err);
}

int nn_linear_row_sum(struct nn *nn, struct tensor *sum, struct tensor *y,
                      const struct tensor *x, const struct tensor *w,
                      const struct tensor *bias, struct err *err)
{
    struct tensor wide;
    struct tensor *target = sum_target(nn, y, &wide);

    if (nn_linear_fwd(nn, target, x, w, comm_rank(nn->group) == 0 ? bias : NULL, err) <
            0 ||
        nn_all_reduce(nn, nn->group, target, COMM_SUM, err) < 0)
        return -1;
    *sum = *target;
    return 0;
}

int nn_linear_row_fwd(struct nn *nn, struct tensor *y, const struct tensor *x,
                      const struct tensor *w, const struct tensor *bias,
                      const struct tensor *residual, struct err *err)
{
    const struct backend_ops *ops = nn->backend->ops;
    struct matmul_args args = {
        .trans_b = true, .bias = existing(bias), .residual = residual};
    struct tensor sum;

    if (!nn_is_split(nn))
        return ops->matmul(nn->backend, y, x, w, &args, err);
    if (nn_linear_row_sum(nn, &sum, y, x, w, bias, err) < 0)
        return -1;
    if (residual)
        return ops->add(nn->backend, y, residual, &sum, 1, err);
    return sum.data == y->data ? 0 : ops->cast(nn->backend, y, &sum, err);
}

int nn_linear_column_bwd_x(struct nn *nn, struct tensor *dx, const struct tensor *dy,
                           const struct tensor *w, struct err *err)
{
    struct tensor wide;
    struct tensor *target;

    if (!nn_is_split(nn))
        return nn_linear_bwd_x(nn, dx, dy, w, err);
    target = sum_target(nn, dx, &wide);
    if (nn_linear_bwd_x(nn, target, dy, w, err) < 0)
        return -1;
    return sum_finish(nn, dx, target, err);
}

int nn_sum_ranks(struct nn *nn, struct tensor *x, struct err *err)
{
    struct tensor wide;
    struct tensor *target;

    if (!nn_is_split(nn))
        return 0;
    target = sum_target(nn, x, &wide);
    if (target != x && nn->backend->ops->cast(nn->backend, target, x, err) < 0)
        return -1;
    return sum_finish(nn, x, target, err);
}

static int stage(struct nn *nn, size_t n_bytes, struct err *err)
{
    void *grown;

    if (nn->staging_bytes >= n_bytes)
        return 0;
    grown = realloc(nn->staging, n_bytes);
    if (!grown)
        return err_set(err, ERR_NOMEM, "cannot allocate %zu bytes to exchange", n_bytes);
    nn->staging = grown;
    nn->staging_bytes = n_bytes;
    return 0;
}

int nn_open_group(struct backend *b, struct comm *group, struct err *err)
{
    return comm_open_devices(group, b->ops->devices ? b->ops->devices(b) : NULL, err);
}

int nn_all_reduce(struct nn *nn, struct comm *group, struct tensor *x, enum comm_op op,
                  struct err *err)
{
    const struct backend_ops *ops = nn->backend->ops;
    int64_t n = tensor_count(x);

    if (comm_size(group) == 1)
        return 0;
    if (ops->is_host)
        return comm_all_reduce(group, x->data, n, op, err);
    if (comm_has_device(group))
        return comm_device_all_reduce(group, x->data, n, op, err);
    if (stage(nn, tensor_bytes(x), err) < 0 ||
        ops->download(nn->backend, nn->staging, x->data, tensor_bytes(x), err) < 0 ||
        comm_all_reduce(group, nn->staging, n, op, err) < 0)
        return -1;
    return ops->upload(nn->backend, x->data, nn->staging, tensor_bytes(x), err);
}

int nn_all_reduce_f64(struct nn *nn, struct comm *group, double *x, int64_t n,
                      enum comm_op op, struct err *err)
{
    const struct backend_ops *ops = nn->backend->ops;
    size_t n_bytes = (size_t)n * sizeof(*x);

    if (comm_size(group) == 1)
        return 0;
    if (ops->is_host)
        return comm_all_reduce_f64(group, x, n, op, err);
    if (comm_has_device(group))
        return comm_device_all_reduce_f64(group, x, n, op, err);
    if (stage(nn, n_bytes, err) < 0 ||
        ops->download(nn->backend, nn->staging, x, n_bytes, err) < 0 ||
        comm_all_reduce_f64(group, nn->staging, n, op, err) < 0)
        return -1;
    return ops->upload(nn->backend, x, nn->staging, n_bytes, err);
}

int nn_all_gather(struct nn *nn, struct comm *group, struct tensor *out,
                  const struct tensor *mine, struct err *err)
{
    const struct backend_ops *ops = nn->backend->ops;
    size_t n_bytes = tensor_bytes(mine);
    char *staged;

    if (comm_size(group) == 1)
        return out->data == mine->data
                   ? 0
                   : ops->copy(nn->backend, out->data, mine->data, n_bytes, err);
    if (ops->is_host)
        return comm_all_gather(group, out->data, mine->data, n_bytes, err);
    if (comm_has_device(group))
        return comm_device_all_gather(group, out->data, mine->data, n_bytes, err);
    if (stage(nn, tensor_bytes(out), err) < 0)
        return -1;
    staged = nn->staging;
    staged += (size_t)comm_rank(group) * n_bytes;
    if (ops->download(nn->backend, staged, mine->data, n_bytes, err) < 0 ||
        comm_all_gather(group, nn->staging, staged, n_bytes, err) < 0)
        return -1;
    return ops->upload(nn->backend, out->data, nn->staging, tensor_bytes(out), err);
}
