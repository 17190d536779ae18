/* outbox.h - messages that wait for the commit they depend on
 *
 * Durable before visible: what a turn of the loop has to say is kept here and sent after
 * the turn's commit; when the commit fails, who asked gets an ERROR and the rest is
 * dropped (agents send again what is durable).
 * Owns: copies of the messages. Running out of memory is kept and told by outbox_check.
 */
#ifndef VNEVA_COORDINATOR_OUTBOX_H
#define VNEVA_COORDINATOR_OUTBOX_H

#include "common/net/net.h"

#include <stddef.h>

struct outbox_item {
    struct net_peer to;
    struct wire message;
};

struct outbox {
    struct outbox_item *items;
    size_t count, capacity;
    struct err failure; /* ERR_NONE: none */
};

void outbox_fini(struct outbox *outbox);
void outbox_add(struct outbox *outbox, const struct net_peer *to,
                const struct wire *message);
/* The first failure of adding since the last send. */
int outbox_check(const struct outbox *outbox, struct err *err);
/* Sends all and empties the box; -1: something could not be sent (the rest was). */
int outbox_send(struct outbox *outbox, struct net_server *server, struct err *err);
/* Instead of sending: answers all requests with the error and empties the box. */
void outbox_refuse(struct outbox *outbox, struct net_server *server,
                   const struct err *why);

#endif
