/* phases.h - what a launch is doing, on which node, since when
 *
 * Every node writes a line when a phase begins and one when it ends, synced, into a file
 * of its own, RUN/phases/node-N.jsonl (the launcher: launcher.jsonl), so that whoever
 * looks sees which node hangs where, also while it hangs. One file a node and not one for
 * all, because appending from several hosts is not safe on NFS.
 *
 *     {"launch": "12.0", "node": 1, "host": "n2", "phase": "preflight", "event": "begin",
 *      "at_ms": 1700000000000}
 *     {..., "event": "end", "at_ms": ..., "took_ms": 812, "is_ok": true, "text": ""}
 *
 * Node 0 (and the launcher) tells people as well, on `live`: "  12.3 s  preflight  ok".
 * Owns: the open file. Threads: one.
 * Units: ms; at_ms since 1970 by the node's own clock, took_ms by its monotonic clock.
 * Errors: a line that cannot be written is an error, but one a launch may go on after.
 */
#ifndef VNEVA_SLURM_NODE_PHASES_H
#define VNEVA_SLURM_NODE_PHASES_H

#include "common/base/err.h"
#include "common/base/json.h"

#include <stdint.h>
#include <stdio.h>

#define PHASES_NODE_LAUNCHER (-1)
#define PHASES_NAME_MAX 48
#define PHASES_HOST_MAX 256

struct phases;

/* launch: which start of the run this is, the same on all nodes (as the exchange's token).
 * live: NULL for none. */
int phases_open(struct phases **out, const char *run_folder, const char *launch, int node,
                const char *host, FILE *live, struct err *err);
/* A phase that was begun and not ended stays so in the record. NULL is fine. */
void phases_close(struct phases *phases);

/* One phase at a time: a begin ends the one before, well. */
int phases_begin(struct phases *phases, const char *name, struct err *err);
/* The phase has ended well; text: what came of it ("2 nodes, pmix"), or "". Nothing to do
 * when none has begun. */
int phases_end(struct phases *phases, const char *text, struct err *err);
/* The phase has failed: why's text is recorded and gets the phase's name and time in
 * front; a timeout thus names its phase. Returns -1. */
int phases_fail(struct phases *phases, struct err *why);
/* Something that takes no time: "first step", "ended". */
int phases_mark(struct phases *phases, const char *name, const char *text,
                struct err *err);

/* ---- looking at them (phases_show.c) ---- */

/* The newest launch of a run, from when its launcher queued it, as {"launch", "began_ms", "phases": [{"phase", "began_ms",
 * "took_ms" (of the slowest node), "n_ok", "n_failed", "text", "failed": [{"node", "host",
 * "text"}], "running": [{"node", "host", "since_ms"}]}]} in the order in which they began.
 * ERR_NOT_FOUND where no launch has written any. */
int phases_read(struct json **out, const char *run_folder, struct err *err);
/* That as a table. now_ms: since 1970. */
void phases_print(FILE *out, const struct json *launch, int64_t now_ms);

#endif
