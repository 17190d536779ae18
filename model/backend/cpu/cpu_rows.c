/* cpu_rows.c - rows picked by index, and pixels laid out as rows */
#include "model/backend/cpu/cpu.h"
#include "model/backend/cpu/cpu_ops.h"

#include <string.h>

/* Below so many elements a second thread costs more than it brings. */
#define GRAIN 16384

struct rows {
    const struct cpu *cpu;
    struct tensor *y;
    const struct tensor *x;
    const int32_t *ids;
    int64_t d, n_ids;
    int32_t first;
};

/* Row of the table for ids[n], or -1 when it is not in this part of it. */
static int64_t row_of(const struct rows *r, int64_t n, int64_t n_rows)
{
    int64_t id = (int64_t)r->ids[n] - r->first;

    return r->ids[n] >= 0 && id >= 0 && id < n_rows ? id : -1;
}

static void embed_fwd_rows(void *context, int64_t first, int64_t last, int thread)
{
    const struct rows *r = context;
    size_t row_bytes = (size_t)r->d * dtype_bytes(r->y->dtype);
    float buf[CPU_CHUNK];

    (void)thread;
    for (int64_t n = first; n < last; n++) {
        int64_t id = row_of(r, n, r->x->dims[0]);
        char *to = (char *)r->y->data + (size_t)n * row_bytes;

        if (id < 0)
            memset(to, 0, row_bytes);
        else if (r->x->dtype == r->y->dtype)
            memcpy(to, (const char *)r->x->data + (size_t)id * row_bytes, row_bytes);
        else
            for (int64_t i = 0; i < r->d; i += CPU_CHUNK) {
                int64_t count = r->d - i < CPU_CHUNK ? r->d - i : CPU_CHUNK;

                cpu_write(r->cpu, r->y, n * r->d + i, count,
                          cpu_read(r->cpu, r->x, id * r->d + i, count, buf));
            }
    }
}

int cpu_embed_fwd(struct backend *b, struct tensor *y, const struct tensor *w,
                  const struct tensor *ids, int32_t first, struct err *err)
{
    struct tensor flat = tensor_flat(y);
    struct rows r = {.cpu = cpu_of(b),
                     .y = y,
                     .x = w,
                     .ids = ids->data,
                     .d = flat.dims[1],
                     .first = first};

    (void)err;
    cpu_parallel(r.cpu, flat.dims[0], 1 + GRAIN / (r.d + 1), embed_fwd_rows, &r);
    return 0;
}

/* Columns are divided, not rows: a row of dw may get several rows of dy, in their order. */
static void embed_bwd_columns(void *context, int64_t first, int64_t last, int thread)
{
    const struct rows *r = context;
    float *dw = r->y->data;
    float buf[CPU_CHUNK];

    (void)thread;
    for (int64_t n = 0; n < r->n_ids; n++) {
        int64_t id = row_of(r, n, r->y->dims[0]);

        if (id < 0)
            continue;
        for (int64_t i = first; i < last; i += CPU_CHUNK) {
            int64_t count = last - i < CPU_CHUNK ? last - i : CPU_CHUNK;
            float *to = dw + id * r->d + i;

            r->cpu->kern->pointwise->add(
                to, to, cpu_read(r->cpu, r->x, n * r->d + i, count, buf), 1, count);
        }
    }
}

int cpu_embed_bwd(struct backend *b, struct tensor *dw, const struct tensor *dy,
                  const struct tensor *ids, int32_t first, struct err *err)
{
    struct tensor flat = tensor_flat(dy);
    struct rows r = {.cpu = cpu_of(b),
                     .y = dw,
                     .x = dy,
                     .ids = ids->data,
                     .d = flat.dims[1],
                     .n_ids = flat.dims[0],
                     .first = first};

    (void)err;
    cpu_parallel(r.cpu, r.d, 1 + GRAIN / (r.n_ids + 1), embed_bwd_columns, &r);
    return 0;
}

