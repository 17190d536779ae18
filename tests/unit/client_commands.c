/* Every command against a scripted coordinator: what it asks, prints and returns. */
#include "client_help.h"

#include "jobs/client/format.h"

#define JOB_RUNNING                                                                      \
    "[{\"id\": 3, \"name\": \"demo\", \"kind\": \"pretrain\", \"state\": \"running\", "  \
    "\"reason\": \"\", \"attempt\": 2, \"done\": 42, \"total\": 100, "                   \
    "\"submitted_ms\": 1700000000000, \"started_ms\": 1700000001000, "                   \
    "\"ended_ms\": null, \"metrics\": {\"loss\": 2.5, \"lr\": 0.001}, "                  \
    "\"tasks\": {\"ready\": 1, \"done\": 4}, "                                           \
    "\"folder\": \"/h/jobs/3\", \"ranks\": [{\"pid\": 0}, {\"pid\": 77}], "              \
    "\"checkpoints\": [{\"step\": 40, \"path\": \"/c/40\"}]}]"
#define JOB_DONE                                                                         \
    "[{\"id\": 3, \"name\": \"demo\", \"kind\": \"pretrain\", \"state\": \"done\", "     \
    "\"reason\": \"\", \"attempt\": 2, \"done\": 100, \"total\": 100, "                  \
    "\"result\": {\"answer\": 42}}]"

/* ---- words and options ---- */

static void wrong_words_get_the_nearest_right_one(void **state)
{
    (void)state;
    assert_run(no_rules, W("statsu"), EXIT_USAGE, NULL, "did you mean 'status'?");
    assert_run(no_rules, W("qqqqqqq"), EXIT_USAGE, NULL, "`vneva help` lists them");
    assert_run(no_rules, W("status", "--jsn"), EXIT_USAGE, NULL,
               "did you mean '--json'?");
    assert_run(no_rules, W("status", "-x"), EXIT_USAGE, NULL, "no option '-x'");
    assert_run(no_rules, W("status", "--json=3"), EXIT_USAGE, NULL, "takes no value");
    assert_run(no_rules, W("wait", "3", "--timeout"), EXIT_USAGE, NULL, "needs a value");
    assert_run(no_rules, W("wait", "3", "--timeout", "soon"), EXIT_USAGE, NULL,
               "expected a whole number");
    assert_run(no_rules, W("show"), EXIT_USAGE, NULL, "usage: vneva show JOB");
    assert_run(no_rules, W("show", "three"), EXIT_USAGE, NULL, "number of a job");
    assert_run(no_rules, W("show", "0"), EXIT_USAGE, NULL, "number of a job");
    assert_run(no_rules, W("submit", "--kind", "pretrian", "x.yaml"), EXIT_USAGE, NULL,
               "did you mean 'pretrain'?");
}

static void every_command_has_help_with_example_and_exit_codes(void **state)
{
    (void)state;
    for (const struct command *c = client_commands; c->name; c++) {
        struct said said = client_says("/nonexistent", W("help", c->name));

        assert_int_equal(said.status, EXIT_DONE);
        assert_says(said.out, "Example: vneva ");
        assert_says(said.out, "Exit codes: 0 done");
        assert_says(said.out, c->summary);
        for (const struct args_option *o = c->options; o && o->name; o++)
            assert_says(said.out, o->name);
        said_fini(&said);
        if (c->max_words < 0)
            continue; /* --help goes to the other program */
        said = client_says("/nonexistent", W(c->name, "--help"));
        assert_int_equal(said.status, EXIT_DONE);
        assert_says(said.out, "Example: vneva ");
        said_fini(&said);
    }
}

static void nobody_there_is_exit_3_and_names_up(void **state)
{
    static const char *const asking[][3] = {
        {"status"},    {"show", "1"},    {"logs", "1"},   {"cancel", "1"},
        {"hold", "1"}, {"workers"},      {"events", "1"}, {"report", "1"},
        {"wait", "1"}, {"release", "1"}, {"checkpoints"}, {"why", "1"},
        {"top"},       {"query", "jobs"}};

    (void)state;
    for (size_t i = 0; i < sizeof(asking) / sizeof(asking[0]); i++) {
        struct said said = client_says("/nonexistent", W(asking[i][0], asking[i][1]));

        assert_int_equal(said.status, EXIT_NOBODY);
        assert_says(said.err, "`vneva up`");
        assert_string_equal(said.out, "");
        said_fini(&said);
    }
}

