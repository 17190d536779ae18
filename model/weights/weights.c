#include "common/base/json_file.h"
#include "model/weights/internal.h"
#include "model/weights/manifest.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define EMBED "model.language_model.embed_tokens.weight"
#define HEAD "lm_head.weight"
#define PROJECTOR "model.multi_modal_projector."

/* ---- the table ---- */

/* The whole table but for the parts that are not there. Counts that are zero for those
 * would be divided by. */
static int build_table(struct weights *w, struct err *err)
{
    struct neva_config config = w->config.model;
    struct param_table *table = &w->table;
    int kept = 0;

    if (!(w->config.parts & WEIGHTS_VISION))
        config.vision.image_size = config.vision.patch = config.vision.n_heads = 1;
    if (!(w->config.parts & WEIGHTS_LLM))
        config.llm.n_heads = config.llm.n_kv_heads = 1;
    if (param_table_build(table, &config, 0, 1, err) < 0)
        return -1;
    for (int i = 0; i < table->n_params; i++) {
        struct param *param = &table->params[i];

        if (!(w->config.parts & 1U << param->group))
            continue;
        param->value = tensor_of(NULL, DTYPE_F32, param->n_dims, param->dims);
        table->params[kept++] = *param;
    }
    table->n_params = kept;
    return 0;
}

/* ---- every tensor, once, in its shape ---- */

/* A tied folder may have the head all the same: it must be the embeddings' copy. */
static int check_tied_head(struct weights *w, const struct stored *head, struct err *err)
{
    struct stored *embed;
    int n = files_find(&w->files, EMBED, &embed);

    if (n == 1 && head->tensor.dtype == embed->tensor.dtype &&
        tensor_bytes(&head->tensor) == tensor_bytes(&embed->tensor) &&
        memcmp(head->tensor.data, embed->tensor.data, tensor_bytes(&head->tensor)) == 0)
        return 0;
    return err_set(err, ERR_FORMAT,
                   "tensor '%s' of '%s' is not the embeddings' copy, and "
                   "tie_word_embeddings says that they are one",
                   head->own_name, head->file);
}

static int refuse_extra(struct weights *w, bool is_for_model, struct err *err)
{
    for (int i = 0; i < w->files.n_tensors; i++) {
        const struct stored *stored = &w->files.tensors[i];
        char name[SAFETENSORS_NAME_MAX];
        char *mark;

        memcpy(name, stored->name, sizeof(name));
        mark = strchr(name, '#');
        if (mark && (strcmp(mark, "#m") == 0 || strcmp(mark, "#v") == 0))
            *mark = '\0';
        if (stored->is_known && param_find(&w->table, name))
            continue;
        if (w->config.model.llm.tied && strcmp(name, HEAD) == 0 && !w->has_own_names) {
            if (check_tied_head(w, stored, err) < 0)
                return -1;
            continue;
        }
        if (w->config.layout == HF_LAYOUT_PROJECTOR)
            return err_set(err, ERR_INVALID,
                           "tensor '%s' of '%s' is no projector's: give a folder with "
                           "config.json for anything else",
                           stored->own_name, stored->file);
        return err_set(err, ERR_INVALID,
                       "tensor '%s' of '%s' does not belong to this model: is %s",
                       stored->own_name, stored->file,
                       is_for_model ? "the configuration the one it was saved with?"
                                    : "config.json the one it was saved with?");
    }
    return 0;
}

static int check_tensors(struct weights *w, bool is_for_model, struct err *err)
{
    int64_t counts[DTYPE_U8 + 1] = {0};

    if (refuse_extra(w, is_for_model, err) < 0)
        return -1;
    for (int i = 0; i < w->table.n_params; i++) {
        struct param *param = &w->table.params[i];
        struct stored *first;
        int n = files_find(&w->files, param->name, &first);

        if (n == 0)
            return err_set(err, ERR_INVALID, "tensor '%s' is missing from '%s'",
                           param->name, w->path);
        if (files_check(first, n, param, false, err) < 0)
            return -1;
        param->value.dtype = first->tensor.dtype;
        counts[first->tensor.dtype] += tensor_count(&param->value);
        w->info.n_params += tensor_count(&param->value);
    }
    for (int i = 1; i <= DTYPE_U8; i++)
        if (counts[i] > counts[w->info.dtype])
            w->info.dtype = (enum dtype)i;
    return 0;
}

