#define _GNU_SOURCE /* memmem */
/* What happens when one side of a TCP endpoint is not, or does not speak as, vneva. */
#include "common/base/clock.h"
#include "tests/unit/gate_place.h"

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

#define HOUR_MS 3600000

/* ---- who does not speak CURVE ---- */

/* Sends `bytes` as one message by plain ZeroMQ; the server must not give it out. */
static void a_client_without_a_key_is_not_heard(void **state)
{
    struct place *place = *state;
    struct wire request = {.type = MSG_PING}, got;
    void *context = zmq_ctx_new(), *socket = zmq_socket(context, ZMQ_DEALER);
    int64_t deadline_ms = clock_mono_ms() + PLACE_QUIET_MS;
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
    struct key key = place_make_key(place, "bob", KEY_USER);
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
    place_authorize(place, &key);
    client = place_open_client(&key);
    place_ping(client, 1);
    assert_true(place_is_answered(place, client, PLACE_DEADLINE_MS, &from));
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
    struct key key = place_make_key(place, "bob", KEY_USER);
    void *context = zmq_ctx_new(), *socket;
    int64_t deadline_ms = clock_mono_ms() + PLACE_DEADLINE_MS;
    int n_errors = 0;
    unsigned seed = 7;

    place_authorize(place, &key);
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
    struct key key = place_make_key(place, "bob", KEY_USER);
    void *context = zmq_ctx_new(), *impostor = zmq_socket(context, ZMQ_ROUTER);
    struct wire request = {.type = MSG_PING}, reply;
    struct net_client *client;
    struct net_peer from;
    const int none = 0;
    bool is_served = false;
    struct err err;

    snprintf(key.endpoint, sizeof(key.endpoint), "tcp://127.0.0.1:%u", free_port());
    place_authorize(place, &key);
    assert_int_equal(zmq_setsockopt(impostor, ZMQ_LINGER, &none, sizeof(none)), 0);
    assert_int_equal(zmq_bind(impostor, key.endpoint), 0);
    client = place_open_client(&key);
    /* It gives up by itself, long before that. */
    assert_int_equal(net_client_call(client, &request, &reply, HOUR_MS, &err), -1);
    assert_int_equal(err.code, ERR_DENIED);
    assert_non_null(strstr(err.text, "another coordinator"));
    zmq_close(impostor);
    zmq_ctx_term(context);
    place_serve(place, key.endpoint);
    for (int i = 0; i < 100 && !is_served; i++) {
        net_client_send(client, &request, NULL); /* refused until it is connected */
        is_served = place_is_answered(place, client, PLACE_QUIET_MS, &from);
    }
    assert_true(is_served);
    net_client_close(client);
}

/* A server of ZMTP 1, which knows no security, is told nothing. */
static void nothing_goes_out_in_plain(void **state)
{
    struct place *place = *state;
    struct key key = place_make_key(place, "bob", KEY_USER);
    struct wire message = {.type = MSG_CANCEL, .cancel = {1, "a text to look for"}};
    struct sockaddr_in address = {.sin_family = AF_INET};
    struct net_client *client;
    int fd = socket(AF_INET, SOCK_STREAM, 0), n_bytes = 0;
    int64_t deadline_ms = clock_mono_ms() + PLACE_DEADLINE_MS;
    const int on = 1;
    char bytes[4096];

    address.sin_port = htons(free_port());
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)), 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(listen(fd, 1), 0);
    snprintf(key.endpoint, sizeof(key.endpoint), "tcp://127.0.0.1:%u",
             ntohs(address.sin_port));
    client = place_open_client(&key);
    assert_int_equal(net_client_send(client, &message, NULL), 0);
    for (int n_peers = 0; n_peers < 3;) { /* the client tries again by itself */
        struct timeval wait = {.tv_usec = PLACE_QUIET_MS * 1000};
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

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, place_set_up, place_tear_down)
    const struct CMUnitTest tests[] = {
        TEST(a_client_without_a_key_is_not_heard),
        TEST(any_bytes_at_the_port_hurt_nobody),
        TEST(malformed_messages_of_a_good_key_are_answered_with_errors),
        TEST(client_comes_back_after_a_server_without_keys),
        TEST(nothing_goes_out_in_plain),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
