#include "model/optim/optim.h"

#include "model/neva/internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Added to the norm when clipping, as torch.nn.utils.clip_grad_norm_ does. */
#define CLIP_EPS 1e-6

static int check(const struct optim_config *config, int64_t step, int64_t n_labels,
                 struct err *err)
{
    if (config->lr < config->min_lr)
        return err_set(err, ERR_INVALID,
                       "model.optim.sched.min_lr (%g) is above model.optim.lr (%g)",
                       (double)config->min_lr, (double)config->lr);
    if (step < 0 || n_labels < 1)
        return err_set(err, ERR_INVALID,
                       "step %lld has %lld label tokens: there is nothing to learn from",
                       (long long)step, (long long)n_labels);
    return 0;
}

/* One exchange for all gradients: they lie in one arena. */
static int sum_over_data(struct neva *model, struct comm *data_group, struct err *err)
{
    struct tensor all =
        tensor_of(model->grads.base, DTYPE_F32, 1,
                  (const int64_t[]){(int64_t)(model->grads.n_bytes / sizeof(float))});

    if (nn_all_reduce(&model->vision_nn, data_group, &all, COMM_SUM, err) < 0)
        return err_wrap(err, "gradients of the data-parallel ranks");
    return 0;
}

/* squares[i] = sum of squares of parameter i's whole gradient, the same on every rank;
 * replicated ones are counted by tensor rank 0 alone. */
static int sum_squares(struct neva *model, double *squares, struct err *err)
{
    struct backend *b = model->backend;

    for (int i = 0; i < model->params.n_params; i++) {
        const struct param *param = &model->params.params[i];

        squares[i] = 0;
        if (!param->is_trained || (param->shard_axis < 0 && comm_rank(model->group) > 0))
            continue;
        if (b->ops->sum_squares(b, &squares[i], &param->grad, err) < 0)
            return -1;
    }
    return comm_all_reduce_f64(model->group, squares, model->params.n_params, COMM_SUM,
                               err);
}

/* The first parameter whose gradient is not finite, or NULL. */
static const char *find_overflow(const struct neva *model, const double *squares)
{
    for (int i = 0; i < model->params.n_params; i++)
        if (!isfinite(squares[i]))
            return model->params.params[i].name;
    return NULL;
}

/* Length of a parameter's name without ".weight" or ".bias": its module. */
static size_t module_length(const char *name)
{
    const char *dot = strrchr(name, '.');

    return dot ? (size_t)(dot - name) : strlen(name);
}

/* In the first step every trained module must have been reached by the gradient. */
static int check_reached(const struct neva *model, const double *squares, bool has_frames,
                         struct err *err)
{
    const struct param *params = model->params.params;

    for (int i = 0; i < model->params.n_params; i++) {
        size_t length = module_length(params[i].name);
        double sum = 0;

        if (!params[i].is_trained || (!has_frames && params[i].group != PARAM_LLM))
            continue;
        for (int j = 0; j < model->params.n_params; j++)
            if (module_length(params[j].name) == length &&
                strncmp(params[i].name, params[j].name, length) == 0)
                sum += squares[j];
        if (sum == 0)
            return err_set(err, ERR_STATE,
                           "the gradient of %.*s is exactly zero in the first step: it "
                           "is set to be trained but nothing reaches it",
                           (int)length, params[i].name);
    }
    return 0;
}

static int update(struct neva *model, const struct adamw_args *common, float weight_decay,
                  struct err *err)
{
    struct backend *b = model->backend;

    for (int i = 0; i < model->params.n_params; i++) {
        struct param *param = &model->params.params[i];
        struct adamw_args args = *common;
        struct tensor *weight = &param->value;

        if (!param->is_trained)
            continue;
        if (param->value.data == param->master.data)
            weight = NULL;
        args.weight_decay = param->decay ? weight_decay : 0;
        if (b->ops->adamw(b, &param->master, weight, &param->m, &param->v, &param->grad,
                          &args, err) < 0)
            return err_wrap(err, "update of %s", param->name);
    }
    return 0;
}

/* What is found in the summed gradients, the same on every rank. */
static int judge(const struct neva *model, const double *squares, bool has_frames,
                 const struct optim_config *config, int64_t step,
                 struct optim_report *report, struct err *err)
{
    double sum = 0;

    report->overflow = find_overflow(model, squares);
    report->is_skipped = report->overflow && config->skips_overflow;
    if (report->is_skipped)
        return 0;
    if (report->overflow)
        return err_set(err, ERR_FORMAT,
                       "gradient of %s is not finite in step %lld; nothing was updated: "
                       "try a lower learning rate",
                       report->overflow, (long long)step);
    if (step == 0 && check_reached(model, squares, has_frames, err) < 0)
        return -1;
    for (int i = 0; i < model->params.n_params; i++)
        sum += squares[i];
    report->grad_norm = sqrt(sum);
    return 0;
}

/* Everything between the summed gradients and the update; the norm is that of the
 * gradients as they are. */
static int examine(struct neva *model, struct comm *data_group,
                   const struct optim_config *config, int64_t step,
                   struct optim_report *report, struct err *err)
{
    int n_params = model->params.n_params;
    double *squares = malloc((size_t)n_params * sizeof(*squares));
    double n_frames = (double)model->n_frames_seen;
    int rc = -1;

    if (!squares)
        return err_set(err, ERR_NOMEM, "cannot allocate the norms of %d gradients",
                       n_params);
    if (comm_all_reduce_f64(data_group, &n_frames, 1, COMM_SUM, err) == 0 &&
        sum_squares(model, squares, err) == 0)
        rc = judge(model, squares, n_frames > 0, config, step, report, err);
    free(squares);
    return rc;
}

int optim_step(struct neva *model, struct comm *data_group,
               const struct optim_config *config, int64_t step, int64_t n_labels,
               struct optim_report *report, struct err *err)
{
    double divisor = (double)n_labels * model->head.loss_scale, scale = 1.0 / divisor;
    struct adamw_args args;

    *report = (struct optim_report){.lr = optim_lr(config, step)};

    if (check(config, step, n_labels, err) < 0 || neva_need_grads(model, err) < 0 ||
        neva_need_moments(model, err) < 0 || neva_reduce_grad(model, err) < 0 ||
        sum_over_data(model, data_group, err) < 0 ||
        examine(model, data_group, config, step, report, err) < 0)
        return err_wrap(err, "optimizer step");
    if (report->is_skipped)
        return neva_zero_grad(model, err);
    report->grad_norm /= divisor;
    if (config->clip > 0 && report->grad_norm > (double)config->clip)
        scale *= (double)config->clip / (report->grad_norm + CLIP_EPS);
    args = (struct adamw_args){.lr = report->lr,
                               .beta1 = config->beta1,
                               .beta2 = config->beta2,
                               .eps = config->eps,
                               .grad_scale = (float)scale,
                               .step = step + 1};
    if (update(model, &args, config->weight_decay, err) < 0)
        return err_wrap(err, "optimizer step");
    return neva_zero_grad(model, err);
}
