/* net.h - message sockets: a server that knows its peers, a client that reconnects
 *
 * Wraps ZeroMQ (ROUTER and DEALER); nothing else in the project includes it. An endpoint
 * is "ipc:///path" or "tcp://host:port" (a name, an IPv4 address, an IPv6 address in
 * brackets; to listen also "*"). A path longer than a Unix socket may have (107 bytes) is
 * ERR_LIMIT. Every TCP endpoint, loopback too, asks for keys (keys.h) and is encrypted;
 * who can open the ipc socket, in the user's own folder, is the user and may do all.
 * Threads: a net_server or net_client belongs to one thread.
 * Bounds: NET_QUEUE_MAX messages wait per peer; more are dropped by ZeroMQ for servers
 * (peers resend what must not be lost) and refused with ERR_LIMIT for clients.
 */
#ifndef VNEVA_COMMON_NET_NET_H
#define VNEVA_COMMON_NET_NET_H

#include "common/net/keys.h"
#include "common/wire/wire.h"

#include <stdbool.h>

#define NET_QUEUE_MAX 10000
#define NET_PEER_BYTES 16

struct net_peer { /* who sent a message; answer to it with the same */
    uint8_t id[NET_PEER_BYTES];
    size_t n_bytes;
    enum key_role role;              /* of the key as it is now; ipc: KEY_ADMIN */
    char key_name[KEY_NAME_BYTES];   /* "" for ipc */
    char public_key[KEY_TEXT_BYTES]; /* "" for ipc */
};

/* The same connection under the same key. */
bool net_peer_is_same(const struct net_peer *a, const struct net_peer *b);

struct net_server;
struct net_client;

/* ipc only. ERR_EXISTS when somebody serves the endpoint already: who serves it holds a
 * lock on the file PATH.lock beside the socket. A stale socket file is replaced. The
 * folder of the socket must be private to the user (mode 0700). */
int net_server_open(struct net_server **out, const char *endpoint, struct err *err);
/* Serves a TCP endpoint beside it, once, with the keys of the home folder (keys_init has
 * made them). The list of those authorized is read again when it changes: a key that was
 * revoked is obeyed no more, also on a connection that stands. Port 0 or "*": the system
 * chooses. Who has no key or a wrong one gets no answer; it is logged, boundedly. */
int net_server_listen(struct net_server *server, const char *endpoint, const char *home,
                      struct err *err);
/* The TCP endpoint as others reach it, with the port chosen and, where it listens on all
 * addresses, this machine's name. "": none. */
const char *net_server_endpoint(const struct net_server *server);
void net_server_close(struct net_server *server);
/* Grows whenever another list of those authorized was read. */
unsigned net_server_keys_version(const struct net_server *server);
/* What the peer's key may do now: KEY_NONE once it is revoked; ipc: KEY_ADMIN. */
enum key_role net_server_role(const struct net_server *server,
                              const struct net_peer *peer);
/* 1: one message (undecodable ones are answered with ERROR here and not given out),
 * 0: nothing there or a signal came, -1: error. timeout_ms 0: do not wait, -1: forever.
 * The caller owns the message (wire_fini). */
int net_server_receive(struct net_server *server, struct net_peer *from,
                       struct wire *message, int64_t timeout_ms, struct err *err);
/* sequence is set here. A peer that is gone is not an error: the message is dropped. */
int net_server_send(struct net_server *server, const struct net_peer *to,
                    struct wire *message, struct err *err);

/* Whether the text is a TCP endpoint that a client on another machine can connect to:
 * a host that is not "*", a port that is known. ERR_INVALID. */
int net_check_remote(const char *endpoint, struct err *err);

/* Connects in the background and again after every break, under one identity for life, so
 * that the server keeps its way to the client. Succeeds when nobody serves yet, or not
 * under the key's coordinator. endpoint NULL: that of the key. key: needed for TCP
 * (ERR_DENIED), else not looked at and may be NULL; it may go after this call. */
int net_client_open(struct net_client **out, const char *endpoint, const struct key *key,
                    struct err *err);
void net_client_close(struct net_client *client);
int net_client_fd(struct net_client *client);
/* True once after every TCP connection that took the place of one that broke: what was on
 * its way then, either way, may be lost. (A local socket breaks with its server only.) */
bool net_client_take_break(struct net_client *client);
/* ERR_DENIED: somebody answered at the endpoint and refused, since there was a connection
 * last; it is tried again by itself. */
int net_client_check_refused(struct net_client *client, struct err *err);
/* Sets message->sequence, counting from 1. ERR_DENIED while what listens at the endpoint is
 * no coordinator of ours; it is tried again by itself. */
int net_client_send(struct net_client *client, struct wire *message, struct err *err);
/* As net_server_receive; what does not decode is -1 with ERR_FORMAT. */
int net_client_receive(struct net_client *client, struct wire *message,
                       int64_t timeout_ms, struct err *err);
/* Sends and waits for the answer; other messages that come meanwhile are dropped, so this
 * is for clients that only ask. A reply of type ERROR becomes -1 with its code and text;
 * no answer in time is ERR_TIMEOUT saying that no coordinator answers at the endpoint, or
 * ERR_DENIED when somebody does but takes no key of ours. */
int net_client_call(struct net_client *client, struct wire *request, struct wire *reply,
                    int64_t timeout_ms, struct err *err);
/* One more answer to the request of that sequence, of those that get several. */
int net_client_await(struct net_client *client, uint64_t sequence, struct wire *reply,
                     int64_t timeout_ms, struct err *err);

#endif
