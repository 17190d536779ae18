/* rank.h - one rank of an attempt: meets its peers, then works off leases
 *
 * What a lease means depends on the job's kind; each kind gives a struct rank_kind.
 * Owns (struct rank): pump, spec, groups. Threads: one caller.
 */
#ifndef VNEVA_WORKER_RANK_RANK_H
#define VNEVA_WORKER_RANK_RANK_H

#include "common/base/fs.h"
#include "jobs/spec/spec.h"
#include "worker/rank/groups.h"
#include "worker/rank/pump.h"

struct rank {
    struct pump *pump;
    struct spec *spec;
    struct layout layout;
    struct groups *groups;
    const struct msg_rank_start *start; /* the pump's */
    char decode_program[FS_PATH_MAX];   /* vneva-decode, beside this program */
    int n_cpus;                         /* this rank's share of the host's */
};

/* What a job of some kind does with its leases. */
struct rank_kind {
    int (*open)(void **state, struct rank *rank, struct err *err);
    /* Works off one lease. 1: done, the JSON result appended; 0: asked to stop before
     * there was anything to report; -1: failed. */
    int (*run)(void *state, const struct msg_task_start *task, struct buf *result,
               struct err *err);
    /* No more leases will come and all were reported; may be NULL. */
    int (*end)(void *state, struct err *err);
    void (*close)(void *state); /* NULL is fine */
};

extern const struct rank_kind rank_kind_prepare;
extern const struct rank_kind rank_kind_train;
extern const struct rank_kind rank_kind_evaluate;

/* All of a rank's life on the agent's socket fd. program_folder: where vneva-decode is. */
int rank_run(int fd, const char *program_folder, struct err *err);

#endif
