#define _GNU_SOURCE /* memmem */
/* Server and client of common/net over TCP: who is let in, and who is not. */
#include "common/base/clock.h"
#include "common/base/fs.h"
#include "common/net/net.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <zmq.h>

#include <cmocka.h>

#define DEADLINE_MS 20000
#define HOUR_MS 3600000
#define QUIET_MS 400 /* how long nothing is to come from who must not be answered */

struct place {
    char home[64];
    struct net_server *server;
};

static void serve(struct place *place, const char *endpoint)
{
    struct err err = {ERR_NONE, ""};
    char ipc[96];

    snprintf(ipc, sizeof(ipc), "ipc://%s/s.sock", place->home);
    if (net_server_open(&place->server, ipc, &err) < 0 ||
        net_server_listen(place->server, endpoint, place->home, &err) < 0)
        fail_msg("%s", err.text);
}

static int set_up(void **state)
{
    struct place *place = calloc(1, sizeof(*place));
    struct err err = {ERR_NONE, ""};

    if (!place)
        return -1;
    strcpy(place->home, "/tmp/vneva-gate-XXXXXX");
    if (!mkdtemp(place->home) || keys_init(place->home, NULL, NULL, &err) < 0)
        return -1;
    serve(place, "tcp://127.0.0.1:*");
    *state = place;
    return 0;
}

static int tear_down(void **state)
{
    struct place *place = *state;

    net_server_close(place->server);
    fs_remove_tree(place->home, NULL);
    free(place);
    return 0;
}

static void authorize(const struct place *place, const struct key *key)
{
    struct authorized one = key_authorized(key);
    struct err err = {ERR_NONE, ""};

    if (keys_authorize(place->home, &one, 1, &err) < 0)
        fail_msg("%s", err.text);
}

static void revoke_key(const struct place *place, const char *name)
{
    struct err err = {ERR_NONE, ""};

    if (keys_revoke(place->home, &name, 1, &err) < 0)
        fail_msg("%s", err.text);
}

/* A key for the server, not authorized yet. */
static struct key make_key(const struct place *place, const char *name,
                           enum key_role role)
{
    struct key key, coordinator;
    struct err err = {ERR_NONE, ""};

    assert_int_equal(keys_read_coordinator(&coordinator, place->home, &err), 0);
    assert_int_equal(key_create(&key, name, role, &err), 0);
    assert_int_equal(key_set_coordinator(&key, coordinator.public_key,
                                         net_server_endpoint(place->server), &err),
                     0);
    return key;
}

static struct net_client *open_client(const struct key *key)
{
    struct net_client *client;
    struct err err = {ERR_NONE, ""};

    if (net_client_open(&client, NULL, key, &err) < 0)
        fail_msg("%s", err.text);
    return client;
}

static void ping(struct net_client *client, int64_t nonce)
{
    struct wire message = {.type = MSG_PING, .ping = {nonce}};
    struct err err = {ERR_NONE, ""};

    if (net_client_send(client, &message, &err) < 0)
        fail_msg("%s", err.text);
}

/* Serves until the client has an answer or wait_ms are over. */
static bool is_answered(struct place *place, struct net_client *client, int64_t wait_ms,
                        struct net_peer *from)
{
    int64_t deadline_ms = clock_mono_ms() + wait_ms;
    struct wire message;
    struct err err;

    while (clock_mono_ms() < deadline_ms) {
        if (net_server_receive(place->server, from, &message, 5, &err) == 1) {
            struct wire answer = {.type = MSG_PONG,
                                  .reply_to = message.sequence,
                                  .pong = {message.ping.nonce, "1"}};

            wire_fini(&message);
            assert_int_equal(net_server_send(place->server, from, &answer, &err), 0);
        }
        if (net_client_receive(client, &message, 5, &err) == 1) {
            wire_fini(&message);
            return true;
        }
    }
    return false;
}

static void authorized_key_comes_in_with_its_role(void **state)
{
    struct place *place = *state;
    struct key key = make_key(place, "bob", KEY_USER);
    struct net_client *client;
    struct net_peer from;

    authorize(place, &key);
    client = open_client(&key);
    ping(client, 1);
    assert_true(is_answered(place, client, DEADLINE_MS, &from));
    assert_int_equal(from.role, KEY_USER);
    assert_string_equal(from.key_name, "bob");
    assert_string_equal(from.public_key, key.public_key);
    net_client_close(client);
}

static void ipc_beside_it_is_the_user_himself(void **state)
{
    struct place *place = *state;
    struct net_client *client;
    struct net_peer from;
    char ipc[96];
    struct err err;

    snprintf(ipc, sizeof(ipc), "ipc://%s/s.sock", place->home);
    assert_int_equal(net_client_open(&client, ipc, NULL, &err), 0);
    ping(client, 1);
    assert_true(is_answered(place, client, DEADLINE_MS, &from));
    assert_int_equal(from.role, KEY_ADMIN);
    assert_string_equal(from.key_name, "");
    net_client_close(client);
}

