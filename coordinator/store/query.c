/* One question, from the opening of its connection to the end of it.
 *
 * Every view V is two: temp view "V@SECRET" over the tables, and temp view V over that.
 * The authorizer lets tables be read from within "V@SECRET" only. A name alone would not
 * do as proof: SQLite gives the authorizer the name of the FROM item that reads, which in
 * "WITH jobs AS (SELECT * FROM main.jobs) ..." is "jobs" too. The secret is new for every
 * question and EXPLAIN, which could show it, is refused.
 */
#include "coordinator/store/query_internal.h"

#include "common/base/clock.h"
#include "common/base/suggest.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define PROGRESS_STEPS 1000 /* of SQLite's machine between two looks at the clock */
#define BUSY_MS 1000        /* a checkpoint of the write-ahead log may hold it briefly */

/* All that a question may call. No function here reads a file, loads code or changes
 * anything; those that build texts are bounded by QUERY_TEXT_MAX. */
static const char *const functions[] = {"abs",
                                        "avg",
                                        "ceil",
                                        "ceiling",
                                        "char",
                                        "coalesce",
                                        "concat",
                                        "concat_ws",
                                        "count",
                                        "cume_dist",
                                        "date",
                                        "datetime",
                                        "dense_rank",
                                        "exp",
                                        "first_value",
                                        "floor",
                                        "format",
                                        "glob",
                                        "group_concat",
                                        "hex",
                                        "ifnull",
                                        "iif",
                                        "instr",
                                        "json",
                                        "json_array",
                                        "json_array_length",
                                        "json_extract",
                                        "json_group_array",
                                        "json_group_object",
                                        "json_object",
                                        "json_patch",
                                        "json_quote",
                                        "json_type",
                                        "json_valid",
                                        "julianday",
                                        "lag",
                                        "last_value",
                                        "lead",
                                        "length",
                                        "like",
                                        "likelihood",
                                        "likely",
                                        "ln",
                                        "log",
                                        "log10",
                                        "log2",
                                        "lower",
                                        "ltrim",
                                        "max",
                                        "min",
                                        "mod",
                                        "nth_value",
                                        "ntile",
                                        "nullif",
                                        "octet_length",
                                        "percent_rank",
                                        "pow",
                                        "power",
                                        "printf",
                                        "quote",
                                        "random",
                                        "rank",
                                        "replace",
                                        "round",
                                        "row_number",
                                        "rtrim",
                                        "sign",
                                        "sqrt",
                                        "strftime",
                                        "string_agg",
                                        "substr",
                                        "substring",
                                        "sum",
                                        "time",
                                        "timediff",
                                        "total",
                                        "trim",
                                        "trunc",
                                        "typeof",
                                        "unicode",
                                        "unixepoch",
                                        "unlikely",
                                        "upper",
                                        "->",
                                        "->>"};

const struct query_bounds query_bounds_usual = {QUERY_ROWS_MAX, QUERY_BYTES_MAX,
                                                QUERY_TIME_MAX_MS};

struct query {
    sqlite3 *db;
    char secret[QUERY_SECRET_MAX]; /* "@" and hexadecimal digits */
    bool is_guarded;  /* the question itself is at work, not its setting up */
    bool has_rejects; /* it reads them */
    char denied[160]; /* what it was refused; "": nothing */
    const struct query_bounds *bounds;
    int64_t end_ms;
    const atomic_bool *stop;
    bool is_late;
};

static int fail(struct query *q, struct err *err, const char *what)
{
    return err_set(err, ERR_IO, "%s: %s", what, sqlite3_errmsg(q->db));
}

/* ---- what is allowed ---- */

static bool is_function(const char *name)
{
    for (size_t i = 0; i < sizeof(functions) / sizeof(functions[0]); i++)
        if (sqlite3_stricmp(name, functions[i]) == 0)
            return true;
    return false;
}

static bool is_view(const char *name)
{
    for (const struct query_view *v = query_views; v->name; v++)
        if (sqlite3_stricmp(name, v->name) == 0)
            return true;
    return false;
}

/* Is it one of the inner views, which nobody can name? */
static bool is_inner(const struct query *q, const char *name)
{
    const char *at = name ? strchr(name, '@') : NULL;

    return at && strcmp(at, q->secret) == 0;
}

