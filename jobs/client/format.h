/* format.h - numbers and times for people, and tables of rows */
#ifndef VNEVA_JOBS_CLIENT_FORMAT_H
#define VNEVA_JOBS_CLIENT_FORMAT_H

#include "common/base/buf.h"
#include "common/base/json.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

void format_time(struct buf *out, int64_t wall_ms); /* "2026-03-01 12:00:00", local */
void format_duration(struct buf *out, int64_t ms);  /* "3 h 02 min", "12 s" */
/* From a row's started_ms to its ended_ms, or till now; nothing before the start. */
void format_span(struct buf *out, const struct json *row);
void format_bytes(struct buf *out, uint64_t bytes); /* "1.5 GiB" */
void format_count(struct buf *out, int64_t n);      /* "22.6 B", "803 k", "512" */

/* ---- tables ---- */

#define FORMAT_GAP 2       /* spaces between two columns of a table */
#define FORMAT_CELL_MIN 10 /* characters that a cell keeps on however narrow a terminal */

/* Columns of the terminal that out is; 0: it is none, and nothing is to be cut. */
int format_terminal_columns(FILE *out);
/* Makes the widest columns narrower until all fit beside each other; is_whole: those whose
 * cells are not cut. columns 0: they stay as they are. */
void format_fit(int *widths, const bool *is_whole, int n_widths, int columns);
/* Cuts UTF-8 text to so many columns; the last of them is then an ellipsis. */
void format_cut(struct buf *text, int width);
int format_width(const char *text); /* columns of a terminal */
/* Bytes of the longest beginning of a text that fits, and its columns. */
size_t format_beginning(const char *text, int width, int *n_columns);
/* utf8_hide_controls of what was added since the buffer had n_before bytes: names and
 * reasons come from anywhere. */
void format_clean(struct buf *text, size_t n_before);

struct table_column {
    const char *title;
    const char *key; /* member of a row that is shown as it is; or cell */
    void (*cell)(struct buf *out, const struct json *row);
    bool is_right; /* numbers */
};

/* A line for each row under titles, columns as wide as they need be, on a terminal cut to
 * fit; the last one is not padded. */
void table_print(FILE *out, const struct json *rows, const struct table_column *columns,
                 int n_columns);

#endif
