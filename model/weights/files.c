#define _DEFAULT_SOURCE /* madvise */
#include "model/weights/files.h"

#include "common/base/fs.h"
#include "common/base/hash.h"
#include "common/base/json_file.h"
#include "model/weights/manifest.h"
#include "model/weights/torch_file.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define INDEX_JSON_MAX ((size_t)64 << 20)

/* ---- opening ---- */

static int open_map(struct files *out, const char *path, struct err *err)
{
    struct safetensors *maps =
        realloc(out->maps, ((size_t)out->n_maps + 1) * sizeof(*maps));
    char **paths;

    if (maps)
        out->maps = maps;
    paths = realloc(out->paths, ((size_t)out->n_maps + 1) * sizeof(*paths));
    if (paths)
        out->paths = paths;
    if (!maps || !paths || !(paths[out->n_maps] = strdup(path)))
        return err_set(err, ERR_NOMEM, "cannot allocate a table of files");
    maps[out->n_maps] = (struct safetensors){0};
    out->n_maps++;
    if (fs_ends(path, ".safetensors"))
        return safetensors_open(&maps[out->n_maps - 1], path, err);
    return torch_file_open(&maps[out->n_maps - 1], path, err);
}

static int by_place(const void *a, const void *b)
{
    const struct stored *x = a, *y = b;
    int order = strcmp(x->name, y->name);

    return order ? order
                 : (x->place.first > y->place.first) - (x->place.first < y->place.first);
}

/* A whole tensor under its table's name; 1 when it is known and of no use. */
static int take_foreign(struct stored *out, const struct safetensor *from,
                        enum hf_layout layout)
{
    char name[PARAM_NAME_MAX];
    enum hf_name kind = hf_name_read(name, from->name, layout);

    if (kind == HF_NAME_PASSED)
        return 1;
    snprintf(out->name, sizeof(out->name), "%s",
             kind == HF_NAME_PARAM ? name : from->name);
    out->is_known = kind == HF_NAME_PARAM;
    out->place = (struct slice_note){.axis = -1, .n_dims = from->tensor.n_dims};
    memcpy(out->place.whole, from->tensor.dims, sizeof(out->place.whole));
    return 0;
}

/* All tensors of a map; hashes: "xxh64" of checkpoint.json, or NULL. */
static int take_map(struct files *out, int map, bool is_own, enum hf_layout layout,
                    const struct json *hashes, struct err *err)
{
    for (int i = 0; i < out->maps[map].n_tensors; i++) {
        const struct safetensor *from = &out->maps[map].tensors[i];
        struct stored *to = &out->tensors[out->n_tensors];
        const char *hash = json_get_string(hashes, from->name);

        *to = (struct stored){.own_name = from->name,
                              .file = out->paths[map],
                              .tensor = from->tensor,
                              .foreign = from->foreign,
                              .is_known = true};
        if (is_own) {
            memcpy(to->name, from->name, sizeof(to->name));
            if (slice_note_read(&to->place, from, err) < 0)
                return err_wrap(err, "'%s'", to->file);
            to->has_hash = true;
        } else if (take_foreign(to, from, layout) > 0) {
            continue;
        }
        if (hashes && !hash)
            return err_set(err, ERR_FORMAT,
                           "'%s': checkpoint.json has no checksum of tensor '%s'",
                           to->file, to->own_name);
        if (hash) {
            to->place.hash = strtoull(hash, NULL, 16);
            to->has_hash = true;
        }
        out->n_tensors++;
    }
    return 0;
}

static int refuse_twice(const struct files *files, struct err *err)
{
    for (int i = 1; i < files->n_tensors; i++) {
        const struct stored *a = &files->tensors[i - 1], *b = &files->tensors[i];

        if (strcmp(a->name, b->name) == 0 && a->place.axis < 0 && b->place.axis < 0)
            return err_set(err, ERR_FORMAT,
                           "tensor '%s' is there twice: '%s' in '%s' and '%s' in '%s'",
                           a->name, a->own_name, a->file, b->own_name, b->file);
    }
    return 0;
}

static int room_for_tensors(struct files *out, struct err *err)
{
    size_t n = 1;

    for (int i = 0; i < out->n_maps; i++)
        n += (size_t)out->maps[i].n_tensors;
    out->tensors = malloc(n * sizeof(*out->tensors));
    if (!out->tensors)
        return err_set(err, ERR_NOMEM, "cannot allocate a table of %zu tensors", n);
    return 0;
}

