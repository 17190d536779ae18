/* What pools do in a turn of the loop: facts, plan (pool_plan.h), and taking it over. */
#include "coordinator/core.h"
#include "coordinator/pools.h"

#include <stdlib.h>
#include <string.h>

/* ---- facts ---- */

/* A job that will be tried again in a moment needs its nodes as much as one that waits. */
static bool is_retry_near(const struct core *core)
{
    for (size_t i = 0; i < core->model.n_jobs; i++) {
        const struct job *job = core->model.jobs[i];

        if (job->state == JOB_QUEUED && job->goal == GOAL_RUN &&
            job->not_before_ms > core->wall_ms)
            return true;
    }
    return false;
}

static void look_at_node(struct core *core, struct pool_node *node,
                         struct allocation *allocation, bool is_near)
{
    bool is_needed = allocation->is_busy || allocation->is_counted_on || is_near;

    if (is_needed)
        allocation->needed_mono_ms = core->mono_ms;
    if (allocation->n_agents || allocation->state != ALLOCATION_RUNNING)
        allocation->agent_mono_ms = core->mono_ms;
    *node = (struct pool_node){.state = allocation->state,
                               .has_agent = allocation->n_agents > 0,
                               .is_busy = allocation->is_busy,
                               .is_needed = is_needed,
                               .unneeded_ms = allocation->needed_mono_ms,
                               .agentless_ms = allocation->agent_mono_ms};
}

/* All times on the monotonic clock: retry_ms is wall time elsewhere. */
static struct pool_facts look_at_pool(struct core *core, struct pool *pool,
                                      struct pool_node *nodes, bool is_near)
{
    int64_t wait_ms = pool->retry_ms - core->wall_ms;

    if (pool->n_wanted == 0)
        pool->unwanted_mono_ms = core->mono_ms;
    for (size_t i = 0; i < pool->n_allocations; i++)
        look_at_node(core, &nodes[i], pool->allocations[i], is_near);
    return (struct pool_facts){
        .state = pool->state,
        .min_nodes = pool->min_nodes,
        .max_nodes = pool->max_nodes,
        .idle_ms = pool->idle_ms,
        .n_wanted = pool->n_wanted,
        .is_work_left = core->pools.is_work_left,
        .wanted_ms = pool->unwanted_mono_ms,
        .retry_ms = core->mono_ms + (wait_ms > 0 ? wait_ms : 0),
        .failure = pool->failure,
        .list_error = pool->list_error,
        .cancel_error = pool->cancel_error,
        .is_settling =
            core->mono_ms - core->recovered_mono_ms < core->config.lost_after_ms,
        .now_ms = core->mono_ms,
        .nodes = nodes,
        .n_nodes = pool->n_allocations,
    };
}

/* ---- taking it over ---- */

static void submit(struct core *core, struct pool *pool, int64_t n)
{
    struct err err;

    if (n)
        core_event(core, 0, "pool", "pool %s %s", pool->name,
                   pool->why[POOL_WHY_SUBMITS]);
    while (n-- > 0)
        if (!allocation_create(core, pool, &err)) {
            store_fail(core->store, &err);
            return;
        }
}

static void stop_agents(struct core *core, const struct allocation *allocation,
                        const char *reason)
{
    struct wire stop = {.type = MSG_AGENT_STOP, .agent_stop = {reason}};

    for (size_t i = 0; i < core->model.n_agents; i++) {
        struct agent *agent = core->model.agents[i];

        if (agent->allocation_id != allocation->id || agent->n_busy > 0)
            continue;
        agent->is_leaving = true;
        agent_send(core, agent, &stop);
    }
}

static void cancel(struct core *core, struct pool *pool, struct allocation *allocation)
{
    bool is_agentless = allocation->state == ALLOCATION_RUNNING;
    char text[CORE_TEXT_MAX];

    core_text(text, "allocation %s ran and no agent of it registered",
              allocation_label(allocation));
    if (is_agentless && !allocation->had_agent && pool->state != POOL_REMOVING)
        pool_failed(core, pool, text);
    allocation_change(core, pool, allocation, ALLOCATION_EV_CANCEL,
                      pool->state == POOL_REMOVING ? "the pool is being removed"
                      : is_agentless               ? "it has no agent"
                                                   : "nobody needs it");
}

