#include "jobs/client/format.h"

#include "common/base/clock.h"
#include "common/base/utf8.h"

#include <inttypes.h>
#include <limits.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#define TABLE_COLUMNS_MAX 16

void format_time(struct buf *out, int64_t wall_ms)
{
    time_t seconds = (time_t)(wall_ms / 1000);
    struct tm parts;
    char text[32];

    if (localtime_r(&seconds, &parts) && strftime(text, sizeof(text), "%F %T", &parts))
        buf_add_str(out, text);
}

void format_duration(struct buf *out, int64_t ms)
{
    int64_t s = (ms + 500) / 1000;

    if (s < 100)
        buf_printf(out, "%" PRId64 " s", s);
    else if (s < 3600)
        buf_printf(out, "%" PRId64 " min %02" PRId64 " s", s / 60, s % 60);
    else if (s < 48 * 3600)
        buf_printf(out, "%" PRId64 " h %02" PRId64 " min", s / 3600, s / 60 % 60);
    else
        buf_printf(out, "%" PRId64 " d %02" PRId64 " h", s / 86400, s / 3600 % 24);
}

void format_span(struct buf *out, const struct json *row)
{
    int64_t start = json_get_int(row, "started_ms", 0);
    int64_t end = json_get_int(row, "ended_ms", 0);

    if (start > 0)
        format_duration(out, (end > 0 ? end : clock_wall_ms()) - start);
}

static void format_scaled(struct buf *out, double value, double step,
                          const char *const *units, int n_units)
{
    int unit = 0;

    while (value >= step && unit < n_units - 1) {
        value /= step;
        unit++;
    }
    buf_printf(out, unit && value < 100 ? "%.1f%s%s" : "%.0f%s%s", value,
               *units[unit] ? " " : "", units[unit]);
}

void format_bytes(struct buf *out, uint64_t bytes)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};

    format_scaled(out, (double)bytes, 1024, units, 6);
}

void format_count(struct buf *out, int64_t n)
{
    static const char *const units[] = {"", "k", "M", "B", "T"};

    format_scaled(out, (double)n, 1000, units, 5);
}

/* ---- tables ---- */

#define ELLIPSIS "\xe2\x80\xa6"

int format_terminal_columns(FILE *out)
{
    struct winsize size = {0};
    int fd = fileno(out);

    return fd >= 0 && isatty(fd) && ioctl(fd, TIOCGWINSZ, &size) == 0 ? size.ws_col : 0;
}

static int find_widest(const int *widths, const bool *is_whole, int n_widths)
{
    int widest = -1;

    for (int i = 0; i < n_widths; i++)
        if (!is_whole[i] && widths[i] > FORMAT_CELL_MIN &&
            (widest < 0 || widths[i] > widths[widest]))
            widest = i;
    return widest;
}

void format_fit(int *widths, const bool *is_whole, int n_widths, int columns)
{
    int n = n_widths > 0 ? (n_widths - 1) * FORMAT_GAP : 0;

    for (int i = 0; i < n_widths; i++)
        n += widths[i];
    for (; columns > 0 && n > columns; n--) {
        int widest = find_widest(widths, is_whole, n_widths);

        if (widest < 0)
            return; /* the terminal folds the lines */
        widths[widest]--;
    }
}

size_t format_beginning(const char *text, int width, int *n_columns)
{
    size_t at = 0, n_bytes;

    for (*n_columns = 0; text[at]; at += n_bytes) {
        int columns = utf8_columns(text + at, &n_bytes);

        if (*n_columns + columns > width)
            break;
        *n_columns += columns;
    }
    return at;
}

int format_width(const char *text)
{
    int n;

    format_beginning(text, INT_MAX, &n);
    return n;
}

void format_cut(struct buf *text, int width)
{
    int n;

    if (width < 1 || format_width(buf_str(text)) <= width)
        return;
    text->n_bytes = format_beginning(text->data, width - 1, &n);
    buf_add_str(text, ELLIPSIS);
}

void format_clean(struct buf *text, size_t n_before)
{
    if (text->n_bytes <= n_before)
        return;
    utf8_hide_controls(text->data + n_before);
    text->n_bytes = n_before + strlen(text->data + n_before);
}

static void add_cell(struct buf *out, const struct json *row,
                     const struct table_column *column)
{
    const struct json *value = column->key ? json_get(row, column->key) : NULL;
    size_t start = out->n_bytes;

    if (column->cell)
        column->cell(out, row);
    else if (json_string(value))
        buf_add_str(out, json_string(value));
    else if (json_type(value) != JSON_NULL)
        json_write(out, value, 0);
    format_clean(out, start);
}

static void print_cell(FILE *out, const char *text, int width, bool is_right,
                       bool is_last)
{
    int pad = width - format_width(text);

    if (is_right)
        fprintf(out, "%*s%s", pad, "", text);
    else
        fprintf(out, "%s%*s", text, is_last ? 0 : pad, "");
    fputs(is_last ? "\n" : "  ", out);
}

static void print_line(FILE *out, const struct json *row,
                       const struct table_column *columns, const int *widths,
                       int n_columns)
{
    struct buf cell = BUF_INIT;

    for (int c = 0; c < n_columns; c++) {
        buf_reset(&cell);
        if (row)
            add_cell(&cell, row, &columns[c]);
        else
            buf_add_str(&cell, columns[c].title);
        format_cut(&cell, widths[c]);
        print_cell(out, buf_str(&cell), widths[c], columns[c].is_right,
                   c == n_columns - 1);
    }
    buf_fini(&cell);
}

void table_print(FILE *out, const struct json *rows, const struct table_column *columns,
                 int n_columns)
{
    bool is_whole[TABLE_COLUMNS_MAX] = {false};
    int widths[TABLE_COLUMNS_MAX] = {0};
    struct buf cell = BUF_INIT;

    for (int c = 0; c < n_columns && c < TABLE_COLUMNS_MAX; c++) {
        is_whole[c] = columns[c].is_right || columns[c].cell; /* times, made up */
        widths[c] = format_width(columns[c].title);
        for (size_t r = 0; r < json_count(rows); r++) {
            buf_reset(&cell);
            add_cell(&cell, json_at(rows, r), &columns[c]);
            if (format_width(buf_str(&cell)) > widths[c])
                widths[c] = format_width(buf_str(&cell));
        }
    }
    buf_fini(&cell);
    format_fit(widths, is_whole, n_columns, format_terminal_columns(out));
    print_line(out, NULL, columns, widths, n_columns);
    for (size_t r = 0; r < json_count(rows); r++)
        print_line(out, json_at(rows, r), columns, widths, n_columns);
}