static int finish(struct weights *w, bool is_for_model, struct err *err)
{
    if (build_table(w, err) < 0 || check_tensors(w, is_for_model, err) < 0)
        return -1;
    w->info.architecture = w->config.architecture;
    w->info.parts = w->config.parts;
    w->info.config = w->config.model;
    w->info.sliding_window = w->config.sliding_window;
    w->info.image_token = w->config.image_token;
    return 0;
}

/* ---- what is in the folder ---- */

static bool has(const char *folder, const char *name)
{
    char path[FS_PATH_MAX];

    return fs_path(path, NULL, "%s/%s", folder, name) == 0 && fs_exists(path);
}

static bool ends(const char *path, const char *with)
{
    size_t n = strlen(path), n_with = strlen(with);

    while (n > 0 && path[n - 1] == '/')
        n--;
    return n >= n_with && strncmp(path + n - n_with, with, n_with) == 0;
}

/* NeMo 1's archive, packed or unpacked, or NeMo 2's folder. */
static int refuse_nemo(const char *path, struct err *err)
{
    bool is_one = ends(path, ".nemo") || has(path, "model_weights.ckpt") ||
                  has(path, "model_weights") || has(path, "model_config.yaml");
    bool is_two = has(path, "context") && has(path, "weights");

    if (!is_one && !is_two)
        return 0;
    return err_set(err, ERR_UNSUPPORTED,
                   "'%s' is a NeMo checkpoint, which cannot be read: convert it to "
                   "Hugging Face's form with NeMo, %s, and give the folder that this "
                   "writes",
                   path,
                   is_one ? "scripts/checkpoint_converters/convert_llama_nemo_to_hf.py "
                            "(or the one of its model)"
                          : "nemo.collections.llm.export_ckpt(path=..., target='hf')");
}

static int read_config(struct weights *w, struct err *err)
{
    struct json *root = NULL;
    int rc;

    if (json_file_read(&root, w->path, "config.json", HF_CONFIG_JSON_MAX, err) < 0)
        return -1;
    rc = hf_config_read(&w->config, root, err);
    if (rc < 0)
        err_wrap(err, "'%s/config.json'", w->path);
    json_free(root);
    if (rc < 0 || !(w->config.parts & WEIGHTS_VISION) ||
        !has(w->path, "preprocessor_config.json"))
        return rc;
    root = NULL;
    if (json_file_read(&root, w->path, "preprocessor_config.json", HF_CONFIG_JSON_MAX,
                       err) < 0)
        return -1;
    rc = hf_preprocessor_read(&w->config.model, root, err);
    json_free(root);
    return rc < 0 ? err_wrap(err, "'%s/preprocessor_config.json'", w->path) : 0;
}

/* A projector alone says what it is by its tensors. */
static int read_projector(struct weights *w, struct err *err)
{
    struct neva_config *model = &w->config.model;
    struct stored *first, *other;

    w->config = (struct hf_config){
        .architecture = "projector",
        .layout = HF_LAYOUT_PROJECTOR,
        .parts = WEIGHTS_PROJECTOR,
        .image_token = -1,
    };
    if (files_find(&w->files, PROJECTOR "linear_1.weight", &first) == 1 &&
        files_check_type(first, err) < 0)
        return -1;
    if (files_find(&w->files, PROJECTOR "linear_1.weight", &first) != 1 ||
        first->tensor.n_dims != 2)
        return err_set(err, ERR_FORMAT,
                       "'%s' is no projector: it has no tensor mm_projector.0.weight, "
                       "mm_projector.weight or multi_modal_projector.linear_1.weight",
                       w->path);
    model->llm.width = first->tensor.dims[0];
    model->vision.width = first->tensor.dims[1];
    model->projector_no_bias =
        files_find(&w->files, PROJECTOR "linear_1.bias", &other) == 0;
    model->projector = NEVA_PROJECTOR_LINEAR;
    if (files_find(&w->files, PROJECTOR "linear_2.weight", &other) > 0)
        model->projector = NEVA_PROJECTOR_MLP2X_GELU;
    if (files_find(&w->files, PROJECTOR "norm.weight", &other) > 0) {
        model->projector = NEVA_PROJECTOR_MLP_DOWNSAMPLE;
        model->vision.width /= 4; /* of 2 x 2 patches */
    }
    return 0;
}

