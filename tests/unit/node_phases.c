/* The phases of a launch: what is written, and what is read of it. */
#include "common/base/fs.h"
#include "slurm/node/phases.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static int setup(void **state)
{
    const char *tmp = getenv("TMPDIR");
    char *folder = malloc(FS_PATH_MAX);

    snprintf(folder, FS_PATH_MAX, "%s/vneva-phases-XXXXXX", tmp ? tmp : "/tmp");
    assert_non_null(mkdtemp(folder));
    *state = folder;
    return 0;
}

static int teardown(void **state)
{
    fs_remove_tree(*state, NULL);
    free(*state);
    return 0;
}

static struct phases *open_node(void **state, const char *launch, int node,
                                const char *host)
{
    struct phases *phases;
    struct err err;

    assert_int_equal(phases_open(&phases, *state, launch, node, host, NULL, &err), 0);
    return phases;
}

static struct json *read_all(void **state)
{
    struct json *launch = NULL;
    struct err err;

    assert_int_equal(phases_read(&launch, *state, &err), 0);
    return launch;
}

static struct json *phase_at(struct json *launch, size_t i, const char *name)
{
    struct json *row = json_at(json_get(launch, "phases"), i);

    assert_string_equal(json_get_string(row, "phase"), name);
    return row;
}

static char *table_of(const struct json *launch, int64_t now_ms)
{
    char *text = NULL;
    size_t n = 0;
    FILE *out = open_memstream(&text, &n);

    phases_print(out, launch, now_ms);
    fclose(out);
    return text;
}

static void a_phase_that_hangs_on_one_node_is_seen_while_it_does(void **state)
{
    struct phases *first = open_node(state, "12.0", 0, "n1");
    struct phases *second = open_node(state, "12.0", 1, "n2");
    struct json *launch, *row;
    char *table;

    assert_int_equal(phases_begin(first, "wired", NULL), 0);
    assert_int_equal(phases_begin(second, "wired", NULL), 0);
    assert_int_equal(phases_end(first, "2 nodes", NULL), 0);
    launch = read_all(state);
    row = phase_at(launch, 0, "wired");
    assert_int_equal(json_get_int(row, "n_ok", -1), 1);
    assert_string_equal(json_get_string(row, "text"), "2 nodes");
    assert_int_equal(json_count(json_get(row, "running")), 1);
    row = json_at(json_get(row, "running"), 0);
    assert_string_equal(json_get_string(row, "host"), "n2");
    setenv("TZ", "UTC0", 1);
    assert_int_equal(json_set(launch, "began_ms", json_new_int(1795833614595), NULL), 0);
    table = table_of(launch, json_get_int(row, "since_ms", 0) + 65000);
    assert_non_null(strstr(table, "launch 12.0, begun 2026-11-28 02:40:14, "));
    assert_non_null(strstr(table, "in it: node 1 (n2) since 65.0 s"));
    free(table);
    json_free(launch);
    phases_close(first);
    phases_close(second);
}

static void a_phase_that_fails_is_named_in_the_error_and_in_the_record(void **state)
{
    struct phases *phases = open_node(state, "12.0", 0, "n1");
    struct json *launch, *row;
    struct err err;
    char *table;

    assert_int_equal(phases_begin(phases, "preflight", &err), 0);
    err_set(&err, ERR_TIMEOUT, "1 of 2 nodes met");
    assert_int_equal(phases_fail(phases, &err), -1);
    assert_int_equal(err.code, ERR_TIMEOUT);
    assert_non_null(strstr(err.text, "phase 'preflight' failed after 0."));
    assert_non_null(strstr(err.text, "1 of 2 nodes met"));
    launch = read_all(state);
    row = phase_at(launch, 0, "preflight");
    assert_int_equal(json_get_int(row, "n_failed", -1), 1);
    assert_int_equal(json_count(json_get(row, "running")), 0);
    table = table_of(launch, json_get_int(launch, "began_ms", 0));
    assert_non_null(strstr(table, "node 0 (n1): 1 of 2 nodes met"));
    free(table);
    json_free(launch);
    phases_close(phases);
}

static void only_the_newest_launch_of_a_run_is_shown(void **state)
{
    struct phases *old = open_node(state, "12.0", 0, "n1");
    struct phases *phases;
    struct json *launch;

    assert_int_equal(phases_begin(old, "agents", NULL), 0);
    phases_close(old); /* killed in it */
    phases = open_node(state, "12.1", 0, "n1");
    assert_int_equal(phases_begin(phases, "wired", NULL), 0);
    assert_int_equal(phases_begin(phases, "preflight", NULL), 0); /* ends the first */
    assert_int_equal(phases_mark(phases, "first step", "step 1", NULL), 0);
    launch = read_all(state);
    assert_string_equal(json_get_string(launch, "launch"), "12.1");
    assert_int_equal(json_count(json_get(launch, "phases")), 3);
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(json_get_int(json_at(json_get(launch, "phases"), i), "n_ok", -1),
                         1);
    phase_at(launch, 2, "first step");
    json_free(launch);
    phases_close(phases);
}

