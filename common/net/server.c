#define _GNU_SOURCE /* gethostname, NI_MAXHOST */
#include "common/base/clock.h"
#include "common/base/fs.h"
#include "common/net/endpoint.h"
#include "common/net/gate.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>
#include <zmq.h>

#define SERVER_LINGER_MS 1000 /* last answers before the end */
#define SERVER_BAD_MAX 100    /* messages not given out in one call */
#define SERVER_GATE_EVERY 64  /* messages between two looks at the gate */

struct net_server {
    struct net_socket local; /* ipc */
    struct net_socket
        network;       /* tcp, with CURVE; its socket is NULL when there is none */
    struct gate *gate; /* of the network */
    char endpoint[KEY_ENDPOINT_BYTES];
    int lock_fd;
    unsigned n_received;
};

bool net_peer_is_same(const struct net_peer *a, const struct net_peer *b)
{
    return a->n_bytes == b->n_bytes && memcmp(a->id, b->id, a->n_bytes) == 0 &&
           strcmp(a->public_key, b->public_key) == 0;
}

/* The lock lives as long as the process, also when it is killed; the file stays. */
static int lock_endpoint(struct net_server *server, const struct endpoint *endpoint,
                         struct err *err)
{
    char path[FS_PATH_MAX];

    if (fs_path(path, err, "%s.lock", endpoint->path) < 0)
        return -1;
    server->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (server->lock_fd < 0)
        return err_set(err, ERR_IO, "cannot open '%s': %s", path, strerror(errno));
    if (flock(server->lock_fd, LOCK_EX | LOCK_NB) == 0)
        return 0;
    if (errno == EWOULDBLOCK)
        return err_set(err, ERR_EXISTS, "another process serves '%s' already",
                       endpoint->path);
    return err_set(err, ERR_IO, "cannot lock '%s': %s", path, strerror(errno));
}

static int open_router(struct net_socket *socket, struct err *err)
{
    const int on = 1;

    if (net_socket_init(socket, ZMQ_ROUTER, SERVER_LINGER_MS, err) < 0)
        return -1;
    if (zmq_setsockopt(socket->socket, ZMQ_ROUTER_HANDOVER, &on, sizeof(on)) < 0)
        return err_set(err, ERR_IO, "cannot set up the socket: %s", zmq_strerror(errno));
    return 0;
}

static int bind_socket(struct net_socket *socket, const char *endpoint, struct err *err)
{
    if (zmq_bind(socket->socket, endpoint) == 0)
        return 0;
    return err_set(err, errno == EADDRINUSE ? ERR_EXISTS : ERR_IO,
                   "cannot listen at '%s': %s", endpoint, zmq_strerror(errno));
}

int net_server_open(struct net_server **out, const char *endpoint, struct err *err)
{
    struct net_server *server;
    struct endpoint parsed;

    if (endpoint_parse(&parsed, endpoint, err) < 0 ||
        endpoint_check_private(&parsed, err) < 0)
        return -1;
    if (!parsed.is_ipc)
        return err_set(err, ERR_INVALID, "'%s' is no ipc endpoint", endpoint);
    server = calloc(1, sizeof(*server));
    if (!server)
        return err_set(err, ERR_NOMEM, "no memory for a server");
    server->lock_fd = -1;
    if (lock_endpoint(server, &parsed, err) < 0 || open_router(&server->local, err) < 0 ||
        bind_socket(&server->local, endpoint, err) < 0) {
        net_server_close(server);
        return -1;
    }
    *out = server;
    return 0;
}

/* ZeroMQ binds numbers, not names. */
static int numeric_endpoint(char *out, size_t n_bytes, const struct endpoint *endpoint,
                            struct err *err)
{
    struct sockaddr_storage address;
    char host[NI_MAXHOST];
    socklen_t size;

    if (endpoint_resolve(endpoint, &address, &size, err) < 0)
        return -1;
    if (getnameinfo((struct sockaddr *)&address, size, host, sizeof(host), NULL, 0,
                    NI_NUMERICHOST) != 0)
        return err_set(err, ERR_INVALID, "no address for host '%s'", endpoint->host);
    return endpoint_format(out, n_bytes, endpoint, host, endpoint->port, err);
}

/* With the port that was chosen, and a host that others can connect to. */
static int name_endpoint(struct net_server *server, const struct endpoint *endpoint,
                         struct err *err)
{
    char bound[KEY_ENDPOINT_BYTES], host[ENDPOINT_HOST_BYTES] = "";
    size_t n_bytes = sizeof(bound);
    struct endpoint actual;

    if (zmq_getsockopt(server->network.socket, ZMQ_LAST_ENDPOINT, bound, &n_bytes) < 0)
        return err_set(err, ERR_IO, "cannot ask for the port: %s", zmq_strerror(errno));
    if (endpoint_parse(&actual, bound, err) < 0)
        return -1;
    if (endpoint->is_any && gethostname(host, sizeof(host) - 1) < 0)
        return err_set(err, ERR_IO, "cannot read the host name: %s", strerror(errno));
    return endpoint_format(server->endpoint, sizeof(server->endpoint), endpoint,
                           endpoint->is_any ? host : NULL, actual.port, err);
}

static int open_network(struct net_server *server, const struct endpoint *endpoint,
                        const char *home, struct err *err)
{
    char numeric[KEY_ENDPOINT_BYTES];
    struct key key;
    int rc;

    if (numeric_endpoint(numeric, sizeof(numeric), endpoint, err) < 0 ||
        open_router(&server->network, err) < 0 ||
        (endpoint->is_ipv6 && net_socket_use_ipv6(&server->network, err) < 0) ||
        keys_read_coordinator(&key, home, err) < 0)
        return -1;
    rc = net_socket_use_key(&server->network, &key, true, err);
    key_fini(&key);
    if (rc < 0 || gate_open(&server->gate, &server->network, home, err) < 0 ||
        bind_socket(&server->network, numeric, err) < 0)
        return -1;
    return name_endpoint(server, endpoint, err);
}

