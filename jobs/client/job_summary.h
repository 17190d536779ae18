/* job_summary.h - what `vneva show` knows of a job beyond its row in the store
 *
 * Adds to the row of view "job":
 *     restarts  attempts that were lost and followed by another
 *     summary   of training: {"samples_per_s", "tokens_per_s", "data_wait_share",
 *               "step_ms"}, means over the steps that were reported
 */
#ifndef VNEVA_JOBS_CLIENT_JOB_SUMMARY_H
#define VNEVA_JOBS_CLIENT_JOB_SUMMARY_H

#include "jobs/client/client.h"

/* attempts: rows of view "attempts" of this job, borrowed. */
int job_summary_add(struct client *client, struct json *row, const struct json *attempts,
                    struct err *err);

/* Prints the member at a path ("state", "ranks.1.pid", "summary.step_ms"): texts as they
 * are, the rest as JSON. ERR_NOT_FOUND names the part that is not there. */
int job_summary_print(FILE *out, const struct json *row, const char *path,
                      struct err *err);

#endif
