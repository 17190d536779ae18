/* rope.h - how fast each pair of a head turns, the same for every backend
 *
 * Pure; used on the host when tables of angles are made.
 * Source: Su et al. 2021, "RoFormer"; Chen et al. 2023, "Extending Context Window of Large
 * Language Models via Positional Interpolation" (ROPE_LINEAR); Meta's Llama 3.1 as in
 * Hugging Face's modeling_rope_utils.py, rope_type "llama3" (ROPE_LLAMA3).
 */
#ifndef VNEVA_MODEL_BACKEND_ROPE_H
#define VNEVA_MODEL_BACKEND_ROPE_H

#include "model/backend/backend.h"

#include <math.h>

/* Llama 3.1: what turns fewer than low_freq_factor times over the original positions is
 * slowed by factor, what turns more than high_freq_factor times is left, between the two
 * the frequencies are mixed. */
static inline double rope_llama3_frequency(const struct rope_args *args, double plain)
{
    double turns = (double)args->original_positions * plain / 6.28318530717958647692;
    double low = (double)args->low_freq_factor, high = (double)args->high_freq_factor;
    double slow = plain / (double)args->factor, share;

    if (turns < low)
        return slow;
    if (turns > high)
        return plain;
    share = (turns - low) / (high - low);
    return (1 - share) * slow + share * plain;
}

/* Radians a position, of pair i < rot_dims / 2. */
static inline double rope_frequency(const struct rope_args *args, int64_t i)
{
    double plain = pow((double)args->theta, -2.0 * (double)i / (double)args->rot_dims);

    switch (args->scaling) {
    case ROPE_LINEAR:
        return plain / (double)args->factor;
    case ROPE_LLAMA3:
        return rope_llama3_frequency(args, plain);
    case ROPE_PLAIN:
        break;
    }
    return plain;
}

#endif
