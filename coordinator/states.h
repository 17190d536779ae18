/* states.h - the state machines of the coordinator
 *
 *   job:     submitted > queued > placed > running > done
 *            queued > held, cancelled, failed;  held > queued, cancelled
 *            placed|running > stopping > queued (retry), held, cancelled, failed
 *   attempt: starting > running > stopping > ended;  starting > stopping
 *   task:    ready > leased > done;  leased > ready > quarantined
 *   pool:    active <> paused;  active|paused > removing
 *   allocation: intended > pending > running > draining > cancelling > ended
 *            intended > running;  pending|running > cancelling;  running > pending (requeue)
 *            all but ended > ended
 *
 * Pure tables; the setters that act on them are in change.c. Duplicate and late messages
 * are filtered by attempt number before they reach a machine.
 * The names are what the store and the wire hold: never rename one without a migration.
 */
#ifndef VNEVA_COORDINATOR_STATES_H
#define VNEVA_COORDINATOR_STATES_H

#include <stdbool.h>

enum job_state {
    JOB_NONE, /* no such state: an illegal transition */
    JOB_SUBMITTED,
    JOB_QUEUED,
    JOB_PLACED,  /* the first attempt starts */
    JOB_RUNNING, /* an attempt has had all its ranks ready */
    JOB_STOPPING,
    JOB_HELD,
    JOB_DONE,
    JOB_FAILED,
    JOB_CANCELLED,
    JOB_STATE_COUNT,
};

enum job_event {
    JOB_EV_ACCEPT, /* its tasks are made */
    JOB_EV_PLACE,
    JOB_EV_READY,
    JOB_EV_STOP,   /* no attempt works on it any more, some may still be ending */
    JOB_EV_RETRY,  /* stopped, to go on */
    JOB_EV_FINISH, /* all tasks are done */
    JOB_EV_FAIL,
    JOB_EV_CANCEL,
    JOB_EV_HOLD,
    JOB_EV_RELEASE,
    JOB_EVENT_COUNT,
};

/* What becomes of a job that is stopping. */
enum job_goal { GOAL_RUN, GOAL_HOLD, GOAL_CANCEL, GOAL_FAIL, GOAL_COUNT };

enum attempt_state {
    ATTEMPT_NONE,
    ATTEMPT_STARTING,
    ATTEMPT_RUNNING,
    ATTEMPT_STOPPING,
    ATTEMPT_ENDED,
    ATTEMPT_STATE_COUNT,
};

enum attempt_event {
    ATTEMPT_EV_READY,
    ATTEMPT_EV_STOP,
    ATTEMPT_EV_END,
    ATTEMPT_EVENT_COUNT
};

/* Why an attempt stops: its work is done, it was lost, or somebody wanted it so. */
enum attempt_cause { CAUSE_NONE, CAUSE_DONE, CAUSE_LOST, CAUSE_STOPPED, CAUSE_COUNT };

enum task_state {
    TASK_NONE,
    TASK_READY,
    TASK_LEASED,
    TASK_DONE,
    TASK_QUARANTINED,
    TASK_STATE_COUNT,
};

enum task_event {
    TASK_EV_LEASE,
    TASK_EV_FINISH,
    TASK_EV_RETURN, /* lost or failed */
    TASK_EV_QUARANTINE,
    TASK_EVENT_COUNT,
};

enum pool_state { POOL_NONE, POOL_ACTIVE, POOL_PAUSED, POOL_REMOVING, POOL_STATE_COUNT };

enum pool_event { POOL_EV_PAUSE, POOL_EV_RESUME, POOL_EV_REMOVE, POOL_EVENT_COUNT };

/* A node that a pool has asked its cluster manager for. */
enum allocation_state {
    ALLOCATION_NONE,
    ALLOCATION_INTENDED, /* to be submitted, or nobody knows yet whether it was */
    ALLOCATION_PENDING,  /* waits in the cluster's queue */
    ALLOCATION_RUNNING,
    ALLOCATION_DRAINING,   /* its agent is told to end */
    ALLOCATION_CANCELLING, /* the cluster manager is told to end it */
    ALLOCATION_ENDED,
    ALLOCATION_STATE_COUNT,
};

enum allocation_event {
    ALLOCATION_EV_PEND,
    ALLOCATION_EV_RUN,
    ALLOCATION_EV_DRAIN,
    ALLOCATION_EV_CANCEL,
    ALLOCATION_EV_END,
    ALLOCATION_EVENT_COUNT
};

/* In the order in which they are leased. */
enum task_phase { PHASE_PLAN, PHASE_WORK, PHASE_FINISH, PHASE_COUNT };

/* The state after the event; *_NONE when that is illegal. */
enum job_state job_state_next(enum job_state state, enum job_event event);
enum attempt_state attempt_state_next(enum attempt_state state, enum attempt_event event);
enum task_state task_state_next(enum task_state state, enum task_event event);
enum pool_state pool_state_next(enum pool_state state, enum pool_event event);
enum allocation_state allocation_state_next(enum allocation_state state,
                                            enum allocation_event event);

bool job_state_is_ended(enum job_state state);

/* "queued"; "" for CAUSE_NONE. */
const char *job_state_name(enum job_state state);
const char *job_event_name(enum job_event event);
const char *job_goal_name(enum job_goal goal);
const char *attempt_state_name(enum attempt_state state);
const char *attempt_event_name(enum attempt_event event);
const char *attempt_cause_name(enum attempt_cause cause);
const char *task_state_name(enum task_state state);
const char *task_event_name(enum task_event event);
const char *task_phase_name(enum task_phase phase);
const char *pool_state_name(enum pool_state state);
const char *pool_event_name(enum pool_event event);
const char *allocation_state_name(enum allocation_state state);
const char *allocation_event_name(enum allocation_event event);

/* By name, as the store has it; *_NONE, or *_COUNT where there is no none, when unknown. */
enum job_state job_state_find(const char *name);
enum job_goal job_goal_find(const char *name);
enum attempt_state attempt_state_find(const char *name);
enum attempt_cause attempt_cause_find(const char *name);
enum task_state task_state_find(const char *name);
enum task_phase task_phase_find(const char *name);
enum pool_state pool_state_find(const char *name);
enum allocation_state allocation_state_find(const char *name);

#endif
