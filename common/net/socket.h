/* socket.h - one ZeroMQ socket with the bounds of net.h; shared by server and client
 *
 * Not for other rooms.
 * Owns: the context, the socket and the frame it last received.
 */
#ifndef VNEVA_COMMON_NET_SOCKET_H
#define VNEVA_COMMON_NET_SOCKET_H

#include "common/base/buf.h"
#include "common/net/net.h"

struct net_socket {
    void *context, *socket;
    struct buf packed; /* scratch of sending */
    uint64_t sequence; /* of the last message sent */
};

/* type: ZMQ_ROUTER or ZMQ_DEALER. linger_ms: how long closing waits to send what is queued.
 * After an error net_socket_fini is still needed. */
int net_socket_init(struct net_socket *socket, int type, int linger_ms, struct err *err);
void net_socket_fini(struct net_socket *socket);

/* For what follows to be bound or connected: CURVE, and bounds on how long a connection may
 * be silent (a network, unlike a machine, loses peers without a word). key: that of the
 * coordinator (is_server) or of a client. */
int net_socket_use_key(struct net_socket *socket, const struct key *key, bool is_server,
                       struct err *err);
int net_socket_use_ipv6(struct net_socket *socket, struct err *err);

/* A ZeroMQ socket that tells of the events (ZMQ_EVENT_*) of another; NULL with err. To be
 * closed before the context, and read often: one that is full holds ZeroMQ up. */
void *net_monitor_open(struct net_socket *socket, int events, struct err *err);
/* False: nothing there. */
bool net_monitor_next(void *monitor, int *event, int *value);

int net_socket_fd(struct net_socket *socket);

/* Waits until one of the ZeroMQ sockets (NULL: none) has something to receive. 1: it has,
 * 0: not in time or a signal came, -1: error. */
#define NET_WAIT_MAX 4
int net_wait(void *const *sockets, int n_sockets, int64_t timeout_ms, struct err *err);

/* Receives one message of exactly two frames (`from` given) or one (`from` NULL).
 * 1: `frame` holds the last; 2: so it does, but there were others before it, which are
 * dropped; the caller closes it with zmq_msg_close. 0: nothing there; -1: error. */
int net_socket_receive(struct net_socket *socket, struct net_peer *from, void *frame,
                       struct err *err);

/* Numbers, packs and sends; ERR_LIMIT when the queue is full. */
int net_socket_send(struct net_socket *socket, const struct net_peer *to,
                    struct wire *message, struct err *err);

#endif
