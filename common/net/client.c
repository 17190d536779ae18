#include "common/base/clock.h"
#include "common/net/endpoint.h"
#include "common/net/socket.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <zmq.h>

#define CLIENT_PAUSE_FIRST_MS 100
#define CLIENT_PAUSE_LAST_MS 5000
#define CLIENT_STEP_MS 100   /* between two looks at whether a call is refused */
#define CLIENT_REFUSED_MAX 3 /* handshakes that fail before a call gives up */
#define CLIENT_LINGER_MS 250 /* a last message before the end */
#define CLIENT_ENDPOINT_MAX KEY_ENDPOINT_BYTES

struct net_client {
    struct net_socket socket;
    char endpoint[CLIENT_ENDPOINT_MAX];
    /* tcp only: */
    void *monitor;
    char key_name[KEY_NAME_BYTES];
    bool is_in;               /* the handshake was done */
    bool was_in, is_in_again; /* and once before; nobody was told yet */
    int n_refused;            /* connections that ended without one, one after another */
    int64_t pause_ms, reopen_mono_ms; /* when to connect anew; 0: ZeroMQ does by itself */
};

/* A random identity, so that no two clients share one; ZeroMQ keeps those that begin
 * with a zero byte for itself. */
static int set_identity(struct net_client *client, struct err *err)
{
    uint8_t id[NET_PEER_BYTES];

    if (getrandom(id, sizeof(id), 0) != (ssize_t)sizeof(id))
        return err_set(err, ERR_IO, "no random numbers to be had: %s", strerror(errno));
    id[0] |= 1;
    if (zmq_setsockopt(client->socket.socket, ZMQ_ROUTING_ID, id, sizeof(id)) < 0)
        return err_set(err, ERR_IO, "cannot set up the socket: %s", zmq_strerror(errno));
    return 0;
}

static int use_key(struct net_client *client, const struct key *key, struct err *err)
{
    const int events = ZMQ_EVENT_HANDSHAKE_SUCCEEDED | ZMQ_EVENT_DISCONNECTED |
                       ZMQ_EVENT_CONNECT_DELAYED | ZMQ_EVENT_CONNECT_RETRIED;

    if (!key)
        return err_set(err, ERR_DENIED,
                       "'%s' is on a network, which takes a key: give its file with "
                       "--key or in VNEVA_KEY (`vneva keys add` makes one)",
                       client->endpoint);
    if (!key->coordinator[0])
        return err_set(err, ERR_INVALID,
                       "key '%s' does not name the coordinator it is for", key->name);
    if (net_socket_use_key(&client->socket, key, false, err) < 0)
        return -1;
    memcpy(client->key_name, key->name, sizeof(client->key_name));
    client->pause_ms = CLIENT_PAUSE_FIRST_MS;
    client->monitor = net_monitor_open(&client->socket, events, err);
    return client->monitor ? 0 : -1;
}

static int connect_socket(struct net_client *client, const struct endpoint *endpoint,
                          const struct key *key, struct err *err)
{
    if (net_socket_init(&client->socket, ZMQ_DEALER, CLIENT_LINGER_MS, err) < 0 ||
        set_identity(client, err) < 0)
        return -1;
    if (!endpoint->is_ipc && use_key(client, key, err) < 0)
        return -1;
    if (endpoint->is_ipv6 && net_socket_use_ipv6(&client->socket, err) < 0)
        return -1;
    if (zmq_connect(client->socket.socket, client->endpoint) < 0)
        return err_set(err, ERR_IO, "cannot connect to '%s': %s", client->endpoint,
                       zmq_strerror(errno));
    return 0;
}

int net_check_remote(const char *endpoint, struct err *err)
{
    struct endpoint parsed;

    if (endpoint_parse(&parsed, endpoint, err) < 0)
        return -1;
    if (!parsed.is_ipc && parsed.port && !parsed.is_any)
        return 0;
    return err_set(
        err, ERR_INVALID,
        "'%s' is no endpoint to connect to: it takes tcp://, a host and a port",
        endpoint);
}

