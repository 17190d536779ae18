/* The byte streams of mesh.h, once their ends have met (mesh_meet.c). All sockets are
 * non-blocking; a call that waits polls. Meanwhile what was posted goes out and what ranks
 * send that nobody asked for yet is taken in, so that ranks that all send before they
 * receive make progress.
 *
 *     post -> sealed records -> socket        socket -> raw records -> opened -> caller
 *                                                                   \-> taken_in
 */
#include "common/base/clock.h"
#include "common/base/stage.h"
#include "common/net/endpoint.h"
#include "common/net/mesh_internal.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define MESH_KERNEL_BYTES                                                                \
    (4 << 20) /* asked for each direction; the kernel may give less */
#define MESH_RAW_BYTES (4 * (SEALED_RECORD_MAX + SEALED_OVERHEAD))
#define MESH_SEALED_BYTES (2 * (SEALED_RECORD_MAX + SEALED_OVERHEAD))

int64_t mesh_left_ms(int64_t deadline_ms)
{
    int64_t left = deadline_ms - clock_mono_ms();

    return left > 0 ? left : 0;
}

static int sys_failed(struct err *err, const char *what)
{
    return err_set(err, ERR_IO, "%s: %s", what, strerror(errno));
}

/* ---- opening ---- */

void mesh_set_up_socket(int fd)
{
    const int bytes = MESH_KERNEL_BYTES, on = 1;

    /* Hints: a stream works without them. */
    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof(bytes));
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
}

int mesh_open_socket(int family, struct err *err)
{
    int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (fd < 0)
        return sys_failed(err, "cannot make a socket");
    mesh_set_up_socket(fd);
    return fd;
}

static int bind_and_listen(struct net_mesh *mesh, const char *address, struct err *err)
{
    struct endpoint endpoint = {.is_ipc = false};
    struct mesh_address bound = {.n_bytes = 0};

    if (endpoint_format(mesh->endpoint, sizeof(mesh->endpoint), &endpoint, address, 0,
                        err) < 0 ||
        mesh_read_endpoint(&bound, mesh->endpoint, err) < 0)
        return -1;
    mesh->listen_fd = mesh_open_socket(bound.any.ss_family, err);
    if (mesh->listen_fd < 0)
        return -1;
    if (bind(mesh->listen_fd, (struct sockaddr *)&bound.any, bound.n_bytes) < 0 ||
        listen(mesh->listen_fd, NET_MESH_RANKS_MAX) < 0)
        return err_set(err, ERR_IO, "cannot listen at '%s': %s", address,
                       strerror(errno));
    if (getsockname(mesh->listen_fd, (struct sockaddr *)&bound.any, &bound.n_bytes) < 0)
        return sys_failed(err, "cannot ask for the port");
    return endpoint_format(mesh->endpoint, sizeof(mesh->endpoint), &endpoint, address,
                           endpoint_port(&bound.any), err);
}

