/* vneva show: all about one job. */
#include "jobs/client/client.h"
#include "jobs/client/format.h"
#include "jobs/client/job_summary.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static void print_text(struct client *client, const char *title, const char *text)
{
    struct buf clean = BUF_INIT;

    buf_add_str(&clean, text);
    format_clean(&clean, 0);
    fprintf(client->out, "%-12s %s\n", title, buf_str(&clean));
    buf_fini(&clean);
}

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

/* "last step loss=2.31 lr=0.001": the members that are numbers. */
static void print_numbers(struct client *client, const char *title,
                          const struct json *numbers)
{
    if (!json_count(numbers))
        return;
    fprintf(client->out, "%-12s", title);
    for (size_t i = 0; i < json_count(numbers); i++)
        if (json_type(json_at(numbers, i)) == JSON_INT ||
            json_type(json_at(numbers, i)) == JSON_DOUBLE)
            fprintf(client->out, " %s=%.6g", json_key_at(numbers, i),
                    json_double(json_at(numbers, i), 0));
    fputc('\n', client->out);
}

static void cell_started(struct buf *out, const struct json *row)
{
    if (json_get_int(row, "started_ms", 0) > 0)
        format_time(out, json_get_int(row, "started_ms", 0));
}

static void print_attempts(struct client *client, const struct json *attempts)
{
    static const struct table_column columns[] = {
        {"ATTEMPT", "attempt", NULL, true},     {"STATE", "state", NULL, false},
        {"CAUSE", "cause", NULL, false},        {"RANKS", "n_ranks", NULL, true},
        {"STARTED", NULL, cell_started, false}, {"TIME", NULL, format_span, true},
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

static void cell_accuracy(struct buf *out, const struct json *row)
{
    buf_printf(out, "%.1f %%", 100 * json_get_double(row, "accuracy", 0));
}

/* What a job gave: a table by category where it has one, else JSON. */
static void print_result(struct client *client, const struct json *result)
{
    static const struct table_column columns[] = {
        {"CATEGORY", "category", NULL, false},
        {"QUESTIONS", "n", NULL, true},
        {"CORRECT", "correct", NULL, true},
        {"ACCURACY", NULL, cell_accuracy, true},
    };
    struct buf text = BUF_INIT;

    if (!json_count(result))
        return;
    if (json_count(json_get(result, "categories"))) {
        fputc('\n', client->out);
        table_print(client->out, json_get(result, "categories"), columns, 4);
        fprintf(client->out, "%" PRId64 " questions, %.1f %% answered exactly\n\n",
                json_get_int(result, "n", 0),
                100 * json_get_double(result, "accuracy", 0));
        return;
    }
    json_write(&text, result, 0);
    print_text(client, "result", buf_str(&text));
    buf_fini(&text);
}

static void print_job(struct client *client, const struct json *row)
{
    static const char *const texts[] = {"id",    "kind",   "name",
                                        "state", "reason", "attempt"};

    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        const struct json *value = json_get(row, texts[i]);

        if (json_string(value) && *json_string(value))
            print_text(client, texts[i], json_string(value));
        else if (json_type(value) == JSON_INT)
            fprintf(client->out, "%-12s %" PRId64 "\n", texts[i], json_int(value, 0));
    }
    print_time(client, row, "submitted", "submitted_ms");
    print_time(client, row, "started", "started_ms");
    print_time(client, row, "ended", "ended_ms");
    print_progress(client, row);
    print_numbers(client, "last step", json_get(row, "metrics"));
    print_checkpoints(client, json_get(row, "checkpoints"));
    print_result(client, json_get(row, "result"));
    print_numbers(client, "summary", json_get(row, "summary"));
    if (json_get_string(row, "folder"))
        print_text(client, "folder", json_get_string(row, "folder"));
}

static int show_row(struct client *client, const struct args *args,
                    const struct json *row, const struct json *attempts)
{
    const char *field = args_value(args, "field");
    struct err err;

    if (field) {
        if (job_summary_print(client->out, row, field, &err) < 0)
            return client_fail(client, &err);
    } else if (args_has(args, "json")) {
        client_print_json(client, row);
    } else {
        print_job(client, row);
        print_attempts(client, attempts);
    }
    return EXIT_DONE;
}

int cmd_show(struct client *client, const struct args *args)
{
    struct json *row = NULL, *attempts = NULL;
    struct err err;
    int64_t job;
    int status;

    if (client_read_job(args->words[0], &job, &err) < 0 ||
        client_get_job(client, &row, job, &err) < 0 ||
        client_query_all(client, &attempts, "attempts", job, 0, &err) < 0 ||
        job_summary_add(client, row, attempts, &err) < 0)
        status = client_fail(client, &err);
    else
        status = show_row(client, args, row, attempts);
    json_free(row);
    json_free(attempts);
    return status;
}
