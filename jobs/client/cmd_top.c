/* vneva top: asks once a second, draws, and does what keys say. */
#include "common/base/clock.h"
#include "common/base/utf8.h"
#include "jobs/client/client.h"
#include "jobs/client/top.h"

#include <inttypes.h>
#include <langinfo.h>
#include <locale.h>
#include <stdio.h>
#include <string.h>

#define ASK_MS 1000
#define LOG_CHUNK_BYTES (64 << 10)
#define SQL_MAX 1024

struct session {
    struct client *client;
    struct top top;
    struct top_data data;
    struct top_screen screen;
    int64_t asked_mono_ms, asked_job;
    struct msg_logs log_at;
};

/* ---- asking ---- */

/* A new answer takes the place of the old one; when there is none the old one stays. */
static int renew(struct json **place, struct client *client, const char *sql,
                 struct err *err)
{
    struct json *rows;

    if (client_select_sql(client, &rows, sql, err) < 0)
        return -1;
    json_free(*place);
    *place = rows;
    return 0;
}

static int ask_lists(struct session *s, struct err *err)
{
    if (renew(&s->data.jobs, s->client,
              "SELECT id, name, kind, state, reason, done, total, started_ms FROM jobs"
              " ORDER BY CASE WHEN state IN ('running', 'stopping', 'placed') THEN 0"
              " WHEN state IN ('queued', 'submitted', 'held') THEN 1 ELSE 2 END, id DESC"
              " LIMIT 1000",
              err) < 0 ||
        renew(&s->data.states, s->client,
              "SELECT state, count(*) AS n FROM jobs GROUP BY state", err) < 0)
        return -1;
    return renew(&s->data.workers, s->client,
                 "SELECT n_devices, n_busy FROM workers WHERE state = 'up'", err);
}

static int ask_chosen(struct session *s, struct err *err)
{
    int64_t job = s->top.job;
    char sql[SQL_MAX];

    snprintf(sql, sizeof(sql),
             "SELECT * FROM ranks WHERE job = %" PRId64 " AND state <> 'ended'"
             " ORDER BY attempt, rank LIMIT 1000",
             job);
    if (renew(&s->data.ranks, s->client, sql, err) < 0)
        return -1;
    snprintf(
        sql, sizeof(sql),
        "SELECT loss, val_loss, step_ms, wait_ms, comm_ms, samples_per_s FROM metrics"
        " WHERE job = %" PRId64 " AND step_ms IS NOT NULL ORDER BY id DESC LIMIT 1",
        job);
    if (renew(&s->data.step, s->client, sql, err) < 0)
        return -1;
    /* So many looks at an index, however many rows there are. */
    snprintf(
        sql, sizeof(sql),
        "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < %d),"
        " m(last) AS (SELECT max(step) FROM metrics WHERE job = %" PRId64 ")"
        " SELECT DISTINCT step, loss FROM (SELECT (SELECT id FROM metrics WHERE job ="
        " %" PRId64 " AND step >= i * last / %d AND loss IS NOT NULL ORDER BY step"
        " LIMIT 1) AS at FROM n, m) JOIN metrics ON id = at ORDER BY step",
        TOP_CURVE_POINTS - 1, job, job, TOP_CURVE_POINTS - 1);
    return renew(&s->data.curve, s->client, sql, err);
}

/* The log goes on where it ended; only its last part is kept. */
static int ask_log(struct session *s, struct err *err)
{
    struct wire request = {.type = MSG_LOGS}, reply = {.type = MSG_NONE};
    struct buf *log = &s->data.log;

    if (s->log_at.job != s->top.job) {
        s->log_at = (struct msg_logs){.job = s->top.job, .max_bytes = LOG_CHUNK_BYTES};
        buf_reset(log);
    }
    request.logs = s->log_at;
    if (client_call(s->client, &request, &reply, err) < 0)
        return err->code == ERR_NOT_FOUND ? 0 : -1; /* no attempt has begun yet */
    if (reply.type == MSG_LOG_CHUNK) {
        buf_add(log, reply.log_chunk.data.data, reply.log_chunk.data.n_bytes);
        s->log_at.attempt = reply.log_chunk.attempt;
        s->log_at.offset = reply.log_chunk.next;
    }
    wire_fini(&reply);
    if (log->n_bytes > TOP_LOG_BYTES) {
        size_t n_cut = log->n_bytes - TOP_LOG_BYTES;

        memmove(log->data, log->data + n_cut, TOP_LOG_BYTES + 1);
        log->n_bytes = TOP_LOG_BYTES;
    }
    if (log->n_bytes)
        utf8_mend(log->data);
    return 0;
}

static void ask(struct session *s)
{
    struct err err;
    int rc = ask_lists(s, &err);

    top_key(&s->top, &s->data, 0); /* chooses one, the first time */
    if (rc == 0 && s->top.job)
        rc = ask_chosen(s, &err);
    if (rc == 0 && s->top.job && s->top.page == TOP_LOG)
        rc = ask_log(s, &err);
    snprintf(s->data.error, sizeof(s->data.error), "%s", rc < 0 ? err.text : "");
    utf8_mend(s->data.error);
    s->asked_mono_ms = clock_mono_ms();
    s->asked_job = s->top.job;
}

/* ---- the loop ---- */

static void draw(struct session *s)
{
    s->data.now_ms = clock_wall_ms();
    top_terminal_size(&s->screen.width, &s->screen.height);
    top_draw(&s->screen, &s->top, &s->data);
    top_terminal_show(&s->screen);
}

static void loop(struct session *s)
{
    while (!s->top.is_over) {
        int64_t left_ms = s->asked_mono_ms + ASK_MS - clock_mono_ms();
        enum top_page page = s->top.page;

        top_key(&s->top, &s->data, top_terminal_key(left_ms > 0 ? left_ms : 0));
        if (clock_mono_ms() >= s->asked_mono_ms + ASK_MS || s->top.job != s->asked_job ||
            s->top.page != page)
            ask(s);
        draw(s);
    }
}

int cmd_top(struct client *client, const struct args *args)
{
    struct session s = {.client = client, .top = {.sort = TOP_BY_STATE}};
    struct err err;

    (void)args;
    setlocale(LC_ALL, "");
    s.top.is_utf8 = strcmp(nl_langinfo(CODESET), "UTF-8") == 0;
    if (ask_lists(&s, &err) < 0 || top_terminal_open(&err) < 0) {
        top_data_fini(&s.data);
        return client_fail(client, &err);
    }
    ask(&s);
    draw(&s);
    loop(&s);
    top_terminal_close();
    top_screen_fini(&s.screen);
    top_data_fini(&s.data);
    return EXIT_DONE;
}
