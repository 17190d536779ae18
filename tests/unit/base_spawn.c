/* Child processes: what they get, what is heard of them, and how they are ended. */
#include "common/base/clock.h"
#include "common/base/spawn.h"

#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define PATIENT_MS 60000
#define SHORT_MS 50
#define LOOK_MS 2

static int run_words(struct spawn_said *said, const char *const *argv, int64_t timeout_ms,
                     struct err *err)
{
    struct spawn how = {.argv = argv, .err_fd = -1};

    return spawn_run(said, &how, timeout_ms, err);
}

static int run_script(struct spawn_said *said, const char *script, int64_t timeout_ms,
                      struct err *err)
{
    const char *const argv[] = {"sh", "-c", script, NULL};

    return run_words(said, argv, timeout_ms, err);
}

static void program_is_found_heard_and_its_status_told(void **state)
{
    struct spawn_said said;

    (void)state;
    assert_int_equal(
        run_script(&said, "echo one; echo two >&2; exit 7", PATIENT_MS, NULL), 0);
    assert_int_equal(said.status, 7);
    assert_string_equal(buf_str(&said.out), "one\n");
    assert_string_equal(buf_str(&said.errors), "two\n");
    spawn_said_fini(&said);
    assert_int_equal(run_script(&said, "kill -9 $$", PATIENT_MS, NULL), 0);
    assert_int_equal(said.status, 128 + SIGKILL);
    spawn_said_fini(&said);
}

/* As what a daemon with such a setting starts is born; it lasts over exec. */
static void status_is_told_where_ended_children_were_ignored(void **state)
{
    struct spawn_said said;

    (void)state;
    (void)signal(SIGCHLD, SIG_IGN);
    assert_int_equal(run_script(&said, "exit 7", PATIENT_MS, NULL), 0);
    assert_int_equal(said.status, 7);
    spawn_said_fini(&said);
}

static void program_that_is_not_there_is_told_of(void **state)
{
    const char *const missing[] = {"vneva-no-such-program", NULL};
    const char *const folder[] = {"/", NULL};
    struct spawn_said said;
    struct err err;

    (void)state;
    assert_int_equal(run_words(&said, missing, PATIENT_MS, &err), -1);
    assert_int_equal(err.code, ERR_NOT_FOUND);
    assert_non_null(strstr(err.text, "cannot run 'vneva-no-such-program'"));
    spawn_said_fini(&said);
    assert_int_equal(run_words(&said, folder, PATIENT_MS, &err), -1);
    assert_int_equal(err.code, ERR_IO);
    spawn_said_fini(&said);
}

static void program_that_hangs_is_killed_at_its_deadline(void **state)
{
    struct spawn_said said;
    struct err err;

    (void)state;
    assert_int_equal(run_script(&said, "echo $$; exec sleep 1000", SHORT_MS, &err), -1);
    assert_int_equal(err.code, ERR_TIMEOUT);
    assert_string_equal(err.text,
                        "'sh' did not end within 0.05 s and was killed; run it by "
                        "hand to see what it waits for");
    spawn_said_fini(&said);
}

/* Nothing is left to hear of it, and still it runs. */
static void program_that_closes_its_outputs_and_hangs_is_killed_too(void **state)
{
    struct spawn_said said;
    struct err err;

    (void)state;
    assert_int_equal(run_script(&said, "exec sleep 1000 >&- 2>&-", SHORT_MS, &err), -1);
    assert_int_equal(err.code, ERR_TIMEOUT);
    spawn_said_fini(&said);
}

static void program_that_says_too_much_is_ended(void **state)
{
    const char *const argv[] = {"cat", "/dev/zero", NULL};
    struct spawn_said said;
    struct err err;

    (void)state;
    assert_int_equal(run_words(&said, argv, PATIENT_MS, &err), -1);
    assert_int_equal(err.code, ERR_LIMIT);
    assert_true(said.out.n_bytes <= SPAWN_TEXT_MAX);
    spawn_said_fini(&said);
}

