/* tool.h - what the commands of vneva-model share
 *
 * `vneva model show | diff`, `vneva import` and `vneva export` look at folders of weights
 * and make some, without running the model.
 */
#ifndef VNEVA_MODEL_TOOLS_TOOL_H
#define VNEVA_MODEL_TOOLS_TOOL_H

#include "common/base/fs.h"
#include "common/base/json.h"
#include "common/base/program.h"

/* Exit codes, of those in docs/architecture.md. */
enum tool_exit { TOOL_DONE = 0, TOOL_FAILED = 1 };

#define TOOL_JSON_MAX ((size_t)256 << 20) /* bytes of a configuration or tokenizer file */

extern const struct program_command tool_show, tool_diff, tool_import, tool_export;

/* A line or more on standard output. */
int tool_print_json(const struct json *json, struct err *err);

/* 1234567 bytes as "1.2 MB", into the buffer. */
const char *tool_size(char out[32], double n_bytes);

#endif
