/* cpu_pointwise.c - operations on elements, in pieces of CPU_CHUNK */
#include "model/backend/cpu/cpu.h"
#include "model/backend/cpu/cpu_ops.h"

/* Below so many elements a second thread costs more than it brings. */
#define GRAIN 8192

struct pointwise {
    const struct cpu *cpu;
    struct tensor *y;
    const struct tensor *x, *dy;
    enum activation act;
    float s;
    int64_t period; /* of add's second operand */
};

static int64_t piece_of(int64_t first, int64_t last)
{
    return last - first < CPU_CHUNK ? last - first : CPU_CHUNK;
}

static void act_fwd_part(void *context, int64_t first, int64_t last, int thread)
{
    const struct pointwise *p = context;
    float x_buf[CPU_CHUNK], y_buf[CPU_CHUNK];

    (void)thread;
    for (int64_t i = first; i < last; i += CPU_CHUNK) {
        int64_t n = piece_of(i, last);
        const float *x = cpu_read(p->cpu, p->x, i, n, x_buf);
        float *y = cpu_target(p->y, i, y_buf);

        p->cpu->kern->pointwise->act_fwd(y, x, n, p->act);
        cpu_write(p->cpu, p->y, i, n, y);
    }
}

int cpu_act_fwd(struct backend *b, struct tensor *y, const struct tensor *x,
                enum activation act, struct err *err)
{
    struct pointwise p = {.cpu = cpu_of(b), .y = y, .x = x, .act = act};

    (void)err;
    cpu_parallel(p.cpu, tensor_count(x), GRAIN, act_fwd_part, &p);
    return 0;
}

static void act_bwd_part(void *context, int64_t first, int64_t last, int thread)
{
    const struct pointwise *p = context;
    float x_buf[CPU_CHUNK], dy_buf[CPU_CHUNK], y_buf[CPU_CHUNK];

    (void)thread;
    for (int64_t i = first; i < last; i += CPU_CHUNK) {
        int64_t n = piece_of(i, last);
        const float *x = cpu_read(p->cpu, p->x, i, n, x_buf);
        const float *dy = cpu_read(p->cpu, p->dy, i, n, dy_buf);
        float *dx = cpu_target(p->y, i, y_buf);

        p->cpu->kern->pointwise->act_bwd(dx, dy, x, n, p->act);
        cpu_write(p->cpu, p->y, i, n, dx);
    }
}

int cpu_act_bwd(struct backend *b, struct tensor *dx, const struct tensor *dy,
                const struct tensor *x, enum activation act, struct err *err)
{
    struct pointwise p = {.cpu = cpu_of(b), .y = dx, .x = x, .dy = dy, .act = act};

    (void)err;
    cpu_parallel(p.cpu, tensor_count(x), GRAIN, act_bwd_part, &p);
    return 0;
}

static void swiglu_fwd_rows(void *context, int64_t first, int64_t last, int thread)
{
    const struct pointwise *p = context;
    int64_t f = tensor_flat(p->y).dims[1];
    float gate_buf[CPU_CHUNK], value_buf[CPU_CHUNK], y_buf[CPU_CHUNK];

    (void)thread;
    for (int64_t row = first; row < last; row++)
        for (int64_t j = 0; j < f; j += CPU_CHUNK) {
            int64_t n = piece_of(j, f), at = row * 2 * f + j;
            const float *gate = cpu_read(p->cpu, p->x, at, n, gate_buf);
            const float *value = cpu_read(p->cpu, p->x, at + f, n, value_buf);
            float *y = cpu_target(p->y, row * f + j, y_buf);

            p->cpu->kern->pointwise->swiglu_fwd(y, gate, value, n);
            cpu_write(p->cpu, p->y, row * f + j, n, y);
        }
}

int cpu_swiglu_fwd(struct backend *b, struct tensor *y, const struct tensor *x,
                   struct err *err)
{
    struct pointwise p = {.cpu = cpu_of(b), .y = y, .x = x};
    struct tensor rows = tensor_flat(y);

    (void)err;
    cpu_parallel(p.cpu, rows.dims[0], 1 + GRAIN / (rows.dims[1] + 1), swiglu_fwd_rows,
                 &p);
    return 0;
}

