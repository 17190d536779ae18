#include "jobs/client/query_print.h"
#include "jobs/client/format.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

int query_format_find(enum query_format *out, const char *name, struct err *err)
{
    static const char *const names[] = {"table", "json", "jsonl", "csv"};

    for (int i = 0; i < 4; i++)
        if (strcmp(name, names[i]) == 0) {
            *out = (enum query_format)i;
            return 0;
        }
    return err_set(err, ERR_INVALID, "no format '%s'; there are table, json, jsonl, csv",
                   name);
}

/* Those that are shown. */
static size_t count_columns(const struct query_printer *p)
{
    size_t n = json_count(p->columns);

    return p->drops_last && n ? n - 1 : n;
}

static const struct json *column_at(const struct query_printer *p, size_t c)
{
    return json_at(p->columns, c);
}

static bool has_unit(const struct query_printer *p, size_t c, const char *unit)
{
    const char *own = json_get_string(column_at(p, c), "unit");

    return own && strcmp(own, unit) == 0;
}

static const char *name_of(const struct query_printer *p, size_t c)
{
    return json_get_text(column_at(p, c), "name");
}

/* ---- JSON ---- */

static void print_object(struct query_printer *p, const struct json *row)
{
    struct buf text = BUF_INIT;

    buf_add_char(&text, '{');
    for (size_t c = 0; c < count_columns(p); c++) {
        if (text.n_bytes > 1)
            buf_add_str(&text, ", ");
        json_write_string(&text, name_of(p, c), strlen(name_of(p, c)));
        buf_add_str(&text, ": ");
        json_write(&text, json_at(row, c), 0);
    }
    buf_add_char(&text, '}');
    if (p->format == QUERY_JSON)
        fputs(p->n_rows ? ",\n " : "[", p->out);
    fputs(buf_str(&text), p->out);
    if (p->format == QUERY_JSONL)
        fputc('\n', p->out);
    buf_fini(&text);
}

/* ---- CSV (RFC 4180, with plain newlines) ---- */

static void print_field(struct query_printer *p, const char *text, bool is_first)
{
    if (!is_first)
        fputc(',', p->out);
    if (!strpbrk(text, ",\"\r\n")) {
        fputs(text, p->out);
        return;
    }
    fputc('"', p->out);
    for (; *text; text++) {
        if (*text == '"')
            fputc('"', p->out);
        fputc(*text, p->out);
    }
    fputc('"', p->out);
}

static void print_titles(struct query_printer *p)
{
    for (size_t c = 0; c < count_columns(p); c++)
        print_field(p, name_of(p, c), c == 0);
    fputc('\n', p->out);
}

static void print_fields(struct query_printer *p, const struct json *row)
{
    struct buf text = BUF_INIT;

    for (size_t c = 0; c < count_columns(p); c++) {
        const struct json *value = json_at(row, c);

        buf_reset(&text);
        if (json_string(value))
            buf_add_str(&text, json_string(value));
        else if (json_type(value) != JSON_NULL)
            json_write(&text, value, 0);
        if (p->is_terminal)
            format_clean(&text, 0);
        print_field(p, buf_str(&text), c == 0);
    }
    fputc('\n', p->out);
    buf_fini(&text);
}

/* ---- tables ---- */

/* As people read it: times, sizes, six digits; no control characters. */
static void add_cell(struct buf *out, const struct query_printer *p,
                     const struct json *row, size_t c)
{
    const struct json *value = json_at(row, c);
    bool is_whole = json_type(value) == JSON_INT;

    if (is_whole && has_unit(p, c, "time"))
        format_time(out, json_int(value, 0));
    else if (is_whole && has_unit(p, c, "bytes"))
        format_bytes(out, (uint64_t)json_int(value, 0));
    else if (json_type(value) == JSON_DOUBLE)
        buf_printf(out, "%.6g", json_double(value, 0));
    else if (json_string(value))
        buf_add_str(out, json_string(value));
    else if (json_type(value) != JSON_NULL)
        json_write(out, value, 0);
    format_clean(out, 0);
}

/* "submitted_ms" whose values are shown as times is SUBMITTED. */
static void add_title(struct buf *out, const struct query_printer *p, size_t c)
{
    const char *name = name_of(p, c);
    size_t n = strlen(name);

    if (has_unit(p, c, "time") && n > 3 && strcmp(name + n - 3, "_ms") == 0)
        n -= 3;
    if (has_unit(p, c, "bytes") && n > 6 && strcmp(name + n - 6, "_bytes") == 0)
        n -= 6;
    for (size_t i = 0; i < n; i++)
        buf_add_char(out, (char)toupper((unsigned char)name[i]));
}

