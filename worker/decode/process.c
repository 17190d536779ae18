#define _GNU_SOURCE /* SOCK_CLOEXEC, F_DUPFD_CLOEXEC, environ */
#include "worker/decode/process.h"

#include "common/base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* Above the numbers that the child's descriptors get, so that dup2 overwrites none. */
#define LEAST_FD 10
#define REAP_TRIES 50

static int fd_lift(int fd)
{
    int lifted = fcntl(fd, F_DUPFD_CLOEXEC, LEAST_FD);

    close(fd);
    return lifted;
}

static int make_sockets(int ends[2], struct err *err)
{
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0)
        return err_set(err, ERR_IO, "cannot make a socket pair: %s", strerror(errno));
    ends[1] = fd_lift(ends[1]);
    if (ends[1] < 0) {
        err_set(err, ERR_IO, "cannot duplicate a socket: %s", strerror(errno));
        close(ends[0]);
        return -1;
    }
    return 0;
}

/* posix_spawn shares the parent's memory until exec: cheap and safe in a process with
 * threads and many gigabytes, which fork is not. */
static int spawn(pid_t *pid, const char *program, int socket, int memory)
{
    char parent[24];
    char *argv[] = {(char *)program, parent, NULL};
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attributes;
    sigset_t none, all;
    int rc;

    snprintf(parent, sizeof(parent), "%ld", (long)getpid());
    sigemptyset(&none);
    sigfillset(&all);
    posix_spawn_file_actions_init(&files);
    posix_spawnattr_init(&attributes);
    posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&files, 2, 1);
    posix_spawn_file_actions_adddup2(&files, socket, DECODE_SOCKET_FD);
    posix_spawn_file_actions_adddup2(&files, memory, DECODE_MEMORY_FD);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setsigdefault(&attributes, &all);
    rc = posix_spawn(pid, program, &files, &attributes, argv, environ);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&files);
    return rc;
}

int process_start(struct decode_process *out, const char *program, int memory_fd,
                  const struct decode_setup *setup, struct err *err)
{
    int ends[2];
    int rc;

    *out = (struct decode_process){.socket = -1};
    if (make_sockets(ends, err) < 0)
        return -1;
    rc = spawn(&out->pid, program, ends[1], memory_fd);
    close(ends[1]);
    if (rc) {
        out->pid = 0;
        close(ends[0]);
        return err_set(err, ERR_IO, "cannot start '%s': %s", program, strerror(rc));
    }
    out->socket = ends[0];
    if (send(out->socket, setup, sizeof(*setup), MSG_NOSIGNAL) != sizeof(*setup)) {
        err_set(err, ERR_PEER, "'%s' ended at once", program);
        process_kill(out);
        return -1;
    }
    return 0;
}

int process_send(struct decode_process *process, const struct decode_command *command,
                 int64_t now_ms, struct err *err)
{
    if (send(process->socket, command, sizeof(*command), MSG_NOSIGNAL) !=
        sizeof(*command))
        return err_set(err, ERR_PEER, "a decoder process is gone: %s", strerror(errno));
    if (process->n_tickets == 0)
        process->head_since_ms = now_ms;
    process->tickets[process->n_tickets++] = command->ticket;
    return 0;
}

/* A decoder that a file has taken over may say anything. */
static bool process_check(const struct decode_process *process,
                          struct decode_reply *reply, ssize_t n_bytes)
{
    if (n_bytes != sizeof(*reply) || reply->magic != DECODE_MAGIC ||
        process->n_tickets == 0 || reply->ticket != process->tickets[0])
        return false;
    reply->err.text[sizeof(reply->err.text) - 1] = '\0';
    reply->info.codec[sizeof(reply->info.codec) - 1] = '\0';
    return reply->info.n_frames >= 0;
}

int process_receive(struct decode_process *process, struct decode_reply *out,
                    struct err *err)
{
    ssize_t n = recv(process->socket, out, sizeof(*out), MSG_DONTWAIT);
    int64_t now_ms = clock_mono_ms();

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    if (n <= 0)
        return err_set(err, ERR_PEER, "the decoder died");
    if (!process_check(process, out, n))
        return err_set(err, ERR_PEER, "the decoder broke the protocol");
    process->n_tickets--;
    memmove(process->tickets, process->tickets + 1,
            (size_t)process->n_tickets * sizeof(*process->tickets));
    if (out->finished_ms > process->head_since_ms && out->finished_ms <= now_ms)
        process->head_since_ms = out->finished_ms;
    return 1;
}

pid_t process_kill(struct decode_process *process)
{
    const struct timespec pause_1ms = {0, 1000000};
    pid_t pid = process->pid;

    if (process->socket >= 0)
        close(process->socket);
    process->socket = -1;
    process->pid = 0;
    process->n_tickets = 0;
    if (pid <= 0)
        return 0;
    kill(pid, SIGKILL);
    for (int i = 0; i < REAP_TRIES; i++) {
        pid_t reaped = waitpid(pid, NULL, WNOHANG);

        if (reaped == pid || (reaped < 0 && errno == ECHILD))
            return 0;
        nanosleep(&pause_1ms, NULL);
    }
    return pid;
}
