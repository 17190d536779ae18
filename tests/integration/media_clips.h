/* media_clips.h - clips whose frames carry their own number, painted in big blocks
 *
 * The number's 10 bits stand as white or black blocks in two rows of five, above a band
 * that tells up from down. Frames shift in grey as well, so that none equals another.
 */
#ifndef VNEVA_TESTS_MEDIA_CLIPS_H
#define VNEVA_TESTS_MEDIA_CLIPS_H

#include "dataprep/media/encode.h"
#include "dataprep/media/media.h"

#include <stdbool.h>

#define CLIP_WIDTH 160
#define CLIP_HEIGHT 96
#define CLIP_TICKS_PER_S 25
#define CLIP_PATH_BYTES 128

/* Writes n frames numbered 0 to n - 1. is_variable: frames last 1, 2, 3, 1, 2, 3... ticks.
 * Returns 1 (after saying so) when the encoder is not there, 0 done, -1 failed. */
int clip_write(const char *path, const struct encode_settings *settings, int n,
               bool is_variable);

/* The number painted in rgb [size, size, 3], a whole clip frame squeezed to a square. */
int clip_read_number(const uint8_t *rgb, int size);

/* Whether the band that belongs at the bottom is there. */
bool clip_is_upright(const uint8_t *rgb, int size);

/* A request for a plain file. */
struct frame_request clip_request(const char *path, int64_t num_frames);

/* Setup and teardown of a test or a group of tests: a new folder under $TMPDIR or /tmp for
 * its clips, and its removal. */
int clip_folder_make(void **state);
int clip_folder_remove(void **state);
/* Where a file of this name lies in that folder. */
void clip_path(char out[CLIP_PATH_BYTES], const char *name);

extern const struct media_limits clip_limits;

#endif
