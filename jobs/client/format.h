/* format.h - numbers and times for people, and tables of rows */
#ifndef VNEVA_JOBS_CLIENT_FORMAT_H
#define VNEVA_JOBS_CLIENT_FORMAT_H

#include "common/base/buf.h"
#include "common/base/json.h"

#include <stdint.h>
#include <stdio.h>

void format_time(struct buf *out, int64_t wall_ms); /* "2026-03-01 12:00:00", local */
void format_duration(struct buf *out, int64_t ms);  /* "3 h 02 min", "12 s" */
/* From a row's started_ms to its ended_ms, or till now; nothing before the start. */
void format_span(struct buf *out, const struct json *row);
void format_bytes(struct buf *out, uint64_t bytes); /* "1.5 GiB" */
void format_count(struct buf *out, int64_t n);      /* "22.6 B", "803 k", "512" */

struct table_column {
    const char *title;
    const char *key; /* member of a row that is shown as it is; or cell */
    void (*cell)(struct buf *out, const struct json *row);
    bool is_right; /* numbers */
};

/* A line for each row under titles, columns as wide as they need be; the last one is not
 * padded. Control characters in texts become '?'. */
void table_print(FILE *out, const struct json *rows, const struct table_column *columns,
                 int n_columns);

#endif
