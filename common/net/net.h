/* net.h - message sockets: a server that knows its peers, a client that reconnects
 *
 * Wraps ZeroMQ (ROUTER and DEALER); nothing else in the project includes it. An endpoint
 * is "ipc:///path" or "tcp://host:port"; a TCP endpoint off loopback requires keys, which
 * are not built yet, so it is refused (ERR_DENIED). A path longer than a Unix socket may
 * have (107 bytes) is ERR_LIMIT.
 * Threads: a net_server, net_client or net_mesh belongs to one thread.
 * Bounds: NET_QUEUE_MAX messages wait per peer; more are dropped by ZeroMQ for servers
 * (peers resend what must not be lost) and refused with ERR_LIMIT for clients.
 */
#ifndef VNEVA_COMMON_NET_NET_H
#define VNEVA_COMMON_NET_NET_H

#include "common/wire/wire.h"

#include <stdbool.h>

#define NET_QUEUE_MAX 10000
#define NET_PEER_BYTES 16

struct net_peer { /* who sent a message; answer to it with the same */
    uint8_t id[NET_PEER_BYTES];
    size_t n_bytes;
};

struct net_server;
struct net_client;

/* ERR_EXISTS when somebody serves the endpoint already: who serves an ipc endpoint holds a
 * lock on the file PATH.lock beside the socket. A stale socket file is replaced. The
 * folder of an ipc socket must be private to the user (mode 0700). */
int net_server_open(struct net_server **out, const char *endpoint, struct err *err);
void net_server_close(struct net_server *server);
/* File descriptor that polls readable when something may be there (edge triggered: drain
 * with net_server_receive until it says 0). */
int net_server_fd(struct net_server *server);
/* 1: one message (undecodable ones are answered with ERROR here and not given out),
 * 0: nothing there or a signal came, -1: error. timeout_ms 0: do not wait, -1: forever.
 * The caller owns the message (wire_fini). */
int net_server_receive(struct net_server *server, struct net_peer *from,
                       struct wire *message, int64_t timeout_ms, struct err *err);
/* sequence is set here. A peer that is gone is not an error: the message is dropped. */
int net_server_send(struct net_server *server, const struct net_peer *to,
                    struct wire *message, struct err *err);

/* Connects in the background and again after every break, under one identity for life, so
 * that the server keeps its way to the client. Succeeds when nobody serves yet. */
int net_client_open(struct net_client **out, const char *endpoint, struct err *err);
void net_client_close(struct net_client *client);
int net_client_fd(struct net_client *client);
/* Sets message->sequence, counting from 1. */
int net_client_send(struct net_client *client, struct wire *message, struct err *err);
/* As net_server_receive; what does not decode is -1 with ERR_FORMAT. */
int net_client_receive(struct net_client *client, struct wire *message,
                       int64_t timeout_ms, struct err *err);
/* Sends and waits for the answer; other messages that come meanwhile are dropped, so this
 * is for clients that only ask. A reply of type ERROR becomes -1 with its code and text;
 * no answer in time is ERR_TIMEOUT saying that no coordinator answers at the endpoint. */
int net_client_call(struct net_client *client, struct wire *request, struct wire *reply,
                    int64_t timeout_ms, struct err *err);
/* One more answer to the request of that sequence, of those that get several. */
int net_client_await(struct net_client *client, uint64_t sequence, struct wire *reply,
                     int64_t timeout_ms, struct err *err);

/* Byte streams between ranks, for model/comm's ring: every rank listens, then connects to
 * all others. Blocking with a deadline.
 * Plain stream sockets and not ZeroMQ: a collective's hop has no second thread on its way
 * and the kernel bounds what is under way. While a send waits, what arrives is taken in
 * (up to NET_MESH_BUFFER_MAX a peer), so ranks that all send first do not lock up.
 * Errors: ERR_TIMEOUT at the deadline, ERR_PEER when a rank is gone; after either the
 * streams are cut at an unknown place: close the mesh. */
#define NET_MESH_BUFFER_MAX (64u << 20) /* bytes taken in ahead of net_mesh_recv */
#define NET_MESH_RANKS_MAX 1024
struct net_mesh;
/* "ipc:///path" (a private folder) or "tcp://127.0.0.1:*". */
int net_mesh_listen(struct net_mesh **out, const char *endpoint, struct err *err);
const char *net_mesh_endpoint(const struct net_mesh *mesh); /* with the port chosen */
/* Every rank calls with the same endpoints, by rank; returns when all are connected. */
int net_mesh_connect(struct net_mesh *mesh, int rank, int n_ranks,
                     const char *const *endpoints, int64_t timeout_ms, struct err *err);
/* Exactly n_bytes; pieces of any size may be received as others. */
int net_mesh_send(struct net_mesh *mesh, int to_rank, const void *bytes, size_t n_bytes,
                  int64_t timeout_ms, struct err *err);
int net_mesh_recv(struct net_mesh *mesh, int from_rank, void *bytes, size_t n_bytes,
                  int64_t timeout_ms, struct err *err);
void net_mesh_close(struct net_mesh *mesh);

#endif