static void answer_then_hang(void *state)
{
    if (write(STDOUT_FILENO, state, strlen(state)) < 0)
        return;
    for (;;)
        pause();
}

static void what_late_work_had_said_is_kept(void **state)
{
    const char *const argv[] = {"work", NULL};
    char text[] = "so far";
    struct spawn how = {
        .argv = argv, .err_fd = STDERR_FILENO, .work = answer_then_hang, .state = text};
    bool is_heard = false;

    (void)state;
    /* on a busy machine it may not have begun in so short a time */
    for (int64_t ms = SHORT_MS; !is_heard && ms < PATIENT_MS; ms *= 2) {
        struct spawn_said said;
        struct err err;

        assert_int_equal(spawn_run(&said, &how, ms, &err), -1);
        assert_int_equal(err.code, ERR_TIMEOUT);
        is_heard = strcmp(buf_str(&said.out), text) == 0;
        spawn_said_fini(&said);
    }
    assert_true(is_heard);
}

static void variables_replace_those_of_the_environment(void **state)
{
    const char *const argv[] = {"printenv", "VNEVA_SPAWN", "VNEVA_OTHER", NULL};
    const char *const variables[] = {"VNEVA_SPAWN=ours", NULL};
    struct spawn how = {.argv = argv, .variables = variables, .err_fd = STDERR_FILENO};
    struct spawn_said said;

    (void)state;
    setenv("VNEVA_SPAWN", "theirs", 1);
    setenv("VNEVA_OTHER", "kept", 1);
    assert_int_equal(spawn_run(&said, &how, PATIENT_MS, NULL), 0);
    assert_string_equal(buf_str(&said.out), "ours\nkept\n");
    spawn_said_fini(&said);
}

static void signals_are_free_but_for_those_named(void **state)
{
    const char *const argv[] = {"sh", "-c", "kill -USR1 $$; kill -TERM $$; echo alive",
                                NULL};
    struct spawn how = {
        .argv = argv, .err_fd = -1, .blocked_signal = SIGTERM, .ignored_signal = SIGUSR1};
    struct spawn_said said;
    sigset_t term;

    (void)state;
    assert_int_equal(spawn_run(&said, &how, PATIENT_MS, NULL), 0);
    assert_string_equal(buf_str(&said.out), "alive\n");
    spawn_said_fini(&said);
    sigemptyset(&term);
    sigaddset(&term, SIGTERM);
    sigprocmask(SIG_BLOCK, &term, NULL); /* what is blocked here is not there */
    assert_int_equal(run_script(&said, "kill -TERM $$; echo alive", PATIENT_MS, NULL), 0);
    assert_int_equal(said.status, 128 + SIGTERM);
    spawn_said_fini(&said);
    sigprocmask(SIG_UNBLOCK, &term, NULL);
}

/* What comes out of fd until nobody has its other end. */
static void read_to_end(char *out, size_t size, int fd)
{
    struct pollfd poller = {.fd = fd, .events = POLLIN};
    size_t n = 0;
    ssize_t more = 1;

    while (more > 0) {
        assert_int_equal(poll(&poller, 1, PATIENT_MS), 1);
        more = read(fd, out + n, size - 1 - n);
        assert_true(more >= 0);
        n += (size_t)more;
    }
    out[n] = '\0';
    close(fd);
}

static int wait_for(pid_t pid)
{
    int64_t deadline_ms = clock_mono_ms() + PATIENT_MS;
    int status;

    while (!spawn_reap(pid, &status)) {
        assert_true(clock_mono_ms() < deadline_ms);
        poll(NULL, 0, LOOK_MS);
    }
    return status;
}

static pid_t start_script(const char *script, const int *ends, struct spawn how)
{
    const char *const argv[] = {"sh", "-c", script, NULL};
    struct err err;
    pid_t pid;

    how.argv = argv;
    how.out_fd = how.err_fd = ends[1];
    if (spawn_start(&pid, &how, &err) < 0)
        fail_msg("%s", err.text);
    close(ends[1]);
    return pid;
}

