/* The sentence of `vneva why`, from rows as the views give them. */
#include "jobs/client/why.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#define NOW_MS 1000000

static struct json *parse(const char *text)
{
    struct json *json;
    struct err err;

    if (json_parse(&json, text, strlen(text), &err) < 0)
        fail_msg("%s in %s", err.text, text);
    return json;
}

static void assert_sentence(const struct why_facts *facts, const char *expected)
{
    struct buf text = BUF_INIT;

    why_write(&text, facts);
    assert_string_equal(buf_str(&text), expected);
    buf_fini(&text);
}

static void assert_why(const char *job, const char *ranks, const char *workers,
                       const char *holders, const char *expected)
{
    struct why_facts facts = {.job = parse(job),
                              .ranks = parse(ranks),
                              .workers = parse(workers),
                              .holders = parse(holders),
                              .now_ms = NOW_MS};

    assert_sentence(&facts, expected);
    json_free((struct json *)(uintptr_t)facts.job);
    json_free((struct json *)(uintptr_t)facts.ranks);
    json_free((struct json *)(uintptr_t)facts.workers);
    json_free((struct json *)(uintptr_t)facts.holders);
}

#define QUEUED(reason)                                                                   \
    "{\"id\": 3, \"state\": \"queued\", \"state_ms\": 940000, \"n_ranks\": 2,"           \
    " \"reason\": \"" reason "\"}"

static void queued_job_says_how_many_of_what_it_waits_for_since_when(void **state)
{
    (void)state;
    assert_why(QUEUED("needs 2 devices, 1 free"), "[]",
               "[{\"n_devices\": 2, \"n_busy\": 2}, {\"n_devices\": 2, \"n_busy\": 1}]",
               "[{\"job\": 1, \"n\": 2}, {\"job\": 2, \"n\": 1}]",
               "job 3 waits for 2 devices: 1 of 4 are free (since 60 s), held by job 1 "
               "(2), job 2 (1)");
    assert_why(QUEUED("needs 2 devices, there are 1"), "[]",
               "[{\"n_devices\": 1, \"n_busy\": 0}]", "[]",
               "job 3 waits for 2 devices at once, and all workers that are up have 1 "
               "(since 60 s)");
    assert_why(QUEUED("needs 2 devices, there are 0"), "[]", "[]", "[]",
               "job 3 waits for 2 devices, and no worker is up (since 60 s); `vneva up` "
               "or `vneva worker` starts one");
    assert_why(QUEUED("waits behind an earlier job"), "[]",
               "[{\"n_devices\": 4, \"n_busy\": 1}]", "[]",
               "job 3 waits behind an earlier job (since 60 s)");
    assert_why(
        QUEUED("attempt 2 was lost: rank 1 on n1 ended: x; next try in 1.0 s"), "[]",
        "[{\"n_devices\": 4, \"n_busy\": 1}]", "[]",
        "job 3 waits to be tried again: attempt 2 was lost: rank 1 on n1 ended: x; "
        "next try in 1.0 s (since 60 s)");
}

static void assert_why_of_pool(const char *allocations, const char *expected)
{
    struct json *job = parse(QUEUED("needs 2 devices, there are 0; waits for 2 nodes of "
                                    "pool gpu"));
    struct json *none = parse("[]");
    struct json *pool = parse("{\"submits\": \"submits nothing: it is paused\"}");
    struct json *rows = parse(allocations);
    struct why_facts facts = {.job = job,
                              .ranks = none,
                              .workers = none,
                              .holders = none,
                              .now_ms = NOW_MS,
                              .pool = pool,
                              .allocations = rows};

    assert_sentence(&facts, expected);
    json_free(job);
    json_free(none);
    json_free(pool);
    json_free(rows);
}

static void job_that_waits_for_a_pool_says_for_which_node_and_since_when(void **state)
{
    (void)state;
    assert_why_of_pool(
        "[{\"allocation\": \"11\", \"state\": \"running\", \"host\": "
        "\"n1\"}, {\"allocation\": \"12\", \"state\": \"pending\", "
        "\"reason\": \"Resources\", \"created_ms\": 700000}]",
        "job 3 needs 2 devices, there are 0; waits for 2 nodes of pool gpu "
        "(since 60 s): allocation 12 of it is pending for 5 min 00 s "
        "(Resources)");
    assert_why_of_pool(
        "[{\"allocation\": \"11\", \"state\": \"running\", \"host\": "
        "null, \"started_ms\": 980000, \"created_ms\": 1}]",
        "job 3 needs 2 devices, there are 0; waits for 2 nodes of pool gpu "
        "(since 60 s): allocation 11 of it is running for 20 s");
    assert_why_of_pool("[]", "job 3 needs 2 devices, there are 0; waits for 2 nodes of "
                             "pool gpu (since 60 s); the pool submits nothing: it is "
                             "paused");
}

