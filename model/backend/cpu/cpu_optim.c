#include "model/backend/cpu/cpu.h"
#include "model/backend/cpu/cpu_ops.h"
#include "model/backend/verdict.h"

#include <math.h>
#include <string.h>

#define GRAIN 16384        /* elements a thread is worth */
#define SQUARES_PARTS 1024 /* at most so many partial sums */
#define SQUARES_MIN 4096   /* elements a partial sum is worth */

struct squares {
    const struct cpu *cpu;
    const float *x;
    int64_t n, n_parts;
    double sums[SQUARES_PARTS];
};

static void squares_parts(void *context, int64_t first, int64_t last, int thread)
{
    struct squares *s = context;

    (void)thread;
    for (int64_t part = first; part < last; part++) {
        int64_t end = s->n * (part + 1) / s->n_parts;

        s->sums[part] = 0;
        for (int64_t i = s->n * part / s->n_parts; i < end; i += CPU_CHUNK) {
            int64_t n = end - i < CPU_CHUNK ? end - i : CPU_CHUNK;

            s->sums[part] += s->cpu->kern->optim->sum_squares(s->x + i, n);
        }
    }
}

static double squares_of(struct squares *s)
{
    int64_t parts = 1 + s->n / SQUARES_MIN;
    double sum = 0;

    s->n_parts = parts < SQUARES_PARTS ? parts : SQUARES_PARTS;
    cpu_parallel(s->cpu, s->n_parts, 1 + GRAIN / SQUARES_MIN, squares_parts, s);
    for (int64_t i = 0; i < s->n_parts; i++)
        sum += s->sums[i];
    return sum;
}

int cpu_sum_squares(struct backend *b, double *squares, const struct update_list *list,
                    struct err *err)
{
    struct squares s = {.cpu = cpu_of(b)};

    (void)err;
    for (int i = 0; i < list->n_items; i++) {
        s.x = list->items[i].grad;
        s.n = list->items[i].n;
        squares[i] = list->items[i].is_counted ? squares_of(&s) : 0;
    }
    return 0;
}

int cpu_judge(struct backend *b, struct update_verdict *verdict, const double *squares,
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

struct adamw {
    const struct cpu *cpu;
    const struct update_list *list;
    const struct update_verdict *verdict;
    const struct adamw_args *args;
    float rate, root, keep;
};

/* Elements [first, last) of an item. */
static void adamw_piece(const struct adamw *a, const struct update_item *item,
                        int64_t first, int64_t last)
{
    const struct tensor weight = tensor_of(item->weight, a->list->dtype, 1, &item->n);
    float keep = item->has_decay ? a->keep : 1;

    for (int64_t i = first; i < last; i += CPU_CHUNK) {
        int64_t n = last - i < CPU_CHUNK ? last - i : CPU_CHUNK;

        if (a->verdict->is_finite) {
            a->cpu->kern->optim->adamw(item->master + i, item->m + i, item->v + i,
                                       item->grad + i, a->args, a->verdict->scale,
                                       a->rate, a->root, keep, n);
            if (item->weight)
                cpu_write(a->cpu, &weight, i, n, item->master + i);
        }
        memset(item->grad + i, 0, (size_t)n * sizeof(float)); /* still in the cache */
    }
}

static void adamw_chunks(void *context, int64_t first, int64_t last, int thread)
{
    const struct adamw *a = context;

    (void)thread;
    for (int i = 0; i < a->list->n_items; i++) {
        const struct update_item *item = &a->list->items[i];
        int64_t begin = (first - item->first_chunk) * UPDATE_CHUNK;
        int64_t end = (last - item->first_chunk) * UPDATE_CHUNK;

        begin = begin > 0 ? begin : 0;
        end = end < item->n ? end : item->n;
        adamw_piece(a, item, begin, end);
    }
}

int cpu_adamw(struct backend *b, const struct update_list *list,
              const struct update_verdict *verdict, const struct adamw_args *args,
              struct err *err)
{
    struct adamw a = {.cpu = cpu_of(b), .list = list, .verdict = verdict, .args = args};

    (void)err;
    a.rate = (float)(args->lr / (1 - pow(args->beta1, (double)args->step)));
    a.root = (float)(1 / sqrt(1 - pow(args->beta2, (double)args->step)));
    a.keep = (float)(1 - (double)args->lr * args->weight_decay);
    cpu_parallel(a.cpu, list->n_chunks, 1, adamw_chunks, &a);
    return 0;
}
