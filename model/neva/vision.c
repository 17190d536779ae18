/* From frames to rows of features, and back. Weights are whole on every rank, frames are
 * divided: nothing here is exchanged but the projected features, once. */
#include "model/neva/internal.h"

/* A parameter's value or gradient as a matrix of `rows` rows. */
static struct tensor as_matrix(const struct tensor *x, int64_t rows)
{
    return tensor_of(x->data, x->dtype, 2,
                     (const int64_t[]){rows, tensor_count(x) / rows});
}

/* ---- encoder ---- */

/* embedded [Fl*S,D] = [class; patches w^T] + positions */
static int embed_fwd(struct neva *model, struct err *err)
{
    struct nn *nn = &model->vision_nn;
    const struct backend_ops *ops = nn->backend->ops;
    struct vision_acts *acts = &model->vision_acts;
    const struct neva_index *index = &model->index;
    struct param *class_embedding = model->encoder.class_embedding;
    struct tensor w = as_matrix(&model->encoder.patch->value, model->config.vision.width);

    if (nn_linear_fwd(nn, &acts->rows, &acts->patches, &w, NULL, err) < 0 ||
        ops->scatter_rows(nn->backend, &acts->embedded, &acts->rows, index->patch_rows,
                          acts->rows.dims[0], err) < 0)
        return -1;
    if (class_embedding) {
        struct tensor row = as_matrix(&class_embedding->value, 1);

        if (ops->embed_fwd(nn->backend, &acts->classes, &row, index->zeros, 0, err) < 0 ||
            ops->scatter_rows(nn->backend, &acts->embedded, &acts->classes,
                              index->class_rows, acts->classes.dims[0], err) < 0)
            return -1;
    }
    return ops->add(nn->backend, &acts->embedded, &acts->embedded,
                    &model->encoder.position->value, 1, err);
}

static int encoder_fwd(struct neva *model, const uint8_t *pixels, struct err *err)
{
    struct nn *nn = &model->vision_nn;
    const struct backend_ops *ops = nn->backend->ops;
    const struct neva_config *config = &model->config;
    struct vision_acts *acts = &model->vision_acts;
    struct stack *stack = &model->vision;

    if (ops->upload(nn->backend, acts->pixels.data, pixels, tensor_bytes(&acts->pixels),
                    err) < 0 ||
        ops->patchify(nn->backend, &acts->patches, &acts->pixels, config->vision.patch,
                      config->vision.mean, config->vision.std, err) < 0 ||
        embed_fwd(model, err) < 0 ||
        ops->layernorm_fwd(nn->backend, &stack->x[0], &acts->mean, &acts->rstd,
                           &acts->embedded, &model->encoder.norm_w->value,
                           &model->encoder.norm_b->value, 0, config->vision.eps,
                           err) < 0 ||
        stack_fwd(nn, stack, &model->vision_rows, NULL, err) < 0)
        return err_wrap(err, "vision encoder");
    return ops->gather_rows(nn->backend, &acts->features, &stack->x[stack->n_layers],
                            model->index.patch_rows, acts->features.dims[0], err);
}

/* d [Fl*S,D]: gradient of the first norm's output -> gradients of the embeddings */
static int embed_bwd(struct neva *model, struct err *err)
{
    struct nn *nn = &model->vision_nn;
    const struct backend_ops *ops = nn->backend->ops;
    struct vision_acts *acts = &model->vision_acts;
    const struct neva_index *index = &model->index;
    struct param *class_embedding = model->encoder.class_embedding;
    struct tensor d = model->vision.scratch.part;
    struct tensor frames = as_matrix(&d, model->vision_rows.batch);
    struct tensor d_position = model->encoder.position->grad;
    struct tensor d_patch =
        as_matrix(&model->encoder.patch->grad, model->config.vision.width);

    d_position = tensor_of(d_position.data, DTYPE_F32, 1,
                           (const int64_t[]){tensor_count(&d_position)});
    if (ops->layernorm_bwd(nn->backend, &d, &model->encoder.norm_w->grad,
                           &model->encoder.norm_b->grad, &acts->d, &acts->embedded,
                           &model->encoder.norm_w->value, &acts->mean, &acts->rstd, 0,
                           err) < 0 ||
        ops->bias_bwd(nn->backend, &d_position, &frames, err) < 0)
        return -1;
    if (class_embedding &&
        (ops->gather_rows(nn->backend, &acts->classes, &d, index->class_rows,
                          acts->classes.dims[0], err) < 0 ||
         ops->bias_bwd(nn->backend, &class_embedding->grad, &acts->classes, err) < 0))
        return -1;
    if (ops->gather_rows(nn->backend, &acts->rows, &d, index->patch_rows,
                         acts->rows.dims[0], err) < 0)
        return -1;
    return nn_linear_bwd_w(nn, &d_patch, NULL, &acts->rows, &acts->patches, err);
}