int net_client_open(struct net_client **out, const char *endpoint, const struct key *key,
                    struct err *err)
{
    struct net_client *client;
    struct endpoint parsed;
    struct err why;

    if (!endpoint)
        endpoint = key ? key->endpoint : "";
    if (endpoint_parse(&parsed, endpoint, err) < 0 ||
        (!parsed.is_ipc && net_check_remote(endpoint, err) < 0))
        return -1;
    /* A folder that is not there yet is fine: the server makes it. */
    if (endpoint_check_private(&parsed, &why) < 0 && why.code != ERR_NOT_FOUND)
        return err_set(err, why.code, "%s", why.text);
    if (strlen(endpoint) >= CLIENT_ENDPOINT_MAX)
        return err_set(err, ERR_LIMIT, "endpoint '%s' is too long", endpoint);
    client = calloc(1, sizeof(*client));
    if (!client)
        return err_set(err, ERR_NOMEM, "no memory for a client");
    memcpy(client->endpoint, endpoint, strlen(endpoint));
    if (connect_socket(client, &parsed, key, err) < 0) {
        net_client_close(client);
        return -1;
    }
    *out = client;
    return 0;
}

void net_client_close(struct net_client *client)
{
    if (!client)
        return;
    if (client->monitor)
        zmq_close(client->monitor);
    net_socket_fini(&client->socket);
    free(client);
}

int net_client_fd(struct net_client *client)
{
    return net_socket_fd(&client->socket);
}

/* ---- being refused ---- */

/* ZeroMQ connects again after most breaks, and says so (CONNECT_RETRIED) right after it
 * told of the break; but never after what it takes for a fault of the protocol (something
 * else listens there). Then we do, after a pause. */
static void take_event(struct net_client *client, int event)
{
    if (event == ZMQ_EVENT_CONNECT_RETRIED || event == ZMQ_EVENT_CONNECT_DELAYED) {
        client->reopen_mono_ms = 0;
    } else if (event == ZMQ_EVENT_HANDSHAKE_SUCCEEDED) {
        client->is_in = true;
        client->n_refused = 0;
        client->pause_ms = CLIENT_PAUSE_FIRST_MS;
        client->reopen_mono_ms = 0;
        client->is_in_again |= client->was_in;
        client->was_in = true;
    } else { /* disconnected */
        client->n_refused += client->is_in ? 0 : 1;
        client->is_in = false;
        client->reopen_mono_ms = clock_mono_ms() + client->pause_ms;
    }
}

static void watch(struct net_client *client)
{
    int event, value;

    while (client->monitor && net_monitor_next(client->monitor, &event, &value))
        take_event(client, event);
    if (!client->reopen_mono_ms || clock_mono_ms() < client->reopen_mono_ms)
        return;
    client->reopen_mono_ms = 0;
    client->pause_ms *= 2;
    if (client->pause_ms > CLIENT_PAUSE_LAST_MS)
        client->pause_ms = CLIENT_PAUSE_LAST_MS;
    (void)zmq_disconnect(client->socket.socket, client->endpoint); /* of the old try */
    if (zmq_connect(client->socket.socket, client->endpoint) < 0)
        client->reopen_mono_ms = clock_mono_ms() + client->pause_ms;
}

bool net_client_take_break(struct net_client *client)
{
    bool is_again;

    watch(client);
    is_again = client->is_in_again;
    client->is_in_again = false;
    return is_again;
}

static int fail_refused(const struct net_client *client, struct err *err)
{
    return err_set(err, ERR_DENIED,
                   "refused at '%s': another coordinator than that of key '%s' answers "
                   "there, or it does not, or no longer, know this key (`vneva keys "
                   "list` where it runs)",
                   client->endpoint, client->key_name);
}

int net_client_check_refused(struct net_client *client, struct err *err)
{
    watch(client);
    return client->n_refused ? fail_refused(client, err) : 0;
}

int net_client_send(struct net_client *client, struct wire *message, struct err *err)
{
    struct err why;

    watch(client);
    if (net_socket_send(&client->socket, NULL, message, &why) == 0)
        return 0;
    if (why.code == ERR_LIMIT && client->n_refused) /* it has nothing to queue it in */
        return fail_refused(client, err);
    return err_set(err, why.code, "%s", why.text);
}

