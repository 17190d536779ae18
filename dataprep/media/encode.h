/* encode.h - writes a video file from RGB pictures, for drawn clips and for tests
 *
 * Owns: encoder and output file until closed; a file whose writing failed is removed.
 * Units: pts in ticks of 1 / ticks_per_s seconds.
 */
#ifndef VNEVA_DATAPREP_MEDIA_ENCODE_H
#define VNEVA_DATAPREP_MEDIA_ENCODE_H

#include "common/base/err.h"

#include <stdint.h>

struct media_encoder;

struct encode_settings {
    const char *codec;  /* FFmpeg's name of an encoder: libx264, mpeg4... */
    const char *format; /* of a container: mp4, avi, matroska... NULL: by the path */
    int width, height;
    int ticks_per_s;
    int gop_frames;           /* a key frame every so many; 0: the encoder's own way */
    int b_frames;             /* -1: the encoder's own way */
    const char *options;      /* "crf=18:preset=ultrafast", NULL: none */
    const char *mux_options;  /* "movflags=faststart", NULL: none */
    int rotation_degrees;     /* counter-clockwise, as a display matrix */
    const char *pixel_format; /* NULL: yuv420p */
};

/* ERR_UNSUPPORTED: this FFmpeg has no such encoder. */
int media_encoder_open(struct media_encoder **out, const char *path,
                       const struct encode_settings *settings, struct err *err);

/* rgb [height, width, 3]; pts grows from call to call. */
int media_encoder_add(struct media_encoder *encoder, const uint8_t *rgb, int64_t pts,
                      struct err *err);

/* Writes what is left. Frees the encoder in any case. */
int media_encoder_close(struct media_encoder *encoder, struct err *err);

/* Gives up: frees the encoder, removes the file. NULL is fine. */
void media_encoder_abort(struct media_encoder *encoder);

#endif
