/* ask.h - questions asked one at a time, and their answers kept for a moment
 *
 * A thread of its own answers questions (texts), one after another; who asks is woken
 * when the answer is there. Many who ask the same share one answer, and one that was
 * asked for less than ASK_KEEP_MS ago is given again, so that what is behind (the
 * coordinator) has the same work for one browser as for many.
 * Owns: the thread, the answers. An answer lives as long as somebody has it.
 * Threads: ask_find, ask_begin, ask_drop, ask_answer from one thread; `write` runs in the
 * asking thread, `wake` there or in the caller's.
 * Bounds: ASK_WAITING_MAX questions wait; an answer is as large as `write` lets it be.
 */
#ifndef VNEVA_JOBS_DASHBOARD_ASK_H
#define VNEVA_JOBS_DASHBOARD_ASK_H

#include "common/base/err.h"

#include <stddef.h>
#include <stdint.h>

#define ASK_KEEP_MS 1000
#define ASK_WAITING_MAX 64

/* What `write` fills. */
struct ask_text {
    int status;       /* of HTTP */
    const char *type; /* a literal */
    int may_be_kept;
    char *bytes; /* from malloc; NULL: none */
    size_t n_bytes;
};

struct ask;
struct ask_item; /* a question, and its answer when there is one */

/* write: answers a question; state is borrowed and only that thread uses it. */
int ask_create(struct ask **out,
               void (*write)(void *state, const char *question, struct ask_text *out),
               void *state, struct err *err);
/* No more questions: what waits is woken, with no answer. Joins the thread. */
void ask_stop(struct ask *ask);
void ask_destroy(struct ask *ask); /* stopped, and all items dropped; NULL is fine */

/* An answer that is fresh, to be dropped; NULL: there is none. */
struct ask_item *ask_find(struct ask *ask, const char *question);
/* Asks, or joins those who did. wake(arg) comes once, perhaps before this returns.
 * ERR_LIMIT when too many wait, ERR_STATE after ask_stop: wake does not come then. */
int ask_begin(struct ask *ask, struct ask_item **out, const char *question,
              void (*wake)(void *arg), void *arg, struct err *err);
/* NULL: ask_stop came first. Borrowed from the item. Only after wake. */
const struct ask_text *ask_answer(struct ask *ask, struct ask_item *item);
void ask_drop(struct ask *ask, struct ask_item *item);

#endif