static int receive_one(struct net_client *client, struct wire *message, struct err *err)
{
    zmq_msg_t frame;
    int rc = net_socket_receive(&client->socket, NULL, &frame, err);

    if (rc <= 0)
        return rc;
    if (rc == 2) {
        zmq_msg_close(&frame);
        return err_set(err, ERR_FORMAT, "a message is one frame; this one had several");
    }
    rc = wire_decode(message, zmq_msg_data(&frame), zmq_msg_size(&frame), NULL, err);
    zmq_msg_close(&frame);
    return rc < 0 ? err_wrap(err, "message from '%s'", client->endpoint) : 1;
}

/* Until something may be there, or time has come to connect anew (true), or neither. */
static int wait_for_any(struct net_client *client, int64_t timeout_ms, struct err *err)
{
    void *sockets[] = {client->socket.socket, client->monitor};
    int64_t pause_ms = client->reopen_mono_ms - clock_mono_ms();
    int rc;

    if (!client->reopen_mono_ms || (timeout_ms >= 0 && timeout_ms < pause_ms))
        return net_wait(sockets, 2, timeout_ms, err);
    rc = net_wait(sockets, 2, pause_ms > 0 ? pause_ms : 0, err);
    return rc == 0 && clock_mono_ms() >= client->reopen_mono_ms ? 1 : rc;
}

int net_client_receive(struct net_client *client, struct wire *message,
                       int64_t timeout_ms, struct err *err)
{
    int64_t deadline_ms = clock_mono_ms() + timeout_ms, left_ms = timeout_ms;
    int rc;

    for (;;) {
        watch(client);
        rc = receive_one(client, message, err);
        if (rc != 0 || timeout_ms == 0)
            return rc;
        if (timeout_ms > 0)
            left_ms = deadline_ms - clock_mono_ms();
        if (timeout_ms > 0 && left_ms <= 0)
            return 0;
        rc = wait_for_any(client, left_ms, err);
        if (rc <= 0)
            return rc;
    }
}

static enum err_code code_of(const char *name)
{
    for (int code = ERR_NONE; code <= ERR_DENIED; code++)
        if (strcmp(err_code_name((enum err_code)code), name) == 0)
            return (enum err_code)code;
    return ERR_PEER;
}

int net_client_await(struct net_client *client, uint64_t sequence, struct wire *reply,
                     int64_t timeout_ms, struct err *err)
{
    int64_t deadline_ms = clock_mono_ms() + timeout_ms, left_ms;
    int n_before = client->n_refused;

    while ((left_ms = deadline_ms - clock_mono_ms()) > 0) {
        int64_t step_ms = left_ms < CLIENT_STEP_MS ? left_ms : CLIENT_STEP_MS;
        int rc = net_client_receive(client, reply, step_ms, err);

        if (rc < 0)
            return -1;
        if (rc == 0 && client->n_refused - n_before >= CLIENT_REFUSED_MAX)
            return fail_refused(client, err);
        if (rc == 0)
            continue;
        if (reply->reply_to == sequence) {
            if (reply->type != MSG_ERROR)
                return 0;
            err_set(err, code_of(reply->error.code), "%s", reply->error.text);
            wire_fini(reply);
            return -1;
        }
        wire_fini(reply);
    }
    if (client->n_refused)
        return fail_refused(client, err);
    if (client->monitor)
        return err_set(err, ERR_TIMEOUT, "no coordinator answers at '%s'",
                       client->endpoint);
    return err_set(err, ERR_TIMEOUT,
                   "no coordinator answers at '%s'; start one with "
                   "`vneva up`",
                   client->endpoint);
}

int net_client_call(struct net_client *client, struct wire *request, struct wire *reply,
                    int64_t timeout_ms, struct err *err)
{
    if (net_client_send(client, request, err) < 0)
        return -1;
    return net_client_await(client, request->sequence, reply, timeout_ms, err);
}
