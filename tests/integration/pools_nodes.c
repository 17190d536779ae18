/* Pools against a cluster that is a folder (tests/support/fake_launch.sh): real agents come
 * and go with the work, whatever dies or hangs on the way; nothing is submitted twice. */
#include "common/base/clock.h"
#include "common/base/fs.h"
#include "tests/integration/cluster.h"

#include <arpa/inet.h>
#include <setjmp.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#define N_SAMPLES 8 /* of tests/support/fake_rank.c: as many tasks */
#define LOOK_MS 20  /* between two looks at the database */

struct pools_test {
    struct cluster cluster; /* first: cluster_* take it */
    char folder[96], listen[48], launcher[512];
};

/* ---- the cluster and its folder ---- */

static void in_folder(const struct pools_test *t, char out[192], const char *name)
{
    snprintf(out, 192, "%s/%s", t->folder, name);
}

static void put(const struct pools_test *t, const char *name, const char *text)
{
    char path[192];
    FILE *file;

    in_folder(t, path, name);
    file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

static void drop(const struct pools_test *t, const char *name)
{
    char path[192];

    in_folder(t, path, name);
    assert_int_equal(unlink(path), 0);
}

/* Lines of a file of the cluster that have a word in them. */
static int count_lines(const struct pools_test *t, const char *name, const char *word)
{
    char path[192], line[1024];
    FILE *file;
    int n = 0;

    in_folder(t, path, name);
    file = fopen(path, "r");
    while (file && fgets(line, sizeof(line), file))
        n += strstr(line, word) != NULL;
    if (file)
        fclose(file);
    return n;
}

static int free_port(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n_bytes = sizeof(address);
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &n_bytes), 0);
    close(fd);
    return ntohs(address.sin_port);
}

static int set_up(void **state)
{
    struct pools_test *t = calloc(1, sizeof(*t));
    char path[512];
    struct err err;

    if (!t)
        return -1;
    cluster_init(&t->cluster);
    snprintf(t->folder, sizeof(t->folder), "%s/fake", t->cluster.home);
    snprintf(path, sizeof(path), "%s/job", t->folder);
    assert_int_equal(fs_make_dirs(path, 0700, &err), 0);
    snprintf(t->listen, sizeof(t->listen), "tcp://127.0.0.1:%d", free_port());
    snprintf(t->launcher, sizeof(t->launcher), "%s/tests/support/fake_launch.sh",
             getenv("VNEVA_SOURCE"));
    snprintf(path, sizeof(path), "%s/../tests/pools", getenv("VNEVA_BIN"));
    setenv("VNEVA_FAKE_BIN", path, 1);
    setenv("VNEVA_FAKE_CLUSTER", t->folder, 1);
    t->cluster.n_options = 0;
    for (const char **word = (const char *[]){"--listen", t->listen, "--launcher",
                                              t->launcher, "--pool-poll-ms", "100",
                                              "--launch-timeout-ms", "2000", NULL};
         *word; word++)
        t->cluster.options[t->cluster.n_options++] = *word;
    *state = t;
    return 0;
}

/* Ends the nodes that still run: they are children of nobody here. */
static void end_nodes(const struct pools_test *t)
{
    char name[32], path[192], line[32];

    for (int id = 1; id < 100; id++) {
        FILE *file;

        snprintf(name, sizeof(name), "job/%d/pid", id);
        in_folder(t, path, name);
        file = fopen(path, "r");
        if (file && fgets(line, sizeof(line), file) && strtol(line, NULL, 10) > 1)
            kill((pid_t)strtol(line, NULL, 10), SIGKILL);
        if (file)
            fclose(file);
    }
}

static int tear_down(void **state)
{
    struct pools_test *t = *state;

    if (t->cluster.pid)
        cluster_kill(&t->cluster, SIGKILL);
    end_nodes(t);
    cluster_fini(&t->cluster);
    free(t);
    return 0;
}

/* ---- asking ---- */

