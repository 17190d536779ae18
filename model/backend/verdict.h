/* verdict.h - clipping, the same for every backend
 *
 * Pure; also compiled for the device.
 * Source: torch.nn.utils.clip_grad_norm_.
 */
#ifndef VNEVA_MODEL_BACKEND_VERDICT_H
#define VNEVA_MODEL_BACKEND_VERDICT_H

#include "model/backend/update.h"

#include <math.h>

#define VERDICT_CLIP_EPS 1e-6 /* added to the norm */

#ifdef __CUDACC__
#define VERDICT_WHERE __host__ __device__
#else
#define VERDICT_WHERE
#endif

/* sum: of the squares of all gradients; they are divided by `divisor`, then clipped to a norm
 * of `clip` (0: not). */
VERDICT_WHERE static inline struct update_verdict verdict_of(double sum, double divisor,
                                                             double clip)
{
    struct update_verdict verdict;
    double scale = 1.0 / divisor;

    verdict.norm = sqrt(sum) / divisor;
    if (clip > 0 && verdict.norm > clip)
        scale *= clip / (verdict.norm + VERDICT_CLIP_EPS);
    verdict.scale = (float)scale;
    verdict.is_finite = sum - sum == 0; /* neither infinite nor not a number */
    return verdict;
}

#endif
