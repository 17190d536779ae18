#define _GNU_SOURCE /* pipe2, execvpe, environ */
#include "common/base/spawn.h"

#include "common/base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define CHUNK_BYTES 65536
#define REAP_MS 1000 /* for a late program, once it is killed */
#define REAP_STEP_MS 2

/* ---- starting ---- */

static bool is_among(const char *const *variables, const char *variable)
{
    size_t n = strcspn(variable, "=") + 1;

    while (*variables && strncmp(*variables, variable, n) != 0)
        variables++;
    return *variables;
}

/* Made before the fork, where memory may be allocated. The strings are borrowed. */
static const char **make_environment(const char *const *variables, struct err *err)
{
    static const char *const none[] = {NULL};
    const char *const *ours = variables ? variables : none;
    size_t n = 0, n_ours = 0;
    const char **environment;

    while (environ[n])
        n++;
    while (ours[n_ours])
        n_ours++;
    environment = calloc(n + n_ours + 1, sizeof(*environment));
    if (!environment) {
        err_set(err, ERR_NOMEM, "no memory for the environment of a program");
        return NULL;
    }
    memcpy(environment, ours, n_ours * sizeof(*environment));
    for (char **theirs = environ; *theirs; theirs++)
        if (!is_among(ours, *theirs))
            environment[n_ours++] = *theirs;
    return environment;
}

/* In the fork, as all down to `become`: what the process is, before what it does. */
static void settle(const struct spawn *how, pid_t parent)
{
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    sigset_t blocked;

    if (how->has_group)
        setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (null < 0 || getppid() != parent)
        _exit(SPAWN_NOT_EXECUTED); /* the parent died before the line above */
    (void)signal(SIGPIPE, SIG_DFL);
    if (how->ignored_signal)
        (void)signal(how->ignored_signal, SIG_IGN);
    sigemptyset(&blocked);
    if (how->blocked_signal)
        sigaddset(&blocked, how->blocked_signal);
    sigprocmask(SIG_SETMASK, &blocked, NULL);
    dup2(null, STDIN_FILENO);
    dup2(how->out_fd, STDOUT_FILENO);
    dup2(how->err_fd, STDERR_FILENO);
    for (int i = 0; i < how->n_kept_fds; i++)
        (void)fcntl(how->kept_fds[i], F_SETFD, 0);
}

static bool say(const char *text)
{
    return write(STDERR_FILENO, text, strlen(text)) >= 0;
}

/* failure_fd: takes errno where exec fails; -1: standard error takes a text. */
static void become(const struct spawn *how, const char **environment, int failure_fd)
{
    if (how->work) {
        how->work(how->state);
        _exit(0);
    }
    execvpe(how->argv[0], (char *const *)how->argv, (char *const *)environment);
    if (failure_fd >= 0 ? write(failure_fd, &errno, sizeof(errno)) < 0
                        : !say(SPAWN_CANNOT) || !say(how->argv[0]) || !say("\n"))
        _exit(SPAWN_NOT_EXECUTED); /* nowhere left to say so */
    _exit(SPAWN_NOT_EXECUTED);
}

/* Where SIGCHLD is ignored, as whoever started this program may have left it, the kernel
 * reaps children and nobody learns their status. */
static void notice_children(void)
{
    struct sigaction now;

    if (sigaction(SIGCHLD, NULL, &now) == 0 && now.sa_handler == SIG_IGN)
        (void)signal(SIGCHLD, SIG_DFL);
}

static int start(pid_t *pid, const struct spawn *how, int failure_fd, struct err *err)
{
    const char **environment = make_environment(how->variables, err);
    pid_t parent = getpid();

    *pid = 0;
    if (!environment)
        return -1;
    notice_children();
    *pid = fork();
    if (*pid == 0) {
        settle(how, parent);
        become(how, environment, failure_fd);
    }
    free(environment);
    if (*pid < 0) {
        *pid = 0;
        return err_set(err, ERR_IO, "cannot start a process for '%s': %s", how->argv[0],
                       strerror(errno));
    }
    if (how->has_group)
        setpgid(*pid, *pid); /* here too: whoever of both comes first */
    return 0;
}

int spawn_start(pid_t *pid, const struct spawn *how, struct err *err)
{
    return start(pid, how, -1, err);
}

/* ---- ending ---- */

bool spawn_reap(pid_t pid, int *status)
{
    int raw;

    if (pid <= 0 || waitpid(pid, &raw, WNOHANG) != pid)
        return false;
    *status = WIFSIGNALED(raw) ? 128 + WTERMSIG(raw) : WEXITSTATUS(raw);
    return true;
}

/* False: it still runs at the deadline. */
static bool reap_until(pid_t pid, int *status, int64_t deadline_ms)
{
    const struct timespec step = {0, REAP_STEP_MS * 1000000L};

    while (!spawn_reap(pid, status)) {
        if (clock_mono_ms() >= deadline_ms)
            return false;
        nanosleep(&step, NULL);
    }
    return true;
}

void spawn_kill(pid_t pid, int64_t wait_ms)
{
    int status;

    kill(pid, SIGKILL);
    (void)reap_until(pid < 0 ? -pid : pid, &status, clock_mono_ms() + wait_ms);
}

