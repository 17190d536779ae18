/* Ranks, agents and coordinators that are lost or leave: what happens to their jobs. */
#include "common/base/clock.h"
#include "tests/integration/jobs_cluster.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include <cmocka.h>

/* ---- losing ---- */

static void lost_rank_ends_the_attempt_and_the_next_resumes(void **state)
{
    struct cluster *cluster = *state;
    struct fake_agent *agent;
    int64_t job = start_and_keep(cluster, &agent);
    struct json *rows;

    agent->script = SCRIPT_DIE;
    cluster_wait(cluster, rank_has_died, agent);
    agent->script = SCRIPT_WORK;
    cluster_wait_job(cluster, job, "done");
    rows = cluster_rows(cluster, "attempts", job);
    assert_int_equal(json_count(rows), 2);
    assert_string_equal(json_get_string(json_at(rows, 0), "cause"), "lost");
    assert_non_null(
        strstr(json_get_string(json_at(rows, 0), "reason"), "killed by signal 9"));
    assert_string_equal(json_get_string(json_at(rows, 1), "cause"), "done");
    json_free(rows);
    rows = cluster_rows(cluster, "checkpoints", job);
    assert_int_equal(json_count(rows), 4); /* none twice */
    json_free(rows);
}

static void attempts_without_progress_fail_the_job_with_the_last_reason(void **state)
{
    struct cluster *cluster = *state;
    int64_t job = submit_train(cluster, "r", 10, 10, 1);
    struct fake_agent *agent = cluster_add_agent(cluster, 1, 0);
    char reason[512];

    agent->script = SCRIPT_DIE;
    cluster_wait_job(cluster, job, "failed");
    cluster_job_text(cluster, job, "reason", reason, sizeof(reason));
    assert_non_null(strstr(reason, "5 attempts without progress"));
    assert_non_null(strstr(reason, "killed by signal 9"));
    assert_int_equal(job_int(cluster, job, "attempt"), 5);
}

/* One more try, for another node may see the file that was missing. */
static void bad_input_fails_the_job_at_its_second_attempt(void **state)
{
    struct cluster *cluster = *state;
    int64_t job = submit_train(cluster, "r", 10, 10, 1);
    struct fake_agent *agent = cluster_add_agent(cluster, 1, 0);
    char reason[512];

    agent->script = SCRIPT_REFUSE;
    cluster_wait_job(cluster, job, "failed");
    cluster_job_text(cluster, job, "reason", reason, sizeof(reason));
    assert_non_null(strstr(reason, "2 attempts without progress; the last: rank 0"));
    assert_non_null(strstr(reason, "bad input"));
    assert_int_equal(job_int(cluster, job, "attempt"), 2);
}

static void task_that_fails_three_times_is_quarantined_and_named(void **state)
{
    struct cluster *cluster = *state;
    int64_t job = submit_prepare(cluster, "r", 10);
    struct fake_agent *agent = cluster_add_agent(cluster, 1, 30);
    struct json *rows, *tasks;
    char reason[512];

    agent->script = SCRIPT_FAIL;
    agent->keep_from = 20;
    cluster_wait_job(cluster, job, "failed");
    cluster_job_text(cluster, job, "reason", reason, sizeof(reason));
    assert_string_equal(reason, "task 4 (work 20..29) failed 3 times: bad sample");
    rows = cluster_rows(cluster, "job", job);
    tasks = json_get(json_at(rows, 0), "tasks");
    assert_int_equal(json_get_int(tasks, "quarantined", -1), 1);
    assert_int_equal(json_get_int(tasks, "done", -1), 3); /* the others were done */
    json_free(rows);
}

static void task_that_kills_its_rank_three_times_is_quarantined(void **state)
{
    struct cluster *cluster = *state;
    int64_t job = submit_prepare(cluster, "r", 10);
    struct fake_agent *agent = cluster_add_agent(cluster, 1, 30);
    char reason[512];

    agent->script = SCRIPT_DIE;
    agent->keep_from = 20;
    cluster_wait_job(cluster, job, "failed");
    cluster_job_text(cluster, job, "reason", reason, sizeof(reason));
    assert_non_null(strstr(reason, "task 4 (work 20..29) failed 3 times: rank 0"));
}

