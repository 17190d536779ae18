/* pools.h - pools of nodes that are asked for while tasks wait, and end when none do
 *
 * A pool calls `vneva-launch` (launcher.h) to submit, list and cancel allocations, one node
 * each; it knows nothing of the cluster manager. What to do is pool_plan.h's to say. An
 * allocation is written down, committed, and only then asked for, under a name of its own:
 * one whose fate is not known (the coordinator died, the launcher hung) counts as there
 * until a list shows it under its name, or has had time to and does not.
 *
 *     pools_poll      what ended calls have told         (before deciding)
 *     pools_nodes     the nodes the scheduler may count on
 *     pools_take      what it counts on
 *     pools_decide    submit, cancel, end; sentences
 *     pools_act       starts calls for what is committed (after the commit)
 *
 * Owns: pools and allocations that have not ended. Threads: one.
 * Units: *_mono_ms of the monotonic clock, other *_ms wall time.
 */
#ifndef VNEVA_COORDINATOR_POOLS_H
#define VNEVA_COORDINATOR_POOLS_H

#include "coordinator/pool_plan.h"
#include "coordinator/scheduler.h"

#include "common/base/buf.h"
#include "common/wire/wire.h"

#define POOLS_MAX 32
#define POOL_NODES_MAX 1000 /* of one pool */
#define POOL_NAME_MAX 32
#define POOL_DEVICES_UNKNOWN                                                             \
    256                       /* of a node nobody has seen: one is asked for to learn */
#define POOL_EXTERNAL_MAX 128 /* bytes of what a cluster calls an allocation, with NUL */
#define POOL_UNIQUE_MAX 32    /* bytes of TAG-ID, with NUL */
#define POOL_STRAYS_MAX 16
#define POOL_INTENDED "is being submitted"
#define POOL_NO_ENDPOINT                                                                 \
    "the nodes of a pool cannot reach this coordinator: it listens on this machine "     \
    "only; start it with --listen tcp://HOST:PORT"
#define POOL_DRAIN_MS 120000   /* an agent that was told to end has so long */
#define POOL_ASK_AGAIN_MS 5000 /* the same wish once more */

struct core;
struct agent;
struct job;
struct launcher_result;

struct allocation {
    int64_t id;
    enum allocation_state state;
    char *name;     /* its own in the cluster, TAG-ID */
    char *external; /* what the cluster calls it; "" until known */
    char *reason;
    bool had_agent;
    bool is_asked_for;            /* a call was started, now or before a restart */
    int64_t absent_after_mono_ms; /* lists begun later tell whether it is there */
    int n_absent;                 /* so many did not have it, one after another */
    int64_t told_mono_ms;         /* when it was last told to end; 0: never */
    int64_t draining_mono_ms;     /* since when */
    /* of this turn */
    int n_agents;
    bool is_busy, is_counted_on;
    /* for pool_plan.h */
    int64_t needed_mono_ms, agent_mono_ms; /* when it last was, had one */
};

struct pool {
    int64_t id;
    char *name, *tag, *manager, *options;
    enum pool_state state;
    int64_t min_nodes, max_nodes, idle_ms, gpus_per_node, created_ms;
    int64_t n_devices; /* of a node; 0: not known */
    int64_t n_failures, retry_ms;
    char *failure;                   /* of the last submission, "" for none */
    char *list_error;                /* of the last list, "" for none */
    char *cancel_error;              /* of the last cancelling, "" for none */
    struct allocation **allocations; /* in order of id */
    size_t n_allocations;
    int64_t n_wanted; /* of this turn */
    int64_t unwanted_mono_ms;
    int64_t listed_mono_ms; /* when the last list began */
    /* Until when it is listed though nothing is open: what was given up may come late. Those
     * that did are cancelled. */
    int64_t watch_until_mono_ms;
    char strays[POOL_STRAYS_MAX][POOL_EXTERNAL_MAX];
    size_t n_strays;
    char why[POOL_WHY_COUNT][POOL_WHY_MAX];
};

struct pools {
    struct pool *items[POOLS_MAX]; /* in order of id */
    size_t count;
    size_t n_removing;
    bool is_work_left; /* of this turn: attempts got no place, not even an awaited one */
};

/* Reads them from the store; what was there is thrown away. */
int pools_recover(struct core *core, struct err *err);
void pools_fini(struct pools *pools);
struct pool *pools_find(const struct pools *pools, const char *name); /* NULL: none */

/* ---- pools.c: setters; each writes row and event ---- */

/* n_devices: of a node, 0 when that is not known. */
struct pool *pool_create(const struct msg_pool_add *add, int64_t id, int64_t n_devices,
                         struct err *err);
void pool_free(struct pool *pool);
int pools_add(struct pools *pools, struct pool *pool, struct err *err);
void pool_change(struct core *core, struct pool *pool, enum pool_event event);
void pool_failed(struct core *core, struct pool *pool, const char *why);
/* An agent of it has registered. */
void pool_worked(struct core *core, struct pool *pool, int64_t n_devices);
void pool_write_why(struct core *core, struct pool *pool, const struct pool_plan *plan);
struct allocation *allocation_create(struct core *core, struct pool *pool,
                                     struct err *err);
struct allocation *allocation_find(const struct pool *pool, int64_t id);
void allocation_change(struct core *core, struct pool *pool,
                       struct allocation *allocation, enum allocation_event event,
                       const char *reason);
/* The same state with other facts. */
void allocation_write(struct core *core, const struct allocation *allocation);
/* Forgets those that have ended, and the pool when it is being removed and has none. */
void pools_sweep(struct core *core);
const char *allocation_label(const struct allocation *allocation); /* number or name */

/* ---- pool_demand.c: between pools and scheduler ---- */

struct awaited { /* a node that is not there */
    struct pool *pool;
    struct allocation *allocation; /* NULL: it could be asked for */
};

/* Which agents belong to which allocation, and whether they may get ranks. */
void pools_meet_agents(struct core *core);
/* Nodes of tiers SCHED_COMING and SCHED_POSSIBLE: at most pools_count_nodes. */
size_t pools_count_nodes(const struct core *core);
size_t pools_nodes(struct core *core, struct sched_node *nodes, struct awaited *awaited);
/* What the plan counts on. nodes[first_awaited + i] is awaited[i]. */
void pools_take(struct core *core, const struct sched_plan *plan, int64_t first_awaited,
                const struct awaited *awaited);
/* Why job i of the plan waits, when pools have to do with it: the scheduler's words and
 * more, and the pool's name (or ""). False: they have not. */
bool pools_explain(const struct core *core, const struct sched_plan *plan, int64_t i,
                   int64_t first_awaited, const struct awaited *awaited,
                   struct buf *reason, const char **pool);
void pool_agent_registered(struct core *core, const struct agent *agent);

/* ---- pool_turn.c ---- */

void pools_decide(struct core *core);
void pools_shut_down(struct core *core);       /* cancels what is pending */
bool pools_are_quiet(const struct core *core); /* nobody is left to be told so */

/* ---- pool_calls.c ---- */

void pools_poll(struct core *core);
void pools_act(struct core *core);

/* ---- pool_requests.c: wishes of clients; -1: refused ---- */

int pools_request(struct core *core, const struct wire *message, struct err *err);

#endif
