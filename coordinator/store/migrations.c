/* The schema, as the numbered steps that led to it: step i takes a database from version
 * i to i + 1. Append only; a step that was released is never changed. */
#include "coordinator/store/store_internal.h"

static const char *const steps[] = {
    /* 1: the first release */
    "CREATE TABLE jobs ("
    " id INTEGER PRIMARY KEY, request_id TEXT NOT NULL UNIQUE, name TEXT NOT NULL,"
    " kind TEXT NOT NULL, spec TEXT NOT NULL, folder TEXT NOT NULL,"
    " state TEXT NOT NULL, goal TEXT NOT NULL,"
    " reason TEXT NOT NULL, attempt INTEGER NOT NULL, n_fruitless INTEGER NOT NULL,"
    " not_before_ms INTEGER NOT NULL, n_ranks INTEGER NOT NULL,"
    " group_size INTEGER NOT NULL, shard_size INTEGER NOT NULL,"
    " max_steps INTEGER NOT NULL, checkpoint_steps INTEGER NOT NULL,"
    " n_kept INTEGER NOT NULL, n_samples INTEGER NOT NULL, done INTEGER NOT NULL,"
    " total INTEGER NOT NULL, result TEXT, submitted_ms INTEGER NOT NULL,"
    " started_ms INTEGER, ended_ms INTEGER);"
    "CREATE TABLE attempts ("
    " id INTEGER PRIMARY KEY, job INTEGER NOT NULL REFERENCES jobs(id),"
    " attempt INTEGER NOT NULL, state TEXT NOT NULL, cause TEXT NOT NULL,"
    " reason TEXT NOT NULL, n_ranks INTEGER NOT NULL, ranks TEXT NOT NULL,"
    " started_ms INTEGER NOT NULL, ended_ms INTEGER, UNIQUE (job, attempt));"
    "CREATE INDEX attempts_live ON attempts(job) WHERE state <> 'ended';"
    "CREATE TABLE tasks ("
    " id INTEGER PRIMARY KEY, job INTEGER NOT NULL REFERENCES jobs(id),"
    " phase TEXT NOT NULL, first INTEGER NOT NULL, count INTEGER NOT NULL,"
    " state TEXT NOT NULL, attempt INTEGER NOT NULL, n_failures INTEGER NOT NULL,"
    " not_before_ms INTEGER NOT NULL, reason TEXT NOT NULL, result TEXT);"
    "CREATE INDEX tasks_of_job ON tasks(job);"
    "CREATE TABLE workers ("
    " id INTEGER PRIMARY KEY, agent TEXT NOT NULL UNIQUE, host TEXT NOT NULL,"
    " pid INTEGER NOT NULL, n_devices INTEGER NOT NULL, n_busy INTEGER NOT NULL,"
    " device_kind TEXT NOT NULL, memory_bytes INTEGER NOT NULL, version TEXT NOT NULL,"
    " state TEXT NOT NULL, last_seen_ms INTEGER NOT NULL);"
    "CREATE TABLE checkpoints ("
    " id INTEGER PRIMARY KEY, job INTEGER NOT NULL REFERENCES jobs(id),"
    " step INTEGER NOT NULL, path TEXT NOT NULL, consumed_samples INTEGER NOT NULL,"
    " val_loss REAL, is_kept INTEGER NOT NULL, created_ms INTEGER NOT NULL,"
    " UNIQUE (job, step));"
    "CREATE TABLE datasets ("
    " id INTEGER PRIMARY KEY, job INTEGER NOT NULL UNIQUE REFERENCES jobs(id),"
    " name TEXT NOT NULL, path TEXT NOT NULL, n_samples INTEGER NOT NULL,"
    " n_rejects INTEGER NOT NULL, fingerprint TEXT NOT NULL, created_ms INTEGER NOT "
    "NULL);"
    "CREATE TABLE metrics ("
    " id INTEGER PRIMARY KEY, job INTEGER NOT NULL, step INTEGER NOT NULL,"
    " rank INTEGER NOT NULL, json TEXT NOT NULL, UNIQUE (job, step, rank));"
    "CREATE INDEX metrics_of_job ON metrics(job, id);"
    "CREATE TABLE events ("
    " id INTEGER PRIMARY KEY, job INTEGER NOT NULL, ms INTEGER NOT NULL,"
    " kind TEXT NOT NULL, text TEXT NOT NULL);"
    "CREATE INDEX events_of_job ON events(job, id);",
    /* 2: what ranks are doing, since when a job is in its state, when a step was measured */
    "CREATE TABLE rank_stages ("
    " id INTEGER PRIMARY KEY, job INTEGER NOT NULL, attempt INTEGER NOT NULL,"
    " rank INTEGER NOT NULL, stage TEXT NOT NULL, since_ms INTEGER NOT NULL,"
    " limit_ms INTEGER NOT NULL, step INTEGER NOT NULL, memory_bytes INTEGER NOT NULL,"
    " seen_ms INTEGER NOT NULL, UNIQUE (job, attempt, rank));"
    "ALTER TABLE jobs ADD COLUMN state_ms INTEGER;"
    "ALTER TABLE metrics ADD COLUMN ms INTEGER;",
    /* 3: pools, what they have asked a cluster for, who waits for them */
    "CREATE TABLE pools ("
    " id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, tag TEXT NOT NULL,"
    " manager TEXT NOT NULL, options TEXT NOT NULL, state TEXT NOT NULL,"
    " min_nodes INTEGER NOT NULL, max_nodes INTEGER NOT NULL, idle_ms INTEGER NOT NULL,"
    " gpus_per_node INTEGER NOT NULL, n_devices INTEGER NOT NULL,"
    " n_failures INTEGER NOT NULL, retry_ms INTEGER NOT NULL, failure TEXT NOT NULL,"
    " submits TEXT NOT NULL, keeps TEXT NOT NULL, cancels TEXT NOT NULL,"
    " ends TEXT NOT NULL, created_ms INTEGER NOT NULL);"
    "CREATE TABLE allocations ("
    " id INTEGER PRIMARY KEY, pool INTEGER NOT NULL, pool_name TEXT NOT NULL,"
    " name TEXT NOT NULL UNIQUE, allocation TEXT NOT NULL, state TEXT NOT NULL,"
    " reason TEXT NOT NULL, had_agent INTEGER NOT NULL, created_ms INTEGER NOT NULL,"
    " submitted_ms INTEGER, started_ms INTEGER, ended_ms INTEGER);"
    "CREATE INDEX allocations_open ON allocations(pool) WHERE state <> 'ended';"
    "ALTER TABLE workers ADD COLUMN pool TEXT;"
    "ALTER TABLE workers ADD COLUMN allocation TEXT;"
    "CREATE INDEX workers_of_pool ON workers(pool, allocation);"
    "ALTER TABLE jobs ADD COLUMN pool TEXT;",
};

