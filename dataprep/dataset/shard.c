#include "dataprep/dataset/shard.h"

#include "common/base/fault.h"
#include "common/base/hash.h"
#include "dataprep/dataset/sql.h"

#include <stdlib.h>
#include <string.h>

static const char shard_schema[] =
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;"
    "CREATE TABLE samples (row INTEGER PRIMARY KEY, id TEXT NOT NULL,"
    " record TEXT NOT NULL, n_prompt INTEGER NOT NULL,"
    " tokens BLOB NOT NULL,"   /* int32, little endian; -1: media */
    " is_label BLOB NOT NULL," /* uint8 a token */
    " n_media INTEGER NOT NULL, checksum INTEGER NOT NULL);"
    "CREATE TABLE media (row INTEGER, item INTEGER, kind INTEGER NOT NULL,"
    " name TEXT NOT NULL, offset INTEGER NOT NULL, n_bytes INTEGER NOT NULL,"
    " start_s REAL NOT NULL, end_s REAL NOT NULL, n_frames INTEGER NOT NULL,"
    " PRIMARY KEY (row, item)) WITHOUT ROWID;"
    "CREATE TABLE frames (row INTEGER PRIMARY KEY,"
    " pixels BLOB NOT NULL);" /* uint8 [sum of n_frames, S, S, 3] */
    "CREATE TABLE rejects (file TEXT NOT NULL, line INTEGER NOT NULL, id TEXT NOT NULL,"
    " kind TEXT NOT NULL, reason TEXT NOT NULL);";

/* ---- checksum ---- */

static uint64_t add_hash(uint64_t hash, const void *bytes, size_t n_bytes)
{
    return hash64(bytes ? bytes : "", bytes ? n_bytes : 0, hash);
}

static uint64_t add_hash_int(uint64_t hash, int64_t value)
{
    return add_hash(hash, &value, sizeof(value));
}

static uint64_t sample_checksum(const struct dataset_sample *sample)
{
    uint64_t hash = add_hash(0, sample->id, strlen(sample->id));

    hash = add_hash(hash, sample->record, strlen(sample->record));
    hash = add_hash(hash, sample->tokens, (size_t)sample->n_tokens * 4);
    hash = add_hash(hash, sample->is_label, (size_t)sample->n_tokens);
    hash = add_hash_int(hash, sample->n_prompt);
    for (int64_t i = 0; i < sample->n_media; i++) {
        const struct dataset_media *media = &sample->media[i];
        const struct media_ref *ref = &media->ref;

        hash = add_hash(hash, ref->path, strlen(ref->path));
        hash = add_hash_int(hash, ref->kind);
        hash = add_hash_int(hash, (int64_t)ref->offset);
        hash = add_hash_int(hash, (int64_t)ref->n_bytes);
        hash = add_hash(hash, &ref->start_s, sizeof(ref->start_s));
        hash = add_hash(hash, &ref->end_s, sizeof(ref->end_s));
        hash = add_hash_int(hash, media->n_frames);
    }
    return add_hash(hash, sample->frames, sample->n_frame_bytes);
}

/* ---- writing ---- */

struct shard_writer {
    struct sql_file file;
    sqlite3_stmt *sample, *media, *frames, *reject;
    struct shard_meta meta;
};

int shard_writer_create(struct shard_writer **out, const char *path, struct err *err)
{
    struct shard_writer *writer = calloc(1, sizeof(*writer));

    if (!writer)
        return err_set(err, ERR_NOMEM, "cannot allocate a shard");
    if (sql_create(&writer->file, path, shard_schema, err) < 0 ||
        sql_prepare(writer->file.db, &writer->sample,
                    "INSERT INTO samples VALUES (?, ?, ?, ?, ?, ?, ?, ?)", err) < 0 ||
        sql_prepare(writer->file.db, &writer->media,
                    "INSERT INTO media VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", err) < 0 ||
        sql_prepare(writer->file.db, &writer->frames, "INSERT INTO frames VALUES (?, ?)",
                    err) < 0 ||
        sql_prepare(writer->file.db, &writer->reject,
                    "INSERT INTO rejects VALUES (?, ?, ?, ?, ?)", err) < 0) {
        shard_writer_destroy(writer);
        return err_wrap(err, "cannot begin shard '%s'", path);
    }
    *out = writer;
    return 0;
}

void shard_writer_destroy(struct shard_writer *writer)
{
    if (!writer)
        return;
    sql_discard(&writer->file);
    free(writer);
}

static int add_media(struct shard_writer *writer, const struct dataset_sample *sample,
                     struct err *err)
{
    sqlite3_stmt *s = writer->media;

