/* vneva show: all about one job. */
#include "common/base/clock.h"
#include "jobs/client/client.h"
#include "jobs/client/format.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static void print_time(struct client *client, const struct json *row, const char *title,
                       const char *key)
{
    struct buf text = BUF_INIT;

    if (json_get_int(row, key, 0) > 0) {
        format_time(&text, json_get_int(row, key, 0));
        fprintf(client->out, "%-12s %s\n", title, buf_str(&text));
    }
    buf_fini(&text);
}

static void print_progress(struct client *client, const struct json *row)
{
    int64_t done = json_get_int(row, "done", 0), total = json_get_int(row, "total", 0);
    const struct json *tasks = json_get(row, "tasks");

    if (total > 0)
        fprintf(client->out, "%-12s %" PRId64 " of %" PRId64 " (%" PRId64 "%%)\n",
                "progress", done, total, 100 * done / total);
    if (json_count(tasks)) {
        fprintf(client->out, "%-12s", "tasks");
        for (size_t i = 0; i < json_count(tasks); i++)
            fprintf(client->out, " %" PRId64 " %s%s", json_int(json_at(tasks, i), 0),
                    json_key_at(tasks, i), i + 1 < json_count(tasks) ? "," : "\n");
    }
}

/* "loss 2.31, lr 0.001": numbers of the last step. */
static void print_metrics(struct client *client, const struct json *metrics)
{
    if (!json_count(metrics))
        return;
    fprintf(client->out, "%-12s", "last step");
    for (size_t i = 0; i < json_count(metrics); i++)
        if (json_type(json_at(metrics, i)) == JSON_INT ||
            json_type(json_at(metrics, i)) == JSON_DOUBLE)
            fprintf(client->out, " %s=%.6g", json_key_at(metrics, i),
                    json_double(json_at(metrics, i), 0));
    fputc('\n', client->out);
}

static void cell_started(struct buf *out, const struct json *row)
{
    if (json_get_int(row, "started_ms", 0) > 0)
        format_time(out, json_get_int(row, "started_ms", 0));
}

static void cell_lasted(struct buf *out, const struct json *row)
{
    int64_t start = json_get_int(row, "started_ms", 0);
    int64_t end = json_get_int(row, "ended_ms", 0);

    if (start > 0)
        format_duration(out, (end > 0 ? end : clock_wall_ms()) - start);
}

static void print_attempts(struct client *client, const struct json *attempts)
{
    static const struct table_column columns[] = {
        {"ATTEMPT", "attempt", NULL, true},     {"STATE", "state", NULL, false},
        {"CAUSE", "cause", NULL, false},        {"RANKS", "n_ranks", NULL, true},
        {"STARTED", NULL, cell_started, false}, {"TIME", NULL, cell_lasted, true},
        {"REASON", "reason", NULL, false},
    };

    if (!json_count(attempts))
        return;
    fputc('\n', client->out);
    table_print(client->out, attempts, columns, 7);
}

static void print_checkpoints(struct client *client, const struct json *checkpoints)
{
    size_t n = json_count(checkpoints);
    const struct json *last = n ? json_at(checkpoints, n - 1) : NULL;

    if (last)
        fprintf(client->out, "%-12s %zu, the newest of step %" PRId64 ": %s\n",
                "checkpoints", n, json_get_int(last, "step", 0),
                json_get_string(last, "path") ? json_get_string(last, "path") : "");
}

static void print_job(struct client *client, const struct json *row)
{
    static const char *const texts[] = {"id",    "kind",   "name",
                                        "state", "reason", "attempt"};

    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        const struct json *value = json_get(row, texts[i]);

        if (json_string(value) && *json_string(value))
            fprintf(client->out, "%-12s %s\n", texts[i], json_string(value));
        else if (json_type(value) == JSON_INT)
            fprintf(client->out, "%-12s %" PRId64 "\n", texts[i], json_int(value, 0));
    }
    print_time(client, row, "submitted", "submitted_ms");
    print_time(client, row, "started", "started_ms");
    print_time(client, row, "ended", "ended_ms");
    print_progress(client, row);
    print_metrics(client, json_get(row, "metrics"));
    print_checkpoints(client, json_get(row, "checkpoints"));
    if (json_count(json_get(row, "result"))) {
        struct buf text = BUF_INIT;

        json_write(&text, json_get(row, "result"), 0);
        fprintf(client->out, "%-12s %s\n", "result", buf_str(&text));
        buf_fini(&text);
    }
    fprintf(client->out, "%-12s %s/jobs/%" PRId64 "\n", "folder", client->home,
            json_get_int(row, "id", 0));
}

int cmd_show(struct client *client, const struct args *args)
{
    struct json *row = NULL, *attempts = NULL;
    int64_t job;
    struct err err;

    if (args_job(args->words[0], &job, &err) < 0 ||
        client_get_job(client, &row, job, &err) < 0)
        return client_fail(client, &err);
    if (args_has(args, "json")) {
        client_print_json(client, row);
    } else if (client_query_all(client, &attempts, "attempts", job, 0, &err) == 0) {
        print_job(client, row);
        print_attempts(client, attempts);
    } else {
        json_free(row);
        return client_fail(client, &err);
    }
    json_free(row);
    json_free(attempts);
    return EXIT_DONE;
}
