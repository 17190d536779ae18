#include "tests/integration/media_clips.h"

#include "common/base/fs.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef __SANITIZE_ADDRESS__
/* libx265 3.5 does not free all of an encoder; read by the leak checker at exit. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
    return "leak:libx265";
}
#endif

#define N_BITS 10
#define COLUMNS 5

const struct media_limits clip_limits = {.max_pixels = 1 << 24, .max_frames = 4096};

/* Two rows of blocks fill the upper three quarters; the band is the last quarter. */
static bool is_lit(int number, int x, int y)
{
    int column = x * COLUMNS / CLIP_WIDTH;
    int row = y * 8 / (CLIP_HEIGHT * 3);

    return row < 2 && number >> (row * COLUMNS + column) & 1;
}

static void clip_paint(uint8_t *rgb, int number)
{
    for (int y = 0; y < CLIP_HEIGHT; y++)
        for (int x = 0; x < CLIP_WIDTH; x++) {
            uint8_t *pixel = &rgb[(y * CLIP_WIDTH + x) * 3];
            bool is_band = y >= CLIP_HEIGHT * 3 / 4;
            int grey = is_lit(number, x, y) ? 230 : 25;

            pixel[0] = (uint8_t)(is_band ? 200 - number % 8 * 4 : grey);
            pixel[1] = (uint8_t)(is_band ? 60 + (x + number * 3) % 32 : grey);
            pixel[2] = (uint8_t)(is_band ? 60 : grey);
        }
}

int clip_write(const char *path, const struct encode_settings *settings, int n,
               bool is_variable)
{
    static uint8_t rgb[CLIP_WIDTH * CLIP_HEIGHT * 3];
    struct encode_settings full = *settings;
    struct media_encoder *encoder;
    struct err err = {0};
    int64_t pts = 0;

    full.width = CLIP_WIDTH;
    full.height = CLIP_HEIGHT;
    full.ticks_per_s = CLIP_TICKS_PER_S;
    if (media_encoder_open(&encoder, path, &full, &err) < 0) {
        printf("skip: %s: %s\n", settings->codec, err.text);
        return err.code == ERR_UNSUPPORTED ? 1 : -1;
    }
    for (int i = 0; i < n; i++) {
        clip_paint(rgb, i);
        if (media_encoder_add(encoder, rgb, pts, &err) < 0) {
            media_encoder_abort(encoder);
            printf("%s\n", err.text);
            return -1;
        }
        pts += is_variable ? 1 + i % 3 : 1;
    }
    if (media_encoder_close(encoder, &err) < 0) {
        printf("%s\n", err.text);
        return -1;
    }
    return 0;
}

static const uint8_t *at(const uint8_t *rgb, int size, double x, double y)
{
    return &rgb[((int)(y * size) * size + (int)(x * size)) * 3];
}

int clip_read_number(const uint8_t *rgb, int size)
{
    int number = 0;

    for (int bit = 0; bit < N_BITS; bit++) {
        int column = bit % COLUMNS, row = bit / COLUMNS;
        double x = (column + 0.5) / COLUMNS;
        double y = (row + 0.5) * 3 / 8;

        if (at(rgb, size, x, y)[1] > 128)
            number |= 1 << bit;
    }
    return number;
}

bool clip_is_upright(const uint8_t *rgb, int size)
{
    const uint8_t *pixel = at(rgb, size, 0.5, 0.9);

    return pixel[0] > 130 && pixel[1] < 110 && pixel[2] < 110;
}

struct frame_request clip_request(const char *path, int64_t num_frames)
{
    struct frame_request request = {.num_frames = num_frames,
                                    .image_size = 64,
                                    .processor = MEDIA_PROCESSOR_SIGLIP}; /* all of it */

    snprintf(request.media.path, sizeof(request.media.path), "%s", path);
    return request;
}

static char folder[64];

int clip_folder_make(void **state)
{
    const char *tmp = getenv("TMPDIR");

    (void)state;
    snprintf(folder, sizeof(folder), "%s/vneva-media-XXXXXX", tmp ? tmp : "/tmp");
    return mkdtemp(folder) ? 0 : -1;
}

int clip_folder_remove(void **state)
{
    (void)state;
    return fs_remove_tree(folder, NULL);
}

void clip_path(char out[CLIP_PATH_BYTES], const char *name)
{
    snprintf(out, CLIP_PATH_BYTES, "%s/%s", folder, name);
}