static void unknown_key_gets_no_answer_until_it_is_authorized(void **state)
{
    struct place *place = *state;
    struct key key = make_key(place, "bob", KEY_USER);
    struct net_client *client = open_client(&key);
    struct net_peer from;

    ping(client, 1);
    assert_false(is_answered(place, client, QUIET_MS, &from));
    authorize(place, &key);
    assert_true(is_answered(place, client, DEADLINE_MS, &from)); /* by itself */
    net_client_close(client);
}

static void revoked_key_is_not_obeyed_on_its_live_connection(void **state)
{
    struct place *place = *state;
    struct key key = make_key(place, "bob", KEY_USER);
    struct net_client *client;
    struct net_peer from;

    authorize(place, &key);
    client = open_client(&key);
    ping(client, 1);
    assert_true(is_answered(place, client, DEADLINE_MS, &from));
    revoke_key(place, "bob");
    do /* the list is looked at every GATE_LOOK_MS */
        ping(client, 2);
    while (is_answered(place, client, QUIET_MS, &from));
    authorize(place, &key);
    ping(client, 3);
    assert_true(is_answered(place, client, DEADLINE_MS, &from));
    net_client_close(client);
}

static void coordinator_of_another_key_is_refused_by_the_client(void **state)
{
    struct place *place = *state;
    struct key key = make_key(place, "bob", KEY_USER), other;
    struct net_client *client;
    struct net_peer from;

    authorize(place, &key);
    assert_int_equal(key_create(&other, "other", KEY_USER, NULL), 0);
    memcpy(key.coordinator, other.public_key, sizeof(key.coordinator));
    client = open_client(&key);
    ping(client, 1);
    assert_false(is_answered(place, client, QUIET_MS, &from));
    net_client_close(client);
}

static void tcp_without_a_key_is_refused_with_the_remedy(void **state)
{
    struct place *place = *state;
    struct net_client *client;
    struct err err;

    assert_int_equal(
        net_client_open(&client, net_server_endpoint(place->server), NULL, &err), -1);
    assert_int_equal(err.code, ERR_DENIED);
    assert_non_null(strstr(err.text, "--key"));
    assert_int_equal(
        net_server_listen(place->server, "tcp://127.0.0.1:*", place->home, &err), -1);
    assert_int_equal(err.code, ERR_STATE);
}

/* ---- who does not speak CURVE ---- */

/* Sends `bytes` as one message by plain ZeroMQ; the server must not give it out. */
static void a_client_without_a_key_is_not_heard(void **state)
{
    struct place *place = *state;
    struct wire request = {.type = MSG_PING}, got;
    void *context = zmq_ctx_new(), *socket = zmq_socket(context, ZMQ_DEALER);
    int64_t deadline_ms = clock_mono_ms() + QUIET_MS;
    struct buf packed = BUF_INIT;
    const int none = 0;
    struct net_peer from;
    char answer[64];

    assert_int_equal(zmq_setsockopt(socket, ZMQ_LINGER, &none, sizeof(none)), 0);
    assert_int_equal(wire_encode(&packed, &request, NULL), 0);
    assert_int_equal(zmq_connect(socket, net_server_endpoint(place->server)), 0);
    assert_int_equal(zmq_send(socket, packed.data, packed.n_bytes, 0), packed.n_bytes);
    while (clock_mono_ms() < deadline_ms)
        assert_int_equal(net_server_receive(place->server, &from, &got, 20, NULL), 0);
    assert_int_equal(zmq_recv(socket, answer, sizeof(answer), ZMQ_DONTWAIT), -1);
    zmq_close(socket);
    zmq_ctx_term(context);
    buf_fini(&packed);
}

static uint16_t port_of(const char *endpoint)
{
    return (uint16_t)strtol(strrchr(endpoint, ':') + 1, NULL, 10);
}

static int connect_raw(uint16_t port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    return fd;
}

/* Any bytes: alone, after a true greeting, and after a greeting and a true HELLO's name.
 * The generator is fixed, so that a failure comes again. */
