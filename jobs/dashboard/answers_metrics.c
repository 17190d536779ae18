/* Asks for what metrics.c writes. */
#include "common/base/clock.h"
#include "jobs/dashboard/answers.h"
#include "jobs/dashboard/metrics.h"

#include <string.h>

#define RUNNING " WHERE state IN ('placed', 'running', 'stopping') "

static int put_counts(struct answers *answers, struct json *facts, struct err *err)
{
    if (answers_put_rows(answers, facts, "states", err,
                         "SELECT state, count(*) AS n FROM jobs GROUP BY state") < 0 ||
        answers_put_rows(answers, facts, "tasks", err,
                         "SELECT state, count(*) AS n, sum(n_failures) AS n_failures"
                         " FROM tasks GROUP BY state") < 0 ||
        answers_put_rows(answers, facts, "attempts", err,
                         "SELECT cause, count(*) AS n FROM attempts"
                         " WHERE state = 'ended' GROUP BY cause") < 0)
        return -1;
    return answers_put_rows(answers, facts, "workers", err,
                            "SELECT agent, host, state, n_devices, n_busy, last_seen_ms"
                            " FROM workers ORDER BY id DESC LIMIT %d",
                            ANSWERS_ROWS_MAX);
}

static int put_jobs(struct answers *answers, struct json *facts, struct err *err)
{
    if (answers_put_rows(answers, facts, "jobs", err,
                         "SELECT id AS job, name, kind, done, total FROM jobs" RUNNING
                         "ORDER BY id LIMIT %d",
                         ANSWERS_JOBS_MAX) < 0 ||
        answers_put_rows(
            answers, facts, "steps", err,
            "SELECT m.* FROM jobs j JOIN metrics m ON m.id = (SELECT x.id FROM metrics x"
            " WHERE x.job = j.id AND x.step_ms IS NOT NULL ORDER BY x.id DESC LIMIT 1)"
            " WHERE j.state IN ('placed', 'running', 'stopping') LIMIT %d",
            ANSWERS_JOBS_MAX) < 0 ||
        answers_put_rows(answers, facts, "ranks", err,
                         "SELECT job, count(*) AS n, sum(memory_bytes) AS memory_bytes,"
                         " min(since_ms) AS since_ms FROM ranks WHERE state <> 'ended'"
                         " GROUP BY job LIMIT %d",
                         ANSWERS_JOBS_MAX) < 0)
        return -1;
    return answers_put_rows(
        answers, facts, "checkpoints", err,
        "SELECT job, max(created_ms) AS created_ms FROM checkpoints WHERE job IN"
        " (SELECT id FROM jobs" RUNNING ") GROUP BY job LIMIT %d",
        ANSWERS_JOBS_MAX);
}

/* A coordinator that is down is a number as well: who watches is to see it. */
int answers_metrics(struct answers *answers, struct ask_text *out, struct err *err)
{
    struct json *facts = NULL;
    struct buf text = BUF_INIT;
    struct err why;
    int rc = answers_check(answers, &why);

    if (rc == 0) {
        facts = json_new(JSON_OBJECT);
        rc = put_counts(answers, facts, &why);
        if (rc == 0)
            rc = put_jobs(answers, facts, &why);
    }
    if (rc < 0 && why.code != ERR_TIMEOUT) {
        json_free(facts);
        return err_set(err, why.code, "%s", why.text);
    }
    metrics_write(&text, rc < 0 ? NULL : facts, clock_wall_ms());
    json_free(facts);
    out->type = METRICS_TYPE;
    return answers_take_buf(out, &text, err);
}
