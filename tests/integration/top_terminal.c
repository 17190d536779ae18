/* vneva top on a terminal of its own (a pseudo terminal), and on none. */
#define _DEFAULT_SOURCE /* forkpty's struct winsize */
#include "common/base/clock.h"
#include "common/base/fs.h"
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

/* Every question has this answer: enough of a job to be listed. */
#define ANSWER                                                                           \
    "{\"columns\": [{\"name\": \"id\"}, {\"name\": \"name\"}, {\"name\": \"state\"}],"   \
    " \"rows\": [[7, \"the-job\", \"running\"]]}"

static const struct fake_rule rules[] = {
    {.type = MSG_SELECT, .answer = MSG_TABLE, .text = ANSWER}, {.type = MSG_NONE}};

static void exec_top(const char *home)
{
    char program[FS_PATH_MAX];

    if (fs_path(program, NULL, "%s/vneva", getenv("VNEVA_BIN")) == 0) {
        setenv("VNEVA_HOME", home, 1);
        setenv("TERM", "xterm", 1);
        execl(program, "vneva", "top", (char *)NULL);
    }
    _exit(127);
}

/* Reads until the text has come, escape sequences and all. */
static void expect(int fd, struct buf *seen, const char *text)
{
    int64_t end_ms = clock_mono_ms() + DEADLINE_MS;
    char bytes[4096];

    while (clock_mono_ms() < end_ms && !strstr(buf_str(seen), text)) {
        struct pollfd wait = {.fd = fd, .events = POLLIN};
        ssize_t n;

        if (poll(&wait, 1, 100) <= 0)
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
    buf_reset(seen);
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
        exec_top(fake_home(fake));
    assert_true(pid > 0);
    expect(fd, &seen, "the-job");
    press(fd, "/zebra");
    expect(fd, &seen, "no job fits");
    press(fd, "\r");
    press(fd, "\003"); /* Ctrl-C ends it as q does: the terminal is put right */
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
        exec_top(fake_home(fake));
    }
    close(pipes[1]);
    expect(pipes[0], &seen, "`vneva query jobs --watch 5`");
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(WEXITSTATUS(status), EXIT_USAGE);
    close(pipes[0]);
    buf_fini(&seen);
    fake_stop(fake);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(top_lists_jobs_and_obeys_keys_until_q),
        cmocka_unit_test(top_without_a_terminal_says_what_to_use_instead),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
