/* vneva_data.h - what the commands of `vneva data` share
 *
 * Each command is one function in one file: it reads its arguments, prints to standard
 * output, errors to standard error, and returns the exit status.
 * Threads: none.
 */
#ifndef VNEVA_DATAPREP_VNEVA_DATA_H
#define VNEVA_DATAPREP_VNEVA_DATA_H

#include "common/base/args.h"

#include <getopt.h>
#include <stdint.h>

enum data_exit { /* docs/architecture.md, "Exit codes of every program" */
                 DATA_DONE = 0,
                 DATA_FAILED = 1,
                 DATA_USAGE = 2,
                 DATA_SYSTEM = 5,
};

struct data_command {
    const char *name, *summary, *help;
    int (*run)(int argc, char **argv);
};

extern const struct data_command data_prepare, data_rejects, data_show, data_synth,
    data_tokenize, data_train_tokenizer;

/* Prints the error; the exit status that fits its code. */
int data_fail(const struct err *err);
/* Says what is wrong with the arguments and where to look. */
int data_usage(const struct data_command *command, const char *what);

/* One line of progress: rewritten on a terminal, else one every tenth of the way. */
void data_progress(const char *what, int64_t n_done, int64_t n_total);

#endif
