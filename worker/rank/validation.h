/* validation.h - the loss of samples that are not learnt from, between steps
 *
 *     validation = micro batches forward, one after another; the host waits for the device
 *                  once, at its end, and exchanges sums with the data-parallel ranks
 *
 * Owns: dataset and decoders of model.data.validation_data_path. Threads: one caller.
 */
#ifndef VNEVA_WORKER_RANK_VALIDATION_H
#define VNEVA_WORKER_RANK_VALIDATION_H

#include "worker/rank/engine.h"
#include "worker/rank/loader.h"
#include "worker/rank/order.h"

struct validation {
    struct engine *engine; /* borrowed */
    struct feed feed;      /* no corpus: the spec has no such dataset */
    struct order order;    /* of the samples of one validation */
};

/* train: the order of the samples that are learnt from; its layout and sizes of batches are
 * validation's too. */
int validation_open(struct validation *validation, struct engine *engine,
                    const struct order *train, struct err *err);
void validation_close(struct validation *validation);

/* Whether one follows the step that makes it `step` steps. */
bool validation_is_due(const struct validation *validation, int64_t step);
/* *loss = mean over the label tokens of all ranks; NAN: there are none. next: what the model
 * goes on with; its frames are brought to the device at the end. COLLECTIVE in both groups */
int validation_run(struct validation *validation, double *loss, struct loader *next,
                   struct err *err);

#endif