static void
tasks_of_a_silent_agent_go_elsewhere_and_its_late_result_is_refused(void **state)
{
    struct cluster *cluster = *state;
    int64_t job = submit_prepare(cluster, "r", 10), deadline_ms;
    struct fake_agent *silent = cluster_add_agent(cluster, 1, 30), *other;
    struct json *rows;

    silent->script = SCRIPT_KEEP;
    silent->keep_from = 10;
    assert_true(cluster_wait(cluster, has_kept_task, NULL));
    silent->is_silent = true;
    other = cluster_add_agent(cluster, 1, 30);
    cluster_wait_job(cluster, job, "done");
    assert_true(other->n_done > 0);
    silent->is_silent = false; /* it comes back and reports what it had */
    silent->script = SCRIPT_WORK;
    deadline_ms = clock_mono_ms() + CLUSTER_DEADLINE_MS;
    while (clock_mono_ms() < deadline_ms &&
           (!silent->is_registered || silent->n_pending || silent->ranks[0].is_used))
        cluster_step(cluster, 1);
    assert_string_equal(silent->last_error, "stale");
    assert_int_equal(silent->n_pending, 0); /* settled all the same */
    rows = cluster_rows(cluster, "tasks", job);
    for (size_t i = 0; i < json_count(rows); i++)
        assert_string_equal(json_get_string(json_at(rows, i), "state"), "done");
    json_free(rows);
}

static void checkpoint_inside_a_range_splits_it(void **state)
{
    struct cluster *cluster = *state;
    struct fake_agent *agent;
    int64_t job = start_and_keep(cluster, &agent);
    struct wire done = {.type = MSG_TASK_DONE};
    struct json *rows;

    done.task_done = (struct msg_task_done){
        job, agent->ranks[0].attempt, agent->ranks[0].tasks[0].id,
        "{\"checkpoint\": {\"path\": \"/c/23\", \"step\": 23, \"consumed_samples\": 1}}"};
    assert_int_equal(net_client_send(agent->client, &done, NULL), 0);
    agent->script = SCRIPT_DIE;
    agent->keep_from = 30;
    cluster_wait(cluster, rank_has_died, agent);
    agent->script = SCRIPT_WORK;
    cluster_wait_job(cluster, job, "done");
    rows = cluster_rows(cluster, "checkpoints", job);
    assert_int_equal(json_count(rows), 5); /* 10 20 23 30 40 */
    assert_int_equal(json_get_int(json_at(rows, 2), "step", -1), 23);
    assert_int_equal(json_get_int(json_at(rows, 3), "step", -1), 30);
    json_free(rows);
}

/* A job of 40 steps whose rank goes on from a checkpoint of this step and sits on the first
 * lease it has to work for. */
static int64_t start_in_earlier_run(struct cluster *cluster, struct fake_agent **agent,
                                    int64_t step)
{
    int64_t job = submit_train(cluster, "earlier", 40, 10, 2);

    *agent = cluster_add_agent(cluster, 2, 0);
    (*agent)->begins_at = step;
    (*agent)->script = SCRIPT_KEEP;
    (*agent)->keep_from = step / 10 * 10;
    assert_true(cluster_wait(cluster, has_kept_task, NULL));
    return job;
}

/* The rank dies before it has a checkpoint of its own. */
static void lost_rank_goes_on_from_the_earlier_run(void **state)
{
    struct cluster *cluster = *state;
    struct fake_agent *agent;
    int64_t job = start_in_earlier_run(cluster, &agent, 13);

    agent->script = SCRIPT_DIE;
    cluster_wait(cluster, rank_has_died, agent);
    agent->script = SCRIPT_KEEP;
    assert_true(cluster_wait(cluster, has_kept_task, NULL));
    assert_string_equal(agent->ranks[0].resume, "/ckpt/old/step-13");
    agent->script = SCRIPT_WORK;
    cluster_wait_job(cluster, job, "done");
}

/* Two leases are done without work, the third begins inside; a restart changes nothing. */
static void steps_of_an_earlier_run_are_counted_once(void **state)
{
    struct cluster *cluster = *state;
    struct fake_agent *agent;
    int64_t job = start_in_earlier_run(cluster, &agent, 23);
    struct json *rows;

    cluster_kill(cluster, SIGKILL);
    cluster_start(cluster, NULL);
    agent->script = SCRIPT_WORK;
    cluster_wait_job(cluster, job, "done");
    rows = cluster_rows(cluster, "checkpoints", job);
    assert_int_equal(json_count(rows), 3); /* 23, 30, 40 */
    assert_int_equal(json_get_int(json_at(rows, 0), "step", -1), 23);
    assert_int_equal(json_get_int(json_at(rows, 0), "consumed_samples", -1), 23 * 8);
    assert_int_equal(json_get_int(json_at(rows, 1), "step", -1), 30);
    json_free(rows);
    assert_int_equal(job_int(cluster, job, "done"), 40);
}

