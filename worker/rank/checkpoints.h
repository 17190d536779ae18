/* checkpoints.h - a training run's checkpoints: names, what they are bound to, which stay
 *
 * A run's folder holds checkpoints/step-SSSSSSSS-aA, S the steps done, A the attempt that
 * wrote it: two attempts never write the same name, whatever became of the first.
 * What a checkpoint is bound to (struct json "binding") are the data's fingerprint and the
 * settings that say which samples a step holds and how they look: going on under others
 * would silently be another run, so it is refused.
 * Threads: one caller.
 */
#ifndef VNEVA_WORKER_RANK_CHECKPOINTS_H
#define VNEVA_WORKER_RANK_CHECKPOINTS_H

#include "common/base/fs.h"
#include "dataprep/dataset/dataset.h"
#include "jobs/spec/spec.h"
#include "model/checkpoint/checkpoint.h"

/* The binding of a run on data of this fingerprint; the caller frees it. */
int checkpoints_binding(struct json **out, const struct spec *spec, uint64_t fingerprint,
                        struct err *err);
/* checkpoint.json's meta: step, consumed samples, vocabulary, binding, the whole spec, and
 * as "prompt" how the data's conversations were made tokens: template, use_im_start_end,
 * media_first, extra_tokens, end_token. data: the dataset's. */
int checkpoints_meta(struct json **out, const struct spec *spec,
                     const struct json *binding, int64_t step,
                     const struct dataset_info *data, struct err *err);
/* The step to go on from. ERR_INVALID names the setting that differs from `binding`. */
int checkpoints_check(int64_t *step, const struct json *meta, const struct json *binding,
                      struct err *err);

/* path: a checkpoint, or a run's folder (its newest complete checkpoint is meant).
 * ERR_NOT_FOUND says what was looked for. out[FS_PATH_MAX] */
int checkpoints_find(char *out, const char *path, struct err *err);

/* As checkpoints_find, but once a job: what its first rank finds is noted in
 * folder/source.txt and holds for all ranks and attempts, also when the run it is of goes
 * on meanwhile. folder: the job's own. */
int checkpoints_find_once(char *out, const char *folder, const char *path,
                          struct err *err);

/* Adds a checkpoint to a list of paths in order of their steps. */
int checkpoints_add(struct json *known, const char *path, struct err *err);
/* The list after a lease said which ones it keeps: those, and what of `known` is newer
 * than the lease knew. The caller frees it. */
struct json *checkpoints_merge(const struct json *known, const struct json *args,
                               struct err *err);
/* Adds to a lease's args.keep the newest complete checkpoints in folder/checkpoints of steps
 * up to last_step, which earlier jobs left there, until n_kept are named. */
int checkpoints_inherit(struct json *args, const char *folder, int64_t last_step,
                        int64_t n_kept, struct err *err);
/* The step in the name of a checkpoint's folder; -1: it is not named so. */
int64_t checkpoints_step(const char *path);
/* At the end of a run: of the list only the newest n_kept stay (all when 0). */
int checkpoints_clean_end(const char *folder, const struct json *known, int64_t n_kept,
                          struct err *err);

/* Deletes what a lease's args let go: of folder/checkpoints those of a step under
 * args.newest_step that args.keep (none: all are kept) does not name, and what an earlier
 * attempt left half written. The newest is never among them. */
int checkpoints_clean(const char *folder, const struct json *args, struct err *err);
/* Deletes all that is half written there. Before an attempt writes anything: only those
 * that were killed can have left it. */
int checkpoints_clean_unfinished(const char *folder, struct err *err);

#endif
