/* stage.h - what a process is doing, kept where another can read it
 *
 * A rank whose main thread hangs cannot send a message that says where. So it writes each
 * stage it enters into a page of memory that it shares with its agent, and the agent reads
 * it whenever it likes. Stages nest: what a collective interrupts goes on after it, with a
 * new time, for it has got somewhere.
 *
 *     struct stage_mark before = stage_begin("forward", NULL, STAGE_LIMITED);
 *     ...
 *     stage_end(before);
 *
 * One that waits for others may do so for as long as it likes, and gives a sign while it
 * does (stage_sign, stage_poll). Without one for STAGE_SIGN_LATE_MS it does not wait any
 * more but hangs, and has the limit of all others, from its last sign on.
 *
 * Of a process without such a page (tests, tools) all of this does nothing.
 * Owns: stage_make's page is the caller's. Threads: the writer's main thread only;
 * stage_sign, stage_poll: any.
 * Units: ns of the monotonic clock, which is the same for all processes of a machine.
 */
#ifndef VNEVA_COMMON_BASE_STAGE_H
#define VNEVA_COMMON_BASE_STAGE_H

#include "common/base/err.h"

#include <poll.h>
#include <stdint.h>

#define STAGE_TEXT_MAX 80
#define STAGE_START_MS 300000 /* limit of "starting": the process has no other one yet */
#define STAGE_SIGN_MS 1000    /* a sign is given this often at least */
#define STAGE_SIGN_LATE_MS 3000

/* Whether a stage counts as stuck after stage_set_limit's time, does so only when no sign
 * of its process comes any more (work that waits for others), or may take as long as it
 * likes (it has a deadline of its own, or nobody knows how long it takes). */
enum stage_kind { STAGE_LIMITED, STAGE_WAITING, STAGE_FREE };

struct stage_mark {
    const char *what, *of;
    enum stage_kind kind;
};

/* ---- the process that is watched ---- */

/* fd: that of stage_make, closed here. who: its part of the names of fault points, as
 * "rank1.forward" (fault.h). */
int stage_attach(int fd, const char *who, struct err *err);
void stage_set_limit(int64_t ms); /* of limited stages; 0: none */
void stage_set_step(int64_t step);

/* what, of ("all-reduce", "tensor"): borrowed until the next stage. Gives what was. */
struct stage_mark stage_begin(const char *what, const char *of, enum stage_kind kind);
void stage_end(struct stage_mark before);
/* The stage has got somewhere: its time begins anew. */
void stage_touch(void);
/* The process is there and waits. */
void stage_sign(void);
/* poll(2) that gives signs; timeout_ms -1: no end. */
int stage_poll(struct pollfd *fds, nfds_t n_fds, int64_t timeout_ms);

/* ---- the one that watches ---- */

struct stage_board;

/* A page and a descriptor of it for the other process (close on exec is set). */
int stage_make(struct stage_board **out, int *fd, struct err *err);
void stage_unmake(struct stage_board *board); /* NULL is fine */

struct stage_now {
    char text
        [STAGE_TEXT_MAX]; /* "forward", "starting" at first; "all-reduce of group tensor" */
    int64_t since_ns, limit_ms, step; /* step -1: none */
};

void stage_read(const struct stage_board *board, struct stage_now *out);

#endif
