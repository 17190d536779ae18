/* gate_place.h - a home with keys and a server on TCP in it, for tests of who is let in
 *
 * Server and clients are of one thread, so place_is_answered serves while it waits. All
 * fail the running cmocka test when something cannot be had.
 */
#ifndef VNEVA_TESTS_UNIT_GATE_PLACE_H
#define VNEVA_TESTS_UNIT_GATE_PLACE_H

#include "common/net/net.h"

#define PLACE_DEADLINE_MS 20000
#define PLACE_QUIET_MS 400 /* how long nothing is to come from who must not be answered */

struct place {
    char home[64];
    struct net_server *server;
};

int place_set_up(void **state);
int place_tear_down(void **state);
/* Another server in the place of the one there is. */
void place_serve(struct place *place, const char *endpoint);

/* A key for the server, not authorized yet. */
struct key place_make_key(const struct place *place, const char *name,
                          enum key_role role);
void place_authorize(const struct place *place, const struct key *key);
void place_revoke(const struct place *place, const char *name);
struct net_client *place_open_client(const struct key *key);
void place_ping(struct net_client *client, int64_t nonce);
/* Serves until the client has an answer (*from: who asked last) or wait_ms are over. */
bool place_is_answered(struct place *place, struct net_client *client, int64_t wait_ms,
                       struct net_peer *from);

#endif