#define RUNNING                                                                          \
    "{\"id\": 3, \"state\": \"running\", \"state_ms\": 1, \"n_ranks\": 2,"               \
    " \"reason\": \"\", \"done\": 40, \"total\": 100}"
#define RANK(rank, stage, since, limit, seen)                                            \
    "{\"rank\": " rank ", \"host\": \"n1\", \"device\": " rank ", \"pid\": 7" rank       \
    ", \"stage\": \"" stage "\", \"since_ms\": " since ", \"limit_ms\": " limit          \
    ", \"step\": 40, \"seen_ms\": " seen "}"
#define AT_WORK(stage, since) RANK("1", stage, since, "300000", "999900")
#define IN_REDUCE(rank, since)                                                           \
    RANK(rank, "all-reduce of group tensor", since, "0", "999900")

static void rank_that_is_slow_is_named_and_not_the_one_that_waits_for_it(void **state)
{
    (void)state;
    assert_why(RUNNING,
               "[" IN_REDUCE("0", "904000") ", " AT_WORK("forward", "905000") "]", "[]",
               "[]",
               "job 3 waits for rank 1 of 2 on n1 (device 1, process 71), which has been "
               "in forward of step 40 for 95 s; rank 0 waits for it in all-reduce of "
               "group tensor; after 5 min 00 s it counts as stuck and the attempt ends");
}

static void rank_that_hangs_in_a_collective_is_named(void **state)
{
    (void)state;
    assert_why(
        RUNNING,
        "[" IN_REDUCE("0", "904000") ", " AT_WORK("all-reduce of group tensor",
                                                  "905000") "]",
        "[]", "[]",
        "job 3 waits for rank 1 of 2 on n1 (device 1, process 71), which has been "
        "in all-reduce of group tensor of step 40 for 95 s; rank 0 waits for it in "
        "all-reduce of group tensor; after 5 min 00 s it counts as stuck and the "
        "attempt ends");
}

static void ranks_that_all_wait_are_told_with_their_group(void **state)
{
    (void)state;
    assert_why(RUNNING, "[" IN_REDUCE("0", "905000") ", " IN_REDUCE("1", "904000") "]",
               "[]", "[]",
               "job 3: all its ranks wait, rank 1 of 2 on n1 (device 1, process 71) the "
               "longest, in all-reduce of group tensor of step 40 for 96 s");
}

static void agent_that_says_nothing_comes_first(void **state)
{
    (void)state;
    assert_why(RUNNING,
               "[" IN_REDUCE("0", "905000") ", " RANK("1", "forward", "905000", "300000",
                                                      "980000") "]",
               "[]", "[]",
               "job 3 waits for a word of the agent on n1, which has rank 1 of 2 on n1 "
               "(device 1, process 71) and was silent for 20 s");
}

static void job_that_gets_on_waits_for_nothing(void **state)
{
    (void)state;
    assert_why(RUNNING,
               "[" IN_REDUCE("0", "999000") ", " AT_WORK("forward", "999500") "]", "[]",
               "[]",
               "job 3 runs and waits for nothing: 40 of 100 done, rank 1 of 2 on n1 "
               "(device 1, process 71) is in forward");
    assert_why("{\"id\": 3, \"state\": \"placed\", \"n_ranks\": 2}", "[]", "[]", "[]",
               "job 3 starts and waits for nothing");
}

static void other_states_say_since_when_and_why(void **state)
{
    (void)state;
    assert_why("{\"id\": 3, \"state\": \"failed\", \"state_ms\": 940000, \"reason\": "
               "\"2 of 9 samples rejected\"}",
               "[]", "[]", "[]", "job 3 failed (2 of 9 samples rejected) since 60 s");
    assert_why("{\"id\": 3, \"state\": \"held\", \"state_ms\": 940000, \"reason\": "
               "\"held\"}",
               "[]", "[]", "[]",
               "job 3 is held (held) since 60 s; `vneva release 3` lets it go on");
    assert_why(
        "{\"id\": 3, \"state\": \"stopping\", \"state_ms\": 995000, \"n_ranks\": 2, "
        "\"reason\": \"cancelled\"}",
        "[" AT_WORK("forward", "905000") "]", "[]", "[]",
        "job 3 is being stopped, cancelled (since 5 s): rank 1 of 2 on n1 (device "
        "1, process 71) has not ended yet");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(job_that_waits_for_a_pool_says_for_which_node_and_since_when),
        cmocka_unit_test(queued_job_says_how_many_of_what_it_waits_for_since_when),
        cmocka_unit_test(rank_that_is_slow_is_named_and_not_the_one_that_waits_for_it),
        cmocka_unit_test(rank_that_hangs_in_a_collective_is_named),
        cmocka_unit_test(ranks_that_all_wait_are_told_with_their_group),
        cmocka_unit_test(agent_that_says_nothing_comes_first),
        cmocka_unit_test(job_that_gets_on_waits_for_nothing),
        cmocka_unit_test(other_states_say_since_when_and_why),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
