/* ref_rows.c - rows picked by index, and pixels laid out as rows */
#include "model/backend/ref/ref.h"

#include <string.h>

int ref_embed_fwd(struct backend *b, struct tensor *y, const struct tensor *w,
                  const struct tensor *ids, int32_t first, struct err *err)
{
    struct tensor rows = tensor_flat(y);
    int64_t d = rows.dims[1];
    const int32_t *id_of = ids->data;

    (void)b;
    (void)err;
    for (int64_t n = 0; n < rows.dims[0]; n++) {
        int64_t id = (int64_t)id_of[n] - first;
        bool is_here = id_of[n] >= 0 && id >= 0 && id < w->dims[0];

        for (int64_t i = 0; i < d; i++)
            ref_put(y, n * d + i, is_here ? ref_get(w, id * d + i) : 0);
    }
    return 0;
}

int ref_embed_bwd(struct backend *b, struct tensor *dw, const struct tensor *dy,
                  const struct tensor *ids, int32_t first, struct err *err)
{
    struct tensor rows = tensor_flat(dy);
    int64_t d = rows.dims[1];
    const int32_t *id_of = ids->data;

    (void)b;
    (void)err;
    for (int64_t n = 0; n < rows.dims[0]; n++) {
        int64_t id = (int64_t)id_of[n] - first;

        if (id_of[n] < 0 || id < 0 || id >= dw->dims[0])
            continue;
        for (int64_t i = 0; i < d; i++)
            ref_put(dw, id * d + i,
                    (double)ref_get(dw, id * d + i) + ref_get(dy, n * d + i));
    }
    return 0;
}

int ref_scatter_rows(struct backend *b, struct tensor *y, const struct tensor *x,
                     const struct tensor *rows, struct err *err)
{
    size_t row_bytes = (size_t)tensor_flat(x).dims[1] * dtype_bytes(x->dtype);
    const int32_t *row = rows->data;

    (void)b;
    (void)err;
    for (int64_t i = 0; i < rows->dims[0]; i++)
        memcpy((char *)y->data + (size_t)row[i] * row_bytes,
               (const char *)x->data + (size_t)i * row_bytes, row_bytes);
    return 0;
}

int ref_gather_rows(struct backend *b, struct tensor *y, const struct tensor *x,
                    const struct tensor *rows, struct err *err)
{
    size_t row_bytes = (size_t)tensor_flat(x).dims[1] * dtype_bytes(x->dtype);
    const int32_t *row = rows->data;

    (void)b;
    (void)err;
    for (int64_t i = 0; i < rows->dims[0]; i++)
        memcpy((char *)y->data + (size_t)i * row_bytes,
               (const char *)x->data + (size_t)row[i] * row_bytes, row_bytes);
    return 0;
}

/* Column (c, i, j) of patch (f, row, col) is colour c of the pixel i down and j across. */
int ref_patchify(struct backend *b, struct tensor *y, const struct tensor *pixels,
                 int64_t patch, const float mean[3], const float std[3], struct err *err)
{
    int64_t size = pixels->dims[1], side = size / patch, n_columns = 3 * patch * patch;
    int64_t n = pixels->dims[0] * side * side * n_columns;
    const uint8_t *rgb = pixels->data;

    (void)b;
    (void)err;
    for (int64_t at = 0; at < n; at++) {
        int64_t place = at / n_columns, column = at % n_columns;
        int64_t f = place / (side * side), row = place / side % side, col = place % side;
        int64_t c = column / (patch * patch), i = column / patch % patch;
        int64_t j = column % patch;
        int64_t from = ((f * size + row * patch + i) * size + col * patch + j) * 3 + c;

        ref_put(y, at, (rgb[from] / 255.0 - mean[c]) / std[c]);
    }
    return 0;
}
