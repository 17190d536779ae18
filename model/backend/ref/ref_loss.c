/* ref_loss.c - cross entropy over a vocabulary that is divided over ranks
 *
 * loss = log(sum_v exp(l_v)) - l_label. Each rank has some v; max, sum and target are
 * reduced over the ranks by the caller (Shoeybi et al. 2019, "Megatron-LM", section 3):
 * loss = log(sum) + max - target, d loss/d l_v = exp(l_v - max)/sum - [v = label].
 * Columns from n_real on are padding: never read, their gradient is 0.
 */
#include "model/backend/ref/ref.h"

#include <math.h>

int ref_xent_max(struct backend *b, struct tensor *max, const struct tensor *logits,
                 int64_t n_real, struct err *err)
{
    struct tensor rows = tensor_flat(logits);

    (void)b;
    (void)err;
    for (int64_t n = 0; n < rows.dims[0]; n++) {
        float largest = -INFINITY;

        for (int64_t i = 0; i < n_real; i++)
            largest = fmaxf(largest, ref_get(logits, n * rows.dims[1] + i));
        ref_put(max, n, largest);
    }
    return 0;
}

int ref_xent_sum(struct backend *b, struct tensor *sum, struct tensor *target,
                 const struct tensor *logits, const struct tensor *max,
                 const struct tensor *labels, int32_t first, int64_t n_real,
                 struct err *err)
{
    struct tensor rows = tensor_flat(logits);
    int64_t v = rows.dims[1];
    const int32_t *label_of = labels->data;

    (void)b;
    (void)err;
    for (int64_t n = 0; n < rows.dims[0]; n++) {
        int64_t label = (int64_t)label_of[n] - first;
        bool is_here = label_of[n] >= 0 && label >= 0 && label < n_real;
        double total = 0;

        for (int64_t i = 0; i < n_real; i++)
            total += exp((double)ref_get(logits, n * v + i) - ref_get(max, n));
        ref_put(sum, n, total);
        ref_put(target, n, is_here ? ref_get(logits, n * v + label) : 0);
    }
    return 0;
}

int ref_xent_bwd(struct backend *b, struct tensor *logits, const struct tensor *max,
                 const struct tensor *sum, const struct tensor *labels, int32_t first,
                 int64_t n_real, struct err *err)
{
    struct tensor rows = tensor_flat(logits);
    int64_t v = rows.dims[1];
    const int32_t *label_of = labels->data;

    (void)b;
    (void)err;
    for (int64_t n = 0; n < rows.dims[0]; n++) {
        int64_t label = (int64_t)label_of[n] - first;

        for (int64_t i = 0; i < v; i++) {
            double slope = 0;

            if (label_of[n] >= 0 && i < n_real)
                slope = exp((double)ref_get(logits, n * v + i) - ref_get(max, n)) /
                            ref_get(sum, n) -
                        (i == label);
            ref_put(logits, n * v + i, slope);
        }
    }
    return 0;
}

int ref_xent_total(struct backend *b, double *total, const struct tensor *max,
                   const struct tensor *sum, const struct tensor *target,
                   const struct tensor *labels, struct err *err)
{
    const int32_t *label_of = labels->data;
    int64_t n_rows = tensor_count(max);
    double rows = 0;

    (void)b;
    (void)err;
    for (int64_t n = 0; n < n_rows; n++)
        if (label_of[n] >= 0)
            rows += log((double)ref_get(sum, n)) + ref_get(max, n) - ref_get(target, n);
    *total += rows;
    return 0;
}

int ref_argmax(struct backend *b, struct tensor *value, struct tensor *index,
               const struct tensor *logits, int64_t n_real, struct err *err)
{
    struct tensor rows = tensor_flat(logits);

    (void)b;
    (void)err;
    for (int64_t n = 0; n < rows.dims[0]; n++) {
        float best = -INFINITY;
        int32_t at = n_real > 0 ? 0 : -1;

        for (int64_t i = 0; i < n_real; i++) {
            float x = ref_get(logits, n * rows.dims[1] + i);

            if (x > best) {
                best = x;
                at = (int32_t)i;
            }
        }
        ref_put(value, n, best);
        ((int32_t *)index->data)[n] = at;
    }
    return 0;
}
