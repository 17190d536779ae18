#include "dataprep/dataset/sql.h"

#include "common/base/buf.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int sql_fail(sqlite3 *db, struct err *err, const char *what)
{
    int code = db ? sqlite3_errcode(db) : SQLITE_NOMEM;
    enum err_code ours = code == SQLITE_NOMEM                              ? ERR_NOMEM
                         : code == SQLITE_CORRUPT || code == SQLITE_NOTADB ? ERR_FORMAT
                                                                           : ERR_IO;

    if (code == SQLITE_CANTOPEN && sqlite3_system_errno(db)) /* its text tells no cause */
        return err_set(err, ours, "%s: %s", what, strerror(sqlite3_system_errno(db)));
    return err_set(err, ours, "%s: %s", what, db ? sqlite3_errmsg(db) : "out of memory");
}

static int execute(sqlite3 *db, const char *text, struct err *err)
{
    if (sqlite3_exec(db, text, NULL, NULL, NULL) != SQLITE_OK)
        return sql_fail(db, err, "cannot set up the database");
    return 0;
}

int sql_create(struct sql_file *out, const char *path, const char *schema,
               struct err *err)
{
    int rc;

    if (fs_path(out->path, err, "%s", path) < 0 ||
        fs_path(out->temporary, err, "%s.tmp-%ld", path, (long)getpid()) < 0)
        return -1;
    if (unlink(out->temporary) < 0 && errno != ENOENT)
        return err_set(err, ERR_IO, "cannot remove '%s': %s", out->temporary,
                       strerror(errno));
    rc = sqlite3_open_v2(out->temporary, &out->db,
                         SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, NULL);
    if (rc != SQLITE_OK)
        sql_fail(out->db, err, "cannot create the database");
    if (rc != SQLITE_OK ||
        execute(out->db,
                "PRAGMA page_size = 4096; PRAGMA journal_mode = OFF;"
                "PRAGMA synchronous = OFF; PRAGMA locking_mode = EXCLUSIVE; BEGIN;",
                err) < 0 ||
        execute(out->db, schema, err) < 0)
        return err_wrap(err, "'%s'", out->temporary);
    return 0;
}

static void finalize_all(sqlite3 *db)
{
    sqlite3_stmt *s;

    while (db && (s = sqlite3_next_stmt(db, NULL)))
        sqlite3_finalize(s);
}

void sql_close(sqlite3 *db)
{
    finalize_all(db);
    sqlite3_close(db);
}

void sql_discard(struct sql_file *file)
{
    if (!file->db)
        return;
    sql_close(file->db);
    file->db = NULL;
    unlink(file->temporary);
}

static int sync_file(const char *path, struct err *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    int rc = fd < 0 ? -1 : fsync(fd);

    if (rc < 0)
        err_set(err, ERR_IO, "cannot flush '%s': %s", path, strerror(errno));
    if (fd >= 0)
        close(fd);
    return rc;
}

int sql_publish(struct sql_file *file, struct err *err)
{
    char folder[FS_PATH_MAX];

    finalize_all(file->db);
    if (sqlite3_exec(file->db, "COMMIT", NULL, NULL, NULL) != SQLITE_OK)
        return sql_fail(file->db, err, "cannot commit");
    if (sqlite3_close(file->db) != SQLITE_OK)
        return sql_fail(file->db, err, "cannot close");
    file->db = NULL;
    if (sync_file(file->temporary, err) < 0 || fs_parent(folder, file->path, err) < 0)
        return -1;
    if (rename(file->temporary, file->path) < 0)
        return err_set(err, ERR_IO, "cannot rename '%s' to '%s': %s", file->temporary,
                       file->path, strerror(errno));
    return fs_sync_dir(folder, err);
}

/* The path as a file: URI; immutable spares SQLite the locks and the journal. */
static int make_uri(struct buf *out, const char *path, struct err *err)
{
    buf_add_str(out, "file:");
    for (const char *c = path; *c; c++) {
        if (*c == '%' || *c == '?' || *c == '#')
            buf_printf(out, "%%%02x", (unsigned char)*c);
        else
            buf_add_char(out, *c);
    }
    buf_add_str(out, "?immutable=1");
    return buf_check(out, err);
}

int sql_open(sqlite3 **out, const char *path, struct err *err)
{
    struct buf uri = BUF_INIT;
    sqlite3 *db = NULL;
    int rc = make_uri(&uri, path, err);

    if (rc == 0 && !fs_exists(path))
        rc = err_set(err, ERR_NOT_FOUND, "it is not there");
    if (rc == 0 &&
        sqlite3_open_v2(buf_str(&uri), &db,
                        SQLITE_OPEN_READONLY | SQLITE_OPEN_URI | SQLITE_OPEN_NOMUTEX,
                        NULL) != SQLITE_OK)
        rc = sql_fail(db, err, "cannot open");
    buf_fini(&uri);
    if (rc < 0) {
        sqlite3_close(db);
        return -1;
    }
    *out = db;
    return 0;
}

int sql_prepare(sqlite3 *db, sqlite3_stmt **out, const char *text, struct err *err)
{
    if (sqlite3_prepare_v3(db, text, -1, SQLITE_PREPARE_PERSISTENT, out, NULL) !=
        SQLITE_OK)
        return sql_fail(db, err, "cannot read");
    return 0;
}

int sql_run(sqlite3 *db, sqlite3_stmt *statement, struct err *err)
{
    int rc = sqlite3_step(statement);

    if (rc != SQLITE_DONE)
        sql_fail(db, err, "cannot write");
    sqlite3_reset(statement);
    return rc == SQLITE_DONE ? 0 : -1;
}

void *sql_take_bytes(size_t *n_bytes, sqlite3_stmt *statement, int column)
{
    const void *bytes = sqlite3_column_blob(statement, column);
    char *copy;

    *n_bytes = (size_t)sqlite3_column_bytes(statement, column);
    if (sqlite3_column_type(statement, column) == SQLITE_NULL)
        return NULL;
    copy = malloc(*n_bytes + 1);
    if (!copy)
        return NULL;
    if (*n_bytes)
        memcpy(copy, bytes, *n_bytes);
    copy[*n_bytes] = '\0';
    return copy;
}
