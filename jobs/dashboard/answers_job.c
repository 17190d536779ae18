/* One job: its row, why it waits, attempts, ranks, tasks, checkpoints; curve and log. */
#include "common/base/clock.h"
#include "common/base/utf8.h"
#include "jobs/client/why.h"
#include "jobs/dashboard/answers.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define CHECKPOINTS_MAX 50
#define ATTEMPTS_MAX 100
#define TROUBLES_MAX 20 /* tasks that failed, named */

static int put_row(struct answers *answers, struct json *all, int64_t job,
                   struct err *err)
{
    struct json *rows = json_new(JSON_OBJECT), *row;
    int rc = answers_put_rows(answers, rows, "rows", err,
                              "SELECT * FROM jobs WHERE id = %" PRId64, job);

    if (rc == 0) {
        row = json_at(json_get(rows, "rows"), 0);
        rc = row ? json_set(all, "job", json_clone(row), err)
                 : err_set(err, ERR_NOT_FOUND, "no job %" PRId64, job);
    }
    json_free(rows);
    return rc;
}

static int put_why(struct answers *answers, struct json *all, int64_t job,
                   struct err *err)
{
    struct buf text = BUF_INIT;
    int rc = why_ask(&text, answers->client, job, err);

    if (rc == 0)
        rc = json_set(all, "why", json_new_string(buf_str(&text)), err);
    buf_fini(&text);
    return rc;
}

static int put_tasks(struct answers *answers, struct json *all, int64_t job,
                     struct err *err)
{
    if (answers_put_rows(answers, all, "tasks", err,
                         "SELECT phase, state, count(*) AS n, sum(n_failures) AS"
                         " n_failures FROM tasks WHERE job = %" PRId64
                         " GROUP BY phase, state ORDER BY min(id)",
                         job) < 0)
        return -1;
    return answers_put_rows(answers, all, "troubles", err,
                            "SELECT id, phase, first, count, state, n_failures, reason"
                            " FROM tasks WHERE job = %" PRId64
                            " AND n_failures > 0 ORDER BY id DESC LIMIT %d",
                            job, TROUBLES_MAX);
}

static int put_attempts(struct answers *answers, struct json *all, int64_t job,
                        struct err *err)
{
    if (answers_put_rows(answers, all, "attempts", err,
                         "SELECT * FROM attempts WHERE job = %" PRId64
                         " ORDER BY attempt DESC LIMIT %d",
                         job, ATTEMPTS_MAX) < 0)
        return -1;
    return answers_put_rows(
        answers, all, "ranks", err,
        "SELECT * FROM ranks WHERE job = %" PRId64 " AND (state <> 'ended' OR attempt ="
        " (SELECT max(attempt) FROM attempts WHERE job = %" PRId64 "))"
        " ORDER BY attempt DESC, rank LIMIT %d",
        job, job, ANSWERS_ROWS_MAX);
}

/* What came of it: checkpoints, datasets, and evaluations of its weights. */
static int put_results(struct answers *answers, struct json *all, int64_t job,
                       struct err *err)
{
    if (answers_put_rows(answers, all, "checkpoints", err,
                         "SELECT * FROM checkpoints WHERE job = %" PRId64
                         " ORDER BY id DESC LIMIT %d",
                         job, CHECKPOINTS_MAX) < 0 ||
        answers_put_rows(answers, all, "datasets", err,
                         "SELECT * FROM datasets WHERE job = %" PRId64, job) < 0)
        return -1;
    return answers_put_rows(
        answers, all, "evaluations", err,
        "SELECT e.id, e.name, e.state FROM jobs e, jobs t WHERE t.id = %" PRId64
        " AND t.kind IN ('pretrain', 'finetune') AND e.kind = 'evaluate' AND"
        " instr(json_extract(e.spec, '$.neva_model_file') || '/', t.folder || '/') = 1"
        " ORDER BY e.id DESC LIMIT 10",
        job);
}

static int answer_job(struct answers *answers, int64_t job, struct ask_text *out,
                      struct err *err)
{
    struct json *all = json_new(JSON_OBJECT);

    if (json_set(all, "now_ms", json_new_int(clock_wall_ms()), err) < 0 ||
        put_row(answers, all, job, err) < 0 || put_why(answers, all, job, err) < 0 ||
        put_attempts(answers, all, job, err) < 0 ||
        put_tasks(answers, all, job, err) < 0 ||
        put_results(answers, all, job, err) < 0) {
        json_free(all);
        return -1;
    }
    return answers_take_json(out, all, err);
}

/* ---- curve ---- */

