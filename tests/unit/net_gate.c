/* Server and client of common/net over TCP: who is let in, as what, and until when. */
#include "tests/unit/gate_place.h"

#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

/* A client whose key is authorized, and that was answered. */
static struct net_client *let_in(struct place *place, const struct key *key,
                                 struct net_peer *from)
{
    struct net_client *client;

    place_authorize(place, key);
    client = place_open_client(key);
    place_ping(client, 1);
    assert_true(place_is_answered(place, client, PLACE_DEADLINE_MS, from));
    return client;
}

static void authorized_key_comes_in_with_its_role(void **state)
{
    struct place *place = *state;
    struct key key = place_make_key(place, "bob", KEY_USER);
    struct net_peer from;
    struct net_client *client = let_in(place, &key, &from);

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
    place_ping(client, 1);
    assert_true(place_is_answered(place, client, PLACE_DEADLINE_MS, &from));
    assert_int_equal(from.role, KEY_ADMIN);
    assert_string_equal(from.key_name, "");
    net_client_close(client);
}

static void unknown_key_gets_no_answer_until_it_is_authorized(void **state)
{
    struct place *place = *state;
    struct key key = place_make_key(place, "bob", KEY_USER);
    struct net_client *client = place_open_client(&key);
    struct net_peer from;

    place_ping(client, 1);
    assert_false(place_is_answered(place, client, PLACE_QUIET_MS, &from));
    place_authorize(place, &key);
    assert_true(
        place_is_answered(place, client, PLACE_DEADLINE_MS, &from)); /* by itself */
    net_client_close(client);
}

static void revoked_key_is_not_obeyed_on_its_live_connection(void **state)
{
    struct place *place = *state;
    struct key key = place_make_key(place, "bob", KEY_USER);
    struct net_peer from;
    struct net_client *client = let_in(place, &key, &from);

    place_revoke(place, "bob");
    do /* the list is looked at every GATE_LOOK_MS */
        place_ping(client, 2);
    while (place_is_answered(place, client, PLACE_QUIET_MS, &from));
    place_authorize(place, &key);
    place_ping(client, 3);
    assert_true(place_is_answered(place, client, PLACE_DEADLINE_MS, &from));
    net_client_close(client);
}

static void coordinator_of_another_key_is_refused_by_the_client(void **state)
{
    struct place *place = *state;
    struct key key = place_make_key(place, "bob", KEY_USER), other;
    struct net_client *client;
    struct net_peer from;

    place_authorize(place, &key);
    assert_int_equal(key_create(&other, "other", KEY_USER, NULL), 0);
    memcpy(key.coordinator, other.public_key, sizeof(key.coordinator));
    client = place_open_client(&key);
    place_ping(client, 1);
    assert_false(place_is_answered(place, client, PLACE_QUIET_MS, &from));
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

static bool has_ipv6(void)
{
    struct sockaddr_in6 address = {.sin6_family = AF_INET6,
                                   .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    int fd = socket(AF_INET6, SOCK_STREAM, 0);
    bool has = fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0;

    close(fd);
    return has;
}

/* Serves at `listen`, and a client that connects to what the server says gets in. */
static void expect_served(struct place *place, const char *listen)
{
    struct key key = place_make_key(place, "bob", KEY_USER);
    struct net_client *client;
    struct net_peer from;

    place_serve(place, listen);
    snprintf(key.endpoint, sizeof(key.endpoint), "%s",
             net_server_endpoint(place->server));
    assert_null(strstr(key.endpoint, "*"));
    client = let_in(place, &key, &from);
    net_client_close(client);
    place_revoke(place, "bob");
}

static void names_and_both_kinds_of_addresses_are_served(void **state)
{
    struct place *place = *state;

    expect_served(place, "tcp://localhost:*");
    expect_served(place, "tcp://127.0.0.1:0");
    if (has_ipv6())
        expect_served(place, "tcp://[::1]:*");
    else
        print_message("skipped: this machine has no IPv6\n");
}

/* What others are told is a host that they can connect to, not "*". */
static void server_at_all_addresses_says_its_name(void **state)
{
    struct place *place = *state;
    struct err err = {ERR_NONE, ""};

    place_serve(place, "tcp://*:*");
    if (net_check_remote(net_server_endpoint(place->server), &err) < 0)
        fail_msg("%s", err.text);
    assert_int_equal(net_check_remote("tcp://*:7777", &err), -1);
    assert_int_equal(net_check_remote("tcp://0.0.0.0:7777", &err), -1);
    assert_int_equal(net_check_remote("tcp://[::]:7777", &err), -1);
    assert_int_equal(net_check_remote("tcp://head:0", &err), -1);
    assert_int_equal(net_check_remote("ipc:///tmp/s.sock", &err), -1);
}

static void client_notices_a_connection_that_took_the_place_of_another(void **state)
{
    struct place *place = *state;
    struct key key = place_make_key(place, "agent", KEY_WORKER);
    struct net_client *client = place_open_client(&key);
    struct net_peer from;

    place_authorize(place, &key);
    place_ping(client, 1);
    assert_true(place_is_answered(place, client, PLACE_DEADLINE_MS, &from));
    assert_false(net_client_take_break(client));
    place_serve(place, key.endpoint);
    place_ping(client, 2);
    assert_true(place_is_answered(place, client, PLACE_DEADLINE_MS, &from));
    assert_true(net_client_take_break(client));
    assert_false(net_client_take_break(client));
    net_client_close(client);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, place_set_up, place_tear_down)
    const struct CMUnitTest tests[] = {
        TEST(authorized_key_comes_in_with_its_role),
        TEST(ipc_beside_it_is_the_user_himself),
        TEST(unknown_key_gets_no_answer_until_it_is_authorized),
        TEST(revoked_key_is_not_obeyed_on_its_live_connection),
        TEST(coordinator_of_another_key_is_refused_by_the_client),
        TEST(tcp_without_a_key_is_refused_with_the_remedy),
        TEST(client_notices_a_connection_that_took_the_place_of_another),
        TEST(names_and_both_kinds_of_addresses_are_served),
        TEST(server_at_all_addresses_says_its_name),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
