/* spawn.h - other programs: started, waited for, heard out until a deadline, ended
 *
 * Every child has no input, no blocked signals, and no descriptor that is close-on-exec
 * here (as all are, but those it is to keep); it dies with the process that started it
 * (PR_SET_PDEATHSIG) where nothing else is said. Between fork and exec nothing allocates,
 * so the caller may have threads; the one that starts a child must outlive it, for the
 * kernel takes the end of that thread for the end of the parent.
 * Owns: the texts in struct spawn_said. A process is its starter's until it is reaped.
 * Units: ms.
 */
#ifndef VNEVA_COMMON_BASE_SPAWN_H
#define VNEVA_COMMON_BASE_SPAWN_H

#include "common/base/buf.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define SPAWN_NOT_EXECUTED 127 /* exit status of a child that could not execute it */
#define SPAWN_TEXT_MAX                                                                   \
    (64u << 20) /* bytes of either text; the queue of a large cluster */

struct spawn {
    const char *const *argv; /* NULL at the end; argv[0] is looked for as shells do it */
    const char *const *variables; /* "NAME=value", in place of those of the environment
                                     with these names; NULL at the end; NULL: none */
    int out_fd, err_fd;           /* its standard output and error */
    const int *kept_fds;          /* it has them too, under the same numbers */
    int n_kept_fds;
    int blocked_signal, ignored_signal; /* 0: none; ignored by what it starts, too */
    bool has_group, has_session;        /* of its own */
    bool outlives_us;
    void (*work)(void *state); /* done in the fork in place of a program; NULL: none */
    void *state;
};

/* ERR_IO: there is no process. A program that cannot be executed ends with status
 * SPAWN_NOT_EXECUTED and says "cannot execute PROGRAM" on its standard error. */
int spawn_start(pid_t *pid, const struct spawn *how, struct err *err);

/* True once it has ended, then *status: its exit status or 128 + signal. Never waits. */
bool spawn_reap(pid_t pid, int *status);

/* SIGKILL, and reaps; pid < 0: a group, by its first process, as of kill(2). One that has
 * not ended after wait_ms (it hangs in the kernel, on a dead file server) is left behind. */
void spawn_kill(pid_t pid, int64_t wait_ms);

struct spawn_said {
    int status;   /* as of spawn_reap */
    bool is_late; /* ERR_TIMEOUT; for who makes do with what was said till then */
    struct buf out, errors;
};

/* Runs it to its end; out_fd is not used, and err_fd only from 0 on: -1 takes in standard
 * error too. Whatever its exit status is no error. ERR_NOT_FOUND: there is no such
 * program; ERR_TIMEOUT: it was killed, at its deadline; ERR_LIMIT: it was killed, having
 * written more than SPAWN_TEXT_MAX. What it had said is in *out even so: the caller
 * always calls spawn_said_fini. */
int spawn_run(struct spawn_said *out, const struct spawn *how, int64_t timeout_ms,
              struct err *err);
void spawn_said_fini(struct spawn_said *said);

#endif
