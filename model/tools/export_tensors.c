/* The tensors of an export: in which file, under which name, in which type. */
#include "common/base/json_file.h"
#include "model/checkpoint/safetensors.h"
#include "model/tools/export.h"
#include "model/tools/tool.h"
#include "model/weights/convert.h"
#include "model/weights/hf_names.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The row of <unk>, or whatever comes first: what a row that is added is a copy of. Never
 * more probable than its model, and behind it, it is never an answer of its own. */
#define COPIED_ROW 0

static bool is_vocab(const struct param *param)
{
    return strcmp(param->name, "model.language_model.embed_tokens.weight") == 0 ||
           strcmp(param->name, "lm_head.weight") == 0;
}

/* As it is written: whole, in the type asked for, with a further row if there is one. */
static struct tensor written_tensor(const struct export *export,
                                    const struct param *param)
{
    struct tensor tensor =
        tensor_of(NULL, export->has_dtype ? export->dtype : param->value.dtype,
                  param->n_dims, param->dims);

    if (is_vocab(param))
        tensor.dims[0] = export->vocab;
    return tensor;
}

uint64_t export_bytes(const struct export *export)
{
    const struct param_table *table = weights_params(export->weights);
    uint64_t n_bytes = 0;

    for (int i = 0; i < table->n_params; i++) {
        struct tensor tensor = written_tensor(export, &table->params[i]);

        n_bytes += tensor_bytes(&tensor);
    }
    return n_bytes;
}

/* ---- a file ---- */

struct shard {
    struct export *export;
    struct safetensor *tensors;
    int *params; /* their numbers in the table */
    int n;
    char *room; /* a tensor as it is stored */
};

static int shard_fill(void *state, int i, void *out, struct err *err)
{
    struct shard *shard = state;
    struct export *export = shard->export;
    const struct param *param =
        &weights_params(export->weights)->params[shard->params[i]];
    struct tensor stored =
        tensor_of(NULL, param->value.dtype, param->n_dims, param->dims);
    const struct tensor *to = &shard->tensors[i].tensor;
    size_t n_bytes = (size_t)tensor_count(&stored) * dtype_bytes(to->dtype);
    bool is_same = stored.dtype == to->dtype;

    if (weights_read(export->weights, shard->params[i], is_same ? out : shard->room,
                     err) < 0)
        return -1;
    if (!is_same)
        convert(out, to->dtype, shard->room, stored.dtype, tensor_count(&stored));
    for (size_t at = n_bytes; at < tensor_bytes(to);
         at += n_bytes / (size_t)param->dims[0])
        memcpy((char *)out + at,
               (char *)out + COPIED_ROW * (n_bytes / (size_t)param->dims[0]),
               n_bytes / (size_t)param->dims[0]);
    return 0;
}

static int shard_write(struct shard *shard, const char *name, struct err *err)
{
    const struct safetensors_source source = {shard, shard_fill};
    char path[FS_PATH_MAX];

    if (fs_path(path, err, "%s/%s", shard->export->temporary, name) < 0)
        return -1;
    return safetensors_write_plain(path, shard->tensors, shard->n, &source, "pt", err);
}

/* ---- which files ---- */

struct plan {
    struct shard all; /* every tensor, sorted by the name it is written under */
    int *shard_of;    /* [all.n] */
    int n_shards;
    uint64_t n_bytes;
};

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct safetensor *)a)->name,
                  ((const struct safetensor *)b)->name);
}

/* Numbers of parameters in the order of the sorted names. */
static int find_params(struct plan *plan, const struct param_table *table,
                       struct err *err)
{
    for (int i = 0; i < plan->all.n; i++) {
        char name[PARAM_NAME_MAX];
        int p = 0;

        while (p < table->n_params) {
            hf_name_write(name, table->params[p].name);
            if (strcmp(name, plan->all.tensors[i].name) == 0)
                break;
            p++;
        }
        if (p == table->n_params)
            return err_set(err, ERR_STATE, "tensor '%s' got lost",
                           plan->all.tensors[i].name);
        plan->all.params[i] = p;
    }
    return 0;
}

