#include "coordinator/pool_plan.h"

#include <stdio.h>
#include <string.h>

/* How many of the pool's nodes are in which case. */
struct counts {
    int64_t n_open;     /* have not ended: what max_nodes bounds */
    int64_t n_live;     /* of them not on their way out: what min_nodes bounds */
    int64_t n_intended; /* being submitted */
    int64_t n_pending, n_running;
    int64_t n_pending_unneeded, n_idle, n_busy; /* running ones */
    int64_t n_out;                              /* on their way out */
    int64_t n_cancel, n_end;                    /* of this plan */
};

static bool is_live(const struct pool_node *node)
{
    return node->state == ALLOCATION_INTENDED || node->state == ALLOCATION_PENDING ||
           node->state == ALLOCATION_RUNNING;
}

static void count(struct counts *c, const struct pool_facts *facts)
{
    *c = (struct counts){.n_open = (int64_t)facts->n_nodes};
    for (size_t i = 0; i < facts->n_nodes; i++) {
        const struct pool_node *node = &facts->nodes[i];

        c->n_live += is_live(node);
        c->n_out += !is_live(node);
        c->n_intended += node->state == ALLOCATION_INTENDED;
        c->n_pending += node->state == ALLOCATION_PENDING;
        c->n_pending_unneeded += node->state == ALLOCATION_PENDING && !node->is_needed;
        c->n_running += node->state == ALLOCATION_RUNNING;
        c->n_busy += node->state == ALLOCATION_RUNNING && node->is_busy;
        c->n_idle += node->state == ALLOCATION_RUNNING && !node->is_needed;
    }
}

/* ---- what goes ---- */

static void act(struct pool_plan *plan, struct counts *c, size_t i,
                enum pool_action action)
{
    plan->actions[i] = action;
    c->n_live--;
    c->n_cancel += action == POOL_CANCEL;
    c->n_end += action == POOL_END;
}

static bool is_past(const struct pool_facts *facts, int64_t since_ms, int64_t limit_ms)
{
    return facts->now_ms - since_ms >= limit_ms;
}

static int64_t unneeded_limit_ms(const struct pool_facts *facts)
{
    return facts->idle_ms < POOL_UNNEEDED_MS ? facts->idle_ms : POOL_UNNEEDED_MS;
}

/* Pending ones that nobody needs, the newest first: the oldest are next in the queue. */
static void cancel_unneeded(struct pool_plan *plan, struct counts *c,
                            const struct pool_facts *facts)
{
    for (size_t i = facts->n_nodes; i-- > 0 && c->n_live > facts->min_nodes;) {
        const struct pool_node *node = &facts->nodes[i];

        if (node->state == ALLOCATION_PENDING && !node->is_needed &&
            is_past(facts, node->unneeded_ms, unneeded_limit_ms(facts)))
            act(plan, c, i, POOL_CANCEL);
    }
}

/* The one with nothing to do for longest that may end now; n_nodes: none. */
static size_t find_idle(const struct pool_plan *plan, const struct pool_facts *facts)
{
    size_t best = facts->n_nodes;

    for (size_t i = 0; i < facts->n_nodes; i++) {
        const struct pool_node *node = &facts->nodes[i];

        if (node->state == ALLOCATION_RUNNING && node->has_agent && !node->is_needed &&
            plan->actions[i] == POOL_KEEP &&
            is_past(facts, node->unneeded_ms, facts->idle_ms) &&
            (best == facts->n_nodes ||
             node->unneeded_ms < facts->nodes[best].unneeded_ms))
            best = i;
    }
    return best;
}

static void end_idle(struct pool_plan *plan, struct counts *c,
                     const struct pool_facts *facts)
{
    while (c->n_live > facts->min_nodes) {
        size_t i = find_idle(plan, facts);

        if (i == facts->n_nodes)
            return;
        act(plan, c, i, POOL_END);
    }
}

/* Whoever runs without an agent only takes room, also below min_nodes. */
static void cancel_agentless(struct pool_plan *plan, struct counts *c,
                             const struct pool_facts *facts)
{
    for (size_t i = 0; i < facts->n_nodes; i++) {
        const struct pool_node *node = &facts->nodes[i];

        if (node->state != ALLOCATION_RUNNING || node->has_agent || node->is_busy)
            continue;
        if (is_past(facts, node->agentless_ms, POOL_AGENTLESS_MS) ||
            (!node->is_needed && c->n_live > facts->min_nodes &&
             is_past(facts, node->unneeded_ms, facts->idle_ms)))
            act(plan, c, i, POOL_CANCEL);
    }
}

