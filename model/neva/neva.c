#include "model/neva/internal.h"

#include "common/base/rng.h"
#include "common/base/stage.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- creation ---- */

/* Table and layers, without any memory of a backend. */
int neva_init_plan(struct neva *model, const struct neva_config *config, int rank,
                   int n_ranks, struct err *err)
{
    struct block_config vision, llm;
    struct param *head;

    *model = (struct neva){.config = *config};
    if (neva_config_check(config, n_ranks, err) < 0)
        return -1;
    vision = neva_vision_block(config);
    llm = neva_llm_block(config, n_ranks);
    if (param_table_build(&model->params, config, rank, n_ranks, err) < 0 ||
        stack_init(&model->vision, &vision, neva_vision_layers(config), err) < 0 ||
        stack_init(&model->llm, &llm, config->llm.n_layers, err) < 0) {
        neva_fini_plan(model);
        return -1;
    }
    model->embed = param_find(&model->params, "model.language_model.embed_tokens.weight");
    head = config->llm.tied ? model->embed : param_find(&model->params, "lm_head.weight");
    model->head = (struct head){.n_real = head->n_real,
                                .first = (int32_t)head->first,
                                .norm = config->llm.norm,
                                .loss_scale = 1};
    model->head.w = tensor_of(NULL, config->dtype, head->n_dims, head->local_dims);
    return 0;
}

void neva_fini_plan(struct neva *model)
{
    param_table_fini(&model->params);
    stack_fini(&model->vision);
    stack_fini(&model->llm);
}

void neva_fresh_values(const struct neva_config *config, const struct param *param,
                       int64_t first, int64_t n, float *out)
{
    struct rng_key key = {config->seed, rng_stream(param->name)};

    for (int64_t i = 0; i < n; i++)
        if (param->init == INIT_NORMAL)
            out[i] = param->init_std * (float)rng_normal(key, (uint64_t)(first + i));
        else
            out[i] = param->init == INIT_ONE ? 1 : 0;
}

/* This rank's entries of a parameter, by their place in the whole tensor; padding 0. */
static void init_values(const struct neva_config *config, const struct param *param,
                        float *out)
{
    struct param_slice s = param_slice(param);

    for (int64_t outer = 0; outer < s.outer; outer++) {
        float *row = out + outer * s.local * s.inner;

        neva_fresh_values(config, param, (outer * s.whole + s.first) * s.inner,
                          s.n_real * s.inner, row);
        for (int64_t i = s.n_real * s.inner; i < s.local * s.inner; i++)
            row[i] = 0;
    }
}

int neva_param_write(struct neva *model, struct param *param, const float *host,
                     struct err *err)
{
    struct backend *b = model->backend;
    size_t n_bytes = (size_t)tensor_count(&param->value) * sizeof(float);
    struct tensor wide = param->master;
    int rc = -1;

    if (!wide.data) {
        wide = tensor_of(NULL, DTYPE_F32, param->n_dims, param->local_dims);
        if (b->ops->alloc(b, &wide.data, n_bytes, err) < 0)
            return -1;
    }
    if (b->ops->upload(b, wide.data, host, n_bytes, err) == 0 &&
        (wide.data == param->value.data ||
         b->ops->cast(b, &param->value, &wide, err) == 0))
        rc = 0;
    if (!param->master.data)
        b->ops->free(b, wide.data);
    return rc;
}

int neva_init_fresh(struct neva *model, unsigned parts, struct err *err)
{
    int64_t most = 1;
    float *host;
    int rc = 0;

    for (int i = 0; i < model->params.n_params; i++) {
        int64_t n = tensor_count(&model->params.params[i].value);

        most = n > most ? n : most;
    }
    host = malloc((size_t)most * sizeof(*host));
    if (!host)
        return err_set(err, ERR_NOMEM, "cannot allocate %lld initial weights",
                       (long long)most);
    for (int i = 0; i < model->params.n_params && rc == 0; i++) {
        struct param *param = &model->params.params[i];

        if (!(parts & 1U << param->group))
            continue;
        init_values(&model->config, param, host);
        rc = neva_param_write(model, param, host, err);
    }
    free(host);
    return rc;
}

/* One part of the table in an arena of its own; gradients and moments zeroed. */
static int place_part(struct neva *model, enum param_part part, enum dtype dtype,
                      struct arena *arena, struct err *err)
{
    struct backend *b = model->backend;
    struct arena plan = {0};

    param_table_layout(&model->params, part, dtype, &plan);
    if (plan.peak == 0)
        return 0;
    if (arena_reserve(arena, b, plan.peak, err) < 0)
        return -1;
    param_table_layout(&model->params, part, dtype, arena);
    if (part == PARAM_VALUE || part == PARAM_MASTER)
        return 0; /* written whole, with their padding, before they are read */
    return b->ops->zero(b, arena->base, arena->n_bytes, err);
}

