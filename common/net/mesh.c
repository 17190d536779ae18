/* The byte streams of net.h. Rank i connects to every lower rank and accepts every higher
 * one; who connects says its rank first. All sockets are non-blocking; a call that waits
 * polls, and while it waits for one rank it takes in what the others send, so that ranks
 * that all send before they receive make progress.
 */
#include "common/base/buf.h"
#include "common/base/clock.h"
#include "common/net/endpoint.h"
#include "common/net/net.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define MESH_ENDPOINT_MAX 320 /* "tcp://", the longest host name, port */
#define MESH_KERNEL_BYTES                                                                \
    (4 << 20) /* asked for each direction; the kernel may give less */
#define MESH_BLOCK_BYTES (1 << 18) /* taken in by one read while sending */
#define MESH_RETRY_MS 10           /* between tries to connect to a rank */
#define MESH_MAGIC 0x766e6d31u     /* "vnm1", the first word of a greeting */

struct stream {
    int fd; /* -1: none */
    bool is_ended;
    struct buf taken_in; /* bytes before net_mesh_recv asked for them */
    size_t n_consumed;   /* of taken_in */
};

struct net_mesh {
    char endpoint[MESH_ENDPOINT_MAX];
    char path[MESH_ENDPOINT_MAX]; /* of the socket file, to be removed; "" for tcp */
    int listen_fd;
    int rank, n_ranks;
    struct stream *streams; /* [n_ranks] */
    struct pollfd *polls;   /* [n_ranks], scratch */
};

struct greeting {
    uint32_t magic, rank;
};

static int64_t left_ms(int64_t deadline_ms)
{
    int64_t left = deadline_ms - clock_mono_ms();

    return left > 0 ? left : 0;
}

static int sys_failed(struct err *err, const char *what)
{
    return err_set(err, ERR_IO, "%s: %s", what, strerror(errno));
}

/* ---- opening ---- */

static void set_up_stream(int fd)
{
    const int bytes = MESH_KERNEL_BYTES, on = 1;

    /* Hints: a stream works without them. */
    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof(bytes));
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
}

