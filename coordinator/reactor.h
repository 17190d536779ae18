/* reactor.h - the coordinator's loop: one thread, named phases
 *
 * Owns: nothing; borrows core and server.
 */
#ifndef VNEVA_COORDINATOR_REACTOR_H
#define VNEVA_COORDINATOR_REACTOR_H

#include "coordinator/core.h"

#include <signal.h>

/* Runs until *stop is set by a signal or SHUTDOWN is done. 0 then; -1 when it cannot go
 * on (the store cannot be read back). */
int reactor_run(struct core *core, struct net_server *server,
                const volatile sig_atomic_t *stop, struct err *err);

#endif