/* As huggingface_hub divides: the next file begins where this one would be too large. */
static void divide(struct plan *plan, uint64_t shard_bytes)
{
    uint64_t used = 0;

    plan->n_shards = 1;
    for (int i = 0; i < plan->all.n; i++) {
        uint64_t n_bytes = tensor_bytes(&plan->all.tensors[i].tensor);

        if (used > 0 && used + n_bytes > shard_bytes) {
            plan->n_shards++;
            used = 0;
        }
        used += n_bytes;
        plan->n_bytes += n_bytes;
        plan->shard_of[i] = plan->n_shards - 1;
    }
}

static int plan_init(struct plan *plan, struct export *export, struct err *err)
{
    const struct param_table *table = weights_params(export->weights);
    size_t n = (size_t)table->n_params, most = 1;

    plan->all = (struct shard){.export = export,
                               .tensors = calloc(n, sizeof(*plan->all.tensors)),
                               .params = calloc(n, sizeof(*plan->all.params)),
                               .n = table->n_params};
    plan->shard_of = calloc(n, sizeof(*plan->shard_of));
    for (int i = 0; i < table->n_params && plan->all.tensors; i++) {
        const struct param *param = &table->params[i];
        struct tensor stored =
            tensor_of(NULL, param->value.dtype, param->n_dims, param->dims);

        hf_name_write(plan->all.tensors[i].name, param->name);
        plan->all.tensors[i].tensor = written_tensor(export, param);
        most = tensor_bytes(&stored) > most ? tensor_bytes(&stored) : most;
    }
    plan->all.room = malloc(most);
    if (!plan->all.tensors || !plan->all.params || !plan->shard_of || !plan->all.room)
        return err_set(err, ERR_NOMEM, "cannot allocate a table of %zu tensors", n);
    qsort(plan->all.tensors, n, sizeof(*plan->all.tensors), by_name);
    divide(plan, export->shard_bytes);
    return find_params(plan, table, err);
}

static void plan_fini(struct plan *plan)
{
    free(plan->all.tensors);
    free(plan->all.params);
    free(plan->all.room);
    free(plan->shard_of);
}

static void shard_name(char out[64], const struct plan *plan, int k)
{
    if (plan->n_shards == 1)
        snprintf(out, 64, "model.safetensors");
    else
        snprintf(out, 64, "model-%05d-of-%05d.safetensors", k + 1, plan->n_shards);
}

static int write_shards(struct plan *plan, struct err *err)
{
    for (int k = 0, first = 0; k < plan->n_shards; k++) {
        struct shard part = plan->all;
        char name[64];
        int n = 0;

        while (first + n < plan->all.n && plan->shard_of[first + n] == k)
            n++;
        part.tensors += first;
        part.params += first;
        part.n = n;
        shard_name(name, plan, k);
        if (shard_write(&part, name, err) < 0)
            return -1;
        first += n;
    }
    return 0;
}

/* {"metadata": {"total_size": n}, "weight_map": {"NAME": "FILE"}} */
static int write_index(const struct plan *plan, struct err *err)
{
    struct json *root = json_new(JSON_OBJECT), *about = json_new(JSON_OBJECT);
    struct json *map = json_new(JSON_OBJECT);
    int rc = json_set(about, "total_size", json_new_int((int64_t)plan->n_bytes), err);

    for (int i = 0; i < plan->all.n && rc == 0; i++) {
        char name[64];

        shard_name(name, plan, plan->shard_of[i]);
        rc = json_set(map, plan->all.tensors[i].name, json_new_string(name), err);
    }
    if (json_set(root, "metadata", about, err) < 0)
        rc = -1;
    if (json_set(root, "weight_map", map, err) < 0)
        rc = -1;
    if (rc == 0)
        rc = json_file_write(plan->all.export->temporary, "model.safetensors.index.json",
                             root, err);
    json_free(root);
    return rc;
}

int export_tensors(struct export *export, struct err *err)
{
    struct plan plan = {.n_shards = 0};
    int rc = plan_init(&plan, export, err);

    if (rc == 0)
        rc = write_shards(&plan, err);
    if (rc == 0 && plan.n_shards > 1)
        rc = write_index(&plan, err);
    plan_fini(&plan);
    return rc;
}