static void version_and_overview_need_no_coordinator(void **state)
{
    (void)state;
    assert_run(no_rules, W("version"), EXIT_DONE, "vneva 0.", NULL);
    assert_run(no_rules, W("help"), EXIT_DONE, "VNEVA_HOME", NULL);
    assert_run(no_rules, W("--help"), EXIT_DONE, "submit", NULL);
    assert_run(no_rules, W("help", "upp"), EXIT_USAGE, NULL, "did you mean 'up'?");
    assert_run(no_rules, W("submit", "--keys"), EXIT_DONE, "model.optim.lr: number",
               NULL);
}

/* ---- lists ---- */

static void status_is_a_table_or_json(void **state)
{
    static const struct fake_rule rules[] = {FAKE_ROWS("jobs", JOB_RUNNING),
                                             {.type = MSG_NONE}};
    static const struct fake_rule none[] = {FAKE_ROWS(NULL, "[]"), {.type = MSG_NONE}};

    (void)state;
    assert_run(rules, W("status"), EXIT_DONE, "running  42% 42/100", NULL);
    assert_run(rules, W("status"), EXIT_DONE, "JOB  KIND      NAME  STATE", NULL);
    assert_run(rules, W("status", "--json"), EXIT_DONE, "\"state\": \"running\"", NULL);
    assert_run(none, W("status"), EXIT_DONE, "no jobs", NULL);
    assert_run(none, W("status", "--json"), EXIT_DONE, "[]", NULL);
}

static void status_hides_old_ended_jobs_without_all(void **state)
{
    struct buf rows = BUF_INIT;
    struct fake_rule rules[] = {{.type = MSG_QUERY, .answer = MSG_ROWS},
                                {.type = MSG_NONE}};
    struct said said;

    (void)state;
    buf_add_str(&rows, "[{\"id\": 1, \"name\": \"old-run\", \"state\": \"running\"}");
    for (int i = 2; i < 20; i++)
        buf_printf(&rows, ", {\"id\": %d, \"name\": \"job-%d\", \"state\": \"done\"}", i,
                   i);
    buf_add_str(&rows, "]");
    rules[0].text = buf_str(&rows);
    said = run(rules, W("status"));
    assert_says(said.out, "old-run"); /* not ended: always there */
    assert_says(said.out, "job-19");
    assert_says(said.out, "job-10");
    assert_null(strstr(said.out, "job-9 "));
    said_fini(&said);
    said = run(rules, W("status", "--all"));
    assert_says(said.out, "job-2 ");
    said_fini(&said);
    buf_fini(&rows);
}

static void workers_checkpoints_and_events_are_listed(void **state)
{
    static const struct fake_rule rules[] = {
        FAKE_ROWS("workers", "[{\"id\": 1, \"agent\": \"a-1\", \"host\": \"h\\u0007\", "
                             "\"n_devices\": 2, \"n_busy\": 1, \"device_kind\": \"cpu\", "
                             "\"state\": \"up\", \"last_seen_ms\": 1}]"),
        FAKE_ROWS("checkpoints",
                  "[{\"id\": 1, \"job\": 3, \"step\": 40, \"path\": \"/c/40\", "
                  "\"consumed_samples\": 160, \"val_loss\": 1.25, \"is_kept\": 1}]"),
        FAKE_ROWS("job", JOB_RUNNING),
        FAKE_ROWS("events",
                  "[{\"id\": 1, \"job\": 3, \"ms\": 1700000000000, \"kind\": \"rank\", "
                  "\"text\": \"rank 1 died\"}]"),
        {.type = MSG_NONE}};

    (void)state;
    assert_run(rules, W("workers"), EXIT_DONE, "a-1    h?    cpu      1 of 2  up", NULL);
    assert_run(rules, W("checkpoints", "3"), EXIT_DONE, "1.2500  yes", NULL);
    assert_run(rules, W("checkpoints", "--json"), EXIT_DONE, "\"path\": \"/c/40\"", NULL);
    assert_run(rules, W("events", "3"), EXIT_DONE, "rank  rank 1 died", NULL);
    assert_run(rules, W("events", "3", "--json"), EXIT_DONE, "\"kind\": \"rank\"", NULL);
}

