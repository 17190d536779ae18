/* Tasks: how a job is cut into them, leased, done, failed.
 *
 * Batch kinds: plan, then work tasks of shard_size samples, then finish. Training: the
 * step ranges between checkpoints; done are always the first of them, so the next lease
 * begins at the last checkpoint.
 */
#include "common/base/json.h"
#include "coordinator/core.h"

#include <string.h>

#define TASKS_MAX 1000000 /* of one job */

static int add_task(struct core *core, struct job *job, size_t at, enum task_phase phase,
                    int64_t first, int64_t count, struct err *err)
{
    struct task task = {.id = core->last.task + 1,
                        .phase = phase,
                        .first = first,
                        .count = count,
                        .state = TASK_READY};
    struct task_row row = {.id = task.id,
                           .job = job->id,
                           .phase = task_phase_name(phase),
                           .first = first,
                           .count = count,
                           .state = task_state_name(task.state)};

    if (job_task_insert(job, at, &task, err) < 0)
        return -1;
    core->last.task++;
    store_task_insert(core->store, &row);
    return 0;
}

/* Ranges of `step` that cover [0, total). */
static int add_ranges(struct core *core, struct job *job, int64_t total, int64_t step,
                      struct err *err)
{
    if (total / step >= TASKS_MAX)
        return err_set(err, ERR_LIMIT, "more than %d tasks; make them larger", TASKS_MAX);
    for (int64_t first = 0; first < total; first += step) {
        int64_t left = total - first;

        if (add_task(core, job, job->n_tasks, PHASE_WORK, first,
                     left < step ? left : step, err) < 0)
            return -1;
    }
    return 0;
}

int job_make_first_tasks(struct core *core, struct job *job, struct err *err)
{
    if (job->plan.is_training)
        return add_ranges(core, job, job->plan.max_steps, job->plan.checkpoint_steps,
                          err);
    return add_task(core, job, 0, PHASE_PLAN, 0, 0, err);
}

/* ---- leasing ---- */

static void send_task(struct core *core, struct job *job, struct attempt *attempt,
                      const struct task *task)
{
    struct wire start = {.type = MSG_TASK_START};
    struct buf args = BUF_INIT;
    struct err err;

    if (job->plan.is_training && job->plan.n_kept <= 0) /* a list would have no bound */
        buf_printf(&args, "{\"newest_step\": %lld}", (long long)job->n_done);
    else if (job->plan.is_training &&
             store_checkpoints_kept(core->store, job->id, &args, &err) < 0)
        store_fail(core->store, &err);
    start.task_start =
        (struct msg_task_start){.job = job->id,
                                .attempt = attempt->number,
                                .task = task->id,
                                .phase = task_phase_name(task->phase),
                                .first = task->first,
                                .count = task->count,
                                .args = args.n_bytes ? buf_str(&args) : "{}"};
    attempt_send(core, attempt, &start);
    buf_fini(&args);
}

static void end_for_lack_of_tasks(struct core *core, struct job *job,
                                  struct attempt *attempt)
{
    attempt_stop(core, job, attempt, CAUSE_DONE, CORE_GRACE_MS, "no more tasks");
}

/* Whether a batch attempt has a rank on a node of a pool that is being removed: it takes no
 * more tasks. One of training goes on, for what it has would have to be done again. */
static bool is_wanted_elsewhere(const struct core *core, const struct job *job,
                                const struct attempt *attempt)
{
    if (!core->pools.n_removing || job->plan.is_training)
        return false;
    for (size_t i = 0; i < core->model.n_agents; i++)
        if (core->model.agents[i]->is_leaving &&
            attempt_is_on(attempt, core->model.agents[i]))
            return true;
    return false;
}

void attempt_lease(struct core *core, struct job *job, struct attempt *attempt)
{
    int64_t most = job->plan.is_training ? CORE_TRAINING_LEASES : 1;

    if (attempt->state != ATTEMPT_RUNNING || job->state != JOB_RUNNING ||
        job->goal != GOAL_RUN || core->is_ending || !attempt_has_all(attempt, RANK_READY))
        return;
    if (is_wanted_elsewhere(core, job, attempt)) {
        if (!attempt->n_leases)
            attempt_stop(core, job, attempt, CAUSE_DONE, CORE_GRACE_MS,
                         "its node leaves with its pool");
        return;
    }
    while (attempt->n_leases < most) {
        struct task *task = job_task_next(job, core->wall_ms);

        if (!task)
            break;
        task_change(core, job, task, TASK_EV_LEASE, attempt->number);
        attempt->n_leases++;
        attempt->progress = 0;
        send_task(core, job, attempt, task);
    }
    if (!attempt->n_leases && !job->n_in_state[TASK_READY])
        end_for_lack_of_tasks(core, job, attempt);
}

static bool is_leased_to(const struct task *task, const struct attempt *attempt)
{
    return task->state == TASK_LEASED && task->attempt == attempt->number;
}

