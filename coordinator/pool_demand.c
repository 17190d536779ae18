/* Between pools and scheduler: which nodes may come, and which of them are wanted. */
#include "coordinator/core.h"
#include "coordinator/pools.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define NAMED_MAX 3 /* pools named in a reason */

/* ---- agents ---- */

static struct pool *pool_of(const struct core *core, const struct agent *agent)
{
    return *agent->pool ? pools_find(&core->pools, agent->pool) : NULL;
}

/* Its allocation never changes, so it is looked for by its number only until it is found. */
static struct allocation *allocation_of(const struct pool *pool, struct agent *agent)
{
    if (agent->allocation_id)
        return allocation_find(pool, agent->allocation_id);
    for (size_t i = 0; i < pool->n_allocations && *agent->allocation; i++)
        if (strcmp(pool->allocations[i]->external, agent->allocation) == 0) {
            agent->allocation_id = pool->allocations[i]->id;
            return pool->allocations[i];
        }
    return NULL;
}

static bool is_on_its_way_out(const struct allocation *allocation)
{
    return allocation->state == ALLOCATION_DRAINING ||
           allocation->state == ALLOCATION_CANCELLING;
}

static void meet(struct core *core, struct pool *pool, struct allocation *allocation,
                 struct agent *agent)
{
    allocation->n_agents++;
    allocation->is_busy |= agent->n_busy > 0;
    if (allocation->state == ALLOCATION_PENDING) {
        allocation->had_agent = true;
        allocation_change(core, pool, allocation, ALLOCATION_EV_RUN,
                          "its agent has registered");
    } else if (!allocation->had_agent) {
        allocation->had_agent = true;
        allocation_write(core, allocation);
    }
}

void pools_meet_agents(struct core *core)
{
    core->pools.is_work_left = false;
    if (!core->pools.count)
        return;
    for (size_t i = 0; i < core->pools.count; i++) {
        struct pool *pool = core->pools.items[i];

        pool->n_wanted = 0;
        for (size_t a = 0; a < pool->n_allocations; a++) {
            pool->allocations[a]->n_agents = 0;
            pool->allocations[a]->is_busy = pool->allocations[a]->is_counted_on = false;
        }
    }
    for (size_t i = 0; i < core->model.n_agents; i++) {
        struct agent *agent = core->model.agents[i];
        struct pool *pool = pool_of(core, agent);
        struct allocation *allocation = pool ? allocation_of(pool, agent) : NULL;

        if (allocation)
            meet(core, pool, allocation, agent);
        agent->is_leaving =
            allocation && (pool->state == POOL_REMOVING || is_on_its_way_out(allocation));
    }
}

/* ---- nodes that may come ---- */

static bool is_settling(const struct core *core)
{
    return core->mono_ms - core->recovered_mono_ms < core->config.lost_after_ms;
}

static bool is_coming(const struct pool *pool, const struct allocation *allocation)
{
    return pool->state != POOL_REMOVING && allocation->n_agents == 0 &&
           (allocation->state == ALLOCATION_INTENDED ||
            allocation->state == ALLOCATION_PENDING ||
            allocation->state == ALLOCATION_RUNNING);
}

/* Nodes the pool could ask for now. Of those whose size nobody knows one is enough. */
static size_t count_possible(const struct core *core, const struct pool *pool)
{
    size_t max = (size_t)pool->max_nodes;

    if (pool->state != POOL_ACTIVE || is_settling(core) || *pool->list_error ||
        core->wall_ms < pool->retry_ms || pool->n_allocations >= max)
        return 0;
    return pool->n_devices > 0 ? max - pool->n_allocations : 1;
}

size_t pools_count_nodes(const struct core *core)
{
    size_t n = 0;

    for (size_t i = 0; i < core->pools.count; i++)
        n += core->pools.items[i]->n_allocations +
             count_possible(core, core->pools.items[i]);
    return n;
}

static void add_node(struct sched_node *node, struct awaited *awaited, struct pool *pool,
                     struct allocation *allocation)
{
    static const bool all_free[MODEL_DEVICES_MAX];

    *node =
        (struct sched_node){pool->n_devices > 0 ? pool->n_devices : POOL_DEVICES_UNKNOWN,
                            all_free, allocation ? SCHED_COMING : SCHED_POSSIBLE};
    *awaited = (struct awaited){pool, allocation};
}

size_t pools_nodes(struct core *core, struct sched_node *nodes, struct awaited *awaited)
{
    size_t n = 0;

    for (size_t i = 0; i < core->pools.count; i++) {
        struct pool *pool = core->pools.items[i];

        for (size_t a = 0; a < pool->n_allocations; a++)
            if (is_coming(pool, pool->allocations[a])) {
                add_node(&nodes[n], &awaited[n], pool, pool->allocations[a]);
                n++;
            }
    }
    for (size_t i = 0; i < core->pools.count; i++)
        for (size_t k = count_possible(core, core->pools.items[i]); k > 0; k--) {
            add_node(&nodes[n], &awaited[n], core->pools.items[i], NULL);
            n++;
        }
    return n;
}

/* ---- what the scheduler counts on ---- */

