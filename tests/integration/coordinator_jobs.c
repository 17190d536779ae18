/* Jobs from submit to end, through the real program and scripted agents. */
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
#include <zmq.h>

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
#define TEST(name) cmocka_unit_test_setup_teardown(name, jobs_set_up, jobs_tear_down)
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
        TEST(log_is_followed_over_attempts_to_the_end),
        TEST(progress_is_shown_and_its_metrics_are_kept),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
