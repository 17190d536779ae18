/* queue.h - what squeue knows about jobs
 *
 * By `squeue --format`, which every version answers the same way; --json needs a plugin
 * that many clusters do not install.
 * Owns: the entries of struct queue; queue_fini frees them.
 */
#ifndef VNEVA_SLURM_LAUNCH_QUEUE_H
#define VNEVA_SLURM_LAUNCH_QUEUE_H

#include "common/base/err.h"

#include <stddef.h>
#include <stdint.h>

#define QUEUE_NAME_MAX 256 /* with the NUL; longer ones are cut */
#define QUEUE_WORD_MAX 64

enum queue_state { QUEUE_PENDING, QUEUE_RUNNING, QUEUE_ENDED };

struct queue_entry {
    char id[32];
    enum queue_state state;
    char word[QUEUE_WORD_MAX];   /* Slurm's own: "PENDING", "TIMEOUT" */
    char reason[QUEUE_NAME_MAX]; /* why it waits, or how it ended; "": none */
    char name[QUEUE_NAME_MAX];
    int64_t n_nodes, since_ms; /* in this state; wall clock, 0: not known */
};

struct queue {
    struct queue_entry *entries; /* in the order of their numbers */
    size_t n_entries;
};

/* All jobs of this user that Slurm remembers. ERR_TIMEOUT: it does not answer;
 * ERR_UNSUPPORTED: there is no squeue here. */
int queue_read(struct queue *out, struct err *err);
/* One job; ERR_NOT_FOUND when Slurm does not know it (any more). */
int queue_find(struct queue_entry *out, const char *id, struct err *err);
void queue_fini(struct queue *queue);

/* What squeue says with this option, its times in UTC. Pure. ERR_FORMAT. */
#define QUEUE_FORMAT "--format=%i|%T|%D|%V|%S|%e|%j|%r"
int queue_parse(struct queue *out, const char *text, struct err *err);

const char *queue_state_name(enum queue_state state); /* "pending" */

#endif
