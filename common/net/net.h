/* net.h - message sockets: a server that knows its peers, a client that reconnects
 *
 * Wraps ZeroMQ (ROUTER and DEALER); nothing else in the project includes it. An endpoint
 * is "ipc:///path" or "tcp://host:port"; a TCP endpoint off loopback requires keys, which
 * are not built yet, so it is refused.
 * Threads: a net_server or net_client belongs to one thread.
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

/* ERR_EXISTS when somebody answers at the endpoint already. A stale socket file is
 * replaced. The folder of an ipc socket must be private to the user (mode 0700). */
int net_server_open(struct net_server **out, const char *endpoint, struct err *err);
void net_server_close(struct net_server *server);
/* File descriptor that polls readable when something may be there (edge triggered: drain
 * with net_server_receive until it says 0). */
int net_server_fd(struct net_server *server);
/* 1: one message (undecodable ones are answered with ERROR here and not given out),
 * 0: nothing there, -1: error. timeout_ms 0: do not wait. */
int net_server_receive(struct net_server *server, struct net_peer *from,
                       struct wire *message, int64_t timeout_ms, struct err *err);
/* sequence is set here. A peer that is gone is not an error: the message is dropped. */
int net_server_send(struct net_server *server, const struct net_peer *to,
                    struct wire *message, struct err *err);

int net_client_open(struct net_client **out, const char *endpoint, struct err *err);
void net_client_close(struct net_client *client);
int net_client_fd(struct net_client *client);
int net_client_send(struct net_client *client, struct wire *message, struct err *err);
int net_client_receive(struct net_client *client, struct wire *message,
                       int64_t timeout_ms, struct err *err);
/* Sends and waits for the answer. A reply of type ERROR becomes -1 with its code and text;
 * no answer in time is ERR_TIMEOUT saying that no coordinator answers at the endpoint. */
int net_client_call(struct net_client *client, struct wire *request, struct wire *reply,
                    int64_t timeout_ms, struct err *err);

/* Byte streams between ranks, for model/comm's ring: every rank listens, then connects to
 * all others. Blocking with a deadline. */
struct net_mesh;
int net_mesh_listen(struct net_mesh **out, const char *endpoint, struct err *err);
const char *net_mesh_endpoint(const struct net_mesh *mesh); /* with the port chosen */
int net_mesh_connect(struct net_mesh *mesh, int rank, int n_ranks,
                     const char *const *endpoints, struct err *err);
int net_mesh_send(struct net_mesh *mesh, int to_rank, const void *bytes, size_t n_bytes,
                  int64_t timeout_ms, struct err *err);
int net_mesh_recv(struct net_mesh *mesh, int from_rank, void *bytes, size_t n_bytes,
                  int64_t timeout_ms, struct err *err);
void net_mesh_close(struct net_mesh *mesh);

#endif
