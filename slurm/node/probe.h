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
#define PROBE_ENTRIES_MAX 20000

enum probe_kind {
    PROBE_READ,  /* a file, or a folder's list, can be read; what is in it */
    PROBE_MAKE,  /* the path, or the nearest folder above it that is there, is writable */
    PROBE_WRITE, /* a new file with this text; the folder is made */
    PROBE_EQUALS, /* a file with just this text; waits for NFS clients to see it */
};

struct probe {
    enum probe_kind kind;
    char *path, *text;        /* text: of PROBE_WRITE and PROBE_EQUALS */
    char why[PROBE_TEXT_MAX]; /* out: what is wrong with it, or "" */
    /* out, PROBE_READ: a file's size, -1 of a folder; PROBE_MAKE: how much of path is the
     * nearest folder that is there */
    int64_t n_bytes;
    int64_t n_entries; /* out, PROBE_READ: of a folder, -1 of a file */
    /* out, PROBE_READ: of the file's first and last bytes or of the folder's names in any
     * order; 0: a folder of more than PROBE_ENTRIES_MAX names */
    uint64_t print;
};

int probe_all(struct probe *probes, int n, int64_t timeout_ms, struct err *err);

#endif
