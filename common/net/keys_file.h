/* keys_file.h - files that are the user's alone: how keys.c and keys_home.c touch them
 *
 * Not for other rooms.
 * Owns: nothing.
 */
#ifndef VNEVA_COMMON_NET_KEYS_FILE_H
#define VNEVA_COMMON_NET_KEYS_FILE_H

#include "common/base/err.h"

#include <stddef.h>
#include <sys/stat.h>

/* Opens a file for reading that is a plain file of the user's own which nobody else may
 * read or write; symbolic links are not followed. -1 with ERR_NOT_FOUND, ERR_DENIED,
 * ERR_IO. */
int keys_file_open(const char *path, struct stat *st, struct err *err);

/* The whole file, NUL terminated; one of capacity bytes or more is ERR_LIMIT. */
int keys_file_read(const char *path, char *out, size_t capacity, size_t *n_bytes,
                   struct err *err);

/* A new file of mode 0600, durable when this returns; ERR_EXISTS leaves the old one. */
int keys_file_create(const char *path, const char *text, size_t n_bytes, struct err *err);
/* The same in the place of what is there, by one writer at a time. */
int keys_file_replace(const char *path, const char *text, size_t n_bytes,
                      struct err *err);

#endif
