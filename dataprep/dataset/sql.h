/* sql.h - SQLite as this folder uses it: files written once, read for ever
 *
 * Threads: one caller per database.
 */
#ifndef VNEVA_DATAPREP_DATASET_SQL_H
#define VNEVA_DATAPREP_DATASET_SQL_H

#include "common/base/err.h"
#include "common/base/fs.h"

#include <sqlite3.h>
#include <stddef.h>
#include <stdint.h>

/* A database that is being written: under a name of this process until it is published. */
struct sql_file {
    char path[FS_PATH_MAX], temporary[FS_PATH_MAX];
    sqlite3 *db; /* NULL before and after */
};

/* Begins a file for `path`, with the page size fixed and no journal: it is published by a
 * rename, so a crash leaves nothing to repair. Runs `schema` inside of the transaction
 * that it begins. out is zero before; whatever comes of it, sql_discard ends it. */
int sql_create(struct sql_file *out, const char *path, const char *schema,
               struct err *err);

/* Finalizes its statements, commits, closes, fsyncs and renames it over its path. */
int sql_publish(struct sql_file *file, struct err *err);

/* Removes it, unless it has been published, with its statements. */
void sql_discard(struct sql_file *file);

/* Opens a published database for reading; nobody writes it any more. */
int sql_open(sqlite3 **out, const char *path, struct err *err);
void sql_close(sqlite3 *db); /* and finalizes its statements; NULL is fine */

int sql_prepare(sqlite3 *db, sqlite3_stmt **out, const char *text, struct err *err);

/* What SQLite has to say about a call on `db` that did not work. */
int sql_fail(sqlite3 *db, struct err *err, const char *what);

/* Runs a statement that gives no rows, with what was bound, and makes it ready again. */
int sql_run(sqlite3 *db, sqlite3_stmt *statement, struct err *err);

/* A column's bytes, the caller's (free), with a NUL after them for texts. NULL when the
 * column is null or memory ran out. */
void *sql_take_bytes(size_t *n_bytes, sqlite3_stmt *statement, int column);

#endif