int neva_create_bare(struct neva **out, const struct neva_config *config,
                     struct backend *b, struct comm *tensor_group, struct err *err)
{
    struct neva *model = calloc(1, sizeof(*model));

    if (!model)
        return err_set(err, ERR_NOMEM, "cannot allocate the model");
    if (neva_init_plan(model, config, comm_rank(tensor_group), comm_size(tensor_group),
                       err) < 0) {
        free(model);
        return -1;
    }
    model->backend = b;
    model->group = tensor_group;
    model->vision_nn = (struct nn){.backend = b, .dtype = config->dtype};
    model->llm_nn =
        (struct nn){.backend = b, .group = tensor_group, .dtype = config->dtype};
    if (place_part(model, PARAM_VALUE, config->dtype, &model->values, err) < 0 ||
        place_part(model, PARAM_MASTER, config->dtype, &model->masters, err) < 0 ||
        neva_tally_init(model, err) < 0) {
        neva_destroy(model);
        return err_wrap(err, "cannot create the model");
    }
    neva_bind(model);
    model->reduction.bucket_bytes = NEVA_BUCKET_BYTES;
    *out = model;
    return 0;
}

int neva_create(struct neva **out, const struct neva_config *config, struct backend *b,
                struct comm *tensor_group, struct err *err)
{
    if (neva_create_bare(out, config, b, tensor_group, err) < 0)
        return -1;
    if (neva_init_fresh(*out, ~0U, err) == 0)
        return 0;
    neva_destroy(*out);
    *out = NULL;
    return err_wrap(err, "cannot create the model");
}

void neva_destroy(struct neva *model)
{
    if (!model)
        return;
    neva_tally_fini(model);
    neva_fini_plan(model);
    arena_fini(&model->values);
    arena_fini(&model->masters);
    arena_fini(&model->grads);
    arena_fini(&model->moments);
    arena_fini(&model->acts);
    if (model->ahead.room.base) /* a copy may be on its way there */
        (void)model->backend->ops->ahead_take(model->backend, NULL);
    arena_fini(&model->ahead.room);
    nn_fini(&model->vision_nn);
    nn_fini(&model->llm_nn);
    free(model->index.memory);
    free(model);
}

int neva_need_grads(struct neva *model, struct err *err)
{
    if (model->grads.base)
        return 0;
    if (place_part(model, PARAM_GRAD, DTYPE_F32, &model->grads, err) < 0)
        return err_wrap(err, "gradients");
    neva_bind(model);
    return 0;
}

int neva_need_moments(struct neva *model, struct err *err)
{
    if (model->moments.base)
        return 0;
    if (place_part(model, PARAM_MOMENTS, DTYPE_F32, &model->moments, err) < 0)
        return err_wrap(err, "optimizer state");
    return 0;
}

int neva_agree(struct neva *model, int rc, struct err *err)
{
    double failed = rc < 0 ? comm_rank(model->group) + 1 : 0;

    if (rc < 0) { /* keep the own text; the others learn that somebody failed */
        comm_all_reduce_f64(model->group, &failed, 1, COMM_MAX, NULL);
        return -1;
    }
    if (comm_all_reduce_f64(model->group, &failed, 1, COMM_MAX, err) < 0)
        return -1;
    if (failed > 0)
        return err_set(err, ERR_PEER, "tensor-parallel rank %d failed; its log says why",
                       (int)failed - 1);
    return 0;
}

/* ---- reading ---- */

const struct neva_config *neva_config(const struct neva *model)
{
    return &model->config;
}

struct param_table *neva_params(struct neva *model)
{
    return &model->params;
}

struct backend *neva_backend(struct neva *model)
{
    return model->backend;
}

struct comm *neva_tensor_group(struct neva *model)
{
    return model->group;
}

void neva_frame_range(const struct neva *model, int64_t n_frames, int64_t *first,
                      int64_t *count)
{
    neva_frame_share(n_frames, comm_rank(model->group), comm_size(model->group), first,
                     count);
}

/* ---- passes ---- */

static int check_batch(const struct neva *model, const struct neva_batch *batch,
                       struct err *err)
{
    if (batch->n_samples < 1 || batch->n_tokens < 1 || batch->n_frames < 0)
        return err_set(err, ERR_INVALID,
                       "micro batch of %lld samples, %lld tokens, %lld frames",
                       (long long)batch->n_samples, (long long)batch->n_tokens,
                       (long long)batch->n_frames);
    if (batch->n_tokens > model->config.max_tokens)
        return err_set(err, ERR_LIMIT,
                       "rows of %lld tokens, model.encoder_seq_length is %lld",
                       (long long)batch->n_tokens, (long long)model->config.max_tokens);
    if (batch->n_samples * batch->n_tokens > INT32_MAX ||
        batch->n_frames > INT32_MAX / (neva_vision_tokens(&model->config) +
                                       neva_features(&model->config) *
                                           neva_feature_rows(&model->config)))
        return err_set(err, ERR_LIMIT,
                       "the micro batch has more than %d rows: use a "
                       "smaller model.micro_batch_size",
                       INT32_MAX);
    return 0;
}