static void show_tells_all_about_a_job(void **state)
{
    static const struct fake_rule rules[] = {
        FAKE_ROWS("job", JOB_RUNNING),
        FAKE_ROWS("attempts",
                  "[{\"id\": 1, \"attempt\": 1, \"state\": \"ended\", "
                  "\"cause\": \"lost\", \"reason\": \"rank 1 killed\", \"n_ranks\": 2, "
                  "\"started_ms\": 1000, \"ended_ms\": 4000}]"),
        FAKE_ROWS("metrics",
                  "[{\"id\": 1, \"step\": 10, \"rank\": 0, \"json\": {\"step_ms\": 100, "
                  "\"wait_ms\": 5, \"samples_per_s\": 40}}]"),
        {.type = MSG_NONE}};
    static const struct fake_rule missing[] = {
        {.type = MSG_QUERY, .answer = MSG_ERROR, .code = "not-found", .text = "no job 9"},
        {.type = MSG_NONE}};

    (void)state;
    assert_run(rules, W("show", "3"), EXIT_DONE, "progress     42 of 100 (42%)", NULL);
    assert_run(rules, W("show", "3"), EXIT_DONE, "loss=2.5 lr=0.001", NULL);
    assert_run(rules, W("show", "3"), EXIT_DONE, "newest of step 40: /c/40", NULL);
    assert_run(rules, W("show", "3"), EXIT_DONE, "rank 1 killed", NULL);
    assert_run(rules, W("show", "3"), EXIT_DONE, "data_wait_share=0.05", NULL);
    assert_run(rules, W("show", "3", "--json"), EXIT_DONE, "\"attempt\": 2", NULL);
    assert_run(rules, W("show", "3", "--field", "checkpoints.0.step"), EXIT_DONE, "40\n",
               NULL);
    assert_run(rules, W("show", "3", "--field", "ranks.1.pid"), EXIT_DONE, "77\n", NULL);
    assert_run(rules, W("show", "3", "--field", "ranks.0.pid"), EXIT_DONE, "null\n",
               NULL); /* not known yet */
    assert_run(rules, W("show", "3", "--field", "nothing"), EXIT_USAGE, NULL,
               "no field 'nothing'");
    assert_run(missing, W("show", "9"), EXIT_USAGE, NULL, "no job 9");
}

/* ---- logs, wishes, waiting ---- */

static void logs_are_read_to_their_end(void **state)
{
    static const struct fake_rule rules[] = {
        {.type = MSG_LOGS, .times = 1, .answer = MSG_LOG_CHUNK, .text = "one\n", .a = 1},
        {.type = MSG_LOGS, .times = 1, .answer = MSG_LOG_CHUNK, .text = "", .a = 1},
        {.type = MSG_LOGS, .times = 1, .answer = MSG_LOG_CHUNK, .text = "two\n", .a = 2},
        {.type = MSG_LOGS, .answer = MSG_LOG_CHUNK, .text = "", .a = 2, .b = 1},
        {.type = MSG_NONE}};
    struct fake *fake = fake_start(rules);
    struct said said;

    (void)state;
    assert_run(rules, W("logs", "3"), EXIT_DONE, "one\n", NULL); /* without -f: no wait */
    said = client_says(fake_home(fake), W("logs", "-f", "3", "--rank", "-1"));
    assert_int_equal(said.status, EXIT_DONE);
    assert_string_equal(said.out, "one\ntwo\n");
    assert_says(said.err, "== attempt 2 ==");
    assert_int_equal(fake_asked(fake, 0)->logs.rank, -1);
    assert_int_equal(fake_asked(fake, 1)->logs.offset, 4);
    assert_int_equal(fake_asked(fake, 3)->logs.attempt, 2);
    said_fini(&said);
    fake_stop(fake);
}

