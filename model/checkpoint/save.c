#include "common/base/json_file.h"
#include "common/base/stage.h"
#include "model/checkpoint/internal.h"
#include "model/weights/hf_config.h"
#include "model/weights/manifest.h"

#include "common/base/fault.h"
#include "common/base/fs.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *const checkpoint_suffix[CHECKPOINT_PARTS] = {"", "#m", "#v"};

/* Master weights where there are any, else the weights in their own type. */
static const struct tensor *part_of(const struct param *param, enum checkpoint_part part)
{
    if (part == CHECKPOINT_WEIGHT)
        return param->master.data ? &param->master : &param->value;
    return part == CHECKPOINT_M ? &param->m : &param->v;
}

/* ---- this rank's file ---- */

struct item {
    const struct param *param;
    enum checkpoint_part part;
};

struct writer {
    struct neva *model;
    struct item *items;
    struct safetensor *tensors;
    int n_items;
    char *room; /* a tensor with its padding */
};

static void add_item(struct writer *w, const struct param *param,
                     enum checkpoint_part part)
{
    struct safetensor *tensor = &w->tensors[w->n_items];
    struct slice_note note = {.axis = param->shard_axis,
                              .first = param->shard_axis < 0 ? 0 : param->first,
                              .n_dims = param->n_dims};

    w->items[w->n_items++] = (struct item){param, part};
    snprintf(tensor->name, sizeof(tensor->name), "%s%s", param->name,
             checkpoint_suffix[part]);
    tensor->tensor =
        tensor_of(NULL, part_of(param, part)->dtype, param->n_dims, param->local_dims);
    if (param->shard_axis >= 0)
        tensor->tensor.dims[param->shard_axis] = param->n_real;
    memcpy(note.whole, param->dims, sizeof(note.whole));
    slice_note_print(tensor->note, sizeof(tensor->note), &note);
}

static int writer_init(struct writer *w, struct neva *model, struct err *err)
{
    size_t n = (size_t)model->params.n_params * CHECKPOINT_PARTS, most = 1;

    *w = (struct writer){.model = model,
                         .items = calloc(n, sizeof(*w->items)),
                         .tensors = calloc(n, sizeof(*w->tensors))};
    if (!w->items || !w->tensors)
        return err_set(err, ERR_NOMEM, "cannot allocate a table of %zu tensors", n);
    for (int i = 0; i < model->params.n_params; i++) {
        const struct param *param = &model->params.params[i];

        if (param->shard_axis < 0 ? comm_rank(model->group) > 0 : param->n_real == 0)
            continue;
        for (enum checkpoint_part part = 0; part < CHECKPOINT_PARTS; part++) {
            const struct tensor *x = part_of(param, part);

            if (!x->data)
                continue;
            add_item(w, param, part);
            most = tensor_bytes(x) > most ? tensor_bytes(x) : most;
        }
    }
    w->room = malloc(most);
    if (!w->room)
        return err_set(err, ERR_NOMEM, "cannot allocate %zu bytes", most);
    return 0;
}

static void writer_fini(struct writer *w)
{
    free(w->items);
    free(w->tensors);
    free(w->room);
}

/* The slice without its padding. */
static int writer_fill(void *state, int i, void *out, struct err *err)
{
    struct writer *w = state;
    const struct param *param = w->items[i].param;
    const struct tensor *x = part_of(param, w->items[i].part);
    struct param_slice s = param_slice(param);
    size_t item = dtype_bytes(x->dtype);
    size_t real = (size_t)(s.n_real * s.inner) * item;
    size_t local = (size_t)(s.local * s.inner) * item;
    struct backend *b = w->model->backend;

    stage_touch();
    if (real == local)
        return b->ops->download(b, out, x->data, tensor_bytes(x), err);
    if (b->ops->download(b, w->room, x->data, tensor_bytes(x), err) < 0)
        return -1;
    for (int64_t outer = 0; outer < s.outer; outer++)
        memcpy((char *)out + (size_t)outer * real, w->room + (size_t)outer * local, real);
    return 0;
}

/* What a rank tells rank 0 about its file. */
struct written {
    uint64_t n_bytes, header_hash;
};

static int write_slices(struct neva *model, const char *folder, struct written *out,
                        struct err *err)
{
    struct writer w = {0};
    struct safetensors_source source = {&w, writer_fill};
    char path[FS_PATH_MAX];
    int rc = -1;

    if (fs_path(path, err, "%s/tensors-%04d.safetensors", folder,
                comm_rank(model->group)) == 0 &&
        writer_init(&w, model, err) == 0)
        rc = safetensors_write(path, w.tensors, w.n_items, &source, &out->header_hash,
                               &out->n_bytes, err);
    writer_fini(&w);
    return rc;
}

/* ---- the folder ---- */

static struct json *files_json(const struct written *files, int n_files, struct err *err)
{
    struct json *list = json_new(JSON_ARRAY);