static bool may_read(struct query *q, const char *table, const char *column,
                     const char *schema, const char *reader)
{
    if (is_inner(q, table) || is_inner(q, reader)) {
        if (is_inner(q, table) && strncmp(table, "rejects@", 8) == 0)
            q->has_rejects = true;
        return true;
    }
    if (is_view(table) && schema && strcmp(schema, "temp") == 0)
        return true;
    /* That rows are only counted does not say by whom: how many there are is no secret. */
    return !*column && sqlite3_strnicmp(table, "sqlite_", 7) != 0 &&
           sqlite3_strnicmp(table, "pragma_", 7) != 0;
}

static int authorize(void *state, int action, const char *a, const char *b,
                     const char *schema, const char *reader)
{
    struct query *q = state;

    if (!q->is_guarded || action == SQLITE_SELECT || action == SQLITE_RECURSIVE)
        return SQLITE_OK;
    if (action == SQLITE_READ && may_read(q, a, b, schema, reader))
        return SQLITE_OK;
    if (action == SQLITE_FUNCTION && (is_inner(q, reader) || is_function(b)))
        return SQLITE_OK;
    if (action == SQLITE_READ)
        snprintf(q->denied, sizeof(q->denied), "'%s' is none of the views", a);
    else if (action == SQLITE_FUNCTION)
        snprintf(q->denied, sizeof(q->denied), "function %s() may not be called", b);
    else
        snprintf(q->denied, sizeof(q->denied), "only SELECT is allowed");
    return SQLITE_DENY;
}

/* True ends the question. */
static int on_progress(void *state)
{
    struct query *q = state;

    q->is_late = clock_mono_ms() >= q->end_ms;
    return q->is_late || atomic_load(q->stop);
}

/* ---- setting up ---- */

static int make_secret(struct query *q, struct err *err)
{
    uint64_t number;

    if (getrandom(&number, sizeof(number), 0) != (ssize_t)sizeof(number))
        return err_set(err, ERR_IO, "cannot draw a random number");
    snprintf(q->secret, sizeof(q->secret), "@%016llx", (unsigned long long)number);
    return 0;
}

static void add_sql_text(struct buf *sql, const char *text)
{
    buf_add_char(sql, '\'');
    for (; *text; text++) {
        if (*text == '\'')
            buf_add_char(sql, '\'');
        buf_add_char(sql, *text);
    }
    buf_add_char(sql, '\'');
}

/* The view of the views: one row a column. */
static void add_views_rows(struct buf *sql)
{
    int n = 0;

    for (const struct query_view *v = query_views; v->name; v++)
        for (const struct query_column *c = v->columns; c->name; c++) {
            const char *const texts[] = {v->name, c->name, c->type, c->unit, c->meaning};

            buf_printf(sql, "%s(%d", n ? "," : "VALUES ", n + 1);
            n++;
            for (int i = 0; i < 5; i++) {
                buf_add_char(sql, ',');
                add_sql_text(sql, texts[i]);
            }
            buf_add_char(sql, ')');
        }
}

static void add_names(struct buf *sql, const struct query_view *view, const char *types)
{
    buf_add_str(sql, " (");
    for (const struct query_column *c = view->columns; c->name; c++)
        buf_printf(sql, "%s\"%s\"%s", c == view->columns ? "" : ", ", c->name,
                   *types && c == view->columns ? types : "");
    buf_add_char(sql, ')');
}

static void add_view(struct buf *sql, const struct query *q,
                     const struct query_view *view)
{
    bool is_filled = !view->sql && strcmp(view->name, "views") != 0;

    buf_printf(sql, "CREATE TEMP %s \"%s%s\"", is_filled ? "TABLE" : "VIEW", view->name,
               q->secret);
    if (is_filled) {
        add_names(sql, view, " INTEGER PRIMARY KEY");
    } else {
        add_names(sql, view, "");
        buf_add_str(sql, " AS ");
        if (view->sql)
            buf_add_str(sql, view->sql);
        else
            add_views_rows(sql);
    }
    buf_printf(sql, ";CREATE TEMP VIEW \"%s\" AS SELECT * FROM temp.\"%s%s\";",
               view->name, view->name, q->secret);
}

