/* vneva_data.h - what the commands of `vneva data` share
 *
 * Each is in one file. Threads: none.
 */
#ifndef VNEVA_DATAPREP_VNEVA_DATA_H
#define VNEVA_DATAPREP_VNEVA_DATA_H

#include "common/base/program.h"

#include <stdint.h>

/* docs/architecture.md, "Exit codes of every program" */
enum data_exit { DATA_DONE = 0, DATA_FAILED = 1, DATA_USAGE = 2 };

extern const struct program_command data_prepare, data_rejects, data_show, data_synth,
    data_tokenize, data_train_tokenizer;

/* What --template names, else `otherwise`; ERR_INVALID names those there are. */
struct conv_template;
int data_find_template(const struct conv_template **out, const struct args *args,
                       const char *otherwise, struct err *err);

/* One line of progress: rewritten on a terminal, else one every tenth of the way. */
void data_progress(const char *what, int64_t n_done, int64_t n_total);

#endif