static void any_bytes_at_the_port_hurt_nobody(void **state)
{
    static const char greeting[64] = "\xff\0\0\0\0\0\0\0\1\x7f\3\0CURVE";
    static const char hello[] = "\4\xc8\5HELLO";
    struct place *place = *state;
    struct key key = make_key(place, "bob", KEY_USER);
    struct net_client *client;
    struct net_peer from;
    unsigned seed = 1;

    for (int round = 0; round < 200; round++) {
        int fd = connect_raw(port_of(key.endpoint));
        struct wire message;
        uint8_t bytes[512];

        for (size_t i = 0; i < sizeof(bytes); i++)
            bytes[i] = (uint8_t)((seed = seed * 1103515245 + 12345) >> 16);
        if (round % 3 > 0)
            (void)!send(fd, greeting, sizeof(greeting), MSG_NOSIGNAL);
        if (round % 3 > 1)
            (void)!send(fd, hello, sizeof(hello) - 1, MSG_NOSIGNAL);
        (void)!send(fd, bytes, (seed >> 8) % sizeof(bytes), MSG_NOSIGNAL);
        assert_int_equal(net_server_receive(place->server, &from, &message, 1, NULL), 0);
        close(fd);
    }
    authorize(place, &key);
    client = open_client(&key);
    ping(client, 1);
    assert_true(is_answered(place, client, DEADLINE_MS, &from));
    net_client_close(client);
}

/* A socket of ZeroMQ's own with a good key, to send what net_client would not. */
static void *open_raw_client(void *context, const struct key *key)
{
    void *socket = zmq_socket(context, ZMQ_DEALER);
    const int none = 0;

    assert_int_equal(zmq_setsockopt(socket, ZMQ_LINGER, &none, sizeof(none)), 0);
    assert_int_equal(
        zmq_setsockopt(socket, ZMQ_CURVE_SERVERKEY, key->coordinator, KEY_TEXT_BYTES), 0);
    assert_int_equal(
        zmq_setsockopt(socket, ZMQ_CURVE_PUBLICKEY, key->public_key, KEY_TEXT_BYTES), 0);
    assert_int_equal(
        zmq_setsockopt(socket, ZMQ_CURVE_SECRETKEY, key->secret, KEY_TEXT_BYTES), 0);
    assert_int_equal(zmq_connect(socket, key->endpoint), 0);
    return socket;
}

static void malformed_messages_of_a_good_key_are_answered_with_errors(void **state)
{
    struct place *place = *state;
    struct key key = make_key(place, "bob", KEY_USER);
    void *context = zmq_ctx_new(), *socket;
    int64_t deadline_ms = clock_mono_ms() + DEADLINE_MS;
    int n_errors = 0;
    unsigned seed = 7;

    authorize(place, &key);
    socket = open_raw_client(context, &key);
    for (int i = 0; i < 300; i++) {
        uint8_t bytes[64];
        size_t n_bytes;

        for (size_t j = 0; j < sizeof(bytes); j++)
            bytes[j] = (uint8_t)((seed = seed * 1103515245 + 12345) >> 16);
        n_bytes = (seed >> 8) % sizeof(bytes);
        if (i % 2) { /* so that it begins as a message of this version does */
            bytes[0] = 0x95;
            bytes[1] = WIRE_VERSION;
        }
        assert_int_equal(zmq_send(socket, bytes, n_bytes, i % 5 ? 0 : ZMQ_SNDMORE),
                         n_bytes);
        if (i % 5 == 0)
            assert_int_equal(zmq_send(socket, bytes, 1, 0), 1);
    }
    while (n_errors < 300 && clock_mono_ms() < deadline_ms) {
        struct net_peer from;
        struct wire message;
        uint8_t answer[1024];
        int n;

        assert_int_equal(net_server_receive(place->server, &from, &message, 5, NULL), 0);
        while ((n = zmq_recv(socket, answer, sizeof(answer), ZMQ_DONTWAIT)) >= 0) {
            assert_int_equal(wire_decode(&message, answer, (size_t)n, NULL, NULL), 0);
            assert_int_equal(message.type, MSG_ERROR);
            wire_fini(&message);
            n_errors++;
        }
    }
    assert_int_equal(n_errors, 300);
    zmq_close(socket);
    zmq_ctx_term(context);
}

/* ---- servers that are not the one ---- */

/* A port that is free; it may be taken again before it is used, but hardly. */
static uint16_t free_port(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t size = sizeof(address);
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &size), 0);
    close(fd);
    return ntohs(address.sin_port);
}

