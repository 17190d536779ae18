#include "dataprep/dataset/plan.h"

#include "dataprep/dataset/sql.h"

#include <stdlib.h>

static const char plan_schema[] =
    "CREATE TABLE records (number INTEGER PRIMARY KEY, file INTEGER NOT NULL,"
    " line INTEGER NOT NULL, column INTEGER NOT NULL, offset INTEGER NOT NULL,"
    " n_bytes INTEGER NOT NULL, hash INTEGER NOT NULL, duplicate_of INTEGER NOT NULL);"
    "CREATE TABLE ids (id TEXT PRIMARY KEY, number INTEGER NOT NULL) WITHOUT ROWID;"
    "CREATE TABLE members (root INTEGER NOT NULL, name TEXT NOT NULL,"
    " offset INTEGER NOT NULL, n_bytes INTEGER NOT NULL, PRIMARY KEY (root, name))"
    " WITHOUT ROWID;"
    "CREATE TABLE meta (hash INTEGER NOT NULL, n_records INTEGER NOT NULL);";

struct plan_writer {
    struct sql_file file;
    sqlite3_stmt *record, *id, *find_id, *member;
    int64_t n_records;
};

int plan_writer_create(struct plan_writer **out, const char *path, struct err *err)
{
    struct plan_writer *writer = calloc(1, sizeof(*writer));

    if (!writer)
        return err_set(err, ERR_NOMEM, "cannot allocate a plan");
    if (sql_create(&writer->file, path, plan_schema, err) < 0 ||
        sql_prepare(writer->file.db, &writer->record,
                    "INSERT INTO records VALUES (?, ?, ?, ?, ?, ?, ?, ?)", err) < 0 ||
        sql_prepare(writer->file.db, &writer->id, "INSERT INTO ids VALUES (?, ?)", err) <
            0 ||
        sql_prepare(writer->file.db, &writer->find_id,
                    "SELECT number FROM ids WHERE id = ?", err) < 0 ||
        sql_prepare(writer->file.db, &writer->member,
                    "INSERT OR REPLACE INTO members VALUES (?, ?, ?, ?)", err) < 0) {
        plan_writer_destroy(writer);
        return err_wrap(err, "cannot begin plan '%s'", path);
    }
    *out = writer;
    return 0;
}

void plan_writer_destroy(struct plan_writer *writer)
{
    if (!writer)
        return;
    sql_discard(&writer->file);
    free(writer);
}

/* Claims the id for this record, or says who has it. */
static int claim_id(struct plan_writer *writer, const char *id, int64_t *owner,
                    struct err *err)
{
    int step;

    *owner = -1;
    sqlite3_bind_text(writer->find_id, 1, id, -1, SQLITE_STATIC);
    step = sqlite3_step(writer->find_id);
    if (step == SQLITE_ROW)
        *owner = sqlite3_column_int64(writer->find_id, 0);
    sqlite3_reset(writer->find_id);
    if (step == SQLITE_ROW)
        return 0;
    if (step != SQLITE_DONE)
        return sql_fail(writer->file.db, err, "cannot look for an id");
    sqlite3_bind_text(writer->id, 1, id, -1, SQLITE_STATIC);
    sqlite3_bind_int64(writer->id, 2, writer->n_records);
    return sql_run(writer->file.db, writer->id, err);
}

int plan_writer_add(struct plan_writer *writer, const struct plan_record *record,
                    const char *id, struct err *err)
{
    sqlite3_stmt *s = writer->record;
    int64_t owner = -1;

    if (id && claim_id(writer, id, &owner, err) < 0)
        return err_wrap(err, "'%s'", writer->file.temporary);
    sqlite3_bind_int64(s, 1, writer->n_records);
    sqlite3_bind_int64(s, 2, record->file);
    sqlite3_bind_int64(s, 3, record->line);
    sqlite3_bind_int64(s, 4, record->column);
    sqlite3_bind_int64(s, 5, record->offset);
    sqlite3_bind_int64(s, 6, record->n_bytes);
    sqlite3_bind_int64(s, 7, (int64_t)record->hash);
    sqlite3_bind_int64(s, 8, owner);
    if (sql_run(writer->file.db, s, err) < 0)
        return err_wrap(err, "'%s'", writer->file.temporary);
    writer->n_records++;
    return 0;
}

int plan_writer_add_member(struct plan_writer *writer, int root, const char *name,
                           uint64_t offset, uint64_t n_bytes, struct err *err)
{
    sqlite3_bind_int(writer->member, 1, root);
    sqlite3_bind_text(writer->member, 2, name, -1, SQLITE_STATIC);
    sqlite3_bind_int64(writer->member, 3, (int64_t)offset);
    sqlite3_bind_int64(writer->member, 4, (int64_t)n_bytes);
    if (sql_run(writer->file.db, writer->member, err) < 0)
        return err_wrap(err, "'%s'", writer->file.temporary);
    return 0;
}