/* Of a pool that is being removed. */
static void clear(struct pool_plan *plan, struct counts *c,
                  const struct pool_facts *facts)
{
    for (size_t i = 0; i < facts->n_nodes; i++) {
        const struct pool_node *node = &facts->nodes[i];

        if (node->state == ALLOCATION_PENDING)
            act(plan, c, i, POOL_CANCEL);
        else if (node->state == ALLOCATION_RUNNING && !node->is_busy)
            act(plan, c, i, node->has_agent ? POOL_END : POOL_CANCEL);
    }
}

/* ---- what comes ---- */

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* Nodes that should come, if nothing stood against it. */
static int64_t count_missing(const struct counts *c, const struct pool_facts *facts)
{
    int64_t to_min = facts->min_nodes - c->n_live;

    return to_min > facts->n_wanted ? to_min : facts->n_wanted;
}

static bool is_too_new(const struct counts *c, const struct pool_facts *facts)
{
    return facts->min_nodes <= c->n_live && facts->n_wanted > 0 &&
           !is_past(facts, facts->wanted_ms, POOL_WANTED_MS);
}

static int64_t count_submit(const struct counts *c, const struct pool_facts *facts)
{
    int64_t n = count_missing(c, facts);

    if (facts->state != POOL_ACTIVE || facts->is_settling || *facts->list_error ||
        facts->now_ms < facts->retry_ms || is_too_new(c, facts))
        return 0;
    n = least(n, facts->max_nodes - c->n_open);
    n = least(n, POOL_SUBMITTING_MAX - c->n_intended);
    return n > 0 ? n : 0;
}

/* ---- why ---- */

#define SAY(plan, which, ...) snprintf((plan)->why[which], POOL_WHY_MAX, __VA_ARGS__)

static const char *nodes_of(int64_t n)
{
    return n == 1 ? "node" : "nodes";
}

static void say_submits(struct pool_plan *plan, const struct counts *c,
                        const struct pool_facts *facts)
{
    int64_t n_missing = count_missing(c, facts);
    long long n = (long long)plan->n_submit;

    if (facts->state == POOL_REMOVING)
        SAY(plan, POOL_WHY_SUBMITS, "submits nothing: it is being removed%s%.512s",
            *facts->list_error ? ", once the cluster can be listed: " : "",
            facts->list_error);
    else if (facts->state == POOL_PAUSED)
        SAY(plan, POOL_WHY_SUBMITS, "submits nothing: it is paused");
    else if (plan->n_submit > 0 && facts->n_wanted > 0)
        SAY(plan, POOL_WHY_SUBMITS, "submits %lld %s: tasks wait for %lld more", n,
            nodes_of(n), (long long)facts->n_wanted);
    else if (plan->n_submit > 0)
        SAY(plan, POOL_WHY_SUBMITS, "submits %lld %s: at least %lld are to be there", n,
            nodes_of(n), (long long)facts->min_nodes);
    else if (facts->is_settling)
        SAY(plan, POOL_WHY_SUBMITS,
            "submits nothing: agents may still come back after the restart");
    else if (*facts->list_error)
        SAY(plan, POOL_WHY_SUBMITS,
            "submits nothing until the cluster can be listed: %.512s", facts->list_error);
    else if (*facts->failure && facts->now_ms < facts->retry_ms)
        SAY(plan, POOL_WHY_SUBMITS,
            "submits nothing for a while: the last try failed (%.512s)", facts->failure);
    else if ((n_missing > 0 || facts->is_work_left) && c->n_open >= facts->max_nodes)
        SAY(plan, POOL_WHY_SUBMITS,
            "submits nothing: %lld of at most %lld nodes are there or on their way",
            (long long)c->n_open, (long long)facts->max_nodes);
    else if (n_missing > 0 && is_too_new(c, facts))
        SAY(plan, POOL_WHY_SUBMITS, "submits nothing yet: tasks have only begun to wait");
    else if (n_missing > 0)
        SAY(plan, POOL_WHY_SUBMITS, "submits no more until %lld under way are settled",
            (long long)c->n_intended);
    else if (facts->is_work_left)
        SAY(plan, POOL_WHY_SUBMITS,
            "submits nothing: what waits is too large for it, or behind another job");
    else
        SAY(plan, POOL_WHY_SUBMITS, "submits nothing: no task waits for another node");
}

