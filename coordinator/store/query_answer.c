/* Rows of a statement as parts of JSON. */
#include "common/base/json.h"
#include "common/base/utf8.h"
#include "coordinator/store/query_internal.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct writing {
    struct query_answer *out;
    sqlite3_stmt *statement;
    const struct query_view *view; /* NULL: a SELECT of the asker's own */
    struct buf head, part;
    const struct query_column **columns; /* [n_columns]; NULL where none has that name */
    int n_columns;
    int64_t n_rows, n_bytes;
    const struct query_bounds *bounds;
};

void query_answer_fini(struct query_answer *answer)
{
    for (size_t i = 0; i < answer->n_parts; i++)
        free(answer->parts[i]);
    free(answer->parts);
    *answer = (struct query_answer){0};
}

static const struct query_column *column_of(const struct query_view *view,
                                            const char *name)
{
    for (const struct query_column *c = view->columns; c->name; c++)
        if (strcmp(c->name, name) == 0)
            return c;
    return NULL;
}

/* What is known of a column of the answer. Of a SELECT only the name tells: good enough
 * to show times as times. */
static const struct query_column *find_column(const struct query_view *view,
                                              const char *name)
{
    const struct query_column *found = view ? column_of(view, name) : NULL;

    for (const struct query_view *v = query_views; !view && !found && v->name; v++)
        found = column_of(v, name);
    return found;
}

static void add_text(struct buf *out, const char *text)
{
    char *copy = strdup(text);

    if (!copy) {
        out->failed = true;
        return;
    }
    utf8_mend(copy);
    json_write_string(out, copy, strlen(copy));
    free(copy);
}

/* Objects are made of rows: of several columns with one name the later get a number. */
static void add_column_name(struct writing *w, int at)
{
    const char *name = sqlite3_column_name(w->statement, at);
    struct buf unique = BUF_INIT;
    int n_before = 0;

    for (int i = 0; name && i < at; i++)
        n_before += strcmp(sqlite3_column_name(w->statement, i), name) == 0;
    buf_add_str(&unique, name ? name : "");
    if (n_before)
        buf_printf(&unique, "_%d", n_before + 1);
    add_text(&w->head, buf_str(&unique));
    buf_fini(&unique);
}

static int write_head(struct writing *w, struct err *err)
{
    w->n_columns = sqlite3_column_count(w->statement);
    w->columns = calloc((size_t)w->n_columns + 1, sizeof(*w->columns));
    if (!w->columns)
        return err_set(err, ERR_NOMEM, "no memory for the answer");
    buf_add_str(&w->head, "{\"columns\":[");
    for (int i = 0; i < w->n_columns; i++) {
        const struct query_column *c =
            find_column(w->view, sqlite3_column_name(w->statement, i));

        w->columns[i] = c;
        buf_add_str(&w->head, i ? ",{\"name\":" : "{\"name\":");
        add_column_name(w, i);
        buf_printf(&w->head, ",\"type\":\"%s\",\"unit\":\"%s\"}", c ? c->type : "",
                   c ? c->unit : "");
    }
    buf_add_str(&w->head, "],\"rows\":[");
    return buf_check(&w->head, err);
}

static int flush_part(struct writing *w, struct err *err)
{
    struct query_answer *out = w->out;

    if (out->n_parts == out->capacity) {
        size_t capacity = out->capacity ? 2 * out->capacity : 8;
        char **parts = realloc(out->parts, capacity * sizeof(*parts));

        if (!parts)
            return err_set(err, ERR_NOMEM, "no memory for the answer");
        out->parts = parts;
        out->capacity = capacity;
    }
    buf_add_str(&w->part, "]}");
    if (buf_check(&w->part, err) < 0)
        return -1;
    w->n_bytes += (int64_t)w->part.n_bytes;
    out->parts[out->n_parts] = buf_take(&w->part);
    if (!out->parts[out->n_parts])
        return err_set(err, ERR_NOMEM, "no memory for the answer");
    out->n_parts++;
    return 0;
}

