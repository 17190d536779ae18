/* pool_plan.h - choose what a pool submits, keeps, cancels and ends, and say why
 *
 * Pure: reads a snapshot, fills a plan. Never touches store, socket or clock.
 * What the scheduler (scheduler.h) counts on is needed: nodes it has placed ranks on, those
 * that are there or awaited and would get some, and n_wanted more. Rules:
 *   - never more than max_nodes that have not ended, those on their way out included;
 *   - as many are submitted as are wanted, or miss at min_nodes; POOL_SUBMITTING_MAX at a
 *     time, none before retry_ms, and only for what has been wanted for POOL_WANTED_MS;
 *   - beyond min_nodes, pending ones that nobody needed for POOL_UNNEEDED_MS (or idle_ms, if
 *     that is less) are cancelled, the newest first; then those that had nothing to do for
 *     idle_ms end, the longest idle first;
 *   - one with a rank on it, or with a place kept for one, is never touched;
 *   - one that runs without an agent for POOL_AGENTLESS_MS is cancelled (it will get none),
 *     and for idle_ms when nobody needs it.
 * A pool that is being removed cancels all that is pending, ends what is idle, waits for
 * the rest.
 * Owns: nothing; the caller gives the room for actions. Threads: any.
 * Units: *_ms on one clock of the caller's; nodes.
 */
#ifndef VNEVA_COORDINATOR_POOL_PLAN_H
#define VNEVA_COORDINATOR_POOL_PLAN_H

#include "coordinator/states.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define POOL_SUBMITTING_MAX 4 /* submissions of one pool under way */
#define POOL_WANTED_MS 1000   /* work that is gone sooner is not worth a node */
#define POOL_UNNEEDED_MS 10000
#define POOL_AGENTLESS_MS 900000 /* images are fetched meanwhile, checks made */
#define POOL_WHY_MAX 640         /* a reason of the cluster's fits in */

struct pool_node {
    enum allocation_state state; /* not ended */
    bool has_agent, is_busy;     /* a rank is on it */
    bool is_needed;              /* busy, or the scheduler counts on it */
    int64_t unneeded_ms;         /* since when it is not needed */
    int64_t agentless_ms;        /* since when it runs without an agent */
};

struct pool_facts {
    enum pool_state state;
    int64_t min_nodes, max_nodes, idle_ms;
    int64_t n_wanted;  /* nodes beyond these that the scheduler would use now */
    bool is_work_left; /* with those there would still be tasks without a place */
    int64_t wanted_ms; /* since when it would */
    int64_t retry_ms;  /* nothing is submitted before */
    /* What the cluster said to the last submission, list, cancelling; "" when it went well.
     * Nothing is submitted while lists fail. */
    const char *failure, *list_error, *cancel_error;
    bool is_settling; /* agents may still come back after a restart */
    int64_t now_ms;
    const struct pool_node *nodes; /* [n_nodes], in the order they were asked for */
    size_t n_nodes;
};

enum pool_action {
    POOL_KEEP,
    POOL_CANCEL, /* by the cluster manager */
    POOL_END,    /* by its agent */
};

enum pool_why {
    POOL_WHY_SUBMITS,
    POOL_WHY_KEEPS,
    POOL_WHY_CANCELS,
    POOL_WHY_ENDS,
    POOL_WHY_COUNT
};

struct pool_plan {
    int64_t n_submit;
    enum pool_action *actions; /* [n_nodes], the caller's */
    char why[POOL_WHY_COUNT]
            [POOL_WHY_MAX]; /* a sentence each; no times that pass in it */
};

/* plan->actions has room for n_nodes. */
void pool_plan(struct pool_plan *plan, const struct pool_facts *facts);

#endif
