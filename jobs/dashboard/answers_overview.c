/* The first page: jobs, what they do, how many devices are busy. */
#include "common/base/clock.h"
#include "jobs/dashboard/answers.h"

#define JOB_COLUMNS                                                                      \
    "SELECT id, name, kind, state, state_ms, reason, attempt, n_ranks, done, total,"     \
    " submitted_ms, started_ms, ended_ms FROM jobs "
#define ENDED "('done', 'failed', 'cancelled')"

static int put_jobs(struct answers *answers, struct json *all, struct err *err)
{
    if (answers_put_rows(answers, all, "jobs", err,
                         JOB_COLUMNS "WHERE state NOT IN " ENDED " ORDER BY state IN "
                                     "('placed', 'running', 'stopping') DESC, id LIMIT "
                                     "%d",
                         ANSWERS_JOBS_MAX) < 0)
        return -1;
    if (answers_put_rows(answers, all, "ended", err,
                         JOB_COLUMNS "WHERE state IN " ENDED
                                     " ORDER BY ended_ms DESC, id DESC LIMIT %d",
                         ANSWERS_ENDED_MAX) < 0)
        return -1;
    return answers_put_rows(answers, all, "counts", err,
                            "SELECT state, count(*) AS n FROM jobs GROUP BY state");
}

/* The newest step of every job that runs. */
static int put_steps(struct answers *answers, struct json *all, struct err *err)
{
    return answers_put_rows(
        answers, all, "steps", err,
        "SELECT j.id AS job, m.step, m.loss, m.val_loss, m.step_ms, m.wait_ms, m.comm_ms,"
        " m.samples_per_s, m.time_ms FROM jobs j JOIN metrics m ON m.id ="
        " (SELECT x.id FROM metrics x WHERE x.job = j.id AND x.step_ms IS NOT NULL"
        " ORDER BY x.id DESC LIMIT 1) WHERE j.state = 'running' LIMIT %d",
        ANSWERS_JOBS_MAX);
}

int answers_overview(struct answers *answers, struct ask_text *out, struct err *err)
{
    struct json *all = json_new(JSON_OBJECT);

    if (json_set(all, "now_ms", json_new_int(clock_wall_ms()), err) < 0 ||
        json_set(all, "version", json_new_string(VNEVA_VERSION), err) < 0 ||
        put_jobs(answers, all, err) < 0 || put_steps(answers, all, err) < 0 ||
        answers_put_rows(answers, all, "workers", err,
                         "SELECT count(*) AS n, coalesce(sum(n_devices), 0) AS n_devices,"
                         " coalesce(sum(n_busy), 0) AS n_busy FROM workers"
                         " WHERE state = 'up'") < 0) {
        json_free(all);
        return -1;
    }
    return answers_take_json(out, all, err);
}
