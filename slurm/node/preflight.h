/* preflight.h - looks at every node of a launch before anything is started on it
 *
 * Every node gathers its facts (versions, programs and libraries, run folder, paths,
 * devices, clock, room, the way to the coordinator), node 0 judges those of all
 * (preflight_decide.h), writes RUN/preflight.json and tells the others the verdict. All
 * faults are told at once, each with host, cause and remedy.
 * Threads: one. Bounds: PREFLIGHT_MS in all; every look at a folder or a driver that may
 * hang is a child process with a deadline of its own (child.h).
 * Errors: ERR_STATE for a node that is not fit: text says how many faults and the first;
 * else those of the exchange (a node that hangs or is gone is named).
 * Fault points: preflight.gather; preflight.clock makes the clock 5 s ahead,
 * preflight.version the version another.
 */
#ifndef VNEVA_SLURM_NODE_PREFLIGHT_H
#define VNEVA_SLURM_NODE_PREFLIGHT_H

#include "common/base/json.h"
#include "common/net/keys.h"
#include "jobs/spec/spec.h"
#include "slurm/node/exchange.h"
#include "slurm/node/preflight_decide.h"

#include <stdio.h>

#define PREFLIGHT_MS 60000
#define PREFLIGHT_PATHS_MAX 64
#define PREFLIGHT_ASKED_MAX (2 * PREFLIGHT_PATHS_MAX) /* with a mark for each */

struct preflight_ask {
    const char *host;           /* this node's name */
    const char *run_folder;     /* the same on all nodes */
    const char *program_folder; /* of vneva's programs; NULL: this program's own */
    const char *way;            /* "pmix" where it was asked for, else "" */
    const char *endpoint;       /* of a coordinator that is there already; NULL: none */
    const struct key *key;      /* for it; NULL: none */
    int64_t n_devices;          /* that this node's agent is to have; 0: as node 0 says */
    bool wants_gpus;            /* they are GPUs, else CPUs */
    int64_t timeout_ms;         /* 0: PREFLIGHT_MS */
    /* Of node 0 only; the others learn it from there: */
    const struct err
        *failed;       /* why there is nothing to look at, which all return; NULL */
    int64_t n_default; /* devices of nodes that say nothing */
    bool is_advisory;  /* faults are told and stop nothing */
    const struct json *paths; /* preflight_paths; NULL: none */
    struct preflight_need need;
};

/* COLLECTIVE. *report: on node 0, also when it returns -1 with ERR_STATE; else NULL:
 * {"host", "at_ms", "took_ms", "nodes": [facts, with "clock_ms": [least, most] ahead of
 * node 0], "faults": [...]} (preflight_decide.h). */
int preflight_run(struct json **report, struct exchange *exchange,
                  const struct preflight_ask *ask, struct err *err);
/* A line for every fault and warning, and one in the end. */
void preflight_print(FILE *out, const struct json *report);

/* COLLECTIVE. Whether every node reaches a coordinator that was started meanwhile; where
 * one does not, -1 on all, naming those that do not and why. told: where node 0 has lines
 * for them, as preflight_print's. */
int preflight_reach(struct exchange *exchange, const char *host, const char *endpoint,
                    const struct key *key, int64_t timeout_ms, FILE *told,
                    struct err *err);

/* ---- what a job needs (preflight_job.c) ---- */

/* The paths that a job reads, and those it makes: [{"key", "path", "is_made"}]. Those
 * beyond PREFLIGHT_PATHS_MAX are left out. */
int preflight_paths(struct json **out, const struct spec *spec, struct err *err);
/* What a node with n_devices of the job's ranks needs, estimated where all sizes are
 * known, else the least that anything needs. spec NULL: only agents are started. */
void preflight_need(struct preflight_need *out, const struct spec *spec,
                    int64_t n_devices, bool wants_gpus);

#endif
