/* media_linear.h - the plain way to a video's frames, to compare the fast one with
 *
 * Opens a file by its name with FFmpeg's defaults, decodes every packet in order, and
 * keeps each frame that comes out as media_frames would give it.
 */
#ifndef VNEVA_TESTS_MEDIA_LINEAR_H
#define VNEVA_TESTS_MEDIA_LINEAR_H

#include "dataprep/media/media.h"

struct linear_video {
    uint8_t *frames; /* [n, size, size, 3] */
    double *times;   /* [n], s from the first */
    int64_t n, size;
};

int linear_decode(struct linear_video *out, const char *path, int64_t size,
                  struct err *err);
void linear_fini(struct linear_video *video);

#endif
