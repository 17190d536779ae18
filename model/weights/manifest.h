/* manifest.h - checkpoint.json: which files a checkpoint has
 *
 *     {"format": "vneva-checkpoint", "version": 1, "meta": {...}, "files": [
 *         {"name": "tensors-0000.safetensors", "bytes": n, "header_xxh64": "..."}]}
 * Version 2 may also list files as they came from elsewhere: "names": "huggingface" says
 * that tensors are whole and named as config.json's class has them, "xxh64" has the
 * checksum of each. Files of version 1 have both in the notes of their tensors (slice.h).
 * The header's checksum is of what says where the tensors lie (struct safetensors).
 */
#ifndef VNEVA_MODEL_WEIGHTS_MANIFEST_H
#define VNEVA_MODEL_WEIGHTS_MANIFEST_H

#include "common/base/json.h"

#define MANIFEST_FORMAT "vneva-checkpoint"
#define MANIFEST_VERSION 1         /* files of our own alone */
#define MANIFEST_VERSION_FOREIGN 2 /* the newest */
#define MANIFEST_JSON_MAX ((size_t)64 << 20)
#define MANIFEST_NAMES "huggingface"

/* ERR_NOT_FOUND, ERR_FORMAT: the folder is no complete checkpoint. The caller frees *out. */
int manifest_read(struct json **out, const char *folder, struct err *err);

/* The path [FS_PATH_MAX] of an entry of "files"; an error unless the file is there and
 * has the size the entry says. */
int manifest_file(char *path, const char *folder, const struct json *entry,
                  struct err *err);

#endif
