/* preflight_decide.h - from the facts of all nodes to the list of faults
 *
 * Pure: no clock, no file, no socket.
 * Facts are one JSON object a node (preflight_facts.c makes them):
 *   host, version ("0.1.0"), build (hash of vneva-rank, "" unknown)
 *   programs: ["vneva-rank: why"], what is missing or does not load
 *   way ("pmix", "files", "solo"), wire ("4.2.2", of PMIx; "")
 *   run: {why, seen_why, unseen: [{node, why}], free_bytes, free_inodes}: of the run folder.
 *     why: this node cannot write there; seen_why: it cannot read what node 0 wrote there;
 *     unseen: whose files node 0 cannot read
 *   paths: [{why, bytes, entries, print}], as `paths` below (probe.h)
 *   cpus, devices (asked for), wants_gpus, gpus (gpus.h; absent when none are asked for)
 *   clock: [[before, after], ...] wall clock in us around fences all nodes met at
 *   shm: {why, free_bytes}, tmp: {path, why, free_bytes}
 *   memory_bytes (that may still be taken), open_files (the limit)
 *   coordinator: {why, version}; absent when it is not there yet
 * Faults: [{"node", "host", "check", "is_fault", "cause", "remedy"}], in the order of the
 * checks, faults and warnings (is_fault false) mixed. Every one that there is is told.
 * Owns: the returned tree is the caller's. Threads: any.
 */
#ifndef VNEVA_SLURM_NODE_PREFLIGHT_DECIDE_H
#define VNEVA_SLURM_NODE_PREFLIGHT_DECIDE_H

#include "common/base/json.h"

#define PREFLIGHT_CLOCK_US 1000000 /* how far apart clocks may be */
#define PREFLIGHT_RANKS_A_CPU 4    /* more are a mistake; more than one is slow */
#define PREFLIGHT_PMIX_MAJOR 3     /* the oldest PMIx that has what is used */

struct preflight_need { /* what a node must have at least; 0: nothing */
    uint64_t run_bytes, run_inodes, tmp_bytes, memory_bytes; /* memory: of all ranks */
    uint64_t shm_bytes;
    int64_t open_files;
};

struct preflight_case {
    const struct json *const *facts; /* [n_nodes]; NULL: that node has sent none */
    int n_nodes;
    /* What node 0 asked about: [{"key", "path", "is_made", "is_mark", "unwritten"}].
     * is_mark: a file that node 0 left in the folder of a path that is made, with its
     * nonce; unwritten: why it could not */
    const struct json *paths;
    const char *run_folder, *endpoint;
    const char *way; /* that was asked for ("pmix"); "": any */
    struct preflight_need need;
};

int preflight_decide(struct json **faults, const struct preflight_case *c,
                     struct err *err);

/* By how much node's clock is ahead of node 0's: between *least and *most us. Derived from
 * fences: whoever comes to one does so before anybody leaves it, so for nodes i and j
 *     before_j - after_i <= offset_j - offset_i <= after_j - before_i
 * and several fences narrow that down. 0 when both have sent times, else -1. */
int preflight_clock(int64_t *least, int64_t *most, const struct json *first,
                    const struct json *node);

#endif