/* ZeroMQ itself never connects again after such a server. */
static void client_comes_back_after_a_server_without_keys(void **state)
{
    struct place *place = *state;
    struct key key = make_key(place, "bob", KEY_USER);
    void *context = zmq_ctx_new(), *impostor = zmq_socket(context, ZMQ_ROUTER);
    struct wire request = {.type = MSG_PING}, reply;
    struct net_client *client;
    struct net_peer from;
    const int none = 0;
    bool is_served = false;
    struct err err;
    char ipc[96];

    snprintf(key.endpoint, sizeof(key.endpoint), "tcp://127.0.0.1:%u", free_port());
    authorize(place, &key);
    assert_int_equal(zmq_setsockopt(impostor, ZMQ_LINGER, &none, sizeof(none)), 0);
    assert_int_equal(zmq_bind(impostor, key.endpoint), 0);
    client = open_client(&key);
    /* It gives up by itself, long before that. */
    assert_int_equal(net_client_call(client, &request, &reply, HOUR_MS, &err), -1);
    assert_int_equal(err.code, ERR_DENIED);
    assert_non_null(strstr(err.text, "another coordinator"));
    zmq_close(impostor);
    zmq_ctx_term(context);
    net_server_close(place->server);
    snprintf(ipc, sizeof(ipc), "ipc://%s/s.sock", place->home);
    assert_int_equal(net_server_open(&place->server, ipc, &err), 0);
    if (net_server_listen(place->server, key.endpoint, place->home, &err) < 0)
        fail_msg("%s", err.text);
    for (int i = 0; i < 100 && !is_served; i++) {
        net_client_send(client, &request, NULL); /* refused until it is connected */
        is_served = is_answered(place, client, QUIET_MS, &from);
    }
    assert_true(is_served);
    net_client_close(client);
}

/* A server of ZMTP 1, which knows no security, is told nothing. */
static void nothing_goes_out_in_plain(void **state)
{
    struct place *place = *state;
    struct key key = make_key(place, "bob", KEY_USER);
    struct wire message = {.type = MSG_CANCEL, .cancel = {1, "a text to look for"}};
    struct sockaddr_in address = {.sin_family = AF_INET};
    struct net_client *client;
    int fd = socket(AF_INET, SOCK_STREAM, 0), n_bytes = 0;
    int64_t deadline_ms = clock_mono_ms() + DEADLINE_MS;
    const int on = 1;
    char bytes[4096];

    address.sin_port = htons(free_port());
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)), 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(listen(fd, 1), 0);
    snprintf(key.endpoint, sizeof(key.endpoint), "tcp://127.0.0.1:%u",
             ntohs(address.sin_port));
    client = open_client(&key);
    assert_int_equal(net_client_send(client, &message, NULL), 0);
    for (int n_peers = 0; n_peers < 3;) { /* the client tries again by itself */
        struct timeval wait = {.tv_usec = QUIET_MS * 1000};
        struct pollfd accepting = {fd, POLLIN, 0};
        struct err err = {ERR_NONE, ""};
        ssize_t n;
        int peer;

        if (clock_mono_ms() >= deadline_ms)
            fail_msg("%d connections, %d bytes", n_peers, n_bytes);
        assert_int_equal(net_client_receive(client, &message, 20, &err), 0);
        if (poll(&accepting, 1, 0) == 0)
            continue;
        peer = accept(fd, NULL, NULL);
        assert_true(peer >= 0);
        assert_int_equal(setsockopt(peer, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait)),
                         0);
        assert_int_equal(send(peer, "\1\0", 2, MSG_NOSIGNAL), 2); /* no identity */
        while ((n = recv(peer, bytes + n_bytes, sizeof(bytes) - (size_t)n_bytes, 0)) > 0)
            n_bytes += (int)n;
        close(peer);
        n_peers++;
    }
    assert_true(n_bytes > 0);
    assert_null(memmem(bytes, (size_t)n_bytes, "look for", strlen("look for")));
    net_client_close(client);
    close(fd);
}

static void client_notices_a_connection_that_took_the_place_of_another(void **state)
{
    struct place *place = *state;
    struct key key = make_key(place, "agent", KEY_WORKER);
    struct net_client *client = open_client(&key);
    struct net_peer from;

    authorize(place, &key);
    ping(client, 1);
    assert_true(is_answered(place, client, DEADLINE_MS, &from));
    assert_false(net_client_take_break(client));
    net_server_close(place->server);
    serve(place, key.endpoint);
    ping(client, 2);
    assert_true(is_answered(place, client, DEADLINE_MS, &from));
    assert_true(net_client_take_break(client));
    assert_false(net_client_take_break(client));
    net_client_close(client);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(authorized_key_comes_in_with_its_role),
        TEST(ipc_beside_it_is_the_user_himself),
        TEST(unknown_key_gets_no_answer_until_it_is_authorized),
        TEST(revoked_key_is_not_obeyed_on_its_live_connection),
        TEST(coordinator_of_another_key_is_refused_by_the_client),
        TEST(tcp_without_a_key_is_refused_with_the_remedy),
        TEST(client_notices_a_connection_that_took_the_place_of_another),
        TEST(a_client_without_a_key_is_not_heard),
        TEST(any_bytes_at_the_port_hurt_nobody),
        TEST(malformed_messages_of_a_good_key_are_answered_with_errors),
        TEST(client_comes_back_after_a_server_without_keys),
        TEST(nothing_goes_out_in_plain),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
