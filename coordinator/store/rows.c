/* Rows written and loaded; one function a statement. */
#include "coordinator/store/store_internal.h"

#define STORE_WORKERS_MAX 1000 /* rows; lost ones beyond go */

/* ---- writes ---- */

void store_job_insert(struct store *store, const struct job_row *row)
{
    store_write(store, ST_JOB_INSERT,
                VALUES(INT(row->id), TEXT(row->request_id), TEXT(row->name),
                       TEXT(row->kind), TEXT(row->spec), TEXT(row->state),
                       TEXT(row->goal), TEXT(row->reason), INT(row->n_ranks),
                       INT(row->group_size), INT(row->shard_size), INT(row->max_steps),
                       INT(row->checkpoint_steps), INT(row->n_kept), INT(row->n_samples),
                       INT(row->total), INT(row->submitted_ms), TEXT(row->folder)));
}

void store_job_state(struct store *store, int64_t id, const struct job_state_row *row)
{
    store_write(store, ST_JOB_STATE,
                VALUES(INT(id), TEXT(row->state), TEXT(row->goal), TEXT(row->reason),
                       INT(row->started_ms), INT(row->ended_ms), INT(row->now_ms)));
}

void store_job_reason(struct store *store, int64_t id, const char *reason,
                      const char *pool)
{
    store_write(store, ST_JOB_REASON, VALUES(INT(id), TEXT(reason), TEXT(pool)));
}

void store_job_attempt(struct store *store, int64_t id, int64_t attempt)
{
    store_write(store, ST_JOB_ATTEMPT, VALUES(INT(id), INT(attempt)));
}

void store_job_retry(struct store *store, int64_t id, int64_t n_fruitless,
                     int64_t not_before_ms)
{
    store_write(store, ST_JOB_RETRY,
                VALUES(INT(id), INT(n_fruitless), INT(not_before_ms)));
}

void store_job_samples(struct store *store, int64_t id, int64_t n_samples)
{
    store_write(store, ST_JOB_SAMPLES, VALUES(INT(id), INT(n_samples)));
}

void store_job_progress(struct store *store, int64_t id, int64_t done, int64_t total)
{
    store_write(store, ST_JOB_PROGRESS, VALUES(INT(id), INT(done), INT(total)));
}

void store_job_result(struct store *store, int64_t id, const char *result)
{
    store_write(store, ST_JOB_RESULT, VALUES(INT(id), TEXT(result)));
}

void store_task_insert(struct store *store, const struct task_row *row)
{
    store_write(store, ST_TASK_INSERT,
                VALUES(INT(row->id), INT(row->job), TEXT(row->phase), INT(row->first),
                       INT(row->count), TEXT(row->state)));
}

void store_task_state(struct store *store, const struct task_row *row)
{
    store_write(store, ST_TASK_STATE,
                VALUES(INT(row->id), TEXT(row->state), INT(row->attempt),
                       INT(row->n_failures), INT(row->not_before_ms)));
}

void store_task_result(struct store *store, int64_t id, const char *result)
{
    store_write(store, ST_TASK_RESULT, VALUES(INT(id), TEXT(result)));
}

void store_task_reason(struct store *store, int64_t id, const char *reason)
{
    store_write(store, ST_TASK_REASON, VALUES(INT(id), TEXT(reason)));
}

void store_task_count(struct store *store, int64_t id, int64_t count)
{
    store_write(store, ST_TASK_COUNT, VALUES(INT(id), INT(count)));
}

void store_attempt_insert(struct store *store, const struct attempt_row *row)
{
    store_write(store, ST_ATTEMPT_INSERT,
                VALUES(INT(row->id), INT(row->job), INT(row->number), TEXT(row->state),
                       TEXT(row->cause), TEXT(row->reason), INT(row->n_ranks),
                       TEXT(row->ranks), INT(row->started_ms)));
    store_write(store, ST_STAGES_TRIM, VALUES(INT(STORE_STAGES_MAX)));
}

void store_attempt_state(struct store *store, int64_t id, const char *state,
                         const char *cause, const char *reason, int64_t ended_ms)
{
    store_write(store, ST_ATTEMPT_STATE,
                VALUES(INT(id), TEXT(state), TEXT(cause), TEXT(reason), INT(ended_ms)));
}

void store_attempt_ranks(struct store *store, int64_t id, const char *ranks)
{
    store_write(store, ST_ATTEMPT_RANKS, VALUES(INT(id), TEXT(ranks)));
}

void store_worker_put(struct store *store, const struct worker_row *row)
{
    store_write(store, ST_WORKER_PUT,
                VALUES(TEXT(row->agent), TEXT(row->host), INT(row->pid),
                       INT(row->n_devices), INT(row->n_busy), TEXT(row->device_kind),
                       INT(row->memory_bytes), TEXT(row->version), TEXT(row->state),
                       INT(row->last_seen_ms), TEXT(row->pool), TEXT(row->allocation)));
    store_write(store, ST_WORKERS_FORGET, VALUES(INT(STORE_WORKERS_MAX)));
}

void store_worker_state(struct store *store, const char *agent, const char *state,
                        int64_t n_busy, int64_t last_seen_ms)
{
    store_write(store, ST_WORKER_STATE,
                VALUES(TEXT(agent), TEXT(state), INT(n_busy), INT(last_seen_ms)));
}

