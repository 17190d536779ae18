#define _GNU_SOURCE /* flock */
#include "common/base/fault.h"
#include "common/base/fs.h"
#include "coordinator/store/store_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define STORE_BUSY_MS 2000 /* a shell that looks at the database may hold it briefly */
#define STORE_TRIM_EVERY 1000

static const char *const statements[STATEMENT_COUNT] = {
#define STATEMENT(name, sql) [ST_##name] = (sql),
#include "coordinator/store/statements.def"
#undef STATEMENT
};

static enum err_code code_of(int sqlite_code)
{
    switch (sqlite_code & 0xff) {
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
        return ERR_FORMAT;
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return ERR_EXISTS;
    case SQLITE_NOMEM:
        return ERR_NOMEM;
    default:
        return ERR_IO;
    }
}

int store_sqlite_error(struct store *store, struct err *err, const char *what)
{
    return err_set(err, code_of(sqlite3_extended_errcode(store->db)), "%s: %s", what,
                   sqlite3_errmsg(store->db));
}

/* Two coordinators on one database would both hand out its tasks. SQLite's own lock
 * (locking_mode=EXCLUSIVE) would shut out a shell that looks as well; that of the socket
 * does not help when the other one listens elsewhere. */
static int lock(struct store *store, const char *path, struct err *err)
{
    char lock_path[FS_PATH_MAX];

    if (fs_path(lock_path, err, "%s.lock", path) < 0)
        return -1;
    store->lock_fd = open(lock_path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (store->lock_fd < 0)
        return err_set(err, ERR_IO, "cannot open '%s': %s", lock_path, strerror(errno));
    if (flock(store->lock_fd, LOCK_EX | LOCK_NB) == 0)
        return 0;
    if (errno == EWOULDBLOCK)
        return err_set(err, ERR_EXISTS,
                       "another coordinator works with '%s'; stop it first", path);
    return err_set(err, ERR_IO, "cannot lock '%s': %s", lock_path, strerror(errno));
}

static int set_up(struct store *store, const char *path, struct err *err)
{
    static const char pragmas[] = "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;"
                                  "PRAGMA foreign_keys = ON;";

    sqlite3_busy_timeout(store->db, STORE_BUSY_MS);
    sqlite3_extended_result_codes(store->db, 1);
    if (sqlite3_exec(store->db, pragmas, NULL, NULL, NULL) != SQLITE_OK)
        return store_sqlite_error(store, err, path);
    if (store_migrate(store, err) < 0)
        return err_wrap(err, "'%s'", path);
    for (int i = 0; i < STATEMENT_COUNT; i++)
        if (sqlite3_prepare_v3(store->db, statements[i], -1, SQLITE_PREPARE_PERSISTENT,
                               &store->statements[i], NULL) != SQLITE_OK)
            return store_sqlite_error(store, err, path);
    return 0;
}

int store_open(struct store **out, const char *path, struct err *err)
{
    struct store *store = calloc(1, sizeof(*store));

    if (!store)
        return err_set(err, ERR_NOMEM, "no memory for the store");
    store->lock_fd = -1;
    /* Counting SQLite's memory takes one lock for all threads at every allocation. */
    (void)sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0); /* too late: it counts */
    if (lock(store, path, err) < 0)
        goto failed;
    if (sqlite3_open(path, &store->db) != SQLITE_OK) {
        err_set(err, ERR_IO, "cannot open '%s': %s", path,
                store->db ? sqlite3_errmsg(store->db) : "no memory");
        goto failed;
    }
    if (chmod(path, S_IRUSR | S_IWUSR) < 0) {
        err_set(err, ERR_IO, "cannot make '%s' private", path);
        goto failed;
    }
    if (set_up(store, path, err) < 0)
        goto failed;
    *out = store;
    return 0;
failed:
    store_close(store);
    return -1;
}

void store_close(struct store *store)
{
    if (!store)
        return;
    for (int i = 0; i < STATEMENT_COUNT; i++)
        sqlite3_finalize(store->statements[i]);
    sqlite3_close(store->db); /* rolls back */
    if (store->lock_fd >= 0)
        close(store->lock_fd);
    free(store);
}

/* ---- running statements ---- */

