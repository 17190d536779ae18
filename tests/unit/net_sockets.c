/* Server and client of common/net over real sockets in a private folder. */
#include "common/base/clock.h"
#include "common/base/fs.h"
#include "common/net/net.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#define DEADLINE_MS 20000

struct place {
    char folder[64], endpoint[96];
};

static int set_up(void **state)
{
    struct place *place = calloc(1, sizeof(*place));

    if (!place)
        return -1;
    strcpy(place->folder, "/tmp/vneva-net-XXXXXX");
    if (!mkdtemp(place->folder))
        return -1;
    snprintf(place->endpoint, sizeof(place->endpoint), "ipc://%s/s.sock", place->folder);
    *state = place;
    return 0;
}

static int tear_down(void **state)
{
    struct place *place = *state;

    fs_remove_tree(place->folder, NULL);
    free(place);
    return 0;
}

static struct net_server *open_server(const char *endpoint)
{
    struct net_server *server;
    struct err err = {ERR_NONE, ""};

    if (net_server_open(&server, endpoint, &err) < 0)
        fail_msg("%s", err.text);
    return server;
}

static struct net_client *open_client(const char *endpoint)
{
    struct net_client *client;
    struct err err = {ERR_NONE, ""};

    if (net_client_open(&client, endpoint, NULL, &err) < 0)
        fail_msg("%s", err.text);
    return client;
}

static void ping(struct net_client *client, int64_t nonce)
{
    struct wire message = {.type = MSG_PING, .ping = {nonce}};

    assert_int_equal(net_client_send(client, &message, NULL), 0);
}

/* Answers one PING with its nonce. */
static void serve_one(struct net_server *server)
{
    struct net_peer from;
    struct wire message;
    struct err err = {ERR_NONE, ""};

    assert_int_equal(net_server_receive(server, &from, &message, DEADLINE_MS, &err), 1);
    assert_int_equal(message.type, MSG_PING);
    struct wire answer = {.type = MSG_PONG,
                          .reply_to = message.sequence,
                          .pong = {message.ping.nonce, "1"}};
    assert_int_equal(net_server_send(server, &from, &answer, &err), 0);
    wire_fini(&message);
}

static void expect_pong(struct net_client *client, int64_t nonce)
{
    struct wire message;

    assert_int_equal(net_client_receive(client, &message, DEADLINE_MS, NULL), 1);
    assert_int_equal(message.type, MSG_PONG);
    assert_int_equal(message.pong.nonce, nonce);
    wire_fini(&message);
}

static void each_client_gets_its_own_answer(void **state)
{
    struct place *place = *state;
    struct net_server *server = open_server(place->endpoint);
    struct net_client *clients[3];

    for (int i = 0; i < 3; i++) {
        clients[i] = open_client(place->endpoint);
        ping(clients[i], 100 + i);
    }
    for (int i = 0; i < 3; i++)
        serve_one(server);
    for (int i = 0; i < 3; i++) {
        expect_pong(clients[i], 100 + i);
        net_client_close(clients[i]);
    }
    net_server_close(server);
}

static void client_lives_through_a_restart_of_the_server(void **state)
{
    struct place *place = *state;
    struct net_client *client = open_client(place->endpoint);
    struct net_server *server;

    for (int round = 0; round < 2; round++) {
        server = open_server(place->endpoint);
        ping(client, round);
        serve_one(server);
        expect_pong(client, round);
        net_server_close(server);
    }
    net_client_close(client);
}

static void second_server_at_an_endpoint_is_refused(void **state)
{
    struct place *place = *state;
    struct net_server *server = open_server(place->endpoint), *second = NULL;
    struct err err;

    assert_int_equal(net_server_open(&second, place->endpoint, &err), -1);
    assert_int_equal(err.code, ERR_EXISTS);
    net_server_close(server);
    server = open_server(place->endpoint); /* free again */
    net_server_close(server);
}

static void stale_socket_file_is_replaced(void **state)
{
    struct place *place = *state;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);

    snprintf(address.sun_path, sizeof(address.sun_path), "%s/s.sock", place->folder);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    close(fd); /* the file stays, as after a kill */
    net_server_close(open_server(place->endpoint));
}

