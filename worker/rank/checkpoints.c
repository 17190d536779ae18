#include "worker/rank/checkpoints.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- what a checkpoint is bound to ---- */

static int set_text(struct json *object, const char *key, const char *text,
                    struct err *err)
{
    return json_set(object, key, text ? json_new_string(text) : json_new(JSON_NULL), err);
}

static int set_int(struct json *object, const char *key, int64_t value, struct err *err)
{
    return json_set(object, key, json_new_int(value), err);
}

int checkpoints_binding(struct json **out, const struct spec *spec, uint64_t fingerprint,
                        struct err *err)
{
    struct json *json = json_new(JSON_OBJECT);
    char text[17];

    snprintf(text, sizeof(text), "%016" PRIx64, fingerprint);
    if (set_text(json, "the data's fingerprint", text, err) < 0 ||
        set_int(json, "model.global_batch_size", spec->model.global_batch_size, err) <
            0 ||
        set_int(json, "model.seed", spec->model.seed, err) < 0 ||
        set_int(json, "model.data.num_frames", spec->data.num_frames, err) < 0 ||
        set_text(json, "model.data.splice_single_frame", spec->data.splice_single_frame,
                 err) < 0 ||
        set_text(json, "model.data.image_aspect_ratio", spec->data.image_aspect_ratio,
                 err) < 0 ||
        set_int(json, "model.mm_cfg.vision_encoder.crop_size", spec->vision.crop_size,
                err) < 0 ||
        set_int(json, "model.mm_cfg.vision_encoder.patch_dim", spec->vision.patch_dim,
                err) < 0) {
        json_free(json);
        return -1;
    }
    *out = json;
    return 0;
}

static struct json *extra_tokens(const struct dataset_info *data, struct err *err)
{
    struct json *list = json_new(JSON_ARRAY);

    for (int i = 0; i < data->n_extra_tokens && list; i++)
        if (json_append(list, json_new_string(data->extra_tokens[i]), err) < 0) {
            json_free(list);
            return NULL;
        }
    return list;
}

static struct json *prompt_json(const struct dataset_info *data, struct err *err)
{
    struct json *json = json_new(JSON_OBJECT);

    if (set_text(json, "template", data->conv_template, err) == 0 &&
        json_set(json, "use_im_start_end", json_new_bool(data->use_im_start_end), err) ==
            0 &&
        json_set(json, "media_first", json_new_bool(data->media_first), err) == 0 &&
        json_set(json, "extra_tokens", extra_tokens(data, err), err) == 0 &&
        set_int(json, "end_token", data->end_token, err) == 0)
        return json;
    json_free(json);
    return NULL;
}

int checkpoints_meta(struct json **out, const struct spec *spec,
                     const struct json *binding, int64_t step,
                     const struct dataset_info *data, struct err *err)
{
    struct json *json = json_new(JSON_OBJECT);

    if (set_int(json, "step", step, err) < 0 ||
        set_int(json, "consumed_samples", step * spec->model.global_batch_size, err) <
            0 ||
        set_int(json, "vocab", data->vocab, err) < 0 ||
        json_set(json, "prompt", prompt_json(data, err), err) < 0 ||
        set_text(json, "kind", spec_kind_name(spec->kind), err) < 0 ||
        json_set(json, "binding", json_clone(binding), err) < 0 ||
        json_set(json, "spec", json_clone(spec->tree), err) < 0) {
        json_free(json);
        return -1;
    }
    *out = json;
    return 0;
}

int checkpoints_check(int64_t *step, const struct json *meta, const struct json *binding,
                      struct err *err)
{
    const struct json *old = json_get(meta, "binding");

    for (size_t i = 0; i < json_count(binding); i++) {
        const char *key = json_key_at(binding, i);
        struct buf was = BUF_INIT, is = BUF_INIT;
        bool is_same;

        json_write(&was, json_get(old, key), 0);
        json_write(&is, json_at(binding, i), 0);
        is_same = strcmp(buf_str(&was), buf_str(&is)) == 0;
        if (!is_same)
            err_set(err, ERR_INVALID,
                    "%s was %s when the checkpoint was written and is %s now: going on "
                    "would not be the same run",
                    key, buf_str(&was), buf_str(&is));
        buf_fini(&was);
        buf_fini(&is);
        if (!is_same)
            return -1;
    }
    *step = json_get_int(meta, "step", -1);
    if (*step < 0)
        return err_set(err, ERR_FORMAT, "the checkpoint does not say its step");
    return 0;
}

