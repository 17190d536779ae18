/* plan.h - what the coordinator has to know of a job's spec
 *
 * The only place of the room that reads specs.
 * Units: samples, global steps, devices (one rank each).
 */
#ifndef VNEVA_COORDINATOR_PLAN_H
#define VNEVA_COORDINATOR_PLAN_H

#include "common/base/err.h"

#include <stdbool.h>
#include <stdint.h>

struct job_plan {
    bool is_training;
    int64_t n_ranks;    /* of one attempt */
    int64_t group_size; /* ranks of a tensor-parallel group: on one node if it can */
    int64_t shard_size; /* batch kinds: samples a task */
    int64_t max_steps;  /* training */
    int64_t checkpoint_steps; /* training: steps a task */
    int64_t n_kept;           /* training: checkpoints kept; 0 or less: all */
};

/* Reads and checks the resolved spec (JSON). kind must be the spec's own. */
int job_plan_from_spec(struct job_plan *plan, const char *kind, const char *spec_json,
                       struct err *err);

#endif
