/* From frames to rows of features, and back. Weights are whole on every rank, frames are
 * divided: nothing here is exchanged but the projected features, once. */
#include "model/neva/internal.h"

/* A parameter's value or gradient as a matrix of `rows` rows. */
static struct tensor as_matrix(const struct tensor *x, int64_t rows)
{
    return tensor_of(x->data, x->dtype, 2,
                     (const int64_t[]){rows, tensor_count(x) / rows});
}

static const struct tensor *value_of(const struct param *param)
{
    return param ? &param->value : NULL;
}

static struct tensor *grad_of(struct param *param)
{
    return param ? &param->grad : NULL;
}

/* ---- encoder ---- */

/* embedded [Fl*S,D] = [class; patches w^T + bias] + positions */
static int embed_fwd(struct neva *model, struct err *err)
{
    struct nn *nn = &model->vision_nn;
    const struct backend_ops *ops = nn->backend->ops;
    struct vision_acts *acts = &model->vision_acts;
    const struct neva_index *index = &model->index;
    struct param *class_embedding = model->encoder.class_embedding;
    struct tensor w = as_matrix(&model->encoder.patch->value, model->config.vision.width);

    if (nn_linear_fwd(nn, &acts->rows, &acts->patches, &w,
                      value_of(model->encoder.patch_bias), err) < 0 ||
        ops->scatter_rows(nn->backend, &acts->embedded, &acts->rows,
                          &index->patch_rows.there, err) < 0)
        return -1;
    if (class_embedding) {
        struct tensor row = as_matrix(&class_embedding->value, 1);

        if (ops->embed_fwd(nn->backend, &acts->classes, &row, &index->zeros.there, 0,
                           err) < 0 ||
            ops->scatter_rows(nn->backend, &acts->embedded, &acts->classes,
                              &index->class_rows.there, err) < 0)
            return -1;
    }
    return ops->add(nn->backend, &acts->embedded, &acts->embedded,
                    &model->encoder.position->value, 1, err);
}

/* x[0] of the layers: CLIP has a norm in front of them. */
static int first_norm_fwd(struct neva *model, struct err *err)
{
    struct vision_acts *acts = &model->vision_acts;

    if (!model->encoder.norm_w)
        return 0;
    return model->backend->ops->layernorm_fwd(
        model->backend, &model->vision.x[0], &acts->mean, &acts->rstd, &acts->embedded,
        &model->encoder.norm_w->value, &model->encoder.norm_b->value, 0,
        model->config.vision.eps, err);
}

/* [n, J*D] as [n*J, D] */
static struct tensor encoder_rows(const struct neva *model, const struct tensor *features)
{
    return as_matrix(features, tensor_count(features) / model->config.vision.width);
}

static int encoder_fwd(struct neva *model, struct err *err)
{
    struct nn *nn = &model->vision_nn;
    const struct backend_ops *ops = nn->backend->ops;
    const struct neva_config *config = &model->config;
    struct vision_acts *acts = &model->vision_acts;
    struct stack *stack = &model->vision;
    struct tensor features;

    if (ops->patchify(nn->backend, &acts->patches, &acts->pixels, config->vision.patch,
                      config->vision.mean, config->vision.std, err) < 0 ||
        embed_fwd(model, err) < 0 || first_norm_fwd(model, err) < 0 ||
        stack_fwd(nn, stack, &model->vision_rows, NULL, err) < 0)
        return err_wrap(err, "vision encoder");
    features = encoder_rows(model, &acts->features);
    return ops->embed_fwd(nn->backend, &features, &stack->x[stack->n_layers],
                          &model->index.feature_rows.there, 0, err);
}

/* d [Fl*S,D] = gradient of the embeddings, from that of x[0] */
static int first_norm_bwd(struct neva *model, struct tensor *d, struct err *err)
{
    struct vision_acts *acts = &model->vision_acts;

    *d = acts->d;
    if (!model->encoder.norm_w)
        return 0;
    *d = model->vision.scratch.part;
    return model->backend->ops->layernorm_bwd(
        model->backend, d, &model->encoder.norm_w->grad, &model->encoder.norm_b->grad,
        &acts->d, NULL, &acts->embedded, &model->encoder.norm_w->value, &acts->mean,
        &acts->rstd, 0, err);
}

