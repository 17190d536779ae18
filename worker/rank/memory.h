/* memory.h - the device's memory of a training run: taken before the first step, and what
 * would fit when it is not there
 */
#ifndef VNEVA_WORKER_RANK_MEMORY_H
#define VNEVA_WORKER_RANK_MEMORY_H

#include "worker/rank/batch.h"
#include "worker/rank/engine.h"

/* Gradients, optimizer state and room for the activations of the largest micro batch that
 * the corpus and the specification lead one to expect, so that what does not fit shows now
 * and steps take no more. Larger ones get room when they come. */
int memory_reserve(struct engine *engine, const struct corpus *corpus, int64_t micro,
                   struct err *err);

/* Puts in front of a text of ERR_NOMEM what a rank needs, what there is for it and what would fit;
 * leaves others alone. Returns -1. */
int memory_explain(const struct engine *engine, const struct corpus *corpus,
                   struct err *err);

/* Logs the most that was in use, beside what was expected. */
void memory_log(const struct engine *engine, const struct corpus *corpus);

#endif
