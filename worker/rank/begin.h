/* begin.h - what a training job begins with, and where its files go
 *
 *     folder   exp_manager.explicit_log_dir, or exp_dir/name, or the job's own
 *     resume   the newest checkpoint in the folder (resume_if_exists), or
 *              resume_from_checkpoint: weights, optimizer, step
 *     restore  model.restore_from_path: a whole model, at step 0
 *     fresh    from_pretrained of the parts and pretrain_mm_mlp_adapter, and new weights
 *              for the rest
 *
 * in this order, as NeMo's exp_manager and neva_finetune.py have it. What rank 0 finds is
 * noted in begin.json of the job's own folder and holds for all ranks and attempts. A
 * folder that is not the job's own is locked as long as rank 0 lives, and the job's folder
 * gets a link "checkpoints" to it.
 * Source: check_resume in NeMo's nemo/utils/exp_manager.py.
 * Owns: the lock. Threads: one caller.
 */
#ifndef VNEVA_WORKER_RANK_BEGIN_H
#define VNEVA_WORKER_RANK_BEGIN_H

#include "common/base/fs.h"
#include "model/neva/param.h"
#include "worker/rank/rank.h"

/* The keys that name a folder for each part. */
extern const char *const begin_part_keys[PARAM_GROUP_COUNT];

enum begin_how { BEGIN_FRESH, BEGIN_RESTORE, BEGIN_RESUME };

struct begin {
    enum begin_how how;
    char from[FS_PATH_MAX]; /* a checkpoint, or a folder of weights; "" when fresh */
    /* when fresh, of each part, by enum param_group: a folder or file of weights, or "" */
    char parts[PARAM_GROUP_COUNT][FS_PATH_MAX];
    char folder[FS_PATH_MAX]; /* holds checkpoints/ and samples.log */
    bool is_shared;           /* the folder is not the job's own */
    int lock;                 /* -1: none */
};

/* ERR_EXISTS names the job that works in the folder; ERR_INVALID: it has checkpoints and
 * nothing says to go on; ERR_NOT_FOUND: it has none and something says to go on.
 * COLLECTIVE over all ranks. */
int begin_open(struct begin *begin, const struct rank *rank, struct err *err);
void begin_close(struct begin *begin);

#endif
