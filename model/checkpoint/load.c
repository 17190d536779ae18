#include "model/checkpoint/internal.h"

#include "common/base/fs.h"
#include "common/base/hash.h"
#include "model/backend/half.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- checkpoint.json ---- */

static int read_json(struct json **out, const char *folder, struct err *err)
{
    struct buf text = BUF_INIT;
    char path[FS_PATH_MAX];
    struct json *root = NULL;
    int rc = -1;

    if (fs_path(path, err, "%s/checkpoint.json", folder) < 0 ||
        fs_read_file(&text, path, CHECKPOINT_JSON_MAX, err) < 0 ||
        json_parse(&root, text.data, text.n_bytes, err) < 0) {
        err_wrap(err, "'%s' is no complete checkpoint", folder);
    } else if (!json_get_string(root, "format") ||
               strcmp(json_get_string(root, "format"), CHECKPOINT_FORMAT) != 0) {
        err_set(err, ERR_FORMAT, "'%s' is not a vneva checkpoint", path);
    } else if (json_get_int(root, "version", -1) != CHECKPOINT_VERSION) {
        err_set(err, ERR_UNSUPPORTED, "'%s' has version %lld, this program reads %d",
                path, (long long)json_get_int(root, "version", -1), CHECKPOINT_VERSION);
    } else {
        *out = root;
        root = NULL;
        rc = 0;
    }
    json_free(root);
    buf_fini(&text);
    return rc;
}

/* A file's entry: its path, and whether it has the size the entry says. */
static int check_size(char *path, const char *folder, const struct json *entry,
                      struct err *err)
{
    const char *name = json_get_string(entry, "name");
    int64_t n_bytes = json_get_int(entry, "bytes", -1), size;
    FILE *file;

    if (!name || strchr(name, '/') || n_bytes < 0)
        return err_set(err, ERR_FORMAT,
                       "'%s/checkpoint.json': a file without name or size", folder);
    if (fs_path(path, err, "%s/%s", folder, name) < 0)
        return -1;
    file = fopen(path, "rb");
    if (!file)
        return err_set(err, ERR_NOT_FOUND, "'%s' is missing", path);
    size = fseek(file, 0, SEEK_END) < 0 ? -1 : (int64_t)ftell(file);
    fclose(file);
    if (size != n_bytes)
        return err_set(err, ERR_FORMAT, "'%s' has %lld bytes, not %lld", path,
                       (long long)size, (long long)n_bytes);
    return 0;
}

int checkpoint_read_meta(struct json **out, const char *folder, struct err *err)
{
    struct json *root, *files, *meta;
    char path[FS_PATH_MAX];

    if (read_json(&root, folder, err) < 0)
        return -1;
    files = json_get(root, "files");
    for (size_t i = 0; i < json_count(files); i++)
        if (check_size(path, folder, json_at(files, i), err) < 0) {
            json_free(root);
            return -1;
        }
    meta = json_clone(json_get(root, "meta"));
    json_free(root);
    if (!meta)
        return err_set(err, ERR_FORMAT, "'%s/checkpoint.json' has no \"meta\"", folder);
    *out = meta;
    return 0;
}

/* ---- the files ---- */

struct reader {
    struct neva *model;
    struct safetensors *files;
    int n_files;
    const struct safetensor **by_name; /* of all files, sorted by name */
    int n_tensors;
    float *room; /* one parameter's local slice */
};

static void reader_fini(struct reader *r)
{
    for (int i = 0; i < r->n_files; i++)
        safetensors_close(&r->files[i]);
    free(r->files);
    free(r->by_name);
    free(r->room);
}

static int by_name(const void *a, const void *b)
{
    const struct safetensor *const *x = a, *const *y = b;

    return strcmp((*x)->name, (*y)->name);
}

static int open_file(struct safetensors *out, const char *folder,
                     const struct json *entry, struct err *err)
{
    const char *want = json_get_string(entry, "header_xxh64");
    char path[FS_PATH_MAX], hash[32];

    if (check_size(path, folder, entry, err) < 0 || safetensors_open(out, path, err) < 0)
        return -1;
    snprintf(hash, sizeof(hash), "%016" PRIx64, out->header_hash);
    if (!want || strcmp(hash, want) != 0)
        return err_set(err, ERR_FORMAT,
                       "'%s' is damaged: its header has not the checksum "
                       "in checkpoint.json",
                       path);
    return 0;
}

