/* vneva top on a terminal of its own (a pseudo terminal), and on none. */
#define _DEFAULT_SOURCE /* forkpty's struct winsize */
#include "common/base/clock.h"
#include "common/base/fs.h"
#include "tests/integration/jobs_cluster.h"
#include "tests/unit/fake_coordinator.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define DEADLINE_MS 30000
#define N_LATER 1005

/* Every question has this answer: enough of a job to be listed. */
#define ANSWER                                                                           \
    "{\"columns\": [{\"name\": \"id\"}, {\"name\": \"name\"}, {\"name\": \"state\"}],"   \
    " \"rows\": [[7, \"the-job\", \"running\"]]}"

static const struct fake_rule rules[] = {
    {.type = MSG_SELECT, .answer = MSG_TABLE, .text = ANSWER}, {.type = MSG_NONE}};

static void exec_top(const char *home, const char *terminal)
{
    char program[FS_PATH_MAX];

    if (fs_path(program, NULL, "%s/vneva", getenv("VNEVA_BIN")) == 0) {
        setenv("VNEVA_HOME", home, 1);
        setenv("TERM", terminal, 1);
        execl(program, "vneva", "top", (char *)NULL);
    }
    _exit(127);
}

/* Reads until the text has come, escape sequences and all. cluster: goes on meanwhile;
 * NULL: there is none. */
static void expect(int fd, struct buf *seen, const char *text, struct cluster *cluster)
{
    int64_t end_ms = clock_mono_ms() + DEADLINE_MS;
    char bytes[4096];

    while (clock_mono_ms() < end_ms && !strstr(buf_str(seen), text)) {
        struct pollfd wait = {.fd = fd, .events = POLLIN};
        ssize_t n;

        if (cluster)
            cluster_step(cluster, 0);
        if (poll(&wait, 1, 20) <= 0)
            continue;
        n = read(fd, bytes, sizeof(bytes));
        if (n <= 0)
            break;
        for (ssize_t i = 0; i < n; i++)
            if (bytes[i]) /* padding */
                buf_add_char(seen, bytes[i]);
    }
    if (!strstr(buf_str(seen), text))
        fail_msg("no '%s' in: %s", text, buf_str(seen));
}

static void press(int fd, const char *keys)
{
    assert_int_equal(write(fd, keys, strlen(keys)), strlen(keys));
}

/* What is still written must be read, or the program waits for room to write it. */
static int wait_for_end(int fd, pid_t pid)
{
    int64_t end_ms = clock_mono_ms() + DEADLINE_MS;
    char bytes[4096];
    int status = -1;

    fcntl(fd, F_SETFL, O_NONBLOCK);
    while (clock_mono_ms() < end_ms && waitpid(pid, &status, WNOHANG) == 0)
        if (read(fd, bytes, sizeof(bytes)) <= 0)
            poll(NULL, 0, 10);
    return status;
}

static void top_lists_jobs_and_obeys_keys_until_q(void **state)
{
    struct fake *fake = fake_start(rules);
    struct winsize size = {.ws_row = 30, .ws_col = 100};
    struct buf seen = BUF_INIT;
    pid_t pid;
    int fd;

    (void)state;
    assert_non_null(fake);
    pid = forkpty(&fd, NULL, NULL, &size);
    if (pid == 0)
        exec_top(fake_home(fake), "xterm");
    assert_true(pid > 0);
    expect(fd, &seen, "the-job", NULL);
    press(fd, "/zebra");
    expect(fd, &seen, "no job fits", NULL);
    press(fd, "\003"); /* Ctrl-C ends it wherever it is: the terminal is put right */
    assert_int_equal(wait_for_end(fd, pid), 0);
    close(fd);
    buf_fini(&seen);
    fake_stop(fake);
}

static void top_without_a_terminal_says_what_to_use_instead(void **state)
{
    struct fake *fake = fake_start(rules);
    struct buf seen = BUF_INIT;
    int pipes[2], status;
    pid_t pid;

    (void)state;
    assert_non_null(fake);
    assert_int_equal(pipe(pipes), 0);
    pid = fork();
    if (pid == 0) {
        dup2(pipes[1], STDOUT_FILENO);
        dup2(pipes[1], STDERR_FILENO);
        exec_top(fake_home(fake), "xterm");
    }
    close(pipes[1]);
    expect(pipes[0], &seen, "`vneva query jobs --watch 5`", NULL);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(WEXITSTATUS(status), EXIT_USAGE);
    close(pipes[0]);
    buf_fini(&seen);
    fake_stop(fake);
}

static void terminal_without_a_cursor_is_refused(void **state)
{
    struct fake *fake = fake_start(rules);
    struct buf seen = BUF_INIT;
    int status, fd;
    pid_t pid;

    (void)state;
    assert_non_null(fake);
    pid = forkpty(&fd, NULL, NULL, NULL);
    if (pid == 0)
        exec_top(fake_home(fake), "dumb");
    expect(fd, &seen, "cannot move its cursor", NULL);
    status = wait_for_end(fd, pid);
    assert_int_equal(WEXITSTATUS(status), EXIT_USAGE);
    close(fd);
    buf_fini(&seen);
    fake_stop(fake);
}

/* ---- against the coordinator itself ---- */

static void send_stage(struct fake_agent *agent, int64_t job)
{
    struct wire stage = {.type = MSG_RANK_STAGE};

    stage.rank_stage = (struct msg_rank_stage){.job = job,
                                               .attempt = 1,
                                               .rank = 1,
                                               .stage = "a-stage",
                                               .step = 3,
                                               .memory_bytes = 5 << 20};
    assert_int_equal(net_client_send(agent->client, &stage, NULL), 0);
}

static void top_shows_what_the_coordinator_knows_of_a_job(void **state)
{
    struct winsize size = {.ws_row = 40, .ws_col = 140};
    struct cluster cluster;
    struct fake_agent *agent;
    struct buf seen = BUF_INIT;
    int64_t job;
    pid_t pid;
    int fd;

    (void)state;
    cluster_init(&cluster);
    cluster_start(&cluster, NULL);
    job = start_training(&cluster, "test", &agent);
    send_stage(agent, job);
    for (int i = 0; i < N_LATER; i++) { /* newer ones, more than are listed */
        char id[32];

        snprintf(id, sizeof(id), "later-%d", i);
        submit_prepare(&cluster, id, 8);
    }
    /* All is there before the screen is drawn: of a change only what differs is drawn. */
    tell_two_steps(&cluster, agent, job);
    pid = forkpty(&fd, NULL, NULL, &size);
    if (pid == 0)
        exec_top(cluster.home, "xterm");
    expect(fd, &seen, "1 running, 1005 queued", &cluster);
    expect(fd, &seen, "loss 3.25", &cluster);
    expect(fd, &seen, "# compute 50%  = communication 30%  . data 20%", &cluster);
    expect(fd, &seen, "4.5 ", &cluster); /* where the curve begins */
    expect(fd, &seen, "a-stage", &cluster);
    expect(fd, &seen, "5.0 MiB", &cluster);
    press(fd, "q");
    assert_int_equal(wait_for_end(fd, pid), 0);
    close(fd);
    buf_fini(&seen);
    cluster_fini(&cluster);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(top_lists_jobs_and_obeys_keys_until_q),
        cmocka_unit_test(top_shows_what_the_coordinator_knows_of_a_job),
        cmocka_unit_test(terminal_without_a_cursor_is_refused),
        cmocka_unit_test(top_without_a_terminal_says_what_to_use_instead),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
