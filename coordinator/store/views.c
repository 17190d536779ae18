/* What is asked of the store from outside: views as JSON, single facts. */
#include "coordinator/store/store_internal.h"

#include <string.h>

#define STATE_TEXT_MAX 16 /* of store_find_job: longer than any state's name */

/* A view: its statement, how many rows when none is named, and at most. */
static const struct view {
    const char *name;
    enum statement statement;
    int64_t limit_default, limit_max;
} views[] = {
    {"jobs", ST_VIEW_JOBS, 100, 1000},
    {"job", ST_VIEW_JOB, 1, 1},
    {"tasks", ST_VIEW_TASKS, 1000, 10000},
    {"attempts", ST_VIEW_ATTEMPTS, 1000, 10000},
    {"workers", ST_VIEW_WORKERS, 1000, 10000},
    {"checkpoints", ST_VIEW_CHECKPOINTS, 1000, 10000},
    {"datasets", ST_VIEW_DATASETS, 1000, 10000},
    {"metrics", ST_VIEW_METRICS, 10000, 50000},
    {"events", ST_VIEW_EVENTS, 1000, 10000},
};

#define N_VIEWS (sizeof(views) / sizeof(views[0]))

static const struct view *find_view(const char *name)
{
    for (size_t i = 0; i < N_VIEWS; i++)
        if (strcmp(views[i].name, name) == 0)
            return &views[i];
    return NULL;
}

int store_view(struct store *store, struct buf *json, const char *view, int64_t job,
               int64_t since, int64_t limit, struct err *err)
{
    const struct view *v = find_view(view);
    sqlite3_stmt *st;

    if (!v)
        return err_set(err, ERR_INVALID,
                       "no view '%s'; there are jobs, job, tasks, attempts, workers, "
                       "checkpoints, datasets, metrics, events",
                       view);
    if (job < 0 || since < 0 || limit < 0)
        return err_set(err, ERR_INVALID, "negative job, since or limit");
    if (limit == 0)
        limit = v->limit_default;
    if (limit > v->limit_max)
        limit = v->limit_max;
    st = store_read(store, v->statement, VALUES(INT(job), INT(since), INT(limit)));
    if (store_next(store, st, err) <= 0)
        return -1;
    buf_add_str(json, (const char *)sqlite3_column_text(st, 0));
    sqlite3_reset(st);
    if (v->statement == ST_VIEW_JOB && strcmp(buf_str(json), "[]") == 0)
        return err_set(err, ERR_NOT_FOUND, "no job %lld", (long long)job);
    return buf_check(json, err);
}

int store_events_text(struct store *store, struct buf *text, int64_t job, int64_t since,
                      int64_t limit, int64_t *next, struct err *err)
{
    sqlite3_stmt *st =
        store_read(store, ST_EVENTS_TEXT, VALUES(INT(job), INT(since), INT(limit)));
    int rc;

    *next = since;
    while ((rc = store_next(store, st, err)) > 0) {
        *next = sqlite3_column_int64(st, 0);
        buf_add_str(text, (const char *)sqlite3_column_text(st, 1));
        buf_add_char(text, '\n');
    }
    return rc < 0 ? -1 : buf_check(text, err);
}

int store_find_request(struct store *store, const char *request_id, int64_t *job,
                       struct err *err)
{
    sqlite3_stmt *st = store_read(store, ST_REQUEST_FIND, VALUES(TEXT(request_id)));
    int rc = store_next(store, st, err);

    *job = rc > 0 ? sqlite3_column_int64(st, 0) : 0;
    sqlite3_reset(st);
    return rc < 0 ? -1 : 0;
}

int store_find_job(struct store *store, int64_t job, char *state, int64_t *attempt,
                   struct err *err)
{
    sqlite3_stmt *st = store_read(store, ST_JOB_FIND, VALUES(INT(job)));
    int rc = store_next(store, st, err);

    if (rc < 0)
        return -1;
    if (rc == 0)
        return err_set(err, ERR_NOT_FOUND, "no job %lld", (long long)job);
    snprintf(state, STATE_TEXT_MAX, "%s", (const char *)sqlite3_column_text(st, 0));
    *attempt = sqlite3_column_int64(st, 1);
    sqlite3_reset(st);
    return 0;
}

int store_find_attempt_state(struct store *store, int64_t job, int64_t attempt,
                             char *state, struct err *err)
{
    sqlite3_stmt *st = store_read(store, ST_ATTEMPT_FIND, VALUES(INT(job), INT(attempt)));
    int rc = store_next(store, st, err);

    if (rc < 0)
        return -1;
    if (rc == 0)
        return err_set(err, ERR_NOT_FOUND, "job %lld has no attempt %lld", (long long)job,
                       (long long)attempt);
    snprintf(state, STATE_TEXT_MAX, "%s", (const char *)sqlite3_column_text(st, 0));
    sqlite3_reset(st);
    return 0;
}

/* The one text of a statement about one job. */
static int read_text(struct store *store, enum statement which, int64_t job,
                     struct buf *text, struct err *err)
{
    sqlite3_stmt *st = store_read(store, which, VALUES(INT(job)));
    int rc = store_next(store, st, err);

    if (rc < 0)
        return -1;
    if (rc > 0)
        buf_add_str(text, (const char *)sqlite3_column_text(st, 0));
    sqlite3_reset(st);
    return buf_check(text, err);
}

int store_checkpoints_kept(struct store *store, int64_t job, struct buf *json,
                           struct err *err)
{
    return read_text(store, ST_CHECKPOINTS_KEPT, job, json, err);
}

int store_quarantine_text(struct store *store, int64_t job, struct buf *text,
                          struct err *err)
{
    return read_text(store, ST_QUARANTINE_FIND, job, text, err);
}
