/* The coordinator is killed at random commits while agents work: no task is lost, none is
 * done twice, and the database is sound. And a store that cannot write loses nothing. */
#include "common/base/rng.h"
#include "tests/integration/cluster.h"

#include <setjmp.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include <cmocka.h>

#define N_KILLS 20
#define N_SAMPLES 3000 /* 300 tasks of 10 */
#define SEED 2         /* of where the kills fall; a failure repeats with it */

static int set_up(void **state)
{
    struct cluster *cluster = calloc(1, sizeof(*cluster));

    if (!cluster)
        return -1;
    cluster_init(cluster);
    *state = cluster;
    return 0;
}

static int tear_down(void **state)
{
    cluster_fini(*state);
    free(*state);
    return 0;
}

/* One number from the database itself, with nobody serving it. */
static int64_t number(struct cluster *cluster, const char *sql)
{
    sqlite3_stmt *statement;
    char path[128];
    sqlite3 *db;
    int64_t value;

    snprintf(path, sizeof(path), "%s/coordinator.db", cluster->home);
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_prepare_v2(db, sql, -1, &statement, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_step(statement), SQLITE_ROW);
    value = sqlite3_column_int64(statement, 0);
    sqlite3_finalize(statement);
    sqlite3_close(db);
    return value;
}

static void assert_sound(struct cluster *cluster)
{
    assert_int_equal(
        number(cluster, "SELECT integrity_check = 'ok' FROM pragma_integrity_check"), 1);
    assert_int_equal(number(cluster, "SELECT count(*) FROM pragma_foreign_key_check"), 0);
}

/* What must hold of the finished batch job 1: the work covers every sample once, every
 * task is done, each became done once, by the attempt it was leased to. */
static void assert_batch_done_once(struct cluster *cluster)
{
    assert_int_equal(number(cluster, "SELECT count(*) FROM tasks WHERE job = 1"), 302);
    assert_int_equal(
        number(cluster, "SELECT count(*) FROM tasks WHERE job = 1 AND state <> 'done'"),
        0);
    assert_int_equal(number(cluster, "SELECT sum(count) FROM tasks WHERE job = 1"
                                     " AND phase = 'work'"),
                     N_SAMPLES);
    assert_int_equal(number(cluster, "SELECT count(DISTINCT first) FROM tasks"
                                     " WHERE job = 1 AND phase = 'work'"),
                     300);
    assert_int_equal(number(cluster,
                            "SELECT count(*) FROM tasks WHERE job = 1 AND phase ="
                            " 'work' AND json_extract(result, '$.first') <> first"),
                     0);
    assert_int_equal(number(cluster, "SELECT count(*) FROM events WHERE job = 1 AND"
                                     " kind = 'task' AND text LIKE '% is done,%'"),
                     302);
    assert_int_equal(number(cluster, "SELECT count(*) FROM datasets WHERE job = 1"), 1);
}

static void job_survives_twenty_kills_with_every_task_done_once(void **state)
{
    static const char *const points[] = {"store.commit", "store.committed"};
    struct rng_key key = {SEED, rng_stream("coordinator_kills")};
    struct cluster *cluster = *state;
    char spec[1024], fault[64];

    spec_prepare(spec, sizeof(spec), 10);
    cluster_start(cluster, NULL);
    assert_int_equal(cluster_submit(cluster, "kills", "prepare", spec), 1);
    cluster_kill(cluster, SIGKILL);
    for (int i = 0; i < 3; i++)
        cluster_add_agent(cluster, 1, N_SAMPLES);
    for (uint64_t i = 0; i < N_KILLS; i++) {
        snprintf(fault, sizeof(fault), "%s:kill@%d", points[rng_below(key, 2 * i, 2)],
                 1 + (int)rng_below(key, 2 * i + 1, 9));
        cluster_start(cluster, fault);
        cluster_wait_end(cluster);
    }
    cluster_start(cluster, NULL);
    cluster_wait_job(cluster, 1, "done");
    cluster_kill(cluster, SIGTERM);
    assert_sound(cluster);
    assert_batch_done_once(cluster);
}

