#include "common/base/fs.h"
#include "common/net/endpoint.h"
#include "common/net/socket.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>
#include <zmq.h>

#define SERVER_LINGER_MS 1000 /* last answers before the end */
#define SERVER_BAD_MAX 100    /* undecodable messages answered in one call */

struct net_server {
    struct net_socket socket;
    int lock_fd;
};

/* The lock lives as long as the process, also when it is killed; the file stays. */
static int lock_endpoint(struct net_server *server, const struct endpoint *endpoint,
                         struct err *err)
{
    char path[FS_PATH_MAX];

    if (!endpoint->is_ipc)
        return 0;
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

static int bind_socket(struct net_server *server, const char *endpoint, struct err *err)
{
    const int on = 1;

    if (net_socket_init(&server->socket, ZMQ_ROUTER, SERVER_LINGER_MS, err) < 0)
        return -1;
    if (zmq_setsockopt(server->socket.socket, ZMQ_ROUTER_HANDOVER, &on, sizeof(on)) < 0)
        return err_set(err, ERR_IO, "cannot set up the socket: %s", zmq_strerror(errno));
    if (zmq_bind(server->socket.socket, endpoint) == 0)
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
    server = calloc(1, sizeof(*server));
    if (!server)
        return err_set(err, ERR_NOMEM, "no memory for a server");
    server->lock_fd = -1;
    if (lock_endpoint(server, &parsed, err) < 0 ||
        bind_socket(server, endpoint, err) < 0) {
        net_server_close(server);
        return -1;
    }
    *out = server;
    return 0;
}

void net_server_close(struct net_server *server)
{
    if (!server)
        return;
    net_socket_fini(&server->socket);
    if (server->lock_fd >= 0)
        close(server->lock_fd);
    free(server);
}

int net_server_fd(struct net_server *server)
{
    return net_socket_fd(&server->socket);
}

static int answer_bad(struct net_server *server, const struct net_peer *to,
                      uint64_t sequence, const struct err *why, struct err *err)
{
    struct wire answer = {.type = MSG_ERROR, .reply_to = sequence};

    answer.error.code = err_code_name(why->code);
    answer.error.text = why->text;
    return net_server_send(server, to, &answer, err);
}

/* 1: a message, 0: nothing there, 2: something undecodable came and was answered. */
static int receive_one(struct net_server *server, struct net_peer *from,
                       struct wire *message, struct err *err)
{
    struct err why = {ERR_FORMAT, "a message is one frame; this one came in several"};
    uint64_t sequence = 0;
    zmq_msg_t frame;
    int rc = net_socket_receive(&server->socket, from, &frame, err);

    if (rc <= 0)
        return rc;
    if (rc == 1) {
        rc = wire_decode(message, zmq_msg_data(&frame), zmq_msg_size(&frame), &sequence,
                         &why);
        zmq_msg_close(&frame);
        if (rc == 0)
            return 1;
    }
    return answer_bad(server, from, sequence, &why, err) < 0 ? -1 : 2;
}

int net_server_receive(struct net_server *server, struct net_peer *from,
                       struct wire *message, int64_t timeout_ms, struct err *err)
{
    int rc = receive_one(server, from, message, err);

    if (rc == 0 && timeout_ms != 0) {
        rc = net_socket_wait(&server->socket, timeout_ms, err);
        if (rc > 0)
            rc = receive_one(server, from, message, err);
    }
    for (int n_bad = 1; rc == 2; n_bad++)
        rc = n_bad < SERVER_BAD_MAX ? receive_one(server, from, message, err) : 0;
    return rc;
}

/* A ROUTER drops what its peer is not there for or has no room for. */
int net_server_send(struct net_server *server, const struct net_peer *to,
                    struct wire *message, struct err *err)
{
    if (!to->n_bytes)
        return 0;
    return net_socket_send(&server->socket, to, message, err);
}