void attempt_lease_again(struct core *core, struct job *job, struct attempt *attempt)
{
    for (size_t i = 0; attempt->n_leases && i < job->n_tasks; i++)
        if (is_leased_to(&job->tasks[i], attempt))
            send_task(core, job, attempt, &job->tasks[i]);
}

/* ---- failing ---- */

/* Takes the lease back; the third failure quarantines. */
static void give_back(struct core *core, struct job *job, struct attempt *attempt,
                      struct task *task, const char *reason)
{
    attempt->n_leases--;
    if (reason) {
        task->n_failures++;
        task->not_before_ms = core->wall_ms + core_backoff_ms(core, task->n_failures);
        store_task_reason(core->store, task->id, reason);
    }
    task_change(core, job, task, TASK_EV_RETURN, 0);
    if (task->n_failures >= CORE_FAILURES_MAX)
        task_change(core, job, task, TASK_EV_QUARANTINE, 0);
}

/* The job cannot be done any more when a task it needs is quarantined and nothing else
 * is left to do; training needs every task. */
static void check_quarantine(struct core *core, struct job *job)
{
    bool is_open = job->n_in_state[TASK_READY] || job->n_in_state[TASK_LEASED];
    struct buf text = BUF_INIT;
    struct err err;

    if (!job->n_in_state[TASK_QUARANTINED] || (is_open && !job->plan.is_training) ||
        job->goal == GOAL_FAIL)
        return;
    if (store_quarantine_text(core->store, job->id, &text, &err) < 0)
        store_fail(core->store, &err);
    job_stop(core, job, GOAL_FAIL, CORE_LOST_GRACE_MS, buf_str(&text));
    buf_fini(&text);
}

void task_fail(struct core *core, struct job *job, struct attempt *attempt,
               struct task *task, const char *reason)
{
    core_event(core, job->id, "task", "task %lld failed: %s", (long long)task->id,
               reason);
    give_back(core, job, attempt, task, reason);
    check_quarantine(core, job);
    if (job->plan.is_training)
        attempt_stop(core, job, attempt, CAUSE_LOST, CORE_LOST_GRACE_MS, reason);
}

void attempt_return_leases(struct core *core, struct job *job, struct attempt *attempt,
                           bool is_blamed)
{
    const char *reason = is_blamed && !job->plan.is_training ? attempt->reason : NULL;

    for (size_t i = 0; attempt->n_leases && i < job->n_tasks; i++)
        if (is_leased_to(&job->tasks[i], attempt))
            give_back(core, job, attempt, &job->tasks[i], reason);
    check_quarantine(core, job);
}

/* ---- finishing ---- */

static int finish_plan(struct core *core, struct job *job, const struct json *result,
                       struct err *err)
{
    int64_t n_samples = json_get_int(result, "n_samples", -1);

    if (n_samples < 0)
        return err_set(err, ERR_FORMAT, "the plan's result has no n_samples");
    if (add_ranges(core, job, n_samples, job->plan.shard_size, err) < 0)
        return -1;
    job->n_samples = n_samples;
    store_job_samples(core->store, job->id, n_samples);
    return 0;
}

static int finish_finish(struct core *core, struct job *job, const struct json *result,
                         const char *text, struct err *err)
{
    struct dataset_row row = {.job = job->id,
                              .name = job->name,
                              .path = json_get_string(result, "path"),
                              .n_samples = json_get_int(result, "n_samples", -1),
                              .n_rejects = json_get_int(result, "n_rejects", 0),
                              .fingerprint = json_get_string(result, "fingerprint"),
                              .created_ms = core->wall_ms};

    if (strcmp(job->kind, "prepare") == 0) {
        if (!row.path || row.n_samples < 0 || !row.fingerprint)
            return err_set(err, ERR_FORMAT,
                           "the result has no path, n_samples or fingerprint");
        store_dataset_put(core->store, &row);
        core_event(core, job->id, "dataset", "dataset '%s' of %lld samples", row.path,
                   (long long)row.n_samples);
    }
    store_job_result(core->store, job->id, text);
    return 0;
}

/* A checkpoint inside the range (its rank was asked to end): the rest is a new task. */
static int split_task(struct core *core, struct job *job, int64_t id, int64_t step,
                      struct err *err)
{
    struct task *task = job_task_find(job, id);
    size_t at = (size_t)(task - job->tasks);
    int64_t end = task->first + task->count;

    task->count = step - task->first;
    store_task_count(core->store, id, task->count);
    return add_task(core, job, at + 1, PHASE_WORK, step, end - step, err);
}

