#include "dataprep/media/picture.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define COEFFICIENT_BITS 22 /* 32 - 8 bits of a pixel - 2 for overshoot */
#define BICUBIC_SUPPORT 2.0

/* For each output position of a window, which inputs it reads and their weights. */
struct taps {
    int64_t n_in, n_scaled; /* of the whole */
    int64_t n_out, n_max;
    int64_t *first, *n; /* [n_out] */
    int32_t *weights;   /* [n_out, n_max], sum 2^22 but for rounding */
};

static double bicubic(double x)
{
    const double a = -0.5;

    x = fabs(x);
    if (x < 1.0)
        return ((a + 2.0) * x - (a + 3.0)) * x * x + 1;
    if (x < 2.0)
        return (((x - 5) * x + 8) * x - 4) * a;
    return 0.0;
}

static void taps_fini(struct taps *taps)
{
    free(taps->first);
    free(taps->n);
    free(taps->weights);
}

/* Weights of the window's output i, number `place` of the whole: the filter stretched over
 * the reduction, normalised, then rounded half away from zero. */
static void taps_fill(struct taps *taps, int64_t i, int64_t place, double *scratch)
{
    double scale = (double)taps->n_in / (double)taps->n_scaled;
    double stretch = scale < 1.0 ? 1.0 : scale;
    double support = BICUBIC_SUPPORT * stretch;
    double centre = ((double)place + 0.5) * scale;
    int64_t first = (int64_t)(centre - support + 0.5);
    int64_t end = (int64_t)(centre + support + 0.5);
    double sum = 0;

    first = first < 0 ? 0 : first;
    end = end > taps->n_in ? taps->n_in : end;
    for (int64_t k = 0; k < end - first; k++) {
        scratch[k] = bicubic(((double)(k + first) - centre + 0.5) * (1.0 / stretch));
        sum += scratch[k];
    }
    for (int64_t k = 0; k < end - first; k++) {
        double weight = (sum != 0.0 ? scratch[k] / sum : scratch[k]) *
                        (double)(1 << COEFFICIENT_BITS);

        taps->weights[i * taps->n_max + k] =
            (int32_t)(weight < 0 ? weight - 0.5 : weight + 0.5);
    }
    taps->first[i] = first;
    taps->n[i] = end - first;
}

/* Outputs [begin, begin + n_out) of n_in inputs scaled to n_scaled. */
static int taps_init(struct taps *out, int64_t n_in, int64_t n_scaled, int64_t begin,
                     int64_t n_out, struct err *err)
{
    double scale = (double)n_in / (double)n_scaled;
    double *scratch;

    *out = (struct taps){.n_in = n_in, .n_scaled = n_scaled, .n_out = n_out};
    out->n_max = (int64_t)ceil(BICUBIC_SUPPORT * (scale < 1.0 ? 1.0 : scale)) * 2 + 1;
    out->first = calloc((size_t)n_out, sizeof(*out->first));
    out->n = calloc((size_t)n_out, sizeof(*out->n));
    out->weights = calloc((size_t)(n_out * out->n_max), sizeof(*out->weights));
    scratch = calloc((size_t)out->n_max, sizeof(*scratch));
    if (!out->first || !out->n || !out->weights || !scratch) {
        free(scratch);
        taps_fini(out);
        err_set(err, ERR_NOMEM, "cannot allocate a resize of %lld to %lld",
                (long long)n_in, (long long)n_scaled);
        return -1;
    }
    for (int64_t i = 0; i < n_out; i++)
        taps_fill(out, i, begin + i, scratch);
    free(scratch);
    return 0;
}

static uint8_t clip8(int32_t sum)
{
    sum >>= COEFFICIENT_BITS; /* arithmetic, as every compiler we build with does it */
    return (uint8_t)(sum < 0 ? 0 : sum > 255 ? 255 : sum);
}