static void swiglu_bwd_rows(void *context, int64_t first, int64_t last, int thread)
{
    const struct pointwise *p = context;
    int64_t f = tensor_flat(p->dy).dims[1];
    float gate_buf[CPU_CHUNK], value_buf[CPU_CHUNK], dy_buf[CPU_CHUNK];
    float dgate_buf[CPU_CHUNK], dvalue_buf[CPU_CHUNK];

    (void)thread;
    for (int64_t row = first; row < last; row++)
        for (int64_t j = 0; j < f; j += CPU_CHUNK) {
            int64_t n = piece_of(j, f), at = row * 2 * f + j;
            const float *gate = cpu_read(p->cpu, p->x, at, n, gate_buf);
            const float *value = cpu_read(p->cpu, p->x, at + f, n, value_buf);
            const float *dy = cpu_read(p->cpu, p->dy, row * f + j, n, dy_buf);
            float *dgate = cpu_target(p->y, at, dgate_buf);
            float *dvalue = cpu_target(p->y, at + f, dvalue_buf);

            p->cpu->kern->pointwise->swiglu_bwd(dgate, dvalue, dy, gate, value, n);
            cpu_write(p->cpu, p->y, at, n, dgate);
            cpu_write(p->cpu, p->y, at + f, n, dvalue);
        }
}

int cpu_swiglu_bwd(struct backend *b, struct tensor *dx, const struct tensor *dy,
                   const struct tensor *x, struct err *err)
{
    struct pointwise p = {.cpu = cpu_of(b), .y = dx, .x = x, .dy = dy};
    struct tensor rows = tensor_flat(dy);

    (void)err;
    cpu_parallel(p.cpu, rows.dims[0], 1 + GRAIN / (rows.dims[1] + 1), swiglu_bwd_rows,
                 &p);
    return 0;
}

/* x is a, dy is bb, which begins again every `period` elements */
static void add_part(void *context, int64_t first, int64_t last, int thread)
{
    const struct pointwise *p = context;
    float a_buf[CPU_CHUNK], b_buf[CPU_CHUNK], y_buf[CPU_CHUNK];
    int64_t n;

    (void)thread;
    for (int64_t i = first; i < last; i += n) {
        int64_t at = i % p->period;
        const float *a, *bb;
        float *y;

        n = piece_of(i, last);
        n = n < p->period - at ? n : p->period - at;
        a = cpu_read(p->cpu, p->x, i, n, a_buf);
        bb = cpu_read(p->cpu, p->dy, at, n, b_buf);
        y = cpu_target(p->y, i, y_buf);
        p->cpu->kern->pointwise->add(y, a, bb, p->s, n);
        cpu_write(p->cpu, p->y, i, n, y);
    }
}

int cpu_add(struct backend *b, struct tensor *y, const struct tensor *a,
            const struct tensor *bb, float s, struct err *err)
{
    struct pointwise p = {.cpu = cpu_of(b), .y = y, .x = a, .dy = bb, .s = s};

    (void)err;
    p.period = tensor_count(bb);
    cpu_parallel(p.cpu, tensor_count(a), GRAIN, add_part, &p);
    return 0;
}

static void scale_part(void *context, int64_t first, int64_t last, int thread)
{
    const struct pointwise *p = context;
    float x_buf[CPU_CHUNK], y_buf[CPU_CHUNK];

    (void)thread;
    for (int64_t i = first; i < last; i += CPU_CHUNK) {
        int64_t n = piece_of(i, last);
        const float *x = cpu_read(p->cpu, p->x, i, n, x_buf);
        float *y = cpu_target(p->y, i, y_buf);

        p->cpu->kern->pointwise->scale(y, x, p->s, n);
        cpu_write(p->cpu, p->y, i, n, y);
    }
}

int cpu_scale(struct backend *b, struct tensor *x, float s, struct err *err)
{
    struct pointwise p = {.cpu = cpu_of(b), .y = x, .x = x, .s = s};

    (void)err;
    cpu_parallel(p.cpu, tensor_count(x), GRAIN, scale_part, &p);
    return 0;
}

static void cast_part(void *context, int64_t first, int64_t last, int thread)
{
    const struct pointwise *p = context;
    float buf[CPU_CHUNK];

    (void)thread;
    for (int64_t i = first; i < last; i += CPU_CHUNK) {
        int64_t n = piece_of(i, last);

        cpu_write(p->cpu, p->y, i, n, cpu_read(p->cpu, p->x, i, n, buf));
    }
}

int cpu_cast(struct backend *b, struct tensor *y, const struct tensor *x, struct err *err)
{
    struct pointwise p = {.cpu = cpu_of(b), .y = y, .x = x};

    (void)err;
    cpu_parallel(p.cpu, tensor_count(x), GRAIN, cast_part, &p);
    return 0;
}