int plan_writer_commit(struct plan_writer *writer, uint64_t hash, int64_t *n_records,
                       struct err *err)
{
    sqlite3_stmt *s = NULL;
    int rc = sql_prepare(writer->file.db, &s, "INSERT INTO meta VALUES (?, ?)", err);

    if (rc == 0) {
        sqlite3_bind_int64(s, 1, (int64_t)hash);
        sqlite3_bind_int64(s, 2, writer->n_records);
        rc = sql_run(writer->file.db, s, err);
    }
    sqlite3_finalize(s);
    if (rc < 0 || sql_publish(&writer->file, err) < 0)
        return err_wrap(err, "cannot finish plan '%s'", writer->file.path);
    *n_records = writer->n_records;
    return 0;
}

/* ---- reading ---- */

struct plan {
    char path[FS_PATH_MAX];
    sqlite3 *db;
    sqlite3_stmt *record, *member;
    uint64_t hash;
    int64_t n_records;
};

static int read_meta(struct plan *plan, struct err *err)
{
    sqlite3_stmt *s = NULL;
    int rc = sql_prepare(plan->db, &s, "SELECT hash, n_records FROM meta", err);

    if (rc == 0 && sqlite3_step(s) == SQLITE_ROW) {
        plan->hash = (uint64_t)sqlite3_column_int64(s, 0);
        plan->n_records = sqlite3_column_int64(s, 1);
    } else if (rc == 0) {
        rc = sql_fail(plan->db, err, "cannot read its description");
    }
    sqlite3_finalize(s);
    return rc;
}

int plan_open(struct plan **out, const char *path, struct err *err)
{
    struct plan *plan = calloc(1, sizeof(*plan));

    if (!plan)
        return err_set(err, ERR_NOMEM, "cannot allocate a plan");
    if (fs_path(plan->path, err, "%s", path) < 0 || sql_open(&plan->db, path, err) < 0 ||
        read_meta(plan, err) < 0 ||
        sql_prepare(plan->db, &plan->record,
                    "SELECT file, line, column, offset, n_bytes, hash, duplicate_of"
                    " FROM records WHERE number = ?",
                    err) < 0 ||
        sql_prepare(plan->db, &plan->member,
                    "SELECT offset, n_bytes FROM members WHERE root = ? AND name = ?",
                    err) < 0) {
        plan_close(plan);
        return err_wrap(err, "plan '%s'", path);
    }
    *out = plan;
    return 0;
}

void plan_close(struct plan *plan)
{
    if (!plan)
        return;
    sql_close(plan->db);
    free(plan);
}

uint64_t plan_hash(const struct plan *plan)
{
    return plan->hash;
}

int64_t plan_n_records(const struct plan *plan)
{
    return plan->n_records;
}

int plan_read(struct plan *plan, int64_t number, struct plan_record *out, struct err *err)
{
    sqlite3_stmt *s = plan->record;

    sqlite3_bind_int64(s, 1, number);
    if (sqlite3_step(s) != SQLITE_ROW) {
        sql_fail(plan->db, err, "it is not there");
        sqlite3_reset(s);
        return err_wrap(err, "record %lld of plan '%s'", (long long)number, plan->path);
    }
    out->file = sqlite3_column_int64(s, 0);
    out->line = sqlite3_column_int64(s, 1);
    out->column = sqlite3_column_int64(s, 2);
    out->offset = sqlite3_column_int64(s, 3);
    out->n_bytes = sqlite3_column_int64(s, 4);
    out->hash = (uint64_t)sqlite3_column_int64(s, 5);
    out->duplicate_of = sqlite3_column_int64(s, 6);
    sqlite3_reset(s);
    return 0;
}

int plan_find_member(struct plan *plan, int root, const char *name, bool *found,
                     uint64_t *offset, uint64_t *n_bytes, struct err *err)
{
    sqlite3_stmt *s = plan->member;
    int step;

    sqlite3_bind_int(s, 1, root);
    sqlite3_bind_text(s, 2, name, -1, SQLITE_STATIC);
    step = sqlite3_step(s);
    *found = step == SQLITE_ROW;
    if (*found) {
        *offset = (uint64_t)sqlite3_column_int64(s, 0);
        *n_bytes = (uint64_t)sqlite3_column_int64(s, 1);
    } else if (step != SQLITE_DONE) {
        sql_fail(plan->db, err, "cannot look for a member");
        err_wrap(err, "plan '%s'", plan->path);
    }
    sqlite3_reset(s);
    return *found || step == SQLITE_DONE ? 0 : -1;
}
