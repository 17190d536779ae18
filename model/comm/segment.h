/* segment.h - memory of a name that rank 0 makes and the other processes of a node find
 *
 * Both return a file descriptor for mmap, which the caller closes; the maker's holds a lock
 * and the maker takes the name away (shm_unlink) when all have met.
 */
#ifndef VNEVA_MODEL_COMM_SEGMENT_H
#define VNEVA_MODEL_COMM_SEGMENT_H

#include "common/base/err.h"

#include <stddef.h>
#include <stdint.h>

#define SEGMENT_NAME_MAX 256

/* Zeros. Removes first what makers that were killed have left. */
int segment_make(const char *segment, size_t n_bytes, struct err *err);
/* Waits until rank 0 has made it whole. ERR_TIMEOUT */
int segment_find(const char *segment, size_t n_bytes, int64_t timeout_ms,
                 struct err *err);
/* A moment, between two looks; the stage gets a sign of life. */
void segment_wait(void);

#endif
