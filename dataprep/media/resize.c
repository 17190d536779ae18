#include "dataprep/media/picture.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define COEFFICIENT_BITS 22 /* 32 - 8 bits of a pixel - 2 for overshoot */
#define BICUBIC_SUPPORT 2.0

/* CLIP's mean colour as LLaVA's expand2square gets it: int(255 * mean). */
static const uint8_t mean_colour[3] = {122, 116, 104};

/* For each output position, which inputs it reads and their weights. */
struct taps {
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

/* Weights of output i: the filter stretched over the reduction, normalised, then rounded
 * half away from zero. */
static void taps_fill(struct taps *taps, int64_t i, int64_t n_in, double *scratch)
{
    double scale = (double)n_in / (double)taps->n_out;
    double stretch = scale < 1.0 ? 1.0 : scale;
    double support = BICUBIC_SUPPORT * stretch;
    double centre = ((double)i + 0.5) * scale;
    int64_t first = (int64_t)(centre - support + 0.5);
    int64_t end = (int64_t)(centre + support + 0.5);
    double sum = 0;

    first = first < 0 ? 0 : first;
    end = end > n_in ? n_in : end;
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

static int taps_init(struct taps *out, int64_t n_in, int64_t n_out, struct err *err)
{
    double scale = (double)n_in / (double)n_out;
    double *scratch;

    *out = (struct taps){.n_out = n_out};
    out->n_max = (int64_t)ceil(BICUBIC_SUPPORT * (scale < 1.0 ? 1.0 : scale)) * 2 + 1;
    out->first = calloc((size_t)n_out, sizeof(*out->first));
    out->n = calloc((size_t)n_out, sizeof(*out->n));
    out->weights = calloc((size_t)(n_out * out->n_max), sizeof(*out->weights));
    scratch = calloc((size_t)out->n_max, sizeof(*scratch));
    if (!out->first || !out->n || !out->weights || !scratch) {
        free(scratch);
        taps_fini(out);
        err_set(err, ERR_NOMEM, "cannot allocate a resize of %lld to %lld",
                (long long)n_in, (long long)n_out);
        return -1;
    }
    for (int64_t i = 0; i < n_out; i++)
        taps_fill(out, i, n_in, scratch);
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

/* Output row y: sums whole rows of `in` [., row_bytes] into sums[row_bytes]. */
static void resize_column(uint8_t *out, const uint8_t *in, int64_t row_bytes, int64_t y,
                          const struct taps *taps, int32_t *sums)
{
    for (int64_t i = 0; i < row_bytes; i++)
        sums[i] = 1 << (COEFFICIENT_BITS - 1);
    for (int64_t k = 0; k < taps->n[y]; k++) {
        const uint8_t *row = &in[(taps->first[y] + k) * row_bytes];
        int32_t weight = taps->weights[y * taps->n_max + k];

        for (int64_t i = 0; i < row_bytes; i++)
            sums[i] += row[i] * weight;
    }
    for (int64_t i = 0; i < row_bytes; i++)
        out[i] = clip8(sums[i]);
}

static int resize_vertical(uint8_t *out, const uint8_t *in, int64_t width, int64_t n_in,
                           int64_t n_out, struct err *err)
{
    struct taps taps;
    int32_t *sums;

    if (taps_init(&taps, n_in, n_out, err) < 0)
        return -1;
    sums = malloc((size_t)width * 3 * sizeof(*sums));
    if (!sums) {
        taps_fini(&taps);
        return err_set(err, ERR_NOMEM, "cannot allocate a row");
    }
    for (int64_t y = 0; y < n_out; y++)
        resize_column(&out[y * width * 3], in, width * 3, y, &taps, sums);
    free(sums);
    taps_fini(&taps);
    return 0;
}

static int resize_horizontal(uint8_t *out, int64_t width, const struct picture *picture,
                             struct err *err)
{
    struct taps taps;

    if (taps_init(&taps, picture->width, width, err) < 0)
        return -1;
    for (int64_t y = 0; y < picture->height; y++)
        resize_row(&out[y * width * 3], &picture->rgb[y * picture->width * 3], &taps);
    taps_fini(&taps);
    return 0;
}

/* Pillow leaves out a pass that changes nothing. */
int picture_resize(uint8_t *out, int64_t width, int64_t height,
                   const struct picture *picture, struct err *err)
{
    const uint8_t *narrow = picture->rgb;
    uint8_t *scratch = NULL;
    int rc = 0;

    if (width != picture->width) {
        bool is_last = height == picture->height;

        if (!is_last)
            scratch = malloc((size_t)(width * picture->height * 3));
        if (!is_last && !scratch)
            return err_set(err, ERR_NOMEM, "cannot allocate a narrowed picture");
        rc = resize_horizontal(is_last ? out : scratch, width, picture, err);
        narrow = is_last ? out : scratch;
    }
    if (rc == 0 && height != picture->height)
        rc = resize_vertical(out, narrow, width, picture->height, height, err);
    else if (rc == 0 && narrow != out)
        memcpy(out, narrow, (size_t)(width * height * 3));
    free(scratch);
    return rc;
}

/* LLaVA's expand2square: in the middle of a square of the mean colour. */
static int picture_pad(struct picture *out, const struct picture *picture,
                       struct err *err)
{
    int64_t side = picture->width > picture->height ? picture->width : picture->height;
    int64_t left = (side - picture->width) / 2, top = (side - picture->height) / 2;

    if (picture_reserve(out, side, side, err) < 0)
        return -1;
    for (int64_t i = 0; i < side * side; i++)
        memcpy(&out->rgb[i * 3], mean_colour, 3);
    for (int64_t y = 0; y < picture->height; y++)
        memcpy(&out->rgb[((top + y) * side + left) * 3],
               &picture->rgb[y * picture->width * 3], (size_t)(picture->width * 3));
    return 0;
}

static int prepare_padded(uint8_t *out, const struct picture *picture, int64_t size,
                          struct err *err)
{
    struct picture padded = {0};
    int rc = picture_pad(&padded, picture, err);

    if (rc == 0)
        rc = picture_resize(out, size, size, &padded, err);
    picture_fini(&padded);
    return rc;
}

/* Shorter edge to size, the longer in proportion (truncated), the centre cut out. */
static int prepare_kept(uint8_t *out, const struct picture *picture, int64_t size,
                        struct err *err)
{
    int64_t w = picture->width, h = picture->height;
    int64_t width = w <= h ? size : size * w / h;
    int64_t height = w <= h ? size * h / w : size;
    struct picture whole = {0};
    int rc = picture_reserve(&whole, width, height, err);

    if (rc == 0)
        rc = picture_resize(whole.rgb, width, height, picture, err);
    for (int64_t y = 0; rc == 0 && y < size; y++)
        memcpy(&out[y * size * 3],
               &whole.rgb[((y + (height - size) / 2) * width + (width - size) / 2) * 3],
               (size_t)(size * 3));
    picture_fini(&whole);
    return rc;
}

int picture_prepare(uint8_t *out, const struct picture *picture, int64_t size,
                    enum media_aspect aspect, struct err *err)
{
    if (aspect == MEDIA_ASPECT_PAD && picture->width != picture->height)
        return prepare_padded(out, picture, size, err);
    if (aspect == MEDIA_ASPECT_KEEP)
        return prepare_kept(out, picture, size, err);
    return picture_resize(out, size, size, picture, err);
}
