#include "common/base/stage.h"
#include "model/weights/convert.h"
#include "model/weights/internal.h"
#include "model/weights/parallel.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- one parameter ---- */

#define PIECE ((int64_t)1 << 15) /* numbers that stay in the cache between two targets */

static void *at(const struct fill_target *target, int64_t i)
{
    return (char *)target->data + (size_t)i * dtype_bytes(target->type);
}

/* n numbers of the file from `from_at` on, to the targets from `to_at` on. */
static void fill_run(const struct fill_target *targets, int n_targets, int64_t to_at,
                     const struct tensor *from, int64_t from_at, int64_t n)
{
    const char *data = from->data;
    size_t item = dtype_bytes(from->dtype);

    for (int64_t done = 0; done < n; done += PIECE)
        for (int i = 0; i < n_targets; i++)
            convert(at(&targets[i], to_at + done), targets[i].type,
                    data + (size_t)(from_at + done) * item, from->dtype,
                    n - done < PIECE ? n - done : PIECE);
}

/* Entries of the split axis that a stored tensor and this rank's slice share: [*first,
 * *end) of the whole; false when there are none. */
static bool common_range(const struct param *param, const struct stored *from,
                         int64_t *first, int64_t *end)
{
    struct param_slice s = param_slice(param);
    int axis = param->shard_axis < 0 ? 0 : param->shard_axis;
    int64_t from_first = from->place.axis < 0 ? 0 : from->place.first;
    int64_t from_end = from_first + from->tensor.dims[axis];

    *first = s.first > from_first ? s.first : from_first;
    *end = s.first + s.n_real < from_end ? s.first + s.n_real : from_end;
    return *first < *end;
}

static void fill_common(const struct fill_target *targets, int n_targets,
                        const struct param *param, const struct stored *from,
                        int64_t first, int64_t end)
{
    struct param_slice s = param_slice(param);
    int axis = param->shard_axis < 0 ? 0 : param->shard_axis;
    int64_t from_first = from->place.axis < 0 ? 0 : from->place.first;
    int64_t from_count = from->tensor.dims[axis];

    for (int64_t outer = 0; outer < s.outer; outer++)
        fill_run(targets, n_targets, (outer * s.local + first - s.first) * s.inner,
                 &from->tensor, (outer * from_count + first - from_first) * s.inner,
                 (end - first) * s.inner);
}

/* Padding behind the last entry of a split axis. */
static void zero_padding(const struct fill_target *target, const struct param *param)
{
    struct param_slice s = param_slice(param);
    size_t n_bytes = (size_t)((s.local - s.n_real) * s.inner) * dtype_bytes(target->type);

    for (int64_t outer = 0; outer < s.outer && n_bytes > 0; outer++)
        memset(at(target, (outer * s.local + s.n_real) * s.inner), 0, n_bytes);
}

/* Rows from `have` on, that no file has. */
static int fill_fresh(const struct fill_target *targets, int n_targets,
                      const struct param *param, int64_t have,
                      const struct neva_config *config, struct err *err)
{
    struct param_slice s = param_slice(param);
    float *row;

    if (s.first + s.n_real <= have)
        return 0;
    row = malloc((size_t)s.inner * sizeof(*row));
    if (!row)
        return err_set(err, ERR_NOMEM, "cannot allocate a row of '%s'", param->name);
    for (int64_t i = have > s.first ? have : s.first; i < s.first + s.n_real; i++) {
        neva_fresh_values(config, param, i * s.inner, s.inner, row);
        for (int j = 0; j < n_targets; j++)
            convert(at(&targets[j], (i - s.first) * s.inner), targets[j].type, row,
                    DTYPE_F32, s.inner);
    }
    free(row);
    return 0;
}

int weights_fill(const struct fill_target *targets, int n_targets,
                 const struct param *param, struct stored *first, int n,
                 const struct neva_config *config, struct err *err)
{
    int rc = 0;

    for (int i = 0; i < n && rc == 0; i++) {
        int64_t begin, end;

        if (!common_range(param, &first[i], &begin, &end))
            continue; /* a rank that wants it verifies it */
        files_need(&first[i].tensor);
        rc = files_verify(&first[i], err);
        if (rc == 0)
            fill_common(targets, n_targets, param, &first[i], begin, end);
        files_drop(&first[i].tensor);
    }
    for (int i = 0; i < n_targets && rc == 0; i++)
        zero_padding(&targets[i], param);
    if (rc < 0 || param->shard_axis > 0)
        return rc;
    return fill_fresh(targets, n_targets, param, first->place.whole[0], config, err);
}

/* ---- into the model ---- */

struct loader {
    struct neva *model;
    struct weights *weights;
    unsigned parts;
};

/* Memory that the CPU reaches: where the numbers go, without a copy. */
static int load_host(struct loader *l, struct param *param, struct stored *first, int n,
                     struct err *err)
{
    const struct fill_target targets[FILL_TARGETS_MAX] = {
        {param->value.data, param->value.dtype}, {param->master.data, DTYPE_F32}};
    bool is_both = param->master.data && param->master.data != param->value.data;