/* ---- hearing out ---- */

enum { PIPE_OUT, PIPE_ERRORS, PIPE_FAILURE, PIPE_COUNT };

struct hearing {
    const char *name;
    int64_t timeout_ms, deadline_ms;
    int fds[PIPE_COUNT]; /* what the child writes into comes out here; -1: no more */
    struct buf *into[PIPE_COUNT];
    bool *is_late;
};

static void close_all(int *fds)
{
    for (int i = 0; i < PIPE_COUNT; i++) {
        if (fds[i] >= 0)
            close(fds[i]);
        fds[i] = -1;
    }
}

static int start_heard(pid_t *pid, struct hearing *hearing, struct spawn how,
                       struct err *err)
{
    int theirs[PIPE_COUNT] = {-1, -1, -1}, rc = 0;

    for (int i = 0; rc == 0 && i < PIPE_COUNT; i++) {
        int ends[2];

        if (i == PIPE_ERRORS && how.err_fd >= 0)
            continue;
        if (pipe2(ends, O_CLOEXEC) < 0) {
            rc = err_set(err, ERR_IO, "cannot open a pipe to '%s': %s", hearing->name,
                         strerror(errno));
            break;
        }
        hearing->fds[i] = ends[0];
        theirs[i] = ends[1];
    }
    how.out_fd = theirs[PIPE_OUT];
    if (how.err_fd < 0)
        how.err_fd = theirs[PIPE_ERRORS];
    if (rc == 0)
        rc = start(pid, &how, theirs[PIPE_FAILURE], err);
    close_all(theirs);
    return rc;
}

static int take_bytes(struct hearing *hearing, int which, struct err *err)
{
    struct buf *into = hearing->into[which];
    char bytes[CHUNK_BYTES];
    ssize_t n = read(hearing->fds[which], bytes, sizeof(bytes));

    if (n < 0 && errno == EINTR)
        return 0;
    if (n <= 0) {
        close(hearing->fds[which]);
        hearing->fds[which] = -1;
        return 0;
    }
    if (into->n_bytes + (size_t)n > SPAWN_TEXT_MAX)
        return err_set(err, ERR_LIMIT, "'%s' says more than %u bytes", hearing->name,
                       SPAWN_TEXT_MAX);
    buf_add(into, bytes, (size_t)n);
    return buf_check(into, err);
}

static int fail_late(const struct hearing *hearing, struct err *err)
{
    *hearing->is_late = true;
    return err_set(err, ERR_TIMEOUT,
                   "'%s' did not end within %g s and was killed; run it by hand to see "
                   "what it waits for",
                   hearing->name, (double)hearing->timeout_ms / 1000);
}

/* Till the child, and whoever has its outputs from it, has closed them. */
static int listen_to(struct hearing *hearing, struct err *err)
{
    const int *fds = hearing->fds;

    while (fds[PIPE_OUT] >= 0 || fds[PIPE_ERRORS] >= 0 || fds[PIPE_FAILURE] >= 0) {
        struct pollfd polled[PIPE_COUNT];
        int64_t left_ms = hearing->deadline_ms - clock_mono_ms();

        for (int i = 0; i < PIPE_COUNT; i++)
            polled[i] = (struct pollfd){.fd = fds[i], .events = POLLIN};
        if (left_ms <= 0)
            return fail_late(hearing, err);
        if (poll(polled, PIPE_COUNT, (int)left_ms) < 0)
            continue; /* EINTR */
        for (int i = 0; i < PIPE_COUNT; i++)
            if (polled[i].revents && take_bytes(hearing, i, err) < 0)
                return -1;
    }
    return 0;
}

/* failure: an errno, in its bytes, where exec failed. */
static int check_executed(const char *name, const struct buf *failure, struct err *err)
{
    int number = 0;

    if (failure->n_bytes != sizeof(number))
        return 0;
    memcpy(&number, failure->data, sizeof(number));
    return err_set(err, number == ENOENT ? ERR_NOT_FOUND : ERR_IO, "cannot run '%s': %s",
                   name, strerror(number));
}

int spawn_run(struct spawn_said *out, const struct spawn *how, int64_t timeout_ms,
              struct err *err)
{
    struct buf failure = BUF_INIT;
    struct hearing hearing = {.name = how->argv[0],
                              .timeout_ms = timeout_ms,
                              .deadline_ms = clock_mono_ms() + timeout_ms,
                              .fds = {-1, -1, -1},
                              .into = {&out->out, &out->errors, &failure},
                              .is_late = &out->is_late};
    pid_t pid = 0;
    int rc;

    memset(out, 0, sizeof(*out));
    rc = start_heard(&pid, &hearing, *how, err);
    if (rc == 0)
        rc = listen_to(&hearing, err);
    if (rc == 0 && !reap_until(pid, &out->status, hearing.deadline_ms))
        rc = fail_late(&hearing, err);
    if (rc == 0)
        rc = check_executed(hearing.name, &failure, err);
    else if (pid > 0)
        spawn_kill(pid, REAP_MS);
    close_all(hearing.fds);
    buf_fini(&failure);
    return rc;
}

void spawn_said_fini(struct spawn_said *said)
{
    buf_fini(&said->out);
    buf_fini(&said->errors);
}
