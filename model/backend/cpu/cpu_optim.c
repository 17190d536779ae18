#include "model/backend/cpu/cpu.h"
#include "model/backend/cpu/cpu_ops.h"

#include <math.h>

#define GRAIN 16384        /* elements a thread is worth */
#define SQUARES_PARTS 1024 /* at most so many partial sums */
#define SQUARES_MIN 4096   /* elements a partial sum is worth */

struct squares {
    const struct cpu *cpu;
    const struct tensor *x;
    int64_t n, n_parts;
    double sums[SQUARES_PARTS];
};

static void squares_parts(void *context, int64_t first, int64_t last, int thread)
{
    struct squares *s = context;
    float buf[CPU_CHUNK];

    (void)thread;
    for (int64_t part = first; part < last; part++) {
        int64_t end = s->n * (part + 1) / s->n_parts;

        s->sums[part] = 0;
        for (int64_t i = s->n * part / s->n_parts; i < end; i += CPU_CHUNK) {
            int64_t n = end - i < CPU_CHUNK ? end - i : CPU_CHUNK;
            const float *x = cpu_read(s->cpu, s->x, i, n, buf);

            s->sums[part] += s->cpu->kern->optim->sum_squares(x, n);
        }
    }
}

int cpu_sum_squares(struct backend *b, double *out, const struct tensor *x,
                    struct err *err)
{
    struct squares s = {.cpu = cpu_of(b), .x = x, .n = tensor_count(x)};
    int64_t parts = 1 + s.n / SQUARES_MIN;

    (void)err;
    s.n_parts = parts < SQUARES_PARTS ? parts : SQUARES_PARTS;
    cpu_parallel(s.cpu, s.n_parts, 1 + GRAIN / SQUARES_MIN, squares_parts, &s);
    *out = 0;
    for (int64_t i = 0; i < s.n_parts; i++)
        *out += s.sums[i];
    return 0;
}

struct adamw {
    const struct cpu *cpu;
    struct tensor *master, *weight, *m, *v;
    const struct tensor *grad;
    const struct adamw_args *args;
    float rate, root, keep;
};

static void adamw_part(void *context, int64_t first, int64_t last, int thread)
{
    const struct adamw *a = context;
    float *w = a->master->data, *m = a->m->data, *v = a->v->data;
    const float *grad = a->grad->data;

    (void)thread;
    for (int64_t i = first; i < last; i += CPU_CHUNK) {
        int64_t n = last - i < CPU_CHUNK ? last - i : CPU_CHUNK;

        a->cpu->kern->optim->adamw(w + i, m + i, v + i, grad + i, a->args, a->rate,
                                   a->root, a->keep, n);
        if (a->weight)
            cpu_write(a->cpu, a->weight, i, n, w + i);
    }
}

int cpu_adamw(struct backend *b, struct tensor *master, struct tensor *weight,
              struct tensor *m, struct tensor *v, const struct tensor *grad,
              const struct adamw_args *args, struct err *err)
{
    struct adamw a = {.cpu = cpu_of(b),
                      .master = master,
                      .weight = weight,
                      .m = m,
                      .v = v,
                      .grad = grad,
                      .args = args};

    (void)err;
    a.rate = (float)(args->lr / (1 - pow(args->beta1, (double)args->step)));
    a.root = (float)(1 / sqrt(1 - pow(args->beta2, (double)args->step)));
    a.keep = (float)(1 - (double)args->lr * args->weight_decay);
    cpu_parallel(a.cpu, tensor_count(master), GRAIN, adamw_part, &a);
    return 0;
}
