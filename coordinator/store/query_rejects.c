/* The rejects of prepared datasets, from the lists their prepare jobs wrote. The database
 * holds how many there are and where the list lies; a copy of millions of lines in it
 * would serve nobody. A job that failed for its rejects has a list and no dataset. */
#include "common/base/fs.h"
#include "common/base/json.h"
#include "coordinator/store/query_internal.h"

#include <stdio.h>
#include <string.h>

/* The newest job of every folder: it wrote the list that is there. */
#define LISTS_SQL                                                                        \
    "SELECT max(j.id), coalesce(d.path, json_extract(j.spec, '$.model.data.output')) p," \
    " d.job IS NOT NULL FROM main.jobs j LEFT JOIN main.datasets d ON d.job = j.id"      \
    " WHERE j.kind = 'prepare' AND coalesce(d.n_rejects, 1) > 0 AND p IS NOT NULL"       \
    " GROUP BY p HAVING ?1 = 0 OR max(j.id) = ?1 ORDER BY 1"

#define LOOK_EVERY 256 /* lines between two looks at whether it is over */

struct filling {
    sqlite3 *db;
    sqlite3_stmt *insert;
    int (*is_over)(void *state);
    void *state;
    int64_t job, n_rows;
    const char *folder;
};

static int fail(struct filling *f, struct err *err)
{
    return err_set(err, ERR_IO, "cannot list the rejects: %s", sqlite3_errmsg(f->db));
}

static void bind(struct filling *f, int at, const char *text)
{
    sqlite3_bind_text(f->insert, at, text, -1, SQLITE_TRANSIENT);
}

/* line 0: none. Texts may be NULL. */
static int add_row(struct filling *f, const char *sample, const char *kind,
                   const char *reason, const char *file, int64_t line, struct err *err)
{
    if (++f->n_rows > QUERY_REJECTS_MAX)
        return err_set(err, ERR_LIMIT,
                       "there are more than %d rejects; ask for those of one job "
                       "(job=N), or `vneva data rejects FOLDER`",
                       QUERY_REJECTS_MAX);
    sqlite3_bind_int64(f->insert, 1, f->job);
    bind(f, 2, sample);
    bind(f, 3, kind);
    bind(f, 4, reason);
    bind(f, 5, file);
    if (line > 0)
        sqlite3_bind_int64(f->insert, 6, line);
    else
        sqlite3_bind_null(f->insert, 6);
    bind(f, 7, f->folder);
    if (sqlite3_step(f->insert) != SQLITE_DONE)
        return fail(f, err);
    sqlite3_reset(f->insert);
    return 0;
}

static int add_line(struct filling *f, const char *text, size_t n_bytes, struct err *err)
{
    struct json *row;
    struct err why;
    int rc;

    if (json_parse(&row, text, n_bytes, &why) < 0)
        return add_row(f, NULL, "unreadable", why.text, NULL, 0, err);
    rc = add_row(f, json_get_string(row, "id"), json_get_string(row, "kind"),
                 json_get_string(row, "reason"), json_get_string(row, "file"),
                 json_get_int(row, "line", 0), err);
    json_free(row);
    return rc;
}

static int add_lines(struct filling *f, const struct buf *text, struct err *err)
{
    const char *at = buf_str(text), *end = at + text->n_bytes;
    int64_t n = 0;

    while (at < end) {
        const char *newline = memchr(at, '\n', (size_t)(end - at));
        size_t n_bytes = (size_t)((newline ? newline : end) - at);

        if (n++ % LOOK_EVERY == 0 && f->is_over(f->state))
            return 1;
        if (n_bytes && add_line(f, at, n_bytes, err) < 0)
            return -1;
        at += n_bytes + 1;
    }
    return 0;
}

/* A list that is not there although there should be one is a row of its own: an empty
 * answer would say that nothing was refused. */
static int add_list(struct filling *f, bool is_expected, struct err *err)
{
    char path[FS_PATH_MAX];
    struct buf text = BUF_INIT;
    struct err why;
    int rc = 0;

    if (fs_path(path, &why, "%s/rejects.jsonl", f->folder) == 0 &&
        fs_read_file(&text, path, QUERY_REJECTS_BYTES, &why) == 0)
        rc = add_lines(f, &text, err);
    else if (is_expected || why.code == ERR_LIMIT)
        rc = add_row(f, NULL, "unreadable", why.text, NULL, 0, err);
    buf_fini(&text);
    return rc;
}

static int prepare_insert(struct filling *f, const char *table, struct err *err)
{
    char sql[128];

    snprintf(sql, sizeof(sql), "INSERT INTO temp.\"%s\" VALUES (NULL,?,?,?,?,?,?,?)",
             table);
    return sqlite3_prepare_v2(f->db, sql, -1, &f->insert, NULL) == SQLITE_OK
               ? 0
               : fail(f, err);
}

int query_fill_rejects(sqlite3 *db, const char *table, int64_t job,
                       int (*is_over)(void *state), void *state, struct err *err)
{
    struct filling f = {.db = db, .is_over = is_over, .state = state};
    sqlite3_stmt *lists = NULL;
    int rc = prepare_insert(&f, table, err), got = SQLITE_DONE;

    if (rc == 0 && sqlite3_prepare_v2(db, LISTS_SQL, -1, &lists, NULL) != SQLITE_OK)
        rc = fail(&f, err);
    if (rc == 0)
        sqlite3_bind_int64(lists, 1, job);
    while (rc == 0 && (got = sqlite3_step(lists)) == SQLITE_ROW) {
        f.job = sqlite3_column_int64(lists, 0);
        f.folder = (const char *)sqlite3_column_text(lists, 1);
        rc = add_list(&f, sqlite3_column_int(lists, 2) != 0, err);
    }
    if (rc == 0 && got != SQLITE_DONE)
        rc = fail(&f, err);
    sqlite3_finalize(lists);
    sqlite3_finalize(f.insert);
    return rc;
}
