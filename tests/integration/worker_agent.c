/* The agent against a scripted coordinator: this program is the coordinator, runs itself
 * again as the agent, and support/fake_rank.c as its ranks.
 */
#define _GNU_SOURCE /* mkdtemp */
#include "common/base/clock.h"
#include "common/base/fs.h"
#include "common/base/log.h"
#include "common/net/net.h"
#include "worker/agent/agent.h"

#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define DEADLINE_MS 20000

struct fixture {
    char folder[64], endpoint[128];
    struct net_server *server;
    struct net_peer agent; /* who registered last */
    pid_t agent_pid;
    int n_registrations;
    char running[1024]; /* of the last registration */
};

/* ---- the agent ---- */

static int agent_main(const char *endpoint, const char *rank_program)
{
    struct agent_config config = {.endpoint = endpoint,
                                  .host = "here",
                                  .device_kind = "cpu",
                                  .n_devices = 2,
                                  .pool = "gpu",
                                  .allocation = "12",
                                  .rank_program = rank_program};
    struct agent *agent = NULL;
    struct err err = {0};
    sigset_t set;
    int rc = -1;

    log_init("agent", LOG_WARN);
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigprocmask(SIG_BLOCK, &set, NULL);
    if (agent_create(&agent, &config, &err) == 0)
        rc = agent_run(agent, &err);
    agent_destroy(agent);
    return rc < 0 ? 5 : 0;
}

static void start_agent(struct fixture *fixture)
{
    fixture->agent_pid = fork();
    if (fixture->agent_pid == 0) {
        execl("/proc/self/exe", "agent", "--agent", fixture->endpoint,
              getenv("VNEVA_FAKE_RANK"), (char *)NULL);
        _exit(127);
    }
    assert_true(fixture->agent_pid > 0);
}

/* ---- the coordinator ---- */

static void serve(struct fixture *fixture)
{
    struct err err = {0};

    if (net_server_open(&fixture->server, fixture->endpoint, &err) < 0)
        fail_msg("%s", err.text);
}

static void say(struct fixture *fixture, struct wire *message)
{
    struct err err = {0};

    assert_int_equal(net_server_send(fixture->server, &fixture->agent, message, &err), 0);
}

static void acknowledge(struct fixture *fixture, const struct wire *message)
{
    struct wire ack = {.type = MSG_ACK, .ack = {(int64_t)message->sequence}};

    say(fixture, &ack);
}

static void answer_register(struct fixture *fixture, const struct wire *message)
{
    struct wire answer = {.type = MSG_REGISTERED,
                          .reply_to = message->sequence,
                          .registered = {.heartbeat_ms = 100, .lost_after_ms = 5000}};

    fixture->n_registrations++;
    snprintf(fixture->running, sizeof(fixture->running), "%s",
             message->registration.running);
    say(fixture, &answer);
}

/* The next message of that type; registrations are answered on the way, what else comes
 * is passed over. */
static void expect(struct fixture *fixture, enum msg_type type, struct wire *message)
{
    int64_t end_ms = clock_mono_ms() + DEADLINE_MS;
    struct err err = {0};

    while (clock_mono_ms() < end_ms) {
        struct net_peer from;
        int rc = net_server_receive(fixture->server, &from, message, 200, &err);

        if (rc < 0)
            fail_msg("%s", err.text);
        if (rc == 0)
            continue;
        fixture->agent = from;
        if (message->type == MSG_REGISTER)
            answer_register(fixture, message);
        if (message->type == type)
            return;
        wire_fini(message);
    }
    *message = (struct wire){.type = MSG_NONE};
    fail_msg("%s did not come", msg_type_name(type));
}

static void expect_registration(struct fixture *fixture)
{
    struct wire message;

    expect(fixture, MSG_REGISTER, &message);
    assert_string_equal(message.registration.pool, "gpu");
    assert_string_equal(message.registration.allocation, "12");
    wire_fini(&message);
}