    for (int64_t i = 0; i < sample->n_media; i++) {
        const struct media_ref *ref = &sample->media[i].ref;

        sqlite3_bind_int64(s, 1, writer->meta.n_samples);
        sqlite3_bind_int64(s, 2, i);
        sqlite3_bind_int(s, 3, (int)ref->kind);
        sqlite3_bind_text(s, 4, ref->path, -1, SQLITE_STATIC);
        sqlite3_bind_int64(s, 5, (int64_t)ref->offset);
        sqlite3_bind_int64(s, 6, (int64_t)ref->n_bytes);
        sqlite3_bind_double(s, 7, ref->start_s);
        sqlite3_bind_double(s, 8, ref->end_s);
        sqlite3_bind_int64(s, 9, sample->media[i].n_frames);
        if (sql_run(writer->file.db, s, err) < 0)
            return -1;
    }
    return 0;
}

int shard_writer_add(struct shard_writer *writer, const struct dataset_sample *sample,
                     int64_t n_expanded, struct err *err)
{
    uint64_t checksum = sample_checksum(sample);
    struct shard_meta *meta = &writer->meta;
    sqlite3_stmt *s = writer->sample;

    sqlite3_bind_int64(s, 1, meta->n_samples);
    sqlite3_bind_text(s, 2, sample->id, -1, SQLITE_STATIC);
    sqlite3_bind_text(s, 3, sample->record, -1, SQLITE_STATIC);
    sqlite3_bind_int64(s, 4, sample->n_prompt);
    sqlite3_bind_blob64(s, 5, sample->tokens, (uint64_t)sample->n_tokens * 4,
                        SQLITE_STATIC);
    sqlite3_bind_blob64(s, 6, sample->is_label, (uint64_t)sample->n_tokens,
                        SQLITE_STATIC);
    sqlite3_bind_int64(s, 7, sample->n_media);
    sqlite3_bind_int64(s, 8, (int64_t)checksum);
    if (sql_run(writer->file.db, s, err) < 0 || add_media(writer, sample, err) < 0)
        return err_wrap(err, "sample '%s' into '%s'", sample->id, writer->file.temporary);
    if (sample->frames) {
        sqlite3_bind_int64(writer->frames, 1, meta->n_samples);
        sqlite3_bind_blob64(writer->frames, 2, sample->frames, sample->n_frame_bytes,
                            SQLITE_STATIC);
        if (sql_run(writer->file.db, writer->frames, err) < 0)
            return err_wrap(err, "frames of '%s' into '%s'", sample->id,
                            writer->file.temporary);
    }
    meta->n_samples++;
    meta->digest = add_hash_int(meta->digest, (int64_t)checksum);
    if (n_expanded > meta->longest_tokens)
        meta->longest_tokens = n_expanded;
    return 0;
}

int shard_writer_reject(struct shard_writer *writer, const struct shard_reject *reject,
                        struct err *err)
{
    sqlite3_stmt *s = writer->reject;

    sqlite3_bind_text(s, 1, reject->file, -1, SQLITE_STATIC);
    sqlite3_bind_int64(s, 2, reject->line);
    sqlite3_bind_text(s, 3, reject->id, -1, SQLITE_STATIC);
    sqlite3_bind_text(s, 4, reject->kind, -1, SQLITE_STATIC);
    sqlite3_bind_text(s, 5, reject->reason, -1, SQLITE_STATIC);
    writer->meta.n_rejects++;
    return sql_run(writer->file.db, s, err);
}

/* The meta table: one name for each field, for writing and for reading. */
#define META_FIELDS(X)                                                                   \
    X(plan)                                                                              \
    X(first_record) X(n_records) X(n_samples) X(n_rejects) X(longest_tokens) X(digest)

#define COUNT(field) META_COUNT_##field,
enum { META_FIELDS(COUNT) N_META_FIELDS };
#undef COUNT