static int open_checkpoint(struct weights *w, struct err *err)
{
    struct json *manifest;
    const struct json *list;
    int rc;

    if (manifest_read(&manifest, w->path, err) < 0)
        return -1;
    list = json_get(manifest, "files");
    w->is_checkpoint = w->has_own_names = true;
    for (size_t i = 0; i < json_count(list); i++)
        if (json_get_string(json_at(list, i), "names"))
            w->has_own_names = false;
    rc = files_open_checkpoint(&w->files, w->path, manifest, w->config.layout, err);
    json_free(manifest);
    return rc;
}

static int open_folder(struct weights *w, struct err *err)
{
    if (has(w->path, "checkpoint.json")) {
        if (!has(w->path, "config.json"))
            return err_set(err, ERR_UNSUPPORTED,
                           "'%s' has no config.json, it was written by an older vneva: "
                           "resume the run it belongs to, the next checkpoint has one",
                           w->path);
        if (read_config(w, err) < 0)
            return -1;
        return open_checkpoint(w, err);
    }
    if (!has(w->path, "config.json") || has(w->path, "mm_projector.bin")) {
        if (files_open_folder(&w->files, w->path, HF_LAYOUT_PROJECTOR, err) < 0)
            return -1;
        return read_projector(w, err);
    }
    if (read_config(w, err) < 0)
        return -1;
    return files_open_folder(&w->files, w->path, w->config.layout, err);
}

static int open_path(struct weights *w, struct err *err)
{
    struct stat st;

    if (stat(w->path, &st) < 0)
        return err_set(err, ERR_NOT_FOUND, "'%s' does not exist", w->path);
    if (refuse_nemo(w->path, err) < 0)
        return -1;
    if (S_ISDIR(st.st_mode))
        return open_folder(w, err);
    if (!ends(w->path, ".safetensors") && !ends(w->path, ".bin") &&
        !ends(w->path, ".pt") && !ends(w->path, ".pth"))
        return err_set(
            err, ERR_UNSUPPORTED,
            "'%s' is no folder, and no .safetensors or .bin file of a projector",
            w->path);
    if (files_open_one(&w->files, w->path, HF_LAYOUT_PROJECTOR, err) < 0)
        return -1;
    return read_projector(w, err);
}

static struct weights *create(const char *path, struct err *err)
{
    struct weights *w = calloc(1, sizeof(*w));

    if (!w)
        err_set(err, ERR_NOMEM, "cannot allocate weights");
    else if (fs_path(w->path, err, "%s", path) == 0)
        return w;
    free(w);
    return NULL;
}

int weights_open(struct weights **out, const char *folder, struct err *err)
{
    struct weights *w = create(folder, err);

    if (!w)
        return -1;
    if (open_path(w, err) < 0 || finish(w, false, err) < 0) {
        weights_close(w);
        return err_wrap(err, "cannot read the weights '%s'", folder);
    }
    *out = w;
    return 0;
}

int weights_open_checkpoint(struct weights **out, const char *folder,
                            const struct neva_config *model, struct err *err)
{
    struct weights *w = create(folder, err);

    if (!w)
        return -1;
    w->config = (struct hf_config){.architecture = HF_ARCHITECTURE_LLAVA,
                                   .layout = HF_LAYOUT_LLAVA,
                                   .parts = WEIGHTS_ALL,
                                   .model = *model,
                                   .image_token = -1};
    if (open_checkpoint(w, err) < 0 || finish(w, true, err) < 0) {
        weights_close(w);
        return -1;
    }
    *out = w;
    return 0;
}

void weights_close(struct weights *weights)
{
    if (!weights)
        return;
    files_close(&weights->files);
    param_table_fini(&weights->table);
    free(weights);
}

/* ---- reading ---- */

const struct weights_info *weights_info(const struct weights *weights)
{
    return &weights->info;
}

const struct param_table *weights_params(const struct weights *weights)
{
    return &weights->table;
}

int weights_read(struct weights *weights, int i, void *out, struct err *err)
{
    const struct param *param = &weights->table.params[i];
    struct stored *first;
    int n = files_find(&weights->files, param->name, &first);

    return weights_fill(&(struct fill_target){out, param->value.dtype}, 1, param, first,
                        n, &weights->config.model, err);
}