static void close_network(struct net_server *server)
{
    gate_close(server->gate);
    server->gate = NULL;
    net_socket_fini(&server->network);
    server->endpoint[0] = '\0';
}

int net_server_listen(struct net_server *server, const char *endpoint, const char *home,
                      struct err *err)
{
    struct endpoint parsed;

    if (endpoint_parse(&parsed, endpoint, err) < 0)
        return -1;
    if (parsed.is_ipc)
        return err_set(err, ERR_INVALID, "'%s' is no tcp endpoint", endpoint);
    if (server->gate)
        return err_set(err, ERR_STATE, "the server listens at '%s' already",
                       server->endpoint);
    if (open_network(server, &parsed, home, err) == 0)
        return 0;
    close_network(server);
    return -1;
}

const char *net_server_endpoint(const struct net_server *server)
{
    return server->endpoint;
}

unsigned net_server_keys_version(const struct net_server *server)
{
    return server->gate ? gate_version(server->gate) : 0;
}

enum key_role net_server_role(const struct net_server *server,
                              const struct net_peer *peer)
{
    if (!peer->public_key[0])
        return KEY_ADMIN;
    return server->gate ? gate_role(server->gate, peer->public_key) : KEY_NONE;
}

void net_server_close(struct net_server *server)
{
    if (!server)
        return;
    close_network(server);
    net_socket_fini(&server->local);
    if (server->lock_fd >= 0)
        close(server->lock_fd);
    free(server);
}

static int answer_bad(struct net_server *server, const struct net_peer *to,
                      uint64_t sequence, const struct err *why, struct err *err)
{
    struct wire answer = {.type = MSG_ERROR, .reply_to = sequence};

    answer.error.code = err_code_name(why->code);
    answer.error.text = why->text;
    return net_server_send(server, to, &answer, err);
}

/* 1: a message, 0: nothing there, 2: one that is not given out (of somebody whose key was
 * revoked, or undecodable, which was answered). */
static int receive_from(struct net_server *server, struct net_socket *socket,
                        struct net_peer *from, struct wire *message, struct err *err)
{
    struct err why = {ERR_FORMAT, "a message is one frame; this one came in several"};
    uint64_t sequence = 0;
    zmq_msg_t frame;
    int rc;

    memset(from, 0, sizeof(*from));
    rc = net_socket_receive(socket, from, &frame, err);
    if (rc <= 0)
        return rc;
    if (socket == &server->local) {
        from->role = KEY_ADMIN; /* of the user's own folder */
    } else if (!gate_identify(server->gate, &frame, from)) {
        zmq_msg_close(&frame);
        return 2;
    }
    if (rc == 1 && wire_decode(message, zmq_msg_data(&frame), zmq_msg_size(&frame),
                               &sequence, &why) == 0) {
        zmq_msg_close(&frame);
        return 1;
    }
    zmq_msg_close(&frame);
    return answer_bad(server, from, sequence, &why, err) < 0 ? -1 : 2;
}

/* From the two sockets in turn, so that neither keeps the other waiting. */
static int receive_one(struct net_server *server, struct net_peer *from,
                       struct wire *message, struct err *err)
{
    unsigned n = server->n_received++;
    struct net_socket *one = n % 2 ? &server->network : &server->local;
    struct net_socket *other = n % 2 ? &server->local : &server->network;
    int rc = 0;

    if (server->gate && n % SERVER_GATE_EVERY == 0)
        gate_turn(server->gate);
    if (one->socket)
        rc = receive_from(server, one, from, message, err);
    if (rc == 0 && other->socket)
        rc = receive_from(server, other, from, message, err);
    return rc;
}

/* Until a message may be there; what comes to the gate is seen to meanwhile. */
static int wait_for_any(struct net_server *server, int64_t timeout_ms, struct err *err)
{
    void *sockets[2 + GATE_SOCKETS] = {server->local.socket, server->network.socket};

    if (server->gate) {
        gate_sockets(server->gate, &sockets[2]);
        gate_turn(server->gate);
    }
    return net_wait(sockets, 2 + GATE_SOCKETS, timeout_ms, err);
}

int net_server_receive(struct net_server *server, struct net_peer *from,
                       struct wire *message, int64_t timeout_ms, struct err *err)
{
    int64_t deadline_ms = clock_mono_ms() + timeout_ms, left_ms = timeout_ms;
    int n_dropped = 0, rc;

    for (;;) {
        rc = receive_one(server, from, message, err);
        if (rc == 2 && ++n_dropped < SERVER_BAD_MAX)
            continue;
        if (rc != 0 || timeout_ms == 0)
            return rc == 2 ? 0 : rc;
        if (timeout_ms > 0)
            left_ms = deadline_ms - clock_mono_ms();
        if (timeout_ms > 0 && left_ms <= 0)
            return 0;
        rc = wait_for_any(server, left_ms, err);
        if (rc <= 0)
            return rc;
    }
}

/* A ROUTER drops what its peer is not there for or has no room for. */
int net_server_send(struct net_server *server, const struct net_peer *to,
                    struct wire *message, struct err *err)
{
    struct net_socket *socket = to->public_key[0] ? &server->network : &server->local;

    if (!to->n_bytes || !socket->socket)
        return 0;
    return net_socket_send(socket, to, message, err);
}
