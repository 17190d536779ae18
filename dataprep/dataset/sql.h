/* sql.h - SQLite as this folder uses it: files written once, read for ever
 *
 * Threads: one caller per database.
 */
#ifndef VNEVA_DATAPREP_DATASET_SQL_H
#define VNEVA_DATAPREP_DATASET_SQL_H

#include "common/base/err.h"

#include <sqlite3.h>
#include <stddef.h>
#include <stdint.h>

/* Makes a new database at path (one that is there is removed), with the page size fixed
 * and no journal: it is published by a rename, so a crash leaves nothing to repair.
 * Runs `schema` inside of the transaction that it begins. */
int sql_create(sqlite3 **out, const char *path, const char *schema, struct err *err);

/* Commits, closes, fsyncs `temporary` and renames it over `path`. *db is NULL after. */
int sql_publish(sqlite3 **db, const char *temporary, const char *path, struct err *err);

/* Opens a published database for reading; nobody writes it any more. */
int sql_open(sqlite3 **out, const char *path, struct err *err);

int sql_prepare(sqlite3 *db, sqlite3_stmt **out, const char *text, struct err *err);

/* What SQLite has to say about a call on `db` that did not work. */
int sql_fail(sqlite3 *db, struct err *err, const char *what);

/* Runs a statement that gives no rows, with what was bound, and makes it ready again. */
int sql_run(sqlite3 *db, sqlite3_stmt *statement, struct err *err);

/* A column's bytes, the caller's (free), with a NUL after them for texts. NULL when the
 * column is null or memory ran out. */
void *sql_take_bytes(size_t *n_bytes, sqlite3_stmt *statement, int column);

#endif
