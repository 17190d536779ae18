/* Gradients summed over ranks.
 *
 * The table of parameters is in the order of the forward pass, so the backward pass goes
 * through the gradients' arena from its end to its beginning, and what lies behind the place
 * it has come to is final:
 *
 *     | encoder: in front, layers | projector | words | layers 0 ... n-1 | norm, head |
 *     0                  last <------ places that are passed ------ first            end
 *
 * A bucket is what lies between two places; it ends at the first one that makes it
 * bucket_bytes long, or the last. Where devices exchange, it is asked for as soon as the
 * place is passed, beside the backward pass, or, without neva_begin_reduction, in optim_step:
 * the same buckets in the same order, so the same bits. The host sums all in one piece.
 */
#include "model/comm/device.h"
#include "model/neva/internal.h"

/* ---- over the tensor group ---- */

int neva_reduce_grad(struct neva *model, struct err *err)
{
    struct tensor all = {0};
    size_t n_bytes = 0;

    if (!model->has_partial_grads || comm_size(model->group) == 1)
        return 0;
    /* vision and projector come first in the table, so they are the arena's beginning */
    for (int i = 0; i < model->params.n_params; i++) {
        const struct param *param = &model->params.params[i];

        if (param->is_trained && param->group != PARAM_LLM)
            n_bytes = (size_t)((char *)param->grad.data - model->grads.base) +
                      tensor_bytes(&param->grad);
    }
    all = tensor_of(model->grads.base, DTYPE_F32, 1,
                    (const int64_t[]){(int64_t)(n_bytes / sizeof(float))});
    if (nn_all_reduce(&model->vision_nn, model->group, &all, COMM_SUM, err) < 0)
        return err_wrap(err, "gradients of the divided frames");
    model->has_partial_grads = false;
    return 0;
}

/* ---- places, in the order they are passed ---- */

static int place_of_words(const struct neva *model)
{
    return (int)model->llm.n_layers + 1;
}

static int last_place(const struct neva *model)
{
    return place_of_words(model) + 2 + (int)model->vision.n_layers;
}

/* The first gradient of what is final there; no data: it is not trained. */
static const struct tensor *first_gradient(const struct neva *model, int place)
{
    int words = place_of_words(model), last = last_place(model);

    if (place == 0)
        return &model->head.d_norm_w;
    if (place < words)
        return &model->llm.blocks[words - 1 - place].dw.norm1_w;
    if (place == words)
        return &model->embed->grad;
    if (place == words + 1)
        return model->projector.norm_w ? &model->projector.norm_w->grad
                                       : &model->projector.w1->grad;
    return &model->vision.blocks[last - 1 - place].dw.norm1_w;
}

/* Bytes from the arena's beginning; its end where nothing new is final. */
static size_t offset_of(const struct neva *model, int place)
{
    const char *data;

    if (place == last_place(model))
        return 0;
    data = first_gradient(model, place)->data;
    return data ? (size_t)(data - model->grads.base) : model->grads.n_bytes;
}

/* ---- over the data group ---- */

static int sum_bucket(struct neva *model, struct comm *group, size_t from, size_t to,
                      struct err *err)
{
    float *first = (float *)(void *)(model->grads.base + from);

    if (comm_device_all_reduce_beside(
            group, first, (int64_t)((to - from) / sizeof(*first)), COMM_SUM, err) < 0)
        return err_wrap(err, "gradients of the data-parallel ranks");
    return 0;
}

static int pass_places(struct neva *model, struct comm *group, int place, struct err *err)
{
    struct neva_reduction *r = &model->reduction;

    if (r->n_passed == 0)
        r->summed_from = model->grads.n_bytes;
    while (r->n_passed <= place) {
        bool is_last = r->n_passed == last_place(model);
        size_t end = r->summed_from, at = offset_of(model, r->n_passed++);

        if (at >= end || (!is_last && end - at < r->bucket_bytes))
            continue;
        r->summed_from = at;
        if (sum_bucket(model, group, at, end, err) < 0)
            return -1;
    }
    return 0;
}

void neva_set_bucket_bytes(struct neva *model, size_t n_bytes)
{
    model->reduction.bucket_bytes = n_bytes;
}

void neva_begin_reduction(struct neva *model, struct comm *data_group)
{
    model->reduction.group = comm_has_device(data_group) ? data_group : NULL;
}

int neva_reduce_head(struct neva *model, struct err *err)
{
    struct comm *group = model->reduction.group;

    return group ? pass_places(model, group, 0, err) : 0;
}

int neva_reduce_llm(struct neva *model, int64_t layer, struct err *err)
{
    struct comm *group = model->reduction.group;

    return group ? pass_places(model, group, place_of_words(model) - 1 - (int)layer, err)
                 : 0;
}

int neva_reduce_words(struct neva *model, struct err *err)
{
    struct comm *group = model->reduction.group;

    return group ? pass_places(model, group, place_of_words(model), err) : 0;
}

/* Projector and encoder: partial until neva_reduce_grad where frames are divided. */
static bool is_whole(const struct neva *model)
{
    return comm_size(model->group) == 1;
}

int neva_reduce_projector(struct neva *model, struct err *err)
{
    struct comm *group = model->reduction.group;

    return group && is_whole(model)
               ? pass_places(model, group, place_of_words(model) + 1, err)
               : 0;
}

int neva_reduce_vision(struct neva *model, int64_t layer, struct err *err)
{
    struct comm *group = model->reduction.group;

    return group && is_whole(model)
               ? pass_places(model, group, last_place(model) - 1 - (int)layer, err)
               : 0;
}

int neva_check_reduction(const struct neva *model, struct err *err)
{
    if (model->reduction.n_passed == 0)
        return 0;
    return err_set(
        err, ERR_STATE,
        "gradients that were summed over the data-parallel ranks cannot be added "
        "to: optim_step comes first");
}

int neva_drop_reduction(struct neva *model, struct err *err)
{
    struct neva_reduction *r = &model->reduction;
    int rc = r->n_passed > 0 ? comm_device_join(r->group, err) : 0;

    r->n_passed = 0;
    r->group = NULL;
    return rc;
}

int neva_end_reduction(struct neva *model, struct comm *data_group, struct err *err)
{
    struct tensor all =
        tensor_of(model->grads.base, DTYPE_F32, 1,
                  (const int64_t[]){(int64_t)(model->grads.n_bytes / sizeof(float))});

    if (neva_reduce_grad(model, err) < 0)
        return -1;
    if (!comm_has_device(data_group)) {
        if (nn_all_reduce(&model->vision_nn, data_group, &all, COMM_SUM, err) < 0)
            return err_wrap(err, "gradients of the data-parallel ranks");
        return 0;
    }
    model->reduction.group = data_group;
    if (pass_places(model, data_group, last_place(model), err) < 0)
        return -1;
    return neva_drop_reduction(model, err);
}
