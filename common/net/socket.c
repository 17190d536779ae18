#include "common/net/socket.h"

#include <errno.h>
#include <string.h>
#include <zmq.h>

#define MONITOR_ENDPOINT "inproc://vneva.monitor" /* one a context */
#define MONITOR_ADDRESS_MAX 320
#define RECONNECT_FIRST_MS 50
#define RECONNECT_LAST_MS 1000
/* Over a network: */
#define HANDSHAKE_MS 5000 /* for three round trips and an answer from a busy loop */
#define CONNECT_MS 3000   /* before the next try; the kernel alone takes minutes */
#define BEAT_MS 2000      /* between two pings of a connection */
#define SILENCE_MS 10000  /* then it is broken, and the client makes a new one */

static int zmq_failed(struct err *err, const char *what)
{
    return err_set(err, ERR_IO, "%s: %s", what, zmq_strerror(errno));
}

struct option {
    int option, value;
};

static int set_options(struct net_socket *socket, const struct option *options, size_t n,
                       struct err *err)
{
    for (size_t i = 0; i < n; i++)
        if (zmq_setsockopt(socket->socket, options[i].option, &options[i].value,
                           sizeof(options[i].value)) < 0)
            return zmq_failed(err, "cannot set a socket's bounds");
    return 0;
}

int net_socket_init(struct net_socket *socket, int type, int linger_ms, struct err *err)
{
    const int64_t message_max = WIRE_MESSAGE_MAX;
    const struct option options[] = {
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
    if (set_options(socket, options, sizeof(options) / sizeof(options[0]), err) < 0)
        return -1;
    if (zmq_setsockopt(socket->socket, ZMQ_MAXMSGSIZE, &message_max,
                       sizeof(message_max)) < 0)
        return zmq_failed(err, "cannot set a socket's bounds");
    return 0;
}

static int set_text(struct net_socket *socket, int option, const char *text,
                    struct err *err)
{
    if (zmq_setsockopt(socket->socket, option, text, strlen(text) + 1) < 0)
        return zmq_failed(err, "cannot use the key");
    return 0;
}

int net_socket_use_key(struct net_socket *socket, const struct key *key, bool is_server,
                       struct err *err)
{
    const struct option options[] = {
        {ZMQ_HANDSHAKE_IVL, HANDSHAKE_MS},     {ZMQ_CONNECT_TIMEOUT, CONNECT_MS},
        {ZMQ_HEARTBEAT_IVL, BEAT_MS},          {ZMQ_HEARTBEAT_TIMEOUT, SILENCE_MS},
        {ZMQ_CURVE_SERVER, is_server ? 1 : 0},
    };

    if (set_options(socket, options, sizeof(options) / sizeof(options[0]), err) < 0)
        return -1;
    if (!is_server && (set_text(socket, ZMQ_CURVE_SERVERKEY, key->coordinator, err) < 0 ||
                       set_text(socket, ZMQ_CURVE_PUBLICKEY, key->public_key, err) < 0))
        return -1;
    return set_text(socket, ZMQ_CURVE_SECRETKEY, key->secret, err);
}

int net_socket_use_ipv6(struct net_socket *socket, struct err *err)
{
    const struct option option = {ZMQ_IPV6, 1};

    return set_options(socket, &option, 1, err);
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

void *net_monitor_open(struct net_socket *socket, int events, struct err *err)
{
    void *monitor = NULL;

    if (zmq_socket_monitor(socket->socket, MONITOR_ENDPOINT, events) == 0)
        monitor = zmq_socket(socket->context, ZMQ_PAIR);
    if (monitor && zmq_connect(monitor, MONITOR_ENDPOINT) == 0)
        return monitor;
    zmq_failed(err, "cannot watch a socket");
    if (monitor)
        zmq_close(monitor);
    return NULL;
}

bool net_monitor_next(void *monitor, int *event, int *value)
{
    uint8_t frame[6]; /* event, 16 bits; value, 32 bits */
    char address[MONITOR_ADDRESS_MAX];
    uint16_t number;
    int32_t detail;

    if (zmq_recv(monitor, frame, sizeof(frame), ZMQ_DONTWAIT) != (int)sizeof(frame))
        return false;
    (void)zmq_recv(monitor, address, sizeof(address), 0); /* our own */
    memcpy(&number, frame, sizeof(number));
    memcpy(&detail, frame + sizeof(number), sizeof(detail));
    *event = number;
    *value = detail;
    return true;
}

int net_socket_fd(struct net_socket *socket)
{
    int fd = -1;
    size_t n_bytes = sizeof(fd);

    zmq_getsockopt(socket->socket, ZMQ_FD, &fd, &n_bytes);
    return fd;
}

int net_wait(void *const *sockets, int n_sockets, int64_t timeout_ms, struct err *err)
{
    zmq_pollitem_t items[NET_WAIT_MAX];
    int n = 0;

    for (int i = 0; i < n_sockets; i++)
        if (sockets[i])
            items[n++] = (zmq_pollitem_t){sockets[i], 0, ZMQ_POLLIN, 0};
    n = zmq_poll(items, n, (long)timeout_ms);
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

/* To the last frame of the message; they come together, so the ones that follow are there. */
static void skip_to_last(struct net_socket *socket, zmq_msg_t *frame)
{
    while (zmq_msg_more(frame)) {
        zmq_msg_close(frame);
        zmq_msg_init(frame);
        if (zmq_msg_recv(frame, socket->socket, ZMQ_DONTWAIT) < 0)
            break;
    }
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
        skip_to_last(socket, frame);
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
