#include "common/base/stage.h"
#include "model/checkpoint/internal.h"
#include "model/weights/internal.h"
#include "model/weights/manifest.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int checkpoint_read_meta(struct json **out, const char *folder, struct err *err)
{
    struct json *root, *files, *meta;
    char path[FS_PATH_MAX];

    if (manifest_read(&root, folder, err) < 0)
        return -1;
    files = json_get(root, "files");
    for (size_t i = 0; i < json_count(files); i++)
        if (manifest_file(path, folder, json_at(files, i), err) < 0) {
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

/* ---- optimizer state ---- */

static bool has_moments(const struct files *files)
{
    for (int i = 0; i < files->n_tensors; i++)
        if (strchr(files->tensors[i].name, '#'))
            return true;
    return false;
}

static int load_moment(struct neva *model, struct weights *w, const struct param *param,
                       enum checkpoint_part part, struct err *err)
{
    const struct tensor *to = part == CHECKPOINT_M ? &param->m : &param->v;
    struct backend *b = model->backend;
    char name[SAFETENSORS_NAME_MAX];
    struct stored *first;
    struct fill_target room;
    int n, rc;

    snprintf(name, sizeof(name), "%s%s", param->name, checkpoint_suffix[part]);
    n = files_find(&w->files, name, &first);
    if (n == 0)
        return err_set(err, ERR_INVALID,
                       "tensor '%s' is missing: it was frozen when this was saved; load "
                       "without optimizer state",
                       name);
    if (files_check(first, n, param, false, err) < 0)
        return -1;
    room = (struct fill_target){malloc(tensor_bytes(to) + 1), DTYPE_F32};
    if (!room.data)
        return err_set(err, ERR_NOMEM, "cannot allocate %zu bytes", tensor_bytes(to));
    rc = weights_fill(&room, 1, param, first, n, &model->config, err);
    if (rc == 0)
        rc = b->ops->upload(b, to->data, room.data, tensor_bytes(to), err);
    free(room.data);
    return rc;
}

static int load_moments(struct neva *model, struct weights *w, struct err *err)
{
    if (!has_moments(&w->files))
        return 0;
    if (neva_need_moments(model, err) < 0)
        return -1;
    for (int i = 0; i < model->params.n_params; i++) {
        const struct param *param = &model->params.params[i];

        stage_touch();
        if (param->is_trained && (load_moment(model, w, param, CHECKPOINT_M, err) < 0 ||
                                  load_moment(model, w, param, CHECKPOINT_V, err) < 0))
            return -1;
    }
    return 0;
}

int checkpoint_load(struct neva *model, const char *folder, bool with_optim,
                    struct err *err)
{
    struct weights *w = NULL;
    int rc =
        neva_agree(model, weights_open_checkpoint(&w, folder, &model->config, err), err);

    if (rc == 0)
        rc = weights_load(model, w, WEIGHTS_ALL, err);
    if (rc == 0 && with_optim)
        rc = neva_agree(model, load_moments(model, w, err), err);
    weights_close(w);
    return rc < 0 ? err_wrap(err, "cannot load checkpoint '%s'", folder) : 0;
}