/* The fewest of the usual numbers of digits that read back to the same. */
static void add_double(struct buf *out, double x)
{
    char text[32];

    for (int digits = 6; digits <= 17; digits += digits < 15 ? 9 : 2) {
        snprintf(text, sizeof(text), "%.*g", digits, x);
        if (strtod(text, NULL) == x)
            break;
    }
    buf_add_str(out, isfinite(x) ? text : "null");
}

/* JSON of a column that holds JSON is no text; should it not be JSON after all, it is. */
static void add_json(struct buf *out, const char *text)
{
    struct json *json;
    struct err err;

    if (json_parse(&json, text, strlen(text), &err) < 0) {
        add_text(out, text);
        return;
    }
    json_write(out, json, 0);
    json_free(json);
}

static void add_bytes(struct buf *out, const unsigned char *bytes, int n)
{
    buf_add_char(out, '"');
    for (int i = 0; i < n; i++)
        buf_printf(out, "%02x", bytes[i]);
    buf_add_char(out, '"');
}

static void add_cell(struct writing *w, int at)
{
    const struct query_column *column = w->columns[at];
    const char *type = column && w->view ? column->type : "";
    struct buf *out = &w->part;

    switch (sqlite3_column_type(w->statement, at)) {
    case SQLITE_INTEGER:
        if (strcmp(type, "boolean") == 0)
            buf_add_str(out, sqlite3_column_int(w->statement, at) ? "true" : "false");
        else
            buf_printf(out, "%lld", (long long)sqlite3_column_int64(w->statement, at));
        break;
    case SQLITE_FLOAT:
        add_double(out, sqlite3_column_double(w->statement, at));
        break;
    case SQLITE_TEXT:
        if (strcmp(type, "json") == 0)
            add_json(out, (const char *)sqlite3_column_text(w->statement, at));
        else
            add_text(out, (const char *)sqlite3_column_text(w->statement, at));
        break;
    case SQLITE_BLOB:
        add_bytes(out, sqlite3_column_blob(w->statement, at),
                  sqlite3_column_bytes(w->statement, at));
        break;
    default:
        buf_add_str(out, "null");
    }
}

static int write_row(struct writing *w, struct err *err)
{
    if (++w->n_rows > w->bounds->rows)
        return err_set(err, ERR_LIMIT,
                       "the answer has more than %lld rows; narrow it (where, --limit, "
                       "LIMIT)",
                       (long long)w->bounds->rows);
    if (!w->part.n_bytes)
        buf_add_str(&w->part, buf_str(&w->head));
    else
        buf_add_char(&w->part, ',');
    buf_add_char(&w->part, '[');
    for (int i = 0; i < w->n_columns; i++) {
        if (i)
            buf_add_char(&w->part, ',');
        add_cell(w, i);
    }
    buf_add_char(&w->part, ']');
    if (w->n_bytes + (int64_t)w->part.n_bytes > w->bounds->bytes)
        return err_set(
            err, ERR_LIMIT,
            "the answer has more than %lld bytes; narrow it (where, --columns, "
            "--limit, LIMIT)",
            (long long)w->bounds->bytes);
    if (w->part.n_bytes > QUERY_PART_MAX)
        return err_set(err, ERR_LIMIT,
                       "a row has more than %d bytes; ask for fewer columns",
                       QUERY_PART_MAX - QUERY_PART_BYTES);
    return w->part.n_bytes >= QUERY_PART_BYTES ? flush_part(w, err) : 0;
}

static int write_rows(struct writing *w, int *code, struct err *err)
{
    if (write_head(w, err) < 0)
        return -1;
    while ((*code = sqlite3_step(w->statement)) == SQLITE_ROW)
        if (write_row(w, err) < 0)
            return -1;
    if (*code != SQLITE_DONE)
        return 1;
    if (!w->part.n_bytes && w->out->n_parts > 0)
        return 0;
    if (!w->part.n_bytes)
        buf_add_str(&w->part, buf_str(&w->head));
    return flush_part(w, err);
}

int query_write(struct query_answer *out, sqlite3_stmt *statement,
                const struct query_view *view, const struct query_bounds *bounds,
                int *code, struct err *err)
{
    struct writing w = {
        .out = out, .statement = statement, .view = view, .bounds = bounds};
    int rc = write_rows(&w, code, err);

    buf_fini(&w.head);
    buf_fini(&w.part);
    free(w.columns);
    return rc;
}