static void scatter_part(void *context, int64_t first, int64_t last, int thread)
{
    const struct rows *r = context;
    size_t row_bytes = (size_t)r->d * dtype_bytes(r->x->dtype);

    (void)thread;
    for (int64_t i = first; i < last; i++)
        memcpy((char *)r->y->data + (size_t)r->ids[i] * row_bytes,
               (const char *)r->x->data + (size_t)i * row_bytes, row_bytes);
}

int cpu_scatter_rows(struct backend *b, struct tensor *y, const struct tensor *x,
                     const struct tensor *rows, struct err *err)
{
    struct rows r = {
        .cpu = cpu_of(b), .y = y, .x = x, .ids = rows->data, .d = tensor_flat(x).dims[1]};

    (void)err;
    cpu_parallel(r.cpu, rows->dims[0], 1 + GRAIN / (r.d + 1), scatter_part, &r);
    return 0;
}

static void gather_part(void *context, int64_t first, int64_t last, int thread)
{
    const struct rows *r = context;
    size_t row_bytes = (size_t)r->d * dtype_bytes(r->x->dtype);

    (void)thread;
    for (int64_t i = first; i < last; i++)
        memcpy((char *)r->y->data + (size_t)i * row_bytes,
               (const char *)r->x->data + (size_t)r->ids[i] * row_bytes, row_bytes);
}

int cpu_gather_rows(struct backend *b, struct tensor *y, const struct tensor *x,
                    const struct tensor *rows, struct err *err)
{
    struct rows r = {
        .cpu = cpu_of(b), .y = y, .x = x, .ids = rows->data, .d = tensor_flat(x).dims[1]};

    (void)err;
    cpu_parallel(r.cpu, rows->dims[0], 1 + GRAIN / (r.d + 1), gather_part, &r);
    return 0;
}

struct patches {
    const struct cpu *cpu;
    struct tensor *y;
    const uint8_t *rgb;
    struct cpu_scratch scratch;
    int64_t size, side, patch;
    float factor[3], offset[3]; /* value = factor * pixel + offset */
};

/* One patch, whose first pixel is at rgb: columns (c, i, j). */
static void patch_values(const struct patches *p, float *to, const uint8_t *rgb)
{
    for (int c = 0; c < 3; c++)
        for (int64_t i = 0; i < p->patch; i++)
            for (int64_t j = 0; j < p->patch; j++)
                *to++ =
                    p->factor[c] * (float)rgb[(i * p->size + j) * 3 + c] + p->offset[c];
}

static void patchify_part(void *context, int64_t first, int64_t last, int thread)
{
    const struct patches *p = context;
    int64_t n_columns = 3 * p->patch * p->patch;
    float *buf = p->scratch.each + thread * p->scratch.stride;

    for (int64_t at = first; at < last; at++) {
        int64_t frame = at / (p->side * p->side), row = at / p->side % p->side;
        int64_t col = at % p->side;
        int64_t line = frame * p->size + row * p->patch;
        float *to = cpu_target(p->y, at * n_columns, buf);

        patch_values(p, to, p->rgb + (line * p->size + col * p->patch) * 3);
        cpu_write(p->cpu, p->y, at * n_columns, n_columns, to);
    }
}

int cpu_patchify(struct backend *b, struct tensor *y, const struct tensor *pixels,
                 int64_t patch, const float mean[3], const float std[3], struct err *err)
{
    struct cpu *cpu = cpu_of(b);
    int64_t size = pixels->dims[1], side = size / patch;
    struct patches p = {.cpu = cpu,
                        .y = y,
                        .rgb = pixels->data,
                        .size = size,
                        .side = side,
                        .patch = patch};

    for (int c = 0; c < 3; c++) {
        p.factor[c] = (float)(1.0 / (255.0 * std[c]));
        p.offset[c] = (float)(-(double)mean[c] / std[c]);
    }
    if (cpu_scratch(cpu, 0, 3 * patch * patch, &p.scratch, err) < 0)
        return -1;
    cpu_parallel(cpu, pixels->dims[0] * side * side, 1 + GRAIN / (3 * patch * patch),
                 patchify_part, &p);
    return 0;
}
