/* cpu_norm.c - LayerNorm, RMSNorm and column sums, rows divided over threads
 *
 * Sums over rows (dw, dbias, db) are taken in cpu_sum_parts(N) parts that depend on N
 * alone, then added in order.
 */
#include "model/backend/cpu/cpu.h"
#include "model/backend/cpu/cpu_ops.h"

#include <string.h>

/* shift + w [d], in buf when that is another place than w's own */
static const float *gain_read(const struct cpu *cpu, const struct tensor *w, float shift,
                              int64_t d, float *buf)
{
    const float *values = cpu_read(cpu, w, 0, d, buf);

    if (shift == 0)
        return values;
    for (int64_t i = 0; i < d; i++)
        buf[i] = shift + values[i];
    return buf;
}

/* ---- forward ---- */

struct norm_fwd {
    const struct cpu *cpu;
    struct tensor *y, *mean, *rstd; /* mean NULL: RMSNorm */
    struct tensor *sum;             /* NULL: nothing is added */
    const struct tensor *x, *added;
    const float *w, *bias;
    struct cpu_scratch scratch;
    int64_t d;
    float shift, eps;
};

/* Row n of what is normed, in x_buf when that is another place than its own. */
static const float *row_read(const struct norm_fwd *f, int64_t n, float *x_buf,
                             float *added_buf)
{
    int64_t d = f->d, at = n * d;
    const float *x = cpu_read(f->cpu, f->x, at, d, x_buf), *added;
    float *sum;

    if (!f->sum)
        return x;
    added = cpu_read(f->cpu, f->added, at, d, added_buf);
    sum = cpu_target(f->sum, at, x_buf);
    f->cpu->kern->pointwise->add(sum, x, added, 1, d);
    cpu_write(f->cpu, f->sum, at, d, sum);
    return cpu_read(f->cpu, f->sum, at, d, x_buf);
}

static void norm_fwd_rows(void *context, int64_t first, int64_t last, int thread)
{
    const struct norm_fwd *f = context;
    const struct kern_norm *kern = f->cpu->kern->norm;
    float *x_buf = f->scratch.each + thread * f->scratch.stride, *y_buf = x_buf + f->d;

    for (int64_t n = first; n < last; n++) {
        const float *x = row_read(f, n, x_buf, y_buf);
        float *y = cpu_target(f->y, n * f->d, y_buf);
        float mean = 0, rstd;

        if (f->mean) {
            kern->moments(&mean, &rstd, x, f->d, f->eps);
            ((float *)f->mean->data)[n] = mean;
        } else {
            rstd = kern->rms(x, f->d, f->eps);
        }
        ((float *)f->rstd->data)[n] = rstd;
        kern->apply(y, x, f->w, f->bias, mean, rstd, f->d);
        cpu_write(f->cpu, f->y, n * f->d, f->d, y);
    }
}

static int norm_fwd(struct norm_fwd *f, struct cpu *cpu, const struct tensor *w,
                    const struct tensor *bias, struct err *err)
{
    struct tensor rows = tensor_flat(f->x);

    f->cpu = cpu;
    f->d = rows.dims[1];
    if (cpu_scratch(cpu, 2 * f->d, 2 * f->d, &f->scratch, err) < 0)
        return -1;
    f->w = gain_read(cpu, w, f->shift, f->d, f->scratch.shared);
    if (bias)
        f->bias = cpu_read(cpu, bias, 0, f->d, f->scratch.shared + f->d);
    cpu_parallel(cpu, rows.dims[0], 1 + 4 * CPU_CHUNK / (f->d + 1), norm_fwd_rows, f);
    return 0;
}

int cpu_layernorm_fwd(struct backend *b, struct tensor *y, struct tensor *mean,
                      struct tensor *rstd, const struct tensor *x, const struct tensor *w,
                      const struct tensor *bias, float shift, float eps, struct err *err)
{
    struct norm_fwd f = {
        .y = y, .mean = mean, .rstd = rstd, .x = x, .shift = shift, .eps = eps};

    return norm_fwd(&f, cpu_of(b), w, bias, err);
}

