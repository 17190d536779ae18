#include "worker/rank/validation.h"

#include <math.h>

#define VALIDATION_AHEAD 4 /* micro batches decoded ahead of the one in use */

/* Samples of one validation: whole global batches, at least one of them, or all. */
static int64_t n_validated(const struct spec_share *share, int64_t n_samples,
                           int64_t global)
{
    int64_t n_all = n_samples / global, n_batches = share->count;

    if (share->count < 0 && share->part >= 1)
        return n_samples;
    if (share->count < 0)
        n_batches = (int64_t)((double)n_all * share->part);
    if (n_batches < 1)
        n_batches = 1;
    return n_batches <= n_all ? n_batches * global : n_samples;
}

int validation_open(struct validation *validation, struct engine *engine,
                    const struct order *train, struct err *err)
{
    const struct spec *spec = engine->rank->spec;
    const struct spec_list *folders = &spec->data.validation_data_path;

    validation->engine = engine;
    if (folders->count == 0)
        return 0;
    if (feed_open(&validation->feed, engine, folders,
                  (VALIDATION_AHEAD + 1) * train->micro, err) < 0)
        return -1;
    validation->order = *train;
    validation->order.n_samples =
        n_validated(&spec->trainer.limit_val_batches,
                    corpus_n_samples(validation->feed.corpus), train->global);
    return 0;
}

void validation_close(struct validation *validation)
{
    feed_close(&validation->feed);
}

bool validation_is_due(const struct validation *validation, int64_t step)
{
    const struct spec *spec = validation->engine->rank->spec;
    const struct spec_share *share = &spec->trainer.limit_val_batches;
    int64_t every = spec->trainer.val_check_interval;

    return validation->feed.corpus && (share->count > 0 || share->part > 0) &&
           every > 0 && (step % every == 0 || step == spec->trainer.max_steps);
}

static int64_t numbers(void *state, int64_t k, int64_t *out)
{
    const struct validation *validation = state;

    return order_valid_batch(&validation->order, k, out);
}

/* sums: loss, label tokens; of this rank's micro batches. */
static int sum_up(struct engine *engine, struct loader *loader, struct loader *next,
                  double sums[2], struct err *err)
{
    struct engine_work work = {0};
    int rc;

    if (neva_begin_evaluation(engine->model, err) < 0)
        return -1;
    do
        rc = engine_pass(engine, loader, neva_evaluate, &work, err);
    while (rc > 0);
    if (rc < 0 || engine_prefetch(engine, next, err) < 0)
        return -1;
    sums[1] = work.n_labels;
    return neva_end_evaluation(engine->model, &sums[0], err);
}

int validation_run(struct validation *validation, double *loss, struct loader *next,
                   struct err *err)
{
    struct engine *engine = validation->engine;
    struct loader_config config = {
        .source = {.corpus = validation->feed.corpus,
                   .frames = &engine->frames,
                   .service = &validation->feed.service,
                   .model = engine->model},
        .capacity = validation->order.micro,
        .n_ahead = VALIDATION_AHEAD,
        .state = validation,
        .numbers = numbers,
    };
    struct loader *loader = NULL;
    double sums[2] = {0, 0};
    int rc = loader_create(&loader, &config, err);

    if (rc == 0)
        rc = sum_up(engine, loader, next, sums, err);
    loader_destroy(loader);
    if (rc < 0 || comm_all_reduce_f64(groups_data(engine->rank->groups), sums, 2,
                                      COMM_SUM, err) < 0)
        return -1;
    *loss = sums[1] > 0 ? sums[0] / sums[1] : NAN;
    return 0;
}
