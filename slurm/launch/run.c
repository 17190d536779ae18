#include "slurm/launch/run.h"

#include "common/base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PIPE_OUT, PIPE_ERRORS, PIPE_EXEC, PIPE_COUNT };
#define CHUNK_BYTES 65536

struct child {
    const char *const *argv;
    int64_t deadline_ms;
    pid_t pid;
    int fds[PIPE_COUNT];     /* what the child writes into comes out here */
    struct buf exec_failure; /* an errno, in its bytes */
};

/* In the child. execvp's failure goes through a pipe that closes when it works. */
static void become(struct child *child, int write_ends[PIPE_COUNT])
{
    int nothing = open("/dev/null", O_RDONLY);

    dup2(nothing, STDIN_FILENO);
    dup2(write_ends[PIPE_OUT], STDOUT_FILENO);
    dup2(write_ends[PIPE_ERRORS], STDERR_FILENO);
    execvp(child->argv[0], (char *const *)child->argv);
    if (write(write_ends[PIPE_EXEC], &errno, sizeof(errno)) < 0)
        _exit(126);
    _exit(127);
}

static int start(struct child *child, struct err *err)
{
    int write_ends[PIPE_COUNT] = {-1, -1, -1}, n = 0;

    for (; n < PIPE_COUNT; n++) {
        int ends[2];

        if (pipe(ends) < 0)
            break;
        for (int e = 0; e < 2; e++)
            (void)fcntl(ends[e], F_SETFD, FD_CLOEXEC);
        child->fds[n] = ends[0];
        write_ends[n] = ends[1];
    }
    child->pid = n == PIPE_COUNT ? fork() : -1;
    if (child->pid == 0)
        become(child, write_ends);
    if (child->pid < 0)
        err_set(err, ERR_IO, "cannot start '%s': %s", child->argv[0], strerror(errno));
    for (int i = 0; i < n; i++)
        close(write_ends[i]);
    return child->pid < 0 ? -1 : 0;
}

/* 0 at the end of this pipe. */
static int take_bytes(struct child *child, int which, struct buf *into, struct err *err)
{
    char bytes[CHUNK_BYTES];
    ssize_t n = read(child->fds[which], bytes, sizeof(bytes));

    if (n < 0 && errno == EINTR)
        return 1;
    if (n <= 0) {
        close(child->fds[which]);
        child->fds[which] = -1;
        return 0;
    }
    if (into->n_bytes + (size_t)n > RUN_TEXT_MAX)
        return err_set(err, ERR_LIMIT, "'%s' says more than %u bytes", child->argv[0],
                       RUN_TEXT_MAX);
    buf_add(into, bytes, (size_t)n);
    return buf_check(into, err) < 0 ? -1 : 1;
}

static int listen_to(struct child *child, struct run *out, struct err *err)
{
    struct buf *into[PIPE_COUNT] = {&out->out, &out->errors, &child->exec_failure};
    int n_open = PIPE_COUNT;

    while (n_open) {
        struct pollfd polled[PIPE_COUNT];
        int64_t left_ms = child->deadline_ms - clock_mono_ms();

        for (int i = 0; i < PIPE_COUNT; i++)
            polled[i] = (struct pollfd){.fd = child->fds[i], .events = POLLIN};
        if (left_ms <= 0)
            return err_set(err, ERR_TIMEOUT, "'%s' does not end in time", child->argv[0]);
        if (poll(polled, PIPE_COUNT, (int)left_ms) < 0 && errno != EINTR)
            return err_set(err, ERR_IO, "cannot wait for '%s': %s", child->argv[0],
                           strerror(errno));
        for (int i = 0; i < PIPE_COUNT; i++) {
            int rc = polled[i].fd >= 0 && polled[i].revents
                         ? take_bytes(child, i, into[i], err)
                         : 1;

            if (rc < 0)
                return -1;
            n_open -= rc == 0;
        }
    }
    return 0;
}

/* Reaps the child, and ends it first where listening failed. */
static int finish(struct child *child, struct run *out, bool is_heard)
{
    int status = 0;

    if (!is_heard)
        kill(child->pid, SIGKILL);
    while (waitpid(child->pid, &status, 0) < 0 && errno == EINTR)
        continue;
    out->status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    return is_heard ? 0 : -1;
}

static int check_started(const struct child *child, struct err *err)
{
    int failure = 0;

    if (child->exec_failure.n_bytes != sizeof(failure))
        return 0;
    memcpy(&failure, child->exec_failure.data, sizeof(failure));
    return err_set(err, failure == ENOENT ? ERR_NOT_FOUND : ERR_IO, "cannot run '%s': %s",
                   child->argv[0], strerror(failure));
}

int run_program(struct run *out, const char *const *argv, int64_t timeout_ms,
                struct err *err)
{
    struct child child = {.argv = argv,
                          .deadline_ms = clock_mono_ms() + timeout_ms,
                          .fds = {-1, -1, -1},
                          .exec_failure = BUF_INIT};
    int rc;

    memset(out, 0, sizeof(*out));
    rc = start(&child, err);
    if (rc == 0)
        rc = finish(&child, out, listen_to(&child, out, err) == 0);
    if (rc == 0)
        rc = check_started(&child, err);
    for (int i = 0; i < PIPE_COUNT; i++)
        if (child.fds[i] >= 0)
            close(child.fds[i]);
    buf_fini(&child.exec_failure);
    if (rc < 0)
        run_fini(out);
    return rc;
}

void run_fini(struct run *run)
{
    buf_fini(&run->out);
    buf_fini(&run->errors);
}

const char *run_complaint(struct run *run)
{
    char *text = run->errors.n_bytes ? run->errors.data : run->out.data;
    char *error = text ? strstr(text, "error") : NULL;

    if (!text)
        return "it says nothing";
    while (error && error > text && error[-1] != '\n')
        error--;
    text = error ? error : text;
    text[strcspn(text, "\n")] = '\0';
    return text;
}
