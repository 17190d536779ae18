/* Reads the model from the store: at the start, and after a commit that failed. */
#include "common/base/clock.h"
#include "common/base/json.h"
#include "coordinator/core.h"

#include <string.h>

/* What the row callbacks need; they can only say that a row is wrong. */
struct loading {
    struct core *core;
    struct job *job;
    struct err *err;
};

static int load_task(void *context, const struct task_row *row)
{
    struct loading *loading = context;
    struct job *job = loading->job;
    struct task task = {.id = row->id,
                        .first = row->first,
                        .count = row->count,
                        .attempt = row->attempt,
                        .n_failures = row->n_failures,
                        .not_before_ms = row->not_before_ms,
                        .phase = task_phase_find(row->phase),
                        .state = task_state_find(row->state)};

    if (task.phase == PHASE_COUNT || task.state == TASK_NONE)
        return err_set(loading->err, ERR_FORMAT, "task in state '%s'", row->state);
    if (task.state == TASK_DONE && task.phase == PHASE_WORK)
        job->n_done += task.count;
    return job_task_insert(job, job->n_tasks, &task, loading->err);
}

/* As attempts.c wrote them: [{"rank", "device", "pid", "agent"}, ...]. */
static int load_ranks(struct attempt *attempt, const char *text, struct err *err)
{
    struct json *ranks;
    int rc = 0;

    if (json_parse(&ranks, text, strlen(text), err) < 0)
        return -1;
    if (json_count(ranks) != (size_t)attempt->n_ranks)
        rc = err_set(err, ERR_FORMAT, "attempt with a wrong list of ranks");
    for (int64_t r = 0; rc == 0 && r < attempt->n_ranks; r++) {
        const struct json *one = json_at(ranks, (size_t)r);
        const char *agent = json_get_string(one, "agent");

        attempt->ranks[r].state = RANK_AWAITED;
        attempt->ranks[r].device = json_get_int(one, "device", -1);
        attempt->ranks[r].pid = json_get_int(one, "pid", 0);
        attempt->ranks[r].agent = agent ? strdup(agent) : NULL;
        if (!attempt->ranks[r].agent)
            rc = err_set(err, ERR_FORMAT, "rank without an agent");
    }
    json_free(ranks);
    return rc;
}

static int load_attempt(void *context, const struct attempt_row *row)
{
    struct loading *loading = context;
    struct job *job = loading->job;
    struct attempt *attempt;

    attempt = job_attempt_add(job, row->id, row->number, row->n_ranks, loading->err);
    if (!attempt)
        return -1;
    attempt->state = attempt_state_find(row->state);
    attempt->cause = attempt_cause_find(row->cause);
    attempt->grace_ms = CORE_LOST_GRACE_MS;
    attempt->stop_again_mono_ms = loading->core->mono_ms;
    text_set(&attempt->reason, row->reason);
    if (attempt->state == ATTEMPT_NONE || attempt->cause == CAUSE_COUNT)
        return err_set(loading->err, ERR_FORMAT, "attempt in state '%s'", row->state);
    for (size_t i = 0; i < job->n_tasks; i++)
        attempt->n_leases += job->tasks[i].state == TASK_LEASED &&
                             job->tasks[i].attempt == attempt->number;
    return load_ranks(attempt, row->ranks, loading->err);
}

static int load_job(void *context, const struct job_row *row)
{
    struct loading *loading = context;
    struct job *job = model_job_add(&loading->core->model, row->id, row->name, row->kind,
                                    row->spec, loading->err);

    if (!job)
        return -1;
    job->plan = (struct job_plan){.is_training = row->max_steps > 0,
                                  .n_ranks = row->n_ranks,
                                  .group_size = row->group_size,
                                  .shard_size = row->shard_size,
                                  .max_steps = row->max_steps,
                                  .checkpoint_steps = row->checkpoint_steps,
                                  .n_kept = row->n_kept};
    job->state = job_state_find(row->state);
    job->goal = job_goal_find(row->goal);
    text_set(&job->reason, row->reason);
    if (job->goal != GOAL_RUN)
        text_set(&job->goal_reason, row->reason);
    text_set(&job->resume, row->resume);
    job->last_attempt = row->attempt;
    job->n_fruitless = row->n_fruitless;
    job->not_before_ms = row->not_before_ms;
    job->n_samples = row->n_samples;
    job->done = row->done;
    job->total = row->total;
    job->submitted_ms = row->submitted_ms;
    if (job->state == JOB_NONE || job->goal == GOAL_COUNT)
        return err_set(loading->err, ERR_FORMAT, "job in state '%s'", row->state);
    return 0;
}

static int load_model(struct core *core, struct err *err)
{
    struct loading loading = {.core = core, .err = err};

    if (store_load_counters(core->store, &core->last, err) < 0 ||
        store_load_jobs(core->store, load_job, &loading, err) < 0)
        return -1;
    for (size_t i = 0; i < core->model.n_jobs; i++) {
        loading.job = core->model.jobs[i];
        if (store_load_tasks(core->store, loading.job->id, load_task, &loading, err) <
                0 ||
            store_load_attempts(core->store, loading.job->id, load_attempt, &loading,
                                err) < 0)
            return err_wrap(err, "job %lld", (long long)loading.job->id);
    }
    return 0;
}

int core_recover(struct core *core, struct err *err)
{
    model_fini(&core->model);
    core->wall_ms = clock_wall_ms();
    core->mono_ms = core->recovered_mono_ms = clock_mono_ms();
    if (load_model(core, err) < 0 || pools_recover(core, err) < 0)
        return err_wrap(err, "cannot read the state back");
    store_workers_lost(core->store);
    return 0;
}

void core_fini(struct core *core)
{
    model_fini(&core->model);
    pools_fini(&core->pools);
    outbox_fini(&core->outbox);
}
