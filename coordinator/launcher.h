/* launcher.h - calls of `vneva-launch` as child processes that nobody waits for
 *
 * A call is started, runs beside the loop and is given back when it has ended, whatever
 * became of it: nothing here blocks. Each has a process group of its own, which is killed at
 * the deadline, and dies with the coordinator (PR_SET_PDEATHSIG; what it has started may
 * live on).
 * Owns: the children and what they have written. Threads: one, the one that made it.
 * Units: ms of the monotonic clock.
 * Bounds: LAUNCHER_*_MAX; a call that writes more has failed.
 */
#ifndef VNEVA_COORDINATOR_LAUNCHER_H
#define VNEVA_COORDINATOR_LAUNCHER_H

#include "common/base/buf.h"
#include "common/base/err.h"

#include <stdbool.h>
#include <stdint.h>

#define LAUNCHER_CALLS_MAX 16          /* at the same time */
#define LAUNCHER_OUTPUT_MAX (4 << 20)  /* bytes of standard output */
#define LAUNCHER_ERRORS_MAX (64 << 10) /* of standard error */
#define LAUNCHER_ARGS_MAX 192

enum launcher_verb { LAUNCHER_SUBMIT, LAUNCHER_LIST, LAUNCHER_CANCEL };

struct launcher_call { /* what it is for: the caller's, given back with the result */
    enum launcher_verb verb;
    int64_t pool, allocation; /* allocation: of LAUNCHER_SUBMIT */
    int64_t started_ms;       /* set here */
};

struct launcher_result {
    struct launcher_call call;
    bool is_ok;        /* exit status 0, and everything it wrote is there */
    bool is_late;      /* it was killed at its deadline */
    const char *out;   /* its standard output */
    const char *error; /* why not is_ok: the last line of its standard error, or how it
                          ended; "" otherwise */
};

struct launcher;

/* program: what is called, a path; copied. */
int launcher_create(struct launcher **out, const char *program, int64_t timeout_ms,
                    struct err *err);
void launcher_destroy(struct launcher *launcher); /* kills what runs */

/* args: the words after the program's name, at most LAUNCHER_ARGS_MAX, NULL at the end.
 * ERR_LIMIT: LAUNCHER_CALLS_MAX run already. */
int launcher_start(struct launcher *launcher, const struct launcher_call *call,
                   const char *const *args, int64_t now_ms, struct err *err);
/* One call that has ended; false: none has. Its texts are valid until the next poll. */
bool launcher_poll(struct launcher *launcher, struct launcher_result *out,
                   int64_t now_ms);
/* Calls that run: of a verb for a pool; for one allocation; all. */
int launcher_count(const struct launcher *launcher, int64_t pool,
                   enum launcher_verb verb);
bool launcher_is_submitting(const struct launcher *launcher, int64_t allocation);
int launcher_count_all(const struct launcher *launcher);

#endif
