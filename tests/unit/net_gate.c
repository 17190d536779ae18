/* Server and client of common/net over TCP: who is let in, and who is not. */
#include "common/base/clock.h"
#include "common/base/fs.h"
#include "common/net/net.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define DEADLINE_MS 20000
#define QUIET_MS 400 /* how long nothing is to come from who must not be answered */

struct place {
    char home[64];
    struct net_server *server;
};

static int set_up(void **state)
{
    struct place *place = calloc(1, sizeof(*place));
    char ipc[96];
    struct err err = {ERR_NONE, ""};

    if (!place)
        return -1;
    strcpy(place->home, "/tmp/vneva-gate-XXXXXX");
    if (!mkdtemp(place->home) || keys_init(place->home, NULL, NULL, &err) < 0)
        return -1;
    snprintf(ipc, sizeof(ipc), "ipc://%s/s.sock", place->home);
    if (net_server_open(&place->server, ipc, &err) < 0 ||
        net_server_listen(place->server, "tcp://127.0.0.1:*", place->home, &err) < 0)
        fail_msg("%s", err.text);
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
    struct authorized one = {.role = key->role};
    struct err err = {ERR_NONE, ""};

    strcpy(one.name, key->name);
    strcpy(one.public_key, key->public_key);
    if (keys_authorize(place->home, &one, 1, &err) < 0)
        fail_msg("%s", err.text);
}

static void revoke(const struct place *place, const char *name)
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
    strcpy(key.coordinator, coordinator.public_key);
    strcpy(key.endpoint, net_server_endpoint(place->server));
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
    revoke(place, "bob");
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
    strcpy(key.coordinator, other.public_key);
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
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