/* One text from the database, "" for none. */
static void ask(struct pools_test *t, const char *sql, char *out, size_t n_bytes)
{
    sqlite3_stmt *statement;
    char path[128];
    sqlite3 *db;

    out[0] = '\0';
    snprintf(path, sizeof(path), "%s/coordinator.db", t->cluster.home);
    assert_int_equal(sqlite3_open_v2(path, &db, SQLITE_OPEN_READONLY, NULL), SQLITE_OK);
    sqlite3_busy_timeout(db, 5000);
    if (sqlite3_prepare_v2(db, sql, -1, &statement, NULL) != SQLITE_OK)
        fail_msg("%s: %s", sql, sqlite3_errmsg(db));
    if (sqlite3_step(statement) == SQLITE_ROW && sqlite3_column_text(statement, 0))
        snprintf(out, n_bytes, "%s", (const char *)sqlite3_column_text(statement, 0));
    sqlite3_finalize(statement);
    sqlite3_close(db);
}

static long number(struct pools_test *t, const char *sql)
{
    char text[64];

    ask(t, sql, text, sizeof(text));
    return strtol(text, NULL, 10);
}

/* Until the question's answer is true (1). */
static void wait_for(struct pools_test *t, const char *sql)
{
    int64_t deadline_ms = clock_mono_ms() + CLUSTER_DEADLINE_MS;
    char text[2048];

    while (number(t, sql) != 1) {
        if (clock_mono_ms() >= deadline_ms) {
            ask(t,
                "SELECT group_concat(text, char(10)) FROM (SELECT text FROM events ORDER "
                "BY id DESC LIMIT 25)",
                text, sizeof(text));
            fail_msg("never: %s\n%s", sql, text);
        }
        for (int i = 0; i < LOOK_MS; i++)
            cluster_step(&t->cluster, 1);
    }
}

static int call(struct pools_test *t, struct wire *request, struct err *err)
{
    struct wire reply = {.type = MSG_NONE};
    int rc = cluster_call(&t->cluster, request, &reply, err);

    if (rc == 0)
        wire_fini(&reply);
    return rc;
}

static int add_pool(struct pools_test *t, int64_t min_nodes, int64_t max_nodes,
                    struct err *err)
{
    struct wire request = {.type = MSG_POOL_ADD};

    request.pool_add = (struct msg_pool_add){.name = "p",
                                             .manager = "slurm",
                                             .min_nodes = min_nodes,
                                             .max_nodes = max_nodes,
                                             .idle_ms = 1000,
                                             .options = "[\"--partition\", \"x\"]"};
    return call(t, &request, err);
}

/* A coordinator with pool "p". */
static void start_with_pool(struct pools_test *t, int64_t min_nodes, int64_t max_nodes)
{
    struct err err = {0};

    cluster_start(&t->cluster, NULL);
    if (add_pool(t, min_nodes, max_nodes, &err) < 0)
        fail_msg("%s", err.text);
}

static int64_t submit_batch(struct pools_test *t)
{
    char spec[1024];

    spec_prepare(spec, sizeof(spec), 1);
    return cluster_submit(&t->cluster, "batch", "prepare", spec);
}

static void assert_done_cleanly(struct pools_test *t)
{
    wait_for(t, "SELECT state = 'done' FROM jobs WHERE id = 1");
    assert_int_equal(number(t, "SELECT sum(n_failures) FROM tasks"), 0);
    assert_int_equal(number(t, "SELECT count(*) FROM tasks WHERE phase = 'work' AND "
                               "state = 'done'"),
                     N_SAMPLES);
}

#define OPEN "SELECT count(*) FROM allocations WHERE state <> 'ended'"

/* ---- the work ---- */

