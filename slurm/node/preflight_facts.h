/* preflight_facts.h - what one node has: the part of preflight that looks
 *
 * Not for other files than preflight.c. Every function adds to the facts of
 * preflight_decide.h; -1 only when out of memory or when no process can be started: what
 * is wrong with the node is a fact, not an error.
 */
#ifndef VNEVA_SLURM_NODE_PREFLIGHT_FACTS_H
#define VNEVA_SLURM_NODE_PREFLIGHT_FACTS_H

#include "slurm/node/preflight.h"

/* host, version, build, programs, cpus, devices, gpus, shm, tmp, memory, open files */
int facts_of_machine(struct json *facts, const struct preflight_ask *ask,
                     int64_t n_devices, struct err *err);
/* Node 0, of `paths` as preflight_decide.h has them: a file with its nonce in the nearest
 * folder that is there of each path that the job makes, appended to paths as one more to
 * look at. Once all have looked they are removed. */
int marks_leave(struct json *paths, const char *nonce, struct err *err);
void marks_remove(const struct json *paths);

/* run.free_*, paths (as node 0 asked) and run.seen_why: node 0's file, nonce in it. */
int facts_of_files(struct json *facts, const char *run_folder, const struct json *paths,
                   const char *file, const char *nonce, struct err *err);
/* coordinator: {why, version} */
int facts_of_coordinator(struct json *facts, const char *endpoint, const struct key *key,
                         struct err *err);

#define FACTS_WHY_MAX ERR_TEXT_MAX
#define FACTS_VERSION_MAX 32

/* Adders of one member. */
int facts_string(struct json *facts, const char *key, const char *value, struct err *err);
int facts_int(struct json *facts, const char *key, int64_t value, struct err *err);

#endif