static int reader_open(struct reader *r, const char *folder, struct err *err)
{
    struct json *root = NULL, *files;
    int rc = -1, n = 0;

    if (read_json(&root, folder, err) < 0)
        return -1;
    files = json_get(root, "files");
    r->files = calloc(json_count(files) + 1, sizeof(*r->files));
    if (!r->files) {
        err_set(err, ERR_NOMEM, "cannot allocate a table of files");
        goto out;
    }
    for (size_t i = 0; i < json_count(files); i++) {
        r->n_files++;
        if (open_file(&r->files[i], folder, json_at(files, i), err) < 0)
            goto out;
        n += r->files[i].n_tensors;
    }
    r->by_name = malloc(((size_t)n + 1) * sizeof(const struct safetensor *));
    if (!r->by_name) {
        err_set(err, ERR_NOMEM, "cannot allocate a table of %d tensors", n);
        goto out;
    }
    for (int i = 0; i < r->n_files; i++)
        for (int j = 0; j < r->files[i].n_tensors; j++)
            r->by_name[r->n_tensors++] = &r->files[i].tensors[j];
    qsort(r->by_name, (size_t)n, sizeof(const struct safetensor *), by_name);
    rc = 0;
out:
    json_free(root);
    return rc;
}

/* Tensors of this name: *first of by_name and how many. */
static int find(const struct reader *r, const char *name, int *first)
{
    int low = 0, high = r->n_tensors, n = 0;

    while (low < high) {
        int middle = (low + high) / 2;

        if (strcmp(r->by_name[middle]->name, name) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    *first = low;
    while (low + n < r->n_tensors && strcmp(r->by_name[low + n]->name, name) == 0)
        n++;
    return n;
}

/* Every tensor of the files must belong to a parameter of this model. */
static int refuse_extra(const struct reader *r, struct err *err)
{
    for (int i = 0; i < r->n_tensors; i++) {
        char name[SAFETENSORS_NAME_MAX];
        char *mark;

        snprintf(name, sizeof(name), "%s", r->by_name[i]->name);
        mark = strchr(name, '#');
        if (mark && (strcmp(mark, "#m") == 0 || strcmp(mark, "#v") == 0))
            *mark = '\0';
        if (!param_find(&r->model->params, name))
            return err_set(err, ERR_INVALID,
                           "tensor '%s' does not belong to this model: is the "
                           "configuration the one it was saved with?",
                           r->by_name[i]->name);
    }
    return 0;
}

/* ---- one tensor ---- */

static float item_of(const struct tensor *x, int64_t i)
{
    const char *at = (const char *)x->data + (size_t)i * dtype_bytes(x->dtype);
    uint16_t half;
    float value;

    if (x->dtype == DTYPE_F32) {
        memcpy(&value, at, sizeof(value));
        return value;
    }
    memcpy(&half, at, sizeof(half));
    return x->dtype == DTYPE_BF16 ? bf16_to_float(half) : f16_to_float(half);
}

static int check_slice(const struct param *param, const struct safetensor *from,
                       struct slice_note *note, struct err *err)
{
    if (slice_note_read(note, from, err) < 0)
        return -1;
    if (from->tensor.dtype > DTYPE_F16)
        return err_set(err, ERR_FORMAT, "tensor '%s' has dtype %s", from->name,
                       dtype_name(from->tensor.dtype));
    if (note->n_dims != param->n_dims ||
        memcmp(note->whole, param->dims, (size_t)note->n_dims * sizeof(int64_t)) != 0)
        return err_set(err, ERR_INVALID,
                       "tensor '%s' has not the shape of this model: %s, wanted first "
                       "axis %lld, last axis %lld",
                       from->name, from->note, (long long)param->dims[0],
                       (long long)param->dims[param->n_dims - 1]);
    if (note->axis >= 0 && param->shard_axis >= 0 && note->axis != param->shard_axis)
        return err_set(err, ERR_UNSUPPORTED,
                       "tensor '%s' is cut along axis %d, wanted %d", from->name,
                       note->axis, param->shard_axis);
    if (note->axis >= 0 && param->shard_axis < 0)
        return err_set(err, ERR_UNSUPPORTED, "tensor '%s' is cut and should be whole",
                       from->name);
    if (hash64(from->tensor.data, tensor_bytes(&from->tensor), 0) != note->hash)
        return err_set(err, ERR_FORMAT, "tensor '%s' is damaged: checksum differs",
                       from->name);
    return 0;
}

/* Copies what a slice of the file and this rank's slice have in common. */
static void copy_common(float *out, const struct param *param,
                        const struct safetensor *from, const struct slice_note *note)
{
    struct param_slice s = param_slice(param);
    int axis = param->shard_axis < 0 ? 0 : param->shard_axis;
    int64_t from_first = note->axis < 0 ? 0 : note->first;
    int64_t from_count = from->tensor.dims[axis];
    int64_t first = s.first > from_first ? s.first : from_first;
    int64_t end = s.first + s.n_real;

    end = end < from_first + from_count ? end : from_first + from_count;
    for (int64_t outer = 0; outer < s.outer && first < end; outer++) {
        float *to = out + (outer * s.local + first - s.first) * s.inner;
        int64_t at = (outer * from_count + first - from_first) * s.inner;

        for (int64_t i = 0; i < (end - first) * s.inner; i++)
            to[i] = item_of(&from->tensor, at + i);
    }
}

/* Slices of one tensor must tile its axis: no entry twice, none missing. */
static int check_tiling(const struct reader *r, const struct param *param, int first,
                        int n, struct err *err)
{
    struct param_slice s = param_slice(param);
    int axis = param->shard_axis < 0 ? 0 : param->shard_axis;
    int64_t at = 0;
    int placed;

    for (placed = 0; placed < n; placed++) {
        bool found = false;

        for (int i = first; i < first + n && !found; i++) {
            struct slice_note note;

            if (slice_note_read(&note, r->by_name[i], err) < 0)
                return -1;
            found = (note.axis < 0 ? 0 : note.first) == at;
            at += found ? r->by_name[i]->tensor.dims[axis] : 0;
        }
        if (!found)
            break;
    }
    if (at == s.whole && placed == n)
        return 0;
    return err_set(err, ERR_FORMAT,
                   "the slices of tensor '%s' do not make the whole: entry %lld of %lld",
                   r->by_name[first]->name, (long long)at, (long long)s.whole);
}

/* This rank's slice of one tensor into r->room; 1 when the files have none of it. */
static int read_tensor(struct reader *r, const struct param *param, const char *suffix,
                       struct err *err)
{
    char name[SAFETENSORS_NAME_MAX];
    int first, n;

    snprintf(name, sizeof(name), "%s%s", param->name, suffix);
    n = find(r, name, &first);
    if (n == 0)
        return 1;
    memset(r->room, 0, (size_t)tensor_count(&param->value) * sizeof(float));
    for (int i = first; i < first + n; i++) {
        struct slice_note note;

        if (check_slice(param, r->by_name[i], &note, err) < 0)
            return -1;
        copy_common(r->room, param, r->by_name[i], &note);
    }
    return check_tiling(r, param, first, n, err);
}

/* ---- all of them ---- */

static int load_weights(struct reader *r, struct err *err)
{
    for (int i = 0; i < r->model->params.n_params; i++) {
        struct param *param = &r->model->params.params[i];
        int found = read_tensor(r, param, "", err);

        if (found > 0)
            return err_set(err, ERR_INVALID, "tensor '%s' is missing", param->name);
        if (found < 0 || neva_param_write(r->model, param, r->room, err) < 0)
            return -1;
    }
    return 0;
}

static bool has_moments(const struct reader *r)
{
    for (int i = 0; i < r->n_tensors; i++)
        if (strchr(r->by_name[i]->name, '#'))
            return true;
    return false;
}

static int load_moments(struct reader *r, struct err *err)
{
    struct backend *b = r->model->backend;

    if (!has_moments(r))
        return 0;
    if (neva_need_moments(r->model, err) < 0)
        return -1;
    for (int i = 0; i < r->model->params.n_params; i++) {
        struct param *param = &r->model->params.params[i];

        for (int part = CHECKPOINT_M; part <= CHECKPOINT_V && param->is_trained; part++) {
            struct tensor *to = part == CHECKPOINT_M ? &param->m : &param->v;
            int found = read_tensor(r, param, checkpoint_suffix[part], err);

            if (found > 0)
                return err_set(err, ERR_INVALID,
                               "tensor '%s%s' is missing: it was frozen when this was "
                               "saved; load without optimizer state",
                               param->name, checkpoint_suffix[part]);
            if (found < 0 ||
                b->ops->upload(b, to->data, r->room, tensor_bytes(to), err) < 0)
                return -1;
        }
    }
    return 0;
}

static int load(struct reader *r, const char *folder, bool with_optim, struct err *err)
{
    int64_t most = 1;

    for (int i = 0; i < r->model->params.n_params; i++) {
        int64_t n = tensor_count(&r->model->params.params[i].value);

        most = n > most ? n : most;
    }
    r->room = malloc((size_t)most * sizeof(*r->room));
    if (!r->room)
        return err_set(err, ERR_NOMEM, "cannot allocate %lld weights", (long long)most);
    if (reader_open(r, folder, err) < 0 || refuse_extra(r, err) < 0 ||
        load_weights(r, err) < 0)
        return -1;
    return with_optim ? load_moments(r, err) : 0;
}

int checkpoint_load(struct neva *model, const char *folder, bool with_optim,
                    struct err *err)
{
    struct reader r = {.model = model};
    int rc = checkpoint_agree(model, load(&r, folder, with_optim, err), err);

    reader_fini(&r);
    return rc < 0 ? err_wrap(err, "cannot load checkpoint '%s'", folder) : 0;
}