static void start_rank(struct fixture *fixture, int64_t rank, const char *how)
{
    struct wire message = {.type = MSG_RANK_START};

    message.rank_start = (struct msg_rank_start){.job = 7,
                                                 .attempt = 1,
                                                 .rank = rank,
                                                 .n_ranks = 1,
                                                 .kind = "prepare",
                                                 .name = "test",
                                                 .spec = how,
                                                 .folder = fixture->folder,
                                                 .resume = ""};
    say(fixture, &message);
}

static void send_peers(struct fixture *fixture)
{
    struct wire message = {.type = MSG_PEERS, .peers = {7, 1, "[\"somewhere\"]"}};

    say(fixture, &message);
}

static void start_task(struct fixture *fixture, int64_t task, int64_t first)
{
    struct wire message = {.type = MSG_TASK_START};

    message.task_start = (struct msg_task_start){.job = 7,
                                                 .attempt = 1,
                                                 .task = task,
                                                 .phase = "work",
                                                 .first = first,
                                                 .args = "{}"};
    say(fixture, &message);
}

static int setup(void **state)
{
    struct fixture *fixture = calloc(1, sizeof(*fixture));

    strcpy(fixture->folder, "/tmp/vneva-agent-XXXXXX");
    if (!mkdtemp(fixture->folder))
        return -1;
    snprintf(fixture->endpoint, sizeof(fixture->endpoint), "ipc://%s/socket",
             fixture->folder);
    serve(fixture);
    start_agent(fixture);
    expect_registration(fixture);
    *state = fixture;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *fixture = *state;

    if (fixture->agent_pid > 0) {
        kill(fixture->agent_pid, SIGKILL);
        waitpid(fixture->agent_pid, NULL, 0);
    }
    net_server_close(fixture->server);
    fs_remove_tree(fixture->folder, NULL);
    free(fixture);
    return 0;
}

/* A new coordinator at the same place, that knows nobody. */
static void restart_coordinator(struct fixture *fixture)
{
    struct wire message, unknown = {.type = MSG_UNKNOWN_AGENT, .unknown_agent = {"it"}};

    net_server_close(fixture->server);
    serve(fixture);
    expect(fixture, MSG_HEARTBEAT, &message);
    wire_fini(&message);
    say(fixture, &unknown);
    expect_registration(fixture);
}

/* ---- tests ---- */

static void agent_sends_heartbeats(void **state)
{
    struct fixture *fixture = *state;
    struct wire message;

    for (int i = 0; i < 2; i++) {
        expect(fixture, MSG_HEARTBEAT, &message);
        assert_true(strlen(message.heartbeat.agent) > 0);
        wire_fini(&message);
    }
    assert_string_equal(fixture->running, "[]");
}

static void what_a_rank_does_is_told_with_the_heartbeats(void **state)
{
    struct fixture *fixture = *state;
    struct wire message;
    int64_t step;

    start_rank(fixture, 3, "stuck");
    do { /* it takes a while to get there */
        expect(fixture, MSG_RANK_STAGE, &message);
        assert_int_equal(message.rank_stage.job, 7);
        assert_int_equal(message.rank_stage.attempt, 1);
        assert_int_equal(message.rank_stage.rank, 3);
        assert_true(message.rank_stage.for_ms >= 0);
        step = message.rank_stage.step;
        wire_fini(&message);
    } while (step != 41);
    expect(fixture, MSG_RANK_STAGE, &message);
    assert_string_equal(message.rank_stage.stage, "all-reduce of group tensor");
    assert_int_equal(message.rank_stage.limit_ms, 0);
    assert_true(message.rank_stage.memory_bytes > 0);
    wire_fini(&message);
}

static void ended_rank_is_reported_with_its_last_error(void **state)
{
    struct fixture *fixture = *state;
    struct wire message;

    start_rank(fixture, 0, "fail");
    expect(fixture, MSG_RANK_EXIT, &message);
    assert_int_equal(message.rank_exit.job, 7);
    assert_int_equal(message.rank_exit.attempt, 1);
    assert_int_equal(message.rank_exit.status, 3);
    assert_string_equal(message.rank_exit.reason, "the disk is on fire");
    acknowledge(fixture, &message);
    wire_fini(&message);
}

