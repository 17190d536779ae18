#include "model/backend/ref/ref.h"
#include "model/backend/verdict.h"

#include <math.h>

int ref_sum_squares(struct backend *b, double *squares, const struct update_list *list,
                    struct err *err)
{
    (void)b;
    (void)err;
    for (int i = 0; i < list->n_items; i++) {
        const struct update_item *item = &list->items[i];

        squares[i] = 0;
        for (int64_t j = 0; item->is_counted && j < item->n; j++)
            squares[i] += (double)item->grad[j] * item->grad[j];
    }
    return 0;
}

int ref_judge(struct backend *b, struct update_verdict *verdict, const double *squares,
              int64_t n, double divisor, double clip, struct err *err)
{
    double sum = 0;

    (void)b;
    (void)err;
    for (int64_t i = 0; i < n; i++)
        sum += squares[i];
    *verdict = verdict_of(sum, divisor, clip);
    return 0;
}

/* Loshchilov, Hutter 2019, as torch.optim.AdamW computes it:
 *   w -= lr decay w;  m = b1 m + (1-b1) g;  v = b2 v + (1-b2) g^2
 *   w -= lr / (1-b1^t) m / (sqrt(v) / sqrt(1-b2^t) + eps) */
static void update(const struct update_item *item, enum dtype dtype, float scale,
                   const struct adamw_args *args)
{
    const struct tensor weight = tensor_of(item->weight, dtype, 1, &item->n);
    double rate = args->lr / (1 - pow(args->beta1, (double)args->step));
    double root = sqrt(1 - pow(args->beta2, (double)args->step));
    double decay = item->has_decay ? (double)args->lr * args->weight_decay : 0;
    double beta1 = args->beta1, beta2 = args->beta2;

    for (int64_t i = 0; i < item->n; i++) {
        double g = (double)item->grad[i] * scale;
        double w = item->master[i] * (1 - decay);
        double m = beta1 * item->m[i] + (1 - beta1) * g;
        double v = beta2 * item->v[i] + (1 - beta2) * g * g;

        w -= rate * m / (sqrt(v) / root + args->eps);
        item->m[i] = (float)m;
        item->v[i] = (float)v;
        item->master[i] = (float)w;
        if (item->weight)
            ref_put(&weight, i, item->master[i]);
    }
}

int ref_adamw(struct backend *b, const struct update_list *list,
              const struct update_verdict *verdict, const struct adamw_args *args,
              struct err *err)
{
    (void)b;
    (void)err;
    for (int i = 0; i < list->n_items; i++) {
        const struct update_item *item = &list->items[i];

        if (verdict->is_finite)
            update(item, list->dtype, verdict->scale, args);
        for (int64_t j = 0; j < item->n; j++)
            item->grad[j] = 0;
    }
    return 0;
}
