/* scratch.h - a folder of this process alone, on this machine: socket and key of an agent
 *
 * Below $TMPDIR where that is short (a Unix socket's path has 107 bytes at most), else /tmp.
 * A process that is killed cannot remove its own, so every start removes those of this
 * user that nobody holds a lock in.
 * Owns: folder and lock. Threads: one.
 */
#ifndef VNEVA_SLURM_NODE_SCRATCH_H
#define VNEVA_SLURM_NODE_SCRATCH_H

#include "common/base/fs.h"

struct scratch {
    char path[FS_PATH_MAX]; /* "": none */
    int lock;
};

int scratch_open(struct scratch *out, struct err *err);
/* Removes it. Nothing when there is none. */
void scratch_close(struct scratch *scratch);

#endif
