/* fs.h - files written so that a crash leaves the old one or the new one, never half
 *
 * Units: bytes. Paths are UTF-8, at most FS_PATH_MAX with the NUL.
 */
#ifndef VNEVA_COMMON_BASE_FS_H
#define VNEVA_COMMON_BASE_FS_H

#include "common/base/buf.h"
#include "common/base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FS_PATH_MAX 4096

/* Formats a path into out[FS_PATH_MAX]; too long is an error, never a cut. */
int fs_path(char *out, struct err *err, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* The folder that holds path: "." of a plain name, "/" of "/x". out[FS_PATH_MAX] */
int fs_parent(char *out, const char *path, struct err *err);

/* Makes a folder and its parents; one that exists is fine. */
int fs_make_dirs(const char *path, unsigned mode, struct err *err);

/* Reads a whole file, at most max_bytes (more is ERR_LIMIT), appended to out. */
int fs_read_file(struct buf *out, const char *path, size_t max_bytes, struct err *err);

/* Writes all of it, however many calls that takes; -1 with errno. */
int fs_write_all(int fd, const void *bytes, size_t n_bytes);

/* Writes path.tmp-PID, fsyncs it, renames it over path, fsyncs the folder. */
int fs_write_file_atomic(const char *path, const void *bytes, size_t n_bytes,
                         struct err *err);

/* Copies a file's bytes to a new file, synced: what is at `to` already is replaced. */
int fs_copy_file(const char *to, const char *from, struct err *err);

/* fsync of a folder: makes a rename inside it durable. */
int fs_sync_dir(const char *path, struct err *err);

/* Puts a finished folder under its final name, durably. One that is there already is
 * exchanged in one operation, so that a complete one is there at any time, and removed. */
int fs_put_dir(const char *from, const char *to, struct err *err);

/* Removes a file, or a folder with all it holds. What is not there is fine. */
int fs_remove_tree(const char *path, struct err *err);

/* The folder this program lies in, where its siblings are too. out[FS_PATH_MAX] */
int fs_program_folder(char *out, struct err *err);

bool fs_exists(const char *path);
/* ERR_NOT_FOUND: "'path' is not there", or why it cannot be reached. */
int fs_must_exist(const char *path, struct err *err);
bool fs_ends(const char *path, const char *with); /* ".json" */
bool fs_is_dir(const char *path);

/* Bytes free on the file system that holds path. */
int fs_free_bytes(uint64_t *out, const char *path, struct err *err);

#endif
