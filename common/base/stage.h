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
 * Of a process without such a page (tests, tools) all of this does nothing.
 * Owns: stage_make's page is the caller's. Threads: the writer's main thread only.
 * Units: ns of the monotonic clock, which is the same for all processes of a machine.
 */
#ifndef VNEVA_COMMON_BASE_STAGE_H
#define VNEVA_COMMON_BASE_STAGE_H

#include "common/base/err.h"

#include <stdint.h>

#define STAGE_TEXT_MAX 80

/* Whether a stage counts as stuck after stage_set_limit's time, or may take as long as it
 * likes: work that waits for others, or has a deadline of its own. */
enum stage_kind { STAGE_LIMITED, STAGE_FREE };

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
