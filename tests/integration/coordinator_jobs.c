/* Jobs from submit to end, through the real program and scripted agents. */
#include "common/base/clock.h"
#include "tests/integration/cluster.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include <cmocka.h>
#include <zmq.h>

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

/* ---- requests ---- */

/* Sends a request; returns its error's text or "" for an answer. */
static const char *ask(struct cluster *cluster, struct wire *request, struct err *err)
{
    struct wire reply;

    err_clear(err);
    if (cluster_call(cluster, request, &reply, err) == 0)
        wire_fini(&reply);
    return err->text;
}

static void submit_twice_with_one_request_id_makes_one_job(void **state)
{
    struct cluster *cluster = *state;
    int64_t job = submit_prepare(cluster, "same", 10);
    struct json *rows;

    assert_int_equal(submit_prepare(cluster, "same", 10), job);
    assert_int_not_equal(submit_prepare(cluster, "other", 10), job);
    rows = cluster_rows(cluster, "jobs", 0);
    assert_int_equal(json_count(rows), 2);
    json_free(rows);
}

static void wrong_requests_are_answered_with_their_error(void **state)
{
    struct cluster *cluster = *state;
    struct wire submit = {.type = MSG_SUBMIT}, cancel = {.type = MSG_CANCEL};
    struct wire query = {.type = MSG_QUERY}, release = {.type = MSG_RELEASE};
    struct wire peers = {.type = MSG_PEERS, .peers = {1, 1, "[]"}};
    int64_t job = submit_prepare(cluster, "r", 10);
    struct err err;

    submit.submit = (struct msg_submit){"r2", "prepare", "n", "{\"kind\": \"bake\"}"};
    assert_non_null(strstr(ask(cluster, &submit, &err), "bake"));
    submit.submit = (struct msg_submit){"", "prepare", "n", "{}"};
    assert_non_null(strstr(ask(cluster, &submit, &err), "invalid: "));
    cancel.cancel = (struct msg_cancel){99, ""};
    assert_non_null(strstr(ask(cluster, &cancel, &err), "not-found: "));
    query.query = (struct msg_query){"secrets", 0, 0, 0};
    assert_non_null(strstr(ask(cluster, &query, &err), "invalid: no view"));
    release.release.job = job;
    assert_non_null(strstr(ask(cluster, &release, &err), "state: "));
    assert_non_null(strstr(ask(cluster, &peers, &err), "invalid: "));
}

/* A text cut inside a character would not pass as a message: nobody would be answered. */
static void long_texts_are_cut_between_characters(void **state)
{
    struct cluster *cluster = *state;
    struct wire query = {.type = MSG_QUERY}, cancel = {.type = MSG_CANCEL};
    int64_t job = submit_prepare(cluster, "r", 10);
    char text[1024];
    struct err err;

    text[0] = 'x';
    for (size_t i = 1; i < sizeof(text); i++)
        text[i] = i % 2 ? '\xC3' : '\xA9';
    text[sizeof(text) - 1] = '\0';
    query.query = (struct msg_query){text, 0, 0, 0};
    assert_non_null(strstr(ask(cluster, &query, &err), "invalid: no view"));
    cancel.cancel = (struct msg_cancel){job, text + 1};
    assert_string_equal(ask(cluster, &cancel, &err), "");
    query.query = (struct msg_query){"job", job, 0, 0};
    assert_string_equal(ask(cluster, &query, &err), "");
    query.query = (struct msg_query){"events", job, 0, 0};
    assert_string_equal(ask(cluster, &query, &err), "");
}

/* It could be stored, but no rank could ever be told of it. */
static void spec_that_no_rank_could_be_sent_is_refused(void **state)
{
    struct cluster *cluster = *state;
    struct wire submit = {.type = MSG_SUBMIT};
    size_t n_bytes = 200 << 10;
    char *spec = malloc(n_bytes);
    struct err err;

    assert_non_null(spec);
    spec_prepare(spec, n_bytes, 10);
    memset(spec + strlen(spec), ' ', n_bytes - strlen(spec)); /* JSON may end so */
    spec[n_bytes - 1] = '\0';
    submit.submit = (struct msg_submit){"big", "prepare", "n", spec};
    assert_non_null(strstr(ask(cluster, &submit, &err), "limit: a spec has at most"));
    free(spec);
}

