/* child_log.h - what a rank writes to its standard error
 *
 * Read from a pipe, kept in a file of the job's folder, handed on in pieces for the
 * coordinator, and watched for the last error line, which becomes the reason of
 * RANK_EXIT.
 * Owns: pipe and file. Threads: one caller. Units: bytes; ms of the monotonic clock.
 * Bounds: the file holds CHILD_LOG_FILE_MAX; pieces are CHILD_LOG_PIECE_MAX long and
 * CHILD_LOG_RATE_BYTES a second are handed on. What is not handed on is counted and said.
 */
#ifndef VNEVA_WORKER_AGENT_CHILD_LOG_H
#define VNEVA_WORKER_AGENT_CHILD_LOG_H

#include "common/base/buf.h"
#include "common/base/err.h"

#include <stdbool.h>
#include <stdint.h>

#define CHILD_LOG_FILE_MAX (64 << 20)
#define CHILD_LOG_PIECE_MAX (16 << 10)
#define CHILD_LOG_RATE_BYTES (256 << 10)
#define CHILD_LOG_LINE_MAX 400 /* of a line that is kept as reason */

struct child_log;

/* pipe_fd (read end, not blocking) is the log's from here on. path: the file, appended. */
int child_log_open(struct child_log **out, int pipe_fd, const char *path,
                   struct err *err);
void child_log_close(struct child_log *log);
int child_log_fd(const struct child_log *log); /* -1 after the end */

/* Reads what is there, at most one piece; appends what is to be handed on to piece.
 * True when something was read. */
bool child_log_read(struct child_log *log, struct buf *piece, int64_t now_ms);

/* The text of the last line of level error, without its time and speaker; else "". */
const char *child_log_last_error(const struct child_log *log);

#endif
