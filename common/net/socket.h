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

int net_socket_fd(struct net_socket *socket);

/* 1: something to receive, 0: not in time or a signal came, -1: error. */
int net_socket_wait(struct net_socket *socket, int64_t timeout_ms, struct err *err);

/* Receives one message of exactly two frames (`from` given) or one (`from` NULL).
 * 1: `frame` holds the last, to be closed with zmq_msg_close by the caller; 0: nothing
 * there; 2: a message of another shape came, *from is set and it is dropped; -1: error. */
int net_socket_receive(struct net_socket *socket, struct net_peer *from, void *frame,
                       struct err *err);

/* Numbers, packs and sends; ERR_LIMIT when the queue is full. */
int net_socket_send(struct net_socket *socket, const struct net_peer *to,
                    struct wire *message, struct err *err);

#endif