static void training_survives_kills_with_every_checkpoint_once(void **state)
{
    struct rng_key key = {SEED, rng_stream("coordinator_kills training")};
    struct cluster *cluster = *state;
    char spec[2048], fault[64];

    spec_train(spec, sizeof(spec), 400, 10, 2);
    cluster_start(cluster, NULL);
    assert_int_equal(cluster_submit(cluster, "kills", "pretrain", spec), 1);
    cluster_add_agent(cluster, 2, 0);
    cluster_kill(cluster, SIGKILL);
    for (uint64_t i = 0; i < 8; i++) {
        snprintf(fault, sizeof(fault), "store.commit%s:kill@%d",
                 rng_below(key, 2 * i, 2) ? "ted" : "",
                 2 + (int)rng_below(key, 2 * i + 1, 3));
        cluster_start(cluster, fault);
        cluster_wait_end(cluster);
    }
    cluster_start(cluster, NULL);
    cluster_wait_job(cluster, 1, "done");
    cluster_kill(cluster, SIGTERM);
    assert_sound(cluster);
    assert_int_equal(number(cluster, "SELECT count(*) FROM checkpoints"), 40);
    assert_int_equal(number(cluster, "SELECT count(*) FROM checkpoints WHERE is_kept"),
                     2);
    assert_int_equal(number(cluster, "SELECT count(*) FROM attempts"), 1); /* none lost */
}

/* A disk that is full for one commit: the request is refused with the reason, nothing of
 * it stays, and later ones work. */
static void failed_commit_is_an_error_and_leaves_no_trace(void **state)
{
    struct cluster *cluster = *state;
    struct wire request = {.type = MSG_SUBMIT}, reply;
    char spec[1024];
    struct err err;

    spec_prepare(spec, sizeof(spec), 10);
    cluster_start(cluster, "store.commit:fail@2"); /* the first is of the start */
    cluster_wait_job(cluster, cluster_submit(cluster, "r0", "prepare", spec), "queued");
    request.submit = (struct msg_submit){"r1", "prepare", "test", spec};
    while (cluster_call(cluster, &request, &reply, &err) == 0) {
        /* which commit is the second is not certain: ask until it was this one */
        char next[16];

        snprintf(next, sizeof(next), "r%d", (int)reply.submitted.job);
        wire_fini(&reply);
        request.submit.request_id = next;
        assert_true(strlen(next) < 3);
    }
    assert_non_null(strstr(err.text, "io: "));
    assert_non_null(strstr(err.text, "fault point store.commit"));
    assert_int_equal(cluster_call(cluster, &request, &reply, &err), 0);
    assert_int_equal(reply.submitted.is_new, 1); /* nothing of the failed one stayed */
    wire_fini(&reply);
    cluster_add_agent(cluster, 2, 30);
    cluster_wait_job(cluster, 1, "done");
    cluster_kill(cluster, SIGTERM);
    assert_sound(cluster);
}

/* A disk that is full while agents work: what they report is not acknowledged, comes
 * again, and is done once. */
static void failed_commits_under_load_lose_no_task(void **state)
{
    struct cluster *cluster = *state;
    char spec[1024];

    spec_prepare(spec, sizeof(spec), 10);
    cluster_start(cluster, "store.commit:fail@7,store.commit:fail@15,store.write:fail@90,"
                           "store.commit:fail@24,store.write:fail@600");
    for (int i = 0; i < 3; i++)
        cluster_add_agent(cluster, 1, N_SAMPLES);
    assert_int_equal(cluster_submit(cluster, "load", "prepare", spec), 1);
    cluster_wait_job(cluster, 1, "done");
    cluster_kill(cluster, SIGTERM);
    assert_sound(cluster);
    assert_batch_done_once(cluster);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(job_survives_twenty_kills_with_every_task_done_once),
        TEST(training_survives_kills_with_every_checkpoint_once),
        TEST(failed_commit_is_an_error_and_leaves_no_trace),
        TEST(failed_commits_under_load_lose_no_task),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
