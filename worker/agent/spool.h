/* spool.h - messages that must not be lost, kept until the coordinator has them
 *
 * RANK_EXIT, TASK_DONE and TASK_FAILED wait here, oldest first, from the moment a rank
 * reports until the ACK that follows the coordinator's commit. Each is sent under a new
 * envelope sequence every time; the ACK (or the refusal) names the last one.
 * Owns: the messages put in. Threads: one caller. Units: times in ms of the monotonic
 * clock.
 * Bounds: SPOOL_MAX messages; the agent stops reading from its ranks when it is full.
 */
#ifndef VNEVA_WORKER_AGENT_SPOOL_H
#define VNEVA_WORKER_AGENT_SPOOL_H

#include "common/wire/wire.h"

#include <stdbool.h>

#define SPOOL_MAX 1024
/* Room kept free for RANK_EXIT, which cannot be refused: one for each rank. */
#define SPOOL_RESERVED 128

struct spool;

int spool_create(struct spool **out, struct err *err);
void spool_destroy(struct spool *spool);

/* Takes the decoded message over, whatever it returns. ERR_LIMIT when full. */
int spool_put(struct spool *spool, struct wire *message, struct err *err);
bool spool_is_full(const struct spool *spool); /* only the reserve is left */
int spool_count(const struct spool *spool);
/* The i-th oldest. Borrowed. */
const struct wire *spool_at(const struct spool *spool, int i);

/* The oldest message that was not sent since sent_before_ms, or NULL. Borrowed. */
struct wire *spool_next_unsent(struct spool *spool, int64_t sent_before_ms);
/* The message spool_next_unsent gave went out at now_ms. */
void spool_mark_sent(struct spool *spool, const struct wire *message, int64_t now_ms);
/* A new registration: everything has to be sent again. */
void spool_mark_all_unsent(struct spool *spool);

/* Forgets the message last sent under that sequence; its type, or MSG_NONE. */
enum msg_type spool_remove(struct spool *spool, uint64_t sequence);

#endif
