/* vneva pool and vneva why --json against a scripted coordinator: what they ask and print. */
#include "client_help.h"

#define COLUMN(name) "{\"name\": \"" name "\", \"type\": \"text\", \"unit\": \"\"}"
#define THEN(name) "," COLUMN(name)
#define POOL_WORDS COLUMN("name") THEN("manager") THEN("state")
#define POOL_NUMBERS                                                                     \
    THEN("min_nodes")                                                                    \
    THEN("max_nodes")                                                                    \
    THEN("idle_ms")                                                                      \
    THEN("n_running")                                                                    \
    THEN("n_pending")                                                                    \
    THEN("n_devices")
#define POOL_REASONS THEN("submits") THEN("keeps") THEN("cancels") THEN("ends")
#define POOL_COLUMNS POOL_WORDS POOL_NUMBERS POOL_REASONS
#define POOL_ROW                                                                         \
    "[\"gpu\", \"slurm\", \"active\", 0, 4, 300000, 1, 2, 8, \"submits nothing: x\", "   \
    "\"keeps y\", \"cancels z\", \"ends nothing\"]"
#define POOLS "{\"columns\": [" POOL_COLUMNS "], \"rows\": [" POOL_ROW "]}"
#define ALLOCATION_COLUMNS COLUMN("allocation") THEN("state") THEN("reason") THEN("host")
#define ALLOCATIONS                                                                      \
    "{\"columns\": [" ALLOCATION_COLUMNS "], "                                           \
    "\"rows\": [[\"12\", \"pending\", \"Resources\", null]]}"
#define NO_ROWS "{\"columns\": [], \"rows\": []}"
#define JOB_COLUMNS COLUMN("id") THEN("state") THEN("reason") THEN("pool")
#define ONE_JOB                                                                          \
    "{\"columns\": [" JOB_COLUMNS                                                        \
    "], \"rows\": [[3, \"queued\", \"needs 2 devices, there "                            \
    "are 0; waits for 1 node of pool gpu\", \"gpu\"]]}"

static const struct fake_rule answers[] = {
    {.type = MSG_POOL_ADD, .answer = MSG_OK, .text = ""},
    {.type = MSG_POOL_REMOVE, .answer = MSG_OK, .text = ""},
    {.type = MSG_POOL_PAUSE, .answer = MSG_OK, .text = ""},
    {.type = MSG_POOL_RESUME,
     .answer = MSG_ERROR,
     .text = "pool 'gpu' is active",
     .code = "state"},
    {.type = MSG_SELECT, .view = "pools", .answer = MSG_TABLE, .text = POOLS},
    {.type = MSG_SELECT, .view = "allocations", .answer = MSG_TABLE, .text = ALLOCATIONS},
    {.type = MSG_SELECT, .view = "jobs", .answer = MSG_TABLE, .text = ONE_JOB},
    {.type = MSG_SELECT, .answer = MSG_TABLE, .text = NO_ROWS},
    {.type = MSG_NONE}};

static const struct fake_rule no_pools[] = {
    {.type = MSG_SELECT, .answer = MSG_TABLE, .text = NO_ROWS}, {.type = MSG_NONE}};

static void pool_is_added_with_all_that_was_said(void **state)
{
    struct fake *fake = fake_start(answers);
    const struct msg_pool_add *add;
    struct said said;

    (void)state;
    assert_non_null(fake);
    said = client_says(fake_home(fake),
                       W("pool", "add", "slurm", "--name", "gpu", "--nodes", "1-4",
                         "--idle", "90s", "--gpus-per-node", "8", "--partition", "a100",
                         "--", "--qos=high", "--account", "us"));
    assert_int_equal(said.status, EXIT_DONE);
    assert_says(said.out, "pool gpu is added\n");
    said_fini(&said);
    add = &fake_asked(fake, 0)->pool_add;
    assert_string_equal(add->name, "gpu");
    assert_string_equal(add->manager, "slurm");
    assert_int_equal(add->min_nodes, 1);
    assert_int_equal(add->max_nodes, 4);
    assert_int_equal(add->idle_ms, 90000);
    assert_int_equal(add->gpus_per_node, 8);
    assert_string_equal(add->options, "[\"--partition\",\"a100\",\"--\",\"--qos=high\","
                                      "\"--account\",\"us\"]");
    fake_stop(fake);
}

