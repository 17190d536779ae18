/* store_internal.h - shared by the files of coordinator/store; not for others */
#ifndef VNEVA_COORDINATOR_STORE_STORE_INTERNAL_H
#define VNEVA_COORDINATOR_STORE_STORE_INTERNAL_H

#include "coordinator/store/store.h"

#include <sqlite3.h>
#include <stdio.h>

enum statement {
#define STATEMENT(name, sql) ST_##name,
#include "coordinator/store/statements.def"
#undef STATEMENT
    STATEMENT_COUNT
};

struct store {
    sqlite3 *db;
    int lock_fd; /* holds the lock of PATH.lock; -1: none */
    sqlite3_stmt *statements[STATEMENT_COUNT];
    bool is_open_turn;           /* a transaction is open */
    struct err failure;          /* of the first write that failed; ERR_NONE: none */
    int64_t n_events, n_metrics; /* since they were last trimmed */
};

/* A value to bind: whole number, double or text (NULL binds NULL). */
struct value {
    enum { VALUE_INT, VALUE_DOUBLE, VALUE_TEXT } type;
    int64_t whole;
    double number;
    const char *text;
};

#define INT(x)                                                                           \
    {                                                                                    \
        VALUE_INT, (x), 0, NULL                                                          \
    }
#define DOUBLE(x)                                                                        \
    {                                                                                    \
        VALUE_DOUBLE, 0, (x), NULL                                                       \
    }
#define TEXT(x)                                                                          \
    {                                                                                    \
        VALUE_TEXT, 0, 0, (x)                                                            \
    }
#define NONE TEXT(NULL)
#define VALUES(...)                                                                      \
    (const struct value[]){__VA_ARGS__},                                                 \
        sizeof((const struct value[]){__VA_ARGS__}) / sizeof(struct value)

/* Fills err from SQLite's last error; returns -1. */
int store_sqlite_error(struct store *store, struct err *err, const char *what);

int store_migrate(struct store *store, struct err *err);

/* Runs a writing statement in the open transaction; a failure is kept for the commit. */
void store_write(struct store *store, enum statement which, const struct value *values,
                 size_t n_values);

/* Binds and resets a reading statement; store_next gives 1 for a row, 0 at the end, -1. */
sqlite3_stmt *store_read(struct store *store, enum statement which,
                         const struct value *values, size_t n_values);
int store_next(struct store *store, sqlite3_stmt *statement, struct err *err);

/* Columns 0, 1, ... of whole numbers into the places given. */
void store_read_ints(sqlite3_stmt *statement, int64_t *const *places, int count);
#define READ_INTS(statement, ...)                                                        \
    store_read_ints(statement, (int64_t *const[]){__VA_ARGS__},                          \
                    (int)(sizeof((int64_t *const[]){__VA_ARGS__}) / sizeof(int64_t *)))
/* Columns first, first + 1, ... of texts, "" for NULL. */
void store_read_texts(sqlite3_stmt *statement, int first, const char **const *places,
                      int count);
#define READ_TEXTS(statement, first, ...)                                                \
    store_read_texts(                                                                    \
        statement, first, (const char **const[]){__VA_ARGS__},                           \
        (int)(sizeof((const char **const[]){__VA_ARGS__}) / sizeof(char **)))

#endif
