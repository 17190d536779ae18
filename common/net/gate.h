/* gate.h - who is let in at a TCP endpoint
 *
 * Answers ZeroMQ's questions about keys (ZAP, https://rfc.zeromq.org/spec/27/) from the
 * list of the home, and says of every message whose key it came under. The list is looked
 * at every GATE_LOOK_MS, and at every question. Who is turned away is logged
 * (common/base/log_bound.h).
 * Shared by the files of common/net; not for other rooms.
 * Owns: sockets in the context of the server's socket; gate_close before that ends.
 */
#ifndef VNEVA_COMMON_NET_GATE_H
#define VNEVA_COMMON_NET_GATE_H

#include "common/net/socket.h"

#define GATE_LOOK_MS 10

struct gate;

/* Before the socket is bound. The home has keys. */
int gate_open(struct gate **out, struct net_socket *socket, const char *home,
              struct err *err);
void gate_close(struct gate *gate);

/* The ZeroMQ sockets to wait for; gate_turn takes what they hold. */
#define GATE_SOCKETS 2
void gate_sockets(const struct gate *gate, void *out[GATE_SOCKETS]);
void gate_turn(struct gate *gate);

/* Fills role, key_name and public_key of a message's sender. False: its key is not, or no
 * longer, one of those authorized, and the message is to be dropped. */
bool gate_identify(struct gate *gate, void *frame, struct net_peer *from);

/* The list as it was last read; the version grows with every change. */
unsigned gate_version(const struct gate *gate);
enum key_role gate_role(const struct gate *gate, const char *public_key);

#endif
