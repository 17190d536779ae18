#include "common/base/rng.h"
#include "dataprep/synth/synth.h"

#include <stdio.h>

/* One number of the clip's stream each; the order is part of what a seed means. */
enum draw {
    DRAW_RADIUS,
    DRAW_X,
    DRAW_Y,
    DRAW_DISTANCE,
    DRAW_SHAPE,
    DRAW_COLOUR,
    DRAW_COLOUR_2,
    DRAW_BACKGROUND,
    DRAW_QUESTION,
    DRAW_SHIFT /* three of them */
};

static const char *const shape_names[SYNTH_N_SHAPES] = {"Disc", "Ring", "Cross"};
static const char *const direction_names[SYNTH_N_DIRECTIONS] = {"Left", "Right", "Up",
                                                                "Down"};
static const char *const colour_names[SYNTH_N_COLOURS] = {"Red",    "Green", "Blue",
                                                          "Yellow", "White", "Purple"};
static const char *const background_names[SYNTH_N_BACKGROUNDS] = {"Black", "Grey",
                                                                  "Brown"};

static double uniform(struct rng_key key, enum draw what, double least, double end)
{
    return least + (end - least) * rng_uniform(key, what);
}

static void plan_move(struct synth_clip *clip, struct rng_key key, uint64_t k)
{
    int colour = (int)rng_below(key, DRAW_COLOUR, SYNTH_N_COLOURS);

    clip->kind = SYNTH_MOVE;
    clip->x = uniform(key, DRAW_X, 22, 42);
    clip->y = uniform(key, DRAW_Y, 22, 42);
    clip->distance = uniform(key, DRAW_DISTANCE, 20, 26);
    clip->direction = (enum synth_direction)(k % SYNTH_N_DIRECTIONS);
    for (int i = 0; i < 3; i++)
        clip->colours[i] = colour;
}

/* The n-th colour of those that are neither a nor b (b may be a). */
static int other_colour(uint64_t n, int a, int b)
{
    for (int colour = 0; colour < SYNTH_N_COLOURS; colour++)
        if (colour != a && colour != b && n-- == 0)
            return colour;
    return 0; /* not reached: n is below the number of colours left */
}

static void plan_colour(struct synth_clip *clip, struct rng_key key, uint64_t k)
{
    int *colours = clip->colours;

    clip->kind = SYNTH_COLOUR;
    clip->x = uniform(key, DRAW_X, clip->radius + 2, SYNTH_SIZE - 2 - clip->radius);
    clip->y = uniform(key, DRAW_Y, clip->radius + 2, SYNTH_SIZE - 2 - clip->radius);
    colours[2] = (int)(k % SYNTH_N_COLOURS);
    colours[0] = other_colour(rng_below(key, DRAW_COLOUR, SYNTH_N_COLOURS - 1),
                              colours[2], colours[2]);
    colours[1] = other_colour(rng_below(key, DRAW_COLOUR_2, SYNTH_N_COLOURS - 2),
                              colours[2], colours[0]);
}

void synth_plan(struct synth_clip *out, uint64_t seed, uint64_t number)
{
    struct rng_key key = {seed, rng_stream("synth-plan") + number};

    *out = (struct synth_clip){.seed = seed, .number = number};
    out->radius = uniform(key, DRAW_RADIUS, 9, 12);
    out->shape = (enum synth_shape)rng_below(key, DRAW_SHAPE, SYNTH_N_SHAPES);
    out->background = (int)rng_below(key, DRAW_BACKGROUND, SYNTH_N_BACKGROUNDS);
    out->static_question = (int)rng_below(key, DRAW_QUESTION, 3);
    for (int c = 0; c < 3; c++)
        out->background_shift[c] = (int)rng_below(key, DRAW_SHIFT + (uint64_t)c, 17) - 8;
    if (number % 3 == 2)
        plan_colour(out, key, number / 3);
    else
        plan_move(out, key, number / 3 * 2 + number % 3);
}

static struct synth_question question(const char *category, const char *text,
                                      const char *answer)
{
    struct synth_question out = {.category = category, .question = text};

    snprintf(out.answer, sizeof(out.answer), "%s.", answer);
    return out;
}

struct synth_question synth_ask(const struct synth_clip *clip, int which)
{
    if (which == 0 && clip->kind == SYNTH_MOVE)
        return question("motion-direction", "Which way does it move?",
                        direction_names[clip->direction]);
    if (which == 0)
        return question("motion-last-colour", "Which colour comes last?",
                        colour_names[clip->colours[2]]);
    if (clip->static_question == 0)
        return question("static-shape", "What shape is it?", shape_names[clip->shape]);
    if (clip->static_question == 1)
        return question("static-background", "What colour is the background?",
                        background_names[clip->background]);
    if (clip->kind == SYNTH_MOVE)
        return question("static-colour", "What colour is it?",
                        colour_names[clip->colours[0]]);
    return question("static-first-colour", "Which colour comes first?",
                    colour_names[clip->colours[0]]);
}