void store_workers_lost(struct store *store)
{
    store_write(store, ST_WORKERS_LOST, NULL, 0);
}

void store_checkpoint_insert(struct store *store, const struct checkpoint_row *row,
                             int64_t n_kept)
{
    struct value val_loss = DOUBLE(row->val_loss);

    if (!row->has_val_loss)
        val_loss = (struct value)NONE;
    store_write(store, ST_CHECKPOINT_INSERT,
                VALUES(INT(row->job), INT(row->step), TEXT(row->path),
                       INT(row->consumed_samples), val_loss, INT(row->created_ms)));
    if (n_kept > 0)
        store_write(store, ST_CHECKPOINTS_KEEP, VALUES(INT(row->job), INT(n_kept)));
}

void store_dataset_put(struct store *store, const struct dataset_row *row)
{
    store_write(store, ST_DATASET_PUT,
                VALUES(INT(row->job), TEXT(row->name), TEXT(row->path),
                       INT(row->n_samples), INT(row->n_rejects), TEXT(row->fingerprint),
                       INT(row->created_ms)));
}

void store_metric_put(struct store *store, int64_t job, int64_t step, int64_t rank,
                      const char *json, int64_t ms)
{
    store_write(store, ST_METRIC_PUT,
                VALUES(INT(job), INT(step), INT(rank), TEXT(json), INT(ms)));
    store->n_metrics++;
}

void store_stage_put(struct store *store, const struct stage_row *row)
{
    store_write(store, ST_STAGE_PUT,
                VALUES(INT(row->job), INT(row->attempt), INT(row->rank), TEXT(row->stage),
                       INT(row->since_ms), INT(row->limit_ms), INT(row->step),
                       INT(row->memory_bytes), INT(row->seen_ms)));
}

void store_event(struct store *store, int64_t job, int64_t ms, const char *kind,
                 const char *text)
{
    store_write(store, ST_EVENT_INSERT,
                VALUES(INT(job), INT(ms), TEXT(kind), TEXT(text)));
    store->n_events++;
}

/* ---- loading ---- */

int store_load_counters(struct store *store, struct store_counters *out, struct err *err)
{
    sqlite3_stmt *st = store_read(store, ST_COUNTERS, NULL, 0);
    int rc = store_next(store, st, err);

    if (rc <= 0)
        return -1;
    READ_INTS(st, &out->job, &out->task, &out->attempt, &out->pool, &out->allocation);
    sqlite3_reset(st);
    return 0;
}

int store_load_jobs(struct store *store, int (*each)(void *, const struct job_row *),
                    void *context, struct err *err)
{
    sqlite3_stmt *st = store_read(store, ST_JOBS_LOAD, NULL, 0);
    struct job_row r;
    int rc;

    while ((rc = store_next(store, st, err)) > 0) {
        READ_INTS(st, &r.id, &r.attempt, &r.n_fruitless, &r.not_before_ms, &r.n_ranks,
                  &r.group_size, &r.shard_size, &r.max_steps, &r.checkpoint_steps,
                  &r.n_kept, &r.n_samples, &r.done, &r.total, &r.submitted_ms);
        READ_TEXTS(st, 14, &r.request_id, &r.name, &r.kind, &r.spec, &r.state, &r.goal,
                   &r.reason, &r.resume);
        if (each(context, &r) < 0) {
            sqlite3_reset(st);
            return err_set(err, ERR_FORMAT, "job %lld cannot be loaded", (long long)r.id);
        }
    }
    return rc;
}

int store_load_tasks(struct store *store, int64_t job,
                     int (*each)(void *, const struct task_row *), void *context,
                     struct err *err)
{
    sqlite3_stmt *st = store_read(store, ST_TASKS_LOAD, VALUES(INT(job)));
    struct task_row r;
    int rc;

    while ((rc = store_next(store, st, err)) > 0) {
        READ_INTS(st, &r.id, &r.job, &r.first, &r.count, &r.attempt, &r.n_failures,
                  &r.not_before_ms);
        READ_TEXTS(st, 7, &r.phase, &r.state);
        if (each(context, &r) < 0) {
            sqlite3_reset(st);
            return err_set(err, ERR_FORMAT, "task %lld cannot be loaded",
                           (long long)r.id);
        }
    }
    return rc;
}

int store_load_attempts(struct store *store, int64_t job,
                        int (*each)(void *, const struct attempt_row *), void *context,
                        struct err *err)
{
    sqlite3_stmt *st = store_read(store, ST_ATTEMPTS_LOAD, VALUES(INT(job)));
    struct attempt_row r;
    int rc;

    while ((rc = store_next(store, st, err)) > 0) {
        READ_INTS(st, &r.id, &r.job, &r.number, &r.n_ranks, &r.started_ms);
        READ_TEXTS(st, 5, &r.state, &r.cause, &r.reason, &r.ranks);
        if (each(context, &r) < 0) {
            sqlite3_reset(st);
            return err_set(err, ERR_FORMAT, "attempt %lld of job %lld cannot be loaded",
                           (long long)r.number, (long long)job);
        }
    }
    return rc;
}