static void pool_grows_to_its_limit_while_tasks_wait_and_ends_when_none_do(void **state)
{
    struct pools_test *t = *state;
    char text[512];

    put(t, "hold", "");
    start_with_pool(t, 0, 2);
    submit_batch(t);
    wait_for(t, "SELECT count(*) = 2 FROM attempts WHERE state = 'running'");
    assert_int_equal(number(t, OPEN), 2);
    wait_for(t,
             "SELECT submits LIKE 'submits nothing: 2 of at most 2 nodes%' FROM pools");
    ask(t, "SELECT ends FROM pools", text, sizeof(text));
    assert_string_equal(text, "ends nothing: all 2 running are needed");
    drop(t, "hold");
    assert_done_cleanly(t);
    wait_for(t, "SELECT count(*) = 0 FROM allocations WHERE state <> 'ended'");
    assert_int_equal(count_lines(t, "submitted", "p "), 2);
    assert_int_equal(number(t, "SELECT count(*) FROM allocations WHERE reason = "
                               "'it had nothing to do'"),
                     2);
    assert_int_equal(count_lines(t, "calls", "cancel"), 0); /* their agents ended them */
    assert_true(count_lines(t, "calls", "--partition x") >= 2);
}

static void min_nodes_are_there_without_work(void **state)
{
    struct pools_test *t = *state;

    start_with_pool(t, 1, 2);
    wait_for(t, "SELECT count(*) = 1 FROM workers WHERE state = 'up'");
    wait_for(t, "SELECT ends = 'ends nothing: at least 1 are to be there' FROM pools");
    submit_batch(t);
    assert_done_cleanly(t);
    assert_int_equal(number(t, "SELECT count(*) FROM workers WHERE state = 'up'"), 1);
}

static void gang_waits_until_all_its_nodes_are_there(void **state)
{
    struct pools_test *t = *state;
    char spec[2048];

    put(t, "full", "");
    start_with_pool(t, 0, 3);
    spec_train(spec, sizeof(spec), 4, 2, 2);
    cluster_submit(&t->cluster, "gang", "pretrain", spec);
    /* The first one shows that a node has one device; only then another is asked for. */
    wait_for(t, "SELECT count(*) = 1 FROM allocations WHERE state = 'pending'");
    drop(t, "full");
    wait_for(t, "SELECT state = 'done' FROM jobs");
    assert_int_equal(count_lines(t, "submitted", "p "), 2);
    assert_int_equal(number(t, "SELECT count(*) FROM attempts"), 1);
}

static void pending_node_that_nobody_needs_is_cancelled(void **state)
{
    struct pools_test *t = *state;
    struct wire cancel = {.type = MSG_CANCEL, .cancel = {1, "changed my mind"}};
    struct err err = {0};
    char text[512];

    put(t, "full", "");
    start_with_pool(t, 0, 2);
    submit_batch(t);
    wait_for(t, "SELECT count(*) = 1 FROM allocations WHERE state = 'pending' AND "
                "reason = 'Resources'");
    wait_for(t, "SELECT reason LIKE 'needs 1 device, there are 0; waits for 1 node of "
                "pool p' AND pool = 'p' FROM jobs");
    assert_int_equal(call(t, &cancel, &err), 0);
    wait_for(t, "SELECT count(*) = 0 FROM allocations WHERE state <> 'ended'");
    ask(t, "SELECT reason FROM allocations", text, sizeof(text));
    assert_string_equal(text, "nobody needs it");
    assert_int_equal(count_lines(t, "calls", "cancel"), 1);
}

static void node_that_vanishes_is_replaced_and_the_job_goes_on(void **state)
{
    struct pools_test *t = *state;

    put(t, "hold", "");
    start_with_pool(t, 0, 1);
    submit_batch(t);
    wait_for(t, "SELECT count(*) = 1 FROM attempts WHERE state = 'running'");
    end_nodes(t);
    wait_for(t, "SELECT count(*) = 1 FROM allocations WHERE state = 'ended'");
    drop(t, "hold");
    assert_done_cleanly(t);
    /* What the lost one had leased comes back later than the next one may be idle. */
    assert_in_range(count_lines(t, "submitted", "p "), 2, 3);
}

/* ---- what goes wrong ---- */

static void survive_kill_at(struct pools_test *t, const char *fault)
{
    start_with_pool(t, 0, 1);
    submit_batch(t);
    cluster_kill(&t->cluster, SIGTERM);
    cluster_start(&t->cluster, fault);
    cluster_wait_end(&t->cluster);
    cluster_start(&t->cluster, NULL);
    assert_done_cleanly(t);
    assert_int_equal(count_lines(t, "submitted", "p "), 1);
    wait_for(t, "SELECT count(*) = 0 FROM allocations WHERE state <> 'ended'");
}

