/* spawn.h - other programs: started, waited for, heard out until a deadline, ended
 *
 * A child has no input, no blocked signals, and no descriptor of ours that is
 * close-on-exec (as all are) but those it is to keep; it dies with us (PR_SET_PDEATHSIG).
 * Between fork and exec nothing allocates, so the caller may have threads; the one that
 * starts a child must outlive it, for the kernel takes its end for the parent's.
 * Owns: the texts in struct spawn_said. A process is its starter's until it is reaped.
 * Units: ms.
 */
#ifndef VNEVA_COMMON_BASE_SPAWN_H
#define VNEVA_COMMON_BASE_SPAWN_H

#include "common/base/buf.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define SPAWN_NOT_EXECUTED 127         /* exit status where there is no such program; */
#define SPAWN_CANNOT "cannot execute " /* it says this then, and the program's name */
#define SPAWN_TEXT_MAX (64u << 20)     /* bytes of a text; the queue of a large cluster */

struct spawn {
    /* NULL at the end; argv[0] is looked for as shells do it. */
    const char *const *argv;
    /* "NAME=value", in place of those of the environment with these names; NULL at the
     * end; NULL: none. */
    const char *const *variables;
    int out_fd, err_fd; /* its standard output and error */
    /* It has these too, under the same numbers. */
    const int *kept_fds;
    int n_kept_fds;
    int blocked_signal, ignored_signal; /* 0: none; whatever it starts ignores it too */
    bool has_group;                     /* of its own */
    /* Done in the fork in place of a program, which argv[0] only names; NULL: none. */
    void (*work)(void *state);
    void *state;
};

/* ERR_IO, ERR_NOMEM: there is no process. A program that cannot be executed ends with
 * SPAWN_NOT_EXECUTED and says on its standard error "cannot execute PROGRAM". */
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
