/* cpu_rope.c - rotary embedding from a table of cosines and sines
 *
 * The angles are computed in double, once per position and lifetime; the table is made
 * anew when theta or the number of dimensions change, which no model does.
 */
#include "model/backend/cpu/cpu.h"
#include "model/backend/cpu/cpu_ops.h"

#include <math.h>
#include <stdlib.h>

#define POSITIONS_MAX 65536 /* of the table: 32 MiB for 128 dimensions */
#define POSITIONS_MIN 256
#define GRAIN 8192 /* elements a thread is worth */

/* cosines [half] and sines [half] of one position */
static void angles(float *out, int64_t position, int64_t rot_dims, float theta)
{
    int64_t half = rot_dims / 2;

    for (int64_t i = 0; i < half; i++) {
        double angle = (double)position * pow(theta, -2.0 * (double)i / (double)rot_dims);

        out[i] = (float)cos(angle);
        out[half + i] = (float)sin(angle);
    }
}

/* Positions [0, n) are in the table, as far as it may grow. */
static int table_reserve(struct cpu *cpu, int64_t n, int64_t rot_dims, float theta,
                         struct err *err)
{
    int64_t have = cpu->rope_positions;
    float *table;

    if (cpu->rope_dims != rot_dims || cpu->rope_theta != theta)
        have = 0;
    if (n <= have || have == POSITIONS_MAX)
        return 0;
    n = n < 2 * have ? 2 * have : n;
    n = n < POSITIONS_MIN ? POSITIONS_MIN : n;
    n = n < POSITIONS_MAX ? n : POSITIONS_MAX;
    table = realloc(cpu->rope, (size_t)(n * rot_dims) * sizeof(float));
    if (!table)
        return err_set(err, ERR_NOMEM, "cannot allocate rotary angles of %lld positions",
                       (long long)n);
    for (int64_t p = have; p < n; p++)
        angles(table + p * rot_dims, p, rot_dims, theta);
    cpu->rope = table;
    cpu->rope_positions = n;
    cpu->rope_dims = rot_dims;
    cpu->rope_theta = theta;
    return 0;
}

struct rope {
    const struct cpu *cpu;
    struct tensor *x;
    const int32_t *positions;
    struct cpu_scratch scratch;
    int64_t n_heads, n_heads_all, k, rot_dims;
    float theta, sign;
};

static void rope_head(const struct rope *r, int64_t at, const float *table, float *buf)
{
    int64_t half = r->rot_dims / 2;
    float *x = cpu_target(r->x, at, buf);

    cpu_read(r->cpu, r->x, at, r->rot_dims, buf);
    r->cpu->kern->pointwise->rotate(x, x + half, table, table + half, r->sign, half);
    cpu_write(r->cpu, r->x, at, r->rot_dims, x);
}

static void rope_rows(void *context, int64_t first, int64_t last, int thread)
{
    const struct rope *r = context;
    float *buf = r->scratch.each + thread * r->scratch.stride;
    float *far = buf + r->rot_dims;

    for (int64_t n = first; n < last; n++) {
        int64_t position = r->positions[n];
        const float *table = far;

        if (position >= 0 && position < r->cpu->rope_positions)
            table = r->cpu->rope + position * r->rot_dims;
        else
            angles(far, position, r->rot_dims, r->theta);
        for (int64_t h = 0; h < r->n_heads; h++)
            rope_head(r, (n * r->n_heads_all + h) * r->k, table, buf);
    }
}

int cpu_rope(struct backend *b, struct tensor *x, int64_t n_heads,
             const int32_t *positions, int64_t rot_dims, float theta, bool inverse,
             struct err *err)
{
    struct cpu *cpu = cpu_of(b);
    struct rope r = {.cpu = cpu,
                     .x = x,
                     .positions = positions,
                     .n_heads = n_heads,
                     .n_heads_all = x->dims[x->n_dims - 2],
                     .k = x->dims[x->n_dims - 1],
                     .rot_dims = rot_dims / 2 * 2,
                     .theta = theta,
                     .sign = inverse ? -1.0F : 1.0F};
    int64_t n_rows = tensor_count(x) / (r.n_heads_all * r.k);
    int64_t n_positions = 0;

    for (int64_t n = 0; n < n_rows; n++)
        if (positions[n] >= n_positions)
            n_positions = (int64_t)positions[n] + 1;
    if (table_reserve(cpu, n_positions, r.rot_dims, theta, err) < 0 ||
        cpu_scratch(cpu, 0, 2 * r.rot_dims, &r.scratch, err) < 0)
        return -1;
    cpu_parallel(cpu, n_rows, 1 + GRAIN / (n_heads * r.rot_dims + 1), rope_rows, &r);
    return 0;
}