static void logs_of_a_rank_that_is_not_there_are_refused(void **state)
{
    static const struct fake_rule rules[] = {
        {.type = MSG_LOGS, .answer = MSG_LOG_CHUNK, .text = "", .a = 1, .b = 1},
        {.type = MSG_QUERY,
         .view = "job",
         .answer = MSG_ROWS,
         .text = "[{\"id\": 3, \"n_ranks\": 2}]"},
        {.type = MSG_NONE}};

    (void)state;
    assert_run(rules, W("logs", "3", "--rank", "1"), EXIT_DONE, NULL, NULL);
    assert_run(rules, W("logs", "3", "--rank", "2"), EXIT_USAGE, NULL,
               "job 3 has no rank 2: its attempts have 2, from 0");
}

static void wishes_are_passed_on_for_each_job(void **state)
{
    static const struct fake_rule rules[] = {{.type = MSG_CANCEL, .answer = MSG_OK},
                                             {.type = MSG_HOLD,
                                              .answer = MSG_ERROR,
                                              .code = "state",
                                              .text = "job 3 has ended"},
                                             {.type = MSG_RELEASE, .answer = MSG_OK},
                                             {.type = MSG_NONE}};
    struct fake *fake = fake_start(rules);
    struct said said = client_says(fake_home(fake),
                                   W("cancel", "3", "x", "4", "--reason", "wrong data"));

    (void)state;
    assert_int_equal(said.status, EXIT_USAGE); /* of "x"; the others were asked */
    assert_says(said.out, "job 3 is being cancelled\njob 4 is being cancelled\n");
    assert_int_equal(fake_asked(fake, 1)->cancel.job, 4);
    assert_string_equal(fake_asked(fake, 1)->cancel.reason, "wrong data");
    said_fini(&said);
    fake_stop(fake);
    assert_run(rules, W("hold", "3"), EXIT_REFUSED, NULL, "job 3 has ended");
    assert_run(rules, W("release", "3"), EXIT_DONE, "job 3 is released", NULL);
}

static const struct fake_rule running[] = {FAKE_ROWS(NULL, JOB_RUNNING),
                                           {.type = MSG_NONE}};

static void wait_follows_a_job_to_its_end(void **state)
{
    static const struct fake_rule done[] = {
        {.type = MSG_QUERY, .times = 2, .answer = MSG_ROWS, .text = JOB_RUNNING},
        FAKE_ROWS(NULL, JOB_DONE),
        {.type = MSG_NONE}};
    static const struct fake_rule failed[] = {FAKE_ROWS(NULL, JOB_FAILED),
                                              {.type = MSG_NONE}};

    (void)state;
    assert_run(done, W("wait", "3"), EXIT_DONE, "job 3 done\n",
               "job 3 running  42% 42/100  loss 2.5000");
    assert_run(failed, W("wait", "3"), EXIT_JOB_FAILED,
               "job 3 failed: 2 of 9 samples rejected\n", NULL);
}

static void wait_until_leaves_when_so_much_is_done(void **state)
{
    (void)state;
    assert_run(running, W("wait", "3", "--until", "42"), EXIT_DONE, "", NULL);
    assert_run(running, W("wait", "3", "--until", "43", "--timeout", "0"),
               EXIT_JOB_FAILED, NULL, "has not ended");
}

static void wait_gives_up_at_its_timeout_and_the_job_goes_on(void **state)
{
    (void)state;
    assert_run(running, W("wait", "3", "--timeout", "0"), EXIT_JOB_FAILED, NULL,
               "job 3 has not ended; it goes on");
}

static void interrupt_leaves_the_job_running(void **state)
{
    (void)state;
    interrupt_next_run();
    assert_run(running, W("wait", "3"), EXIT_INTERRUPTED, NULL, "job 3 goes on");
}

/* ---- the rest ---- */

static void up_says_when_it_runs_already(void **state)
{
    static const struct fake_rule rules[] = {
        {.type = MSG_PING, .answer = MSG_PONG},
        FAKE_ROWS("workers", "[{\"id\": 1, \"state\": \"lost\"}, {\"id\": 2, \"state\": "
                             "\"up\", \"device_kind\": \"cpu\", \"n_devices\": 2}]"),
        {.type = MSG_NONE}};
    struct fake *fake;
    struct said said;

    (void)state;
    assert_run(rules, W("up"), EXIT_DONE, "runs already", NULL);
    assert_run(rules, W("up", "--devices", "3"), EXIT_DONE, "runs already",
               "--devices 3 is not taken: its agent has 2 CPU ranks");
    fake = fake_start(rules);
    said = client_says(fake_home(fake), W("up", "--devices", "2"));
    assert_string_equal(said.err, "");
    said_fini(&said);
    fake_stop(fake);
    assert_run(rules, W("up", "--devices", "0"), EXIT_USAGE, NULL, "from 1 to 64");
}

