#define _GNU_SOURCE /* AT_SYMLINK_FOLLOW is POSIX, FICLONE is Linux */
#include "model/checkpoint/internal.h"

#include "common/base/fault.h"
#include "common/base/fs.h"
#include "common/base/hash.h"
#include "model/weights/internal.h"
#include "model/weights/manifest.h"
#include "model/weights/parallel.h"

#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

/* ---- files ---- */

/* The same blocks under another name, where the file system has that (XFS, Btrfs). */
static bool clone_file(const char *to, const char *from)
{
    int in = open(from, O_RDONLY | O_CLOEXEC), out = -1;
    bool is_cloned = false;

    if (in >= 0)
        out = open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (out >= 0)
        is_cloned = ioctl(out, FICLONE, in) == 0 && fsync(out) == 0;
    if (in >= 0)
        close(in);
    if (out >= 0)
        close(out);
    if (out >= 0 && !is_cloned)
        unlink(to);
    return is_cloned;
}

/* Links follow symbolic ones, which the hub's cache is made of. */
static int place_file(const char *to, const char *from, bool wants_copy, struct err *err)
{
    if (!wants_copy && linkat(AT_FDCWD, from, AT_FDCWD, to, AT_SYMLINK_FOLLOW) == 0)
        return 0;
    if (clone_file(to, from)) /* as good as a copy: blocks part when one is written */
        return 0;
    return fs_copy_file(to, from, err);
}

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash ? slash + 1 : path;
}

static int place_files(const struct weights *w, const char *folder, bool wants_copies,
                       struct err *err)
{
    char to[FS_PATH_MAX];

    for (int i = 0; i < w->files.n_maps; i++) {
        if (fault_hit("checkpoint.tensors"))
            return err_set(err, ERR_IO, "fault point checkpoint.tensors");
        if (fs_path(to, err, "%s/%s", folder, base_name(w->files.paths[i])) < 0 ||
            place_file(to, w->files.paths[i], wants_copies, err) < 0)
            return -1;
    }
    return 0;
}

static int copy_config(const struct weights *w, const char *folder, struct err *err)
{
    char from[FS_PATH_MAX], to[FS_PATH_MAX];
    struct json *json;

    if (fs_path(from, err, "%s/config.json", w->path) < 0 ||
        fs_path(to, err, "%s/config.json", folder) < 0 || fs_copy_file(to, from, err) < 0)
        return -1;
    if (!(w->config.parts & WEIGHTS_VISION))
        return 0;
    if (fs_path(from, err, "%s/preprocessor_config.json", w->path) < 0 ||
        fs_path(to, err, "%s/preprocessor_config.json", folder) < 0)
        return -1;
    if (fs_exists(from))
        return fs_copy_file(to, from, err);
    if (hf_preprocessor_write(&json, &w->config.model, err) < 0)
        return -1;
    return checkpoint_write_file(folder, "preprocessor_config.json", json, err);
}

/* ---- checksums ---- */

static int hash_tensor(void *state, int i, struct err *err)
{
    struct weights *w = state;
    struct stored *stored = &w->files.tensors[i];

    (void)err;
    files_need(&stored->tensor);
    stored->place.hash = hash64(stored->tensor.data, tensor_bytes(&stored->tensor), 0);
    files_drop(&stored->tensor);
    return 0;
}

static int add_hash(struct json *to, const char *key, uint64_t hash, struct err *err)
{
    char text[17];

    snprintf(text, sizeof(text), "%016" PRIx64, hash);
    return json_set(to, key, json_new_string(text), err);
}

static int fill_entry(struct json *file, struct json *hashes, const struct weights *w,
                      int map, struct err *err)
{
    const struct safetensors *from = &w->files.maps[map];

    for (int i = 0; i < w->files.n_tensors; i++) {
        const struct stored *stored = &w->files.tensors[i];

        if (stored->file == w->files.paths[map] &&
            add_hash(hashes, stored->own_name, stored->place.hash, err) < 0)
            return -1;
    }
    if (json_set(file, "name", json_new_string(base_name(w->files.paths[map])), err) <
            0 ||
        json_set(file, "bytes", json_new_int((int64_t)from->n_bytes), err) < 0 ||
        add_hash(file, "header_xxh64", from->header_hash, err) < 0)
        return -1;
    return json_set(file, "names", json_new_string(MANIFEST_NAMES), err);
}

static struct json *files_json(const struct weights *w, struct err *err)
{
    struct json *list = json_new(JSON_ARRAY);

    for (int i = 0; i < w->files.n_maps; i++) {
        struct json *file = json_new(JSON_OBJECT), *hashes = json_new(JSON_OBJECT);

        if (fill_entry(file, hashes, w, i, err) < 0) {
            json_free(file);
            json_free(hashes);
        } else if (json_set(file, "xxh64", hashes, err) < 0) {
            json_free(file);
        } else if (json_append(list, file, err) == 0) {
            continue;
        }
        json_free(list);
        return NULL;
    }
    return list;
}

/* ---- the whole ---- */

static int adopt(const char *temporary, const char *folder, struct weights *w,
                 bool wants_copies, const struct json *meta,
                 const struct checkpoint_extra *extra, struct err *err)
{
    struct json *files;

    if (fs_remove_tree(temporary, err) < 0 || fs_make_dirs(temporary, 0777, err) < 0 ||
        parallel_run(parallel_threads(1), w->files.n_tensors, hash_tensor, w, err) < 0 ||
        place_files(w, temporary, wants_copies, err) < 0 ||
        copy_config(w, temporary, err) < 0 ||
        (extra && extra->write(extra->state, temporary, err) < 0))
        return -1;
    files = files_json(w, err);
    if (!files ||
        checkpoint_write_manifest(temporary, MANIFEST_VERSION_FOREIGN, files, meta, err) <
            0 ||
        fs_sync_dir(temporary, err) < 0)
        return -1;
    return checkpoint_rename(temporary, folder, err);
}

int checkpoint_adopt(const char *folder, struct weights *weights, bool wants_copies,
                     const struct json *meta, const struct checkpoint_extra *extra,
                     struct err *err)
{
    char temporary[FS_PATH_MAX];

    if (weights->is_checkpoint || weights->config.layout == HF_LAYOUT_PROJECTOR)
        return err_set(
            err, ERR_INVALID, "'%s' is %s, wanted a Hugging Face folder", weights->path,
            weights->is_checkpoint ? "a checkpoint already" : "a projector alone");
    if (fs_path(temporary, err, "%s.tmp", folder) < 0)
        return -1;
    if (adopt(temporary, folder, weights, wants_copies, meta, extra, err) < 0) {
        (void)fs_remove_tree(temporary, NULL);
        return err_wrap(err, "cannot make checkpoint '%s'", folder);
    }
    return 0;
}
