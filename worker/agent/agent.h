/* agent.h - the node's agent: spawns and kills ranks, forwards what they report
 *
 * It computes nothing and opens no device, so a broken device context dies with its rank.
 * When the coordinator is away the ranks go on; their reports wait (link.h).
 * Owns: the link and the ranks. Threads: one caller.
 * Bounds: AGENT_RANKS_MAX ranks at a time.
 */
#ifndef VNEVA_WORKER_AGENT_AGENT_H
#define VNEVA_WORKER_AGENT_AGENT_H

#include "common/base/err.h"
#include "common/net/keys.h"

#include <stdint.h>

#define AGENT_RANKS_MAX 64
#define AGENT_GRACE_MS                                                                   \
    30000 /* ranks get when the agent itself ends, if nobody says more */
#define AGENT_ENDING_ANSWER_MS                                                           \
    2000 /* how long it waits to be told so by the coordinator */
#define AGENT_PING_MS                                                                    \
    5000 /* silence after which it asks whether a coordinator is there */
#define AGENT_LINGER_MS 2000 /* how long it then waits for the last ACKs */

struct agent_config { /* borrowed for the agent's life */
    const char *endpoint;
    const struct key *key; /* for a TCP endpoint; else NULL */
    const char *host;
    const char
        *address; /* or interface, for ranks of other nodes; NULL: that by which the
                            coordinator is reached */
    const char *device_kind; /* "cpu", "gpu" */
    int64_t n_devices;
    const char *pool, *allocation; /* what the cluster started it for; NULL: nothing */
    const char *rank_program;      /* path of vneva-rank */
    const char *id;     /* its name, unique while it lives; NULL: a random one */
    int64_t grace_ms;   /* ranks get when it ends by a signal; 0: AGENT_GRACE_MS */
    int64_t give_up_ms; /* it ends when no coordinator answers for so long; 0: never */
    int64_t idle_ms;    /* it ends when it has had no rank for so long; 0: never */
};

struct agent;

int agent_create(struct agent **out, const struct agent_config *config, struct err *err);
void agent_destroy(struct agent *agent);

/* Runs until AGENT_STOP, SIGTERM or SIGINT (which the caller must have blocked, with
 * SIGCHLD; they come in through a signalfd). A signal is told to the coordinator, which
 * stops the attempts that have ranks here everywhere and puts their jobs back. 0: ended as
 * asked; ERR_TIMEOUT: no coordinator answered for give_up_ms; ERR_DENIED: the one
 * there does not take agents with this key. */
int agent_run(struct agent *agent, struct err *err);

#endif
