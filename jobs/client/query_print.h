/* query_print.h - the rows of an answer as a table, JSON, JSON lines or CSV
 *
 * JSON forms and CSV are written as the rows come; a table when all are there, for its
 * columns are as wide as they need be. Numbers with a unit of time or bytes are made
 * readable in tables only.
 * Owns: the rows of a table. Threads: one.
 */
#ifndef VNEVA_JOBS_CLIENT_QUERY_PRINT_H
#define VNEVA_JOBS_CLIENT_QUERY_PRINT_H

#include "common/base/json.h"

#include <stdio.h>

enum query_format { QUERY_TABLE, QUERY_JSON, QUERY_JSONL, QUERY_CSV };

/* By name; ERR_INVALID lists them. */
int query_format_find(enum query_format *out, const char *name, struct err *err);

struct query_printer {
    FILE *out;
    enum query_format format;
    int terminal_columns; /* long texts of a table are cut to fit; 0: nothing is cut */
    bool is_terminal;     /* out is one: what would steer it is hidden in CSV as well */
    bool drops_last;      /* the last column is not shown: it was asked for to go on */
    struct json *columns; /* of the first part */
    struct json *rows;    /* table: all of them */
    int64_t n_rows;
};

/* Prints, or keeps, what a part of the answer holds, most n_most rows of it. */
int query_print_part(struct query_printer *printer, const struct json *part,
                     int64_t n_most, struct err *err);
/* The rest, and what belongs behind the last row. The printer is empty afterwards. */
void query_print_end(struct query_printer *printer);
void query_printer_fini(struct query_printer *printer);

#endif