static void a_home_that_is_closed_is_named(void **state)
{
    struct said said = client_says("/dev/null", W("status")); /* no folder */

    (void)state;
    assert_int_equal(said.status, EXIT_NOBODY);
    assert_says(said.err, "the home '/dev/null' cannot be used: ");
    said_fini(&said);
}

static void up_says_why_a_program_did_not_start(void **state)
{
    char home[] = "/tmp/vneva-up-XXXXXX";
    struct said said;

    (void)state;
    assert_non_null(mkdtemp(home));
    said = client_says(home, W("up")); /* the programs' folder does not exist */
    assert_int_equal(said.status, EXIT_SYSTEM);
    assert_says(said.err, "the coordinator ended at once");
    assert_says(said.err, "cannot run '/nonexistent/vneva-coordinator'");
    said_fini(&said);
    said = client_says(home, W("down"));
    assert_int_equal(said.status, EXIT_DONE);
    assert_says(said.out, "nothing runs");
    said_fini(&said);
    fs_remove_tree(home, NULL);
}

static void other_programs_that_are_missing_are_named(void **state)
{
    (void)state;
    assert_run(no_rules, W("data", "--help"), EXIT_SYSTEM, NULL,
               "/nonexistent/vneva-data");
    assert_run(no_rules, W("worker"), EXIT_SYSTEM, NULL, "/nonexistent/vneva-worker");
    assert_run(no_rules, W("coordinator"), EXIT_SYSTEM, NULL, "vneva-coordinator");
}

/* Words that do not fit are never dropped: they may be files of data. */
static void too_many_words_for_another_program_are_refused(void **state)
{
    const char *words[ARGS_WORDS_MAX + 3] = {"data"};

    (void)state;
    for (int i = 1; i <= ARGS_WORDS_MAX + 1; i++)
        words[i] = "x.jsonl";
    assert_run(no_rules, words, EXIT_USAGE, NULL, "more than 4096 words");
}

static void numbers_are_written_for_people(void **state)
{
    struct buf text = BUF_INIT;

    (void)state;
    format_duration(&text, 59400);
    format_duration(&text, 3600000);
    format_bytes(&text, 1536);
    format_count(&text, 13186068480);
    format_count(&text, 512);
    assert_string_equal(buf_str(&text), "59 s1 h 00 min1.5 KiB13.2 B512");
    buf_fini(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(wrong_words_get_the_nearest_right_one),
        cmocka_unit_test(every_command_has_help_with_example_and_exit_codes),
        cmocka_unit_test(nobody_there_is_exit_3_and_names_up),
        cmocka_unit_test(version_and_overview_need_no_coordinator),
        cmocka_unit_test(status_is_a_table_or_json),
        cmocka_unit_test(status_hides_old_ended_jobs_without_all),
        cmocka_unit_test(workers_checkpoints_and_events_are_listed),
        cmocka_unit_test(show_tells_all_about_a_job),
        cmocka_unit_test(logs_are_read_to_their_end),
        cmocka_unit_test(logs_of_a_rank_that_is_not_there_are_refused),
        cmocka_unit_test(wishes_are_passed_on_for_each_job),
        cmocka_unit_test(wait_follows_a_job_to_its_end),
        cmocka_unit_test(wait_until_leaves_when_so_much_is_done),
        cmocka_unit_test(wait_gives_up_at_its_timeout_and_the_job_goes_on),
        cmocka_unit_test(interrupt_leaves_the_job_running),
        cmocka_unit_test(up_says_when_it_runs_already),
        cmocka_unit_test(a_home_that_is_closed_is_named),
        cmocka_unit_test(up_says_why_a_program_did_not_start),
        cmocka_unit_test(other_programs_that_are_missing_are_named),
        cmocka_unit_test(too_many_words_for_another_program_are_refused),
        cmocka_unit_test(numbers_are_written_for_people),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
