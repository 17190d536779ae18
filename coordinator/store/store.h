/* store.h - everything the coordinator must not forget, in one SQLite database
 *
 * Write-ahead log, synchronous=FULL: what store_commit has returned 0 for survives a crash
 * of the machine. The first write after a commit opens a transaction.
 * Errors of writes are kept, and the writes after one do nothing, so that a turn's writes
 * are checked once, by store_commit; it then rolls all of them back.
 * Owns: the lock of PATH.lock beside the database, as long as the process lives, also
 * when it is killed; a second coordinator is refused, a shell that looks is not.
 * Threads: one. Units: ms since 1970 in every column named _ms.
 * Bounds: STORE_EVENTS_MAX, STORE_METRICS_MAX, STORE_STAGES_MAX and STORE_ALLOCATIONS_MAX
 * rows; the oldest go.
 */
#ifndef VNEVA_COORDINATOR_STORE_STORE_H
#define VNEVA_COORDINATOR_STORE_STORE_H

#include "common/base/buf.h"
#include "common/base/err.h"

#include <stdbool.h>
#include <stdint.h>

#define STORE_EVENTS_MAX 1000000
#define STORE_METRICS_MAX 1000000
#define STORE_STAGES_MAX 100000     /* ranks whose last stage is remembered */
#define STORE_ALLOCATIONS_MAX 10000 /* ended ones of pools */

struct store;

/* Opens or makes the database and brings its schema up to date. A database of a newer
 * release is ERR_UNSUPPORTED; one that is in use ERR_EXISTS; a damaged one ERR_FORMAT. */
int store_open(struct store **out, const char *path, struct err *err);
void store_close(struct store *store); /* rolls back what is not committed */

bool store_has_writes(const struct store *store);
/* Makes all writes since the last commit durable, or none of them. */
int store_commit(struct store *store, struct err *err);
/* Makes the next commit fail: for what must not become durable. */
void store_fail(struct store *store, const struct err *why);

/* ---- rows as they are loaded and written ----
 * Texts: borrowed for the call; of loaded rows valid until the callback returns. */

struct job_row {
    int64_t id, attempt, n_fruitless, not_before_ms;
    int64_t n_ranks, group_size, shard_size, max_steps, checkpoint_steps, n_kept;
    int64_t n_samples; /* -1: not known yet */
    int64_t done, total, submitted_ms;
    const char *request_id, *name, *kind, *spec, *state, *goal, *reason;
    const char *folder; /* written only */
    const char *resume; /* loaded only: newest checkpoint, "" for none */
};

struct task_row {
    int64_t id, job, first, count, attempt, n_failures, not_before_ms;
    const char *phase, *state;
};

struct attempt_row {
    int64_t id, job, number, n_ranks, started_ms;
    const char *state, *cause, *reason, *ranks; /* ranks: JSON list */
};

struct job_state_row {
    const char *state, *goal, *reason;
    int64_t started_ms, ended_ms; /* set when first given (> 0) */
    int64_t now_ms;
};

/* What a rank is doing. limit_ms: after which it counts as stuck, 0: never. */
struct stage_row {
    int64_t job, attempt, rank, since_ms, limit_ms, step, memory_bytes, seen_ms;
    const char *stage;
};

struct worker_row {
    const char *agent, *host, *device_kind, *version, *state;
    const char *pool, *allocation; /* "" for none */
    int64_t pid, n_devices, n_busy, memory_bytes, last_seen_ms;
};

struct pool_row {
    int64_t id, min_nodes, max_nodes, idle_ms, gpus_per_node, n_devices;
    int64_t n_failures, retry_ms; /* loaded only */
    int64_t created_ms;
    const char *name, *tag, *manager, *options, *state;
    const char *failure; /* loaded only */
};

struct allocation_row {
    int64_t id, pool;
    bool had_agent;
    int64_t now_ms;        /* written only */
    const char *pool_name; /* written only */
    const char *name, *allocation, *state, *reason;
};

struct checkpoint_row {
    int64_t job, step, consumed_samples, created_ms;
    const char *path;
    double val_loss;
    bool has_val_loss;
};

struct dataset_row {
    int64_t job, n_samples, n_rejects, created_ms;
    const char *name, *path, *fingerprint;
};

/* ---- writes ---- */

void store_job_insert(struct store *store, const struct job_row *row);
void store_job_state(struct store *store, int64_t id, const struct job_state_row *row);
/* pool: whose nodes it waits for, "" for none. */
void store_job_reason(struct store *store, int64_t id, const char *reason,
                      const char *pool);
