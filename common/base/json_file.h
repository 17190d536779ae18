/* json_file.h - JSON trees in the files of a folder
 *
 * Errors name the file, and of its text line and column. Threads: any.
 */
#ifndef VNEVA_COMMON_BASE_JSON_FILE_H
#define VNEVA_COMMON_BASE_JSON_FILE_H

#include "common/base/json.h"

/* folder/name, of at most n_most bytes. The caller frees *out. */
int json_file_read(struct json **out, const char *folder, const char *name, size_t n_most,
                   struct err *err);
/* The same, but *out is NULL where there is no such file. */
int json_file_find(struct json **out, const char *folder, const char *name, size_t n_most,
                   struct err *err);

/* Replaces folder/name in one step, synced; indented. */
int json_file_write(const char *folder, const char *name, const struct json *json,
                    struct err *err);

#endif