static int open_socket(const struct endpoint *endpoint, struct err *err)
{
    int fd = socket(endpoint->is_ipc ? AF_UNIX : AF_INET,
                    SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (fd < 0)
        return sys_failed(err, "cannot make a socket");
    set_up_stream(fd);
    return fd;
}

/* The endpoint as others reach it: tcp with the port the system chose. */
static int name_endpoint(struct net_mesh *mesh, const struct endpoint *endpoint,
                         const char *text, struct err *err)
{
    struct sockaddr_in bound;
    socklen_t n_bytes = sizeof(bound);

    if (endpoint->is_ipc) {
        snprintf(mesh->endpoint, sizeof(mesh->endpoint), "%s", text);
        snprintf(mesh->path, sizeof(mesh->path), "%s", endpoint->path);
        return 0;
    }
    if (getsockname(mesh->listen_fd, (struct sockaddr *)&bound, &n_bytes) < 0)
        return sys_failed(err, "cannot ask for the port");
    return endpoint_format(mesh->endpoint, sizeof(mesh->endpoint), endpoint, NULL,
                           ntohs(bound.sin_port), err);
}

/* A stream is not encrypted, so it stays on this machine. */
static int check_loopback(const struct endpoint *endpoint, const char *text,
                          struct err *err)
{
    if (endpoint->is_ipc || (endpoint->is_loopback && !endpoint->is_ipv6))
        return 0;
    return err_set(err, ERR_DENIED,
                   "endpoint '%s' of a rank is not on loopback, and streams between "
                   "ranks are not encrypted",
                   text);
}

static int bind_and_listen(struct net_mesh *mesh, const struct endpoint *endpoint,
                           const char *text, struct err *err)
{
    struct sockaddr_storage address;
    socklen_t n_bytes;

    if (check_loopback(endpoint, text, err) < 0 ||
        endpoint_resolve(endpoint, &address, &n_bytes, err) < 0)
        return -1;
    mesh->listen_fd = open_socket(endpoint, err);
    if (mesh->listen_fd < 0)
        return -1;
    if (endpoint->is_ipc && unlink(endpoint->path) < 0 && errno != ENOENT)
        return sys_failed(err, "cannot replace the socket file");
    if (bind(mesh->listen_fd, (struct sockaddr *)&address, n_bytes) < 0 ||
        listen(mesh->listen_fd, NET_MESH_RANKS_MAX) < 0)
        return err_set(err, ERR_IO, "cannot listen at '%s': %s", text, strerror(errno));
    return name_endpoint(mesh, endpoint, text, err);
}

int net_mesh_listen(struct net_mesh **out, const char *endpoint, struct err *err)
{
    struct net_mesh *mesh;
    struct endpoint parsed;

    if (endpoint_parse(&parsed, endpoint, err) < 0 ||
        endpoint_check_private(&parsed, err) < 0)
        return -1;
    mesh = calloc(1, sizeof(*mesh));
    if (!mesh)
        return err_set(err, ERR_NOMEM, "no memory for a mesh");
    mesh->listen_fd = -1;
    if (bind_and_listen(mesh, &parsed, endpoint, err) < 0) {
        net_mesh_close(mesh);
        return -1;
    }
    *out = mesh;
    return 0;
}

const char *net_mesh_endpoint(const struct net_mesh *mesh)
{
    return mesh->endpoint;
}

void net_mesh_close(struct net_mesh *mesh)
{
    if (!mesh)
        return;
    for (int i = 0; mesh->streams && i < mesh->n_ranks; i++) {
        if (mesh->streams[i].fd >= 0)
            close(mesh->streams[i].fd);
        buf_fini(&mesh->streams[i].taken_in);
    }
    if (mesh->listen_fd >= 0)
        close(mesh->listen_fd);
    if (mesh->path[0])
        unlink(mesh->path);
    free(mesh->streams);
    free(mesh->polls);
    free(mesh);
}

/* ---- connecting ---- */

static int wait_for(int fd, short events, int64_t deadline_ms, struct err *err)
{
    struct pollfd poll_fd = {fd, events, 0};
    int n;

    do
        n = poll(&poll_fd, 1, (int)left_ms(deadline_ms));
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return sys_failed(err, "cannot wait for a rank");
    return n ? 0 : err_set(err, ERR_TIMEOUT, "no answer in time");
}

/* Connects to one rank, trying again while it does not listen yet. */
static int connect_one(const struct endpoint *endpoint, int64_t deadline_ms,
                       struct err *err)
{
    struct sockaddr_storage address;
    socklen_t n_bytes;
    int fd, failed;

    if (endpoint_resolve(endpoint, &address, &n_bytes, err) < 0)
        return -1;
    for (;;) {
        socklen_t size = sizeof(failed);

        fd = open_socket(endpoint, err);
        if (fd < 0)
            return -1;
        failed = connect(fd, (struct sockaddr *)&address, n_bytes) < 0 ? errno : 0;
        if (failed == EINPROGRESS && wait_for(fd, POLLOUT, deadline_ms, err) == 0)
            getsockopt(fd, SOL_SOCKET, SO_ERROR, &failed, &size);
        if (!failed)
            return fd;
        close(fd);
        if (!left_ms(deadline_ms))
            return err_set(err, ERR_TIMEOUT, "rank does not listen: %s",
                           strerror(failed));
        poll(NULL, 0, MESH_RETRY_MS);
    }
}

static int connect_to(struct net_mesh *mesh, int to, const char *text,
                      int64_t deadline_ms, struct err *err)
{
    struct greeting greeting = {MESH_MAGIC, (uint32_t)mesh->rank};
    struct endpoint endpoint;
    int fd;

    if (endpoint_parse(&endpoint, text, err) < 0 ||
        check_loopback(&endpoint, text, err) < 0)
        return -1;
    fd = connect_one(&endpoint, deadline_ms, err);
    if (fd < 0)
        return err_wrap(err, "cannot connect to rank %d at '%s'", to, text);
    mesh->streams[to].fd = fd;
    return net_mesh_send(mesh, to, &greeting, sizeof(greeting), left_ms(deadline_ms),
                         err);
}

/* One stream from a higher rank; strangers that do not greet are turned away. */
static int accept_one(struct net_mesh *mesh, int64_t deadline_ms, struct err *err)
{
    struct greeting greeting;
    int fd = -1, rank;

    if (wait_for(mesh->listen_fd, POLLIN, deadline_ms, err) < 0)
        return err_wrap(err, "not all ranks connected to rank %d", mesh->rank);
    fd = accept(mesh->listen_fd, NULL, NULL);
    if (fd < 0)
        return errno == EAGAIN || errno == ECONNABORTED
                   ? 0
                   : sys_failed(err, "cannot accept a rank");
    if (fcntl(fd, F_SETFD, FD_CLOEXEC) < 0 || fcntl(fd, F_SETFL, O_NONBLOCK) < 0 ||
        wait_for(fd, POLLIN, deadline_ms, err) < 0 ||
        recv(fd, &greeting, sizeof(greeting), 0) != (ssize_t)sizeof(greeting) ||
        greeting.magic != MESH_MAGIC || greeting.rank >= (uint32_t)mesh->n_ranks ||
        mesh->streams[greeting.rank].fd >= 0 || (int)greeting.rank <= mesh->rank) {
        close(fd);
        return 0;
    }
    rank = (int)greeting.rank;
    set_up_stream(fd);
    mesh->streams[rank].fd = fd;
    return 1;
}

int net_mesh_connect(struct net_mesh *mesh, int rank, int n_ranks,
                     const char *const *endpoints, int64_t timeout_ms, struct err *err)
{
    int64_t deadline_ms = clock_mono_ms() + timeout_ms;

    if (n_ranks < 1 || n_ranks > NET_MESH_RANKS_MAX || rank < 0 || rank >= n_ranks)
        return err_set(err, ERR_INVALID, "rank %d of %d ranks", rank, n_ranks);
    if (mesh->streams)
        return err_set(err, ERR_STATE, "mesh is connected already");
    mesh->rank = rank;
    mesh->n_ranks = n_ranks;
    mesh->streams = calloc((size_t)n_ranks, sizeof(*mesh->streams));
    mesh->polls = calloc((size_t)n_ranks, sizeof(*mesh->polls));
    if (!mesh->streams || !mesh->polls) {
        free(mesh->streams);
        mesh->streams = NULL; /* and with it n_ranks means nothing */
        return err_set(err, ERR_NOMEM, "no memory for a mesh of %d ranks", n_ranks);
    }
    for (int i = 0; i < n_ranks; i++)
        mesh->streams[i].fd = -1;
    for (int i = 0; i < rank; i++)
        if (connect_to(mesh, i, endpoints[i], deadline_ms, err) < 0)
            return -1;
    for (int n = rank + 1; n < n_ranks;) {
        int accepted = accept_one(mesh, deadline_ms, err);

        if (accepted < 0)
            return -1;
        n += accepted;
    }
    return 0;
}

/* ---- streaming ---- */

static size_t n_taken_in(const struct stream *stream)
{
    return stream->taken_in.n_bytes - stream->n_consumed;
}

/* Up to n_bytes of what was taken in. */
static size_t consume(struct stream *stream, void *bytes, size_t n_bytes)
{
    size_t n = n_taken_in(stream);

    n = n < n_bytes ? n : n_bytes;
    if (!n)
        return 0;
    memcpy(bytes, stream->taken_in.data + stream->n_consumed, n);
    stream->n_consumed += n;
    /* Else a stream that is never quite empty would grow for ever. */
    if (stream->n_consumed > stream->taken_in.n_bytes / 2) {
        size_t n_left = n_taken_in(stream);

        memmove(stream->taken_in.data, stream->taken_in.data + stream->n_consumed,
                n_left);
        stream->taken_in.n_bytes = n_left;
        stream->n_consumed = 0;
    }
    return n;
}

/* recv(2) without waiting: bytes read, 0 for none yet, -1 when the rank is gone. */
static ssize_t read_some(struct stream *stream, void *bytes, size_t n_bytes)
{
    ssize_t n;

    do
        n = recv(stream->fd, bytes, n_bytes, 0);
    while (n < 0 && errno == EINTR);
    if (n > 0)
        return n;
    if (n < 0 && errno == EAGAIN)
        return 0;
    stream->is_ended = true;
    return -1;
}

static void take_in(struct stream *stream, char *block)
{
    ssize_t n = read_some(stream, block, MESH_BLOCK_BYTES);

    if (n > 0)
        buf_add(&stream->taken_in, block, (size_t)n);
}

/* What to poll a stream for: `events` for the one waited for; of all, but for the one to
 * be read by the caller itself, what they send as long as there is room for it. */
static struct pollfd poll_of(const struct stream *stream, short events)
{
    struct pollfd poll_fd = {stream->fd, events, 0};

    if (!stream->is_ended && n_taken_in(stream) < NET_MESH_BUFFER_MAX)
        poll_fd.events |= POLLIN;
    if (!poll_fd.events)
        poll_fd.fd = -1; /* else a hang-up would end every poll at once */
    return poll_fd;
}

/* Waits until the stream to `rank` is ready for `events` (POLLIN or POLLOUT). */
static int wait_stream(struct net_mesh *mesh, int rank, short events, int64_t deadline_ms,
                       struct err *err)
{
    char block[MESH_BLOCK_BYTES];
    int n;

    for (int i = 0; i < mesh->n_ranks; i++)
        mesh->polls[i] = poll_of(&mesh->streams[i], i == rank ? events : 0);
    n = poll(mesh->polls, (nfds_t)mesh->n_ranks, (int)left_ms(deadline_ms));
    if (n < 0 && errno != EINTR)
        return sys_failed(err, "cannot wait for a rank");
    if (n == 0)
        return err_set(err, ERR_TIMEOUT, "rank %d does not answer", rank);
    for (int i = 0; n > 0 && i < mesh->n_ranks; i++) {
        if (mesh->polls[i].revents & POLLIN && (i != rank || events != POLLIN))
            take_in(&mesh->streams[i], block);
        if (buf_check(&mesh->streams[i].taken_in, err) < 0)
            return -1;
    }
    return 0;
}

static int check_peer(const struct net_mesh *mesh, int rank, struct err *err)
{
    if (!mesh->streams || rank < 0 || rank >= mesh->n_ranks || mesh->streams[rank].fd < 0)
        return err_set(err, ERR_INVALID, "no stream to rank %d", rank);
    return 0;
}

int net_mesh_send(struct net_mesh *mesh, int to_rank, const void *bytes, size_t n_bytes,
                  int64_t timeout_ms, struct err *err)
{
    int64_t deadline_ms = clock_mono_ms() + timeout_ms;
    const char *at = bytes;

    if (check_peer(mesh, to_rank, err) < 0)
        return -1;
    while (n_bytes) {
        ssize_t n = send(mesh->streams[to_rank].fd, at, n_bytes, MSG_NOSIGNAL);

        if (n > 0) {
            at += n;
            n_bytes -= (size_t)n;
        } else if (n < 0 && errno != EAGAIN && errno != EINTR) {
            return err_set(err, ERR_PEER, "rank %d is gone: %s", to_rank,
                           strerror(errno));
        } else if (wait_stream(mesh, to_rank, POLLOUT, deadline_ms, err) < 0) {
            return -1;
        }
    }
    return 0;
}

int net_mesh_recv(struct net_mesh *mesh, int from_rank, void *bytes, size_t n_bytes,
                  int64_t timeout_ms, struct err *err)
{
    int64_t deadline_ms = clock_mono_ms() + timeout_ms;
    struct stream *stream;
    char *at = bytes;

    if (check_peer(mesh, from_rank, err) < 0)
        return -1;
    stream = &mesh->streams[from_rank];
    for (ssize_t n = (ssize_t)consume(stream, at, n_bytes);;
         n = read_some(stream, at, n_bytes)) {
        if (n < 0)
            return err_set(err, ERR_PEER, "rank %d is gone", from_rank);
        at += n;
        n_bytes -= (size_t)n;
        if (!n_bytes)
            return 0;
        if (n == 0 && wait_stream(mesh, from_rank, POLLIN, deadline_ms, err) < 0)
            return err_wrap(err, "waiting for %zu bytes from rank %d", n_bytes,
                            from_rank);
    }
}
