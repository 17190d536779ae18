/* mesh_internal.h - what mesh.c (streams) and mesh_meet.c (connecting) share */
#ifndef VNEVA_COMMON_NET_MESH_INTERNAL_H
#define VNEVA_COMMON_NET_MESH_INTERNAL_H

#include "common/base/buf.h"
#include "common/net/mesh.h"
#include "common/net/sealed.h"

#include <poll.h>
#include <sys/socket.h>

#define MESH_ENDPOINT_MAX 96 /* of an address, which is shorter than a name */

struct mesh_address {
    struct sockaddr_storage any;
    socklen_t n_bytes;
};

struct stream {
    int fd; /* -1: none */
    bool is_ended;
    struct sealed sealed;
    uint8_t *raw;     /* [MESH_RAW_BYTES] records as they came; NULL before the first */
    size_t raw_at;    /* opened up to here */
    size_t raw_bytes; /* filled up to here */
    struct buf taken_in; /* opened before net_mesh_recv asked for it */
    size_t n_consumed;   /* of taken_in */
};

struct post {
    const uint8_t *at;
    size_t n_bytes;
};

struct net_mesh {
    char endpoint[MESH_ENDPOINT_MAX];
    int listen_fd; /* -1: all are connected */
    int rank, n_ranks;
    struct stream *streams; /* [n_ranks] */
    struct pollfd *polls;   /* [n_ranks], scratch */
    int post_to;            /* whom the posts are for */
    int n_posts;
    struct post posts[NET_MESH_POSTS_MAX]; /* what is not sealed yet, in order */
    uint8_t *sealed;                       /* [MESH_SEALED_BYTES] records on their way */
    size_t sealed_at, sealed_bytes;
};

int64_t mesh_left_ms(int64_t deadline_ms);
void mesh_set_up_socket(int fd);
int mesh_open_socket(int family, struct err *err);
int mesh_read_endpoint(struct mesh_address *out, const char *endpoint, struct err *err);

/* Fills mesh->streams, which are all there and have no socket. */
int mesh_meet(struct net_mesh *mesh, const char *const *endpoints,
              const struct net_secret *secret, int64_t timeout_ms, struct err *err);

#endif