/* ---- finding ---- */

int checkpoints_find(char *out, const char *path, struct err *err)
{
    char folder[FS_PATH_MAX];
    int found;

    if (fs_path(folder, err, "%s/checkpoint.json", path) < 0)
        return -1;
    if (fs_exists(folder))
        return fs_path(out, err, "%s", path);
    if (fs_path(folder, err, "%s/checkpoints", path) < 0)
        return -1;
    if (!fs_is_dir(folder) && fs_path(folder, err, "%s", path) < 0)
        return -1;
    found = checkpoint_find_newest(out, folder, err);
    if (found == 0)
        return err_set(
            err, ERR_NOT_FOUND,
            "'%s' is neither a checkpoint nor the folder of a run that has one", path);
    return found < 0 ? -1 : 0;
}

/* The first of several ranks that come here at once wins. */
static int note_source(const char *note, const char *source, struct err *err)
{
    char mine[FS_PATH_MAX];
    int rc = 0;

    if (fs_path(mine, err, "%s.%d", note, (int)getpid()) < 0 ||
        fs_write_file_atomic(mine, source, strlen(source), err) < 0)
        return -1;
    if (link(mine, note) < 0 && errno != EEXIST)
        rc = err_set(err, ERR_IO, "cannot make '%s': %s", note, strerror(errno));
    (void)unlink(mine);
    return rc;
}

int checkpoints_find_once(char *out, const char *folder, const char *path,
                          struct err *err)
{
    char note[FS_PATH_MAX];
    struct buf source = BUF_INIT;
    int rc;

    if (fs_path(note, err, "%s/source.txt", folder) < 0)
        return -1;
    if (!fs_exists(note) &&
        (checkpoints_find(out, path, err) < 0 || note_source(note, out, err) < 0))
        return -1;
    rc = fs_read_file(&source, note, FS_PATH_MAX, err);
    if (rc == 0)
        rc = fs_path(out, err, "%s", buf_str(&source));
    buf_fini(&source);
    return rc;
}

int64_t checkpoints_step(const char *path)
{
    const char *slash = path ? strrchr(path, '/') : NULL;

    return slash ? checkpoint_name_step(slash + 1, false) : -1;
}

/* ---- cleaning ---- */

static bool is_kept(const struct json *keep, const char *path)
{
    for (size_t i = 0; i < json_count(keep); i++)
        if (json_string(json_at(keep, i)) &&
            strcmp(json_string(json_at(keep, i)), path) == 0)
            return true;
    return false;
}

/* First what makes the folder a checkpoint, so that no half of one can be taken for it. */
static int remove_checkpoint(const char *path, struct err *err)
{
    char head[FS_PATH_MAX];

    if (fs_path(head, err, "%s/checkpoint.json", path) < 0)
        return -1;
    if (unlink(head) < 0 && errno != ENOENT && errno != ENOTDIR)
        return err_set(err, ERR_IO, "cannot remove '%s': %s", head, strerror(errno));
    return fs_remove_tree(path, err);
}

int checkpoints_clean(const char *folder, const struct json *args, struct err *err)
{
    const struct json *keep = json_get(args, "keep");
    int64_t newest = json_get_int(args, "newest_step", -1);
    char parent[FS_PATH_MAX], path[FS_PATH_MAX];
    struct dirent *entry;
    DIR *dir;
    int rc = 0;

    if (fs_path(parent, err, "%s/checkpoints", folder) < 0)
        return -1;
    dir = opendir(parent);
    if (!dir)
        return 0; /* none were written yet */
    while (rc == 0 && (entry = readdir(dir))) {
        int64_t step = checkpoint_name_step(entry->d_name, true);

        if (step < 0 || step >= newest)
            continue;
        rc = fs_path(path, err, "%s/%s", parent, entry->d_name);
        /* without a list all are kept, but what is half written goes */
        if (rc == 0 && !(keep ? is_kept(keep, path)
                              : checkpoint_name_step(entry->d_name, false) >= 0))
            rc = remove_checkpoint(path, err);
    }
    closedir(dir);
    return rc;
}