static void say_keeps(struct pool_plan *plan, const struct counts *c)
{
    int64_t n_running = c->n_running - c->n_end;
    int64_t n_waiting = c->n_intended + c->n_pending;

    if (n_running <= 0 && n_waiting == 0 && c->n_out > 0)
        SAY(plan, POOL_WHY_KEEPS, "keeps nothing: %lld %s on the way out",
            (long long)c->n_out, nodes_of(c->n_out));
    else if (n_running <= 0 && n_waiting == 0)
        SAY(plan, POOL_WHY_KEEPS, "keeps nothing: it has no node");
    else
        SAY(plan, POOL_WHY_KEEPS, "keeps %lld running (%lld busy), %lld not there yet",
            (long long)(n_running > 0 ? n_running : 0), (long long)c->n_busy,
            (long long)n_waiting);
}

static void say_cancels(struct pool_plan *plan, const struct counts *c,
                        const struct pool_facts *facts)
{
    if (c->n_cancel > 0)
        SAY(plan, POOL_WHY_CANCELS, "cancels %lld %s: %s", (long long)c->n_cancel,
            nodes_of(c->n_cancel),
            facts->state == POOL_REMOVING ? "it is being removed"
                                          : "nobody needs them, or they got no agent");
    else if (c->n_out > 0 && *facts->cancel_error)
        SAY(plan, POOL_WHY_CANCELS, "tries to cancel again: the last try failed (%.512s)",
            facts->cancel_error);
    else if (c->n_pending == 0)
        SAY(plan, POOL_WHY_CANCELS, "cancels nothing: no node is pending");
    else if (c->n_pending_unneeded == 0)
        SAY(plan, POOL_WHY_CANCELS,
            "cancels nothing: tasks wait for all that are pending");
    else if (c->n_live <= facts->min_nodes)
        SAY(plan, POOL_WHY_CANCELS, "cancels nothing: at least %lld are to be there",
            (long long)facts->min_nodes);
    else
        SAY(plan, POOL_WHY_CANCELS,
            "cancels nothing yet: %lld pending not needed for less than %lld s",
            (long long)c->n_pending_unneeded,
            (long long)(unneeded_limit_ms(facts) + 999) / 1000);
}

static void say_ends(struct pool_plan *plan, const struct counts *c,
                     const struct pool_facts *facts)
{
    if (c->n_end > 0)
        SAY(plan, POOL_WHY_ENDS, "ends %lld %s: nothing to do on %s", (long long)c->n_end,
            nodes_of(c->n_end), c->n_end == 1 ? "it" : "them");
    else if (c->n_running == 0)
        SAY(plan, POOL_WHY_ENDS, "ends nothing: no node is running");
    else if (c->n_idle == 0)
        SAY(plan, POOL_WHY_ENDS, "ends nothing: all %lld running are needed",
            (long long)c->n_running);
    else if (c->n_live <= facts->min_nodes)
        SAY(plan, POOL_WHY_ENDS, "ends nothing: at least %lld are to be there",
            (long long)facts->min_nodes);
    else
        SAY(plan, POOL_WHY_ENDS, "ends nothing yet: %lld idle for less than %lld s",
            (long long)c->n_idle, (long long)(facts->idle_ms + 999) / 1000);
}

void pool_plan(struct pool_plan *plan, const struct pool_facts *facts)
{
    struct counts c;

    for (size_t i = 0; i < facts->n_nodes; i++)
        plan->actions[i] = POOL_KEEP;
    count(&c, facts);
    if (facts->state == POOL_REMOVING) {
        clear(plan, &c, facts);
    } else if (!facts->is_settling) {
        cancel_agentless(plan, &c, facts);
        cancel_unneeded(plan, &c, facts);
        end_idle(plan, &c, facts);
    }
    plan->n_submit = count_submit(&c, facts);
    say_submits(plan, &c, facts);
    say_keeps(plan, &c);
    say_cancels(plan, &c, facts);
    say_ends(plan, &c, facts);
}