static void job_that_waits_says_why(void **state)
{
    struct cluster *cluster = *state;
    int64_t job = submit_train(cluster, "r", 10, 10, 2);
    int64_t deadline_ms = clock_mono_ms() + CLUSTER_DEADLINE_MS;
    char reason[256];

    cluster_add_agent(cluster, 1, 0);
    do {
        cluster_step(cluster, 1);
        cluster_job_text(cluster, job, "reason", reason, sizeof(reason));
    } while (strcmp(reason, "needs 2 devices, there are 1") != 0 &&
             clock_mono_ms() < deadline_ms);
    assert_string_equal(reason, "needs 2 devices, there are 1");
    cluster_add_agent(cluster, 1, 0); /* two nodes together can */
    cluster_wait_job(cluster, job, "done");
}

/* Sends raw frames as any process of the user could; expects one ERROR. */
static void expect_error(void *socket, const char *const *frames, size_t n_frames)
{
    char answer[1024];
    struct wire message;
    struct err err;
    int n;

    for (size_t i = 0; i < n_frames; i++)
        assert_true(zmq_send(socket, frames[i], strlen(frames[i]),
                             i + 1 < n_frames ? ZMQ_SNDMORE : 0) >= 0);
    n = zmq_recv(socket, answer, sizeof(answer), 0);
    assert_true(n > 0);
    assert_int_equal(wire_decode(&message, answer, (size_t)n, NULL, &err), 0);
    assert_int_equal(message.type, MSG_ERROR);
    assert_string_equal(message.error.code, "format");
    wire_fini(&message);
}

static void malformed_frames_are_answered_with_an_error(void **state)
{
    struct cluster *cluster = *state;
    const char *const garbage[] = {"\xdd\xff\xff\xff\xff"}, *const text[] = {"hello"};
    const char *const empty[] = {""}, *const several[] = {"", "a", "b"};
    const int deadline_ms = CLUSTER_DEADLINE_MS, linger_ms = 0;
    void *context = zmq_ctx_new(), *socket = zmq_socket(context, ZMQ_DEALER);

    zmq_setsockopt(socket, ZMQ_RCVTIMEO, &deadline_ms, sizeof(deadline_ms));
    zmq_setsockopt(socket, ZMQ_LINGER, &linger_ms, sizeof(linger_ms));
    assert_int_equal(zmq_connect(socket, cluster->endpoint), 0);
    expect_error(socket, garbage, 1);
    expect_error(socket, text, 1);
    expect_error(socket, empty, 1);
    expect_error(socket, several, 3);
    zmq_close(socket);
    zmq_ctx_term(context);
    submit_prepare(cluster, "still alive", 10);
}

/* ---- stopping ---- */

static bool has_kept_task(struct cluster *cluster, void *context)
{
    (void)context;
    for (int a = 0; a < cluster->n_agents; a++)
        for (int i = 0; i < AGENT_RANKS_MAX; i++) {
            const struct fake_rank *rank = &cluster->agents[a].ranks[i];

            if (rank->is_used && !rank->is_ended && rank->n_tasks > 0 &&
                strcmp(rank->tasks[0].phase, "work") == 0 &&
                rank->tasks[0].first >= cluster->agents[a].keep_from)
                return true;
        }
    return false;
}

/* A training job of 40 steps that has its first 20 done and sits on the rest. */
static int64_t start_and_keep(struct cluster *cluster, struct fake_agent **agent)
{
    int64_t job = submit_train(cluster, "kept", 40, 10, 2);

    *agent = cluster_add_agent(cluster, 2, 0);
    (*agent)->script = SCRIPT_KEEP;
    (*agent)->keep_from = 20;
    assert_true(cluster_wait(cluster, has_kept_task, NULL));
    return job;
}

