#include "tests/unit/gate_place.h"

#include "common/base/clock.h"
#include "common/base/fs.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

void place_serve(struct place *place, const char *endpoint)
{
    struct err err = {ERR_NONE, ""};
    char ipc[96];

    net_server_close(place->server);
    snprintf(ipc, sizeof(ipc), "ipc://%s/s.sock", place->home);
    if (net_server_open(&place->server, ipc, &err) < 0 ||
        net_server_listen(place->server, endpoint, place->home, &err) < 0)
        fail_msg("%s", err.text);
}

int place_set_up(void **state)
{
    struct place *place = calloc(1, sizeof(*place));
    struct err err = {ERR_NONE, ""};

    if (!place)
        return -1;
    strcpy(place->home, "/tmp/vneva-gate-XXXXXX");
    if (!mkdtemp(place->home) || keys_init(place->home, NULL, NULL, &err) < 0)
        return -1;
    place_serve(place, "tcp://127.0.0.1:*");
    *state = place;
    return 0;
}

int place_tear_down(void **state)
{
    struct place *place = *state;

    net_server_close(place->server);
    fs_remove_tree(place->home, NULL);
    free(place);
    return 0;
}

void place_authorize(const struct place *place, const struct key *key)
{
    struct authorized one = key_authorized(key);
    struct err err = {ERR_NONE, ""};

    if (keys_authorize(place->home, &one, 1, &err) < 0)
        fail_msg("%s", err.text);
}

void place_revoke(const struct place *place, const char *name)
{
    struct err err = {ERR_NONE, ""};

    if (keys_revoke(place->home, &name, 1, &err) < 0)
        fail_msg("%s", err.text);
}

/* A key for the server, not authorized yet. */
struct key place_make_key(const struct place *place, const char *name, enum key_role role)
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

struct net_client *place_open_client(const struct key *key)
{
    struct net_client *client;
    struct err err = {ERR_NONE, ""};

    if (net_client_open(&client, NULL, key, &err) < 0)
        fail_msg("%s", err.text);
    return client;
}

void place_ping(struct net_client *client, int64_t nonce)
{
    struct wire message = {.type = MSG_PING, .ping = {nonce}};
    struct err err = {ERR_NONE, ""};

    if (net_client_send(client, &message, &err) < 0)
        fail_msg("%s", err.text);
}

/* Serves until the client has an answer or wait_ms are over. */
bool place_is_answered(struct place *place, struct net_client *client, int64_t wait_ms,
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