    for (int i = 0; i < n_files; i++) {
        struct json *file = json_new(JSON_OBJECT);
        char name[64], hash[32];

        snprintf(name, sizeof(name), "tensors-%04d.safetensors", i);
        snprintf(hash, sizeof(hash), "%016" PRIx64, files[i].header_hash);
        if (json_set(file, "name", json_new_string(name), err) < 0 ||
            json_set(file, "bytes", json_new_int((int64_t)files[i].n_bytes), err) < 0 ||
            json_set(file, "header_xxh64", json_new_string(hash), err) < 0) {
            json_free(file);
            json_free(list);
            return NULL;
        }
        if (json_append(list, file, err) < 0) {
            json_free(list);
            return NULL;
        }
    }
    return list;
}

int checkpoint_write_file(const char *folder, const char *name, struct json *json,
                          struct err *err)
{
    int rc = json_file_write(folder, name, json, err);

    json_free(json);
    return rc;
}

int checkpoint_write_manifest(const char *folder, int version, struct json *files,
                              const struct json *meta, struct err *err)
{
    struct json *root = json_new(JSON_OBJECT);

    if (json_set(root, "format", json_new_string(MANIFEST_FORMAT), err) < 0 ||
        json_set(root, "version", json_new_int(version), err) < 0) {
        json_free(root);
        json_free(files);
        return -1;
    }
    if (json_set(root, "files", files, err) < 0 ||
        json_set(root, "meta", meta ? json_clone(meta) : json_new(JSON_OBJECT), err) <
            0) {
        json_free(root);
        return -1;
    }
    if (fault_hit("checkpoint.json")) {
        json_free(root);
        return err_set(err, ERR_IO, "fault point checkpoint.json");
    }
    return checkpoint_write_file(folder, "checkpoint.json", root, err);
}

/* config.json and preprocessor_config.json: a checkpoint says by itself what it is. */
static int write_config(struct neva *model, const char *folder, struct err *err)
{
    enum dtype dtype = part_of(model->embed, CHECKPOINT_WEIGHT)->dtype;
    struct json *json;

    if (hf_config_write(&json, &model->config, dtype, -1, err) < 0 ||
        checkpoint_write_file(folder, "config.json", json, err) < 0 ||
        hf_preprocessor_write(&json, &model->config, err) < 0)
        return -1;
    return checkpoint_write_file(folder, "preprocessor_config.json", json, err);
}

int checkpoint_rename(const char *from, const char *to, struct err *err)
{
    if (fault_hit("checkpoint.rename"))
        return err_set(err, ERR_IO, "fault point checkpoint.rename");
    return fs_put_dir(from, to, err);
}

static int finish(struct neva *model, const char *temporary, const char *folder,
                  const struct written *files, const struct json *meta,
                  const struct checkpoint_extra *extra, struct err *err)
{
    if (comm_rank(model->group) > 0)
        return 0;
    if (write_config(model, temporary, err) < 0 ||
        (extra && extra->write(extra->state, temporary, err) < 0) ||
        checkpoint_write_manifest(temporary, MANIFEST_VERSION,
                                  files_json(files, comm_size(model->group), err), meta,
                                  err) < 0 ||
        fs_sync_dir(temporary, err) < 0)
        return -1;
    return checkpoint_rename(temporary, folder, err);
}

static int begin(struct neva *model, const char *temporary, struct err *err)
{
    if (comm_rank(model->group) > 0)
        return 0;
    if (fs_remove_tree(temporary, err) < 0)
        return -1;
    return fs_make_dirs(temporary, 0777, err);
}

/* A full disk needs the room to try again. One that is whole stays: it may be the one that
 * was being replaced. */
static void drop_unfinished(const char *temporary)
{
    char manifest[FS_PATH_MAX];

    if (temporary[0] && fs_path(manifest, NULL, "%s/checkpoint.json", temporary) == 0 &&
        !fs_exists(manifest))
        fs_remove_tree(temporary, NULL);
}

int checkpoint_save_with(struct neva *model, const char *folder, const struct json *meta,
                         const struct checkpoint_extra *extra, struct err *err)
{
    struct written mine = {0};
    struct written *all = calloc((size_t)comm_size(model->group), sizeof(*all));
    char temporary[FS_PATH_MAX] = "";
    int rc = all ? fs_path(temporary, err, "%s.tmp", folder)
                 : err_set(err, ERR_NOMEM, "cannot allocate a table of ranks");

    /* each stage ends with all ranks knowing whether all did it: none is left waiting */
    rc = neva_agree(model, rc == 0 ? begin(model, temporary, err) : rc, err);
    if (rc == 0)
        rc = neva_agree(model, write_slices(model, temporary, &mine, err), err);
    if (rc == 0 && all)
        rc = comm_all_gather(model->group, all, &mine, sizeof(mine), err);
    if (rc == 0 && all)
        rc = neva_agree(model, finish(model, temporary, folder, all, meta, extra, err),
                        err);
    if (rc < 0 && comm_rank(model->group) == 0)
        drop_unfinished(temporary);
    free(all);
    return rc < 0 ? err_wrap(err, "cannot save checkpoint '%s'", folder) : 0;
}

int checkpoint_save(struct neva *model, const char *folder, const struct json *meta,
                    struct err *err)
{
    return checkpoint_save_with(model, folder, meta, NULL, err);
}