static void log_of_a_rank_is_kept_and_sent(void **state)
{
    struct fixture *fixture = *state;
    struct wire message;
    struct buf text = BUF_INIT;
    char path[FS_PATH_MAX];
    struct err err = {0};

    start_rank(fixture, 0, "fail");
    expect(fixture, MSG_LOG, &message);
    assert_int_equal(message.log.rank, 0);
    assert_true(message.log.data.n_bytes > 0);
    wire_fini(&message);
    expect(fixture, MSG_RANK_EXIT, &message);
    wire_fini(&message);
    assert_int_equal(
        fs_path(path, &err, "%s/logs/attempt-1-rank-0.stderr", fixture->folder), 0);
    assert_int_equal(fs_read_file(&text, path, 1 << 20, &err), 0);
    assert_non_null(strstr(buf_str(&text), "this is no error"));
    buf_fini(&text);
}

static void leases_reach_the_rank_and_results_come_back(void **state)
{
    struct fixture *fixture = *state;
    struct wire message, done = {.type = MSG_RANK_DONE, .rank_done = {7, 1}};

    start_rank(fixture, 0, "work");
    expect(fixture, MSG_RANK_READY, &message);
    assert_string_equal(message.rank_ready.endpoint, "somewhere");
    assert_true(message.rank_ready.pid > 0);
    wire_fini(&message);
    send_peers(fixture);
    start_task(fixture, 41, 1000);
    expect(fixture, MSG_TASK_DONE, &message);
    assert_int_equal(message.task_done.task, 41);
    assert_string_equal(message.task_done.result, "{\"first\": 1000}");
    acknowledge(fixture, &message);
    wire_fini(&message);
    say(fixture, &done);
    expect(fixture, MSG_RANK_EXIT, &message);
    assert_int_equal(message.rank_exit.status, 0);
    assert_string_equal(message.rank_exit.reason, "");
    wire_fini(&message);
}

static void lease_sent_twice_is_done_once(void **state)
{
    struct fixture *fixture = *state;
    struct wire message, done = {.type = MSG_RANK_DONE, .rank_done = {7, 1}};
    int64_t tasks[] = {41, 42, 43};

    start_rank(fixture, 0, "work");
    send_peers(fixture);
    start_task(fixture, 41, 0);
    start_task(fixture, 41, 0);
    start_task(fixture, 42, 1);
    send_peers(fixture);
    start_task(fixture, 41, 0);
    start_task(fixture, 43, 2);
    for (int i = 0; i < 3; i++) {
        expect(fixture, MSG_TASK_DONE, &message);
        assert_int_equal(message.task_done.task, tasks[i]);
        acknowledge(fixture, &message);
        wire_fini(&message);
    }
    say(fixture, &done);
    expect(fixture, MSG_RANK_EXIT, &message);
    wire_fini(&message);
}

static void rank_start_sent_twice_starts_one_rank(void **state)
{
    struct fixture *fixture = *state;
    struct wire message;
    int64_t pid;

    start_rank(fixture, 0, "work");
    start_rank(fixture, 0, "work");
    expect(fixture, MSG_RANK_READY, &message);
    pid = message.rank_ready.pid;
    wire_fini(&message);
    restart_coordinator(fixture);
    assert_string_equal(fixture->running, "[{\"job\":7,\"attempt\":1,\"rank\":0}]");
    expect(fixture, MSG_RANK_READY, &message); /* told again to the new coordinator */
    assert_int_equal(message.rank_ready.pid, pid);
    wire_fini(&message);
}

static void last_words_come_before_the_exit(void **state)
{
    struct fixture *fixture = *state;
    struct wire message;

    start_rank(fixture, 0, "last-words");
    send_peers(fixture);
    start_task(fixture, 41, 5);
    expect(fixture, MSG_TASK_DONE, &message); /* would be passed over were it later */
    wire_fini(&message);
    expect(fixture, MSG_RANK_EXIT, &message);
    wire_fini(&message);
}

