/* keys_site.h - a real coordinator that listens on TCP, and a real agent with a key
 *
 * In a folder of their own, at a port that the system chose and that the coordinator keeps
 * over its restarts. All fail the running cmocka test when something cannot be had before
 * SITE_DEADLINE_MS.
 */
#ifndef VNEVA_TESTS_INTEGRATION_KEYS_SITE_H
#define VNEVA_TESTS_INTEGRATION_KEYS_SITE_H

#include "common/net/net.h"

#include <sys/types.h>

#define SITE_DEADLINE_MS 60000

struct site {
    char home[64], endpoint[KEY_ENDPOINT_BYTES];
    pid_t coordinator, worker; /* 0: not running */
    struct net_client *local;  /* over ipc: the user himself */
};

void site_init(struct site *site); /* starts nothing */
void site_fini(struct site *site); /* the folder stays when VNEVA_TEST_KEEP is set */
void site_start_coordinator(struct site *site);
void site_start_worker(struct site *site, const char *key_file);
void site_end(pid_t *pid); /* SIGTERM, waited for */

/* A key for the site's coordinator, not authorized yet. */
struct key site_make_key(const struct site *site, const char *name, enum key_role role);
void site_authorize(const struct site *site, const struct key *key);
struct net_client *site_open_client(const struct key *key);

/* How many rows of a view hold text, as JSON; and until there is one. */
int site_count_rows(struct site *site, const char *view, const char *text);
void site_wait_row(struct site *site, const char *view, const char *text);
/* How often the log of "coordinator" or "worker" has the text; and until it has it. */
int site_count_in_log(const struct site *site, const char *name, const char *text);
void site_wait_log(const struct site *site, const char *name, const char *text);

#endif
