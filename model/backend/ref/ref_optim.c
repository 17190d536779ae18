#include "model/backend/ref/ref.h"

#include <math.h>

int ref_sum_squares(struct backend *b, double *out, const struct tensor *x,
                    struct err *err)
{
    int64_t n = tensor_count(x);
    double sum = 0;

    (void)b;
    (void)err;
    for (int64_t i = 0; i < n; i++)
        sum += (double)ref_get(x, i) * ref_get(x, i);
    *out = sum;
    return 0;
}

/* Loshchilov, Hutter 2019, as torch.optim.AdamW computes it:
 *   w -= lr decay w;  m = b1 m + (1-b1) g;  v = b2 v + (1-b2) g^2
 *   w -= lr / (1-b1^t) m / (sqrt(v) / sqrt(1-b2^t) + eps) */
int ref_adamw(struct backend *b, struct tensor *master, struct tensor *weight,
              struct tensor *m, struct tensor *v, const struct tensor *grad,
              const struct adamw_args *args, struct err *err)
{
    int64_t n = tensor_count(master);
    double rate = args->lr / (1 - pow(args->beta1, (double)args->step));
    double root = sqrt(1 - pow(args->beta2, (double)args->step));

    (void)b;
    (void)err;
    for (int64_t i = 0; i < n; i++) {
        double g = (double)ref_get(grad, i) * args->grad_scale;
        double w = ref_get(master, i) * (1 - (double)args->lr * args->weight_decay);
        double mi = args->beta1 * (double)ref_get(m, i) + (1 - (double)args->beta1) * g;
        double vi =
            args->beta2 * (double)ref_get(v, i) + (1 - (double)args->beta2) * g * g;

        w -= rate * mi / (sqrt(vi) / root + args->eps);
        ref_put(m, i, mi);
        ref_put(v, i, vi);
        ref_put(master, i, w);
        if (weight)
            ref_put(weight, i, ref_get(master, i));
    }
    return 0;
}
