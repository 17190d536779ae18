/* cpu_rope.c - rotary embedding from a table of cosines and sines
 *
 * The angles are computed in double, once per position and lifetime; the table is made
 * anew when the arguments change, which no model does.
 */
#include "model/backend/cpu/cpu.h"
#include "model/backend/cpu/cpu_ops.h"
#include "model/backend/rope.h"

#include <math.h>
#include <stdlib.h>

#define POSITIONS_MAX 65536 /* of the table: 32 MiB for 128 dimensions */
#define POSITIONS_MIN 256
#define GRAIN 8192 /* elements a thread is worth */

/* cosines [half] and sines [half] of one position */
static void angles(float *out, int64_t position, const struct rope_args *args)
{
    int64_t half = args->rot_dims / 2;

    for (int64_t i = 0; i < half; i++) {
        double angle = (double)position * rope_frequency(args, i);

        out[i] = (float)cos(angle);
        out[half + i] = (float)sin(angle);
    }
}

static bool is_same(const struct rope_args *a, const struct rope_args *b)
{
    return a->rot_dims == b->rot_dims && a->theta == b->theta &&
           a->scaling == b->scaling && a->factor == b->factor &&
           a->low_freq_factor == b->low_freq_factor &&
           a->high_freq_factor == b->high_freq_factor &&
           a->original_positions == b->original_positions;
}

/* Positions [0, n) are in the table, as far as it may grow. */
static int table_reserve(struct cpu *cpu, int64_t n, const struct rope_args *args,
                         struct err *err)
{
    int64_t have = cpu->rope_positions;
    float *table;

    if (!is_same(&cpu->rope_args, args))
        have = 0;
    if (n <= have || have == POSITIONS_MAX)
        return 0;
    n = n < 2 * have ? 2 * have : n;
    n = n < POSITIONS_MIN ? POSITIONS_MIN : n;
    n = n < POSITIONS_MAX ? n : POSITIONS_MAX;
    table = realloc(cpu->rope, (size_t)(n * args->rot_dims) * sizeof(float));
    if (!table)
        return err_set(err, ERR_NOMEM, "cannot allocate rotary angles of %lld positions",
                       (long long)n);
    for (int64_t p = have; p < n; p++)
        angles(table + p * args->rot_dims, p, args);
    cpu->rope = table;
    cpu->rope_positions = n;
    cpu->rope_args = *args;
    return 0;
}

struct rope {
    const struct cpu *cpu;
    struct tensor *x;
    const int32_t *positions;
    struct cpu_scratch scratch;
    int64_t n_heads, n_heads_all, k;
    struct rope_args args;
    float sign;
};

static void rope_head(const struct rope *r, int64_t at, const float *table, float *buf)
{
    int64_t half = r->args.rot_dims / 2;
    float *x = cpu_target(r->x, at, buf);

    cpu_read(r->cpu, r->x, at, r->args.rot_dims, buf);
    r->cpu->kern->pointwise->rotate(x, x + half, table, table + half, r->sign, half);
    cpu_write(r->cpu, r->x, at, r->args.rot_dims, x);
}

static void rope_rows(void *context, int64_t first, int64_t last, int thread)
{
    const struct rope *r = context;
    float *buf = r->scratch.each + thread * r->scratch.stride;
    float *far = buf + r->args.rot_dims;

    for (int64_t n = first; n < last; n++) {
        int64_t position = r->positions[n];
        const float *table = far;

        if (position >= 0 && position < r->cpu->rope_positions)
            table = r->cpu->rope + position * r->args.rot_dims;
        else
            angles(far, position, &r->args);
        for (int64_t h = 0; h < r->n_heads; h++)
            rope_head(r, (n * r->n_heads_all + h) * r->k, table, buf);
    }
}

int cpu_rope(struct backend *b, struct tensor *x, int64_t n_heads,
             const struct tensor *positions, const struct rope_args *args, bool inverse,
             struct err *err)
{
    struct cpu *cpu = cpu_of(b);
    struct rope r = {.cpu = cpu,
                     .x = x,
                     .positions = positions->data,
                     .n_heads = n_heads,
                     .n_heads_all = x->dims[x->n_dims - 2],
                     .k = x->dims[x->n_dims - 1],
                     .args = *args,
                     .sign = inverse ? -1.0F : 1.0F};
    int64_t n_rows = tensor_count(x) / (r.n_heads_all * r.k);
    int64_t n_positions = 0;

    for (int64_t n = 0; n < n_rows; n++)
        if (r.positions[n] >= n_positions)
            n_positions = (int64_t)r.positions[n] + 1;
    if (table_reserve(cpu, n_positions, args, err) < 0 ||
        cpu_scratch(cpu, 0, 2 * r.args.rot_dims, &r.scratch, err) < 0)
        return -1;
    cpu_parallel(cpu, n_rows, 1 + GRAIN / (n_heads * r.args.rot_dims + 1), rope_rows, &r);
    return 0;
}
