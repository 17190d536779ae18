/* The only places that set a state: look it up in the machine's table, set it, write the
 * row and the event. What follows from a change is decided by the callers. */
#include "common/base/utf8.h"
#include "coordinator/core.h"

#include <stdarg.h>
#include <stdio.h>

void core_text(char out[CORE_TEXT_MAX], const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(out, CORE_TEXT_MAX, format, args);
    va_end(args);
    utf8_mend(out);
}

void core_event(struct core *core, int64_t job, const char *kind, const char *format, ...)
{
    char text[CORE_TEXT_MAX];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    utf8_mend(text);
    store_event(core->store, job, core->wall_ms, kind, text);
}

/* A transition that is not in the table is our own mistake: the turn must not commit. */
static void refuse(struct core *core, const char *what, int64_t id, const char *state,
                   const char *event)
{
    struct err why;

    err_set(&why, ERR_STATE, "%s %lld is %s, which does not allow '%s'", what,
            (long long)id, state, event);
    store_fail(core->store, &why);
}

void job_write_state(struct core *core, const struct job *job, const char *reason)
{
    struct job_state_row row = {
        .state = job_state_name(job->state),
        .goal = job_goal_name(job->goal),
        .reason = reason,
        .started_ms = job->state == JOB_RUNNING ? core->wall_ms : 0,
        .ended_ms = job_state_is_ended(job->state) ? core->wall_ms : 0,
        .now_ms = core->wall_ms,
    };

    store_job_state(core->store, job->id, &row);
}

void job_change(struct core *core, struct job *job, enum job_event event,
                const char *reason)
{
    enum job_state next = job_state_next(job->state, event);

    if (next == JOB_NONE) {
        refuse(core, "job", job->id, job_state_name(job->state), job_event_name(event));
        return;
    }
    job->state = next;
    text_set(&job->reason, reason);
    job_write_state(core, job, job->reason);
    core_event(core, job->id, job_state_name(next), "job %lld is %s%s%s",
               (long long)job->id, job_state_name(next), job->reason[0] ? ": " : "",
               job->reason);
}

void attempt_change(struct core *core, struct job *job, struct attempt *attempt,
                    enum attempt_event event)
{
    enum attempt_state next = attempt_state_next(attempt->state, event);

    if (next == ATTEMPT_NONE) {
        refuse(core, "attempt", attempt->id, attempt_state_name(attempt->state),
               attempt_event_name(event));
        return;
    }
    attempt->state = next;
    store_attempt_state(core->store, attempt->id, attempt_state_name(next),
                        attempt_cause_name(attempt->cause), attempt->reason,
                        next == ATTEMPT_ENDED ? core->wall_ms : 0);
    core_event(core, job->id, "attempt", "attempt %lld is %s%s%s%s%s",
               (long long)attempt->number, attempt_state_name(next),
               attempt->cause ? ", " : "", attempt_cause_name(attempt->cause),
               attempt->reason[0] ? ": " : "", attempt->reason);
}

void task_change(struct core *core, struct job *job, struct task *task,
                 enum task_event event, int64_t attempt)
{
    enum task_state next = task_state_next(task->state, event);
    struct task_row row;

    if (next == TASK_NONE) {
        refuse(core, "task", task->id, task_state_name(task->state),
               task_event_name(event));
        return;
    }
    job->n_in_state[task->state]--;
    job->n_in_state[next]++;
    task->state = next;
    if (attempt)
        task->attempt = attempt;
    if (next == TASK_READY && (size_t)(task - job->tasks) < job->first_open)
        job->first_open = (size_t)(task - job->tasks);
    row = (struct task_row){.id = task->id,
                            .attempt = task->attempt,
                            .n_failures = task->n_failures,
                            .not_before_ms = task->not_before_ms,
                            .state = task_state_name(next)};
    store_task_state(core->store, &row);
    core_event(core, job->id, "task", "task %lld (%s %lld+%lld) is %s, attempt %lld",
               (long long)task->id, task_phase_name(task->phase), (long long)task->first,
               (long long)task->count, task_state_name(next), (long long)task->attempt);
}

void job_set_reason(struct core *core, struct job *job, const char *reason,
                    const char *pool)
{
    text_set(&job->reason, reason);
    store_job_reason(core->store, job->id, job->reason, pool);
}

int64_t core_grace_ms(int64_t wanted_ms)
{
    if (wanted_ms <= 0)
        return CORE_GRACE_MS;
    return wanted_ms < CORE_GRACE_MAX_MS ? wanted_ms : CORE_GRACE_MAX_MS;
}

int64_t core_backoff_ms(const struct core *core, int64_t n)
{
    int64_t wait_ms = core->config.backoff_ms;

    while (--n > 0 && wait_ms < CORE_BACKOFF_MAX_MS)
        wait_ms *= 2;
    return wait_ms < CORE_BACKOFF_MAX_MS ? wait_ms : CORE_BACKOFF_MAX_MS;
}
