#include "model/backend/ref/ref.h"

#include <stdlib.h>

/* out [rows,cols] fp32 = x, or its transpose when x is [cols,rows] */
static void unpack(float *out, const struct tensor *x, int64_t rows, int64_t cols,
                   bool trans)
{
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < cols; c++)
            out[r * cols + c] = ref_get(x, trans ? c * rows + r : r * cols + c);
}

/* acc [n] = a_row [k] times bb [k,n]: the products of one row of c, summed in the order
 * of k, in double */
static void row_times(double *acc, const float *a_row, const float *bb, int64_t n,
                      int64_t k)
{
    for (int64_t j = 0; j < n; j++)
        acc[j] = 0;
    for (int64_t p = 0; p < k; p++)
        for (int64_t j = 0; j < n; j++)
            acc[j] += (double)a_row[p] * bb[p * n + j];
}

/* Element at of c, in column j, from the sum of products. */
static void finish(struct tensor *c, int64_t at, int64_t j, double sum,
                   const struct matmul_args *args)
{
    if (args->bias)
        sum += ref_get(args->bias, j);
    if (args->residual)
        sum += ref_get(args->residual, at);
    if (args->beta != 0) /* with 0, c may hold anything, NaN too */
        sum += (double)args->beta * ref_get(c, at);
    if (args->pre_act)
        ref_put(args->pre_act, at, sum);
    if (args->slope_at)
        sum *= ref_act_slope(args->act, ref_get(args->slope_at, at));
    else
        sum = ref_act_value(args->act, sum);
    ref_put(c, at, sum);
}

int ref_matmul(struct backend *b, struct tensor *c, const struct tensor *a,
               const struct tensor *bb, const struct matmul_args *args, struct err *err)
{
    struct tensor c2 = tensor_flat(c), a2 = tensor_flat(a);
    int64_t m = c2.dims[0], n = c2.dims[1];
    int64_t k = args->trans_a ? a2.dims[0] : a2.dims[1];
    float *a_rows = malloc((size_t)(m * k + 1) * sizeof(float));
    float *b_rows = malloc((size_t)(k * n + 1) * sizeof(float));
    double *acc = malloc((size_t)(n + 1) * sizeof(double));
    int rc = -1;

    if (!a_rows || !b_rows || !acc) {
        err_set(err, ERR_NOMEM,
                "cannot allocate scratch for matmul of %lld x %lld x %lld", (long long)m,
                (long long)n, (long long)k);
        goto out;
    }
    unpack(a_rows, a, m, k, args->trans_a);
    unpack(b_rows, bb, k, n, args->trans_b);
    for (int64_t i = 0; i < m; i++) {
        row_times(acc, a_rows + i * k, b_rows, n, k);
        for (int64_t j = 0; j < n; j++)
            finish(c, i * n + j, j, acc[j], args);
    }
    rc = args->bias_grad ? ref_bias_bwd(b, args->bias_grad, a, err) : 0;
out:
    free(acc);
    free(b_rows);
    free(a_rows);
    return rc;
}

int ref_bias_bwd(struct backend *b, struct tensor *db, const struct tensor *dy,
                 struct err *err)
{
    struct tensor rows = tensor_flat(dy);
    int64_t n = rows.dims[1];

    (void)b;
    (void)err;
    for (int64_t j = 0; j < n; j++) {
        double sum = ref_get(db, j);

        for (int64_t i = 0; i < rows.dims[0]; i++)
            sum += ref_get(dy, i * n + j);
        ref_put(db, j, sum);
    }
    return 0;
}
