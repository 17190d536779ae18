/* ranks.h - the ranks of this node: started, told, heard, stopped and reaped
 *
 * What they say goes on by the link, ends and results durably; while its spool is full they
 * wait. Errors are a rank's own: they are logged, and reported as its end.
 * Owns: the children. Threads: one caller. Units: ms of the monotonic clock.
 */
#ifndef VNEVA_WORKER_AGENT_RANKS_H
#define VNEVA_WORKER_AGENT_RANKS_H

#include "worker/agent/agent.h"
#include "worker/agent/child.h"
#include "worker/agent/link.h"

#include <poll.h>

struct ranks {
    const struct agent_config *config; /* borrowed, as the link */
    struct link *link;
    struct child *children[AGENT_RANKS_MAX];
    int n_children;
};

void ranks_fini(struct ranks *ranks); /* kills what still runs */

/* Nothing where it runs already; RANK_EXIT with status 127 where it cannot be started. */
void ranks_start(struct ranks *ranks, const struct msg_rank_start *start);
/* To all of an attempt. */
void ranks_forward(struct ranks *ranks, int64_t job, int64_t attempt,
                   const struct wire *message);
void ranks_stop(struct ranks *ranks, const struct msg_rank_stop *stop);
void ranks_stop_all(struct ranks *ranks, int64_t grace_ms, int64_t now_ms);

/* Their messages, and a piece of each one's log. */
void ranks_take_reports(struct ranks *ranks);
/* Of those that have ended: the rest of both, then RANK_EXIT. */
void ranks_reap(struct ranks *ranks);

/* A JSON list of those that run and those that have ended without the coordinator knowing. */
void ranks_list(const struct ranks *ranks, struct buf *out);
/* RANK_READY again of all that were. */
void ranks_tell_ready(struct ranks *ranks);
/* What every rank is doing, since when: what is stuck cannot say so itself. */
void ranks_tell_stages(struct ranks *ranks);

void ranks_tick(struct ranks *ranks, int64_t now_ms); /* kills when a grace is over */
int64_t ranks_next_ms(const struct ranks *ranks);     /* INT64_MAX: no timer runs */
/* What to wait for; how many. */
int ranks_poll(const struct ranks *ranks, struct pollfd out[2 * AGENT_RANKS_MAX]);

#endif
