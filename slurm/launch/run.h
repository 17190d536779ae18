/* run.h - another program, run to its end, and what it said
 *
 * Owns: the texts in struct run; run_fini frees them. Threads: one.
 */
#ifndef VNEVA_SLURM_LAUNCH_RUN_H
#define VNEVA_SLURM_LAUNCH_RUN_H

#include "common/base/buf.h"

#include <stdint.h>

#define RUN_TEXT_MAX (64u << 20) /* bytes of either text; the queue of a large cluster */

struct run {
    int status; /* its exit status; 128 and more: ended by a signal */
    struct buf out, errors;
};

/* Looks for the program as a shell does. ERR_NOT_FOUND when there is none, ERR_TIMEOUT
 * when it had to be killed, ERR_LIMIT when it says too much; whatever its exit status is
 * no error. */
int run_program(struct run *out, const char *const *argv, int64_t timeout_ms,
                struct err *err);
void run_fini(struct run *run);

/* One line of what it said on standard error, or else on standard output: the first with
 * the word error, or the first. For errors. Borrowed; cuts the text. */
const char *run_complaint(struct run *run);

#endif