static int sort(struct files *out, struct err *err)
{
    qsort(out->tensors, (size_t)out->n_tensors, sizeof(*out->tensors), by_place);
    return refuse_twice(out, err);
}

static int take_foreign_maps(struct files *out, enum hf_layout layout, struct err *err)
{
    if (room_for_tensors(out, err) < 0)
        return -1;
    for (int i = 0; i < out->n_maps; i++)
        if (take_map(out, i, false, layout, NULL, err) < 0)
            return -1;
    return sort(out, err);
}

int files_open_one(struct files *out, const char *path, enum hf_layout layout,
                   struct err *err)
{
    if (open_map(out, path, err) < 0)
        return -1;
    return take_foreign_maps(out, layout, err);
}

/* ---- an index of shards ---- */

static int find_map(const struct files *files, const char *folder, const char *name)
{
    size_t n_folder = strlen(folder);

    for (int i = 0; i < files->n_maps; i++)
        if (strcmp(files->paths[i] + n_folder + 1, name) == 0)
            return i;
    return -1;
}

static int open_shards(struct files *out, const char *folder, const char *index_name,
                       const struct json *map, struct err *err)
{
    for (size_t i = 0; i < json_count(map); i++) {
        const char *shard = json_string(json_at(map, i));
        char path[FS_PATH_MAX];

        if (!shard || strchr(shard, '/') || !shard[0])
            return err_set(err, ERR_FORMAT,
                           "'%s/%s': tensor '%.160s' has no file of this folder", folder,
                           index_name, json_key_at(map, i));
        if (find_map(out, folder, shard) >= 0)
            continue;
        if (fs_path(path, err, "%s/%s", folder, shard) < 0)
            return -1;
        if (!fs_exists(path))
            return err_set(err, ERR_NOT_FOUND,
                           "shard '%s' is missing: '%s/%s' names it for tensor '%.160s'",
                           path, folder, index_name, json_key_at(map, i));
        if (open_map(out, path, err) < 0)
            return -1;
    }
    return 0;
}

/* Every tensor lies in the shard of which the index says so. */
static int check_index(const struct files *files, const char *folder,
                       const char *index_name, const struct json *map, struct err *err)
{
    size_t n_found = 0, n_folder = strlen(folder);

    for (int i = 0; i < files->n_maps; i++)
        for (int j = 0; j < files->maps[i].n_tensors; j++) {
            const char *name = files->maps[i].tensors[j].name;
            const char *shard = json_get_string(map, name);

            if (!shard || strcmp(shard, files->paths[i] + n_folder + 1) != 0)
                return err_set(err, ERR_FORMAT,
                               "tensor '%s' lies in '%s', and '%s' names %s%s%s for it",
                               name, files->paths[i], index_name, shard ? "'" : "",
                               shard ? shard : "no file", shard ? "'" : "");
            n_found++;
        }
    for (size_t i = 0; i < json_count(map) && n_found < json_count(map); i++) {
        const char *name = json_key_at(map, i);
        int at = find_map(files, folder, json_string(json_at(map, i)));
        bool is_there = false;

        for (int j = 0; j < files->maps[at].n_tensors && !is_there; j++)
            is_there = strcmp(files->maps[at].tensors[j].name, name) == 0;
        if (!is_there)
            return err_set(err, ERR_FORMAT,
                           "tensor '%.160s' is missing from '%s', where '%s' names it",
                           name, files->paths[at], index_name);
    }
    return 0;
}

static int open_index(struct files *out, const char *folder, const char *name,
                      struct err *err)
{
    struct json *root = NULL;
    const struct json *map;
    int rc = -1;

    if (json_file_read(&root, folder, name, INDEX_JSON_MAX, err) < 0)
        return -1;
    map = json_get(root, "weight_map");
    if (json_type(map) != JSON_OBJECT || json_count(map) == 0)
        err_set(err, ERR_FORMAT, "'%s/%s' has no \"weight_map\"", folder, name);
    else if (open_shards(out, folder, name, map, err) == 0 &&
             check_index(out, folder, name, map, err) == 0)
        rc = 0;
    json_free(root);
    return rc;
}

