/* why.h - one sentence about what a job waits for, or which rank of it gets nowhere
 *
 * why_write is pure: rows of views in, text out. why_ask asks for them.
 * Units: ms since 1970.
 */
#ifndef VNEVA_JOBS_CLIENT_WHY_H
#define VNEVA_JOBS_CLIENT_WHY_H

#include "common/base/buf.h"
#include "common/base/json.h"

struct why_facts {              /* borrowed */
    const struct json *job;     /* its row of view jobs */
    const struct json *ranks;   /* its ranks of attempts that have not ended */
    const struct json *workers; /* agents that are up */
    const struct json *holders; /* jobs that run: [{"job", "n"}], ranks they have */
    int64_t now_ms;
    /* where the job waits for nodes of a pool, else NULL: */
    const struct json *pool;        /* its row of view pools */
    const struct json *allocations; /* of that pool, those that have not ended */
};

void why_write(struct buf *out, const struct why_facts *facts);

struct client;
/* The sentence about a job as it is now; ERR_NOT_FOUND where there is none. */
int why_ask(struct buf *out, struct client *client, int64_t job, struct err *err);
/* The same and what it is made of: {"job", "state", "since_ms", "sentence", "reason", "pool",
 * "pool_submits", "allocations", "ranks"}; the caller frees it. */
int why_ask_json(struct json **out, struct client *client, int64_t job, struct err *err);

#endif
