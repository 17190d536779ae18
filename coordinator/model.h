/* model.h - the jobs, attempts, tasks and agents that live, in memory
 *
 * What is durable of it is in the store as well; a coordinator that starts reads it from
 * there (recover.c). Only containers here: states are set in change.c.
 * Owns: a model owns all in it. An attempt belongs to its job, a task too.
 * Threads: one. Units: *_ms wall time unless named mono.
 */
#ifndef VNEVA_COORDINATOR_MODEL_H
#define VNEVA_COORDINATOR_MODEL_H

#include "common/base/err.h"
#include "common/base/map.h"
#include "common/net/net.h"
#include "coordinator/plan.h"
#include "coordinator/states.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MODEL_JOBS_MAX 10000 /* not ended */
#define MODEL_AGENTS_MAX 4096
#define MODEL_DEVICES_MAX 1024 /* of one agent */

struct task {
    int64_t id, first, count;
    int64_t attempt; /* that holds or held the lease; 0: never leased */
    int64_t n_failures, not_before_ms;
    enum task_phase phase;
    enum task_state state;
};

enum rank_state {
    RANK_AWAITED, /* its agent has not registered since the coordinator started */
    RANK_STARTING,
    RANK_READY,
    RANK_GONE,
};

struct rank {
    enum rank_state state;
    char *agent; /* its name; the agent itself may be unknown */
    int64_t device;
    int64_t pid;                   /* on its host; 0 until ready */
    char *endpoint;                /* NULL until ready */
    int64_t stage_written_mono_ms; /* when its row in the ranks view was last written */
};

struct attempt {
    int64_t id, number;
    enum attempt_state state;
    enum attempt_cause cause;
    char *reason;
    bool is_blamed;     /* a rank of its own died: what it had leased counts as failed */
    bool has_bad_input; /* so that rank said */
    int64_t n_ranks;
    struct rank *ranks;
    int64_t n_leases;
    int64_t progress; /* batch kinds: samples done of the task in work */
    int64_t grace_ms, stop_again_mono_ms; /* stopping: what is sent again, and when */
};

struct job {
    int64_t id;
    char *name, *kind, *spec, *reason;
    struct job_plan plan;
    enum job_state state;
    enum job_goal goal;
    char *goal_reason; /* why it is to be held, cancelled or failed */
    int64_t last_attempt, n_fruitless, not_before_ms, n_samples;
    int64_t n_bad_inputs; /* the last attempts ended for that, one after another */
    int64_t done, total, submitted_ms;
    char *resume; /* newest checkpoint, "" for none */
    bool is_progress_new;

    struct attempt **attempts; /* in order of number; ended ones leave after the turn */
    size_t n_attempts;
    struct task *tasks; /* in the order in which they are leased */
    size_t n_tasks, task_capacity;
    size_t first_open; /* no task before it is ready */
    size_t n_in_state[TASK_STATE_COUNT];
    int64_t n_done; /* samples or steps of the work tasks that are done */
};

struct agent {
    char *name, *host;
    struct net_peer peer; /* set by model_agent_set_peer */
    int64_t n_devices, n_busy;
    bool *is_busy; /* [n_devices] */
    int64_t last_seen_mono_ms, written_mono_ms;
    bool is_ending;          /* it said so: it gets no more ranks */
    char *pool, *allocation; /* what it was started for; "" for none */
    int64_t allocation_id;   /* of a pool of ours (pools.h); 0: none, or not known yet */
    bool is_leaving;         /* with its pool's allocation: it gets no more ranks */
};

struct model {
    struct job **jobs; /* in order of id */
    size_t n_jobs;
    struct agent **agents;
    size_t n_agents;
    struct map by_name, by_peer; /* agents */
};

void model_fini(struct model *model);

/* The new object belongs to the model; errors are ERR_NOMEM or ERR_LIMIT. */
struct job *model_job_add(struct model *model, int64_t id, const char *name,
                          const char *kind, const char *spec, struct err *err);
struct job *model_job_find(const struct model *model, int64_t id); /* NULL: none */

struct agent *model_agent_add(struct model *model, const char *name, const char *host,
                              int64_t n_devices, struct err *err);
/* The connection that it registered over last. */
int model_agent_set_peer(struct model *model, struct agent *agent,
                         const struct net_peer *peer, struct err *err);
void model_agent_remove(struct model *model, struct agent *agent);
struct agent *model_agent_find(const struct model *model, const char *name);
struct agent *model_agent_of_peer(const struct model *model, const struct net_peer *peer);

struct attempt *job_attempt_add(struct job *job, int64_t id, int64_t number,
                                int64_t n_ranks, struct err *err);
struct attempt *job_attempt_find(const struct job *job, int64_t number);
/* Attempts that have not ended; of these that start or run; of these that hold no lease. */
size_t job_count_open(const struct job *job);
size_t job_count_live(const struct job *job);
size_t job_count_idle(const struct job *job);

/* Puts a task at `at` (n_tasks: the end); pointers to tasks become invalid. */
int job_task_insert(struct job *job, size_t at, const struct task *task, struct err *err);
struct task *job_task_find(struct job *job, int64_t id);
/* The next task to lease: ready and its time has come; NULL: none now. Steps of training
 * are never leased past ones that still have to wait. */
struct task *job_task_next(struct job *job, int64_t now_ms);

bool attempt_is_live(const struct attempt *attempt); /* starting or running */
/* Has it ranks there that are not gone? */
bool attempt_is_on(const struct attempt *attempt, const struct agent *agent);
bool attempt_has_all(const struct attempt *attempt, enum rank_state state);

/* Removes ended attempts and ended jobs without attempts; called between two turns, so
 * that within one no pointer to either goes stale. */
void model_sweep(struct model *model);

/* Replaces an owned text; running out of memory keeps the old one. */
void text_set(char **text, const char *value);

#endif