/* The folder was started twice: what the newest did is whole. */
static void another_launch_at_the_same_time_hides_nothing(void **state)
{
    struct phases *other = open_node(state, "12.0", 0, "n1");
    struct phases *phases = open_node(state, "13.0", 0, "n2");
    struct json *launch;

    assert_int_equal(phases_begin(other, "wired", NULL), 0);
    assert_int_equal(phases_mark(phases, "wired", "", NULL), 0);
    assert_int_equal(phases_end(other, "", NULL), 0);
    assert_int_equal(phases_mark(phases, "preflight", "", NULL), 0);
    launch = read_all(state);
    assert_string_equal(json_get_string(launch, "launch"), "13.0");
    assert_int_equal(json_count(json_get(launch, "phases")), 2);
    json_free(launch);
    phases_close(other);
    phases_close(phases);
}

static void a_launch_is_queued_until_a_node_begins(void **state)
{
    struct phases *launcher = open_node(state, "12", PHASES_NODE_LAUNCHER, "login");
    struct phases *node;
    struct json *launch;
    char *table;

    assert_int_equal(phases_begin(launcher, "queued", NULL), 0);
    launch = read_all(state);
    table = table_of(launch, json_get_int(launch, "began_ms", 0) + 3000);
    assert_non_null(strstr(table, "in it: the launcher on login since 3.0 s"));
    free(table);
    json_free(launch);
    phases_close(launcher);
    node = open_node(state, "12.0", 0, "n1");
    assert_int_equal(phases_mark(node, "wired", "", NULL), 0);
    launch = read_all(state);
    assert_string_equal(json_get_string(launch, "launch"), "12.0");
    assert_int_equal(json_get_int(phase_at(launch, 0, "queued"), "n_ok", -1), 1);
    assert_int_equal(json_count(json_get(phase_at(launch, 0, "queued"), "running")), 0);
    phase_at(launch, 1, "wired");
    json_free(launch);
    phases_close(node);
    node = open_node(state, "12.1", 0, "n1"); /* another start, that nobody queued */
    assert_int_equal(phases_mark(node, "wired", "", NULL), 0);
    launch = read_all(state);
    assert_int_equal(json_count(json_get(launch, "phases")), 1);
    json_free(launch);
    phases_close(node);
}

static void a_last_line_that_is_half_written_is_left_out(void **state)
{
    struct phases *phases = open_node(state, "12.0", 0, "n1");
    struct json *launch;
    char path[FS_PATH_MAX];
    FILE *file;

    assert_int_equal(phases_mark(phases, "wired", "", NULL), 0);
    phases_close(phases);
    snprintf(path, sizeof(path), "%s/phases/node-0.jsonl", (char *)*state);
    file = fopen(path, "a");
    fputs("{\"launch\": \"12.0\", \"no", file);
    fclose(file);
    launch = read_all(state);
    assert_int_equal(json_count(json_get(launch, "phases")), 1);
    json_free(launch);
}

static void a_folder_without_phases_says_so(void **state)
{
    struct json *launch;
    struct err err;

    assert_int_equal(phases_read(&launch, *state, &err), -1);
    assert_int_equal(err.code, ERR_NOT_FOUND);
    assert_non_null(strstr(err.text, *state));
}

static void node_0_tells_people(void **state)
{
    struct phases *phases;
    struct err err;
    char *text = NULL;
    size_t n = 0;
    FILE *live = open_memstream(&text, &n);

    assert_int_equal(phases_open(&phases, *state, "1", 0, "n1", live, &err), 0);
    assert_int_equal(phases_begin(phases, "preflight", &err), 0);
    assert_int_equal(phases_end(phases, "2 nodes", &err), 0);
    fclose(live);
    assert_non_null(strstr(text, "preflight    ...\n"));
    assert_non_null(strstr(text, "preflight    ok: 2 nodes\n"));
    free(text);
    phases_close(phases);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_phase_that_hangs_on_one_node_is_seen_while_it_does),
        TEST(a_phase_that_fails_is_named_in_the_error_and_in_the_record),
        TEST(only_the_newest_launch_of_a_run_is_shown),
        TEST(another_launch_at_the_same_time_hides_nothing),
        TEST(a_launch_is_queued_until_a_node_begins),
        TEST(a_last_line_that_is_half_written_is_left_out),
        TEST(a_folder_without_phases_says_so),
        TEST(node_0_tells_people),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