void store_job_attempt(struct store *store, int64_t id, int64_t attempt);
void store_job_retry(struct store *store, int64_t id, int64_t n_fruitless,
                     int64_t not_before_ms);
void store_job_samples(struct store *store, int64_t id, int64_t n_samples);
void store_job_progress(struct store *store, int64_t id, int64_t done, int64_t total);
void store_job_result(struct store *store, int64_t id, const char *result);

void store_task_insert(struct store *store, const struct task_row *row);
void store_task_state(struct store *store, const struct task_row *row);
void store_task_result(struct store *store, int64_t id, const char *result);
void store_task_reason(struct store *store, int64_t id, const char *reason);
void store_task_count(struct store *store, int64_t id, int64_t count);

void store_attempt_insert(struct store *store, const struct attempt_row *row);
void store_attempt_state(struct store *store, int64_t id, const char *state,
                         const char *cause, const char *reason, int64_t ended_ms);

void store_attempt_ranks(struct store *store, int64_t id, const char *ranks);

void store_worker_put(struct store *store, const struct worker_row *row);
void store_worker_state(struct store *store, const char *agent, const char *state,
                        int64_t n_busy, int64_t last_seen_ms);
void store_workers_lost(struct store *store); /* all of them: after a restart */

void store_pool_insert(struct store *store, const struct pool_row *row);
void store_pool_state(struct store *store, int64_t id, const char *state);
void store_pool_retry(struct store *store, int64_t id, int64_t n_failures,
                      int64_t retry_ms, const char *failure);
void store_pool_devices(struct store *store, int64_t id, int64_t n_devices);
/* What it does and why: submits, keeps, cancels, ends. */
void store_pool_why(struct store *store, int64_t id, const char *const why[4]);
void store_pool_delete(struct store *store, int64_t id);
void store_allocation_insert(struct store *store, const struct allocation_row *row);
void store_allocation_state(struct store *store, const struct allocation_row *row);

/* Also marks which checkpoints of the job are kept (n_kept newest; 0 or less: all). */
void store_checkpoint_insert(struct store *store, const struct checkpoint_row *row,
                             int64_t n_kept);
void store_dataset_put(struct store *store, const struct dataset_row *row);
void store_metric_put(struct store *store, int64_t job, int64_t step, int64_t rank,
                      const char *json, int64_t ms);
void store_stage_put(struct store *store, const struct stage_row *row);
void store_event(struct store *store, int64_t job, int64_t ms, const char *kind,
                 const char *text);

/* ---- reads: 0 or -1 ---- */

struct store_counters {
    int64_t job, task, attempt, pool, allocation; /* highest ids given */
};
int store_load_counters(struct store *store, struct store_counters *out, struct err *err);
/* Jobs that are not ended or have an attempt that is not, in order of id. */
int store_load_jobs(struct store *store, int (*each)(void *, const struct job_row *),
                    void *context, struct err *err);
/* In the order in which they are leased. */
int store_load_tasks(struct store *store, int64_t job,
                     int (*each)(void *, const struct task_row *), void *context,
                     struct err *err);
int store_load_attempts(struct store *store, int64_t job, /* not ended ones */
                        int (*each)(void *, const struct attempt_row *), void *context,
                        struct err *err);

int store_load_pools(struct store *store, int (*each)(void *, const struct pool_row *),
                     void *context, struct err *err);
int store_load_allocations(struct store *store, int64_t pool, /* not ended ones */
                           int (*each)(void *, const struct allocation_row *),
                           void *context, struct err *err);

/* Id of the job with the request id, 0 for none. */
int store_find_request(struct store *store, const char *request_id, int64_t *job,
                       struct err *err);
/* State of a job into state[16] and its newest attempt; ERR_NOT_FOUND. */
int store_find_job(struct store *store, int64_t job, char *state, int64_t *attempt,
                   struct err *err);
int store_find_attempt_state(struct store *store, int64_t job, int64_t attempt,
                             char *state, struct err *err);
/* {"keep": [path, ...], "newest_step": S} of a training job. */
int store_checkpoints_kept(struct store *store, int64_t job, struct buf *json,
                           struct err *err);

/* Why a job with quarantined tasks fails: names the first of them. */
int store_quarantine_text(struct store *store, int64_t job, struct buf *text,
                          struct err *err);

/* Rows of a view as JSON (README.md has the columns). ERR_INVALID: no such view. */
int store_view(struct store *store, struct buf *json, const char *view, int64_t job,
               int64_t since, int64_t limit, struct err *err);
/* Events of a job as lines of text behind event id `since`; *next: the last id given. */
int store_events_text(struct store *store, struct buf *text, int64_t job, int64_t since,
                      int64_t limit, int64_t *next, struct err *err);

#endif