int net_mesh_listen(struct net_mesh **out, const char *address, struct err *err)
{
    struct net_mesh *mesh;

    if (sodium_init() < 0)
        return err_set(err, ERR_IO, "cannot start libsodium: no random numbers");
    mesh = calloc(1, sizeof(*mesh));
    if (!mesh)
        return err_set(err, ERR_NOMEM, "no memory for a mesh");
    mesh->listen_fd = -1;
    mesh->post_to = -1;
    if (bind_and_listen(mesh, address, err) < 0) {
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

bool net_mesh_is_loopback(const char *endpoint)
{
    struct endpoint parsed;

    return endpoint_parse(&parsed, endpoint, NULL) == 0 && parsed.is_loopback;
}

int mesh_read_endpoint(struct mesh_address *out, const char *endpoint, struct err *err)
{
    struct endpoint parsed;

    if (endpoint_parse(&parsed, endpoint, err) < 0)
        return -1;
    if (parsed.is_ipc || parsed.is_any)
        return err_set(err, ERR_INVALID, "'%s' is not where a rank is reached", endpoint);
    return endpoint_resolve(&parsed, &out->any, &out->n_bytes, err);
}

static int make_room(struct net_mesh *mesh, int n_ranks, struct err *err)
{
    mesh->streams = calloc((size_t)n_ranks, sizeof(*mesh->streams));
    mesh->polls = calloc((size_t)n_ranks, sizeof(*mesh->polls));
    mesh->sealed = malloc(MESH_SEALED_BYTES);
    if (!mesh->streams || !mesh->polls || !mesh->sealed)
        return err_set(err, ERR_NOMEM, "no memory for a mesh of %d ranks", n_ranks);
    mesh->n_ranks = n_ranks;
    for (int i = 0; i < n_ranks; i++)
        mesh->streams[i].fd = -1;
    return 0;
}

int net_mesh_connect(struct net_mesh *mesh, int rank, int n_ranks,
                     const char *const *endpoints, const struct net_secret *secret,
                     int64_t timeout_ms, struct err *err)
{
    if (n_ranks < 1 || n_ranks > NET_MESH_RANKS_MAX || rank < 0 || rank >= n_ranks)
        return err_set(err, ERR_INVALID, "rank %d of %d ranks", rank, n_ranks);
    if (mesh->streams)
        return err_set(err, ERR_STATE, "mesh is connected already");
    mesh->rank = rank;
    if (make_room(mesh, n_ranks, err) < 0 ||
        mesh_meet(mesh, endpoints, secret, timeout_ms, err) < 0)
        return -1;
    close(mesh->listen_fd);
    mesh->listen_fd = -1;
    return 0;
}

void net_mesh_close(struct net_mesh *mesh)
{
    if (!mesh)
        return;
    for (int i = 0; i < mesh->n_ranks; i++) {
        struct stream *stream = &mesh->streams[i];

        if (stream->fd >= 0)
            close(stream->fd);
        sealed_forget(&stream->sealed, sizeof(stream->sealed));
        free(stream->raw);
        buf_fini(&stream->taken_in);
    }
    if (mesh->listen_fd >= 0)
        close(mesh->listen_fd);
    free(mesh->streams);
    free(mesh->polls);
    free(mesh->sealed);
    free(mesh);
}

/* ---- in ---- */

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

/* Bytes of the whole record that comes next; 0: not all of it is here, -1: it is none. */
static ssize_t next_record(const struct stream *stream)
{
    size_t n_there = stream->raw_bytes - stream->raw_at, n_record;

    if (n_there < SEALED_LENGTH_BYTES)
        return 0;
    n_record = sealed_record_bytes(stream->raw + stream->raw_at);
    if (!n_record)
        return -1;
    return n_there < n_record ? 0 : (ssize_t)n_record;
}

/* Opens the next record, of n_record bytes, to where there is room for what it holds. */
static int open_record(struct stream *stream, void *bytes, size_t n_record)
{
    if (sealed_pull(&stream->sealed, bytes, stream->raw + stream->raw_at,
                    n_record - SEALED_OVERHEAD) < 0)
        return -1;
    stream->raw_at += n_record;
    return 0;
}

static int take_in_record(struct stream *stream, size_t n_record)
{
    uint8_t bytes[SEALED_RECORD_MAX];

    if (open_record(stream, bytes, n_record) < 0)
        return -1;
    buf_add(&stream->taken_in, bytes, n_record - SEALED_OVERHEAD);
    return 0;
}

/* Puts up to n_bytes to `bytes`, from what is here. How many, or -1: forged. */
static ssize_t open_some(struct stream *stream, uint8_t *bytes, size_t n_bytes)
{
    size_t n = consume(stream, bytes, n_bytes);
    ssize_t n_record;

    while (n < n_bytes && (n_record = next_record(stream)) != 0) {
        size_t n_inside = (size_t)n_record - SEALED_OVERHEAD;

        if (n_record < 0)
            return -1;
        if (n_inside <= n_bytes - n) {
            if (open_record(stream, bytes + n, (size_t)n_record) < 0)
                return -1;
            n += n_inside;
        } else {
            if (take_in_record(stream, (size_t)n_record) < 0)
                return -1;
            n += consume(stream, bytes + n, n_bytes - n);
        }
    }
    return (ssize_t)n;
}

/* recv(2) without waiting: bytes read, 0 for none yet (or no room: open records first), -1
 * when the rank is gone. */
static ssize_t fill_raw(struct stream *stream)
{
    ssize_t n;

    if (!stream->raw && !(stream->raw = malloc(MESH_RAW_BYTES)))
        return -1;
    stream->raw_bytes -= stream->raw_at;
    memmove(stream->raw, stream->raw + stream->raw_at, stream->raw_bytes);
    stream->raw_at = 0;
    if (stream->raw_bytes == MESH_RAW_BYTES)
        return 0;
    do
        n = recv(stream->fd, stream->raw + stream->raw_bytes,
                 MESH_RAW_BYTES - stream->raw_bytes, 0);
    while (n < 0 && errno == EINTR);
    if (n < 0 && errno == EAGAIN)
        return 0;
    if (n > 0) {
        stream->raw_bytes += (size_t)n;
        return n;
    }
    stream->is_ended = true;
    return -1;
}

/* What nobody asked for yet. A record that does not open ends the stream, as a hang-up
 * does: whoever asks for more finds out. */
static int take_in(struct stream *stream, struct err *err)
{
    ssize_t n_record;

    fill_raw(stream);
    while ((n_record = next_record(stream)) != 0)
        if (n_record < 0 || take_in_record(stream, (size_t)n_record) < 0) {
            stream->is_ended = true;
            return 0;
        }
    return buf_check(&stream->taken_in, err);
}

/* ---- out ---- */

/* Seals posts while there is room for a whole record: small pieces go out together. */
static void seal_posts(struct net_mesh *mesh)
{
    const size_t room = MESH_SEALED_BYTES - SEALED_RECORD_MAX - SEALED_OVERHEAD;
    struct sealed *sealed = &mesh->streams[mesh->post_to].sealed;

    while (mesh->n_posts && mesh->sealed_bytes <= room) {
        struct post *post = &mesh->posts[0];
        size_t n = post->n_bytes < SEALED_RECORD_MAX ? post->n_bytes : SEALED_RECORD_MAX;

        sealed_push(sealed, mesh->sealed + mesh->sealed_bytes, post->at, n);
        mesh->sealed_bytes += n + SEALED_OVERHEAD;
        post->at += n;
        post->n_bytes -= n;
        if (!post->n_bytes)
            memmove(post, post + 1, (size_t)--mesh->n_posts * sizeof(*post));
    }
}

static bool has_posts(const struct net_mesh *mesh)
{
    return mesh->n_posts || mesh->sealed_bytes;
}

/* Sends what the kernel takes: 1: all is gone, 0: it takes no more now, -1. */
static int send_posts(struct net_mesh *mesh, struct err *err)
{
    while (has_posts(mesh)) {
        ssize_t n;

        if (!mesh->sealed_bytes)
            seal_posts(mesh);
        n = send(mesh->streams[mesh->post_to].fd, mesh->sealed + mesh->sealed_at,
                 mesh->sealed_bytes - mesh->sealed_at, MSG_NOSIGNAL);
        if (n < 0 && errno == EAGAIN)
            return 0;
        if (n < 0 && errno != EINTR)
            return err_set(err, ERR_PEER, "rank %d is gone: %s", mesh->post_to,
                           strerror(errno));
        mesh->sealed_at += n > 0 ? (size_t)n : 0;
        if (mesh->sealed_at == mesh->sealed_bytes)
            mesh->sealed_at = mesh->sealed_bytes = 0;
    }
    return 1;
}

/* ---- waiting ---- */

static bool has_room(const struct stream *stream)
{
    return !stream->is_ended && n_taken_in(stream) < NET_MESH_BUFFER_MAX;
}

/* What to wait for at each stream: what is asked for, room for what was posted, and what
 * others send as long as there is room for it. */
static void set_polls(struct net_mesh *mesh, int from)
{
    for (int i = 0; i < mesh->n_ranks; i++) {
        struct pollfd *it = &mesh->polls[i];

        *it = (struct pollfd){.fd = mesh->streams[i].fd};
        if (i == from || has_room(&mesh->streams[i]))
            it->events |= POLLIN;
        if (i == mesh->post_to && has_posts(mesh))
            it->events |= POLLOUT;
        if (!it->events)
            it->fd = -1; /* else a hang-up would end every poll at once */
    }
}

/* Waits until something can go on; takes in what others than `from` (-1: all) send. */
static int wait_streams(struct net_mesh *mesh, int from, int64_t deadline_ms,
                        struct err *err)
{
    int n;

    set_polls(mesh, from);
    n = stage_poll(mesh->polls, (nfds_t)mesh->n_ranks, mesh_left_ms(deadline_ms));
    if (n < 0 && errno != EINTR)
        return sys_failed(err, "cannot wait for a rank");
    if (n == 0)
        return err_set(err, ERR_TIMEOUT, "rank %d does not answer",
                       from < 0 ? mesh->post_to : from);
    for (int i = 0; n > 0 && i < mesh->n_ranks; i++)
        if (i != from && mesh->polls[i].revents & ~POLLOUT &&
            has_room(&mesh->streams[i]) && take_in(&mesh->streams[i], err) < 0)
            return -1;
    return 0;
}

/* ---- calls ---- */

static int check_peer(const struct net_mesh *mesh, int rank, struct err *err)
{
    if (!mesh->streams || rank < 0 || rank >= mesh->n_ranks || mesh->streams[rank].fd < 0)
        return err_set(err, ERR_INVALID, "no stream to rank %d", rank);
    return 0;
}

int net_mesh_post(struct net_mesh *mesh, int to_rank, const void *bytes, size_t n_bytes,
                  struct err *err)
{
    if (check_peer(mesh, to_rank, err) < 0)
        return -1;
    if (has_posts(mesh) &&
        (mesh->post_to != to_rank || mesh->n_posts == NET_MESH_POSTS_MAX))
        return err_set(err, ERR_STATE, "what was posted to rank %d is not flushed",
                       mesh->post_to);
    mesh->post_to = to_rank;
    if (n_bytes)
        mesh->posts[mesh->n_posts++] = (struct post){bytes, n_bytes};
    return 0;
}

int net_mesh_flush(struct net_mesh *mesh, int64_t timeout_ms, struct err *err)
{
    int64_t deadline_ms = clock_mono_ms() + timeout_ms;
    int rc;

    while ((rc = send_posts(mesh, err)) == 0)
        if (wait_streams(mesh, -1, deadline_ms, err) < 0)
            return -1;
    return rc < 0 ? -1 : 0;
}

int net_mesh_recv(struct net_mesh *mesh, int from_rank, void *bytes, size_t n_bytes,
                  int64_t timeout_ms, struct err *err)
{
    int64_t deadline_ms = clock_mono_ms() + timeout_ms;
    struct stream *stream;
    uint8_t *at = bytes;
    ssize_t n;

    if (check_peer(mesh, from_rank, err) < 0)
        return -1;
    stream = &mesh->streams[from_rank];
    for (;;) {
        n = open_some(stream, at, n_bytes);
        if (n < 0)
            return err_set(err, ERR_PEER, "what comes from rank %d is not what it sent",
                           from_rank);
        at += n;
        n_bytes -= (size_t)n;
        if (send_posts(mesh, err) < 0)
            return -1;
        if (!n_bytes)
            return 0;
        n = fill_raw(stream);
        if (n < 0)
            return err_set(err, ERR_PEER, "rank %d is gone", from_rank);
        if (n == 0 && wait_streams(mesh, from_rank, deadline_ms, err) < 0)
            return err_wrap(err, "waiting for %zu bytes from rank %d", n_bytes,
                            from_rank);
    }
}
