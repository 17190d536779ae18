/* shard.h - the SQLite file that holds the samples of one prepare task
 *
 * Written under a temporary name with fixed settings in one transaction, then renamed:
 * a crash leaves the old shard or the new one, and the same samples give the same bytes.
 * Rejects of the task stand in it too, so that one rename publishes both.
 * Media paths are kept as the annotation names them, below the media root.
 * Tables: samples, media, frames, rejects, meta; see shard_schema in shard.c.
 * Threads: one caller per object.
 */
#ifndef VNEVA_DATAPREP_DATASET_SHARD_H
#define VNEVA_DATAPREP_DATASET_SHARD_H

#include "dataprep/dataset/dataset.h"

/* What a shard says about itself. */
struct shard_meta {
    uint64_t plan; /* the plan it was made under */
    int64_t first_record, n_records;
    int64_t n_samples, n_rejects;
    int64_t longest_tokens;
    uint64_t digest; /* of every sample, in order */
};

struct shard_reject {
    const char *file; /* annotation file as the user named it */
    int64_t line;
    const char *id, *kind, *reason;
};

struct shard_writer;

/* Nothing is seen at path before shard_writer_commit. */
int shard_writer_create(struct shard_writer **out, const char *path, struct err *err);
void shard_writer_destroy(struct shard_writer *writer); /* uncommitted work is lost */

/* n_expanded: entries dataset_expand gives for it. */
int shard_writer_add(struct shard_writer *writer, const struct dataset_sample *sample,
                     int64_t n_expanded, struct err *err);
int shard_writer_reject(struct shard_writer *writer, const struct shard_reject *reject,
                        struct err *err);
/* plan, first_record, n_records are taken from meta, the rest is filled in. Durable when
 * it returns. Fault point prepare.shard lies before the rename. */
int shard_writer_commit(struct shard_writer *writer, struct shard_meta *meta,
                        struct err *err);

struct shard;

int shard_open(struct shard **out, const char *path, struct err *err);
void shard_close(struct shard *shard);
const struct shard_meta *shard_meta(const struct shard *shard);

/* Sample `row` of the shard, 0-based; media paths relative, number not set. */
int shard_read(struct shard *shard, int64_t row, struct dataset_sample **out,
               struct err *err);
/* Calls `each` for every reject in record order; stops when it returns -1. */
int shard_each_reject(struct shard *shard,
                      int (*each)(void *state, const struct shard_reject *reject,
                                  struct err *err),
                      void *state, struct err *err);

#endif
