/* examples.h - clips kept with their frames, for people to look at
 *
 * examples/examples.json in the job's folder: a list of {"id","category","question",
 * "expected","given","is_correct","frames":["0012-0.png",...]}, the frames beside it as
 * the model saw them.
 */
#ifndef VNEVA_WORKER_RANK_EXAMPLES_H
#define VNEVA_WORKER_RANK_EXAMPLES_H

#include "worker/rank/batch.h"

#define EXAMPLES_MAX 1000

/* source: the dataset of the results, with model NULL. At most n. */
int examples_write(const char *folder, const struct batch_source *source,
                   const struct json *results, int64_t n, struct err *err);

#endif
