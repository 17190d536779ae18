/* annotations.h - conversation files, record by record
 *
 * .jsonl: one record a line, empty lines are passed over. .json: an array of records.
 * Files may be larger than memory: one pass finds where each record begins and ends
 * (annotations_scan), later any record is read by its place (annotations_read).
 * Threads: one caller per object. Units: bytes; lines and columns count from 1.
 */
#ifndef VNEVA_DATAPREP_ANNOTATIONS_ANNOTATIONS_H
#define VNEVA_DATAPREP_ANNOTATIONS_ANNOTATIONS_H

#include "common/base/buf.h"
#include "common/base/err.h"

#include <stdint.h>

#define ANNOTATION_MAX_BYTES (16 << 20) /* of one record */

struct annotation {
    int64_t line, column;    /* where it begins */
    int64_t offset, n_bytes; /* in the file */
    const char *text;        /* its bytes, NUL after them; borrowed for the call */
};

/* Calls `each` for every record in order; stops when it returns -1. ERR_FORMAT: the
 * records cannot be told apart (no array, cut off); names file, line, column. A record
 * that is no JSON by itself is passed on: telling is left to who parses it. */
int annotations_scan(const char *path,
                     int (*each)(void *state, const struct annotation *annotation,
                                 struct err *err),
                     void *state, struct err *err);

/* Appends bytes [offset, offset + n_bytes) of the open file fd to out. */
int annotations_read(struct buf *out, int fd, const char *path, int64_t offset,
                     int64_t n_bytes, struct err *err);

#endif
