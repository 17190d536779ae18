/* queries.h - answers questions about the views beside the coordinator's loop
 *
 * A question may take seconds and the loop must not: one thread of its own answers them,
 * one after another, from a read-only connection to the database (store/query.h). It
 * shares nothing with the loop but the list of questions, under a lock that is held only
 * to put in and take out. Answers are sent by the loop, part after part.
 * Owns: the thread and the questions. Threads: all calls from the loop's.
 * Bounds: QUERIES_MAX questions in all, QUERIES_PEER_MAX of one client; more are refused
 * with ERR_LIMIT. One that waited QUERIES_WAIT_MAX_MS is refused too: its answer would
 * come after the client has given up (CLIENT_CALL_MS).
 */
#ifndef VNEVA_COORDINATOR_QUERIES_H
#define VNEVA_COORDINATOR_QUERIES_H

#include "common/net/net.h"

#define QUERIES_MAX 64
#define QUERIES_PEER_MAX 4
#define QUERIES_WAIT_MAX_MS 8000
#define QUERIES_NICE 10   /* of the thread: jobs come before questions */
#define QUERIES_TICK_MS 2 /* how often the loop looks while one is in work */

struct queries;

/* database: path, borrowed for the call. */
int queries_create(struct queries **out, const char *database, struct err *err);
/* Ends the question in work and joins the thread; NULL is fine. */
void queries_destroy(struct queries *queries);

/* Takes a SELECT in; the answer comes by queries_send. */
int queries_ask(struct queries *queries, const struct net_peer *from,
                const struct wire *message, struct err *err);
/* Sends a part of each answer that is there; errors of sending are those of the peer. */
void queries_send(struct queries *queries, struct net_server *server);
/* How long the loop may sleep: less than `otherwise` while there is something to do. */
int64_t queries_wait_ms(struct queries *queries, int64_t otherwise);

#endif
