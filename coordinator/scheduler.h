/* scheduler.h - choose which waiting attempts start on which devices
 *
 * Pure: reads a snapshot, fills a plan. Never touches store, socket or clock.
 * Rules: jobs in order of id. An attempt is placed whole or not at all; the ranks of a
 * tensor-parallel group go to one node when one has room, the fullest that has, so that
 * large gaps stay for large groups. A job that could run on the devices there are but
 * must wait keeps later jobs from taking what it waits for; one that never could run on
 * them does not.
 * Nodes may be awaited: they are not there yet, and count as free. A job that does not fit
 * on what is there gets its places on both: it does not start, but what it got of the
 * devices that are there is kept for it. So the plan also says which awaited nodes are
 * needed, and by whom. Those that come are taken before those that could be asked for.
 * Owns: the plan; scheduler_plan_fini frees it.
 * Threads: none; one caller at a time.
 */
#ifndef VNEVA_COORDINATOR_SCHEDULER_H
#define VNEVA_COORDINATOR_SCHEDULER_H

#include "common/base/err.h"

#include <stdbool.h>
#include <stdint.h>

#define SCHED_REASON_MAX 96

enum sched_tier { SCHED_HERE, SCHED_COMING, SCHED_POSSIBLE, SCHED_TIERS };

struct sched_node {
    int64_t n_devices;
    const bool *is_busy;  /* [n_devices] */
    enum sched_tier tier; /* nodes are given in order of it */
};

struct sched_job { /* in order of id */
    int64_t n_ranks, group_size;
    int64_t n_wanted; /* attempts that have a task to begin with */
};

struct sched_place { /* one rank */
    int64_t node, device;
};

struct sched_start {           /* one attempt */
    int64_t job;               /* index into the jobs given */
    struct sched_place *ranks; /* [n_ranks of the job] */
    int64_t n_awaited;         /* of them on nodes that are awaited: it cannot start */
};

struct sched_plan {
    struct sched_start *starts;
    int64_t n_starts;
    char (
        *reasons)[SCHED_REASON_MAX]; /* [n_jobs]: why attempts wait; "" when none does */
    int64_t *n_left;                 /* [n_jobs]: attempts that got no places */
    int64_t n_jobs;
};

int scheduler_plan(struct sched_plan *plan, const struct sched_node *nodes,
                   int64_t n_nodes, const struct sched_job *jobs, int64_t n_jobs,
                   struct err *err);
void scheduler_plan_fini(struct sched_plan *plan);

#endif
