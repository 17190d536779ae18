/* process.h - one vneva-decode process, seen from its parent
 *
 * Takes up to PROCESS_QUEUE_MAX commands, works on the first, so that it need not wait
 * for a parent that is busy; the deadline counts from when a command became the first.
 * Owns: process, socket. Threads: the one that started it (the child dies with it).
 */
#ifndef VNEVA_WORKER_DECODE_PROCESS_H
#define VNEVA_WORKER_DECODE_PROCESS_H

#include "worker/decode/protocol.h"

#include <sys/types.h>

#define PROCESS_QUEUE_MAX 32

struct decode_process {
    pid_t pid;  /* 0: not running */
    int socket; /* -1 */
    int64_t tickets[PROCESS_QUEUE_MAX];
    int n_tickets;
    int64_t head_since_ms; /* when tickets[0] became the first */
};

/* Starts the program with memory_fd as its shared memory. */
int process_start(struct decode_process *out, const char *program, int memory_fd,
                  const struct decode_setup *setup, struct err *err);

/* ERR_PEER: it is gone. The caller makes sure that n_tickets < PROCESS_QUEUE_MAX. */
int process_send(struct decode_process *process, const struct decode_command *command,
                 int64_t now_ms, struct err *err);

/* 1: a reply to tickets[0], which is taken off; 0: none now; -1: it died or talks
 * nonsense. */
int process_receive(struct decode_process *process, struct decode_reply *out,
                    struct err *err);

/* SIGKILL. Returns the process id when it could not be reaped at once (stuck in the
 * kernel, as on a dead network file system), for a later waitpid; 0 when it is gone. */
pid_t process_kill(struct decode_process *process);

#endif