/* Gradients of class, positions, patches and their bias. */
static int embed_bwd(struct neva *model, struct err *err)
{
    struct nn *nn = &model->vision_nn;
    const struct backend_ops *ops = nn->backend->ops;
    struct vision_acts *acts = &model->vision_acts;
    const struct neva_index *index = &model->index;
    struct param *class_embedding = model->encoder.class_embedding;
    struct tensor d, frames;
    struct tensor d_position = model->encoder.position->grad;
    struct tensor d_patch =
        as_matrix(&model->encoder.patch->grad, model->config.vision.width);

    d_position = tensor_of(d_position.data, DTYPE_F32, 1,
                           (const int64_t[]){tensor_count(&d_position)});
    if (first_norm_bwd(model, &d, err) < 0)
        return -1;
    frames = as_matrix(&d, model->vision_rows.batch);
    if (ops->bias_bwd(nn->backend, &d_position, &frames, err) < 0)
        return -1;
    if (class_embedding &&
        (ops->gather_rows(nn->backend, &acts->classes, &d, &index->class_rows.there,
                          err) < 0 ||
         ops->bias_bwd(nn->backend, &class_embedding->grad, &acts->classes, err) < 0))
        return -1;
    if (ops->gather_rows(nn->backend, &acts->rows, &d, &index->patch_rows.there, err) < 0)
        return -1;
    return nn_linear_bwd_w(nn, &d_patch, grad_of(model->encoder.patch_bias), &acts->rows,
                           &acts->patches, err);
}

/* d [Fl*S,D] = gradient of the last layer's output */
static int features_bwd(struct neva *model, struct err *err)
{
    struct tensor d_features = encoder_rows(model, &model->projector_acts.d_features);

    return model->backend->ops->embed_fwd(model->backend, &model->vision_acts.d,
                                          &d_features, &model->index.row_features.there,
                                          0, err);
}

/* ---- projector ---- */

static int projector_fwd(struct neva *model, struct err *err)
{
    struct nn *nn = &model->vision_nn;
    const struct backend_ops *ops = nn->backend->ops;
    struct projector_acts *acts = &model->projector_acts;
    const struct tensor *in = &model->vision_acts.features;
    const struct tensor *w1 = &model->projector.w1->value;
    const struct tensor *b1 = value_of(model->projector.b1);

    if (model->projector.norm_w) {
        if (ops->layernorm_fwd(nn->backend, &acts->normed, &acts->mean, &acts->rstd, in,
                               &model->projector.norm_w->value,
                               &model->projector.norm_b->value, 0, NEVA_PROJECTOR_EPS,
                               err) < 0)
            return -1;
        in = &acts->normed;
    }
    if (!model->projector.w2)
        return nn_linear_fwd(nn, &acts->out, in, w1, b1, err);
    if (nn_linear_act_fwd(nn, &acts->hidden, &acts->up, in, w1, b1, ACT_GELU, err) < 0)
        return -1;
    return nn_linear_fwd(nn, &acts->out, &acts->hidden, &model->projector.w2->value,
                         value_of(model->projector.b2), err);
}

/* d [Fl*Q,D']: gradient of the first layer's output -> d_features (wanted by a trained
 * encoder only) and the gradients of the first layer and of the norm in front of it */
static int projector_first_bwd(struct neva *model, const struct tensor *d,
                               struct err *err)
{
    struct nn *nn = &model->vision_nn;
    struct projector_acts *acts = &model->projector_acts;
    const struct tensor *features = &model->vision_acts.features;
    struct param *w1 = model->projector.w1, *norm_w = model->projector.norm_w;

    if (nn_linear_bwd_w(nn, &w1->grad, grad_of(model->projector.b1), d,
                        norm_w ? &acts->normed : features, err) < 0)
        return -1;
    if (!norm_w && model->config.vision.freeze)
        return 0;
    if (nn_linear_bwd_x(nn, norm_w ? &acts->d_normed : &acts->d_features, d, &w1->value,
                        err) < 0)
        return -1;
    if (!norm_w)
        return 0;
    return nn->backend->ops->layernorm_bwd(
        nn->backend, &acts->d_features, &norm_w->grad, &model->projector.norm_b->grad,
        &acts->d_normed, NULL, features, &norm_w->value, &acts->mean, &acts->rstd, 0,
        err);
}