static int write_meta(struct shard_writer *writer, struct err *err)
{
    sqlite3_stmt *s = NULL;
    int rc = sql_prepare(writer->file.db, &s, "INSERT INTO meta VALUES (?, ?)", err);

#define WRITE(field)                                                                     \
    if (rc == 0) {                                                                       \
        sqlite3_bind_text(s, 1, #field, -1, SQLITE_STATIC);                              \
        sqlite3_bind_int64(s, 2, (int64_t)writer->meta.field);                           \
        rc = sql_run(writer->file.db, s, err);                                           \
    }
    META_FIELDS(WRITE)
#undef WRITE
    sqlite3_finalize(s);
    return rc;
}

int shard_writer_commit(struct shard_writer *writer, struct shard_meta *meta,
                        struct err *err)
{
    writer->meta.plan = meta->plan;
    writer->meta.first_record = meta->first_record;
    writer->meta.n_records = meta->n_records;
    if (write_meta(writer, err) < 0)
        return err_wrap(err, "cannot finish shard '%s'", writer->file.path);
    if (fault_hit("prepare.shard"))
        return err_set(err, ERR_IO, "fault point prepare.shard");
    if (sql_publish(&writer->file, err) < 0)
        return err_wrap(err, "cannot finish shard '%s'", writer->file.path);
    *meta = writer->meta;
    return 0;
}

/* ---- reading ---- */

struct shard {
    char path[FS_PATH_MAX];
    sqlite3 *db;
    sqlite3_stmt *sample, *media, *frames;
    struct shard_meta meta;
};

static int read_meta(struct shard *shard, struct err *err)
{
    sqlite3_stmt *s = NULL;
    int n = 0, rc = sql_prepare(shard->db, &s, "SELECT key, value FROM meta", err);

    while (rc == 0 && sqlite3_step(s) == SQLITE_ROW) {
        const char *key = (const char *)sqlite3_column_text(s, 0);
        int64_t value = sqlite3_column_int64(s, 1);

#define READ(field)                                                                      \
    if (key && strcmp(key, #field) == 0) {                                               \
        memcpy(&shard->meta.field, &value, sizeof(value));                               \
        n++;                                                                             \
    }
        META_FIELDS(READ)
#undef READ
    }
    sqlite3_finalize(s);
    if (rc == 0 && n != N_META_FIELDS)
        rc = err_set(err, ERR_FORMAT, "its description is not complete");
    return rc;
}

int shard_open(struct shard **out, const char *path, struct err *err)
{
    struct shard *shard = calloc(1, sizeof(*shard));

    if (!shard)
        return err_set(err, ERR_NOMEM, "cannot allocate a shard");
    if (fs_path(shard->path, err, "%s", path) < 0 ||
        sql_open(&shard->db, path, err) < 0 || read_meta(shard, err) < 0 ||
        sql_prepare(shard->db, &shard->sample,
                    "SELECT id, record, n_prompt, tokens, is_label, n_media, checksum"
                    " FROM samples WHERE row = ?",
                    err) < 0 ||
        sql_prepare(shard->db, &shard->media,
                    "SELECT kind, name, offset, n_bytes, start_s, end_s, n_frames"
                    " FROM media WHERE row = ? ORDER BY item",
                    err) < 0 ||
        sql_prepare(shard->db, &shard->frames, "SELECT pixels FROM frames WHERE row = ?",
                    err) < 0) {
        shard_close(shard);
        return err_wrap(err, "shard '%s'", path);
    }
    *out = shard;
    return 0;
}

void shard_close(struct shard *shard)
{
    if (!shard)
        return;
    sql_close(shard->db);
    free(shard);
}

const struct shard_meta *shard_meta(const struct shard *shard)
{
    return &shard->meta;
}

/* The row of `s` with key `row`; the statement stays on it. */
static int seek(struct shard *shard, sqlite3_stmt *s, int64_t row, struct err *err)
{
    int rc;

    sqlite3_bind_int64(s, 1, row);
    rc = sqlite3_step(s);
    if (rc == SQLITE_ROW)
        return 0;
    return rc == SQLITE_DONE ? err_set(err, ERR_FORMAT, "the sample is not there")
                             : sql_fail(shard->db, err, "cannot read");
}

static int read_tokens(struct shard *shard, struct dataset_sample *sample, int64_t row,
                       uint64_t *checksum, struct err *err)
{
    sqlite3_stmt *s = shard->sample;
    size_t n_tokens = 0, n_labels = 0, n;

    if (seek(shard, s, row, err) < 0)
        return -1;
    sample->id = sql_take_bytes(&n, s, 0);
    sample->record = sql_take_bytes(&n, s, 1);
    sample->tokens = sql_take_bytes(&n_tokens, s, 3);
    sample->is_label = sql_take_bytes(&n_labels, s, 4);
    sample->n_prompt = sqlite3_column_int64(s, 2);
    sample->n_tokens = (int64_t)n_labels;
    sample->n_media = sqlite3_column_int64(s, 5);
    *checksum = (uint64_t)sqlite3_column_int64(s, 6);
    if (!sample->id || !sample->record || !sample->tokens || !sample->is_label ||
        n_tokens != n_labels * 4 || sample->n_prompt < 0 ||
        sample->n_prompt > sample->n_tokens || sample->n_media < 0 ||
        sample->n_media > DATASET_MEDIA_MAX)
        return err_set(err, ERR_FORMAT, "its fields do not fit each other");
    return 0;
}

static int read_media(struct shard *shard, struct dataset_sample *sample, int64_t row,
                      struct err *err)
{
    sqlite3_stmt *s = shard->media;

    if (!sample->n_media)
        return 0;
    sample->media = calloc((size_t)sample->n_media, sizeof(*sample->media));
    if (!sample->media)
        return err_set(err, ERR_NOMEM, "cannot allocate media of a sample");
    sqlite3_bind_int64(s, 1, row);
    for (int64_t i = 0; i < sample->n_media; i++) {
        struct media_ref *ref = &sample->media[i].ref;
        const char *name;

        if (sqlite3_step(s) != SQLITE_ROW)
            return err_set(err, ERR_FORMAT, "media item %lld is not there", (long long)i);
        name = (const char *)sqlite3_column_text(s, 1);
        if (!name || strlen(name) >= sizeof(ref->path))
            return err_set(err, ERR_FORMAT, "a media name is too long");
        memcpy(ref->path, name, strlen(name) + 1);
        ref->kind = sqlite3_column_int(s, 0) ? MEDIA_IMAGE : MEDIA_VIDEO;
        ref->offset = (uint64_t)sqlite3_column_int64(s, 2);
        ref->n_bytes = (uint64_t)sqlite3_column_int64(s, 3);
        ref->start_s = sqlite3_column_double(s, 4);
        ref->end_s = sqlite3_column_double(s, 5);
        sample->media[i].n_frames = sqlite3_column_int64(s, 6);
    }
    return 0;
}

static int read_frames(struct shard *shard, struct dataset_sample *sample, int64_t row,
                       struct err *err)
{
    int rc;

    sqlite3_bind_int64(shard->frames, 1, row);
    rc = sqlite3_step(shard->frames);
    if (rc == SQLITE_DONE)
        return 0;
    if (rc != SQLITE_ROW)
        return sql_fail(shard->db, err, "cannot read");
    sample->frames = sql_take_bytes(&sample->n_frame_bytes, shard->frames, 0);
    if (!sample->frames)
        return err_set(err, ERR_NOMEM, "cannot allocate %zu bytes of frames",
                       sample->n_frame_bytes);
    return 0;
}

int shard_read(struct shard *shard, int64_t row, struct dataset_sample **out,
               struct err *err)
{
    struct dataset_sample *sample = calloc(1, sizeof(*sample));
    uint64_t checksum = 0;
    int rc = -1;

    if (!sample)
        return err_set(err, ERR_NOMEM, "cannot allocate a sample");
    if (read_tokens(shard, sample, row, &checksum, err) < 0 ||
        read_media(shard, sample, row, err) < 0 ||
        read_frames(shard, sample, row, err) < 0)
        goto out;
    if (sample_checksum(sample) != checksum) {
        err_set(err, ERR_FORMAT, "its checksum does not fit; prepare the dataset again");
        goto out;
    }
    *out = sample;
    sample = NULL;
    rc = 0;
out:
    sqlite3_reset(shard->sample);
    sqlite3_reset(shard->media);
    sqlite3_reset(shard->frames);
    dataset_sample_free(sample);
    if (rc < 0)
        err_wrap(err, "sample %lld of shard '%s' is damaged", (long long)row,
                 shard->path);
    return rc;
}

int shard_each_reject(struct shard *shard,
                      int (*each)(void *state, const struct shard_reject *reject,
                                  struct err *err),
                      void *state, struct err *err)
{
    sqlite3_stmt *s = NULL;
    int step = SQLITE_DONE;
    int rc = sql_prepare(
        shard->db, &s, "SELECT file, line, id, kind, reason FROM rejects ORDER BY rowid",
        err);

    while (rc == 0 && (step = sqlite3_step(s)) == SQLITE_ROW) {
        struct shard_reject reject = {(const char *)sqlite3_column_text(s, 0),
                                      sqlite3_column_int64(s, 1),
                                      (const char *)sqlite3_column_text(s, 2),
                                      (const char *)sqlite3_column_text(s, 3),
                                      (const char *)sqlite3_column_text(s, 4)};

        if (!reject.file || !reject.id || !reject.kind || !reject.reason)
            rc = err_set(err, ERR_FORMAT, "shard '%s': a reject is damaged", shard->path);
        else
            rc = each(state, &reject, err);
    }
    if (rc == 0 && step != SQLITE_DONE) {
        sql_fail(shard->db, err, "cannot read");
        rc = err_wrap(err, "rejects of shard '%s'", shard->path);
    }
    sqlite3_finalize(s);
    return rc;
}
