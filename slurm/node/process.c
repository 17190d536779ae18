#include "slurm/node/process.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#define KILLED_MS 10000 /* for a killed one to end; then it is left behind */

int process_start(pid_t *pid, struct spawn how, const char *log, struct err *err)
{
    int fd = -1, rc;

    if (log) {
        fd = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
        if (fd < 0)
            return err_set(err, ERR_IO, "cannot open '%s': %s", log, strerror(errno));
    }
    how.out_fd = log ? fd : STDOUT_FILENO;
    how.err_fd = log ? fd : STDERR_FILENO;
    rc = spawn_start(pid, &how, err);
    if (log)
        close(fd);
    return rc;
}

bool process_reap(pid_t *pid, int *status)
{
    if (!spawn_reap(*pid, status))
        return false;
    *pid = 0;
    return true;
}

void process_signal(pid_t pid, int signal)
{
    if (pid > 0)
        kill(pid, signal);
}

void process_kill(pid_t *pid)
{
    if (*pid > 0)
        spawn_kill(*pid, KILLED_MS);
    *pid = 0;
}
