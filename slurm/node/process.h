/* process.h - a program that the node program starts, watches and ends
 *
 * It stays in the process group of the node program, so that what ends a step of a cluster
 * manager reaches it, and dies with the node program. SIGUSR1 it never sees; SIGTERM only
 * where it asks for it: a cluster manager sends both to all processes of a step at once,
 * and the node program has its own order of ending them.
 * Owns: the process. Threads: one; the one that starts it must be the last to end.
 */
#ifndef VNEVA_SLURM_NODE_PROCESS_H
#define VNEVA_SLURM_NODE_PROCESS_H

#include "common/base/spawn.h"

#include <signal.h>

/* Of a struct spawn. */
#define PROCESS_HEARS_SIGTERM .ignored_signal = SIGUSR1
#define PROCESS_DEAF .ignored_signal = SIGUSR1, .blocked_signal = SIGTERM

/* *pid: 0 while none runs. how: with one of the above; its outputs are set here: log is
 * appended to, NULL: the node program's. */
int process_start(pid_t *pid, struct spawn how, const char *log, struct err *err);
/* True once it has ended: *status is its exit status or 128 + signal. */
bool process_reap(pid_t *pid, int *status);
/* Nothing when it does not run. */
void process_signal(pid_t pid, int signal);
/* SIGKILL, and waits for its end. */
void process_kill(pid_t *pid);

#endif
