/* mesh.h - encrypted byte streams between the ranks of an attempt, for model/comm's ring
 *
 * Every rank listens, then all connect with all: rank i calls every lower rank and takes
 * the calls of every higher one. Both ends of a stream prove that they know the attempt's
 * secret and all they say is encrypted (sealed.h); strangers are turned away and disturb
 * nobody. Blocking with a deadline.
 * Plain stream sockets and not ZeroMQ: a collective's hop has no second thread on its way
 * and the kernel bounds what is under way. While a call waits, what arrives is taken in
 * (up to NET_MESH_BUFFER_MAX a peer), so ranks that all send first do not lock up.
 * Threads: a mesh belongs to one. Units: bytes, ms.
 * Errors: ERR_TIMEOUT at the deadline, ERR_PEER when a rank is gone or its bytes are not
 * what it sent; after either the streams are cut at an unknown place: close the mesh.
 */
#ifndef VNEVA_COMMON_NET_MESH_H
#define VNEVA_COMMON_NET_MESH_H

#include "common/base/err.h"
#include "common/net/secret.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NET_MESH_BUFFER_MAX (64u << 20) /* taken in ahead of net_mesh_recv */
#define NET_MESH_RANKS_MAX 1024
#define NET_MESH_POSTS_MAX 4 /* pieces posted before they are flushed */

struct net_mesh;

/* address: one of this machine, IPv4 or IPv6; the system chooses a port. */
int net_mesh_listen(struct net_mesh **out, const char *address, struct err *err);
const char *net_mesh_endpoint(const struct net_mesh *mesh); /* "tcp://address:port" */
/* Every rank calls with the same endpoints, by rank, and the same secret; returns when all
 * are connected, and listens no more. */
int net_mesh_connect(struct net_mesh *mesh, int rank, int n_ranks,
                     const char *const *endpoints, const struct net_secret *secret,
                     int64_t timeout_ms, struct err *err);
void net_mesh_close(struct net_mesh *mesh); /* NULL is fine */

/* Begins to send: the bytes are borrowed until net_mesh_flush, and go out while others are
 * received. At most NET_MESH_POSTS_MAX pieces, all to one rank. */
int net_mesh_post(struct net_mesh *mesh, int to_rank, const void *bytes, size_t n_bytes,
                  struct err *err);
/* Waits until all that was posted is on its way. */
int net_mesh_flush(struct net_mesh *mesh, int64_t timeout_ms, struct err *err);
/* Exactly n_bytes; pieces of any size may be received as others. */
int net_mesh_recv(struct net_mesh *mesh, int from_rank, void *bytes, size_t n_bytes,
                  int64_t timeout_ms, struct err *err);

/* The loopback address is only reached from the same machine. */
bool net_mesh_is_loopback(const char *endpoint);

#endif