int checkpoints_clean_unfinished(const char *folder, struct err *err)
{
    struct json *args = json_new(JSON_OBJECT);
    int rc = json_set(args, "newest_step", json_new_int(INT64_MAX), err);

    if (rc == 0)
        rc = checkpoints_clean(folder, args, err);
    json_free(args);
    return rc;
}

/* The newest complete checkpoint of a step up to *step that the list does not name; its
 * step goes to *step. 1: there is one. */
static int find_unnamed(char *out, const char *parent, const struct json *list,
                        int64_t *step, struct err *err)
{
    DIR *dir = opendir(parent);
    char path[FS_PATH_MAX];
    struct dirent *entry;
    int64_t newest = -1;
    int rc = 0;

    while (dir && rc == 0 && (entry = readdir(dir))) {
        int64_t at = checkpoint_name_step(entry->d_name, false);

        if (at <= newest || at > *step)
            continue;
        rc = fs_path(path, err, "%s/%s", parent, entry->d_name);
        if (rc == 0 && !is_kept(list, path)) {
            newest = at;
            memcpy(out, path, strlen(path) + 1);
        }
    }
    if (dir)
        closedir(dir);
    *step = newest;
    return rc < 0 ? -1 : newest >= 0;
}

int checkpoints_inherit(struct json *args, const char *folder, int64_t last_step,
                        int64_t n_kept, struct err *err)
{
    struct json *keep = json_get(args, "keep");
    char parent[FS_PATH_MAX], path[FS_PATH_MAX];
    int rc = 1;

    if (json_type(keep) != JSON_ARRAY)
        return 0; /* all are kept */
    if (fs_path(parent, err, "%s/checkpoints", folder) < 0)
        return -1;
    while (rc > 0 && (int64_t)json_count(keep) < n_kept) {
        rc = find_unnamed(path, parent, keep, &last_step, err);
        if (rc > 0 && checkpoints_add(keep, path, err) < 0)
            rc = -1;
    }
    return rc < 0 ? -1 : 0;
}

int checkpoints_add(struct json *known, const char *path, struct err *err)
{
    return json_append(known, json_new_string(path), err);
}

struct json *checkpoints_merge(const struct json *known, const struct json *args,
                               struct err *err)
{
    const struct json *keep = json_get(args, "keep");
    int64_t newest = json_get_int(args, "newest_step", -1);
    struct json *merged = keep ? json_clone(keep) : json_new(JSON_ARRAY);

    for (size_t i = 0; i < json_count(known); i++) {
        const char *path = json_string(json_at(known, i));

        if (checkpoints_step(path) > newest && checkpoints_add(merged, path, err) < 0) {
            json_free(merged);
            return NULL;
        }
    }
    if (!merged)
        err_set(err, ERR_NOMEM, "out of memory");
    return merged;
}

/* How many of the list are of a later step than its i-th. */
static int64_t n_newer(const struct json *known, size_t i)
{
    int64_t step = checkpoints_step(json_string(json_at(known, i))), n = 0;

    for (size_t j = 0; j < json_count(known); j++)
        n += checkpoints_step(json_string(json_at(known, j))) > step;
    return n;
}

/* {"keep": the n_kept newest of the list, "newest_step"} */
static struct json *args_of_end(const struct json *known, int64_t n_kept, struct err *err)
{
    struct json *args = json_new(JSON_OBJECT), *keep = json_new(JSON_ARRAY);
    int64_t newest = -1;

    if (json_set(args, "keep", keep, err) < 0)
        goto fail;
    for (size_t i = 0; i < json_count(known); i++) {
        const char *path = json_string(json_at(known, i));

        if (checkpoints_step(path) > newest)
            newest = checkpoints_step(path);
        if (n_newer(known, i) < n_kept && checkpoints_add(keep, path, err) < 0)
            goto fail;
    }
    if (json_set(args, "newest_step", json_new_int(newest), err) == 0)
        return args;
fail:
    json_free(args);
    return NULL;
}

int checkpoints_clean_end(const char *folder, const struct json *known, int64_t n_kept,
                          struct err *err)
{
    struct json *args;
    int rc;

    if (n_kept <= 0 || json_count(known) <= (size_t)n_kept)
        return 0;
    args = args_of_end(known, n_kept, err);
    if (!args)
        return -1;
    rc = checkpoints_clean(folder, args, err);
    json_free(args);
    return rc;
}