/* sum: one of the tally's, the loss is added to it */
static int run(struct neva *model, const struct neva_batch *batch, bool is_training,
               int64_t *n_labels, double *sum, struct err *err)
{
    const struct neva_shape shape = {batch->n_samples, batch->n_tokens, batch->n_frames,
                                     is_training};
    struct neva_index *index = &model->index;
    struct tensor *last, *d = &model->text_acts.d;

    *n_labels = 0;
    if (check_batch(model, batch, err) < 0 || neva_prepare(model, &shape, err) < 0 ||
        neva_index_fill(model, batch, true, err) < 0)
        return -1;
    *n_labels = index->n_labels;
    if (index->n_labels == 0)
        return 0; /* every rank sees the same labels, so all return here */
    last = &model->llm.x[model->llm.n_layers];
    if (neva_forward(model, batch, NULL, err) < 0)
        return -1;
    if (is_training &&
        model->backend->ops->zero(model->backend, d->data, tensor_bytes(d), err) < 0)
        return -1;
    if (head_loss(&model->llm_nn, &model->head, &model->head_scratch, last,
                  &index->label_rows.there, &index->labels.there, is_training ? d : NULL,
                  sum, err) < 0)
        return err_wrap(err, "loss");
    if (!is_training)
        return 0;
    return neva_reduce_head(model, err) < 0 ? -1 : neva_backward(model, batch, err);
}

static int run_in_stage(struct neva *model, const struct neva_batch *batch,
                        bool is_training, struct neva_loss *loss, struct err *err)
{
    struct stage_mark before = stage_begin("forward", NULL, STAGE_LIMITED);
    double *sum = is_training ? &model->tally->loss : &model->tally->evaluated;
    int rc = neva_keep_close(model, err);

    loss->sum = NAN; /* the device may be behind */
    if (rc == 0)
        rc = run(model, batch, is_training, &loss->n_labels, sum, err);
    neva_ahead_forget(model); /* of this batch, used or not */
    stage_end(before);
    return rc;
}

int neva_step(struct neva *model, const struct neva_batch *batch, struct neva_loss *loss,
              struct err *err)
{
    if (neva_need_grads(model, err) < 0 || neva_check_reduction(model, err) < 0)
        return -1;
    model->has_partial_grads = true;
    if (run_in_stage(model, batch, true, loss, err) < 0)
        return -1;
    model->n_labels_seen += loss->n_labels;
    return 0;
}

int neva_read_loss(struct neva *model, struct neva_loss *loss, struct err *err)
{
    struct backend *b = model->backend;

    loss->n_labels = model->n_labels_seen;
    return b->ops->download(b, &loss->sum, &model->tally->loss, sizeof(loss->sum), err);
}

int neva_reserve(struct neva *model, int64_t n_samples, int64_t n_tokens,
                 int64_t n_frames, struct err *err)
{
    const struct neva_shape shape = {n_samples, n_tokens, n_frames, true};

    if (neva_need_grads(model, err) < 0 || neva_need_moments(model, err) < 0 ||
        neva_need_list(model, err) < 0 || neva_ahead_reserve(model, n_frames, err) < 0)
        return -1;
    return neva_prepare(model, &shape, err);
}

int neva_begin_evaluation(struct neva *model, struct err *err)
{
    return neva_zero_loss(model, &model->tally->evaluated, err);
}

int neva_evaluate(struct neva *model, const struct neva_batch *batch,
                  struct neva_loss *loss, struct err *err)
{
    return run_in_stage(model, batch, false, loss, err);
}

int neva_end_evaluation(struct neva *model, double *loss_sum, struct err *err)
{
    struct stage_mark before = stage_begin("evaluation", NULL, STAGE_LIMITED);
    struct backend *b = model->backend;
    int rc = b->ops->download_begin(b, loss_sum, &model->tally->evaluated,
                                    sizeof(*loss_sum), err);

    if (rc == 0)
        rc = b->ops->download_end(b, err);
    neva_forget_marks(model);
    stage_end(before);
    return rc < 0 ? err_wrap(err, "loss of an evaluation") : 0;
}

void neva_set_loss_scale(struct neva *model, double scale)
{
    model->head.loss_scale = scale;
}

int neva_begin_batch(struct neva *model, struct err *err)
{
    model->n_frames_seen = model->n_labels_seen = 0;
    model->has_partial_grads = false;
    neva_forget_marks(model); /* optim_step has waited for more, or nobody cares */
    return neva_zero_loss(model, &model->tally->loss, err);
}

int neva_zero_grad(struct neva *model, struct err *err)
{
    if (neva_drop_reduction(model, err) < 0 || neva_begin_batch(model, err) < 0)
        return -1;
    if (!model->grads.base)
        return 0;
    return model->backend->ops->zero(model->backend, model->grads.base,
                                     model->grads.n_bytes, err);
}