static void set_limits(sqlite3 *db)
{
    static const struct {
        int which, value;
    } limits[] = {{SQLITE_LIMIT_LENGTH, QUERY_TEXT_MAX},
                  {SQLITE_LIMIT_SQL_LENGTH, QUERY_SQL_MAX},
                  {SQLITE_LIMIT_COLUMN, 500},
                  {SQLITE_LIMIT_EXPR_DEPTH, 200},
                  {SQLITE_LIMIT_COMPOUND_SELECT, 50},
                  {SQLITE_LIMIT_VDBE_OP, 100000},
                  {SQLITE_LIMIT_ATTACHED, 0},
                  {SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 1000},
                  {SQLITE_LIMIT_WORKER_THREADS, 0}};

    for (size_t i = 0; i < sizeof(limits) / sizeof(limits[0]); i++)
        sqlite3_limit(db, limits[i].which, limits[i].value);
}

static int set_up(struct query *q, const char *database, struct err *err)
{
    struct buf sql = BUF_INIT;
    int rc;

    if (make_secret(q, err) < 0)
        return -1;
    if (sqlite3_open_v2(database, &q->db, SQLITE_OPEN_READONLY | SQLITE_OPEN_NOMUTEX,
                        NULL) != SQLITE_OK)
        return err_set(err, ERR_IO, "cannot open '%s': %s", database,
                       q->db ? sqlite3_errmsg(q->db) : "no memory");
    sqlite3_busy_timeout(q->db, BUSY_MS);
    sqlite3_db_config(q->db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
    sqlite3_set_authorizer(q->db, authorize, q);
    buf_add_str(&sql, "PRAGMA temp_store = MEMORY;");
    for (const struct query_view *v = query_views; v->name; v++)
        add_view(&sql, q, v);
    rc = buf_check(&sql, err);
    if (rc == 0 && sqlite3_exec(q->db, buf_str(&sql), NULL, NULL, NULL) != SQLITE_OK)
        rc = fail(q, err, "cannot make the views");
    buf_fini(&sql);
    set_limits(q->db);
    sqlite3_progress_handler(q->db, PROGRESS_STEPS, on_progress, q);
    return rc;
}

/* ---- the statement ---- */

/* What stands behind `before` in SQLite's own message; NULL: it says something else. */
static const char *name_behind(const char *said, const char *before)
{
    return strncmp(said, before, strlen(before)) == 0 ? said + strlen(before) : NULL;
}

/* The nearest column of any view: a SELECT may have several. NULL: none is near. */
static const char *find_near_column(const char *name)
{
    const char *dot = strrchr(name, '.');
    struct suggest known = {.word = dot ? dot + 1 : name};

    for (const struct query_view *v = query_views; v->name; v++)
        for (const struct query_column *c = v->columns; c->name; c++)
            suggest_offer(&known, c->name);
    return known.near;
}

/* "no such table: jbos" gets the view that may be meant, a column likewise. */
static void suggest(struct query *q, struct err *err)
{
    const char *said = sqlite3_errmsg(q->db);
    const char *view = name_behind(said, "no such table: ");
    const char *column = name_behind(said, "no such column: ");
    const char *near = column ? find_near_column(column) : NULL;
    struct err why;

    if (view && !query_find_view(view, &why))
        err_set(err, ERR_INVALID, "SQL: %s", why.text);
    else if (near)
        err_set(err, ERR_INVALID, "SQL: %s; did you mean '%s'?", said, near);
    else
        err_set(err, ERR_INVALID, "SQL: %s", said);
}

static int explain_failure(struct query *q, struct err *err, int sqlite_code)
{
    switch (sqlite_code & 0xff) {
    case SQLITE_INTERRUPT:
        if (q->is_late)
            return err_set(err, ERR_LIMIT,
                           "the question takes longer than %lld ms; narrow it (where, "
                           "a job, LIMIT)",
                           (long long)q->bounds->time_ms);
        return err_set(err, ERR_STATE, "the coordinator ends");
    case SQLITE_TOOBIG:
        return err_set(err, ERR_LIMIT,
                       "SQL: %s (a SELECT has at most %d bytes, a value %d)",
                       sqlite3_errmsg(q->db), QUERY_SQL_MAX, QUERY_TEXT_MAX);
    case SQLITE_BUSY:
    case SQLITE_IOERR:
    case SQLITE_CORRUPT:
    case SQLITE_CANTOPEN:
        return err_set(err, ERR_IO, "cannot read the database: %s",
                       sqlite3_errmsg(q->db));
    case SQLITE_NOMEM:
        return err_set(err, ERR_NOMEM, "no memory for the answer");
    default:
        if (q->denied[0])
            return err_set(err, ERR_DENIED, "%s; `vneva query views` lists what there is",
                           q->denied);
        suggest(q, err);
        return -1;
    }
}

static bool is_blank(const char *sql)
{
    return sql[strspn(sql, " \t\r\n;")] == '\0';
}

static int prepare(struct query *q, sqlite3_stmt **out, const char *sql, struct err *err)
{
    const char *tail = "";
    int code;

    q->is_guarded = true;
    code = sqlite3_prepare_v2(q->db, sql, -1, out, &tail);
    q->is_guarded = false;
    if (code != SQLITE_OK)
        return explain_failure(q, err, code);
    if (!*out)
        return err_set(err, ERR_INVALID, "there is no SELECT in it");
    if (!is_blank(tail))
        return err_set(err, ERR_INVALID, "more than one statement; ask one at a time");
    if (sqlite3_stmt_isexplain(*out) || !sqlite3_stmt_readonly(*out))
        return err_set(err, ERR_DENIED, "only SELECT is allowed");
    return 0;
}

static int bind_values(struct query *q, sqlite3_stmt *statement,
                       const struct query_select *select, struct err *err)
{
    for (size_t i = 0; i < select->n_values; i++) {
        const struct query_value *v = &select->values[i];
        int at = (int)i + 1, code;

        if (v->type == QUERY_INT)
            code = sqlite3_bind_int64(statement, at, v->whole);
        else if (v->type == QUERY_REAL)
            code = sqlite3_bind_double(statement, at, v->number);
        else
            code = sqlite3_bind_text(statement, at, v->text, -1, SQLITE_STATIC);
        if (code != SQLITE_OK)
            return fail(q, err, "cannot bind a value");
    }
    return 0;
}

/* ---- all of it ---- */

static int answer(struct query *q, struct query_answer *out,
                  const struct query_view *view, const struct query_select *select,
                  struct err *err)
{
    sqlite3_stmt *statement = NULL;
    char rejects[32];
    int rc = prepare(q, &statement, buf_str(&select->sql), err), code = SQLITE_OK;

    if (rc == 0)
        rc = bind_values(q, statement, select, err);
    snprintf(rejects, sizeof(rejects), "rejects%s", q->secret);
    if (rc == 0 && q->has_rejects)
        rc = query_fill_rejects(q->db, rejects, select->job, on_progress, q, err);
    if (rc > 0)
        code = SQLITE_INTERRUPT;
    q->is_guarded = true; /* SQLite may prepare it once more */
    if (rc == 0)
        rc = query_write(out, statement, view, q->bounds, &code, err);
    if (rc > 0)
        rc = explain_failure(q, err, code);
    sqlite3_finalize(statement);
    return rc;
}

static int check_sql(struct query_select *out, const char *sql, struct err *err)
{
    if (strlen(sql) > QUERY_SQL_MAX)
        return err_set(err, ERR_LIMIT, "a SELECT has at most %d bytes", QUERY_SQL_MAX);
    buf_add_str(&out->sql, sql);
    return buf_check(&out->sql, err);
}

int query_run(struct query_answer *out, const char *database,
              const struct query_request *request, const struct query_bounds *bounds,
              const atomic_bool *stop, int64_t now_ms, struct err *err)
{
    struct query q = {
        .stop = stop, .bounds = bounds, .end_ms = clock_mono_ms() + bounds->time_ms};
    struct query_select select = {0};
    bool is_sql = request->sql[0] != '\0';
    int rc = is_sql ? check_sql(&select, request->sql, err)
                    : query_translate(&select, request, now_ms, err);

    *out = (struct query_answer){0};
    if (rc == 0)
        rc = set_up(&q, database, err);
    if (rc == 0)
        rc = answer(&q, out, is_sql ? NULL : query_find_view(request->view, err), &select,
                    err);
    sqlite3_close(q.db);
    query_select_fini(&select);
    if (rc < 0)
        query_answer_fini(out);
    return rc;
}