static void kill_before_the_call_submits_once(void **state)
{
    struct pools_test *t = *state;

    survive_kill_at(t, "pools.submit:kill");
    assert_int_equal(number(t, "SELECT count(*) FROM allocations WHERE reason = "
                               "'it never came into the cluster''s list'"),
                     1);
}

static void kill_after_the_call_takes_the_node_up_again(void **state)
{
    struct pools_test *t = *state;

    survive_kill_at(t, "pools.submitted:kill");
    assert_int_equal(number(t, "SELECT count(*) FROM allocations"), 1);
}

static void kills_at_any_commit_lose_no_node_and_double_none(void **state)
{
    struct pools_test *t = *state;
    char fault[64];

    put(t, "hold", "");
    start_with_pool(t, 0, 2);
    submit_batch(t);
    cluster_kill(&t->cluster, SIGTERM);
    for (int i = 1; i <= 6; i++) {
        snprintf(fault, sizeof(fault), "store.commit%s:kill@%d", i % 2 ? "ted" : "",
                 1 + 2 * i);
        cluster_start(&t->cluster, fault);
        cluster_wait_end(&t->cluster);
        assert_true(number(t, OPEN) <= 2);
    }
    drop(t, "hold");
    cluster_start(&t->cluster, NULL);
    assert_done_cleanly(t);
    wait_for(t, "SELECT count(*) = 0 FROM allocations WHERE state <> 'ended'");
    assert_true(count_lines(t, "submitted", "p ") <= 2);
}

static void refused_submission_is_tried_again_and_says_why(void **state)
{
    struct pools_test *t = *state;

    put(t, "refuse", "Submitted\nsbatch: error: invalid partition specified: x\n");
    start_with_pool(t, 0, 1);
    submit_batch(t);
    wait_for(t, "SELECT failure = 'submission failed: sbatch: error: invalid partition "
                "specified: x' AND n_failures >= 2 FROM pools");
    wait_for(t, "SELECT reason LIKE 'needs 1 device, there are 0; % pool p%invalid "
                "partition%' AND pool = 'p' FROM jobs");
    drop(t, "refuse");
    assert_done_cleanly(t);
    assert_int_equal(number(t, "SELECT n_failures FROM pools"), 0);
}

/* Whether a submission has gone through while nobody answers is not known: none is made
 * instead of it. */
static void cluster_that_is_down_is_waited_for(void **state)
{
    struct pools_test *t = *state;

    put(t, "down", "slurm_load_jobs error: Unable to contact slurm controller\n");
    start_with_pool(t, 0, 2);
    submit_batch(t);
    wait_for(t,
             "SELECT reason LIKE '%waits for 1 node of pool p, which cannot be listed: "
             "slurm_load_jobs error: Unable to contact slurm controller' FROM jobs");
    assert_int_equal(number(t, "SELECT count(*) FROM allocations"), 1);
    drop(t, "down");
    assert_done_cleanly(t);
}

static void launcher_that_hangs_is_killed_and_holds_nobody_up(void **state)
{
    struct pools_test *t = *state;
    struct wire ping = {.type = MSG_PING, .ping = {1}};
    struct err err = {0};

    put(t, "hang", "");
    start_with_pool(t, 0, 1);
    submit_batch(t);
    wait_for(t, "SELECT count(*) = 1 FROM allocations");
    assert_int_equal(call(t, &ping, &err), 0);
    wait_for(t, "SELECT failure LIKE '%gave no answer within 2000 ms' FROM pools");
    drop(t, "hang");
    assert_done_cleanly(t);
    assert_int_equal(count_lines(t, "submitted", "p "), 1);
}

static void list_that_hangs_is_killed_and_waited_for(void **state)
{
    struct pools_test *t = *state;

    put(t, "hang_list", "");
    start_with_pool(t, 0, 1);
    submit_batch(t);
    wait_for(t, "SELECT submits LIKE 'submits nothing until the cluster can be listed: "
                "%gave no answer within 2000 ms' FROM pools");
    drop(t, "hang_list");
    assert_done_cleanly(t);
    assert_int_equal(count_lines(t, "submitted", "p "), 1);
}

