#include "common/base/rng.h"
#include "dataprep/synth/synth.h"

#include <math.h>
#include <stdbool.h>

#define NOISE_DEVIATION 2.0
#define NOISE_MAX 10 /* five deviations */

static const uint8_t colours[SYNTH_N_COLOURS][3] = {{220, 40, 40},   {40, 180, 60},
                                                    {50, 80, 230},   {235, 215, 50},
                                                    {240, 240, 240}, {160, 60, 200}};
static const uint8_t backgrounds[SYNTH_N_BACKGROUNDS][3] = {
    {16, 16, 16}, {96, 96, 96}, {90, 56, 28}};

/* Whether the shape holds the point (dx, dy) from its centre. */
static bool shape_holds(const struct synth_clip *clip, double dx, double dy)
{
    double r = clip->radius;
    double square = dx * dx + dy * dy;
    double inner = 0.55 * r;

    switch (clip->shape) {
    case SYNTH_DISC:
        return square <= r * r;
    case SYNTH_RING:
        return square <= r * r && square >= inner * inner;
    default:
        return (fabs(dx) <= r && fabs(dy) <= r / 4) ||
               (fabs(dy) <= r && fabs(dx) <= r / 4);
    }
}

static void centre_of(const struct synth_clip *clip, int frame, double *x, double *y)
{
    static const int step[SYNTH_N_DIRECTIONS][2] = {{-1, 0}, {1, 0}, {0, -1}, {0, 1}};
    double gone = clip->distance * frame / (SYNTH_FRAMES - 1); /* 0 in a colour clip */

    *x = clip->x + step[clip->direction][0] * gone;
    *y = clip->y + step[clip->direction][1] * gone;
}

/* The share of pixel (x, y) that the shape covers: of 2 x 2 points in it. */
static double coverage(const struct synth_clip *clip, double dx, double dy)
{
    int n = 0;

    for (int i = 0; i < 2; i++)
        for (int j = 0; j < 2; j++)
            n += shape_holds(clip, dx + 0.25 + 0.5 * i, dy + 0.25 + 0.5 * j);
    return n / 4.0;
}

/* Normal noise rounded to whole numbers, for each value of 16 random bits: the rounded
 * value k has the bits between its two limits of the distribution function. */
static void noise_table(int8_t table[1 << 16])
{
    int at = 0;

    for (int k = -NOISE_MAX; k <= NOISE_MAX; k++) {
        double limit = 0.5 * erfc(-(k + 0.5) / NOISE_DEVIATION / sqrt(2.0));
        int end = k == NOISE_MAX ? 1 << 16 : (int)lround(limit * (1 << 16));

        for (; at < end; at++)
            table[at] = (int8_t)k;
    }
}

static void add_noise(uint8_t *rgb, const struct synth_clip *clip, int frame)
{
    struct rng_key key = {clip->seed, rng_stream("synth-noise") + clip->number};
    enum { N_VALUES = SYNTH_SIZE * SYNTH_SIZE * 3 };
    int8_t table[1 << 16];
    uint64_t bits = 0;

    noise_table(table);
    for (int i = 0; i < N_VALUES; i++) {
        int value;

        if (i % 4 == 0)
            bits = rng_u64(key, ((uint64_t)frame * N_VALUES + (uint64_t)i) / 4);
        value = rgb[i] + table[bits >> (16 * (i % 4)) & 0xffff];
        rgb[i] = (uint8_t)(value < 0 ? 0 : value > 255 ? 255 : value);
    }
}

void synth_draw(uint8_t *rgb, const struct synth_clip *clip, int frame)
{
    int third = frame < 3 ? 0 : frame < 6 ? 1 : 2;
    const uint8_t *colour = colours[clip->colours[third]];
    const uint8_t *background = backgrounds[clip->background];
    double centre_x, centre_y;

    centre_of(clip, frame, &centre_x, &centre_y);
    for (int y = 0; y < SYNTH_SIZE; y++)
        for (int x = 0; x < SYNTH_SIZE; x++) {
            double share = coverage(clip, x - centre_x, y - centre_y);

            for (int c = 0; c < 3; c++) {
                double behind = background[c] + clip->background_shift[c];

                rgb[(y * SYNTH_SIZE + x) * 3 + c] =
                    (uint8_t)lround(share * colour[c] + (1 - share) * behind);
            }
        }
    add_noise(rgb, clip, frame);
}