/* So many looks at an index, however many steps there were; the last one besides. */
static int put_points(struct answers *answers, struct json *all, int64_t job,
                      struct err *err)
{
    return answers_put_rows(
        answers, all, "points", err,
        "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < %d),"
        " m(last) AS (SELECT max(step) FROM metrics WHERE job = %" PRId64 ")"
        " SELECT DISTINCT step, loss, val_loss, lr, grad_norm, step_ms, wait_ms, comm_ms,"
        " samples_per_s FROM (SELECT (SELECT id FROM metrics WHERE job = %" PRId64
        " AND step >= i * last / %d AND loss IS NOT NULL ORDER BY step LIMIT 1) AS at"
        " FROM n, m) JOIN metrics ON id = at ORDER BY step",
        ANSWERS_CURVE_POINTS - 1, job, job, ANSWERS_CURVE_POINTS - 1);
}

/* Every n-th of them, counted back from the newest, so that there are not too many. */
#define VALIDATIONS                                                                      \
    "SELECT step, val_loss FROM (SELECT step, val_loss, row_number() OVER (ORDER BY"     \
    " step DESC) - 1 AS back, count(*) OVER () AS n FROM checkpoints WHERE job = "       \
    "%" PRId64 " AND val_loss IS NOT NULL) WHERE back %% (1 + (n - 1) / %d) = 0"         \
    " ORDER BY step"

static int answer_curve(struct answers *answers, int64_t job, struct ask_text *out,
                        struct err *err)
{
    struct json *all = json_new(JSON_OBJECT);

    if (put_points(answers, all, job, err) < 0 ||
        answers_put_rows(answers, all, "validation", err, VALIDATIONS, job,
                         ANSWERS_CURVE_POINTS) < 0 ||
        answers_put_rows(answers, all, "restarts", err,
                         "SELECT a.attempt, coalesce((SELECT max(c.step) FROM checkpoints"
                         " c WHERE c.job = a.job AND c.created_ms < a.started_ms), 0) AS"
                         " step FROM attempts a WHERE a.job = %" PRId64
                         " AND a.attempt > 1 ORDER BY a.attempt DESC LIMIT %d",
                         job, ATTEMPTS_MAX) < 0) {
        json_free(all);
        return -1;
    }
    return answers_take_json(out, all, err);
}

/* ---- log ---- */

/* The bytes as a text that begins with a whole line. */
static struct json *text_of(const struct msg_log_chunk *chunk)
{
    const char *bytes = chunk->data.data;
    size_t n = chunk->data.n_bytes, from = 0;
    char *text = malloc(n + 1);
    struct json *json;

    if (!text)
        return NULL;
    if (n == ANSWERS_LOG_BYTES)
        while (from < n && bytes[from++] != '\n')
            ;
    for (size_t i = from; i < n; i++)
        text[i - from] = bytes[i] ? bytes[i] : '?';
    text[n - from] = '\0';
    utf8_mend(text);
    json = json_new_string(text);
    free(text);
    return json;
}

static int answer_log(struct answers *answers, int64_t job, const struct url *url,
                      struct ask_text *out, struct err *err)
{
    static const char *const known[] = {"rank", NULL};
    struct wire request = {.type = MSG_LOGS}, reply = {.type = MSG_NONE};
    struct json *all;
    int64_t rank;
    int rc;

    if (url_check_params(url, known, err) < 0 ||
        url_param_int(url, "rank", 0, 65535, 0, &rank, err) < 0)
        return -1;
    request.logs = (struct msg_logs){.job = job,
                                     .rank = rank,
                                     .offset = -ANSWERS_LOG_BYTES,
                                     .max_bytes = ANSWERS_LOG_BYTES};
    if (client_call(answers->client, &request, &reply, err) < 0)
        return -1;
    all = json_new(JSON_OBJECT);
    rc = reply.type == MSG_LOG_CHUNK
             ? json_set(all, "attempt", json_new_int(reply.log_chunk.attempt), err)
             : err_set(err, ERR_PEER, "the coordinator answers %s to a question for logs",
                       msg_type_name(reply.type));
    if (rc == 0)
        rc = json_set(all, "text", text_of(&reply.log_chunk), err);
    wire_fini(&reply);
    if (rc == 0)
        return answers_take_json(out, all, err);
    json_free(all);
    return -1;
}

int answers_job(struct answers *answers, int64_t job, const char *rest,
                const struct url *url, struct ask_text *out, struct err *err)
{
    static const char *const none[] = {NULL};

    if (strcmp(rest, "log") == 0)
        return answer_log(answers, job, url, out, err);
    if (url_check_params(url, none, err) < 0)
        return -1;
    if (!*rest)
        return answer_job(answers, job, out, err);
    if (strcmp(rest, "curve") == 0)
        return answer_curve(answers, job, out, err);
    return answers_files(answers, job, rest, out, err);
}
