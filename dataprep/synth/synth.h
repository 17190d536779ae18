/* synth.h - drawn clips of moving and changing shapes, with questions and answers
 *
 * What is drawn and asked is specified in jobs/quickstart/SYNTH.md. Clip i of a seed is
 * the same whatever the number of clips.
 * Units: pixels, frames.
 */
#ifndef VNEVA_DATAPREP_SYNTH_SYNTH_H
#define VNEVA_DATAPREP_SYNTH_SYNTH_H

#include "common/base/err.h"

#include <stdint.h>

#define SYNTH_SIZE 64
#define SYNTH_FRAMES 10
#define SYNTH_CLIPS_MAX 100000 /* names have five digits */

struct synth_config {
    const char *output; /* folder; made when it is not there */
    int64_t n_clips;
    uint64_t seed;
    /* Called after every clip when set. */
    void (*progress)(void *state, int64_t n_done, int64_t n_clips);
    void *progress_state;
};

/* Writes output/clip_00000.mp4... and, last and at once, output/annotations.jsonl: where
 * that stands, all its clips do. */
int synth_run(const struct synth_config *config, struct err *err);

enum synth_kind { SYNTH_MOVE, SYNTH_COLOUR };
enum synth_shape { SYNTH_DISC, SYNTH_RING, SYNTH_CROSS, SYNTH_N_SHAPES };
enum synth_direction {
    SYNTH_LEFT,
    SYNTH_RIGHT,
    SYNTH_UP,
    SYNTH_DOWN,
    SYNTH_N_DIRECTIONS
};

#define SYNTH_N_COLOURS 6
#define SYNTH_N_BACKGROUNDS 3

/* One clip before it is drawn. */
struct synth_clip {
    uint64_t seed, number;
    enum synth_kind kind;
    enum synth_shape shape;
    enum synth_direction direction; /* of a move */
    double radius, x, y;            /* centre in the first frame */
    double distance;                /* that a move goes */
    int colours[3]; /* of the thirds of a colour clip; a move's: all one */
    int background;
    int background_shift[3]; /* added to its channels */
    int static_question; /* 0 shape, 1 background, 2 colour (of a colour clip: first) */
};

/* Pure. */
void synth_plan(struct synth_clip *out, uint64_t seed, uint64_t number);

/* rgb [SYNTH_SIZE, SYNTH_SIZE, 3] of one frame. Pure. */
void synth_draw(uint8_t *rgb, const struct synth_clip *clip, int frame);

/* One of the two questions (0: needs several frames, 1: one frame answers it). Borrowed,
 * constant strings. */
struct synth_question {
    const char *category, *question;
    char answer[16];
};

struct synth_question synth_ask(const struct synth_clip *clip, int which);

#endif