static void open_pipe(int *ends)
{
    assert_int_equal(pipe(ends), 0);
    for (int i = 0; i < 2; i++)
        assert_int_equal(fcntl(ends[i], F_SETFD, FD_CLOEXEC), 0);
}

static void descriptors_are_kept_that_are_named_and_no_others(void **state)
{
    char script[160], said[160];
    int out[2], kept[2];

    (void)state;
    open_pipe(out);
    open_pipe(kept);
    snprintf(
        script, sizeof(script),
        "cd /proc/self/fd; echo through >%d; test -e %d || echo closed; test -e %d || "
        "echo closed",
        kept[1], kept[0], out[1]);
    assert_int_equal(
        wait_for(start_script(script, out,
                              (struct spawn){.kept_fds = &kept[1], .n_kept_fds = 1})),
        0);
    close(kept[1]);
    read_to_end(said, sizeof(said), kept[0]);
    assert_string_equal(said, "through\n");
    read_to_end(said, sizeof(said), out[0]);
    assert_string_equal(said, "closed\nclosed\n");
}

static void group_is_killed_as_a_whole(void **state)
{
    int out[2];
    char said[160] = "";
    pid_t pid;

    (void)state;
    open_pipe(out);
    pid = start_script("sleep 1000 & echo $$; wait", out,
                       (struct spawn){.has_group = true});
    assert_true(read(out[0], said, sizeof(said) - 1) > 0);
    assert_int_equal(strtol(said, NULL, 10), pid);
    spawn_kill(-pid, PATIENT_MS);
    assert_int_equal(kill(pid, 0), -1);
    read_to_end(said, sizeof(said), out[0]); /* the sleep is dead as well */
    assert_string_equal(said, "");
}

static void program_that_cannot_be_executed_says_so(void **state)
{
    const char *const argv[] = {"/nowhere/program", NULL};
    struct spawn how = {.argv = argv};
    char said[160];
    int out[2];
    pid_t pid;

    (void)state;
    open_pipe(out);
    how.out_fd = how.err_fd = out[1];
    assert_int_equal(spawn_start(&pid, &how, NULL), 0);
    close(out[1]);
    assert_int_equal(wait_for(pid), SPAWN_NOT_EXECUTED);
    read_to_end(said, sizeof(said), out[0]);
    assert_string_equal(said, "cannot execute /nowhere/program\n");
}

/* It goes on when another process is its parent, as the dead one's child never does. */
static void child_dies_with_its_parent(void **state)
{
    const char script[] = "echo begun; while read -r _ _ _ now _ </proc/$$/stat; "
                          "test $now = $PPID; do sleep 0.01; done; echo left";
    char said[160];
    pid_t parent;
    int out[2];

    (void)state;
    open_pipe(out);
    parent = fork();
    if (parent == 0) {
        (void)start_script(script, out, (struct spawn){.argv = NULL});
        _exit(read(out[0], said, strlen("begun\n")) < 0);
    }
    close(out[1]);
    assert_int_equal(wait_for(parent), 0);
    read_to_end(said, sizeof(said), out[0]);
    assert_string_equal(said, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(program_is_found_heard_and_its_status_told),
        cmocka_unit_test(status_is_told_where_ended_children_were_ignored),
        cmocka_unit_test(program_that_is_not_there_is_told_of),
        cmocka_unit_test(program_that_hangs_is_killed_at_its_deadline),
        cmocka_unit_test(program_that_closes_its_outputs_and_hangs_is_killed_too),
        cmocka_unit_test(program_that_says_too_much_is_ended),
        cmocka_unit_test(what_late_work_had_said_is_kept),
        cmocka_unit_test(variables_replace_those_of_the_environment),
        cmocka_unit_test(signals_are_free_but_for_those_named),
        cmocka_unit_test(descriptors_are_kept_that_are_named_and_no_others),
        cmocka_unit_test(group_is_killed_as_a_whole),
        cmocka_unit_test(program_that_cannot_be_executed_says_so),
        cmocka_unit_test(child_dies_with_its_parent),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
