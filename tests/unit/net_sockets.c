/* Server, client and mesh of common/net over real sockets in a private folder. */
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

/* ---- mesh ---- */

#define MESH_RANKS 3

struct rank {
    int rank;
    const char *const *endpoints;
    struct net_mesh *mesh;
    size_t n_bytes;
    int rc;
    struct err err;
};

/* What rank `from` sends to `to` at byte i. */
static uint8_t pattern(int from, int to, size_t i)
{
    return (uint8_t)(i * 31 + i / 251 + (size_t)(7 * from + to));
}

/* Everybody sends everything to everybody first and receives after that, in pieces other
 * than those sent. */
static void *exchange(void *argument)
{
    struct rank *r = argument;
    uint8_t *bytes = malloc(r->n_bytes);

    r->rc = net_mesh_connect(r->mesh, r->rank, MESH_RANKS, r->endpoints, DEADLINE_MS,
                             &r->err);
    for (int to = 0; to < MESH_RANKS && r->rc == 0; to++) {
        for (size_t i = 0; i < r->n_bytes; i++)
            bytes[i] = pattern(r->rank, to, i);
        if (to != r->rank)
            r->rc = net_mesh_send(r->mesh, to, bytes, r->n_bytes, DEADLINE_MS, &r->err);
    }
    for (int from = 0; from < MESH_RANKS && r->rc == 0; from++) {
        for (size_t at = 0, n; from != r->rank && at < r->n_bytes && r->rc == 0;
             at += n) {
            n = r->n_bytes - at < 70001 ? r->n_bytes - at : 70001;
            r->rc = net_mesh_recv(r->mesh, from, bytes + at, n, DEADLINE_MS, &r->err);
        }
        for (size_t i = 0; from != r->rank && i < r->n_bytes && r->rc == 0; i++)
            if (bytes[i] != pattern(from, r->rank, i))
                r->rc = err_set(&r->err, ERR_FORMAT, "byte %zu from rank %d", i, from);
    }
    free(bytes);
    return NULL;
}

static void exchange_all(const char *const *listen_at, size_t n_bytes)
{
    const char *endpoints[MESH_RANKS];
    struct rank ranks[MESH_RANKS];
    pthread_t threads[MESH_RANKS];

    for (int i = 0; i < MESH_RANKS; i++) {
        ranks[i] = (struct rank){.rank = i, .endpoints = endpoints, .n_bytes = n_bytes};
        assert_int_equal(net_mesh_listen(&ranks[i].mesh, listen_at[i], &ranks[i].err), 0);
        endpoints[i] = net_mesh_endpoint(ranks[i].mesh);
    }
    for (int i = 0; i < MESH_RANKS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, exchange, &ranks[i]), 0);
    for (int i = 0; i < MESH_RANKS; i++) {
        pthread_join(threads[i], NULL);
        if (ranks[i].rc < 0)
            fail_msg("rank %d: %s", i, ranks[i].err.text);
    }
    for (int i = 0; i < MESH_RANKS; i++)
        net_mesh_close(ranks[i].mesh);
}

static void ranks_that_all_send_first_get_every_byte_in_order(void **state)
{
    struct place *place = *state;
    char texts[MESH_RANKS][128];
    const char *ipc[MESH_RANKS], *tcp[MESH_RANKS];

    for (int i = 0; i < MESH_RANKS; i++) {
        snprintf(texts[i], sizeof(texts[i]), "ipc://%s/rank-%d.sock", place->folder, i);
        ipc[i] = texts[i];
        tcp[i] = "tcp://127.0.0.1:*";
    }
    exchange_all(ipc, 9 << 20);
    exchange_all(tcp, 5 << 20);
    exchange_all(ipc, 1);
}

static void rank_that_is_gone_is_an_error_not_a_hang(void **state)
{
    struct place *place = *state;
    char texts[2][128];
    const char *endpoints[] = {texts[0], texts[1]};
    struct net_mesh *mesh[2];
    struct err err;
    pid_t child;
    char byte;

    for (int i = 0; i < 2; i++)
        snprintf(texts[i], sizeof(texts[i]), "ipc://%s/rank-%d.sock", place->folder, i);
    assert_int_equal(net_mesh_listen(&mesh[0], texts[0], &err), 0);
    child = fork();
    if (child == 0) {
        if (net_mesh_listen(&mesh[1], texts[1], &err) == 0)
            net_mesh_connect(mesh[1], 1, 2, endpoints, DEADLINE_MS, &err);
        _exit(0);
    }
    assert_int_equal(net_mesh_connect(mesh[0], 0, 2, endpoints, DEADLINE_MS, &err), 0);
    assert_int_equal(net_mesh_recv(mesh[0], 1, &byte, 1, DEADLINE_MS, &err), -1);
    assert_int_equal(err.code, ERR_PEER);
    net_mesh_close(mesh[0]);
}

static void rank_that_is_silent_is_a_timeout(void **state)
{
    struct place *place = *state;
    char text[128];
    const char *endpoints[] = {text, "ipc:///nowhere"};
    struct net_mesh *mesh;
    struct err err;

    snprintf(text, sizeof(text), "ipc://%s/rank-0.sock", place->folder);
    assert_int_equal(net_mesh_listen(&mesh, text, &err), 0);
    assert_int_equal(net_mesh_connect(mesh, 0, 2, endpoints, 50, &err), -1);
    assert_int_equal(err.code, ERR_TIMEOUT);
    net_mesh_close(mesh);
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
        TEST(ranks_that_all_send_first_get_every_byte_in_order),
        TEST(rank_that_is_gone_is_an_error_not_a_hang),
        TEST(rank_that_is_silent_is_a_timeout),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