static void cancel_of_running_job_stops_it_first(void **state)
{
    struct cluster *cluster = *state;
    struct wire cancel = {.type = MSG_CANCEL};
    struct fake_agent *agent;
    int64_t job = start_and_keep(cluster, &agent);
    char text[64];
    struct err err;

    agent->ignores_stop = true;
    cancel.cancel = (struct msg_cancel){job, "not needed"};
    assert_string_equal(ask(cluster, &cancel, &err), "");
    cluster_job_text(cluster, job, "state", text, sizeof(text));
    assert_string_equal(text, "stopping");
    assert_string_equal(ask(cluster, &cancel, &err), ""); /* twice is fine */
    agent->script = SCRIPT_DIE; /* the ranks end in their own time */
    agent->ignores_stop = false;
    cluster_wait_job(cluster, job, "cancelled");
    cluster_job_text(cluster, job, "reason", text, sizeof(text));
    assert_string_equal(text, "not needed");
    assert_non_null(strstr(ask(cluster, &cancel, &err), "job 1 is cancelled"));
}

static void cancel_of_queued_job_ends_it_at_once(void **state)
{
    struct cluster *cluster = *state;
    struct wire cancel = {.type = MSG_CANCEL};
    int64_t job = submit_prepare(cluster, "r", 10);
    char text[64];
    struct err err;

    cancel.cancel = (struct msg_cancel){job, ""};
    assert_string_equal(ask(cluster, &cancel, &err), "");
    cluster_job_text(cluster, job, "state", text, sizeof(text));
    assert_string_equal(text, "cancelled");
}

static void held_job_goes_on_from_its_checkpoint_when_released(void **state)
{
    struct cluster *cluster = *state;
    struct wire hold = {.type = MSG_HOLD}, release = {.type = MSG_RELEASE};
    struct fake_agent *agent;
    int64_t job = start_and_keep(cluster, &agent);
    struct err err;

    hold.hold.job = release.release.job = job;
    assert_string_equal(ask(cluster, &hold, &err), "");
    cluster_wait_job(cluster, job, "held");
    assert_int_equal(agent->last_stop_grace_ms, 30000);
    assert_string_equal(ask(cluster, &release, &err), "");
    assert_true(cluster_wait(cluster, has_kept_task, NULL));
    assert_non_null(strstr(agent->ranks[0].resume, "step-20"));
    agent->script = SCRIPT_WORK;
    cluster_wait_job(cluster, job, "done");
    assert_int_equal(job_int(cluster, job, "attempt"), 2);
}

/* ---- losing ---- */

static bool rank_has_died(struct cluster *cluster, void *context)
{
    (void)cluster;
    return ((struct fake_agent *)context)->n_pending == 0 &&
           ((struct fake_agent *)context)->ranks[0].is_ended;
}

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
    struct wire shutdown = {.type = MSG_SHUTDOWN, .shutdown = {"test"}};
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

/* ---- logs, metrics ---- */

static void send_log(struct fake_agent *agent, const char *text)
{
    struct wire log = {.type = MSG_LOG};

    log.log = (struct msg_log){
        agent->ranks[0].job, agent->ranks[0].attempt, 0, {text, strlen(text)}};
    assert_int_equal(net_client_send(agent->client, &log, NULL), 0);
}

/* Appends what there is from *attempt, *next on; true at the end of the job. */
static bool follow_log(struct cluster *cluster, int64_t job, int64_t rank,
                       int64_t *attempt, int64_t *next, struct buf *text)
{
    struct wire request = {.type = MSG_LOGS}, reply;
    struct err err = {ERR_NONE, ""};
    bool is_end;

    request.logs = (struct msg_logs){job, *attempt, rank, *next, 7};
    if (cluster_call(cluster, &request, &reply, &err) < 0)
        fail_msg("%s", err.text);
    buf_add(text, reply.log_chunk.data.data, reply.log_chunk.data.n_bytes);
    *attempt = reply.log_chunk.attempt;
    *next = reply.log_chunk.next;
    is_end = reply.log_chunk.is_end;
    wire_fini(&reply);
    return is_end;
}

/* What stands before the end of the newest attempt's log, so many bytes of it. */
static void expect_end_of_log(struct cluster *cluster, int64_t job, int64_t n_bytes,
                              const char *text)
{
    struct wire request = {.type = MSG_LOGS}, reply;
    struct err err = {ERR_NONE, ""};

    request.logs = (struct msg_logs){.job = job, .offset = -n_bytes};
    if (cluster_call(cluster, &request, &reply, &err) < 0)
        fail_msg("%s", err.text);
    assert_int_equal(reply.log_chunk.data.n_bytes, strlen(text));
    assert_memory_equal(reply.log_chunk.data.data, text, strlen(text));
    assert_int_equal(reply.log_chunk.attempt, 2);
    assert_int_equal(reply.log_chunk.next, strlen("second attempt\n"));
    wire_fini(&reply);
}