/* It is asked for again and again, and the journal tells of it once. */
static void pool_whose_node_cannot_be_cancelled_says_so_until_it_can(void **state)
{
    struct pools_test *t = *state;
    struct wire gone = {.type = MSG_POOL_REMOVE, .pool_remove = {"p"}};
    struct err err = {0};

    put(t, "full", "");
    put(t, "stuck", "scancel: error: permission denied\n");
    start_with_pool(t, 1, 1);
    wait_for(t, "SELECT count(*) = 1 FROM allocations WHERE state = 'pending'");
    assert_int_equal(call(t, &gone, &err), 0);
    wait_for(t, "SELECT cancels = 'tries to cancel again: the last try failed (scancel: "
                "error: permission denied)' FROM pools");
    while (count_lines(t, "calls", "cancel") < 3)
        cluster_step(&t->cluster, 20);
    assert_int_equal(number(t, "SELECT count(*) FROM events WHERE text LIKE '%cannot "
                               "cancel%'"),
                     1);
    drop(t, "stuck");
    wait_for(t, "SELECT count(*) = 0 FROM pools");
}

/* What is there goes on; what would be asked for could reach nobody. */
static void pool_of_a_coordinator_started_without_a_network_says_so(void **state)
{
    struct pools_test *t = *state;

    start_with_pool(t, 0, 1);
    cluster_kill(&t->cluster, SIGTERM);
    t->cluster.n_options -= 2;
    memmove(t->cluster.options, &t->cluster.options[2],
            (size_t)t->cluster.n_options * sizeof(t->cluster.options[0]));
    cluster_start(&t->cluster, NULL);
    submit_batch(t);
    wait_for(t, "SELECT failure LIKE '%start it with --listen tcp://HOST:PORT' FROM "
                "pools");
    assert_int_equal(count_lines(t, "calls", "agents"), 0);
}

static void submission_whose_answer_is_lost_is_found_by_its_name(void **state)
{
    struct pools_test *t = *state;

    put(t, "hang_after", "");
    put(t, "full", "");
    start_with_pool(t, 0, 1);
    submit_batch(t);
    wait_for(t, "SELECT count(*) = 1 FROM allocations WHERE state = 'pending' AND "
                "allocation = '1'");
    drop(t, "full");
    assert_done_cleanly(t);
    assert_int_equal(count_lines(t, "submitted", "p "), 1);
}

/* ---- wishes ---- */

static void removed_pool_lets_its_nodes_finish_what_they_have(void **state)
{
    struct pools_test *t = *state;
    struct wire gone = {.type = MSG_POOL_REMOVE, .pool_remove = {"p"}};
    struct err err = {0};
    char path[192];

    put(t, "hold", "");
    start_with_pool(t, 0, 1);
    submit_batch(t);
    wait_for(t, "SELECT count(*) = 1 FROM tasks WHERE phase = 'work' AND "
                "state = 'leased'");
    assert_int_equal(call(t, &gone, &err), 0);
    wait_for(t, "SELECT submits = 'submits nothing: it is being removed' FROM pools");
    /* a machine at its limits may say late that it is up */
    wait_for(t, "SELECT count(*) = 1 FROM workers WHERE state = 'up'");
    drop(t, "hold");
    wait_for(t, "SELECT count(*) = 0 FROM pools");
    assert_int_equal(number(t, "SELECT count(*) FROM tasks WHERE phase = 'work' AND "
                               "state = 'done'"),
                     1);
    assert_int_equal(number(t, "SELECT sum(n_failures) FROM tasks"), 0);
    wait_for(t, "SELECT state = 'queued' FROM jobs");
    snprintf(path, sizeof(path), "%s/keys/pool-p.key", t->cluster.home);
    assert_false(fs_exists(path));
}

