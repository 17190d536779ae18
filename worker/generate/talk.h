/* talk.h - where questions come from and answers go to
 *
 * Answers go to standard output: as text while they come, or with --json a line each.
 * Everything else goes to standard error. Returns exit codes.
 * Threads: one caller.
 */
#ifndef VNEVA_WORKER_GENERATE_TALK_H
#define VNEVA_WORKER_GENERATE_TALK_H

#include "worker/generate/session.h"

/* Exit codes, of those in docs/architecture.md. */
enum talk_exit { TALK_DONE = 0, TALK_FAILED = 1, TALK_USAGE = 2, TALK_SYSTEM = 5 };

struct talk {
    const struct options *options;
    struct session *session;
    int64_t n_failed; /* questions of a file */
};

/* Prints the error; the exit code that fits. */
int talk_fail(const struct err *err);
/* Says which template was guessed, and from what. */
void talk_tell_guess(const struct talk *talk);

int talk_question(struct talk *talk); /* the one of the command line */
int talk_file(struct talk *talk);     /* --questions: an answer line for each record */
int talk_person(struct talk *talk);   /* until end of file */

#endif
