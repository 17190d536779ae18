#include "coordinator/states.h"

#include <stdint.h>
#include <string.h>

/* Absent is 0, which is *_NONE: illegal. */
static const uint8_t job_next[JOB_STATE_COUNT][JOB_EVENT_COUNT] = {
    [JOB_SUBMITTED] = {[JOB_EV_ACCEPT] = JOB_QUEUED},
    [JOB_QUEUED] = {[JOB_EV_PLACE] = JOB_PLACED,
                    [JOB_EV_HOLD] = JOB_HELD,
                    [JOB_EV_CANCEL] = JOB_CANCELLED,
                    [JOB_EV_FAIL] = JOB_FAILED},
    [JOB_PLACED] = {[JOB_EV_READY] = JOB_RUNNING, [JOB_EV_STOP] = JOB_STOPPING},
    [JOB_RUNNING] = {[JOB_EV_FINISH] = JOB_DONE, [JOB_EV_STOP] = JOB_STOPPING},
    [JOB_STOPPING] = {[JOB_EV_RETRY] = JOB_QUEUED,
                      [JOB_EV_HOLD] = JOB_HELD,
                      [JOB_EV_CANCEL] = JOB_CANCELLED,
                      [JOB_EV_FAIL] = JOB_FAILED,
                      /* the last task may be reported while its ranks end */
                      [JOB_EV_FINISH] = JOB_DONE},
    [JOB_HELD] = {[JOB_EV_RELEASE] = JOB_QUEUED, [JOB_EV_CANCEL] = JOB_CANCELLED},
};

static const uint8_t attempt_next[ATTEMPT_STATE_COUNT][ATTEMPT_EVENT_COUNT] = {
    [ATTEMPT_STARTING] =
        {[ATTEMPT_EV_READY] = ATTEMPT_RUNNING, [ATTEMPT_EV_STOP] = ATTEMPT_STOPPING},
    [ATTEMPT_RUNNING] = {[ATTEMPT_EV_STOP] = ATTEMPT_STOPPING},
    [ATTEMPT_STOPPING] = {[ATTEMPT_EV_END] = ATTEMPT_ENDED},
};

static const uint8_t task_next[TASK_STATE_COUNT][TASK_EVENT_COUNT] = {
    [TASK_READY] =
        {[TASK_EV_LEASE] = TASK_LEASED, [TASK_EV_QUARANTINE] = TASK_QUARANTINED},
    [TASK_LEASED] = {[TASK_EV_FINISH] = TASK_DONE, [TASK_EV_RETURN] = TASK_READY},
};

static const uint8_t pool_next[POOL_STATE_COUNT][POOL_EVENT_COUNT] = {
    [POOL_ACTIVE] = {[POOL_EV_PAUSE] = POOL_PAUSED, [POOL_EV_REMOVE] = POOL_REMOVING},
    [POOL_PAUSED] = {[POOL_EV_RESUME] = POOL_ACTIVE, [POOL_EV_REMOVE] = POOL_REMOVING},
};

static const uint8_t allocation_next[ALLOCATION_STATE_COUNT][ALLOCATION_EVENT_COUNT] = {
    [ALLOCATION_INTENDED] = {[ALLOCATION_EV_PEND] = ALLOCATION_PENDING,
                             [ALLOCATION_EV_RUN] = ALLOCATION_RUNNING,
                             [ALLOCATION_EV_END] = ALLOCATION_ENDED},
    [ALLOCATION_PENDING] = {[ALLOCATION_EV_RUN] = ALLOCATION_RUNNING,
                            [ALLOCATION_EV_CANCEL] = ALLOCATION_CANCELLING,
                            [ALLOCATION_EV_END] = ALLOCATION_ENDED},
    [ALLOCATION_RUNNING] = {[ALLOCATION_EV_PEND] = ALLOCATION_PENDING, /* requeued */
                            [ALLOCATION_EV_DRAIN] = ALLOCATION_DRAINING,
                            [ALLOCATION_EV_CANCEL] = ALLOCATION_CANCELLING,
                            [ALLOCATION_EV_END] = ALLOCATION_ENDED},
    [ALLOCATION_DRAINING] = {[ALLOCATION_EV_CANCEL] = ALLOCATION_CANCELLING,
                             [ALLOCATION_EV_END] = ALLOCATION_ENDED},
    [ALLOCATION_CANCELLING] = {[ALLOCATION_EV_END] = ALLOCATION_ENDED},
};

