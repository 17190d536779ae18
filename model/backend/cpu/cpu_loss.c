/* cpu_loss.c - vocabulary-parallel cross entropy and argmax, a row at a time */
#include "model/backend/cpu/cpu.h"
#include "model/backend/cpu/cpu_ops.h"

#include <math.h>
#include <string.h>

#define GRAIN 8192 /* elements a thread is worth */

struct loss {
    const struct cpu *cpu;
    struct tensor *logits; /* written by bwd only */
    struct tensor *max, *sum, *target, *index;
    const int32_t *labels;
    struct cpu_scratch scratch;
    int64_t v, n_real, first;
};

/* Runs `part` over the rows of logits with a row of scratch for each thread. */
static int run(struct loss *l, struct backend *b, const struct tensor *logits,
               cpu_part_fn *part, struct err *err)
{
    struct cpu *cpu = cpu_of(b);
    struct tensor rows = tensor_flat(logits);

    l->cpu = cpu;
    l->logits = &rows;
    l->v = rows.dims[1];
    if (cpu_scratch(cpu, 0, l->v, &l->scratch, err) < 0)
        return -1;
    cpu_parallel(cpu, rows.dims[0], 1 + GRAIN / (l->v + 1), part, l);
    return 0;
}

static const float *read_row(const struct loss *l, int64_t n, int thread)
{
    return cpu_read(l->cpu, l->logits, n * l->v, l->n_real,
                    l->scratch.each + thread * l->scratch.stride);
}

static void max_rows(void *context, int64_t first, int64_t last, int thread)
{
    const struct loss *l = context;
    float *max = l->max->data;

    for (int64_t n = first; n < last; n++)
        max[n] = l->cpu->kern->loss->max(read_row(l, n, thread), l->n_real);
}

int cpu_xent_max(struct backend *b, struct tensor *max, const struct tensor *logits,
                 int64_t n_real, struct err *err)
{
    struct loss l = {.max = max, .n_real = n_real};

    return run(&l, b, logits, max_rows, err);
}

static void sum_rows(void *context, int64_t first, int64_t last, int thread)
{
    const struct loss *l = context;
    const float *max = l->max->data;
    float *sum = l->sum->data, *target = l->target->data;

    for (int64_t n = first; n < last; n++) {
        const float *x = read_row(l, n, thread);
        int64_t label = l->labels[n] - l->first;
        bool is_here = l->labels[n] >= 0 && label >= 0 && label < l->n_real;

        sum[n] = l->cpu->kern->loss->sum_exp(x, max[n], l->n_real);
        target[n] = is_here ? x[label] : 0;
    }
}

int cpu_xent_sum(struct backend *b, struct tensor *sum, struct tensor *target,
                 const struct tensor *logits, const struct tensor *max,
                 const struct tensor *labels, int32_t first, int64_t n_real,
                 struct err *err)
{
    struct tensor maxima = *max;
    struct loss l = {.max = &maxima,
                     .sum = sum,
                     .target = target,
                     .labels = labels->data,
                     .n_real = n_real,
                     .first = first};

    return run(&l, b, logits, sum_rows, err);
}

static void bwd_rows(void *context, int64_t first, int64_t last, int thread)
{
    const struct loss *l = context;
    const float *max = l->max->data, *sum = l->sum->data;
    size_t element = dtype_bytes(l->logits->dtype);

    for (int64_t n = first; n < last; n++) {
        char *row = (char *)l->logits->data + (size_t)(n * l->v) * element;
        int64_t label = l->labels[n] - l->first;
        int64_t n_used = l->labels[n] >= 0 ? l->n_real : 0;

        if (n_used > 0) {
            const float *x = read_row(l, n, thread);
            float *y = cpu_target(l->logits, n * l->v,
                                  l->scratch.each + thread * l->scratch.stride);

            l->cpu->kern->loss->slope(y, x, max[n], 1.0F / sum[n], n_used);
            if (label >= 0 && label < n_used)
                y[label] -= 1.0F;
            cpu_write(l->cpu, l->logits, n * l->v, n_used, y);
        }
        memset(row + (size_t)n_used * element, 0, (size_t)(l->v - n_used) * element);
    }
}

int cpu_xent_bwd(struct backend *b, struct tensor *logits, const struct tensor *max,
                 const struct tensor *sum, const struct tensor *labels, int32_t first,
                 int64_t n_real, struct err *err)
{
    struct tensor maxima = *max, sums = *sum;
    struct loss l = {.max = &maxima,
                     .sum = &sums,
                     .labels = labels->data,
                     .n_real = n_real,
                     .first = first};

    return run(&l, b, logits, bwd_rows, err);
}

/* a number a row: not worth dividing */
int cpu_xent_total(struct backend *b, double *total, const struct tensor *max,
                   const struct tensor *sum, const struct tensor *target,
                   const struct tensor *labels, struct err *err)
{
    const float *max_of = max->data, *sum_of = sum->data, *target_of = target->data;
    const int32_t *label_of = labels->data;
    int64_t n_rows = tensor_count(max);
    double rows = 0;

    (void)b;
    (void)err;
    for (int64_t n = 0; n < n_rows; n++)
        if (label_of[n] >= 0)
            rows += log((double)sum_of[n]) + (double)max_of[n] - (double)target_of[n];
    *total += rows;
    return 0;
}

static void argmax_rows(void *context, int64_t first, int64_t last, int thread)
{
    const struct loss *l = context;
    float *value = l->max->data;
    int32_t *index = l->index->data;

    for (int64_t n = first; n < last; n++) {
        const float *x = read_row(l, n, thread);
        int64_t at = 0;

        value[n] = l->cpu->kern->loss->max(x, l->n_real);
        while (at < l->n_real && x[at] != value[n])
            at++;
        if (at == l->n_real) /* nothing but NaN, or nothing at all */
            at = l->n_real > 0 ? 0 : -1;
        index[n] = (int32_t)at;
    }
}

int cpu_argmax(struct backend *b, struct tensor *value, struct tensor *index,
               const struct tensor *logits, int64_t n_real, struct err *err)
{
    struct loss l = {.max = value, .index = index, .n_real = n_real};

    return run(&l, b, logits, argmax_rows, err);
}
