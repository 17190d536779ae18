/* query_internal.h - shared by the query files of coordinator/store; not for others */
#ifndef VNEVA_COORDINATOR_STORE_QUERY_INTERNAL_H
#define VNEVA_COORDINATOR_STORE_QUERY_INTERNAL_H

#include "coordinator/store/query.h"

#include <sqlite3.h>

#define QUERY_SECRET_MAX 20

struct query_value {
    enum { QUERY_INT, QUERY_REAL, QUERY_TEXT } type;
    int64_t whole;
    double number;
    char *text; /* owned */
};

/* A SELECT and what stands for its question marks. */
struct query_select {
    struct buf sql;
    struct query_value *values; /* [n_values] */
    size_t n_values, capacity;
    int64_t job; /* the only one it is about, when it is a plain "job=N"; else 0 */
};

/* query_where.c: a view's question as a SELECT. */
int query_translate(struct query_select *out, const struct query_request *request,
                    int64_t now_ms, struct err *err);
void query_select_fini(struct query_select *select);

/* query_values.c: a word of a condition as a value of a column's type and unit. */
int query_read_value(struct query_value *out, const struct query_column *column,
                     const char *word, const struct query_request *request,
                     int64_t now_ms, struct err *err);

/* query_answer.c: all rows of a statement, appended to out. view: NULL for a SELECT of the
 * asker's own. 1: SQLite stopped with *code, which the caller explains. */
int query_write(struct query_answer *out, sqlite3_stmt *statement,
                const struct query_view *view, const struct query_bounds *bounds,
                int *code, struct err *err);

/* query_rejects.c: puts the rejects of every dataset (of one job, when it is not 0) into
 * the table of that name. Reads files: not for the coordinator's loop. 1: is_over said so. */
int query_fill_rejects(sqlite3 *db, const char *table, int64_t job,
                       int (*is_over)(void *state), void *state, struct err *err);

#endif
