/* worker_gang.h - the ranks of one attempt, run by a test without agent or coordinator
 *
 * Starts real vneva-rank processes, introduces them to each other, gives them leases and
 * hands back what they report. Calls fail the running cmocka test.
 */
#ifndef VNEVA_TESTS_INTEGRATION_WORKER_GANG_H
#define VNEVA_TESTS_INTEGRATION_WORKER_GANG_H

#include "worker/agent/child.h"

#define GANG_RANKS_MAX 8
#define GANG_DEADLINE_MS 60000

struct gang {
    int n_ranks;
    int64_t attempt, next_task;
    struct child *ranks[GANG_RANKS_MAX];
    bool has_ended[GANG_RANKS_MAX];
    int statuses[GANG_RANKS_MAX];
    char reasons[GANG_RANKS_MAX][CHILD_LOG_LINE_MAX];
    struct buf metrics; /* the JSON lines of all PROGRESS with metrics */
};

/* resume: "" for none. hosts: NULL, or one name a rank (to have them on several hosts). */
void gang_start(struct gang *gang, const char *folder, const char *kind, const char *spec,
                int n_ranks, int64_t attempt, const char *resume,
                const char *const *hosts);
/* Kills what is left. */
void gang_fini(struct gang *gang);

/* Gives a lease to all ranks; its number. */
int64_t gang_lease(struct gang *gang, const char *phase, int64_t first, int64_t count,
                   const char *args);
/* Waits for the next TASK_DONE or TASK_FAILED: 1 and the result, 0 and the reason (text is
 * appended to out), -1 when all ranks have ended instead. */
int gang_answer(struct gang *gang, struct buf *out);
/* Waits until a rank reports that at least that many steps are done. */
void gang_wait_step(struct gang *gang, int64_t step);
/* Lease and answer; fails the test unless it is done. */
void gang_do(struct gang *gang, const char *phase, int64_t first, int64_t count,
             const char *args, struct buf *result);

/* RANK_DONE to all, or a signal to one; then waits until all have ended. */
void gang_finish(struct gang *gang);
void gang_signal(struct gang *gang, int rank, int signal);
void gang_wait_end(struct gang *gang);

#endif
