/* loss_scale.h - which factor the loss of fp16 training is multiplied by
 *
 * Gradients below 2^-24 are nothing in fp16. So the loss is scaled up before the backward
 * pass, and gradients down again in fp32 by the optimizer. Where a scaled gradient is not
 * finite, the step is skipped; after `hysteresis` of those the scale is halved by each
 * further one, and doubled after growth_interval good steps in a row, which forgives the
 * bad ones as well.
 * Pure: a state, and one function that moves it on. The same on every rank, for all see
 * the same overflows.
 * Source: Megatron-LM, DynamicGradScaler (growth 2, backoff 1/2), whose keys in NeMo are
 * native_amp_init_scale, native_amp_growth_interval and hysteresis.
 */
#ifndef VNEVA_MODEL_OPTIM_LOSS_SCALE_H
#define VNEVA_MODEL_OPTIM_LOSS_SCALE_H

#include "common/base/err.h"

#include <stdbool.h>
#include <stdint.h>

#define LOSS_SCALE_MIN 1.0
#define LOSS_SCALE_MAX 0x1p64 /* the optimizer's factor stays a normal fp32 number */
/* Overflows in a row at the smallest scale after which no scale can help. */
#define LOSS_SCALE_STUCK 16

struct loss_scale_config {
    double initial; /* LOSS_SCALE_MIN to LOSS_SCALE_MAX */
    int64_t growth_interval, hysteresis;
};

/* What a checkpoint keeps. */
struct loss_scale {
    double scale;
    int64_t n_good;    /* steps in a row without overflow, since the last growth */
    int64_t n_left;    /* overflows that change nothing yet; 0: the next one halves */
    int64_t n_stuck;   /* overflows in a row at the smallest scale */
    int64_t n_skipped; /* steps, of the whole run */
};

void loss_scale_init(struct loss_scale *s, const struct loss_scale_config *config);
/* ERR_FORMAT: no run leaves such a state. */
int loss_scale_check(const struct loss_scale *s, struct err *err);
/* After each step. */
void loss_scale_update(struct loss_scale *s, const struct loss_scale_config *config,
                       bool has_overflow);
bool loss_scale_is_stuck(const struct loss_scale *s);

#endif
