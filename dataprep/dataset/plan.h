/* plan.h - plan.sqlite: where every annotation and every tar member stands
 *
 * Written once by prepare_plan, read by the ranges. The first record with an id has it;
 * later ones are marked as its duplicates.
 * Tables: records, members, meta. Threads: one caller per object.
 */
#ifndef VNEVA_DATAPREP_DATASET_PLAN_H
#define VNEVA_DATAPREP_DATASET_PLAN_H

#include "common/base/err.h"

#include <stdbool.h>
#include <stdint.h>

#define PLAN_FILE "plan.sqlite"

struct plan_record {
    int64_t file; /* number in the list of annotation files */
    int64_t line, column;
    int64_t offset, n_bytes;
    uint64_t hash;        /* hash64 of its bytes */
    int64_t duplicate_of; /* record number; -1: none */
};

struct plan_writer;

int plan_writer_create(struct plan_writer **out, const char *path, struct err *err);
void plan_writer_destroy(struct plan_writer *writer);
/* id NULL: it has none. record->duplicate_of is found here. */
int plan_writer_add(struct plan_writer *writer, const struct plan_record *record,
                    const char *id, struct err *err);
/* root: number of the tar. A name that comes twice keeps the last place, as tar does. */
int plan_writer_add_member(struct plan_writer *writer, int root, const char *name,
                           uint64_t offset, uint64_t n_bytes, struct err *err);
/* hash: of the settings and annotations; *n_records: how many there are. */
int plan_writer_commit(struct plan_writer *writer, uint64_t hash, int64_t *n_records,
                       struct err *err);

struct plan;

int plan_open(struct plan **out, const char *path, struct err *err);
void plan_close(struct plan *plan);
uint64_t plan_hash(const struct plan *plan);
int64_t plan_n_records(const struct plan *plan);
int plan_read(struct plan *plan, int64_t number, struct plan_record *out,
              struct err *err);
/* *found false: the tar has no such member. */
int plan_find_member(struct plan *plan, int root, const char *name, bool *found,
                     uint64_t *offset, uint64_t *n_bytes, struct err *err);

#endif
