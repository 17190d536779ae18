/* vneva wait: a job's progress till its end. */
#include "common/base/clock.h"
#include "jobs/client/client.h"
#include "jobs/client/format.h"

#include <inttypes.h>
#include <string.h>

#define BAR_WIDTH 24
#define LINE_MAX_BYTES 256
#define RETRY_MS 30000 /* a coordinator that starts again is waited for so long */

struct watch {
    struct client *client;
    int64_t job;
    int64_t until;                /* leave when so much is done; -1: at the end */
    int64_t first_done, first_ms; /* where the rate is measured from */
    int64_t attempt;
    int64_t last_print_ms;
    char last_state[32];
    bool has_bar; /* a line without its end is on the terminal */
};

/* Steps or samples a second since the first look at this attempt; 0: not known. */
static double measure_rate(struct watch *w, const struct json *row)
{
    int64_t now_ms = clock_mono_ms(), done = json_get_int(row, "done", 0);
    int64_t attempt = json_get_int(row, "attempt", 0);

    if (w->first_ms == 0 || attempt != w->attempt || done < w->first_done) {
        w->attempt = attempt;
        w->first_done = done;
        w->first_ms = now_ms;
    }
    if (done == w->first_done || now_ms - w->first_ms < 500)
        return 0;
    return (double)(done - w->first_done) * 1000 / (double)(now_ms - w->first_ms);
}

static void add_bar(struct buf *out, int64_t done, int64_t total)
{
    int filled = total > 0 ? (int)(done * BAR_WIDTH / total) : 0;

    buf_add_char(out, '[');
    for (int i = 0; i < BAR_WIDTH; i++)
        buf_add_char(out, i < filled ? '=' : i == filled ? '>' : ' ');
    buf_add_str(out, "] ");
}

/* "job 3 running  42%  420/1000  loss 2.31  12.1/s  ETA 48 s" */
static void describe(struct watch *w, struct buf *out, const struct json *row,
                     bool with_bar)
{
    int64_t done = json_get_int(row, "done", 0), total = json_get_int(row, "total", 0);
    const char *state = json_get_string(row, "state");
    const char *reason = json_get_string(row, "reason");
    const struct json *loss = json_get(json_get(row, "metrics"), "loss");
    double rate = measure_rate(w, row);

    buf_printf(out, "job %" PRId64 " %s ", w->job, state ? state : "?");
    if (with_bar && total > 0)
        add_bar(out, done, total);
    if (total > 0)
        buf_printf(out, "%3" PRId64 "%% %" PRId64 "/%" PRId64, 100 * done / total, done,
                   total);
    if (json_type(loss) != JSON_NULL)
        buf_printf(out, "  loss %.4f", json_double(loss, 0));
    if (rate > 0 && done < total) {
        buf_printf(out, "  %.3g/s  ETA ", rate);
        format_duration(out, (int64_t)((double)(total - done) / rate * 1000));
    }
    if (reason && *reason && !(state && strcmp(state, "running") == 0))
        buf_printf(out, "  (%s)", reason);
    format_clean(out, 0);
}

static void end_bar(struct watch *w)
{
    if (w->has_bar)
        fputc('\n', w->client->err);
    w->has_bar = false;
}

/* On a terminal one line that is written again; else a line now and then, and one
 * whenever the state changes. */
static void show(struct watch *w, const struct json *row)
{
    const char *state = json_get_string(row, "state");
    bool is_new = !state || strcmp(state, w->last_state) != 0;
    int64_t now_ms = clock_mono_ms();
    struct buf line = BUF_INIT;

    describe(w, &line, row, w->client->is_terminal);
    if (w->client->is_terminal) {
        fprintf(w->client->err, "\r\033[K%.*s", LINE_MAX_BYTES, buf_str(&line));
        w->has_bar = true;
    } else if (is_new || now_ms - w->last_print_ms >= w->client->plain_ms) {
        fprintf(w->client->err, "%.*s\n", LINE_MAX_BYTES, buf_str(&line));
        w->last_print_ms = now_ms;
    }
    fflush(w->client->err);
    snprintf(w->last_state, sizeof(w->last_state), "%s", state ? state : "");
    buf_fini(&line);
}

static int finish(struct watch *w, const struct json *row)
{
    const char *state = json_get_string(row, "state");
    const char *reason = json_get_string(row, "reason");

    struct buf line = BUF_INIT;

    end_bar(w);
    buf_printf(&line, "job %" PRId64 " %s%s%s", w->job, state,
               reason && *reason ? ": " : "", reason ? reason : "");
    format_clean(&line, 0);
    fprintf(w->client->out, "%s\n", buf_str(&line));
    buf_fini(&line);
    return strcmp(state, "done") == 0 ? EXIT_DONE : EXIT_JOB_FAILED;
}

/* The job's row; a coordinator that is gone for a while is asked again. */
static int look(struct watch *w, struct json **row, int64_t *lost_ms, struct err *err)
{
    if (client_get_job(w->client, row, w->job, err) == 0) {
        *lost_ms = 0;
        return 1;
    }
    if (err->code != ERR_TIMEOUT || w->last_state[0] == '\0')
        return -1;
    if (*lost_ms == 0) {
        end_bar(w);
        fprintf(w->client->err, "vneva: %s; asking again\n", err->text);
        *lost_ms = clock_mono_ms();
    }
    return clock_mono_ms() - *lost_ms > RETRY_MS ? -1 : 0;
}

static bool has_reached(const struct watch *w, const struct json *row)
{
    return w->until >= 0 && json_get_int(row, "done", 0) >= w->until;
}

int wait_for_job(struct client *client, int64_t job, int64_t timeout_ms, int64_t until)
{
    struct watch w = {.client = client, .job = job, .until = until};
    int64_t deadline_ms = clock_mono_ms() + timeout_ms, lost_ms = 0;
    struct json *row = NULL;
    struct err err;

    client_catch_interrupt();
    for (;;) {
        int rc = look(&w, &row, &lost_ms, &err);

        if (rc < 0) {
            end_bar(&w);
            return client_fail(client, &err);
        }
        if (rc > 0) {
            bool is_ended = is_job_ended(json_get_string(row, "state"));
            bool is_there = !is_ended && has_reached(&w, row);

            show(&w, row);
            rc = is_ended ? finish(&w, row) : EXIT_DONE;
            json_free(row);
            if (is_there)
                end_bar(&w);
            if (is_ended || is_there)
                return rc;
        }
        if (timeout_ms >= 0 && clock_mono_ms() >= deadline_ms) {
            end_bar(&w);
            fprintf(client->err, "vneva: job %" PRId64 " has not ended; it goes on\n",
                    job);
            return EXIT_JOB_FAILED;
        }
        if (client_pause(client->poll_ms)) {
            end_bar(&w);
            fprintf(client->err,
                    "vneva: interrupted; job %" PRId64 " goes on (`vneva wait %" PRId64
                    "`, `vneva cancel %" PRId64 "`)\n",
                    job, job, job);
            return EXIT_INTERRUPTED;
        }
    }
}

int cmd_wait(struct client *client, const struct args *args)
{
    int64_t job, timeout_s, until;
    struct err err;

    if (client_read_job(args->words[0], &job, &err) < 0 ||
        args_int(args, "timeout", 0, 1 << 30, -1, &timeout_s, &err) < 0 ||
        args_int(args, "until", 0, INT64_MAX, -1, &until, &err) < 0)
        return client_fail(client, &err);
    return wait_for_job(client, job, timeout_s < 0 ? -1 : timeout_s * 1000, until);
}
