/* picture.h - from a decoded frame to upright RGB, and to what the model sees
 *
 * Pictures are [height, width, 3] bytes, RGB, no padding between rows.
 * Inside dataprep/media only.
 */
#ifndef VNEVA_DATAPREP_MEDIA_PICTURE_H
#define VNEVA_DATAPREP_MEDIA_PICTURE_H

#include "dataprep/media/media.h"

#include <libavutil/frame.h>
#include <libswscale/swscale.h>

struct picture {
    uint8_t *rgb; /* owned; room for capacity bytes */
    size_t capacity;
    int64_t width, height;
};

void picture_fini(struct picture *picture);
int picture_reserve(struct picture *picture, int64_t width, int64_t height,
                    struct err *err);

/* Converts frames to RGB, keeping what it needs from one to the next. */
struct converter {
    struct SwsContext *sws;
    struct picture turned; /* scratch of a rotation */
};

void converter_fini(struct converter *converter);

/* The frame as RGB, by its own matrix and range (BT.601, limited, where it does not say,
 * as FFmpeg assumes), turned by the display matrix (NULL: none). */
int converter_run(struct converter *converter, struct picture *out, const AVFrame *frame,
                  const int32_t *matrix, struct err *err);

/* out [size,size,3] = the picture as Hugging Face's CLIPImageProcessor or
 * SiglipImageProcessor gives it before it rescales and normalises.
 *   clip, square:   the shorter edge to size, then the centre cut out
 *   clip, keep:     the same: all that a model of size x size can take of NeMo's keep,
 *                   which leaves out the cut
 *   siglip, square: resized to size x size whatever its aspect
 *   pad:            on a square of the processor's mean colour (LLaVA's expand2square),
 *                   then resized
 * ERR_UNSUPPORTED: keep with siglip. ERR_LIMIT: padded it has sides over PAD_SIDE_MAX. */
#define PAD_SIDE_MAX 16384
int picture_prepare(uint8_t *out, const struct picture *picture, int64_t size,
                    enum media_processor processor, enum media_aspect aspect,
                    struct err *err);

/* The picture scaled to width x height, and the window cut out of that. */
struct resize {
    int64_t width, height;
    int64_t left, top, window_width, window_height;
};

/* out [window_height,window_width,3]: bicubic with antialias, on bytes, bit for bit what
 * Pillow 10 to 12 give. Nothing outside of the window is computed. Source of the
 * arithmetic: Pillow, src/libImaging/Resample.c (support scaled by the reduction,
 * a = -0.5, coefficients of 22 bits, horizontal pass first, each pass rounded to 8 bits;
 * Pillow 13 takes the vertical pass first where that is cheaper, which moves a few values
 * in hard edges). */
int picture_resize(uint8_t *out, const struct resize *resize,
                   const struct picture *picture, struct err *err);

#endif
