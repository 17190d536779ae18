/* worker_home.h - a real coordinator and a real agent in a folder of their own
 *
 * For tests of whole jobs: either may be killed and started again at any time. Calls fail
 * the running cmocka test when something cannot be had before HOME_DEADLINE_MS.
 */
#ifndef VNEVA_TESTS_INTEGRATION_WORKER_HOME_H
#define VNEVA_TESTS_INTEGRATION_WORKER_HOME_H

#include "common/base/json.h"
#include "common/net/net.h"

#include <sys/types.h>

#define HOME_DEADLINE_MS 120000

struct home {
    char folder[64], endpoint[128];
    pid_t coordinator, agent; /* 0: not running */
    struct net_client *client;
    int n_submitted;
};

void home_init(struct home *home, int n_devices);
/* Ends both (ranks die with the agent) and removes the folder unless VNEVA_TEST_KEEP is
 * set. */
void home_fini(struct home *home);

void home_start_coordinator(struct home *home);
void home_start_agent(struct home *home, int n_devices);
void home_kill(pid_t *pid); /* SIGKILL, waited for */

int64_t home_submit(struct home *home, const char *kind, const char *spec);
/* The first cell of the answer to a SELECT, as text. */
void home_ask(struct home *home, char *out, size_t n_bytes, const char *sql);
/* The job's row, or its newest attempt's (NULL while there is none); the caller frees. */
struct json *home_job(struct home *home, int64_t job);
struct json *home_attempt(struct home *home, int64_t job);
/* Waits until the job is done; fails the test, with the job's reason, when it ends in any
 * other way. */
void home_wait_done(struct home *home, int64_t job);
/* Waits until the job has failed; its reason goes to out. Fails the test when it is done. */
void home_wait_failed(struct home *home, int64_t job, char *out, size_t n_bytes);
/* The same, and the reason has this in it. */
void home_expect_failed(struct home *home, int64_t job, const char *says);
/* The newest checkpoint's folder. */
void home_last_checkpoint(struct home *home, int64_t job, char *out, size_t n_bytes);

/* Draws the clips of worker_data.h and prepares them, with these keys besides (NULL: none);
 * where the dataset lies goes to out. */
void home_prepare(struct home *home, const char *const *keys, char *out, size_t n_bytes);
/* The number of a job that trains on it. */
int64_t home_submit_training(struct home *home, const char *dataset,
                             const char *const *keys);

/* The same bytes, and not none. */
void home_expect_same_file(const char *a, const char *b);
/* Two jobs of two tensor-parallel ranks: the newest checkpoint's weights and samples.log. */
void home_expect_same_run(struct home *home, int64_t job, int64_t other);

#endif
