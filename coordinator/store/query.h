/* query.h - questions about the views, answered from a connection of their own
 *
 * A question is either a view with conditions, columns, an order and a limit in the words
 * of the command line, or a SELECT of the asker's own. Both see the views of
 * query_views.c and nothing else: SQLite's authorizer refuses every other table, every
 * write, ATTACH, PRAGMA and all functions that are not named in query.c. The connection
 * is opened read-only for one question and closed after it, so it holds neither locks nor
 * a snapshot between two, and sees what was committed when it began.
 * Threads: any; nothing is shared but the database file.
 * Bounds: QUERY_*_MAX below, each an ERR_LIMIT that says how to ask for less.
 */
#ifndef VNEVA_COORDINATOR_STORE_QUERY_H
#define VNEVA_COORDINATOR_STORE_QUERY_H

#include "common/base/buf.h"
#include "common/base/err.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define QUERY_ROWS_MAX 200000      /* of an answer */
#define QUERY_BYTES_MAX (32 << 20) /* of it as JSON */
#define QUERY_TIME_MAX_MS 5000
#define QUERY_PART_MAX (8 << 20)       /* bytes of a part, and so of a row */
#define QUERY_PART_BYTES (256 << 10)   /* an answer comes in parts of about this size */
#define QUERY_SQL_MAX (64 << 10)       /* bytes of a SELECT */
#define QUERY_TEXT_MAX (4 << 20)       /* bytes of one value */
#define QUERY_CONDITIONS_MAX 32        /* of one question */
#define QUERY_REJECTS_MAX 200000       /* lines read of rejects.jsonl files */
#define QUERY_REJECTS_BYTES (64 << 20) /* of one such file */

struct query_request {    /* texts are borrowed, none is NULL */
    const char *sql;      /* a SELECT; "" for a view */
    const char *view;     /* its name */
    const char *where;    /* JSON list of words: ["state=running", "and", "loss<2"] */
    const char *columns;  /* "id,state"; "" for all, or for those that are shown */
    const char *sort;     /* "loss,-id"; "" for the order of id */
    int64_t after;        /* rows with a higher id only; 0: all */
    int64_t limit;        /* rows at most; 0: no limit but the bounds */
    int64_t utc_offset_s; /* of the asker's local time, in which dates are read */
    bool has_id;          /* of a view: the row's id as a last column, to go on from */
    bool is_short;        /* columns "": those that fit a screen */
};

/* {"columns": [{"name", "type", "unit"}, ...], "rows": [[value, ...], ...]}, in order; all
 * parts have the same columns and there is at least one part. */
struct query_answer {
    char **parts;
    size_t n_parts, capacity;
};

/* What a question may take; tests ask with less than usual. */
struct query_bounds {
    int64_t rows, bytes, time_ms;
};
extern const struct query_bounds query_bounds_usual; /* QUERY_*_MAX */

/* stop: when it becomes true the question ends with ERR_STATE. now_ms: wall time that "2h
 * ago" counts from. */
int query_run(struct query_answer *out, const char *database,
              const struct query_request *request, const struct query_bounds *bounds,
              const atomic_bool *stop, int64_t now_ms, struct err *err);
void query_answer_fini(struct query_answer *answer);

/* ---- the views, for docs/query.md and its test ---- */

struct query_column {
    const char *name;
    const char *type; /* integer, real, text, boolean, json */
    const char *unit; /* "time": ms since 1970; "ms", "bytes", "samples", ... or "" */
    bool is_short;    /* among the columns of a table on a screen */
    const char *meaning;
};

struct query_view {
    const char *name, *meaning;
    const char *sql;                    /* its rows; NULL: filled when it is asked for */
    const struct query_column *columns; /* ends with a NULL name */
};

extern const struct query_view query_views[]; /* ends with a NULL name */

/* ERR_INVALID names the nearest one there is. */
const struct query_view *query_find_view(const char *name, struct err *err);
/* name may lack its unit ("submitted" for submitted_ms). ERR_INVALID as above. */
const struct query_column *query_find_column(const struct query_view *view,
                                             const char *name, struct err *err);

#endif
