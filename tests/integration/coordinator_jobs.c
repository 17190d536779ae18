/* Jobs from submit to end, through the real program and scripted agents. */
#include "common/base/clock.h"
#include "tests/integration/cluster.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static int set_up(void **state)
{
    struct cluster *cluster = calloc(1, sizeof(*cluster));

    if (!cluster)
        return -1;
    cluster_init(cluster);
    cluster_start(cluster, NULL);
    *state = cluster;
    return 0;
}

static int tear_down(void **state)
{
    cluster_fini(*state);
    free(*state);
    return 0;
}

static int64_t job_int(struct cluster *cluster, int64_t job, const char *key)
{
    struct json *rows = cluster_rows(cluster, "job", job);
    int64_t value = json_get_int(json_at(rows, 0), key, -1);

    json_free(rows);
    return value;
}

static int64_t submit_prepare(struct cluster *cluster, const char *request_id,
                              int64_t shard_size)
{
    char spec[1024];

    spec_prepare(spec, sizeof(spec), shard_size);
    return cluster_submit(cluster, request_id, "prepare", spec);
}

static int64_t submit_train(struct cluster *cluster, const char *request_id,
                            int64_t max_steps, int64_t checkpoint_steps, int64_t n_ranks)
{
    char spec[2048];

    spec_train(spec, sizeof(spec), max_steps, checkpoint_steps, n_ranks);
    return cluster_submit(cluster, request_id, "pretrain", spec);
}

static void batch_job_runs_plan_work_finish(void **state)
{
    struct cluster *cluster = *state;
    int64_t job = submit_prepare(cluster, "r1", 10);
    struct json *rows;

    cluster_add_agent(cluster, 2, 35);
    cluster_wait_job(cluster, job, "done");
    assert_int_equal(job_int(cluster, job, "done"), 35);
    assert_int_equal(job_int(cluster, job, "total"), 35);
    rows = cluster_rows(cluster, "tasks", job);
    assert_int_equal(json_count(rows), 6); /* plan, 4 shards, finish */
    assert_string_equal(json_get_string(json_at(rows, 5), "phase"), "finish");
    assert_int_equal(json_get_int(json_at(rows, 4), "count", -1), 5);
    json_free(rows);
    rows = cluster_rows(cluster, "datasets", job);
    assert_int_equal(json_count(rows), 1);
    assert_int_equal(json_get_int(json_at(rows, 0), "n_samples", -1), 35);
    json_free(rows);
}

static void training_job_runs_from_checkpoint_to_checkpoint(void **state)
{
    struct cluster *cluster = *state;
    int64_t job = submit_train(cluster, "r1", 25, 10, 2);
    struct json *rows;

    cluster_add_agent(cluster, 2, 0);
    cluster_wait_job(cluster, job, "done");
    rows = cluster_rows(cluster, "checkpoints", job);
    assert_int_equal(json_count(rows), 3);
    assert_int_equal(json_get_int(json_at(rows, 2), "step", -1), 25);
    assert_false(json_bool(json_get(json_at(rows, 0), "is_kept"), true));
    assert_true(json_bool(json_get(json_at(rows, 1), "is_kept"), false)); /* the last 2 */
    assert_true(json_bool(json_get(json_at(rows, 2), "is_kept"), false));
    json_free(rows);
    assert_int_equal(job_int(cluster, job, "done"), 25);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(batch_job_runs_plan_work_finish),
        TEST(training_job_runs_from_checkpoint_to_checkpoint),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
