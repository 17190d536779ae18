/* sample_log.h - which samples every step took, for people and for the tests of resume
 *
 * samples.log in the job's folder: a line "STEP SAMPLE SAMPLE ..." for every step that was
 * applied, in order. A run that goes on from step s first cuts the log back to the steps
 * below s. The first line is of the step that was done first in this folder: 0, or where a
 * run went on from a checkpoint of another folder.
 * Owns: the file. Threads: one caller.
 */
#ifndef VNEVA_WORKER_RANK_SAMPLE_LOG_H
#define VNEVA_WORKER_RANK_SAMPLE_LOG_H

#include "worker/rank/order.h"

#include "common/base/err.h"

#include <stdbool.h>

struct sample_log;

/* is_first: the job begins here; without a line the log begins at first_step. */
int sample_log_open(struct sample_log **out, const char *folder, int64_t first_step,
                    bool is_first, struct err *err);
void sample_log_close(struct sample_log *log);
int sample_log_add(struct sample_log *log, const struct order *order, int64_t step,
                   struct err *err);
/* Makes the lines durable. A checkpoint must not be known before its steps are: a run
 * that finds fewer lines than the step it goes on from is refused. */
int sample_log_sync(struct sample_log *log, struct err *err);

#endif
