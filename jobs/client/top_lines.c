/* Lines of a screen. Widths are columns of the terminal. */
#include "common/base/utf8.h"
#include "jobs/client/format.h"
#include "jobs/client/top_draw.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

int64_t top_since(const struct top_drawing *d, const struct json *row, const char *key)
{
    int64_t ms = d->data->now_ms - json_get_int(row, key, d->data->now_ms);

    return ms > 0 ? ms : 0;
}

int top_clamp(int x, int low, int high)
{
    return x < low ? low : x > high ? high : x;
}

void top_screen_fini(struct top_screen *screen)
{
    for (int i = 0; i < screen->n_lines; i++)
        free(screen->lines[i].text);
    screen->n_lines = 0;
}

/* The part of a text that fits; a reversed line is filled up with spaces. */
static char *fit(struct buf *line, int width, bool is_filled)
{
    int n_columns;
    size_t n = format_beginning(buf_str(line), width, &n_columns);

    if (line->n_bytes > n) {
        line->n_bytes = n;
        line->data[n] = '\0';
    }
    for (; is_filled && n_columns < width; n_columns++)
        buf_add_char(line, ' ');
    return buf_take(line);
}

/* What the terminal's locale cannot show. */
static void to_ascii(struct buf *line)
{
    size_t n = 0, n_bytes;

    for (size_t at = 0; at < line->n_bytes; at += n_bytes) {
        utf8_columns(line->data + at, &n_bytes);
        line->data[n++] = n_bytes > 1 || line->data[at] < 0 ? '?' : line->data[at];
    }
    if (line->n_bytes)
        line->data[n] = '\0';
    line->n_bytes = n;
}

void top_end_line(struct top_drawing *d, enum top_look look)
{
    struct top_screen *s = d->screen;

    format_clean(&d->line, 0);
    if (!d->top->is_utf8)
        to_ascii(&d->line);
    if (s->n_lines < s->height && s->n_lines < TOP_LINES_MAX) {
        char *text = fit(&d->line, s->width, look == TOP_REVERSE);

        if (text)
            s->lines[s->n_lines++] = (struct top_line){text, look};
    }
    buf_fini(&d->line);
}

int top_lines_left(const struct top_drawing *d)
{
    return d->screen->height - d->screen->n_lines;
}

void top_add_cell(struct buf *line, const char *text, int width, bool is_right)
{
    int n;
    size_t bytes = format_beginning(text, width, &n);

    for (int i = n; is_right && i < width; i++)
        buf_add_char(line, ' ');
    buf_add(line, text, bytes);
    for (int i = n; !is_right && i < width; i++)
        buf_add_char(line, ' ');
    buf_add_str(line, "  ");
}

void top_add_int_cell(struct buf *line, const struct json *row, const char *key,
                      int width)
{
    char text[32] = "";

    if (json_type(json_get(row, key)) == JSON_INT)
        snprintf(text, sizeof(text), "%" PRId64, json_get_int(row, key, 0));
    top_add_cell(line, text, width, true);
}