/* Waits until the job's first task has a reason, of its failure. */
static void wait_for_reason(struct cluster *cluster, int64_t job, char out[512])
{
    int64_t deadline_ms = clock_mono_ms() + CLUSTER_DEADLINE_MS;

    out[0] = '\0';
    while (!out[0] && clock_mono_ms() < deadline_ms) {
        struct json *rows = cluster_rows(cluster, "tasks", job);
        const char *reason = json_get_string(json_at(rows, 0), "reason");

        snprintf(out, 512, "%s", reason ? reason : "");
        json_free(rows);
    }
}

static void earlier_steps_behind_the_checkpoint_are_refused(void **state)
{
    struct cluster *cluster = *state;
    struct fake_agent *agent = cluster_add_agent(cluster, 2, 0);
    struct wire done = {.type = MSG_TASK_DONE};
    int64_t job;
    char reason[512];

    agent->script = SCRIPT_KEEP;
    job = submit_train(cluster, "r", 40, 10, 2);
    assert_true(cluster_wait(cluster, has_kept_task, NULL));
    done.task_done =
        (struct msg_task_done){job, agent->ranks[0].attempt, agent->ranks[0].tasks[0].id,
                               "{\"earlier\": {\"path\": \"/old\", \"step\": 9}}"};
    assert_int_equal(net_client_send(agent->client, &done, NULL), 0);
    wait_for_reason(cluster, job, reason);
    assert_string_equal(reason, "checkpoint of step 9 for earlier steps up to 10");
    agent->script = SCRIPT_WORK; /* the job itself goes on */
    cluster_wait_job(cluster, job, "done");
}

/* ---- restarts ---- */

static void restart_leaves_running_attempts_alone(void **state)
{
    struct cluster *cluster = *state;
    struct fake_agent *agent;
    int64_t job = start_and_keep(cluster, &agent);

    cluster_kill(cluster, SIGTERM);
    cluster_start(cluster, NULL);
    agent->script = SCRIPT_WORK;
    cluster_wait_job(cluster, job, "done");
    assert_int_equal(job_int(cluster, job, "attempt"), 1);
}

static void attempt_whose_agent_does_not_come_back_is_retried(void **state)
{
    struct cluster *cluster = *state;
    struct fake_agent *agent;
    int64_t job = start_and_keep(cluster, &agent);

    cluster_kill(cluster, SIGKILL);
    agent_close(agent);
    cluster_start(cluster, NULL);
    cluster_add_agent(cluster, 2, 0);
    cluster_wait_job(cluster, job, "done");
    assert_int_equal(job_int(cluster, job, "attempt"), 2);
}

static bool coordinator_has_ended(struct cluster *cluster, void *context)
{
    int status = cluster_reap(cluster, false);

    (void)context;
    return status == 0;
}

static void shutdown_ends_agents_and_the_job_goes_on_at_the_next_start(void **state)
{
    struct cluster *cluster = *state;
    struct wire shutdown = {.type = MSG_SHUTDOWN, .shutdown = {.reason = "test"}};
    struct fake_agent *agent;
    int64_t job = start_and_keep(cluster, &agent);
    struct err err;

    assert_string_equal(ask(cluster, &shutdown, &err), "");
    assert_true(cluster_wait(cluster, coordinator_has_ended, NULL));
    assert_true(agent->is_stopped);
    agent_close(agent);
    cluster_start(cluster, NULL);
    cluster_add_agent(cluster, 2, 0);
    cluster_wait_job(cluster, job, "done");
    assert_int_equal(job_int(cluster, job, "attempt"), 2);
}

static void after_shutdown_the_coordinator_waits_for_a_last_question(void **state)
{
    struct cluster *cluster = *state;
    struct wire lingering = {.type = MSG_SHUTDOWN, .shutdown = {"test", 0, 60000}};
    struct wire over = {.type = MSG_SHUTDOWN, .shutdown = {"test", 0, 0}};
    struct fake_agent *agent;
    int64_t job = start_and_keep(cluster, &agent);
    struct err err;

    assert_string_equal(ask(cluster, &lingering, &err), "");
    cluster_wait_job(cluster, job, "queued");
    agent_close(agent);
    for (int i = 0; i < 10; i++)
        cluster_step(cluster, 100);
    assert_int_equal(cluster_reap(cluster, false), -1);
    assert_int_equal(job_int(cluster, job, "attempt"), 1); /* it still answers */
    assert_string_equal(ask(cluster, &over, &err), "");
    assert_true(cluster_wait(cluster, coordinator_has_ended, NULL));
}

