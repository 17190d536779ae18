#define _DEFAULT_SOURCE /* putenv */
#include "slurm/node/child.h"

#include "common/base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define BLOCK_BYTES 4096
#define REAP_MS 1000 /* for a killed child to end */
#define REAP_STEP_MS 10
#define STATUS_NOT_FOUND 127

/* What the child says, till it closes its end (1) or the deadline (0). */
static int collect(struct buf *out, int fd, int64_t deadline_ms)
{
    char block[BLOCK_BYTES];

    while (out->n_bytes < CHILD_OUTPUT_MAX) {
        struct pollfd poller = {.fd = fd, .events = POLLIN};
        int64_t left_ms = deadline_ms - clock_mono_ms();
        ssize_t n;

        if (left_ms <= 0)
            return 0;
        if (poll(&poller, 1, (int)left_ms) <= 0)
            continue;
        n = read(fd, block, sizeof(block));
        if (n == 0 || (n < 0 && errno != EINTR))
            return 1;
        if (n > 0)
            buf_add(out, block, (size_t)n);
    }
    return 0;
}

static void reap(pid_t pid, int *status)
{
    const struct timespec step = {0, REAP_STEP_MS * 1000000L};
    int64_t deadline_ms = clock_mono_ms() + REAP_MS;

    kill(pid, SIGKILL);
    while (waitpid(pid, status, WNOHANG) == 0 && clock_mono_ms() < deadline_ms)
        nanosleep(&step, NULL);
    *status = -1;
}

int child_call(struct buf *out, int *status, void (*work)(void *state, int fd),
               void *state, int64_t timeout_ms, struct err *err)
{
    int64_t deadline_ms = clock_mono_ms() + timeout_ms;
    int pipe_fds[2];
    pid_t pid;

    *status = 0;
    if (pipe(pipe_fds) < 0)
        return err_set(err, ERR_IO, "cannot make a pipe: %s", strerror(errno));
    pid = fork();
    if (pid == 0) {
        close(pipe_fds[0]);
        work(state, pipe_fds[1]);
        _exit(0);
    }
    close(pipe_fds[1]);
    if (pid < 0) {
        close(pipe_fds[0]);
        return err_set(err, ERR_IO, "cannot start a process: %s", strerror(errno));
    }
    if (!collect(out, pipe_fds[0], deadline_ms))
        reap(pid, status);
    else
        while (waitpid(pid, status, 0) < 0 && errno == EINTR)
            ;
    close(pipe_fds[0]);
    return buf_check(out, err);
}

struct program {
    char *const *argv;
    char *variable;
};

static void become(void *state, int fd)
{
    const struct program *program = state;
    int null = open("/dev/null", O_RDWR);

    if (null < 0 || dup2(null, 0) < 0 || dup2(fd, 1) < 0 || dup2(null, 2) < 0)
        _exit(STATUS_NOT_FOUND);
    if (fd > 2)
        close(fd);
    if (program->variable)
        putenv(program->variable);
    execvp(program->argv[0], program->argv);
    _exit(STATUS_NOT_FOUND);
}

int child_capture(struct buf *out, int *status, char *const *argv, char *variable,
                  int64_t timeout_ms, struct err *err)
{
    struct program program = {argv, variable};

    return child_call(out, status, become, &program, timeout_ms, err);
}
