#include "dataprep/media/picture.h"

#include <libavutil/pixdesc.h>
#include <stdlib.h>
#include <string.h>

void picture_fini(struct picture *picture)
{
    free(picture->rgb);
    *picture = (struct picture){0};
}

int picture_reserve(struct picture *picture, int64_t width, int64_t height,
                    struct err *err)
{
    size_t need = (size_t)width * (size_t)height * 3;

    if (need > picture->capacity) {
        uint8_t *grown = realloc(picture->rgb, need);

        if (!grown)
            return err_set(err, ERR_LIMIT, "no memory for a picture of %lld x %lld",
                           (long long)width, (long long)height);
        picture->rgb = grown;
        picture->capacity = need;
    }
    picture->width = width;
    picture->height = height;
    return 0;
}

void converter_fini(struct converter *converter)
{
    sws_freeContext(converter->sws);
    picture_fini(&converter->turned);
    *converter = (struct converter){0};
}

/* The old "J" formats are their plain twins in full range. */
static enum AVPixelFormat plain_format(enum AVPixelFormat format, int *is_full)
{
    switch (format) {
    case AV_PIX_FMT_YUVJ420P:
        *is_full = 1;
        return AV_PIX_FMT_YUV420P;
    case AV_PIX_FMT_YUVJ422P:
        *is_full = 1;
        return AV_PIX_FMT_YUV422P;
    case AV_PIX_FMT_YUVJ444P:
        *is_full = 1;
        return AV_PIX_FMT_YUV444P;
    case AV_PIX_FMT_YUVJ440P:
        *is_full = 1;
        return AV_PIX_FMT_YUV440P;
    case AV_PIX_FMT_YUVJ411P:
        *is_full = 1;
        return AV_PIX_FMT_YUV411P;
    default:
        return format;
    }
}

static int converter_set_up(struct converter *converter, const AVFrame *frame,
                            struct err *err)
{
    int is_full = frame->color_range == AVCOL_RANGE_JPEG;
    enum AVPixelFormat format = plain_format(frame->format, &is_full);
    const int *rgb = sws_getCoefficients(SWS_CS_DEFAULT);
    int space = frame->colorspace == AVCOL_SPC_UNSPECIFIED ? SWS_CS_DEFAULT
                                                           : (int)frame->colorspace;
    struct SwsContext *sws = sws_getCachedContext(
        converter->sws, frame->width, frame->height, format, frame->width, frame->height,
        AV_PIX_FMT_RGB24,
        SWS_BICUBIC | SWS_ACCURATE_RND | SWS_FULL_CHR_H_INT | SWS_FULL_CHR_H_INP, NULL,
        NULL, NULL);

    converter->sws = sws;
    if (!sws)
        return err_set(err, ERR_UNSUPPORTED, "cannot convert pixels of format %s to RGB",
                       av_get_pix_fmt_name(frame->format));
    /* no effect on formats that are RGB or grey */
    sws_setColorspaceDetails(sws, sws_getCoefficients(space), is_full, rgb, 1, 0, 1 << 16,
                             1 << 16);
    return 0;
}

static int sign(int32_t value)
{
    return value < 0 ? -1 : 1;
}

/* Whether a display matrix swaps width and height. */
static bool is_transposed(const int32_t *matrix)
{
    return matrix &&
           llabs(matrix[0]) + llabs(matrix[4]) < llabs(matrix[1]) + llabs(matrix[3]);
}

/* libavutil/display.h: x' = a x + c y, y' = b x + d y with a b . c d . the matrix; only
 * multiples of 90 degrees and flips are applied. */
static void picture_turn(struct picture *to, const struct picture *from,
                         const int32_t *matrix)
{
    bool is_turned = is_transposed(matrix);
    int from_x = is_turned ? sign(matrix[3]) : sign(matrix[0]); /* of x' */
    int from_y = is_turned ? sign(matrix[1]) : sign(matrix[4]); /* of y' */

    for (int64_t y = 0; y < to->height; y++) {
        for (int64_t x = 0; x < to->width; x++) {
            int64_t u = from_x < 0 ? to->width - 1 - x : x;
            int64_t v = from_y < 0 ? to->height - 1 - y : y;
            int64_t at = is_turned ? u * from->width + v : v * from->width + u;

            memcpy(&to->rgb[(y * to->width + x) * 3], &from->rgb[at * 3], 3);
        }
    }
}

static bool matrix_is_identity(const int32_t *matrix)
{
    return !matrix || (!is_transposed(matrix) && matrix[0] >= 0 && matrix[4] >= 0);
}

int converter_run(struct converter *converter, struct picture *out, const AVFrame *frame,
                  const int32_t *matrix, struct err *err)
{
    bool is_upright = matrix_is_identity(matrix);
    struct picture *straight = is_upright ? out : &converter->turned;
    int stride = frame->width * 3;

    if (converter_set_up(converter, frame, err) < 0 ||
        picture_reserve(straight, frame->width, frame->height, err) < 0)
        return -1;
    if (sws_scale(converter->sws, (const uint8_t *const *)frame->data, frame->linesize, 0,
                  frame->height, &straight->rgb, &stride) != frame->height)
        return err_set(err, ERR_FORMAT, "cannot convert a frame to RGB");
    if (is_upright)
        return 0;
    if (picture_reserve(out, is_transposed(matrix) ? frame->height : frame->width,
                        is_transposed(matrix) ? frame->width : frame->height, err) < 0)
        return -1;
    picture_turn(out, straight, matrix);
    return 0;
}