/* Steps of a run that this job goes on from: only its checkpoint is new, and only once. */
static int finish_earlier(struct core *core, struct job *job, const struct task *task,
                          const struct json *earlier, struct err *err)
{
    int64_t end = task->first + task->count;
    struct checkpoint_row row = {
        .job = job->id,
        .step = json_get_int(earlier, "step", -1),
        .path = json_get_string(earlier, "path"),
        .consumed_samples = json_get_int(earlier, "consumed_samples", 0),
        .created_ms = core->wall_ms,
    };

    if (!row.path || !row.path[0] || row.step < end)
        return err_set(err, ERR_FORMAT,
                       "checkpoint of step %lld for earlier steps up to %lld",
                       (long long)row.step, (long long)end);
    if (strcmp(job->resume, row.path) == 0)
        return 0;
    if (job->resume[0])
        return err_set(err, ERR_STATE, "the job goes on from '%s' already", job->resume);
    store_checkpoint_insert(core->store, &row, job->plan.n_kept);
    text_set(&job->resume, row.path);
    core_event(core, job->id, "checkpoint", "goes on at step %lld from %s",
               (long long)row.step, row.path);
    return 0;
}

static int finish_steps(struct core *core, struct job *job, const struct task *task,
                        const struct json *result, struct err *err)
{
    const struct json *earlier = json_get(result, "earlier");
    const struct json *checkpoint = json_get(result, "checkpoint");
    const struct json *val_loss = json_get(checkpoint, "val_loss");
    int64_t end = task->first + task->count;
    struct checkpoint_row row = {
        .job = job->id,
        .step = json_get_int(checkpoint, "step", -1),
        .path = json_get_string(checkpoint, "path"),
        .consumed_samples = json_get_int(checkpoint, "consumed_samples", 0),
        .val_loss = json_double(val_loss, 0),
        .has_val_loss =
            json_type(val_loss) == JSON_INT || json_type(val_loss) == JSON_DOUBLE,
        .created_ms = core->wall_ms,
    };

    if (json_type(earlier) != JSON_NULL)
        return finish_earlier(core, job, task, earlier, err);
    if (!row.path || !row.path[0])
        return err_set(err, ERR_FORMAT, "no checkpoint in the result of steps");
    if (row.step <= task->first || row.step > end)
        return err_set(err, ERR_FORMAT, "checkpoint of step %lld for steps %lld..%lld",
                       (long long)row.step, (long long)task->first, (long long)end - 1);
    if (row.step < end && split_task(core, job, task->id, row.step, err) < 0)
        return -1;
    store_checkpoint_insert(core->store, &row, job->plan.n_kept);
    text_set(&job->resume, row.path);
    core_event(core, job->id, "checkpoint", "checkpoint of step %lld: %s",
               (long long)row.step, row.path);
    return 0;
}

static int accept_result(struct core *core, struct job *job, struct task *task,
                         const char *text, struct err *err)
{
    enum task_phase task_phase = task->phase;
    int64_t id = task->id;
    struct json *result;
    int rc = 0;

    if (json_parse(&result, text, strlen(text), err) < 0)
        return err_wrap(err, "result");
    if (job->plan.is_training)
        rc = finish_steps(core, job, task, result, err);
    else if (task->phase == PHASE_PLAN)
        rc = finish_plan(core, job, result, err);
    else if (task->phase == PHASE_FINISH)
        rc = finish_finish(core, job, result, text, err);
    json_free(result);
    if (rc == 0 && task_phase == PHASE_WORK)
        job->n_done += job_task_find(job, id)->count; /* a split has made it shorter */
    return rc;
}

/* What comes when nothing is ready or leased any more. */
static void go_on(struct core *core, struct job *job)
{
    const struct task *last = &job->tasks[job->n_tasks - 1];
    struct err err;

    if (job->n_in_state[TASK_READY] || job->n_in_state[TASK_LEASED] ||
        job->n_in_state[TASK_QUARANTINED]) {
        check_quarantine(core, job);
        return;
    }
    if (job->plan.is_training || last->phase == PHASE_FINISH)
        job_finish(core, job);
    else if (add_task(core, job, job->n_tasks, PHASE_FINISH, 0, job->n_samples, &err) < 0)
        job_stop(core, job, GOAL_FAIL, CORE_LOST_GRACE_MS, err.text);
}

void task_finish(struct core *core, struct job *job, struct attempt *attempt,
                 struct task *task, const char *result)
{
    int64_t id = task->id;
    struct err err;

    if (accept_result(core, job, task, result, &err) < 0) {
        task_fail(core, job, attempt, job_task_find(job, id), err.text);
        return;
    }
    task = job_task_find(job, id); /* tasks may have been added */
    attempt->n_leases--;
    attempt->progress = 0;
    task_change(core, job, task, TASK_EV_FINISH, 0);
    store_task_result(core->store, id, result);
    job->n_bad_inputs = 0;
    if (job->n_fruitless) {
        job->n_fruitless = 0;
        store_job_retry(core->store, job->id, 0, job->not_before_ms);
    }
    job->is_progress_new = true;
    go_on(core, job);
}

void job_sum_progress(struct job *job)
{
    if (job->plan.is_training || job->n_samples < 0)
        return;
    job->done = job->n_done;
    job->total = job->n_samples;
    for (size_t i = 0; i < job->n_attempts; i++)
        if (attempt_is_live(job->attempts[i]))
            job->done += job->attempts[i]->progress;
    if (job->done > job->total)
        job->done = job->total;
}
