/* ref_norm.c - LayerNorm (Ba, Kiros, Hinton 2016) and RMSNorm (Zhang, Sennrich 2019)
 *
 * With xhat = (x - mean) rstd and g = dy (shift + w), over the D elements of a row:
 *   LayerNorm: dx = rstd (g - avg(g) - xhat avg(g xhat)),  dw += dy xhat,  dbias += dy
 *   RMSNorm:   the same with mean = 0 and without the avg(g) term
 */
#include "model/backend/ref/ref.h"

#include <math.h>

int ref_layernorm_fwd(struct backend *b, struct tensor *y, struct tensor *mean,
                      struct tensor *rstd, const struct tensor *x, const struct tensor *w,
                      const struct tensor *bias, float shift, float eps, struct err *err)
{
    struct tensor rows = tensor_flat(x);
    int64_t d = rows.dims[1];

    (void)b;
    (void)err;
    for (int64_t n = 0; n < rows.dims[0]; n++) {
        double sum = 0, squares = 0, mu, r;

        for (int64_t i = 0; i < d; i++)
            sum += ref_get(x, n * d + i);
        mu = sum / (double)d;
        for (int64_t i = 0; i < d; i++) {
            double centred = ref_get(x, n * d + i) - mu;

            squares += centred * centred;
        }
        r = 1 / sqrt(squares / (double)d + eps);
        for (int64_t i = 0; i < d; i++)
            ref_put(y, n * d + i,
                    (ref_get(x, n * d + i) - mu) * r * (shift + ref_get(w, i)) +
                        ref_get(bias, i));
        ref_put(mean, n, mu);
        ref_put(rstd, n, r);
    }
    return 0;
}

int ref_add_layernorm_fwd(struct backend *b, struct tensor *y, struct tensor *mean,
                          struct tensor *rstd, struct tensor *sum, const struct tensor *x,
                          const struct tensor *added, const struct tensor *w,
                          const struct tensor *bias, float shift, float eps,
                          struct err *err)
{
    if (ref_add(b, sum, x, added, 1, err) < 0)
        return -1;
    return ref_layernorm_fwd(b, y, mean, rstd, sum, w, bias, shift, eps, err);
}

/* One row, n, of the backward pass of either norm. */
static void norm_bwd_row(struct tensor *dx, struct tensor *dw, const struct tensor *dy,
                         const struct tensor *d_residual, const struct tensor *x,
                         const struct tensor *w, int64_t n, int64_t d, bool is_centred,
                         double mean, double rstd, double shift)
{
    double sum_g = 0, sum_gx = 0;

    for (int64_t i = 0; i < d; i++) {
        double xhat = (ref_get(x, n * d + i) - mean) * rstd;
        double g = (double)ref_get(dy, n * d + i) * (shift + ref_get(w, i));

        sum_g += is_centred ? g : 0;
        sum_gx += g * xhat;
    }
    for (int64_t i = 0; i < d; i++) {
        double xhat = (ref_get(x, n * d + i) - mean) * rstd;
        double dyi = ref_get(dy, n * d + i);
        double residual = d_residual ? ref_get(d_residual, n * d + i) : 0;

        ref_put(dx, n * d + i,
                residual + rstd * (dyi * (shift + ref_get(w, i)) -
                                   (sum_g + xhat * sum_gx) / (double)d));
        if (dw)
            ref_put(dw, i, ref_get(dw, i) + dyi * xhat);
    }
}

int ref_layernorm_bwd(struct backend *b, struct tensor *dx, struct tensor *dw,
                      struct tensor *dbias, const struct tensor *dy,
                      const struct tensor *d_residual, const struct tensor *x,
                      const struct tensor *w, const struct tensor *mean,
                      const struct tensor *rstd, float shift, struct err *err)
{
    struct tensor rows = tensor_flat(x);

    for (int64_t n = 0; n < rows.dims[0]; n++)
        norm_bwd_row(dx, dw, dy, d_residual, x, w, n, rows.dims[1], true,
                     ref_get(mean, n), ref_get(rstd, n), shift);
    return dbias ? ref_bias_bwd(b, dbias, dy, err) : 0;
}

int ref_rmsnorm_fwd(struct backend *b, struct tensor *y, struct tensor *rstd,
                    const struct tensor *x, const struct tensor *w, float eps,
                    struct err *err)
{
    struct tensor rows = tensor_flat(x);
    int64_t d = rows.dims[1];

    (void)b;
    (void)err;
    for (int64_t n = 0; n < rows.dims[0]; n++) {
        double squares = 0, r;

        for (int64_t i = 0; i < d; i++)
            squares += (double)ref_get(x, n * d + i) * ref_get(x, n * d + i);
        r = 1 / sqrt(squares / (double)d + eps);
        for (int64_t i = 0; i < d; i++)
            ref_put(y, n * d + i, ref_get(x, n * d + i) * r * ref_get(w, i));
        ref_put(rstd, n, r);
    }
    return 0;
}

int ref_add_rmsnorm_fwd(struct backend *b, struct tensor *y, struct tensor *rstd,
                        struct tensor *sum, const struct tensor *x,
                        const struct tensor *added, const struct tensor *w, float eps,
                        struct err *err)
{
    if (ref_add(b, sum, x, added, 1, err) < 0)
        return -1;
    return ref_rmsnorm_fwd(b, y, rstd, sum, w, eps, err);
}

int ref_rmsnorm_bwd(struct backend *b, struct tensor *dx, struct tensor *dw,
                    const struct tensor *dy, const struct tensor *d_residual,
                    const struct tensor *x, const struct tensor *w,
                    const struct tensor *rstd, struct err *err)
{
    struct tensor rows = tensor_flat(x);

    (void)b;
    (void)err;
    for (int64_t n = 0; n < rows.dims[0]; n++)
        norm_bwd_row(dx, dw, dy, d_residual, x, w, n, rows.dims[1], false, 0,
                     ref_get(rstd, n), 0);
    return 0;
}
