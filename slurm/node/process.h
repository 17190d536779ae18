/* process.h - a program that the node program starts, watches and ends
 *
 * It stays in the process group of the node program, so that what ends a step of a cluster
 * manager reaches it, and dies with the node program (PR_SET_PDEATHSIG). SIGUSR1 it never
 * sees; SIGTERM only where it asks for it: a cluster manager sends both to all processes
 * of a step at once, and the node program has its own order of ending them.
 * Owns: the process. Threads: one; the one that starts it must be the last to end.
 */
#ifndef VNEVA_SLURM_NODE_PROCESS_H
#define VNEVA_SLURM_NODE_PROCESS_H

#include "common/base/buf.h"
#include "common/base/err.h"

#include <stdbool.h>
#include <sys/types.h>

struct process {
    const char *name; /* "coordinator", for people */
    pid_t pid;        /* 0: none runs */
};

struct process_config {
    const char *name;
    char *const *argv;      /* argv[0]: the program's path; ended by NULL */
    char *const *variables; /* "NAME=value", before the environment's; NULL: none */
    const char *log;        /* appended to, for both outputs; NULL: the node program's */
    bool hears_sigterm;
};

int process_start(struct process *process, const struct process_config *config,
                  struct err *err);
/* True once it has ended: *status is its exit status or 128 + signal. */
bool process_reap(struct process *process, int *status);
/* Nothing when it does not run. */
void process_signal(const struct process *process, int signal);
/* SIGKILL, and waits for its end. */
void process_kill(struct process *process);
/* Runs it to its end; its standard output is appended to out. */
int process_capture(const struct process_config *config, struct buf *out, int *status,
                    struct err *err);

#endif