static void durable_message_is_sent_until_acknowledged(void **state)
{
    struct fixture *fixture = *state;
    struct wire message;

    start_rank(fixture, 0, "fail");
    expect(fixture, MSG_RANK_EXIT, &message);
    wire_fini(&message); /* no ACK */
    restart_coordinator(fixture);
    assert_string_equal(fixture->running, "[{\"job\":7,\"attempt\":1,\"rank\":0}]");
    expect(fixture, MSG_RANK_EXIT, &message);
    assert_int_equal(message.rank_exit.status, 3);
    acknowledge(fixture, &message);
    wire_fini(&message);
    restart_coordinator(fixture);
    while (strcmp(fixture->running, "[]") != 0) /* the ACK may be on its way */
        restart_coordinator(fixture);
}

static void refused_message_is_dropped(void **state)
{
    struct fixture *fixture = *state;
    struct wire message, stale = {.type = MSG_ERROR, .error = {"stale", "too late"}};

    start_rank(fixture, 0, "fail");
    expect(fixture, MSG_RANK_EXIT, &message);
    stale.reply_to = message.sequence;
    say(fixture, &stale);
    wire_fini(&message);
    restart_coordinator(fixture);
    while (strcmp(fixture->running, "[]") != 0)
        restart_coordinator(fixture);
}

static void rank_that_ignores_sigterm_is_killed_after_the_grace(void **state)
{
    struct fixture *fixture = *state;
    struct wire message, stop = {.type = MSG_RANK_STOP};

    start_rank(fixture, 0, "stubborn");
    expect(fixture, MSG_RANK_READY, &message);
    wire_fini(&message);
    stop.rank_stop = (struct msg_rank_stop){7, 1, -1, 100, "test"};
    say(fixture, &stop);
    expect(fixture, MSG_RANK_EXIT, &message);
    assert_int_equal(message.rank_exit.status, 128 + SIGKILL);
    assert_non_null(strstr(message.rank_exit.reason, "signal 9"));
    wire_fini(&message);
}

static void wait_until_gone(pid_t pid)
{
    int64_t end_ms = clock_mono_ms() + DEADLINE_MS;

    while (kill(pid, 0) == 0 && clock_mono_ms() < end_ms)
        poll(NULL, 0, 10);
    assert_int_equal(kill(pid, 0), -1);
    assert_int_equal(errno, ESRCH);
}

static void no_rank_outlives_a_killed_agent(void **state)
{
    struct fixture *fixture = *state;
    struct wire message;
    pid_t pid;

    start_rank(fixture, 0, "stubborn");
    expect(fixture, MSG_RANK_READY, &message);
    pid = (pid_t)message.rank_ready.pid;
    wire_fini(&message);
    assert_int_equal(kill(pid, 0), 0);
    kill(fixture->agent_pid, SIGKILL);
    waitpid(fixture->agent_pid, NULL, 0);
    fixture->agent_pid = 0;
    wait_until_gone(pid);
}