    return weights_fill(targets, is_both ? 2 : 1, param, first, n, &l->model->config,
                        err);
}

static int load_device(struct loader *l, struct param *param, struct stored *first, int n,
                       struct err *err)
{
    struct backend *b = l->model->backend;
    const struct tensor *to = param->master.data ? &param->master : &param->value;
    struct fill_target room = {malloc(tensor_bytes(to) + 1), to->dtype};
    int rc;

    if (!room.data)
        return err_set(err, ERR_NOMEM, "cannot allocate %zu bytes", tensor_bytes(to));
    rc = weights_fill(&room, 1, param, first, n, &l->model->config, err);
    if (rc == 0)
        rc = b->ops->upload(b, to->data, room.data, tensor_bytes(to), err);
    if (rc == 0 && to->data != param->value.data)
        rc = b->ops->cast(b, &param->value, to, err);
    free(room.data);
    return rc;
}

static int load_param(void *state, int i, struct err *err)
{
    struct loader *l = state;
    struct param *param = &l->model->params.params[i];
    struct stored *first;
    int n;

    if (!(l->parts & 1U << param->group))
        return 0;
    n = files_find(&l->weights->files, param->name, &first);
    return (l->model->backend->ops->is_host ? load_host : load_device)(l, param, first, n,
                                                                       err);
}

static int load_all(struct loader *l, struct err *err)
{
    bool is_host = l->model->backend->ops->is_host;
    /* a device's calls come from one thread; ranks of one machine load at the same time */
    int n_threads = is_host ? parallel_threads(comm_size(l->model->group)) : 1;

    return parallel_run(n_threads, l->model->params.n_params, load_param, l, err);
}

/* ---- do folder and model fit ---- */

static bool is_vocab(const struct param *param)
{
    return param->group == PARAM_LLM && param->n_dims == 2 &&
           (strcmp(param->name, "lm_head.weight") == 0 ||
            strcmp(param->name, "model.language_model.embed_tokens.weight") == 0);
}

static int check_parts(const struct weights *w, unsigned parts, struct err *err)
{
    static const char *const names[PARAM_GROUP_COUNT] = {"vision encoder", "projector",
                                                         "decoder"};

    for (int i = 0; i < PARAM_GROUP_COUNT; i++)
        if (parts & ~w->config.parts & 1U << i)
            return err_set(err, ERR_INVALID, "'%s' (%s) has no %s", w->path,
                           w->config.architecture, names[i]);
    return 0;
}

/* What the model has is in the folder, in its shape. */
static int check_model(const struct neva *model, const struct weights *w, unsigned parts,
                       struct err *err)
{
    for (int i = 0; i < model->params.n_params; i++) {
        const struct param *param = &model->params.params[i];
        struct stored *first;
        int n;

        stage_touch();
        if (!(parts & 1U << param->group))
            continue;
        n = files_find(&w->files, param->name, &first);
        if (n == 0 || !param_find(&w->table, param->name))
            return err_set(err, ERR_INVALID, "tensor '%s' is missing from '%s'%s",
                           param->name, w->path,
                           w->config.model.llm.tied && is_vocab(param)
                               ? ", whose embeddings and output weights are one: set "
                                 "model.share_embeddings_and_output_weights"
                               : ", which has another architecture than this model");
        if (files_check(first, n, param, is_vocab(param), err) < 0)
            return -1;
    }
    return 0;
}

/* SigLIP's pooling head, which nothing runs: a model may do without. */
static bool is_head(const struct param *param)
{
    return strncmp(param->name, "model.vision_tower.vision_model.head.", 37) == 0;
}

/* What is in the folder has a place in the model. */
static int check_folder(const struct neva *model, const struct weights *w, unsigned parts,
                        struct err *err)
{
    for (int i = 0; i < w->table.n_params; i++) {
        const struct param *param = &w->table.params[i];

        if (parts & 1U << param->group && !is_head(param) &&
            !param_find(&model->params, param->name))
            return err_set(err, ERR_INVALID,
                           "tensor '%s' of '%s' has no place in this model, which has "
                           "another architecture",
                           param->name, w->path);
    }
    if (parts & WEIGHTS_LLM && w->config.sliding_window > 0 &&
        model->config.max_tokens > w->config.sliding_window)
        return err_set(err, ERR_UNSUPPORTED,
                       "model.encoder_seq_length is %lld and the decoder of '%s' attends "
                       "to a sliding window of %lld: up to that length both are the same",
                       (long long)model->config.max_tokens, w->path,
                       (long long)w->config.sliding_window);
    return 0;
}

static int load(struct neva *model, struct weights *weights, unsigned parts,
                struct err *err)
{
    struct loader l = {model, weights, parts};

    if (check_parts(weights, parts, err) < 0 ||
        check_model(model, weights, parts, err) < 0 ||
        check_folder(model, weights, parts, err) < 0)
        return -1;
    return load_all(&l, err);
}

int weights_load(struct neva *model, struct weights *weights, unsigned parts,
                 struct err *err)
{
    int rc = load(model, weights, parts, err);

    if (rc < 0)
        err_wrap(err, "cannot load '%s'", weights->path);
    return neva_agree(model, rc, err);
}
