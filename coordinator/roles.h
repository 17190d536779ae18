/* roles.h - which message the key of which role may send
 *
 * One table of all messages (roles.c); one without a row does not compile. docs/security.md
 * shows it to people. What a role may send it may send about every job.
 * Pure. Owns: nothing.
 */
#ifndef VNEVA_COORDINATOR_ROLES_H
#define VNEVA_COORDINATOR_ROLES_H

#include "common/net/net.h"

/* ERR_DENIED says which roles may and what the sender is; ERR_INVALID: nobody sends such a
 * message to a coordinator. */
int roles_check(const struct net_peer *from, enum msg_type type, struct err *err);

/* The name under which an agent is known here. One that came with a worker's key is
 * NAME@KEY, so that no other key can speak for it, also after a restart of the
 * coordinator: names of keys hold no '@'. ERR_INVALID: empty or too long. */
#define ROLES_AGENT_BYTES 256
int roles_agent_name(char out[ROLES_AGENT_BYTES], const struct net_peer *from,
                     const char *name, struct err *err);

#endif
