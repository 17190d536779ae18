/* site.h - a coordinator and agents on hosts of their own, and questions to them
 *
 * Host SITE_HEAD has the coordinator, which listens on the network (lan.h) and, for this
 * program, on a socket file; every other host has an agent of one device, with a key of its
 * own, that calls itself "host-N". The folder is shared, as it is on a cluster.
 * Calls fail the running cmocka test.
 */
#ifndef VNEVA_TESTS_NETNS_SITE_H
#define VNEVA_TESTS_NETNS_SITE_H

#include "common/base/fs.h"
#include "tests/integration/worker_home.h"
#include "tests/netns/lan.h"

#define SITE_HOSTS 4
#define SITE_HEAD 0
#define SITE_LOST_AFTER_MS "6000" /* silence after which an agent is given up */

struct site {
    struct home home;
    struct lan *lan; /* the caller's: of SITE_HOSTS hosts */
    pid_t agents[SITE_HOSTS];
    char dataset[128]; /* where training looks for it */
};

/* Starts all of it; waits until all agents are registered. */
void site_init(struct site *site);
/* Ends every process on its hosts and removes the folder unless VNEVA_TEST_KEEP is set. */
void site_fini(struct site *site);

/* ---- hosts ---- */

void site_log_path(const struct site *site, char out[FS_PATH_MAX], int host);
/* argv[0]: one of vneva's programs. */
pid_t site_start(struct site *site, int host, char **argv);
void site_start_coordinator(struct site *site, char *lost_after_ms);
void site_start_agent(struct site *site, int host);
void site_set_link(struct site *site, int host, bool is_up);

/* ---- questions: SELECTs of one cell ---- */

/* Until the answer is as expected; before HOME_DEADLINE_MS. */
void site_wait_for(struct site *site, const char *expected, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
int64_t site_ask_int(struct site *site, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
void site_wait_until_agents(struct site *site, const char *n);
void site_wait_for_step(struct site *site, int64_t job, int64_t step);
int site_host_of(struct site *site, int64_t job, int64_t attempt, int rank);

/* ---- jobs ---- */

int64_t site_submit_training(struct site *site, const char *const *keys);
/* Of as many tasks as `shard` says; its dataset is `name` in the home folder. */
int64_t site_submit_prepare(struct site *site, const char *name, const char *shard);

/* Every task is done, and each sample or step is in just one of them. */
void site_expect_each_once(struct site *site, int64_t job);
/* And weights and samples.log have the same bytes; two tensor parallel ranks. */
void site_expect_same_run(struct site *site, int64_t job, int64_t undisturbed);
void site_expect_same_dataset(struct site *site, int64_t job, int64_t undisturbed);

#endif