static void agent_stop_ends_ranks_and_agent(void **state)
{
    struct fixture *fixture = *state;
    struct wire message,
        stop = {.type = MSG_AGENT_STOP, .agent_stop = {.reason = "test"}};
    int status;

    start_rank(fixture, 0, "work");
    expect(fixture, MSG_RANK_READY, &message);
    wire_fini(&message);
    say(fixture, &stop);
    expect(fixture, MSG_RANK_EXIT, &message);
    acknowledge(fixture, &message);
    wire_fini(&message);
    assert_int_equal(waitpid(fixture->agent_pid, &status, 0), fixture->agent_pid);
    fixture->agent_pid = 0;
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

/* The coordinator is told first, so that it knows why the ranks end. */
static void sigterm_is_told_before_ranks_end(void **state)
{
    struct fixture *fixture = *state;
    struct wire message, stop = {.type = MSG_RANK_STOP};
    int status;

    start_rank(fixture, 0, "work");
    expect(fixture, MSG_RANK_READY, &message);
    wire_fini(&message);
    kill(fixture->agent_pid, SIGTERM);
    expect(fixture, MSG_AGENT_ENDING, &message);
    assert_int_equal(message.agent_ending.grace_ms, 30000);
    assert_string_equal(message.agent_ending.reason, "Terminated");
    wire_fini(&message);
    stop.rank_stop = (struct msg_rank_stop){7, 1, -1, 30000, "test"};
    say(fixture, &stop);
    expect(fixture, MSG_RANK_EXIT, &message);
    acknowledge(fixture, &message);
    wire_fini(&message);
    expect(fixture, MSG_AGENT_GONE, &message);
    wire_fini(&message);
    assert_int_equal(waitpid(fixture->agent_pid, &status, 0), fixture->agent_pid);
    fixture->agent_pid = 0;
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

static void ranks_end_too_when_the_coordinator_does_not_say_so(void **state)
{
    struct fixture *fixture = *state;
    struct wire message;

    start_rank(fixture, 0, "work");
    expect(fixture, MSG_RANK_READY, &message);
    wire_fini(&message);
    kill(fixture->agent_pid, SIGTERM);
    expect(fixture, MSG_RANK_EXIT, &message);
    wire_fini(&message);
}

static void variables_of_the_agent_do_not_hide_those_of_a_rank(void **state)
{
    struct fixture *fixture = *state;
    struct wire message;

    kill(fixture->agent_pid, SIGKILL);
    waitpid(fixture->agent_pid, NULL, 0);
    setenv("VNEVA_AGENT_FD", "99", 1);
    start_agent(fixture);
    unsetenv("VNEVA_AGENT_FD");
    expect_registration(fixture);
    start_rank(fixture, 0, "work");
    expect(fixture, MSG_RANK_READY, &message);
    wire_fini(&message);
}

static void rank_program_that_is_not_there_is_an_exit(void **state)
{
    struct fixture *fixture = *state;
    struct wire message;

    kill(fixture->agent_pid, SIGKILL);
    waitpid(fixture->agent_pid, NULL, 0);
    setenv("VNEVA_FAKE_RANK", "/nowhere/vneva-rank", 1);
    start_agent(fixture);
    expect_registration(fixture);
    start_rank(fixture, 0, "work");
    expect(fixture, MSG_RANK_EXIT, &message);
    assert_int_equal(message.rank_exit.status, 127);
    assert_string_equal(message.rank_exit.reason, "cannot execute /nowhere/vneva-rank");
    wire_fini(&message);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        TEST(agent_sends_heartbeats),
        TEST(what_a_rank_does_is_told_with_the_heartbeats),
        TEST(ended_rank_is_reported_with_its_last_error),
        TEST(log_of_a_rank_is_kept_and_sent),
        TEST(leases_reach_the_rank_and_results_come_back),
        TEST(lease_sent_twice_is_done_once),
        TEST(rank_start_sent_twice_starts_one_rank),
        TEST(last_words_come_before_the_exit),
        TEST(durable_message_is_sent_until_acknowledged),
        TEST(refused_message_is_dropped),
        TEST(rank_that_ignores_sigterm_is_killed_after_the_grace),
        TEST(no_rank_outlives_a_killed_agent),
        TEST(agent_stop_ends_ranks_and_agent),
        TEST(sigterm_is_told_before_ranks_end),
        TEST(ranks_end_too_when_the_coordinator_does_not_say_so),
        TEST(variables_of_the_agent_do_not_hide_those_of_a_rank),
        TEST(
            rank_program_that_is_not_there_is_an_exit), /* last: changes VNEVA_FAKE_RANK */
    };

    if (argc == 4 && strcmp(argv[1], "--agent") == 0)
        return agent_main(argv[2], argv[3]);
    if (argc == 2)
        setenv("VNEVA_FAKE_RANK", argv[1], 1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