int files_open_folder(struct files *out, const char *folder, enum hf_layout layout,
                      struct err *err)
{
    static const char *const names[] = {
        "model.safetensors",        "model.safetensors.index.json",
        "pytorch_model.bin",        "pytorch_model.bin.index.json",
        "mm_projector.safetensors", "mm_projector.bin"};
    char path[FS_PATH_MAX];

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (fs_path(path, err, "%s/%s", folder, names[i]) < 0)
            return -1;
        if (!fs_exists(path))
            continue;
        if ((fs_ends(path, ".json") ? open_index(out, folder, names[i], err)
                                    : open_map(out, path, err)) < 0)
            return -1;
        return take_foreign_maps(out, layout, err);
    }
    if (fs_path(path, err, "%s/adapter_config.json", folder) == 0 && fs_exists(path))
        return err_set(err, ERR_UNSUPPORTED,
                       "'%s' is an adapter (LoRA) alone: merge it into its model first "
                       "(peft's merge_and_unload), and save that",
                       folder);
    return err_set(
        err, ERR_NOT_FOUND,
        "'%s' has no weights: neither model.safetensors nor pytorch_model.bin, "
        "whole or in shards with an index",
        folder);
}

/* ---- checkpoint.json ---- */

static int open_listed(struct files *out, const char *folder, const struct json *entry,
                       struct err *err)
{
    const char *want = json_get_string(entry, "header_xxh64");
    char path[FS_PATH_MAX], hash[32];

    if (manifest_file(path, folder, entry, err) < 0 || open_map(out, path, err) < 0)
        return -1;
    snprintf(hash, sizeof(hash), "%016" PRIx64, out->maps[out->n_maps - 1].header_hash);
    if (!want || strcmp(hash, want) != 0)
        return err_set(err, ERR_FORMAT,
                       "'%s' is damaged: its header has not the checksum in "
                       "checkpoint.json",
                       path);
    return 0;
}

int files_open_checkpoint(struct files *out, const char *folder,
                          const struct json *manifest, enum hf_layout layout,
                          struct err *err)
{
    const struct json *list = json_get(manifest, "files");

    for (size_t i = 0; i < json_count(list); i++)
        if (open_listed(out, folder, json_at(list, i), err) < 0)
            return -1;
    if (room_for_tensors(out, err) < 0)
        return -1;
    for (int i = 0; i < out->n_maps; i++) {
        const struct json *entry = json_at(list, (size_t)i);
        const char *names = json_get_string(entry, "names");
        const struct json *hashes = json_get(entry, "xxh64");

        if (names &&
            (strcmp(names, MANIFEST_NAMES) != 0 || json_type(hashes) != JSON_OBJECT))
            return err_set(err, ERR_FORMAT,
                           "'%s/checkpoint.json': '%s' has names of the kind '%.40s', or "
                           "no checksums",
                           folder, out->paths[i], names);
        if (take_map(out, i, !names, layout, hashes, err) < 0)
            return -1;
    }
    return sort(out, err);
}

void files_close(struct files *files)
{
    for (int i = 0; i < files->n_maps; i++) {
        safetensors_close(&files->maps[i]);
        free(files->paths[i]);
    }
    free(files->maps);
    free(files->paths);
    free(files->tensors);
    *files = (struct files){0};
}

/* ---- use ---- */

