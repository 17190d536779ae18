/* probe.h - looks at files and folders that may not answer
 *
 * All are looked at by one child process with a deadline (child.h): one that hangs is said
 * to, and so are those after it that were not reached.
 * Owns: the texts in the probes are the caller's. Threads: one.
 */
#ifndef VNEVA_SLURM_NODE_PROBE_H
#define VNEVA_SLURM_NODE_PROBE_H

#include "common/base/err.h"

#include <stdint.h>

#define PROBE_TEXT_MAX ERR_TEXT_MAX

enum probe_kind {
    PROBE_READ,  /* a file's first byte, or a folder's list, can be read */
    PROBE_MAKE,  /* the path, or the nearest folder above it that is there, is writable */
    PROBE_WRITE, /* a new file with this text; the folder is made */
    PROBE_EQUALS, /* a file with just this text; waits for NFS clients to see it */
};

struct probe {
    enum probe_kind kind;
    char *path, *text;        /* text: of PROBE_WRITE and PROBE_EQUALS */
    char why[PROBE_TEXT_MAX]; /* out: what is wrong with it, or "" */
    int64_t n_bytes;          /* out: PROBE_READ: of a file; -1 of a folder */
};

int probe_all(struct probe *probes, int n, int64_t timeout_ms, struct err *err);

#endif
