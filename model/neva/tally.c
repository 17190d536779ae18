/* What a global batch adds up to, where the backend can reach it, and the list of what is
 * trained. */
#include "model/neva/internal.h"

#include <math.h>
#include <stdlib.h>

static int n_trained(const struct neva *model)
{
    int n = 0;

    for (int i = 0; i < model->params.n_params; i++)
        n += model->params.params[i].is_trained;
    return n;
}

int neva_tally_init(struct neva *model, struct err *err)
{
    size_t n_bytes = sizeof(*model->tally) +
                     (size_t)n_trained(model) * sizeof(model->tally->squares[0]);
    struct backend *b = model->backend;

    if (b->ops->alloc(b, (void **)&model->tally, n_bytes, err) < 0)
        return -1;
    model->tally_bytes = n_bytes;
    return b->ops->zero(b, model->tally, n_bytes, err);
}

void neva_tally_fini(struct neva *model)
{
    if (model->tally)
        model->backend->ops->free(model->backend, model->tally);
    model->tally = NULL;
    update_list_fini(&model->trained, model->backend);
}

int neva_zero_loss(struct neva *model, double *loss, struct err *err)
{
    return model->backend->ops->zero(model->backend, loss, sizeof(*loss), err);
}

int neva_keep_close(struct neva *model, struct err *err)
{
    struct backend *b = model->backend;

    if (model->behind.n++ < NEVA_BEHIND_MAX)
        return 0;
    model->behind.n = 1;
    if (model->behind.has_mark && b->ops->download_end(b, err) < 0)
        return -1;
    model->behind.has_mark = true;
    return b->ops->download_begin(b, &model->behind.loss, &model->tally->loss,
                                  sizeof(model->behind.loss), err);
}

void neva_forget_marks(struct neva *model)
{
    model->behind.n = 0;
    model->behind.has_mark = false;
}

int neva_need_list(struct neva *model, struct err *err)
{
    int n = n_trained(model), n_items = 0;
    struct update_item *items;

    if (model->trained.items)
        return 0;
    items = calloc((size_t)n + 1, sizeof(*items));
    if (!items)
        return err_set(err, ERR_NOMEM, "cannot allocate a table of %d parameters", n);
    for (int i = 0; i < model->params.n_params; i++) {
        const struct param *param = &model->params.params[i];
        bool has_master = param->value.data != param->master.data;

        if (param->is_trained)
            items[n_items++] = (struct update_item){
                .master = param->master.data,
                .m = param->m.data,
                .v = param->v.data,
                .grad = param->grad.data,
                .weight = has_master ? param->value.data : NULL,
                .n = tensor_count(&param->grad),
                .has_decay = param->decay,
                .is_counted = param->shard_axis >= 0 || comm_rank(model->group) == 0};
    }
    return update_list_init(&model->trained, model->backend, items, n_items,
                            model->config.dtype, err);
}