/* d_out -> d_features and the projector's gradients */
static int projector_bwd(struct neva *model, struct err *err)
{
    struct nn *nn = &model->vision_nn;
    struct projector_acts *acts = &model->projector_acts;
    struct param *w2 = model->projector.w2;
    struct tensor *d = &acts->d_out;

    if (w2) {
        if (nn_linear_bwd_w(nn, &w2->grad, grad_of(model->projector.b2), d, &acts->hidden,
                            err) < 0 ||
            nn_linear_act_bwd_x(nn, &acts->d_up, d, &w2->value, &acts->up, ACT_GELU,
                                err) < 0)
            return -1;
        d = &acts->d_up;
    }
    return projector_first_bwd(model, d, err);
}

/* ---- both ---- */

/* Where the features of these frames go. */
static struct tensor media_rows(const struct neva *model, int64_t first, int64_t count)
{
    int64_t n = neva_features(&model->config);

    return tensor_rows(&model->index.media_rows.there, first * n, count * n);
}

/* Every rank's rows to their places in the decoder's input. */
static int place_features(struct neva *model, struct err *err)
{
    const struct backend_ops *ops = model->backend->ops;
    struct tensor *gathered = &model->projector_acts.gathered;
    int n_ranks = comm_size(model->group);
    int64_t most = gathered->dims[0] / n_ranks,
            n_features = neva_features(&model->config);

    for (int rank = 0; rank < n_ranks; rank++) {
        int64_t first, count;
        struct tensor part, rows;

        neva_frame_share(model->shape.n_frames, rank, n_ranks, &first, &count);
        if (count == 0)
            break;
        part = tensor_rows(gathered, rank * most, count * n_features);
        rows = media_rows(model, first, count);
        if (ops->scatter_rows(model->backend, &model->llm.x[0], &part, &rows, err) < 0)
            return -1;
    }
    return 0;
}

int vision_upload(struct neva *model, const uint8_t *pixels, struct err *err)
{
    struct tensor *there = &model->vision_acts.pixels;

    if (model->vision_rows.batch == 0)
        return 0;
    return neva_bring_pixels(model, there, pixels, err);
}

int vision_fwd(struct neva *model, struct err *err)
{
    struct tensor *gathered = &model->projector_acts.gathered;
    int64_t most = gathered->dims[0] / comm_size(model->group);
    struct tensor mine = tensor_rows(gathered, comm_rank(model->group) * most, most);

    if (model->shape.n_frames == 0)
        return 0;
    if (model->vision_rows.batch > 0 &&
        (encoder_fwd(model, err) < 0 || projector_fwd(model, err) < 0))
        return -1;
    if (nn_all_gather(&model->vision_nn, model->group, gathered, &mine, err) < 0)
        return -1;
    return place_features(model, err);
}

int vision_projector_bwd(struct neva *model, struct err *err)
{
    struct projector_acts *acts = &model->projector_acts;
    int64_t first, count;
    struct tensor rows;

    neva_frame_range(model, model->shape.n_frames, &first, &count);
    if (count == 0)
        return 0;
    rows = media_rows(model, first, count);
    if (model->backend->ops->gather_rows(model->backend, &acts->d_out,
                                         &model->text_acts.d, &rows, err) < 0 ||
        projector_bwd(model, err) < 0)
        return err_wrap(err, "projector backward");
    return 0;
}

int vision_encoder_bwd(struct neva *model, int64_t first, int64_t end, struct err *err)
{
    struct stack *stack = &model->vision;
    int rc = 0;

    if (model->vision_rows.batch == 0)
        return 0;
    if (end == stack->n_layers)
        rc = features_bwd(model, err);
    if (rc == 0)
        rc = stack_bwd_part(&model->vision_nn, stack, &model->vision_acts.d, first, end,
                            &model->vision_rows, err);
    if (rc == 0 && first == 0)
        rc = embed_bwd(model, err);
    return rc < 0 ? err_wrap(err, "vision encoder backward") : 0;
}
