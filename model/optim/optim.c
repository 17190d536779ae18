#include "model/optim/optim.h"

#include "model/neva/internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

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

/* What the device adds up of a step: loss, squares of every parameter's whole gradient, the
 * same on every rank, and what becomes of them. */
static int add_up(struct neva *model, struct comm *data_group, double divisor,
                  double clip, struct err *err)
{
    const struct backend_ops *ops = model->backend->ops;
    struct neva_tally *tally = model->tally;
    int n = model->trained.n_items;

    if (nn_all_reduce_f64(&model->vision_nn, data_group, &tally->loss, 1, COMM_SUM, err) <
            0 ||
        ops->sum_squares(model->backend, tally->squares, &model->trained, err) < 0 ||
        nn_all_reduce_f64(&model->vision_nn, model->group, tally->squares, n, COMM_SUM,
                          err) < 0)
        return -1;
    return ops->judge(model->backend, &tally->verdict, tally->squares, n, divisor, clip,
                      err);
}

/* The first parameter whose gradient is not finite, or NULL. */
static const char *find_overflow(const struct neva *model, const double *squares)
{
    for (int i = 0; i < model->params.n_params; i++)
        if (model->params.params[i].is_trained && !isfinite(*squares++))
            return model->params.params[i].name;
    return NULL;
}

/* Length of a parameter's name without ".weight" or ".bias": its module. */
static size_t module_length(const char *name)
{
    const char *dot = strrchr(name, '.');

    return dot ? (size_t)(dot - name) : strlen(name);
}

/* Sum of squares of a module's gradients. */
static double module_squares(const struct neva *model, const double *squares,
                             const char *name, size_t length)
{
    double sum = 0;

    for (int i = 0; i < model->params.n_params; i++) {
        const struct param *param = &model->params.params[i];

        if (!param->is_trained)
            continue;
        if (module_length(param->name) == length &&
            strncmp(param->name, name, length) == 0)
            sum += *squares;
        squares++;
    }
    return sum;
}

/* In the first step every trained module must have been reached by the gradient. */
static int check_reached(const struct neva *model, struct comm *data_group,
                         const struct neva_tally *seen, struct err *err)
{
    double n_frames = (double)model->n_frames_seen;

    if (!seen->verdict.is_finite)
        return 0;
    if (comm_all_reduce_f64(data_group, &n_frames, 1, COMM_SUM, err) < 0)
        return -1;
    for (int i = 0; i < model->params.n_params; i++) {
        const struct param *param = &model->params.params[i];
        size_t length = module_length(param->name);

        if (!param->is_trained || (n_frames == 0 && param->group != PARAM_LLM))
            continue;
        if (module_squares(model, seen->squares, param->name, length) == 0)
            return err_set(err, ERR_STATE,
                           "the gradient of %.*s is exactly zero in the first step: it "
                           "is set to be trained but nothing reaches it",
                           (int)length, param->name);
    }
    return 0;
}

static int update(struct neva *model, const struct optim_config *config, int64_t step,
                  struct err *err)
{
    const struct adamw_args args = {.lr = optim_lr(config, step),
                                    .beta1 = config->beta1,
                                    .beta2 = config->beta2,
                                    .eps = config->eps,
                                    .weight_decay = config->weight_decay,
                                    .step = step + 1};

    if (model->backend->ops->adamw(model->backend, &model->trained,
                                   &model->tally->verdict, &args, err) < 0)
        return err_wrap(err, "update");
    return neva_begin_batch(model, err); /* the gradients are zero */
}

/* What is found in the summed gradients, the same on every rank. */
static int tell(const struct neva *model, const struct neva_tally *seen,
                const struct optim_config *config, int64_t step,
                struct optim_report *report, struct err *err)
{
    report->loss_sum = seen->loss;
    if (seen->verdict.is_finite) {
        report->grad_norm = seen->verdict.norm;
        return 0;
    }
    report->overflow = find_overflow(model, seen->squares);
    report->is_skipped = config->skips_overflow;
    if (report->is_skipped)
        return 0;
    return err_set(err, ERR_FORMAT,
                   "gradient of %s is not finite in step %lld; nothing was updated: "
                   "try a lower learning rate",
                   report->overflow, (long long)step);
}

/* The update is asked for before the sums are waited for, and runs behind the wait; but in
 * the first step, where they may forbid it. */
static int update_and_wait(struct neva *model, struct comm *data_group,
                           const struct optim_config *config, int64_t step,
                           struct neva_tally *seen, struct err *err)
{
    struct backend *b = model->backend;

    if (b->ops->download_begin(b, seen, model->tally, model->tally_bytes, err) < 0)
        return -1;
    if (step > 0)
        return update(model, config, step, err) < 0 ? -1 : b->ops->download_end(b, err);
    if (b->ops->download_end(b, err) < 0 ||
        check_reached(model, data_group, seen, err) < 0)
        return -1;
    return update(model, config, step, err);
}

static int step_with(struct neva *model, struct comm *data_group,
                     const struct optim_config *config, int64_t step, int64_t n_labels,
                     struct neva_tally *seen, struct optim_report *report,
                     struct err *err)
{
    double divisor = (double)n_labels * model->head.loss_scale;

    if (neva_need_grads(model, err) < 0 || neva_need_moments(model, err) < 0 ||
        neva_need_list(model, err) < 0 ||
        neva_end_reduction(model, data_group, err) < 0 ||
        add_up(model, data_group, divisor, (double)config->clip, err) < 0 ||
        update_and_wait(model, data_group, config, step, seen, err) < 0)
        return -1;
    return tell(model, seen, config, step, report, err);
}

int optim_step(struct neva *model, struct comm *data_group,
               const struct optim_config *config, int64_t step, int64_t n_labels,
               struct optim_report *report, struct err *err)
{
    struct neva_tally *seen;
    int rc;

    *report = (struct optim_report){.lr = optim_lr(config, step)};
    if (check(config, step, n_labels, err) < 0)
        return err_wrap(err, "optimizer step");
    seen = malloc(model->tally_bytes);
    if (!seen)
        return err_set(err, ERR_NOMEM, "cannot allocate the sums of a step");
    rc = step_with(model, data_group, config, step, n_labels, seen, report, err);
    free(seen);
    return rc < 0 ? err_wrap(err, "optimizer step") : 0;
}