static void folder_open_to_others_is_refused(void **state)
{
    struct place *place = *state;
    struct net_server *server;
    struct net_client *client;
    struct err err;

    assert_int_equal(chmod(place->folder, 0750), 0);
    assert_int_equal(net_server_open(&server, place->endpoint, &err), -1);
    assert_int_equal(err.code, ERR_DENIED);
    assert_int_equal(net_client_open(&client, place->endpoint, NULL, &err), -1);
    assert_int_equal(err.code, ERR_DENIED);
}

static void wrong_endpoints_are_refused_with_a_reason(void **state)
{
    static const struct {
        const char *endpoint;
        enum err_code code;
    } wrong[] = {
        {"tcp://127.0.0.1:9999", ERR_INVALID}, /* a server begins with ipc */
        {"tcp://exa mple.org:9999", ERR_INVALID},
        {"tcp://[::1:9999", ERR_INVALID},
        {"tcp://[fe80::x]:9999", ERR_INVALID},
        {"tcp://[]:9999", ERR_INVALID},
        {"tcp://:9999", ERR_INVALID},
        {"tcp://127.0.0.1:99999", ERR_INVALID},
        {"tcp://127.0.0.1:", ERR_INVALID},
        {"tcp://127.0.0.1", ERR_INVALID},
        {"ipc://relative/s.sock", ERR_INVALID},
        {"udp://127.0.0.1:1", ERR_INVALID},
        {"", ERR_INVALID},
        {"ipc:///no/such/folder/s", ERR_NOT_FOUND},
        {"ipc:///"
         "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
         "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa/s.sock",
         ERR_LIMIT},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        struct net_server *server;
        struct err err = {ERR_NONE, ""};

        assert_int_equal(net_server_open(&server, wrong[i].endpoint, &err), -1);
        assert_int_equal(err.code, wrong[i].code);
        assert_true(err.text[0]);
    }
}

static void call_without_a_server_says_that_nobody_answers(void **state)
{
    struct place *place = *state;
    struct net_client *client = open_client(place->endpoint);
    struct wire request = {.type = MSG_PING}, reply;
    struct err err;

    assert_int_equal(net_client_call(client, &request, &reply, 50, &err), -1);
    assert_int_equal(err.code, ERR_TIMEOUT);
    assert_non_null(strstr(err.text, "no coordinator answers"));
    net_client_close(client);
}

struct serving {
    struct net_server *server;
    int n_messages;
};

/* Answers PING with an ERROR. */
static void *refuse_all(void *argument)
{
    struct serving *serving = argument;

    for (int i = 0; i < serving->n_messages; i++) {
        struct net_peer from;
        struct wire message;
        struct err err;

        if (net_server_receive(serving->server, &from, &message, DEADLINE_MS, &err) != 1)
            return NULL;
        struct wire answer = {.type = MSG_ERROR,
                              .reply_to = message.sequence,
                              .error = {"stale", "too late"}};
        net_server_send(serving->server, &from, &answer, &err);
        wire_fini(&message);
    }
    return NULL;
}

static void error_reply_becomes_an_error(void **state)
{
    struct place *place = *state;
    struct serving serving = {open_server(place->endpoint), 1};
    struct net_client *client = open_client(place->endpoint);
    struct wire request = {.type = MSG_PING}, reply;
    pthread_t thread;
    struct err err;

    assert_int_equal(pthread_create(&thread, NULL, refuse_all, &serving), 0);
    assert_int_equal(net_client_call(client, &request, &reply, DEADLINE_MS, &err), -1);
    assert_int_equal(err.code, ERR_STALE);
    assert_string_equal(err.text, "too late");
    pthread_join(thread, NULL);
    net_client_close(client);
    net_server_close(serving.server);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(each_client_gets_its_own_answer),
        TEST(client_lives_through_a_restart_of_the_server),
        TEST(second_server_at_an_endpoint_is_refused),
        TEST(stale_socket_file_is_replaced),
        TEST(folder_open_to_others_is_refused),
        TEST(wrong_endpoints_are_refused_with_a_reason),
        TEST(call_without_a_server_says_that_nobody_answers),
        TEST(error_reply_becomes_an_error),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
