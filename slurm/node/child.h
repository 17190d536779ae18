/* child.h - work that may hang, done by a child process with a deadline
 *
 * A dead NFS server stops whoever looks at its files, and a broken driver stops
 * nvidia-smi; so a child looks, and what it has said until the deadline is the answer.
 * Owns: nothing; a child that even SIGKILL does not end is left behind.
 * Threads: one. Units: ms.
 */
#ifndef VNEVA_SLURM_NODE_CHILD_H
#define VNEVA_SLURM_NODE_CHILD_H

#include "common/base/buf.h"
#include "common/base/err.h"

#include <stdint.h>

#define CHILD_OUTPUT_MAX (1u << 20)

/* Runs `work` in a fork, which writes to fd; all that came until it ended or timeout_ms
 * was over is appended to out. *status: as of waitpid, or -1 when it was not over in time
 * (and was killed). */
int child_call(struct buf *out, int *status, void (*work)(void *state, int fd),
               void *state, int64_t timeout_ms, struct err *err);

/* Runs a program (looked for in $PATH) with one more variable "NAME=value" (NULL: none),
 * without its standard error. A program that is not there has exit status 127. */
int child_capture(struct buf *out, int *status, char *const *argv, char *variable,
                  int64_t timeout_ms, struct err *err);

#endif
