/* link.h - the agent's line to the coordinator
 *
 * Registers, heartbeats, and finds its way back for ever (unless its key was refused at
 * the start): when no answer comes it tries
 * again with a growing pause, and when the coordinator does not know the agent (it was
 * started anew, or gave the agent up), or the connection broke and there is a new one, it
 * registers again with the ranks it has: that makes the coordinator say again what may be
 * lost. What is durable is sent again after every registration, and after LINK_RESEND_MS
 * without ACK.
 * Owns: socket and spool. Threads: one caller. Units: ms of the monotonic clock.
 */
#ifndef VNEVA_WORKER_AGENT_LINK_H
#define VNEVA_WORKER_AGENT_LINK_H

#include "common/net/keys.h"
#include "common/wire/wire.h"

#include <stdbool.h>

#define LINK_ANSWER_MS                                                                   \
    10000 /* how long one REGISTER waits for its answer, connecting included */
#define LINK_BACKOFF_FIRST_MS 200
#define LINK_BACKOFF_MAX_MS 5000
#define LINK_RESEND_MS 10000
#define LINK_BACKLOG_MAX 1024 /* reports kept while there is no coordinator */

struct link_config { /* borrowed; must outlive the link */
    const char *endpoint;
    const struct key *key; /* for a TCP endpoint: its coordinator's are the only orders */
    const char *agent;     /* unique for the life of the process */
    const char *host, *device_kind, *version;
    const char *pool, *allocation; /* what it was started for; "" for none */
    int64_t n_devices, memory_bytes;
    void *state;
    /* Appends the JSON list of the ranks that run now. */
    void (*list_running)(void *state, struct buf *out);
    /* A registration was answered. */
    void (*on_registered)(void *state);
    /* A heartbeat went out: what else is to be told as often. */
    void (*on_heartbeat)(void *state);
};

struct link;

int link_open(struct link **out, const struct link_config *config, struct err *err);
void link_close(struct link *link);
int link_fd(struct link *link);
bool link_is_registered(const struct link *link);
/* ERR_DENIED: the coordinator has never taken this agent and says that its key may not
 * register one. To try again is of no use. */
int link_check_refused(const struct link *link, struct err *err);

/* 1: a message that is not the link's own business, 0: nothing there, -1: broken. */
int link_receive(struct link *link, struct wire *message, int64_t now_ms,
                 struct err *err);

/* Reports that may be lost: sent when registered, else the oldest LINK_BACKLOG_MAX are
 * kept. Takes a decoded message over. */
void link_report(struct link *link, struct wire *message);
/* Durable. Takes a decoded message over. */
int link_put(struct link *link, struct wire *message, struct err *err);
bool link_is_full(const struct link *link);
int link_n_waiting(const struct link *link);
/* The i-th durable message that waits. Borrowed. */
const struct wire *link_waiting_at(const struct link *link, int i);

/* Timers: registers, heartbeats, sends what is due. Errors are logged and tried again. */
void link_tick(struct link *link, int64_t now_ms);
/* When link_tick has to be called next. */
int64_t link_next_ms(const struct link *link, int64_t now_ms);

#endif