enum job_state job_state_next(enum job_state state, enum job_event event)
{
    return (enum job_state)job_next[state][event];
}

enum attempt_state attempt_state_next(enum attempt_state state, enum attempt_event event)
{
    return (enum attempt_state)attempt_next[state][event];
}

enum task_state task_state_next(enum task_state state, enum task_event event)
{
    return (enum task_state)task_next[state][event];
}

enum pool_state pool_state_next(enum pool_state state, enum pool_event event)
{
    return (enum pool_state)pool_next[state][event];
}

enum allocation_state allocation_state_next(enum allocation_state state,
                                            enum allocation_event event)
{
    return (enum allocation_state)allocation_next[state][event];
}

bool job_state_is_ended(enum job_state state)
{
    return state == JOB_DONE || state == JOB_FAILED || state == JOB_CANCELLED;
}

/* ---- names ---- */

static const char *const job_states[] = {"",        "submitted", "queued", "placed",
                                         "running", "stopping",  "held",   "done",
                                         "failed",  "cancelled"};
static const char *const job_events[] = {"accept", "place", "ready",  "stop", "retry",
                                         "finish", "fail",  "cancel", "hold", "release"};
static const char *const job_goals[] = {"run", "hold", "cancel", "fail"};
static const char *const attempt_states[] = {"", "starting", "running", "stopping",
                                             "ended"};
static const char *const attempt_events[] = {"ready", "stop", "end"};
static const char *const attempt_causes[] = {"", "done", "lost", "stopped"};
static const char *const task_states[] = {"", "ready", "leased", "done", "quarantined"};
static const char *const task_events[] = {"lease", "finish", "return", "quarantine"};
static const char *const task_phases[] = {"plan", "work", "finish"};
static const char *const pool_states[] = {"", "active", "paused", "removing"};
static const char *const pool_events[] = {"pause", "resume", "remove"};
static const char *const allocation_states[] = {
    "", "intended", "pending", "running", "draining", "cancelling", "ended"};
static const char *const allocation_events[] = {"pend", "run", "drain", "cancel", "end"};

static int find(const char *const *names, int first, int count, int otherwise,
                const char *name)
{
    for (int i = first; i < count; i++)
        if (strcmp(names[i], name) == 0)
            return i;
    return otherwise;
}

/* NOLINTBEGIN(bugprone-macro-parentheses): type and name are no expressions */
/* The functions name##_name and name##_find, and the check that no name is missing. */
#define NAMED(type, name, names, count, first, otherwise)                                \
    _Static_assert(sizeof(names) / sizeof((names)[0]) == (count), #names);               \
    const char *name##_name(enum type value)                                             \
    {                                                                                    \
        return (names)[value];                                                           \
    }                                                                                    \
    enum type name##_find(const char *text)                                              \
    {                                                                                    \
        return (enum type)find(names, first, count, otherwise, text);                    \
    }

NAMED(job_state, job_state, job_states, JOB_STATE_COUNT, 1, JOB_NONE)
NAMED(job_goal, job_goal, job_goals, GOAL_COUNT, 0, GOAL_COUNT)
NAMED(attempt_state, attempt_state, attempt_states, ATTEMPT_STATE_COUNT, 1, ATTEMPT_NONE)
NAMED(attempt_cause, attempt_cause, attempt_causes, CAUSE_COUNT, 0, CAUSE_COUNT)
NAMED(task_state, task_state, task_states, TASK_STATE_COUNT, 1, TASK_NONE)
NAMED(task_phase, task_phase, task_phases, PHASE_COUNT, 0, PHASE_COUNT)
NAMED(pool_state, pool_state, pool_states, POOL_STATE_COUNT, 1, POOL_NONE)
NAMED(allocation_state, allocation_state, allocation_states, ALLOCATION_STATE_COUNT, 1,
      ALLOCATION_NONE)

/* NOLINTEND(bugprone-macro-parentheses) */

const char *job_event_name(enum job_event event)
{
    return job_events[event];
}

const char *attempt_event_name(enum attempt_event event)
{
    return attempt_events[event];
}

const char *task_event_name(enum task_event event)
{
    return task_events[event];
}

const char *pool_event_name(enum pool_event event)
{
    return pool_events[event];
}

const char *allocation_event_name(enum allocation_event event)
{
    return allocation_events[event];
}
