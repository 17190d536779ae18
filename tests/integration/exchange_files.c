/* The exchange through files, with a process for every node. */
#define _GNU_SOURCE /* MAP_ANONYMOUS */
#include "common/base/clock.h"
#include "common/base/fs.h"
#include "slurm/node/exchange.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <utime.h>

#include <cmocka.h>

#define N_MAX 8
#define LONG_MS 30000 /* of a fence that all come to */
#define SHORT_MS 700  /* of one that some do not come to */

struct result { /* of one node's process, in memory shared with the test */
    int rc;
    struct err err;
    char value[64];
    int local, n_local, lost;
};

struct stage {
    char folder[N_MAX][256]; /* as each node sees it */
    char host[N_MAX][32], token[N_MAX][32];
    int n_nodes;
    pid_t pid[N_MAX];
    struct result *results;
};

/* What a node does once the exchange is open; its return value is results[node].rc. */
typedef int (*role)(struct exchange *exchange, struct result *result);

static int setup(void **state)
{
    struct stage *stage = calloc(1, sizeof(*stage));
    const char *tmp = getenv("TMPDIR");
    char folder[200];

    snprintf(folder, sizeof(folder), "%s/vneva-exchange-XXXXXX", tmp ? tmp : "/tmp");
    assert_non_null(mkdtemp(folder));
    for (int node = 0; node < N_MAX; node++) {
        snprintf(stage->folder[node], sizeof(stage->folder[node]), "%s", folder);
        snprintf(stage->host[node], sizeof(stage->host[node]), "host%d", node);
        snprintf(stage->token[node], sizeof(stage->token[node]), "12.0");
    }
    stage->n_nodes = 3;
    stage->results = mmap(NULL, N_MAX * sizeof(struct result), PROT_READ | PROT_WRITE,
                          MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(stage->results != MAP_FAILED);
    *state = stage;
    return 0;
}

static int teardown(void **state)
{
    struct stage *stage = *state;

    for (int node = 0; node < N_MAX; node++)
        if (stage->pid[node] > 0) {
            kill(stage->pid[node], SIGKILL);
            waitpid(stage->pid[node], NULL, 0);
        }
    fs_remove_tree(stage->folder[0], NULL);
    munmap(stage->results, N_MAX * sizeof(struct result));
    free(stage);
    return 0;
}

static void start(struct stage *stage, int node, role act)
{
    struct result *result = &stage->results[node];

    stage->pid[node] = fork();
    assert_true(stage->pid[node] >= 0);
    if (stage->pid[node] == 0) {
        struct exchange *exchange = NULL;

        setenv("SLURMD_NODENAME", stage->host[node], 1);
        result->rc =
            exchange_open_files(&exchange, stage->folder[node], stage->token[node], node,
                                stage->n_nodes, &result->err);
        if (result->rc == 0)
            result->rc = act(exchange, result);
        exchange_close(exchange);
        _exit(0);
    }
}

static void finish(struct stage *stage, int node)
{
    int status;

    assert_int_equal(waitpid(stage->pid[node], &status, 0), stage->pid[node]);
    stage->pid[node] = 0;
    assert_int_equal(status, 0);
}

static void wait_for_file(const struct stage *stage, const char *name)
{
    const struct timespec step = {0, 5000000};
    int64_t deadline_ms = clock_mono_ms() + LONG_MS;
    char path[512];

    snprintf(path, sizeof(path), "%s/exchange/12.0/%s", stage->folder[0], name);
    while (!fs_exists(path)) {
        assert_true(clock_mono_ms() < deadline_ms);
        nanosleep(&step, NULL);
    }
}

/* ---- roles ---- */

static int put_own(struct exchange *exchange, const char *key, const char *prefix,
                   struct err *err)
{
    char value[64];

    snprintf(value, sizeof(value), "%s%d", prefix, exchange->node);
    return exchange_put(exchange, key, value, err);
}

/* Two rounds: values of all nodes are joined into the result, "a0a1a2b0b1b2c0..". */
static int exchange_all(struct exchange *exchange, struct result *result)
{
    static const char *const keys[] = {"first", "second"};

    for (int round = 0; round < 2; round++) {
        if (put_own(exchange, keys[round], round ? "b" : "a", &result->err) < 0 ||
            exchange_fence(exchange, LONG_MS, &result->err) < 0)
            return -1;
        for (int node = 0; node < exchange->n_nodes; node++) {
            const char *value;

            if (exchange_get(exchange, node, keys[round], &value, &result->err) < 0)
                return -1;
            snprintf(result->value + strlen(result->value),
                     sizeof(result->value) - strlen(result->value), "%s", value);
        }
    }
    result->local = exchange->local;
    result->n_local = exchange->n_local;
    return 0;
}

static int fence_soon(struct exchange *exchange, struct result *result)
{
    return exchange_fence(exchange, SHORT_MS, &result->err);
}

static int fence_patient(struct exchange *exchange, struct result *result)
{
    return exchange_fence(exchange, LONG_MS, &result->err);
}

static int fence_twice_soon(struct exchange *exchange, struct result *result)
{
    if (exchange_fence(exchange, LONG_MS, &result->err) < 0)
        return -1;
    return exchange_fence(exchange, SHORT_MS, &result->err);
}

static int fence_then_hang(struct exchange *exchange, struct result *result)
{
    if (exchange_fence(exchange, LONG_MS, &result->err) < 0)
        return -1;
    for (;;)
        pause();
}

static int hang(struct exchange *exchange, struct result *result)
{
    (void)exchange;
    (void)result;
    while (pause())
        ;
    return 0;
}

static int leave(struct exchange *exchange, struct result *result)
{
    (void)exchange;
    (void)result;
    return 0;
}

static int get_unknown(struct exchange *exchange, struct result *result)
{
    const char *value;

    if (exchange_fence(exchange, LONG_MS, &result->err) < 0)
        return -1;
    return exchange_get(exchange, 0, "nobody-put-this", &value, &result->err);
}

static int fence_then_watch(struct exchange *exchange, struct result *result)
{
    const struct timespec step = {0, 20000000};
    int64_t deadline_ms = clock_mono_ms() + LONG_MS;

    if (exchange_fence(exchange, LONG_MS, &result->err) < 0)
        return -1;
    while ((result->lost = exchange_poll_lost(exchange)) < 0 &&
           clock_mono_ms() < deadline_ms)
        nanosleep(&step, NULL);
    return exchange_poll_lost(exchange) == -1 ? 0 : -1; /* told once */
}

/* ---- tests ---- */

static void every_node_gets_what_all_have_put(void **state)
{
    struct stage *stage = *state;
    char path[512];

    snprintf(stage->host[2], sizeof(stage->host[2]), "host0");
    for (int node = 0; node < stage->n_nodes; node++)
        start(stage, node, exchange_all);
    for (int node = 0; node < stage->n_nodes; node++) {
        finish(stage, node);
        assert_string_equal(stage->results[node].err.text, "");
        assert_string_equal(stage->results[node].value, "a0a1a2b0b1b2");
        assert_int_equal(stage->results[node].local, node == 2);
        assert_int_equal(stage->results[node].n_local, node == 1 ? 1 : 2);
    }
    snprintf(path, sizeof(path), "%s/exchange/12.0", stage->folder[0]);
    assert_false(fs_exists(path)); /* the last one cleans up */
}

static void a_node_that_never_starts_is_named_with_the_folder(void **state)
{
    struct stage *stage = *state;

    start(stage, 0, fence_soon);
    start(stage, 1, fence_patient);
    finish(stage, 0);
    assert_int_equal(stage->results[0].err.code, ERR_TIMEOUT);
    assert_non_null(strstr(stage->results[0].err.text, "2 of 3 nodes met within 0.7 s"));
    assert_non_null(strstr(stage->results[0].err.text, "missing: node 2 (never seen)"));
    assert_non_null(strstr(stage->results[0].err.text, "shared between the nodes?"));
    assert_non_null(strstr(stage->results[0].err.text, stage->folder[0]));
    finish(stage, 1); /* node 0 gave up, so it need not wait its own 30 s */
    assert_int_equal(stage->results[1].err.code, ERR_PEER);
}

static void a_node_that_hangs_is_named_with_its_host(void **state)
{
    struct stage *stage = *state;

    start(stage, 0, fence_twice_soon);
    start(stage, 1, fence_then_hang);
    start(stage, 2, fence_twice_soon);
    finish(stage, 0);
    finish(stage, 2);
    assert_int_equal(stage->results[0].err.code, ERR_TIMEOUT);
    assert_non_null(strstr(stage->results[0].err.text, "missing: node 1 (host1)"));
    assert_null(strstr(stage->results[0].err.text, "shared"));
    assert_int_equal(stage->results[2].rc, -1);
}

static void a_first_node_that_hangs_is_named_by_the_others(void **state)
{
    struct stage *stage = *state;

    stage->n_nodes = 2;
    start(stage, 0, hang);
    start(stage, 1, fence_soon);
    finish(stage, 1);
    assert_int_equal(stage->results[1].err.code, ERR_TIMEOUT);
    assert_non_null(strstr(stage->results[1].err.text, "missing: node 0 (host0)"));
}

static void a_node_that_leaves_is_told_at_once(void **state)
{
    struct stage *stage = *state;

    start(stage, 1, leave);
    start(stage, 0, fence_patient);
    start(stage, 2, fence_patient);
    for (int node = 0; node < 3; node++)
        finish(stage, node);
    assert_int_equal(stage->results[0].err.code, ERR_PEER);
    assert_string_equal(stage->results[0].err.text, "node 1 (host1) has ended");
    assert_int_equal(stage->results[2].err.code, ERR_PEER);
}

static void a_node_that_has_left_is_lost_to_the_others(void **state)
{
    struct stage *stage = *state;

    stage->n_nodes = 2;
    start(stage, 0, fence_then_watch);
    start(stage, 1, fence_patient);
    finish(stage, 0);
    finish(stage, 1);
    assert_int_equal(stage->results[0].lost, 1);
    assert_int_equal(stage->results[0].rc, 0);
}

static void nodes_that_do_not_share_a_folder_ask_whether_they_do(void **state)
{
    struct stage *stage = *state;

    stage->n_nodes = 2;
    snprintf(stage->folder[1], sizeof(stage->folder[1]), "%s/elsewhere",
             stage->folder[0]);
    start(stage, 0, fence_soon);
    start(stage, 1, fence_soon);
    for (int node = 0; node < 2; node++) {
        finish(stage, node);
        assert_int_equal(stage->results[node].err.code, ERR_TIMEOUT);
        assert_non_null(strstr(stage->results[node].err.text, "(never seen)"));
        assert_non_null(strstr(stage->results[node].err.text, stage->folder[node]));
    }
}

/* An earlier start whose processes were all killed has left its files. */
static void texts_of_an_earlier_start_are_not_seen(void **state)
{
    struct stage *stage = *state;

    stage->n_nodes = 2;
    start(stage, 0, hang);
    start(stage, 1, fence_patient);
    wait_for_file(stage, "here/0");
    wait_for_file(stage, "round-0/1");
    for (int node = 0; node < 2; node++) {
        kill(stage->pid[node], SIGKILL);
        waitpid(stage->pid[node], NULL, 0);
        snprintf(stage->token[node], sizeof(stage->token[node]), "12.1");
    }
    start(stage, 0, exchange_all);
    start(stage, 1, exchange_all);
    for (int node = 0; node < 2; node++) {
        finish(stage, node);
        assert_string_equal(stage->results[node].value, "a0a1b0b1");
    }
}

static void a_token_that_was_used_before_is_refused(void **state)
{
    struct stage *stage = *state;

    stage->n_nodes = 2;
    start(stage, 1, hang);
    wait_for_file(stage, "here/1");
    kill(stage->pid[1], SIGKILL);
    waitpid(stage->pid[1], NULL, 0);
    start(stage, 1, exchange_all);
    finish(stage, 1);
    assert_int_equal(stage->results[1].err.code, ERR_EXISTS);
    assert_non_null(strstr(stage->results[1].err.text, "node 1 is on 'host1' already"));
    assert_non_null(strstr(stage->results[1].err.text, "a token of its own"));
}

static void a_folder_that_cannot_be_used_is_named(void **state)
{
    struct stage *stage = *state;
    struct exchange *exchange;
    struct err err;
    char file[512];

    snprintf(file, sizeof(file), "%s/exchange", stage->folder[0]);
    assert_int_equal(fs_write_file_atomic(file, "x", 1, &err), 0);
    assert_int_equal(exchange_open_files(&exchange, stage->folder[0], "1", 0, 2, &err),
                     -1);
    assert_int_equal(err.code, ERR_IO);
    assert_non_null(strstr(err.text, file));
}

static void a_key_that_nobody_put_is_not_found(void **state)
{
    struct stage *stage = *state;

    stage->n_nodes = 2;
    start(stage, 0, fence_patient);
    start(stage, 1, get_unknown);
    finish(stage, 0);
    finish(stage, 1);
    assert_int_equal(stage->results[1].err.code, ERR_NOT_FOUND);
    assert_non_null(strstr(stage->results[1].err.text, "node 0 (host0)"));
}

static void what_cannot_be_put_is_refused(void **state)
{
    struct stage *stage = *state;
    struct exchange *exchange;
    struct err err;
    char *big = malloc(EXCHANGE_VALUE_MAX + 2);

    assert_non_null(big);
    memset(big, 'x', EXCHANGE_VALUE_MAX + 1);
    big[EXCHANGE_VALUE_MAX + 1] = '\0';
    assert_int_equal(exchange_open_files(&exchange, stage->folder[0], "1", 0, 1, &err),
                     0);
    assert_int_equal(exchange_put(exchange, "big", big, &err), -1);
    assert_int_equal(err.code, ERR_LIMIT);
    assert_int_equal(exchange_put(exchange, "bad", "\xff", &err), -1);
    assert_int_equal(err.code, ERR_INVALID);
    exchange_close(exchange);
    free(big);
    assert_int_equal(exchange_open_files(&exchange, stage->folder[0], "a/b", 0, 1, &err),
                     -1);
    assert_int_equal(err.code, ERR_INVALID);
    assert_int_equal(exchange_open_files(&exchange, stage->folder[0], "2", 1, 1, &err),
                     -1);
    assert_int_equal(err.code, ERR_INVALID);
}

static void folders_of_long_ago_are_removed(void **state)
{
    struct stage *stage = *state;
    const struct utimbuf long_ago = {1000000000, 1000000000};
    struct exchange *exchange;
    struct err err;
    char old[512], young[512];

    snprintf(old, sizeof(old), "%s/exchange/3.0/here", stage->folder[0]);
    assert_int_equal(fs_make_dirs(old, 0700, &err), 0);
    snprintf(young, sizeof(young), "%s/exchange/4.0", stage->folder[0]);
    assert_int_equal(fs_make_dirs(young, 0700, &err), 0);
    *strrchr(old, '/') = '\0';
    assert_int_equal(utime(old, &long_ago), 0);
    assert_int_equal(exchange_open_files(&exchange, stage->folder[0], "5.0", 0, 1, &err),
                     0);
    exchange_close(exchange);
    assert_false(fs_exists(old));
    assert_true(fs_exists(young));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(every_node_gets_what_all_have_put),
        TEST(a_node_that_never_starts_is_named_with_the_folder),
        TEST(a_node_that_hangs_is_named_with_its_host),
        TEST(a_first_node_that_hangs_is_named_by_the_others),
        TEST(a_node_that_leaves_is_told_at_once),
        TEST(a_node_that_has_left_is_lost_to_the_others),
        TEST(nodes_that_do_not_share_a_folder_ask_whether_they_do),
        TEST(texts_of_an_earlier_start_are_not_seen),
        TEST(a_token_that_was_used_before_is_refused),
        TEST(a_folder_that_cannot_be_used_is_named),
        TEST(a_key_that_nobody_put_is_not_found),
        TEST(what_cannot_be_put_is_refused),
        TEST(folders_of_long_ago_are_removed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