static int bind_values(sqlite3_stmt *statement, const struct value *values,
                       size_t n_values)
{
    int rc = SQLITE_OK;

    for (size_t i = 0; i < n_values && rc == SQLITE_OK; i++) {
        int at = (int)i + 1;

        if (values[i].type == VALUE_INT)
            rc = sqlite3_bind_int64(statement, at, values[i].whole);
        else if (values[i].type == VALUE_DOUBLE)
            rc = sqlite3_bind_double(statement, at, values[i].number);
        else if (values[i].text)
            rc = sqlite3_bind_text(statement, at, values[i].text, -1, SQLITE_STATIC);
        else
            rc = sqlite3_bind_null(statement, at);
    }
    return rc;
}

static int run(struct store *store, enum statement which, const struct value *values,
               size_t n_values)
{
    sqlite3_stmt *statement = store->statements[which];
    int rc = bind_values(statement, values, n_values);

    if (rc == SQLITE_OK)
        rc = sqlite3_step(statement);
    sqlite3_reset(statement);
    sqlite3_clear_bindings(statement);
    return rc == SQLITE_DONE || rc == SQLITE_ROW ? 0 : -1;
}

void store_write(struct store *store, enum statement which, const struct value *values,
                 size_t n_values)
{
    if (store->failure.code)
        return;
    if (!store->is_open_turn) {
        if (run(store, ST_BEGIN, NULL, 0) < 0) {
            store_sqlite_error(store, &store->failure, "cannot begin a transaction");
            return;
        }
        store->is_open_turn = true;
    }
    if (fault_hit("store.write")) {
        err_set(&store->failure, ERR_IO, "fault point store.write");
        return;
    }
    if (run(store, which, values, n_values) < 0)
        store_sqlite_error(store, &store->failure, "cannot write to the database");
}

sqlite3_stmt *store_read(struct store *store, enum statement which,
                         const struct value *values, size_t n_values)
{
    sqlite3_stmt *statement = store->statements[which];

    sqlite3_reset(statement);
    (void)bind_values(statement, values,
                      n_values); /* fails only without memory; stepping says so */
    return statement;
}

int store_next(struct store *store, sqlite3_stmt *statement, struct err *err)
{
    int rc = sqlite3_step(statement);

    if (rc == SQLITE_ROW)
        return 1;
    if (rc != SQLITE_DONE)
        store_sqlite_error(store, err, "cannot read the database");
    sqlite3_reset(statement);
    sqlite3_clear_bindings(statement);
    return rc == SQLITE_DONE ? 0 : -1;
}

void store_read_ints(sqlite3_stmt *statement, int64_t *const *places, int count)
{
    for (int i = 0; i < count; i++)
        *places[i] = sqlite3_column_int64(statement, i);
}

void store_read_texts(sqlite3_stmt *statement, int first, const char **const *places,
                      int count)
{
    for (int i = 0; i < count; i++) {
        const unsigned char *text = sqlite3_column_text(statement, first + i);

        *places[i] = text ? (const char *)text : "";
    }
}

/* ---- transactions ---- */

bool store_has_writes(const struct store *store)
{
    return store->is_open_turn || store->failure.code;
}

void store_fail(struct store *store, const struct err *why)
{
    if (!store->failure.code)
        store->failure = *why;
}

static void trim(struct store *store)
{
    if (store->n_events >= STORE_TRIM_EVERY) {
        store_write(store, ST_EVENTS_TRIM, VALUES(INT(STORE_EVENTS_MAX)));
        store->n_events = 0;
    }
    if (store->n_metrics >= STORE_TRIM_EVERY) {
        store_write(store, ST_METRICS_TRIM, VALUES(INT(STORE_METRICS_MAX)));
        store->n_metrics = 0;
    }
}

int store_commit(struct store *store, struct err *err)
{
    bool was_open = store->is_open_turn;

    trim(store);
    if (was_open && fault_hit("store.commit"))
        err_set(&store->failure, ERR_IO, "fault point store.commit");
    if (was_open && !store->failure.code && run(store, ST_COMMIT, NULL, 0) < 0)
        store_sqlite_error(store, &store->failure, "cannot commit");
    if (!store->failure.code) {
        store->is_open_turn = false;
        if (was_open)
            (void)fault_hit("store.committed"); /* only killing makes sense here */
        return 0;
    }
    if (!sqlite3_get_autocommit(store->db)) /* some failures have rolled back already */
        run(store, ST_ROLLBACK, NULL, 0);
    store->is_open_turn = false;
    *err = store->failure;
    err_clear(&store->failure);
    return -1;
}
