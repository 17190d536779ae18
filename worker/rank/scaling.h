/* scaling.h - the loss scale of a training run, and which of its steps were updates
 *
 * With trainer.precision 16 a step whose scaled gradient overflows on any rank is skipped on
 * all: its samples are consumed, step and checkpoints count it, learning rate and moments
 * do not, as in NeMo. Every rank keeps the same state, for all see the same overflows.
 */
#ifndef VNEVA_WORKER_RANK_SCALING_H
#define VNEVA_WORKER_RANK_SCALING_H

#include "common/base/json.h"
#include "jobs/spec/spec.h"
#include "model/optim/loss_scale.h"
#include "model/optim/optim.h"

struct scaling {
    bool is_on; /* else the scale is 1 and an overflow is an error */
    struct loss_scale_config config;
    struct loss_scale state;
};

void scaling_init(struct scaling *scaling, const struct spec *spec);
/* "loss_scale" of a checkpoint's meta, where there is one: also of a run in another
 * precision, whose skipped steps stay no updates. */
int scaling_read(struct scaling *scaling, const struct json *meta, struct err *err);
int scaling_write(const struct scaling *scaling, struct json *meta, struct err *err);

/* The step counted in updates. */
int64_t scaling_n_updates(const struct scaling *scaling, int64_t step);
/* After optim_step of step `step`, from 0. ERR_FORMAT: no scale helps any more. */
int scaling_update(struct scaling *scaling, const struct optim_report *report,
                   int64_t step, struct err *err);

#endif
