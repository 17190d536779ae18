/* run_model.h - the model of a training job: its configuration and its first weights
 *
 * Threads: one caller.
 */
#ifndef VNEVA_WORKER_RANK_RUN_MODEL_H
#define VNEVA_WORKER_RANK_RUN_MODEL_H

#include "worker/rank/begin.h"
#include "worker/rank/engine.h"

/* The checkpoint to go on from: this job's own, or the one it begins with; NULL: none. */
const char *run_model_resumes(const struct rank *rank, const struct begin *begin);

/* Makes the model the spec and the folders of weights describe, and fills it unless there
 * is a checkpoint to go on from, which is the caller's to load. What a folder says of
 * frames goes into the rank's spec, so that all that reads it sees the same. data_vocab: of
 * the prepared datasets. COLLECTIVE in the tensor group */
int run_model_open(struct engine *engine, struct rank *rank, const struct begin *begin,
                   int64_t data_vocab, struct err *err);

#endif