int files_find(const struct files *files, const char *name, struct stored **first)
{
    int low = 0, high = files->n_tensors, n = 0;

    while (low < high) {
        int middle = (low + high) / 2;

        if (strcmp(files->tensors[middle].name, name) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    *first = &files->tensors[low];
    while (low + n < files->n_tensors && strcmp(files->tensors[low + n].name, name) == 0)
        n++;
    return n;
}

static void shape_text(char *out, size_t n_bytes, int n_dims, const int64_t *dims)
{
    size_t used = 0;

    out[0] = '\0';
    for (int i = 0; i < n_dims && used < n_bytes; i++)
        used += (size_t)snprintf(out + used, n_bytes - used, "%s%" PRId64, i ? "," : "",
                                 dims[i]);
}

static int check_shape(const struct stored *stored, const struct param *param,
                       bool has_fewer_rows, struct err *err)
{
    const struct slice_note *place = &stored->place;
    char have[64], want[64];
    bool fits = place->n_dims == param->n_dims;

    for (int i = 0; fits && i < param->n_dims; i++)
        fits = place->whole[i] == param->dims[i] ||
               (i == 0 && has_fewer_rows && place->whole[i] < param->dims[i]);
    if (fits)
        return 0;
    shape_text(have, sizeof(have), place->n_dims, place->whole);
    shape_text(want, sizeof(want), param->n_dims, param->dims);
    return err_set(err, ERR_INVALID,
                   "tensor '%s' has not the shape of this model: [%s] in '%s', wanted "
                   "[%s]",
                   stored->own_name, have, stored->file, want);
}

int files_check_type(const struct stored *stored, struct err *err)
{
    if (!stored->foreign[0] && stored->tensor.dtype <= DTYPE_F16)
        return 0;
    return err_set(err, ERR_UNSUPPORTED,
                   "tensor '%s' of '%s' has dtype %s: F32, BF16 and F16 can be read",
                   stored->own_name, stored->file,
                   stored->foreign[0] ? stored->foreign
                                      : dtype_name(stored->tensor.dtype));
}

static int check_one(const struct stored *stored, const struct param *param,
                     bool has_fewer_rows, struct err *err)
{
    int axis = stored->place.axis;

    if (files_check_type(stored, err) < 0)
        return -1;
    if (check_shape(stored, param, has_fewer_rows, err) < 0)
        return -1;
    if (axis >= 0 && axis != param->shard_axis)
        return err_set(err, ERR_UNSUPPORTED,
                       "tensor '%s' of '%s' is cut along axis %d, wanted %d",
                       stored->own_name, stored->file, axis, param->shard_axis);
    return 0;
}

int files_check(const struct stored *first, int n, const struct param *param,
                bool has_fewer_rows, struct err *err)
{
    int axis = param->shard_axis < 0 ? 0 : param->shard_axis;
    int64_t at = 0;

    for (int i = 0; i < n; i++) {
        const struct slice_note *place = &first[i].place;
        int64_t begin = place->axis < 0 ? 0 : place->first;

        if (check_one(&first[i], param, has_fewer_rows, err) < 0)
            return -1;
        if (begin != at || first[i].tensor.dtype != first[0].tensor.dtype)
            break;
        at += param->n_dims ? first[i].tensor.dims[axis] : 1;
    }
    if (at == (param->n_dims ? first[0].place.whole[axis] : 1))
        return 0;
    return err_set(err, ERR_FORMAT,
                   "the slices of tensor '%s' do not make the whole: entry %" PRId64
                   " of %" PRId64 " in '%s'",
                   first->own_name, at, first[0].place.whole[axis], first->file);
}

int files_verify(struct stored *stored, struct err *err)
{
    if (!stored->has_hash || stored->is_verified)
        return 0;
    if (hash64(stored->tensor.data, tensor_bytes(&stored->tensor), 0) !=
        stored->place.hash)
        return err_set(err, ERR_FORMAT,
                       "tensor '%s' is damaged: checksum differs, in '%s'",
                       stored->own_name, stored->file);
    stored->is_verified = true;
    return 0;
}

/* The whole pages inside a tensor; false when there are none. */
static bool pages_of(const struct tensor *tensor, char **first, size_t *n_bytes)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t begin = ((uintptr_t)tensor->data + page - 1) / page * page;
    uintptr_t end = ((uintptr_t)tensor->data + tensor_bytes(tensor)) / page * page;

    *first = (char *)begin;
    *n_bytes = end > begin ? end - begin : 0;
    return end > begin;
}

void files_need(const struct tensor *tensor)
{
    char *first;
    size_t n_bytes;

    if (!pages_of(tensor, &first, &n_bytes))
        return;
#ifdef MADV_POPULATE_READ /* one call instead of a fault for every 16 pages */
    if (madvise(first, n_bytes, MADV_POPULATE_READ) == 0)
        return;
#endif
    madvise(first, n_bytes, MADV_WILLNEED);
}

void files_drop(const struct tensor *tensor)
{
    char *first;
    size_t n_bytes;

    if (pages_of(tensor, &first, &n_bytes))
        madvise(first, n_bytes, MADV_DONTNEED);
}
