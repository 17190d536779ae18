#include "common/net/socket.h"

#include <errno.h>
#include <string.h>
#include <zmq.h>

#define RECONNECT_FIRST_MS 50
#define RECONNECT_LAST_MS 1000

static int zmq_failed(struct err *err, const char *what)
{
    return err_set(err, ERR_IO, "%s: %s", what, zmq_strerror(errno));
}

int net_socket_init(struct net_socket *socket, int type, int linger_ms, struct err *err)
{
    const int64_t message_max = WIRE_MESSAGE_MAX;
    const struct {
        int option, value;
    } options[] = {
        {ZMQ_LINGER, linger_ms},
        {ZMQ_SNDHWM, NET_QUEUE_MAX},
        {ZMQ_RCVHWM, NET_QUEUE_MAX},
        {ZMQ_RECONNECT_IVL, RECONNECT_FIRST_MS},
        {ZMQ_RECONNECT_IVL_MAX, RECONNECT_LAST_MS},
    };

    memset(socket, 0, sizeof(*socket));
    socket->context = zmq_ctx_new();
    if (!socket->context)
        return zmq_failed(err, "cannot start ZeroMQ");
    socket->socket = zmq_socket(socket->context, type);
    if (!socket->socket)
        return zmq_failed(err, "cannot make a socket");
    for (size_t i = 0; i < sizeof(options) / sizeof(options[0]); i++)
        if (zmq_setsockopt(socket->socket, options[i].option, &options[i].value,
                           sizeof(options[i].value)) < 0)
            return zmq_failed(err, "cannot set a socket's bounds");
    if (zmq_setsockopt(socket->socket, ZMQ_MAXMSGSIZE, &message_max,
                       sizeof(message_max)) < 0)
        return zmq_failed(err, "cannot set a socket's bounds");
    return 0;
}

void net_socket_fini(struct net_socket *socket)
{
    if (socket->socket)
        zmq_close(socket->socket);
    if (socket->context)
        zmq_ctx_term(socket->context);
    buf_fini(&socket->packed);
    memset(socket, 0, sizeof(*socket));
}

int net_socket_fd(struct net_socket *socket)
{
    int fd = -1;
    size_t n_bytes = sizeof(fd);

    zmq_getsockopt(socket->socket, ZMQ_FD, &fd, &n_bytes);
    return fd;
}

int net_socket_wait(struct net_socket *socket, int64_t timeout_ms, struct err *err)
{
    zmq_pollitem_t item = {socket->socket, 0, ZMQ_POLLIN, 0};
    int n = zmq_poll(&item, 1, (long)timeout_ms);

    if (n < 0 && errno != EINTR)
        return zmq_failed(err, "cannot wait for messages");
    return n > 0;
}

/* One frame; 1, 0 nothing there, -1. */
static int receive_frame(struct net_socket *socket, zmq_msg_t *frame, struct err *err)
{
    zmq_msg_init(frame);
    if (zmq_msg_recv(frame, socket->socket, ZMQ_DONTWAIT) >= 0)
        return 1;
    zmq_msg_close(frame);
    if (errno == EAGAIN || errno == EINTR)
        return 0;
    return zmq_failed(err, "cannot receive");
}

/* The frames of a message come together, so the ones that follow are there. */
static void drop_rest(struct net_socket *socket, zmq_msg_t *frame)
{
    while (zmq_msg_more(frame)) {
        zmq_msg_close(frame);
        zmq_msg_init(frame);
        if (zmq_msg_recv(frame, socket->socket, ZMQ_DONTWAIT) < 0)
            break;
    }
    zmq_msg_close(frame);
}

int net_socket_receive(struct net_socket *socket, struct net_peer *from, void *frame,
                       struct err *err)
{
    int rc = receive_frame(socket, frame, err);

    if (rc <= 0)
        return rc;
    if (from) {
        from->n_bytes = zmq_msg_size(frame);
        if (from->n_bytes > sizeof(from->id))
            from->n_bytes = 0; /* answers to it go nowhere */
        memcpy(from->id, zmq_msg_data(frame), from->n_bytes);
        if (zmq_msg_more(frame)) {
            zmq_msg_close(frame);
            rc = receive_frame(socket, frame, err);
            if (rc <= 0)
                return rc;
        }
    }
    if (zmq_msg_more(frame)) {
        drop_rest(socket, frame);
        return 2;
    }
    return 1;
}

int net_socket_send(struct net_socket *socket, const struct net_peer *to,
                    struct wire *message, struct err *err)
{
    message->sequence = ++socket->sequence;
    buf_reset(&socket->packed);
    if (wire_encode(&socket->packed, message, err) < 0)
        return -1;
    if (to &&
        zmq_send(socket->socket, to->id, to->n_bytes, ZMQ_SNDMORE | ZMQ_DONTWAIT) < 0)
        return zmq_failed(err, "cannot send");
    while (zmq_send(socket->socket, socket->packed.data, socket->packed.n_bytes,
                    ZMQ_DONTWAIT) < 0) {
        if (errno == EAGAIN)
            return err_set(err, ERR_LIMIT, "%d messages wait to be sent, no more fit",
                           NET_QUEUE_MAX);
        if (errno != EINTR)
            return zmq_failed(err, "cannot send");
    }
    return 0;
}
