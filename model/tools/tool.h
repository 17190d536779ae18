/* tool.h - what the commands of vneva-model share
 *
 * `vneva model show | diff`, `vneva import` and `vneva export` look at folders of weights
 * and make some, without running the model. A command prints results to standard output,
 * everything else to standard error, and returns an exit code.
 * Threads: one.
 */
#ifndef VNEVA_MODEL_TOOLS_TOOL_H
#define VNEVA_MODEL_TOOLS_TOOL_H

#include "common/base/args.h"
#include "common/base/fs.h"
#include "common/base/json.h"

#include <getopt.h>

/* Exit codes, of those in docs/architecture.md. */
enum tool_exit { TOOL_DONE = 0, TOOL_FAILED = 1, TOOL_USAGE = 2, TOOL_SYSTEM = 5 };

#define TOOL_JSON_MAX ((size_t)256 << 20) /* bytes of a configuration or tokenizer file */

struct tool_command {
    const char *name, *said; /* "diff", and how people call it: "model diff" */
    const char *summary, *help;
    int (*run)(int argc, char **argv); /* argv[0]: the name */
};

extern const struct tool_command tool_show, tool_diff, tool_import, tool_export;

/* Prints "vneva model diff: text" and returns the exit code that fits. */
int tool_fail(const struct tool_command *command, const struct err *err);

/* A line or more on standard output. */
int tool_print_json(const struct json *json, struct err *err);

/* ERR_INVALID when there are not exactly n words behind the options. */
int tool_words(int argc, char **argv, int n, const char *what, struct err *err);

/* 1234567 bytes as "1.2 MB", into the buffer. */
const char *tool_size(char out[32], double n_bytes);

#endif
