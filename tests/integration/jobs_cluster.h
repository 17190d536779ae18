/* jobs_cluster.h - a cluster with one coordinator, and jobs that scripted agents run
 *
 * What the tests of the coordinator's jobs share. All fail the running cmocka test when
 * something cannot be had.
 */
#ifndef VNEVA_TESTS_INTEGRATION_JOBS_CLUSTER_H
#define VNEVA_TESTS_INTEGRATION_JOBS_CLUSTER_H

#include "tests/integration/cluster.h"

/* Of a cmocka test: *state is a struct cluster whose coordinator runs. */
int jobs_set_up(void **state);
int jobs_tear_down(void **state);

/* A number of the job's row. */
int64_t job_int(struct cluster *cluster, int64_t job, const char *key);
int64_t submit_prepare(struct cluster *cluster, const char *request_id,
                       int64_t shard_size);
int64_t submit_train(struct cluster *cluster, const char *request_id, int64_t max_steps,
                     int64_t checkpoint_steps, int64_t n_ranks);
/* Sends a request; returns its error's text or "" for an answer. */
const char *ask(struct cluster *cluster, struct wire *request, struct err *err);

/* A training job of 40 steps that has its first 20 done and sits on the rest. */
int64_t start_and_keep(struct cluster *cluster, struct fake_agent **agent);
/* A training job of 40 steps and this name, whose two ranks have begun and go no further. */
int64_t start_training(struct cluster *cluster, const char *name,
                       struct fake_agent **agent);
/* Its ranks tell of two steps, with metrics; waits until both are known. */
void tell_two_steps(struct cluster *cluster, struct fake_agent *agent, int64_t job);
/* For cluster_wait: a rank sits on a task; a rank of `context`, an agent, has died. */
bool has_kept_task(struct cluster *cluster, void *context);
bool rank_has_died(struct cluster *cluster, void *context);

#endif