/* Row r of the table, -1 for the titles. */
static void add_entry(struct buf *out, const struct query_printer *p, int64_t r, size_t c)
{
    buf_reset(out);
    if (r < 0)
        add_title(out, p, c);
    else
        add_cell(out, p, json_at(p->rows, (size_t)r), c);
}

/* A column of numbers stands right: one whose first value that is not null is one. */
static bool is_right(const struct query_printer *p, size_t c)
{
    if (has_unit(p, c, "time"))
        return false;
    for (size_t r = 0; r < json_count(p->rows); r++) {
        enum json_type type = json_type(json_at(json_at(p->rows, r), c));

        if (type != JSON_NULL)
            return type == JSON_INT || type == JSON_DOUBLE;
    }
    return false;
}

static void print_line(struct query_printer *p, int64_t r, const int *widths)
{
    size_t n_columns = count_columns(p);
    struct buf cell = BUF_INIT;

    for (size_t c = 0; c < n_columns; c++) {
        int pad;

        add_entry(&cell, p, r, c);
        format_cut(&cell, widths[c]);
        pad = widths[c] - format_width(buf_str(&cell));
        if (is_right(p, c))
            fprintf(p->out, "%*s%s", pad, "", buf_str(&cell));
        else if (c + 1 < n_columns)
            fprintf(p->out, "%s%*s", buf_str(&cell), pad, "");
        else
            fputs(buf_str(&cell), p->out);
        fprintf(p->out, "%*s", c + 1 < n_columns ? FORMAT_GAP : 0, "");
    }
    fputc('\n', p->out);
    buf_fini(&cell);
}

static void print_table(struct query_printer *p)
{
    size_t n_columns = count_columns(p);
    int64_t n_rows = (int64_t)json_count(p->rows);
    int *widths = calloc(n_columns + 1, sizeof(*widths));
    bool *is_whole = calloc(n_columns + 1, sizeof(*is_whole));
    bool has_memory = widths && is_whole;
    struct buf cell = BUF_INIT;

    for (size_t c = 0; has_memory && c < n_columns; c++) {
        is_whole[c] = is_right(p, c) || has_unit(p, c, "time");
        for (int64_t r = -1; r < n_rows; r++) {
            add_entry(&cell, p, r, c);
            if (format_width(buf_str(&cell)) > widths[c])
                widths[c] = format_width(buf_str(&cell));
        }
    }
    if (has_memory)
        format_fit(widths, is_whole, (int)n_columns, p->terminal_columns);
    for (int64_t r = -1; has_memory && r < n_rows; r++)
        print_line(p, r, widths);
    buf_fini(&cell);
    free(widths);
    free(is_whole);
}

/* ---- parts ---- */

static int take_row(struct query_printer *p, const struct json *row, struct err *err)
{
    int rc = 0;

    if (p->format == QUERY_TABLE)
        rc = json_append(p->rows, json_clone(row), err);
    else if (p->format == QUERY_CSV)
        print_fields(p, row);
    else
        print_object(p, row);
    p->n_rows++;
    return rc;
}

/* The first part says what the columns are. */
static int begin(struct query_printer *p, const struct json *part, struct err *err)
{
    p->columns = json_clone(json_get(part, "columns"));
    p->rows = json_new(JSON_ARRAY);
    if (!p->columns || !p->rows)
        return err_set(err, ERR_NOMEM, "no memory for the answer");
    if (json_type(p->columns) != JSON_ARRAY)
        return err_set(err, ERR_PEER, "the coordinator's answer has no columns");
    if (p->format == QUERY_CSV)
        print_titles(p);
    return 0;
}

int query_print_part(struct query_printer *printer, const struct json *part,
                     int64_t n_most, struct err *err)
{
    const struct json *rows = json_get(part, "rows");

    if (!printer->columns && begin(printer, part, err) < 0)
        return -1;
    for (size_t r = 0; r < json_count(rows) && (int64_t)r < n_most; r++)
        if (take_row(printer, json_at(rows, r), err) < 0)
            return -1;
    return 0;
}

void query_print_end(struct query_printer *printer)
{
    if (printer->format == QUERY_JSON)
        fputs(printer->n_rows ? "]\n" : "[]\n", printer->out);
    if (printer->format == QUERY_TABLE && printer->columns)
        print_table(printer);
    query_printer_fini(printer);
}

void query_printer_fini(struct query_printer *printer)
{
    json_free(printer->columns);
    json_free(printer->rows);
    printer->columns = printer->rows = NULL;
    printer->n_rows = 0;
}
