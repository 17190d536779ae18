/* ref_sample.c - drawing the next token, by sorting */
#include "model/backend/ref/ref.h"
#include "model/backend/sample.h"

#include <math.h>
#include <stdlib.h>

static int compare_down(const void *a, const void *b)
{
    const float *x = a, *y = b;

    return (*x < *y) - (*x > *y);
}

/* The smallest logit that the filters keep; sorted: from the largest down. */
static float smallest_kept(const struct sample_args *args, const float *sorted)
{
    int64_t n = args->n_real, n_kept = n, i = 0;
    double total = 0, mass = 0;

    if (args->top_k > 0 && args->top_k < n)
        for (n_kept = args->top_k; n_kept < n && sorted[n_kept] == sorted[n_kept - 1];)
            n_kept++; /* equals stay together */
    for (int64_t j = 0; j < n_kept; j++)
        total += exp((double)sorted[j] - (double)sorted[0]);
    while (i < n_kept && mass <= (double)args->top_p * total) {
        float x = sorted[i];

        for (; i < n_kept && sorted[i] == x; i++)
            mass += exp((double)x - (double)sorted[0]);
    }
    return sorted[i - 1];
}

static int32_t draw(const struct sample_args *args, const float *z, float *sorted,
                    int32_t stream, int32_t step)
{
    float best = -INFINITY, least = -INFINITY;
    int32_t at = 0;

    if (args->temperature > 0) {
        for (int64_t i = 0; i < args->n_real; i++)
            sorted[i] = z[i];
        qsort(sorted, (size_t)args->n_real, sizeof(*sorted), compare_down);
        least = smallest_kept(args, sorted);
    }
    for (int64_t i = 0; i < args->n_real; i++) {
        float x = z[i];

        if (x < least)
            continue;
        if (args->temperature > 0)
            x += sample_noise(args, i, stream, step);
        if (x > best) {
            best = x;
            at = (int32_t)i;
        }
    }
    return at;
}

int ref_sample(struct backend *b, struct tensor *value, struct tensor *tokens,
               struct tensor *logits, struct tensor *seen, const struct tensor *streams,
               const struct tensor *steps, const struct sample_args *args,
               struct err *err)
{
    struct tensor rows = tensor_flat(logits);
    int64_t n_words = sample_words(args->n_real);
    float *sorted = malloc((size_t)args->n_real * sizeof(*sorted));

    (void)b;
    if (!sorted)
        return err_set(err, ERR_NOMEM, "cannot sort %lld logits",
                       (long long)args->n_real);
    for (int64_t n = 0; n < rows.dims[0]; n++) {
        float *z = (float *)logits->data + n * rows.dims[1];
        uint32_t *words = seen->data ? (uint32_t *)seen->data + n * n_words : NULL;
        int32_t step = ((const int32_t *)steps->data)[n];
        float largest = sample_row(args, z, words, step);
        int32_t at = isfinite(largest) ? draw(args, z, sorted,
                                              ((const int32_t *)streams->data)[n], step)
                                       : 0;

        if (words)
            words[at / 32] |= 1U << (at % 32);
        ((float *)value->data)[n] = largest;
        ((int32_t *)tokens->data)[n] = at;
    }
    free(sorted);
    return 0;
}
