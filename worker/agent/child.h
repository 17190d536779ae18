/* child.h - one rank: a vneva-rank process of this agent
 *
 *     starting --READY--> running --RANK_STOP--> stopping --grace over--> SIGKILL
 *     any --process ended--> ended
 *
 * A rank has its own process group, killed as a whole at its end so that no decoder stays
 * behind, and dies with the agent (PR_SET_PDEATHSIG). Wire messages go over a
 * SOCK_SEQPACKET pair; what is sent before the rank reads waits in the kernel's buffer,
 * which holds the few messages a rank is ever owed.
 * What it is doing it writes into a page it shares with the agent (common/base/stage.h).
 * Owns: process, socket, log, page. Threads: one caller. Units: ms of the monotonic clock.
 */
#ifndef VNEVA_WORKER_AGENT_CHILD_H
#define VNEVA_WORKER_AGENT_CHILD_H

#include "common/base/stage.h"
#include "common/wire/wire.h"
#include "worker/agent/child_log.h"

#include <stdbool.h>
#include <sys/types.h>

#define CHILD_MESSAGE_MAX (128 << 10) /* bytes; under the kernel's default buffer */

struct child_id {
    int64_t job, attempt, rank;
};

struct child;

struct child_config {
    const char *program; /* path of vneva-rank */
    const char *host;    /* what the rank calls this node */
    const char *address; /* at which it listens for ranks of other nodes */
    int64_t n_devices;   /* of the node: its CPUs are divided among them */
};

/* Spawns the rank and sends it the RANK_START it was made from. A program that cannot be
 * executed ends with status 127 and says so in its log. */
int child_start(struct child **out, const struct child_config *config,
                const struct msg_rank_start *start, struct err *err);
/* Kills what still runs. */
void child_destroy(struct child *child);

struct child_id child_id(const struct child *child);
pid_t child_pid(const struct child *child);
int child_fd(const struct child *child); /* the socket; -1 after its end */
struct child_log *child_get_log(struct child *child);

/* What the rank is doing; read from the page it writes, whatever its state. */
void child_stage(const struct child *child, struct stage_now *out);
int64_t child_memory_bytes(const struct child *child); /* resident; 0: not known */

/* Where the rank said its peers reach it; NULL before RANK_READY. */
const char *child_endpoint(const struct child *child);
int child_set_endpoint(struct child *child, const char *endpoint, struct err *err);

int child_send(struct child *child, const struct wire *message, struct err *err);
/* 1: a message, 0: nothing there or the end, -1: what came is no message. */
int child_receive(struct child *child, struct wire *message, struct err *err);

/* SIGTERM now, SIGKILL after the grace (the earliest asked for counts). */
void child_stop(struct child *child, int64_t grace_ms, int64_t now_ms);
/* Kills when the grace is over. */
void child_tick(struct child *child, int64_t now_ms);
int64_t child_next_ms(const struct child *child); /* INT64_MAX: no timer runs */

/* True once the process has ended: *status is its exit status or 128 + signal. */
bool child_reap(struct child *child, int *status);

#endif