static void name_and_idle_time_have_defaults(void **state)
{
    struct fake *fake = fake_start(answers);
    struct said said;

    (void)state;
    said = client_says(fake_home(fake), W("pool", "add", "slurm", "--nodes", "0-1"));
    assert_int_equal(said.status, EXIT_DONE);
    said_fini(&said);
    assert_string_equal(fake_asked(fake, 0)->pool_add.name, "slurm");
    assert_int_equal(fake_asked(fake, 0)->pool_add.idle_ms, 300000);
    assert_string_equal(fake_asked(fake, 0)->pool_add.options, "[]");
    fake_stop(fake);
}

static void wrong_words_say_what_would_do(void **state)
{
    (void)state;
    assert_run(answers, W("pool", "ad"), EXIT_USAGE, NULL,
               "there are add, list, status, remove, pause, resume");
    assert_run(answers, W("pool", "add", "lsf", "--nodes", "0-1"), EXIT_USAGE, NULL,
               "usage: vneva pool add slurm --nodes MIN-MAX");
    assert_run(answers, W("pool", "add", "slurm"), EXIT_USAGE, NULL, "--nodes 0-4");
    assert_run(answers, W("pool", "add", "slurm", "--nodes", "4"), EXIT_USAGE, NULL,
               "takes MIN-MAX, as 0-4, not '4'");
    assert_run(answers, W("pool", "add", "slurm", "--nodes", "0-4x"), EXIT_USAGE, NULL,
               "not '0-4x'");
    assert_run(answers, W("pool", "add", "slurm", "--nodes", "0-4", "--idle", "5"),
               EXIT_USAGE, NULL, "takes a time as 90s, 5m, 2h, not '5'");
    assert_run(answers, W("pool", "add", "slurm", "gpu", "--nodes", "0-4"), EXIT_USAGE,
               NULL, "'gpu' is not expected here");
    assert_run(answers, W("pool", "remove"), EXIT_USAGE, NULL,
               "usage: vneva pool remove NAME");
}

static void wishes_name_their_pool(void **state)
{
    (void)state;
    assert_run(answers, W("pool", "remove", "gpu"), EXIT_DONE,
               "pool gpu is being removed\n", NULL);
    assert_run(answers, W("pool", "pause", "gpu"), EXIT_DONE, "pool gpu is paused\n",
               NULL);
    assert_run(answers, W("pool", "resume", "gpu"), EXIT_REFUSED, NULL,
               "pool 'gpu' is active");
}

static void list_and_status_show_pools_as_they_are(void **state)
{
    (void)state;
    assert_run(answers, W("pool", "list"), EXIT_DONE, "gpu   slurm    active    0-4",
               NULL);
    assert_run(answers, W("pool", "status"), EXIT_DONE,
               "pool gpu is active: 0-4 nodes, which may be idle for 5 min 00 s\n"
               "  submits nothing: x\n  keeps y\n  cancels z\n  ends nothing\n",
               NULL);
    assert_run(answers, W("pool", "status", "gpu"), EXIT_DONE, "12  pending", NULL);
    assert_run(answers, W("pool", "status", "--json"), EXIT_DONE, "\"allocations\": [",
               NULL);
    assert_run(no_pools, W("pool", "list"), EXIT_DONE, "no pools\n", NULL);
    assert_run(no_pools, W("pool", "status"), EXIT_DONE, "no pools\n", NULL);
    assert_run(no_pools, W("pool", "status", "x"), EXIT_USAGE, NULL,
               "no pool 'x'; `vneva pool list` lists them");
}

static void why_names_the_pool_and_gives_json(void **state)
{
    (void)state;
    assert_run(answers, W("why", "3"), EXIT_DONE, "allocation 12 of it is pending", NULL);
    assert_run(answers, W("why", "3", "--json"), EXIT_DONE, "\"pool\": \"gpu\"", NULL);
    assert_run(answers, W("why", "3", "--json"), EXIT_DONE,
               "\"sentence\": \"job 3 needs 2 devices", NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pool_is_added_with_all_that_was_said),
        cmocka_unit_test(name_and_idle_time_have_defaults),
        cmocka_unit_test(wrong_words_say_what_would_do),
        cmocka_unit_test(wishes_name_their_pool),
        cmocka_unit_test(list_and_status_show_pools_as_they_are),
        cmocka_unit_test(why_names_the_pool_and_gives_json),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
