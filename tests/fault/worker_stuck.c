/* A rank that hangs, outside of decoders: it is named with what it was
 * doing while the others wait for it in a collective, and the job goes on without it. And
 * one that cannot write its checkpoints. */
#include "common/base/clock.h"
#include "tests/integration/worker_home.h"

#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define N_DEVICES 2

/* Checkpoints after 4, 8 and 12 steps of two micro batches each. */
static const char *const training[] = {
    "trainer.devices=2", "model.tensor_model_parallel_size=2",
    "trainer.val_check_interval=1000", "stuck_after_s=4", NULL};

struct stuck {
    struct home home;
    char dataset[128];
};

static void ask(struct stuck *stuck, char *out, size_t n_bytes, const char *sql)
{
    home_ask(&stuck->home, out, n_bytes, sql);
}

static void wait_for(struct stuck *stuck, const char *sql, const char *expected)
{
    int64_t end_ms = clock_mono_ms() + HOME_DEADLINE_MS;
    char text[512] = "";

    while (clock_mono_ms() < end_ms) {
        ask(stuck, text, sizeof(text), sql);
        if (strcmp(text, expected) == 0)
            return;
        poll(NULL, 0, 20);
    }
    fail_msg("%s: %s, not %s", sql, text, expected);
}

/* What `vneva why 2` says. */
static void ask_why(struct stuck *stuck, char *out, size_t n_bytes)
{
    char command[512];
    size_t n;
    FILE *pipe;

    snprintf(command, sizeof(command), "VNEVA_HOME=%s %s/vneva why 2", stuck->home.folder,
             getenv("VNEVA_BIN"));
    pipe = popen(command, "r"); /* NOLINT(cert-env33-c): a test's own command */
    assert_non_null(pipe);
    n = fread(out, 1, n_bytes - 1, pipe);
    out[n] = '\0';
    pclose(pipe);
}

static void wait_for_why(struct stuck *stuck, const char *one, const char *two)
{
    int64_t end_ms = clock_mono_ms() + HOME_DEADLINE_MS;
    char text[512] = "";

    while (clock_mono_ms() < end_ms) {
        ask_why(stuck, text, sizeof(text));
        if (strstr(text, one) && strstr(text, two))
            return;
        poll(NULL, 0, 20);
    }
    fail_msg("%s, not %s ... %s", text, one, two);
}

/* ---- one hang ---- */

/* The agent, and so its ranks, have the fault point; the coordinator has not. */
static void start(struct stuck *stuck, const char *fault)
{
    home_init(&stuck->home, N_DEVICES);
    home_kill(&stuck->home.agent);
    setenv("VNEVA_FAULT", fault, 1);
    home_start_agent(&stuck->home, N_DEVICES);
    unsetenv("VNEVA_FAULT");
    home_prepare(&stuck->home, NULL, stuck->dataset, sizeof(stuck->dataset));
    assert_int_equal(home_submit_training(&stuck->home, stuck->dataset, training), 2);
}

/* victim hangs in stage; the other rank is meanwhile in `other`. */
static void expect_named(const char *fault, int victim, const char *stage,
                         const char *other)
{
    struct stuck stuck;
    char text[512], sql[256], said[128];

    start(&stuck, fault);
    snprintf(
        sql, sizeof(sql),
        "select group_concat(stage, ', ') from (select * from ranks where job = 2 and"
        " attempt = 1 order by rank = %d desc)",
        victim);
    snprintf(said, sizeof(said), "%s, %s", stage, other);
    wait_for(&stuck, sql, said);
    snprintf(sql, sizeof(sql), "job 2 waits for rank %d of 2 on ", victim);
    snprintf(said, sizeof(said), "which has been in %s of step 8 for ", stage);
    wait_for_why(&stuck, sql, said);
    home_wait_done(&stuck.home, 2);
    ask(&stuck, text, sizeof(text),
        "select cause || ': ' || reason from attempts where job = 2 and attempt = 1");
    snprintf(said, sizeof(said), "lost: rank %d on ", victim);
    if (strncmp(text, said, strlen(said)) != 0)
        fail_msg("%s, not %s", text, said);
    snprintf(said, sizeof(said), "is stuck: it has been in %s for ", stage);
    if (!strstr(text, said))
        fail_msg("%s, not %s", text, said);
    snprintf(sql, sizeof(sql),
             "select count(*) from events where job = 2 and kind = 'rank' and text like"
             " 'attempt 1: rank %d on %% ended: killed by signal 9%%'",
             victim);
    ask(&stuck, text, sizeof(text), sql);
    assert_string_equal(text, "1");
    /* Not from the beginning: step 8 was the last checkpoint. */
    ask(&stuck, text, sizeof(text),
        "select count(*) from tasks where job = 2 and attempt = 2");
    assert_string_equal(text, "1");
    ask(&stuck, text, sizeof(text),
        "select attempt || ' attempts, ' || (select count(*) from checkpoints where"
        " job = 2) || ' checkpoints' from jobs where id = 2");
    assert_string_equal(text, "2 attempts, 3 checkpoints");
    ask(&stuck, text, sizeof(text),
        "select ended_ms - (select max(time_ms) from events where kind = 'stuck')"
        " from attempts where job = 2 and attempt = 1");
    print_message("the devices were free %s ms after the rank was named\n", text);
    home_fini(&stuck.home);
}

static void rank_that_hangs_in_the_forward_pass_is_named(void **state)
{
    (void)state;
    expect_named("rank1.forward:hang@17", 1, "forward", "all-reduce of group tensor");
}

/* Both are in it: only one of them gives signs that it waits. */
static void rank_that_hangs_in_a_collective_is_named(void **state)
{
    (void)state;
    expect_named("rank1.all-reduce:hang@165", 1, "all-reduce of group tensor",
                 "all-reduce of group tensor");
}

static void rank_that_hangs_in_the_optimizer_is_named(void **state)
{
    (void)state;
    expect_named("rank0.optimizer:hang@9", 0, "optimizer", "all-reduce of group tensor");
}

/* Four attempts come within 7 s: the job outlives a disk that is full as long. */
static void job_whose_checkpoints_cannot_be_written_waits_for_room(void **state)
{
    struct stuck stuck;

    (void)state;
    start(&stuck, "checkpoint.tensors:fail");
    wait_for(&stuck,
             "select count(*) from attempts where job = 2 and reason like '%cannot save "
             "checkpoint%' and state = 'ended'",
             "3");
    home_kill(&stuck.home.agent);
    home_start_agent(&stuck.home, N_DEVICES);
    home_wait_done(&stuck.home, 2);
    home_fini(&stuck.home);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rank_that_hangs_in_the_forward_pass_is_named),
        cmocka_unit_test(rank_that_hangs_in_a_collective_is_named),
        cmocka_unit_test(rank_that_hangs_in_the_optimizer_is_named),
        cmocka_unit_test(job_whose_checkpoints_cannot_be_written_waits_for_room),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