int cpu_add_layernorm_fwd(struct backend *b, struct tensor *y, struct tensor *mean,
                          struct tensor *rstd, struct tensor *sum, const struct tensor *x,
                          const struct tensor *added, const struct tensor *w,
                          const struct tensor *bias, float shift, float eps,
                          struct err *err)
{
    struct norm_fwd f = {.y = y,
                         .mean = mean,
                         .rstd = rstd,
                         .sum = sum,
                         .x = x,
                         .added = added,
                         .shift = shift,
                         .eps = eps};

    return norm_fwd(&f, cpu_of(b), w, bias, err);
}

int cpu_rmsnorm_fwd(struct backend *b, struct tensor *y, struct tensor *rstd,
                    const struct tensor *x, const struct tensor *w, float eps,
                    struct err *err)
{
    struct norm_fwd f = {.y = y, .rstd = rstd, .x = x, .eps = eps};

    return norm_fwd(&f, cpu_of(b), w, NULL, err);
}

int cpu_add_rmsnorm_fwd(struct backend *b, struct tensor *y, struct tensor *rstd,
                        struct tensor *sum, const struct tensor *x,
                        const struct tensor *added, const struct tensor *w, float eps,
                        struct err *err)
{
    struct norm_fwd f = {
        .y = y, .rstd = rstd, .sum = sum, .x = x, .added = added, .eps = eps};

    return norm_fwd(&f, cpu_of(b), w, NULL, err);
}

/* ---- backward ---- */

struct norm_bwd {
    const struct cpu *cpu;
    struct tensor *dx;
    const struct tensor *dy, *d_residual, *x, *mean, *rstd; /* mean NULL: RMSNorm */
    const float *w;
    float *dw, *dbias; /* [n_parts][d] partial sums, or NULL */
    struct cpu_scratch scratch;
    int64_t n, d, n_parts;
    float shift;
};

static void norm_bwd_part(const struct norm_bwd *g, int64_t part, float *buf)
{
    const struct kern *kern = g->cpu->kern;
    int64_t d = g->d;
    float *dw = g->dw ? g->dw + part * d : NULL;
    float *dbias = g->dbias ? g->dbias + part * d : NULL;

    for (int64_t n = g->n * part / g->n_parts; n < g->n * (part + 1) / g->n_parts; n++) {
        const float *x = cpu_read(g->cpu, g->x, n * d, d, buf);
        const float *dy = cpu_read(g->cpu, g->dy, n * d, d, buf + d);
        float *dx = g->d_residual ? buf + 2 * d : cpu_target(g->dx, n * d, buf + 2 * d);

        if (dbias) /* before dx, which may be dy */
            kern->pointwise->add(dbias, dbias, dy, 1, d);
        kern->norm->bwd(dx, dw, dy, x, g->w,
                        g->mean ? ((const float *)g->mean->data)[n] : 0,
                        ((const float *)g->rstd->data)[n], g->mean != NULL, d);
        if (g->d_residual)
            kern->pointwise->add(dx, dx, cpu_read(g->cpu, g->d_residual, n * d, d, buf),
                                 1, d);
        cpu_write(g->cpu, g->dx, n * d, d, dx);
    }
}

static void norm_bwd_parts(void *context, int64_t first, int64_t last, int thread)
{
    const struct norm_bwd *g = context;

    for (int64_t part = first; part < last; part++)
        norm_bwd_part(g, part, g->scratch.each + thread * g->scratch.stride);
}

/* total [d] += the n_parts rows of `parts`, in order */
static void add_parts(const struct cpu *cpu, struct tensor *total, const float *parts,
                      int64_t n_parts, int64_t d)
{
    float *to = total->data;

    for (int64_t i = 0; i < n_parts; i++)
        cpu->kern->pointwise->add(to, to, parts + i * d, 1, d);
}

