#define _GNU_SOURCE /* pipe2, environ, execvpe */
#include "slurm/node/process.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define OUTPUT_MAX (1u << 20) /* bytes of process_capture that are kept */

/* Variables of our own, then the environment: of two with one name the first counts. Made
 * before the fork. Strings are borrowed. */
static char **make_environment(char *const *variables, struct err *err)
{
    size_t n = 0, n_ours = 0;
    char **environment;

    while (environ[n])
        n++;
    while (variables && variables[n_ours])
        n_ours++;
    environment = calloc(n + n_ours + 1, sizeof(*environment));
    if (!environment) {
        err_set(err, ERR_NOMEM, "out of memory");
        return NULL;
    }
    if (n_ours)
        memcpy(environment, variables, n_ours * sizeof(*environment));
    memcpy(environment + n_ours, environ, n * sizeof(*environment));
    return environment;
}

/* In the forked process: only calls that are safe after fork. Does not return. */
static void become(const struct process_config *config, char **environment, int out_fd,
                   int err_fd, pid_t parent)
{
    static const char said[] = "vneva-node: cannot execute ";
    int null = open("/dev/null", O_RDONLY);
    sigset_t held;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(127);                 /* the node program died before the line above */
    (void)signal(SIGUSR1, SIG_IGN); /* stays so over exec */
    sigemptyset(&held);
    if (!config->hears_sigterm)
        sigaddset(&held, SIGTERM);
    sigprocmask(SIG_SETMASK, &held, NULL);
    dup2(null, STDIN_FILENO);
    if (out_fd >= 0)
        dup2(out_fd, STDOUT_FILENO);
    if (err_fd >= 0)
        dup2(err_fd, STDERR_FILENO);
    execve(config->argv[0], config->argv, environment);
    if (write(STDERR_FILENO, said, sizeof(said) - 1) < 0 ||
        write(STDERR_FILENO, config->argv[0], strlen(config->argv[0])) < 0 ||
        write(STDERR_FILENO, "\n", 1) < 0)
        _exit(127); /* nowhere left to say so */
    _exit(127);
}

static int spawn(struct process *process, const struct process_config *config, int out_fd,
                 int err_fd, struct err *err)
{
    char **environment = make_environment(config->variables, err);
    pid_t parent = getpid();

    if (!environment)
        return -1;
    *process = (struct process){config->name, fork()};
    if (process->pid == 0)
        become(config, environment, out_fd, err_fd, parent);
    free(environment);
    if (process->pid > 0)
        return 0;
    process->pid = 0;
    return err_set(err, ERR_IO, "cannot start the %s: %s", config->name, strerror(errno));
}

int process_start(struct process *process, const struct process_config *config,
                  struct err *err)
{
    int log = -1, rc;

    if (config->log) {
        log = open(config->log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
        if (log < 0)
            return err_set(err, ERR_IO, "cannot open '%s': %s", config->log,
                           strerror(errno));
    }
    rc = spawn(process, config, log, log, err);
    if (log >= 0)
        close(log);
    return rc;
}

static int exit_status(int raw)
{
    return WIFSIGNALED(raw) ? 128 + WTERMSIG(raw) : WEXITSTATUS(raw);
}

bool process_reap(struct process *process, int *status)
{
    int raw;

    if (process->pid == 0 || waitpid(process->pid, &raw, WNOHANG) != process->pid)
        return false;
    process->pid = 0;
    *status = exit_status(raw);
    return true;
}

void process_signal(const struct process *process, int signal)
{
    if (process->pid > 0)
        kill(process->pid, signal);
}

void process_kill(struct process *process)
{
    int raw;

    if (process->pid == 0)
        return;
    kill(process->pid, SIGKILL);
    while (waitpid(process->pid, &raw, 0) < 0 && errno == EINTR)
        ;
    process->pid = 0;
}

int process_capture(const struct process_config *config, struct buf *out, int *status,
                    struct err *err)
{
    struct process process;
    char bytes[4096];
    int pipe_fds[2], raw;
    ssize_t n;

    if (pipe2(pipe_fds, O_CLOEXEC) < 0)
        return err_set(err, ERR_IO, "cannot make a pipe: %s", strerror(errno));
    if (spawn(&process, config, pipe_fds[1], -1, err) < 0) {
        close(pipe_fds[0]);
        close(pipe_fds[1]);
        return -1;
    }
    close(pipe_fds[1]);
    while ((n = read(pipe_fds[0], bytes, sizeof(bytes))) > 0 || (n < 0 && errno == EINTR))
        if (n > 0 && out->n_bytes + (size_t)n <= OUTPUT_MAX)
            buf_add(out, bytes, (size_t)n);
    close(pipe_fds[0]);
    while (waitpid(process.pid, &raw, 0) < 0 && errno == EINTR)
        ;
    *status = exit_status(raw);
    return 0;
}
