#include "jobs/client/format.h"

#include "common/base/clock.h"

#include <inttypes.h>
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

/* Bytes that do not continue a character. */
static bool is_first_byte(char c)
{
    return ((unsigned char)c & 0xc0) != 0x80;
}

int format_width(const char *text)
{
    int n = 0;

    for (; *text; text++)
        n += is_first_byte(*text);
    return n;
}

void format_cut(struct buf *text, int width)
{
    size_t at = 0;
    int n = 0;

    if (width < 1 || format_width(buf_str(text)) <= width)
        return;
    for (; n < width; at++) /* to the first byte of the character that gives way */
        n += is_first_byte(text->data[at]);
    text->n_bytes = at - 1;
    buf_add_str(text, ELLIPSIS);
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
    for (size_t i = start; i < out->n_bytes; i++)
        if ((unsigned char)out->data[i] < 0x20 || out->data[i] == 0x7f)
            out->data[i] = '?';
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

void table_print(FILE *out, const struct json *rows, const struct table_column *columns,
                 int n_columns)
{
    int widths[TABLE_COLUMNS_MAX] = {0};
    struct buf cell = BUF_INIT;

    for (int c = 0; c < n_columns && c < TABLE_COLUMNS_MAX; c++) {
        widths[c] = format_width(columns[c].title);
        for (size_t r = 0; r < json_count(rows); r++) {
            buf_reset(&cell);
            add_cell(&cell, json_at(rows, r), &columns[c]);
            if (format_width(buf_str(&cell)) > widths[c])
                widths[c] = format_width(buf_str(&cell));
        }
    }
    for (int c = 0; c < n_columns; c++)
        print_cell(out, columns[c].title, widths[c], columns[c].is_right,
                   c == n_columns - 1);
    for (size_t r = 0; r < json_count(rows); r++)
        for (int c = 0; c < n_columns; c++) {
            buf_reset(&cell);
            add_cell(&cell, json_at(rows, r), &columns[c]);
            print_cell(out, buf_str(&cell), widths[c], columns[c].is_right,
                       c == n_columns - 1);
        }
    buf_fini(&cell);
}