static int encoder_bwd(struct neva *model, struct err *err)
{
    struct nn *nn = &model->vision_nn;
    const struct backend_ops *ops = nn->backend->ops;
    struct vision_acts *acts = &model->vision_acts;
    const struct tensor *d_features = &model->projector_acts.d_features;

    if (ops->zero(nn->backend, acts->d.data, tensor_bytes(&acts->d), err) < 0 ||
        ops->scatter_rows(nn->backend, &acts->d, d_features, model->index.patch_rows,
                          d_features->dims[0], err) < 0 ||
        stack_bwd(nn, &model->vision, &acts->d, &model->vision_rows, err) < 0)
        return -1;
    return embed_bwd(model, err);
}

/* ---- projector ---- */

static int projector_fwd(struct neva *model, struct err *err)
{
    struct nn *nn = &model->vision_nn;
    struct projector_acts *acts = &model->projector_acts;
    const struct tensor *features = &model->vision_acts.features;
    const struct tensor *w1 = &model->projector.w1->value,
                        *b1 = &model->projector.b1->value;

    if (!model->projector.w2)
        return nn_linear_fwd(nn, &acts->out, features, w1, b1, err);
    if (nn_linear_fwd(nn, &acts->up, features, w1, b1, err) < 0 ||
        nn->backend->ops->act_fwd(nn->backend, &acts->hidden, &acts->up, ACT_GELU, err) <
            0)
        return -1;
    return nn_linear_fwd(nn, &acts->out, &acts->hidden, &model->projector.w2->value,
                         &model->projector.b2->value, err);
}

/* d_out -> d_features (wanted by a trained encoder only) and the projector's gradients */
static int projector_bwd(struct neva *model, struct err *err)
{
    struct nn *nn = &model->vision_nn;
    struct projector_acts *acts = &model->projector_acts;
    struct param *w1 = model->projector.w1, *w2 = model->projector.w2;
    struct tensor *d = &acts->d_out;

    if (w2) {
        if (nn_linear_bwd_w(nn, &w2->grad, &model->projector.b2->grad, d, &acts->hidden,
                            err) < 0 ||
            nn_linear_bwd_x(nn, &acts->d_hidden, d, &w2->value, err) < 0 ||
            nn->backend->ops->act_bwd(nn->backend, &acts->d_up, &acts->d_hidden,
                                      &acts->up, ACT_GELU, err) < 0)
            return -1;
        d = &acts->d_up;
    }
    if (nn_linear_bwd_w(nn, &w1->grad, &model->projector.b1->grad, d,
                        &model->vision_acts.features, err) < 0)
        return -1;
    if (model->config.vision.freeze)
        return 0;
    return nn_linear_bwd_x(nn, &acts->d_features, d, &w1->value, err);
}

/* ---- both ---- */

/* Every rank's rows to their places in the decoder's input. */
static int place_features(struct neva *model, struct err *err)
{
    const struct backend_ops *ops = model->backend->ops;
    struct tensor *gathered = &model->projector_acts.gathered;
    int n_ranks = comm_size(model->group);
    int64_t most = gathered->dims[0] / n_ranks, n_patches = neva_patches(&model->config);

    for (int rank = 0; rank < n_ranks; rank++) {
        int64_t first, count;
        struct tensor part;

        neva_frame_share(model->shape.n_frames, rank, n_ranks, &first, &count);
        if (count == 0)
            break;
        part = tensor_rows(gathered, rank * most, count * n_patches);
        if (ops->scatter_rows(model->backend, &model->llm.x[0], &part,
                              model->index.media_rows + first * n_patches,
                              count * n_patches, err) < 0)
            return -1;
    }
    return 0;
}

int vision_fwd(struct neva *model, const uint8_t *pixels, struct err *err)
{
    struct tensor *gathered = &model->projector_acts.gathered;
    int64_t most = gathered->dims[0] / comm_size(model->group);
    struct tensor mine = tensor_rows(gathered, comm_rank(model->group) * most, most);

    if (model->shape.n_frames == 0)
        return 0;
    if (model->vision_rows.batch > 0 &&
        (encoder_fwd(model, pixels, err) < 0 || projector_fwd(model, err) < 0))
        return -1;
    if (nn_all_gather(&model->vision_nn, model->group, gathered, &mine, err) < 0)
        return -1;
    return place_features(model, err);
}

int vision_bwd(struct neva *model, struct err *err)
{
    struct projector_acts *acts = &model->projector_acts;
    int64_t first, count, n_patches = neva_patches(&model->config);

    neva_frame_range(model, model->shape.n_frames, &first, &count);
    if (count == 0)
        return 0;
    if (model->backend->ops->gather_rows(
            model->backend, &acts->d_out, &model->text_acts.d,
            model->index.media_rows + first * n_patches, count * n_patches, err) < 0 ||
        projector_bwd(model, err) < 0)
        return err_wrap(err, "projector backward");
    if (!model->config.vision.freeze && encoder_bwd(model, err) < 0)
        return err_wrap(err, "vision encoder backward");
    return 0;
}
