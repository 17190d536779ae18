/* pump.h - a rank's messages with its agent
 *
 * Work happens in the main thread; messages are read between pieces of work (pump_poll,
 * never waits) or while there is none (pump_next_task, waits). Leases queue up here.
 * SIGTERM comes in the same way: it only sets pump_is_stopping, the work looks at it.
 * Owns: the socket, the RANK_START it began with, queued leases. Threads: one caller.
 * Bounds: PUMP_TASKS_MAX leases wait.
 */
#ifndef VNEVA_WORKER_RANK_PUMP_H
#define VNEVA_WORKER_RANK_PUMP_H

#include "common/base/json.h"
#include "common/wire/wire.h"

#include <stdbool.h>

#define PUMP_TASKS_MAX 16
#define PUMP_MESSAGE_MAX (128 << 10) /* bytes, as the agent's CHILD_MESSAGE_MAX */

struct pump;

/* Blocks SIGTERM for the process and waits for RANK_START. The socket is the pump's. */
int pump_open(struct pump **out, int fd, struct err *err);
void pump_close(struct pump *pump);
const struct msg_rank_start *pump_start(const struct pump *pump);

/* Reads what is there. Errors: the agent is gone, or broke the protocol. */
int pump_poll(struct pump *pump, struct err *err);
bool pump_is_stopping(const struct pump *pump);
/* Another rank was asked to stop and this one agreed to. */
void pump_set_stopping(struct pump *pump);

/* Tells that this rank listens at endpoint, then waits for those of all ranks: a JSON list
 * of strings the caller frees. 1: here they are, 0: asked to stop instead. */
int pump_meet(struct pump *pump, const char *endpoint, struct json **endpoints,
              struct err *err);

/* The next lease, waited for. 1: *task is set, valid until pump_task_done or
 * pump_task_failed; 0: no more will come, or asked to stop. */
int pump_next_task(struct pump *pump, const struct msg_task_start **task,
                   struct err *err);
/* Ends the present lease. A rank that is not the attempt's rank 0 only forgets it. result:
 * JSON text. */
int pump_task_done(struct pump *pump, const char *result, struct err *err);
int pump_task_failed(struct pump *pump, const char *reason, struct err *err);

/* Where the rank is. step -1: no metrics. metrics: JSON object or NULL; borrowed. */
int pump_progress(struct pump *pump, const char *stage, int64_t step, int64_t done,
                  int64_t total, const struct json *metrics, struct err *err);

#endif
