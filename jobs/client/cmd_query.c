/* vneva query: rows of the views, chosen by conditions or by SQL. docs/query.md. */
#define _DEFAULT_SOURCE /* tm_gmtoff */
#include "common/base/clock.h"
#include "jobs/client/client.h"
#include "jobs/client/format.h"
#include "jobs/client/query_print.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define TABLE_ROWS 1000 /* rows of a table when no limit is given */
#define PAGE_ROWS 20000 /* asked for at once */

struct query {
    struct client *client;
    struct msg_select question;
    struct query_printer printer;
    int64_t limit;         /* rows to show */
    bool is_limit_default; /* there may be more than anybody wanted to see */
    int64_t n_page, n_asked;
    int64_t last_id;
    bool has_more;
};

/* ---- one answer ---- */

static int64_t last_int(const struct json *row)
{
    return json_int(json_at(row, json_count(row) - 1), 0);
}

/* Rows beyond the limit are not shown; that there are any is. */
static int take_part(void *state, const struct json *part, struct err *err)
{
    struct query *q = state;
    const struct json *rows = json_get(part, "rows");
    size_t n = json_count(rows);
    int64_t left = q->limit - q->printer.n_rows;

    q->n_page += (int64_t)n;
    if ((int64_t)n > left)
        q->has_more = true;
    if (n)
        q->last_id = last_int(json_at(rows, n - 1));
    return query_print_part(&q->printer, part, left, err);
}

/* A view in the order of its ids comes page by page: no answer is too large then. */
static int ask_pages(struct query *q, struct err *err)
{
    q->question.after = 0;
    do {
        int64_t left = q->limit - q->printer.n_rows;

        q->n_page = 0;
        q->question.limit = left < PAGE_ROWS ? left + 1 : PAGE_ROWS;
        if (client_select(q->client, &q->question, take_part, q, err) < 0)
            return -1;
        q->question.after = q->last_id;
    } while (q->n_page == q->question.limit && q->printer.n_rows < q->limit);
    return 0;
}

static int ask(struct query *q, struct err *err)
{
    bool is_whole = *q->question.sql || *q->question.sort;
    int rc;

    q->has_more = false;
    q->question.limit = q->limit == INT64_MAX ? 0 : q->limit + 1;
    rc = is_whole ? client_select(q->client, &q->question, take_part, q, err)
                  : ask_pages(q, err);
    if (rc < 0) {
        query_printer_fini(&q->printer);
        return -1;
    }
    q->printer.terminal_columns = format_terminal_columns(q->client->out);
    query_print_end(&q->printer);
    fflush(q->client->out);
    if (q->has_more && q->is_limit_default)
        fprintf(q->client->err,
                "vneva: the first %d rows; there are more: --limit N, --limit 0 for all, "
                "--sort -id for the newest\n",
                TABLE_ROWS);
    return 0;
}

/* ---- again and again ---- */

static void print_time(struct query *q)
{
    struct buf text = BUF_INIT;

    format_time(&text, clock_wall_ms());
    if (isatty(fileno(q->client->out)) == 1 && q->printer.format == QUERY_TABLE)
        fputs("\033[H\033[2J", q->client->out);
    if (q->printer.format == QUERY_TABLE)
        fprintf(q->client->out, "%s\n", buf_str(&text));
    buf_fini(&text);
}

static int watch(struct query *q, int64_t every_ms)
{
    struct err err;

    client_catch_interrupt();
    do {
        print_time(q);
        if (ask(q, &err) < 0)
            return client_fail(q->client, &err);
    } while (!client_pause(every_ms));
    return EXIT_INTERRUPTED;
}

/* ---- words ---- */

static int64_t utc_offset_s(void)
{
    time_t now = (time_t)(clock_wall_ms() / 1000);
    struct tm parts;

    return localtime_r(&now, &parts) ? parts.tm_gmtoff : 0;
}

/* The words of the condition as a JSON list: what stands behind VIEW, and "where". */
static void list_words(struct buf *out, const struct args *args)
{
    int first = args->n_words > 1 && strcmp(args->words[1], "where") == 0 ? 2 : 1;

    buf_add_char(out, '[');
    for (int i = first; i < args->n_words; i++) {
        if (i > first)
            buf_add_char(out, ',');
        json_write_string(out, args->words[i], strlen(args->words[i]));
    }
    buf_add_char(out, ']');
}

static const char *text_of(const struct args *args, const char *option)
{
    const char *text = args_value(args, option);

    return text ? text : "";
}

static int check(const struct args *args, struct err *err)
{
    bool is_sql = args_has(args, "sql");

    if (is_sql && !*text_of(args, "sql"))
        return err_set(err, ERR_INVALID, "--sql: there is no SELECT in it");
    if (is_sql && (args->n_words || args_has(args, "columns") || args_has(args, "sort")))
        return err_set(err, ERR_INVALID,
                       "--sql asks by itself: no view, conditions, --columns or --sort "
                       "beside it");
    if (!is_sql && !args->n_words)
        return err_set(err, ERR_INVALID,
                       "which view? jobs, tasks, attempts, ranks, workers, pools, "
                       "allocations, checkpoints, datasets, rejects, metrics, events; "
                       "`vneva query views` says "
                       "what they hold");
    return 0;
}

/* limit 0: all. Of a table only so many as anybody reads. */
static int read_limit(struct query *q, const struct args *args, struct err *err)
{
    if (args_int(args, "limit", 0, INT64_MAX - 1, -1, &q->limit, err) < 0)
        return -1;
    q->is_limit_default = q->limit < 0 && q->printer.format == QUERY_TABLE;
    if (q->is_limit_default)
        q->limit = TABLE_ROWS;
    else if (q->limit <= 0)
        q->limit = INT64_MAX;
    return 0;
}

int cmd_query(struct client *client, const struct args *args)
{
    struct query q = {
        .client = client,
        .printer = {.out = client->out, .is_terminal = isatty(fileno(client->out)) == 1}};
    struct buf where = BUF_INIT;
    int64_t watch_s;
    struct err err;
    int status;

    list_words(&where, args);
    q.question = (struct msg_select){.sql = text_of(args, "sql"),
                                     .view = args->n_words ? args->words[0] : "",
                                     .where = buf_str(&where),
                                     .columns = text_of(args, "columns"),
                                     .sort = text_of(args, "sort"),
                                     .utc_offset_s = utc_offset_s()};
    if (check(args, &err) < 0 || buf_check(&where, &err) < 0 ||
        query_format_find(&q.printer.format,
                          args_has(args, "format") ? text_of(args, "format") : "table",
                          &err) < 0 ||
        read_limit(&q, args, &err) < 0 ||
        args_int(args, "watch", 1, 86400, 0, &watch_s, &err) < 0) {
        status = client_fail(client, &err);
    } else {
        q.question.has_id = q.printer.drops_last = !args_has(args, "sql");
        q.question.is_short = q.printer.format == QUERY_TABLE;
        if (watch_s)
            status = watch(&q, watch_s * 1000);
        else
            status = ask(&q, &err) < 0 ? client_fail(client, &err) : EXIT_DONE;
    }
    buf_fini(&where);
    return status;
}