static void log_is_followed_over_attempts_to_the_end(void **state)
{
    struct cluster *cluster = *state;
    struct fake_agent *agent;
    int64_t job = start_and_keep(cluster, &agent), attempt = 1, next = 0;
    int64_t deadline_ms = clock_mono_ms() + CLUSTER_DEADLINE_MS;
    struct buf text = BUF_INIT;

    send_log(agent, "first attempt\n");
    agent->script = SCRIPT_DIE;
    cluster_wait(cluster, rank_has_died, agent);
    agent->script = SCRIPT_KEEP;
    assert_true(cluster_wait(cluster, has_kept_task, NULL));
    send_log(agent, "second attempt\n");
    agent->script = SCRIPT_WORK;
    while (!follow_log(cluster, job, 0, &attempt, &next, &text))
        assert_true(clock_mono_ms() < deadline_ms);
    assert_string_equal(buf_str(&text), "first attempt\nsecond attempt\n");
    expect_end_of_log(cluster, job, 8, "attempt\n");
    expect_end_of_log(cluster, job, 800, "second attempt\n");
    buf_reset(&text);
    attempt = next = 0;
    while (!follow_log(cluster, job, -1, &attempt, &next, &text))
        assert_true(clock_mono_ms() < deadline_ms);
    assert_non_null(strstr(buf_str(&text), "job 1 is done"));
    buf_fini(&text);
}

static bool has_metrics(struct cluster *cluster, void *context)
{
    struct json *rows = cluster_rows(cluster, "metrics", *(int64_t *)context);
    size_t count = json_count(rows);

    json_free(rows);
    return count == 2;
}

static void progress_is_shown_and_its_metrics_are_kept(void **state)
{
    struct cluster *cluster = *state;
    struct fake_agent *agent;
    int64_t job = start_and_keep(cluster, &agent);
    struct wire progress = {.type = MSG_PROGRESS};
    struct json *rows;

    for (int64_t step = 21; step <= 22; step++) {
        progress.progress = (struct msg_progress){job,
                                                  agent->ranks[0].attempt,
                                                  0,
                                                  agent->ranks[0].tasks[0].id,
                                                  "forward",
                                                  step,
                                                  step,
                                                  40,
                                                  "{\"loss\": 1.5}"};
        assert_int_equal(net_client_send(agent->client, &progress, NULL), 0);
    }
    assert_true(cluster_wait(cluster, has_metrics, &job));
    assert_int_equal(job_int(cluster, job, "done"), 22);
    assert_int_equal(job_int(cluster, job, "total"), 40);
    agent->script = SCRIPT_DIE; /* back to the checkpoint, not to the beginning */
    cluster_wait(cluster, rank_has_died, agent);
    agent->script = SCRIPT_KEEP;
    assert_true(cluster_wait(cluster, has_kept_task, NULL));
    assert_int_equal(job_int(cluster, job, "done"), 20);
    rows = cluster_rows(cluster, "job", job);
    assert_true(json_get_double(json_get(json_at(rows, 0), "metrics"), "loss", 0) == 1.5);
    json_free(rows);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(batch_job_runs_plan_work_finish),
        TEST(training_job_runs_from_checkpoint_to_checkpoint),
        TEST(submit_twice_with_one_request_id_makes_one_job),
        TEST(wrong_requests_are_answered_with_their_error),
        TEST(long_texts_are_cut_between_characters),
        TEST(spec_that_no_rank_could_be_sent_is_refused),
        TEST(malformed_frames_are_answered_with_an_error),
        TEST(job_that_waits_says_why),
        TEST(cancel_of_running_job_stops_it_first),
        TEST(cancel_of_queued_job_ends_it_at_once),
        TEST(held_job_goes_on_from_its_checkpoint_when_released),
        TEST(lost_rank_ends_the_attempt_and_the_next_resumes),
        TEST(attempts_without_progress_fail_the_job_with_the_last_reason),
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
        TEST(agent_that_leaves_blames_nobody),
        TEST(second_coordinator_of_a_home_is_refused),
        TEST(log_is_followed_over_attempts_to_the_end),
        TEST(progress_is_shown_and_its_metrics_are_kept),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