static void count_on_agent(struct core *core, const struct agent *agent)
{
    const struct pool *pool = agent->allocation_id ? pool_of(core, agent) : NULL;
    struct allocation *allocation =
        pool ? allocation_find(pool, agent->allocation_id) : NULL;

    if (allocation)
        allocation->is_counted_on = true;
}

/* Possible nodes are taken from the first on, so the highest number says how many. */
static void count_on(struct core *core, const struct sched_start *start, int64_t n_ranks,
                     int64_t first_awaited, const struct awaited *awaited)
{
    for (int64_t r = 0; r < n_ranks; r++) {
        int64_t node = start->ranks[r].node;
        const struct awaited *it;

        if (node < first_awaited) {
            count_on_agent(core, core->model.agents[node]);
            continue;
        }
        it = &awaited[node - first_awaited];
        if (it->allocation) {
            it->allocation->is_counted_on = true;
        } else {
            int64_t first = node - first_awaited;

            while (first > 0 && !awaited[first - 1].allocation &&
                   awaited[first - 1].pool == it->pool)
                first--;
            if (it->pool->n_wanted < node - first_awaited - first + 1)
                it->pool->n_wanted = node - first_awaited - first + 1;
        }
    }
}

void pools_take(struct core *core, const struct sched_plan *plan, int64_t first_awaited,
                const struct awaited *awaited)
{
    for (int64_t i = 0; i < plan->n_jobs; i++)
        core->pools.is_work_left |= plan->n_left[i] > 0;
    /* Also those that start now: what was idle when this turn began is busy at its end. */
    for (int64_t i = 0; i < plan->n_starts; i++)
        count_on(core, &plan->starts[i],
                 core->model.jobs[plan->starts[i].job]->plan.n_ranks, first_awaited,
                 awaited);
}

/* ---- reasons ---- */

/* "; waits for 2 nodes of pool gpu": of the first pool that it waits for. */
static const char *explain_start(const struct sched_start *start, int64_t n_ranks,
                                 int64_t first_awaited, const struct awaited *awaited,
                                 struct buf *reason)
{
    const struct pool *pool = NULL;
    int64_t n_nodes = 0, last = -1;

    for (int64_t r = 0; r < n_ranks; r++) {
        int64_t node = start->ranks[r].node;

        if (node < first_awaited || node == last)
            continue;
        pool = pool ? pool : awaited[node - first_awaited].pool;
        n_nodes += awaited[node - first_awaited].pool == pool;
        last = node;
    }
    if (!pool)
        return "";
    buf_printf(reason, "; waits for %" PRId64 " node%s of pool %s", n_nodes,
               n_nodes == 1 ? "" : "s", pool->name);
    if (*pool->list_error)
        buf_printf(reason, ", which cannot be listed: %s", pool->list_error);
    else if (*pool->failure)
        buf_printf(reason, ", which failed before: %s", pool->failure);
    return pool->name;
}

/* Why the pool cannot bring what an attempt needs. */
static void explain_refusal(const struct core *core, const struct pool *pool,
                            struct buf *reason)
{
    buf_printf(reason, "; pool %s ", pool->name);
    if (pool->state == POOL_REMOVING)
        buf_add_str(reason, "is being removed");
    else if (pool->state == POOL_PAUSED)
        buf_add_str(reason, "is paused");
    else if (*pool->list_error)
        buf_printf(reason, "cannot be listed: %s", pool->list_error);
    else if (core->wall_ms < pool->retry_ms)
        buf_printf(reason, "failed and will be tried again: %s", pool->failure);
    else if (is_settling(core))
        buf_add_str(reason, "waits for agents to come back after the restart");
    else if (pool->n_devices > 0)
        buf_printf(reason,
                   "has at most %" PRId64 " nodes of %" PRId64 " device%s and cannot "
                   "bring what is missing",
                   pool->max_nodes, pool->n_devices, pool->n_devices == 1 ? "" : "s");
    else
        buf_printf(reason,
                   "has at most %" PRId64 " nodes and cannot bring what is missing",
                   pool->max_nodes);
}

bool pools_explain(const struct core *core, const struct sched_plan *plan, int64_t i,
                   int64_t first_awaited, const struct awaited *awaited,
                   struct buf *reason, const char **pool)
{
    *pool = "";
    if (!core->pools.count || !plan->reasons[i][0])
        return false;
    buf_add_str(reason, plan->reasons[i]);
    for (int64_t s = 0; s < plan->n_starts; s++)
        if (plan->starts[s].job == i && plan->starts[s].n_awaited > 0) {
            *pool = explain_start(&plan->starts[s], core->model.jobs[i]->plan.n_ranks,
                                  first_awaited, awaited, reason);
            return true;
        }
    if (strncmp(plan->reasons[i], "needs", 5) != 0)
        return true; /* it waits for another job, not for nodes */
    for (size_t p = 0; p < core->pools.count && p < NAMED_MAX; p++)
        explain_refusal(core, core->pools.items[p], reason);
    *pool = core->pools.items[0]->name;
    return true;
}

void pool_agent_registered(struct core *core, const struct agent *agent)
{
    struct pool *pool = pool_of(core, agent);

    if (pool)
        pool_worked(core, pool, agent->n_devices);
}