static void coordinator_without_work_waits_for_it_too(void **state)
{
    struct cluster *cluster = *state;
    struct wire lingering = {.type = MSG_SHUTDOWN, .shutdown = {"test", 0, 60000}};
    struct wire over = {.type = MSG_SHUTDOWN, .shutdown = {"test", 0, 0}};
    struct err err;

    assert_string_equal(ask(cluster, &lingering, &err), "");
    for (int i = 0; i < 10; i++)
        cluster_step(cluster, 100);
    assert_int_equal(cluster_reap(cluster, false), -1);
    assert_string_equal(ask(cluster, &over, &err), "");
    assert_true(cluster_wait(cluster, coordinator_has_ended, NULL));
}

static bool worker_is_gone(struct cluster *cluster, void *context)
{
    struct json *rows = cluster_rows(cluster, "workers", 0);
    const char *state = json_get_string(json_at(rows, 0), "state");
    bool is_gone = state && strcmp(state, "gone") == 0;

    (void)context;
    json_free(rows);
    return is_gone;
}

/* Sent by the agent that has the attempt's ranks: they stop, with the grace it has, and
 * go on elsewhere, and nothing was lost or counts as failed. */
static void agent_that_leaves_blames_nobody(void **state)
{
    struct cluster *cluster = *state;
    struct wire ending = {.type = MSG_AGENT_ENDING,
                          .agent_ending = {"time is over", 7000}};
    struct wire gone = {.type = MSG_AGENT_GONE, .agent_gone = {"time is over"}};
    struct fake_agent *agent, *other;
    int64_t job = start_and_keep(cluster, &agent);
    struct json *rows;
    char text[256];

    agent->ignores_stop = true;
    assert_int_equal(net_client_send(agent->client, &ending, NULL), 0);
    other = cluster_add_agent(cluster, 2, 0);
    cluster_wait_job(cluster, job, "stopping");
    agent->script = SCRIPT_DIE; /* its ranks end in their own time */
    agent->ignores_stop = false;
    cluster_wait_job(cluster, job, "done");
    assert_int_equal(agent->last_stop_grace_ms, 7000);
    assert_true(other->n_done > 0);
    rows = cluster_rows(cluster, "attempts", job);
    assert_int_equal(json_count(rows), 2);
    assert_string_equal(json_get_string(json_at(rows, 0), "cause"), "stopped");
    snprintf(text, sizeof(text), "%s", json_get_string(json_at(rows, 0), "reason"));
    assert_non_null(strstr(text, "ends: time is over"));
    json_free(rows);
    assert_int_equal(net_client_send(agent->client, &gone, NULL), 0);
    assert_true(cluster_wait(cluster, worker_is_gone, NULL));
}

static void second_coordinator_of_a_home_is_refused(void **state)
{
    struct cluster *cluster = *state, second = *cluster;
    int status;

    submit_prepare(cluster, "r", 10); /* the first one listens */
    second.pid = 0;
    cluster_start(&second, NULL);
    status = cluster_reap(&second, true);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 4);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, jobs_set_up, jobs_tear_down)
    const struct CMUnitTest tests[] = {
        TEST(lost_rank_ends_the_attempt_and_the_next_resumes),
        TEST(attempts_without_progress_fail_the_job_with_the_last_reason),
        TEST(bad_input_fails_the_job_at_its_second_attempt),
        TEST(task_that_fails_three_times_is_quarantined_and_named),
        TEST(task_that_kills_its_rank_three_times_is_quarantined),
        TEST(tasks_of_a_silent_agent_go_elsewhere_and_its_late_result_is_refused),
        TEST(checkpoint_inside_a_range_splits_it),
        TEST(lost_rank_goes_on_from_the_earlier_run),
        TEST(steps_of_an_earlier_run_are_counted_once),
        TEST(earlier_steps_behind_the_checkpoint_are_refused),
        TEST(restart_leaves_running_attempts_alone),
        TEST(attempt_whose_agent_does_not_come_back_is_retried),
        TEST(shutdown_ends_agents_and_the_job_goes_on_at_the_next_start),
        TEST(after_shutdown_the_coordinator_waits_for_a_last_question),
        TEST(coordinator_without_work_waits_for_it_too),
        TEST(agent_that_leaves_blames_nobody),
        TEST(second_coordinator_of_a_home_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