/* One row: out [taps->n_out,3] from in [n_in,3]. */
static void resize_row(uint8_t *out, const uint8_t *in, const struct taps *taps)
{
    for (int64_t x = 0; x < taps->n_out; x++) {
        const int32_t *weights = &taps->weights[x * taps->n_max];
        const uint8_t *pixel = &in[taps->first[x] * 3];
        int32_t r = 1 << (COEFFICIENT_BITS - 1), g = r, b = r;

        for (int64_t k = 0; k < taps->n[x]; k++) {
            r += pixel[k * 3] * weights[k];
            g += pixel[k * 3 + 1] * weights[k];
            b += pixel[k * 3 + 2] * weights[k];
        }
        out[x * 3] = clip8(r);
        out[x * 3 + 1] = clip8(g);
        out[x * 3 + 2] = clip8(b);
    }
}

/* Output row y: sums whole rows of `in` [., row_bytes], which begins with input row
 * first_row, into sums[row_bytes]. */
static void resize_column(uint8_t *out, const uint8_t *in, int64_t row_bytes, int64_t y,
                          int64_t first_row, const struct taps *taps, int32_t *sums)
{
    for (int64_t i = 0; i < row_bytes; i++)
        sums[i] = 1 << (COEFFICIENT_BITS - 1);
    for (int64_t k = 0; k < taps->n[y]; k++) {
        const uint8_t *row = &in[(taps->first[y] - first_row + k) * row_bytes];
        int32_t weight = taps->weights[y * taps->n_max + k];

        for (int64_t i = 0; i < row_bytes; i++)
            sums[i] += row[i] * weight;
    }
    for (int64_t i = 0; i < row_bytes; i++)
        out[i] = clip8(sums[i]);
}

/* Columns of the window, rows [first_row, first_row + n_rows) of the picture. Pillow
 * leaves out a pass that changes nothing. */
static int resize_horizontal(uint8_t *out, const struct resize *resize,
                             const struct picture *picture, int64_t first_row,
                             int64_t n_rows, struct err *err)
{
    int64_t out_bytes = resize->window_width * 3, in_bytes = picture->width * 3;
    const uint8_t *in = &picture->rgb[first_row * in_bytes];
    struct taps taps;

    if (resize->width == picture->width) {
        for (int64_t y = 0; y < n_rows; y++)
            memcpy(&out[y * out_bytes], &in[y * in_bytes + resize->left * 3],
                   (size_t)out_bytes);
        return 0;
    }
    if (taps_init(&taps, picture->width, resize->width, resize->left,
                  resize->window_width, err) < 0)
        return -1;
    for (int64_t y = 0; y < n_rows; y++)
        resize_row(&out[y * out_bytes], &in[y * in_bytes], &taps);
    taps_fini(&taps);
    return 0;
}

/* Both passes; taps of the rows are given. */
static int resize_both(uint8_t *out, const struct resize *resize,
                       const struct picture *picture, const struct taps *taps,
                       struct err *err)
{
    int64_t last = taps->n_out - 1, row_bytes = resize->window_width * 3;
    int64_t first_row = taps->first[0];
    int64_t n_rows = taps->first[last] + taps->n[last] - first_row;
    uint8_t *narrow = malloc((size_t)(n_rows * row_bytes));
    int32_t *sums = malloc((size_t)row_bytes * sizeof(*sums));
    int rc = -1;

    if (!narrow || !sums)
        err_set(err, ERR_NOMEM, "cannot allocate a narrowed picture");
    else
        rc = resize_horizontal(narrow, resize, picture, first_row, n_rows, err);
    for (int64_t y = 0; rc == 0 && y < taps->n_out; y++)
        resize_column(&out[y * row_bytes], narrow, row_bytes, y, first_row, taps, sums);
    free(narrow);
    free(sums);
    return rc;
}

int picture_resize(uint8_t *out, const struct resize *resize,
                   const struct picture *picture, struct err *err)
{
    struct taps taps;
    int rc;

    if (resize->height == picture->height)
        return resize_horizontal(out, resize, picture, resize->top, resize->window_height,
                                 err);
    if (taps_init(&taps, picture->height, resize->height, resize->top,
                  resize->window_height, err) < 0)
        return -1;
    rc = resize_both(out, resize, picture, &taps, err);
    taps_fini(&taps);
    return rc;
}