static int norm_bwd(struct norm_bwd *g, struct cpu *cpu, struct tensor *dw,
                    struct tensor *dbias, const struct tensor *w, struct err *err)
{
    struct tensor rows = tensor_flat(g->x);
    int64_t d = rows.dims[1], n_parts = cpu_sum_parts(rows.dims[0]), sums = n_parts * d;

    g->cpu = cpu;
    g->n = rows.dims[0];
    g->d = d;
    g->n_parts = n_parts;
    if (cpu_scratch(cpu, d + 2 * sums, 3 * d, &g->scratch, err) < 0)
        return -1;
    g->w = gain_read(cpu, w, g->shift, d, g->scratch.shared + 2 * sums);
    memset(g->scratch.shared, 0, (size_t)(2 * sums) * sizeof(float));
    g->dw = dw ? g->scratch.shared : NULL;
    g->dbias = dbias ? g->scratch.shared + sums : NULL;
    cpu_parallel(cpu, n_parts, 1, norm_bwd_parts, g);
    if (dw)
        add_parts(cpu, dw, g->dw, n_parts, d);
    if (dbias)
        add_parts(cpu, dbias, g->dbias, n_parts, d);
    return 0;
}

int cpu_layernorm_bwd(struct backend *b, struct tensor *dx, struct tensor *dw,
                      struct tensor *dbias, const struct tensor *dy,
                      const struct tensor *d_residual, const struct tensor *x,
                      const struct tensor *w, const struct tensor *mean,
                      const struct tensor *rstd, float shift, struct err *err)
{
    struct norm_bwd g = {.dx = dx,
                         .dy = dy,
                         .d_residual = d_residual,
                         .x = x,
                         .mean = mean,
                         .rstd = rstd,
                         .shift = shift};

    return norm_bwd(&g, cpu_of(b), dw, dbias, w, err);
}

int cpu_rmsnorm_bwd(struct backend *b, struct tensor *dx, struct tensor *dw,
                    const struct tensor *dy, const struct tensor *d_residual,
                    const struct tensor *x, const struct tensor *w,
                    const struct tensor *rstd, struct err *err)
{
    struct norm_bwd g = {
        .dx = dx, .dy = dy, .d_residual = d_residual, .x = x, .rstd = rstd};

    return norm_bwd(&g, cpu_of(b), dw, NULL, w, err);
}

/* ---- column sums ---- */

struct column_sums {
    const struct cpu *cpu;
    const struct tensor *dy;
    float *sums; /* [n_parts][d] */
    struct cpu_scratch scratch;
    int64_t n, d, n_parts;
};

static void column_sum_parts(void *context, int64_t first, int64_t last, int thread)
{
    const struct column_sums *c = context;
    float *buf = c->scratch.each + thread * c->scratch.stride;

    for (int64_t part = first; part < last; part++) {
        float *sum = c->sums + part * c->d;

        for (int64_t n = c->n * part / c->n_parts; n < c->n * (part + 1) / c->n_parts;
             n++)
            c->cpu->kern->pointwise->add(
                sum, sum, cpu_read(c->cpu, c->dy, n * c->d, c->d, buf), 1, c->d);
    }
}

int cpu_bias_bwd(struct backend *b, struct tensor *db, const struct tensor *dy,
                 struct err *err)
{
    struct cpu *cpu = cpu_of(b);
    struct tensor rows = tensor_flat(dy);
    struct column_sums c = {.cpu = cpu,
                            .dy = dy,
                            .n = rows.dims[0],
                            .d = rows.dims[1],
                            .n_parts = cpu_sum_parts(rows.dims[0])};

    if (cpu_scratch(cpu, c.n_parts * c.d, c.d, &c.scratch, err) < 0)
        return -1;
    c.sums = c.scratch.shared;
    memset(c.sums, 0, (size_t)(c.n_parts * c.d) * sizeof(float));
    cpu_parallel(cpu, c.n_parts, 1, column_sum_parts, &c);
    add_parts(cpu, db, c.sums, c.n_parts, c.d);
    return 0;
}
