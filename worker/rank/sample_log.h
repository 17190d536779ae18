/* sample_log.h - which samples every step took, for people and for the tests of resume
 *
 * samples.log in the job's folder: a line "STEP SAMPLE SAMPLE ..." for every step that was
 * applied, in order. A run that goes on from step s first cuts the log back to the s steps
 * it keeps.
 * Owns: the file. Threads: one caller.
 */
#ifndef VNEVA_WORKER_RANK_SAMPLE_LOG_H
#define VNEVA_WORKER_RANK_SAMPLE_LOG_H

#include "worker/rank/order.h"

#include "common/base/err.h"

struct sample_log;

int sample_log_open(struct sample_log **out, const char *folder, int64_t first_step,
                    struct err *err);
void sample_log_close(struct sample_log *log);
int sample_log_add(struct sample_log *log, const struct order *order, int64_t step,
                   struct err *err);
/* Makes the lines durable. A checkpoint must not be known before its steps are: a run
 * that finds fewer lines than the step it goes on from is refused. */
int sample_log_sync(struct sample_log *log, struct err *err);

#endif