static void shutdown_cancels_what_is_pending(void **state)
{
    struct pools_test *t = *state;
    struct wire shutdown = {.type = MSG_SHUTDOWN, .shutdown = {.reason = "test"}};
    struct err err = {0};

    put(t, "full", "");
    start_with_pool(t, 0, 1);
    submit_batch(t);
    wait_for(t, "SELECT count(*) = 1 FROM allocations WHERE state = 'pending'");
    assert_int_equal(call(t, &shutdown, &err), 0);
    cluster_wait_end(&t->cluster);
    assert_int_equal(count_lines(t, "calls", "cancel 1"), 1);
    drop(t, "full");
    cluster_start(&t->cluster, NULL);
    assert_done_cleanly(t);
    assert_int_equal(count_lines(t, "submitted", "p "), 2);
}

static void paused_pool_submits_nothing_until_resumed(void **state)
{
    struct pools_test *t = *state;
    struct wire pause_it = {.type = MSG_POOL_PAUSE, .pool_pause = {"p"}};
    struct wire resume = {.type = MSG_POOL_RESUME, .pool_resume = {"p"}};
    struct err err = {0};

    start_with_pool(t, 0, 1);
    assert_int_equal(call(t, &pause_it, &err), 0);
    submit_batch(t);
    wait_for(t, "SELECT reason LIKE '%pool p is paused' FROM jobs");
    assert_int_equal(number(t, "SELECT count(*) FROM allocations"), 0);
    assert_int_equal(call(t, &resume, &err), 0);
    assert_done_cleanly(t);
}

static void wrong_wishes_are_refused_with_what_would_do(void **state)
{
    struct pools_test *t = *state;
    struct wire gone = {.type = MSG_POOL_REMOVE, .pool_remove = {"nobody"}};
    struct err err = {0};

    start_with_pool(t, 0, 2);
    assert_int_equal(add_pool(t, 0, 2, &err), 0); /* the same once more */
    assert_int_equal(add_pool(t, 0, 3, &err), -1);
    assert_non_null(strstr(err.text, "exists: there is a pool 'p'; remove it first"));
    assert_int_equal(add_pool(t, 3, 2, &err), -1);
    assert_non_null(strstr(err.text, "0 <= MIN <= MAX"));
    assert_int_equal(call(t, &gone, &err), -1);
    assert_non_null(strstr(err.text, "not-found: no pool 'nobody'"));
}

static void pool_of_a_coordinator_nobody_can_reach_is_refused(void **state)
{
    struct pools_test *t = *state;
    struct err err = {0};

    t->cluster.n_options = 0;
    cluster_start(&t->cluster, NULL);
    assert_int_equal(add_pool(t, 0, 2, &err), -1);
    assert_non_null(strstr(err.text, "start it with --listen tcp://HOST:PORT"));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(pool_grows_to_its_limit_while_tasks_wait_and_ends_when_none_do),
        TEST(min_nodes_are_there_without_work),
        TEST(gang_waits_until_all_its_nodes_are_there),
        TEST(pending_node_that_nobody_needs_is_cancelled),
        TEST(node_that_vanishes_is_replaced_and_the_job_goes_on),
        TEST(kill_before_the_call_submits_once),
        TEST(kill_after_the_call_takes_the_node_up_again),
        TEST(kills_at_any_commit_lose_no_node_and_double_none),
        TEST(refused_submission_is_tried_again_and_says_why),
        TEST(cluster_that_is_down_is_waited_for),
        TEST(launcher_that_hangs_is_killed_and_holds_nobody_up),
        TEST(list_that_hangs_is_killed_and_waited_for),
        TEST(pool_whose_node_cannot_be_cancelled_says_so_until_it_can),
        TEST(pool_of_a_coordinator_started_without_a_network_says_so),
        TEST(submission_whose_answer_is_lost_is_found_by_its_name),
        TEST(removed_pool_lets_its_nodes_finish_what_they_have),
        TEST(shutdown_cancels_what_is_pending),
        TEST(paused_pool_submits_nothing_until_resumed),
        TEST(wrong_wishes_are_refused_with_what_would_do),
        TEST(pool_of_a_coordinator_nobody_can_reach_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
