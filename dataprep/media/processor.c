#include "dataprep/media/picture.h"
#include "dataprep/media/preprocessor.h"

#include <string.h>

/* LLaVA's expand2square: in the middle of a square of one colour. */
static int picture_pad(struct picture *out, const struct picture *picture,
                       const uint8_t colour[3], struct err *err)
{
    int64_t side = picture->width > picture->height ? picture->width : picture->height;
    int64_t left = (side - picture->width) / 2, top = (side - picture->height) / 2;

    if (side > PAD_SIDE_MAX)
        return err_set(
            err, ERR_LIMIT, "%lld x %lld padded to a square is over the cap of %d a side",
            (long long)picture->width, (long long)picture->height, PAD_SIDE_MAX);
    if (picture_reserve(out, side, side, err) < 0)
        return -1;
    for (int64_t i = 0; i < side * side; i++)
        memcpy(&out->rgb[i * 3], colour, 3);
    for (int64_t y = 0; y < picture->height; y++)
        memcpy(&out->rgb[((top + y) * side + left) * 3],
               &picture->rgb[y * picture->width * 3], (size_t)(picture->width * 3));
    return 0;
}

static int prepare_straight(uint8_t *out, const struct picture *picture, int64_t size,
                            struct err *err)
{
    const struct resize whole = {size, size, 0, 0, size, size};

    return picture_resize(out, &whole, picture, err);
}

static int prepare_padded(uint8_t *out, const struct picture *picture, int64_t size,
                          enum media_processor processor, struct err *err)
{
    const double *mean = preprocessor_mean(processor);
    const uint8_t colour[3] = {(uint8_t)(mean[0] * 255), (uint8_t)(mean[1] * 255),
                               (uint8_t)(mean[2] * 255)}; /* truncated, as LLaVA does */
    struct picture padded = {0};
    int rc = picture_pad(&padded, picture, colour, err);

    if (rc == 0)
        rc = prepare_straight(out, &padded, size, err);
    picture_fini(&padded);
    return rc;
}

/* Shorter edge to size, the longer in proportion (truncated), the centre cut out. */
static int prepare_cut(uint8_t *out, const struct picture *picture, int64_t size,
                       struct err *err)
{
    int64_t w = picture->width, h = picture->height;
    struct resize cut = {.width = w <= h ? size : size * w / h,
                         .height = w <= h ? size * h / w : size,
                         .window_width = size,
                         .window_height = size};

    cut.left = (cut.width - size) / 2;
    cut.top = (cut.height - size) / 2;
    return picture_resize(out, &cut, picture, err);
}

int picture_prepare(uint8_t *out, const struct picture *picture, int64_t size,
                    enum media_processor processor, enum media_aspect aspect,
                    struct err *err)
{
    if (media_check_processor(processor, aspect, err) < 0)
        return -1;
    if (aspect == MEDIA_ASPECT_PAD && picture->width != picture->height)
        return prepare_padded(out, picture, size, processor, err);
    return processor == MEDIA_PROCESSOR_CLIP ? prepare_cut(out, picture, size, err)
                                             : prepare_straight(out, picture, size, err);
}