static void drain(struct core *core, struct pool *pool, struct allocation *allocation)
{
    const char *reason = pool->state == POOL_REMOVING ? "the pool is being removed"
                                                      : "it had nothing to do";

    allocation_change(core, pool, allocation, ALLOCATION_EV_DRAIN, reason);
    allocation->draining_mono_ms = allocation->told_mono_ms = core->mono_ms;
    stop_agents(core, allocation, reason);
}

/* An agent that was told to end and is still there: again, and at last without it. */
static void follow_drain(struct core *core, struct pool *pool,
                         struct allocation *allocation)
{
    if (allocation->is_busy)
        return; /* a rank that was not known of before a restart: it ends first */
    if (core->mono_ms - allocation->draining_mono_ms >= POOL_DRAIN_MS) {
        allocation->told_mono_ms = 0;
        allocation_change(core, pool, allocation, ALLOCATION_EV_CANCEL,
                          "its agent was told to end and did not");
    } else if (core->mono_ms - allocation->told_mono_ms >= POOL_ASK_AGAIN_MS) {
        allocation->told_mono_ms = core->mono_ms;
        stop_agents(core, allocation, allocation->reason);
    }
}

static void take_over(struct core *core, struct pool *pool, const struct pool_plan *plan)
{
    size_t n = pool->n_allocations;

    pool_write_why(core, pool, plan);
    for (size_t i = 0; i < n; i++) {
        struct allocation *allocation = pool->allocations[i];

        if (plan->actions[i] == POOL_CANCEL)
            cancel(core, pool, allocation);
        else if (plan->actions[i] == POOL_END)
            drain(core, pool, allocation);
        else if (allocation->state == ALLOCATION_DRAINING)
            follow_drain(core, pool, allocation);
    }
    submit(core, pool, plan->n_submit);
}

static void decide(struct core *core, struct pool *pool, bool is_near)
{
    struct pool_node *nodes = calloc(pool->n_allocations + 1, sizeof(*nodes));
    struct pool_plan plan = {.actions =
                                 calloc(pool->n_allocations + 1, sizeof(*plan.actions))};
    struct err err = {ERR_NOMEM, "no memory to plan a pool"};
    struct pool_facts facts;

    if (nodes && plan.actions) {
        facts = look_at_pool(core, pool, nodes, is_near);
        pool_plan(&plan, &facts);
        take_over(core, pool, &plan);
    } else {
        store_fail(core->store, &err);
    }
    free(plan.actions);
    free(nodes);
}

void pools_decide(struct core *core)
{
    bool is_near;

    if (!core->pools.count)
        return;
    is_near = is_retry_near(core);
    for (size_t i = 0; i < core->pools.count && !core->is_ending; i++)
        decide(core, core->pools.items[i], is_near);
    pools_sweep(core);
}

/* ---- the end of all ---- */

/* What still waits would start without anybody to register at. Agents that run are told to
 * end as all others are, and their allocations end with them. */
void pools_shut_down(struct core *core)
{
    for (size_t i = 0; i < core->pools.count; i++) {
        struct pool *pool = core->pools.items[i];

        for (size_t a = 0; a < pool->n_allocations; a++) {
            struct allocation *allocation = pool->allocations[a];

            if (allocation->state == ALLOCATION_PENDING)
                allocation_change(core, pool, allocation, ALLOCATION_EV_CANCEL,
                                  "shutdown");
            else if (allocation->state == ALLOCATION_INTENDED &&
                     !allocation->is_asked_for)
                allocation_change(core, pool, allocation, ALLOCATION_EV_END, "shutdown");
        }
    }
}

bool pools_are_quiet(const struct core *core)
{
    for (size_t i = 0; i < core->pools.count; i++)
        for (size_t a = 0; a < core->pools.items[i]->n_allocations; a++) {
            const struct allocation *allocation = core->pools.items[i]->allocations[a];

            if (allocation->state == ALLOCATION_CANCELLING && !allocation->told_mono_ms)
                return false;
        }
    return launcher_count_all(core->launcher) == 0;
}