#define N_STEPS ((int)(sizeof(steps) / sizeof(steps[0])))

static int read_version(struct store *store, int *version, struct err *err)
{
    sqlite3_stmt *statement;

    if (sqlite3_prepare_v2(store->db, "PRAGMA user_version", -1, &statement, NULL) !=
            SQLITE_OK ||
        sqlite3_step(statement) != SQLITE_ROW) {
        store_sqlite_error(store, err, "cannot read the schema's version");
        sqlite3_finalize(statement);
        return -1;
    }
    *version = sqlite3_column_int(statement, 0);
    sqlite3_finalize(statement);
    return 0;
}

int store_migrate(struct store *store, struct err *err)
{
    int version;

    if (read_version(store, &version, err) < 0)
        return -1;
    if (version > N_STEPS)
        return err_set(err, ERR_UNSUPPORTED,
                       "database has schema %d, this release knows up to %d; it was "
                       "written by a newer release: use that one",
                       version, N_STEPS);
    for (; version < N_STEPS; version++) {
        char set_version[64];

        snprintf(set_version, sizeof(set_version), "PRAGMA user_version = %d; COMMIT",
                 version + 1);
        if (sqlite3_exec(store->db, "BEGIN IMMEDIATE", NULL, NULL, NULL) != SQLITE_OK ||
            sqlite3_exec(store->db, steps[version], NULL, NULL, NULL) != SQLITE_OK ||
            sqlite3_exec(store->db, set_version, NULL, NULL, NULL) != SQLITE_OK) {
            store_sqlite_error(store, err, "cannot bring the schema up to date");
            sqlite3_exec(store->db, "ROLLBACK", NULL, NULL, NULL);
            return -1;
        }
    }
    return 0;
}
