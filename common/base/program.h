/* program.h - a program of several commands, as vneva-data and vneva-model are
 *
 * A command prints results to standard output and everything else to standard error.
 * Threads: one.
 */
#ifndef VNEVA_COMMON_BASE_PROGRAM_H
#define VNEVA_COMMON_BASE_PROGRAM_H

#include "common/base/args.h"

struct program_command {
    const char *name, *said; /* "diff", and how people call it: "vneva model diff" */
    const char *help;
    const struct args_option *options; /* NULL: none */
    const char *words;                 /* what it takes beside them: "FOLDER OUT" */
    int min_words, max_words;
    /* Returns an exit status, of those in docs/architecture.md, or -1. */
    int (*run)(const struct args *args, struct err *err);
};

struct program {
    const char *said, *help;                       /* "vneva model" */
    const struct program_command *const *commands; /* ended by NULL */
};

/* Runs the command that argv[1] names; what cannot be is said on standard error. Returns
 * the exit status. */
int program_run(const struct program *program, int argc, char *const *argv);

#endif
