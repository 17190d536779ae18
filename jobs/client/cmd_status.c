/* vneva status, workers, checkpoints, events: lists. */
#include "common/base/clock.h"
#include "jobs/client/client.h"
#include "jobs/client/format.h"

#include <stdlib.h>
#include <string.h>

#define STATUS_ENDED 10 /* ended jobs shown without --all */
#define STATUS_ALL 1000 /* the most the coordinator gives at once */

/* ---- cells ---- */

static void cell_progress(struct buf *out, const struct json *row)
{
    int64_t done = json_get_int(row, "done", 0), total = json_get_int(row, "total", 0);

    if (total > 0)
        buf_printf(out, "%lld%% %lld/%lld", (long long)(100 * done / total),
                   (long long)done, (long long)total);
}

static void cell_submitted(struct buf *out, const struct json *row)
{
    format_time(out, json_get_int(row, "submitted_ms", 0));
}

static void cell_seen(struct buf *out, const struct json *row)
{
    format_duration(out, clock_wall_ms() - json_get_int(row, "last_seen_ms", 0));
    buf_add_str(out, " ago");
}

static void cell_busy(struct buf *out, const struct json *row)
{
    buf_printf(out, "%lld of %lld", (long long)json_get_int(row, "n_busy", 0),
               (long long)json_get_int(row, "n_devices", 0));
}

static void cell_event_time(struct buf *out, const struct json *row)
{
    format_time(out, json_get_int(row, "ms", 0));
}

static void cell_loss(struct buf *out, const struct json *row)
{
    const struct json *loss = json_get(row, "val_loss");

    if (json_type(loss) != JSON_NULL)
        buf_printf(out, "%.4f", json_double(loss, 0));
}

static void cell_kept(struct buf *out, const struct json *row)
{
    const struct json *kept = json_get(row, "is_kept");

    buf_add_str(out, json_bool(kept, json_int(kept, 0) != 0) ? "yes" : "no");
}

/* ---- lists ---- */

/* Prints rows as a table or as JSON and frees them. */
static int print_rows(struct client *client, const struct args *args, struct json *rows,
                      const struct table_column *columns, int n_columns, const char *none)
{
    if (args_has(args, "json"))
        client_print_json(client, rows);
    else if (json_count(rows))
        table_print(client->out, rows, columns, n_columns);
    else
        fprintf(client->out, "%s\n", none);
    json_free(rows);
    return EXIT_DONE;
}

/* The rows without all but the last few ended ones. */
static int drop_old(struct json **rows, struct err *err)
{
    struct json *kept = json_new(JSON_ARRAY);
    size_t n_ended = 0, n_seen = 0;

    for (size_t i = 0; i < json_count(*rows); i++)
        n_ended += is_job_ended(json_get_string(json_at(*rows, i), "state"));
    for (size_t i = 0; i < json_count(*rows); i++) {
        struct json *row = json_at(*rows, i);

        if (is_job_ended(json_get_string(row, "state")) &&
            n_ended - n_seen++ > STATUS_ENDED)
            continue;
        if (json_append(kept, json_clone(row), err) < 0) {
            json_free(kept);
            return -1;
        }
    }
    json_free(*rows);
    *rows = kept;
    return 0;
}

int cmd_status(struct client *client, const struct args *args)
{
    static const struct table_column columns[] = {
        {"JOB", "id", NULL, true},
        {"KIND", "kind", NULL, false},
        {"NAME", "name", NULL, false},
        {"STATE", "state", NULL, false},
        {"PROGRESS", NULL, cell_progress, true},
        {"ATTEMPT", "attempt", NULL, true},
        {"SUBMITTED", NULL, cell_submitted, false},
        {"TIME", NULL, format_span, true},
        {"REASON", "reason", NULL, false},
    };
    struct json *rows;
    struct err err;

    if (client_query(client, &rows, "jobs", 0, 0, STATUS_ALL, &err) < 0)
        return client_fail(client, &err);
    if (!args_has(args, "all") && drop_old(&rows, &err) < 0) {
        json_free(rows);
        return client_fail(client, &err);
    }
    return print_rows(client, args, rows, columns, 9, "no jobs");
}

int cmd_workers(struct client *client, const struct args *args)
{
    static const struct table_column columns[] = {
        {"AGENT", "agent", NULL, false},         {"HOST", "host", NULL, false},
        {"DEVICES", "device_kind", NULL, false}, {"BUSY", NULL, cell_busy, true},
        {"STATE", "state", NULL, false},         {"SEEN", NULL, cell_seen, false},
    };
    struct json *rows;
    struct err err;

    if (client_query(client, &rows, "workers", 0, 0, 0, &err) < 0)
        return client_fail(client, &err);
    return print_rows(client, args, rows, columns, 6, "no workers");
}

int cmd_checkpoints(struct client *client, const struct args *args)
{
    static const struct table_column columns[] = {
        {"JOB", "job", NULL, true},
        {"STEP", "step", NULL, true},
        {"SAMPLES", "consumed_samples", NULL, true},
        {"VAL_LOSS", NULL, cell_loss, true},
        {"KEPT", NULL, cell_kept, false},
        {"PATH", "path", NULL, false},
    };
    int64_t job = 0;
    struct json *rows;
    struct err err;

    if ((args->n_words && client_read_job(args->words[0], &job, &err) < 0) ||
        client_query_all(client, &rows, "checkpoints", job, 0, &err) < 0)
        return client_fail(client, &err);
    return print_rows(client, args, rows, columns, 6, "no checkpoints");
}

int cmd_events(struct client *client, const struct args *args)
{
    static const struct table_column columns[] = {
        {"TIME", NULL, cell_event_time, false},
        {"KIND", "kind", NULL, false},
        {"TEXT", "text", NULL, false},
    };
    struct json *rows, *row = NULL;
    int64_t job;
    struct err err;

    if (client_read_job(args->words[0], &job, &err) < 0 ||
        client_get_job(client, &row, job, &err) < 0) /* no such job is an error */
        return client_fail(client, &err);
    json_free(row);
    if (client_query_all(client, &rows, "events", job, 0, &err) < 0)
        return client_fail(client, &err);
    return print_rows(client, args, rows, columns, 3, "no events");
}
