/* A training job: every lease is a range of global steps that ends with a checkpoint.
 *
 *     step     = micro batches forward and backward, one exchange of totals, the update;
 *                the host waits for the device once, in the update, which has the loss
 *     lease    = steps, validation where due, checkpoint, TASK_DONE that carries it
 *
 * Asked to stop (SIGTERM at any rank), the ranks agree on it in the exchange of the step
 * they are in, write a checkpoint after it and report the lease done up to there.
 */
#include "common/base/clock.h"
#include "common/base/fault.h"
#include "common/base/log.h"
#include "common/base/stage.h"
#include "model/checkpoint/checkpoint.h"
#include "worker/rank/carried.h"
#include "worker/rank/checkpoints.h"
#include "worker/rank/engine.h"
#include "worker/rank/loader.h"
#include "worker/rank/memory.h"
#include "worker/rank/order.h"
#include "worker/rank/run_model.h"
#include "worker/rank/sample_log.h"
#include "worker/rank/scaling.h"
#include "worker/rank/validation.h"
#include "worker/rank/window.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define TRAIN_STEPS_AHEAD 2 /* global batches decoded ahead of the one in use */
#define TRAIN_REPORT_MS 1000

struct train {
    struct rank *rank;
    const struct spec *spec;
    struct begin begin;
    char from[FS_PATH_MAX]; /* the checkpoint this attempt goes on from; "" */
    struct engine engine;
    struct feed feed;
    struct decode_counts told; /* of the videos decoded, as last reported */
    struct batch_config batch;
    struct optim_config optim;
    struct scaling scaling;
    struct order order;
    struct validation validation;
    struct json *binding;
    struct carried *carried; /* rank 0's */
    struct loader *loader;
    struct sample_log *sample_log; /* rank 0's */
    struct json *known;            /* rank 0's: checkpoints there are, oldest first */
    struct window window;
    int64_t step;    /* steps done */
    double val_loss; /* NAN: not known yet */
    int64_t reported_ms;
    bool has_told_memory;
};

static void train_close(void *state)
{
    struct train *train = state;

    if (!train)
        return;
    sample_log_close(train->sample_log);
    loader_destroy(train->loader);
    feed_close(&train->feed);
    validation_close(&train->validation);
    engine_close(&train->engine);
    json_free(train->binding);
    carried_free(train->carried);
    json_free(train->known);
    begin_close(&train->begin);
    free(train);
}

/* ---- open ---- */

static int64_t train_numbers(void *state, int64_t k, int64_t *out)
{
    const struct train *train = state;

    if (k / train->batch.n_micro >= train->optim.max_steps)
        return 0;
    order_train_batch(&train->order, k, out);
    return train->batch.micro;
}

/* Weights, optimizer and step of a checkpoint: of this job, or the one it goes on from. */
static int train_resume(struct train *train, const char *path, struct err *err)
{
    struct json *meta = NULL;
    int rc;

    if (checkpoint_read_meta(&meta, path, err) < 0)
        return err_wrap(err, "cannot go on from '%s'", path);
    rc = checkpoints_check(&train->step, meta, train->binding, err);
    if (rc == 0)
        rc = scaling_read(&train->scaling, meta, err);
    json_free(meta);
    if (rc == 0 && train->step >= train->optim.max_steps)
        rc = err_set(err, ERR_INVALID,
                     "it has done %" PRId64 " steps already: trainer.max_steps (%" PRId64
                     ") must be above",
                     train->step, train->optim.max_steps);
    if (rc == 0)
        rc = checkpoint_load(train->engine.model, path, true, err);
    if (rc == 0)
        rc = fs_path(train->from, err, "%s", path);
    if (rc == 0)
        log_info("going on from '%s' at step %" PRId64, path, train->step);
    return rc < 0 ? err_wrap(err, "cannot go on from '%s'", path) : 0;
}

/* What the job begins with, and that its steps are those of the checkpoint's run. */
static int train_open_model(struct train *train, struct err *err)
{
    struct rank *rank = train->rank;
    const char *resume = run_model_resumes(rank, &train->begin);

    if (run_model_open(&train->engine, rank, &train->begin,
                       corpus_vocab(train->feed.corpus), err) < 0 ||
        checkpoints_binding(&train->binding, train->spec,
                            corpus_fingerprint(train->feed.corpus), err) < 0)
        return -1;
    neva_set_bucket_bytes(train->engine.model,
                          (size_t)train->spec->optim.bucket_cap_mb << 20);
    return resume ? train_resume(train, resume, err) : 0;
}

static int train_open_data(struct train *train, struct err *err)
{
    int64_t n_ahead = TRAIN_STEPS_AHEAD * train->batch.n_micro;
    struct loader_config loader = {
        .source = {.corpus = train->feed.corpus,
                   .frames = &train->engine.frames,
                   .service = &train->feed.service,
                   .model = train->engine.model},
        .capacity = train->batch.micro,
        .n_ahead = n_ahead,
        .first = train->step * train->batch.n_micro,
        .state = train,
        .numbers = train_numbers,
    };

    if (feed_open(&train->feed, &train->engine, &train->spec->data.data_path,
                  (n_ahead + 1) * train->batch.micro, err) < 0)
        return -1;
    train->order = (struct order){
        .seed = (uint64_t)train->spec->model.seed,
        .n_samples = corpus_n_samples(train->feed.corpus),
        .micro = train->batch.micro,
        .global = train->batch.global,
        .data_rank = train->rank->layout.data_rank,
        .n_data = train->rank->layout.n_data,
    };
    if (validation_open(&train->validation, &train->engine, &train->order, err) < 0)
        return err_wrap(err, "model.data.validation_data_path");
    return loader_create(&train->loader, &loader, err);
}

static int train_open_all(struct train *train, struct err *err)
{
    struct rank *rank = train->rank;
    const struct spec *spec = rank->spec;

    if (pump_progress(rank->pump, "loading", -1, 0, spec->trainer.max_steps, NULL, err) <
            0 ||
        begin_open(&train->begin, rank, err) < 0 ||
        config_batch(&train->batch, spec, rank->layout.n_data, err) < 0 ||
        config_optim(&train->optim, spec, err) < 0 ||
        corpus_open(&train->feed.corpus, (const char *const *)spec->data.data_path.items,
                    spec->data.data_path.count, err) < 0)
        return -1;
    if (train_open_model(train, err) < 0 ||
        memory_reserve(&train->engine, train->feed.corpus, train->batch.micro, err) < 0 ||
        train_open_data(train, err) < 0)
        return -1;
    if (rank->layout.rank != 0)
        return 0;
    if (carried_read(&train->carried, spec->data.data_path.items[0],
                     corpus_info(train->feed.corpus), err) < 0)
        return -1;
    return sample_log_open(&train->sample_log, train->begin.folder, train->step,
                           !rank->start->resume[0], err);
}

static int train_open(void **state, struct rank *rank, struct err *err)
{
    struct train *train = calloc(1, sizeof(*train));

    if (!train)
        return err_set(err, ERR_NOMEM, "cannot allocate a training job");
    *state = train;
    train->rank = rank;
    train->spec = rank->spec;
    train->val_loss = NAN;
    train->begin.lock = -1;
    scaling_init(&train->scaling, rank->spec);
    if (train_open_all(train, err) < 0)
        return memory_explain(&train->engine, train->feed.corpus, err);
    return 0;
}

/* ---- a step ---- */

/* What the ranks tell each other once a step, while their devices work on it. */
struct totals {
    struct engine_work work;     /* sums */
    double is_stopping, wait_ns; /* of the worst rank: asked to stop, waited for data */
    double
        comm_ns; /* in collectives, of the rank that was least in them: the others waited
                       there for it */
};

static int totals_exchange(struct train *train, struct totals *totals, struct err *err)
{
    double sums[] = {totals->work.n_labels, totals->work.n_tokens, totals->work.flops};
    double worst[] = {totals->is_stopping, totals->wait_ns, -totals->comm_ns};
    struct comm *data = groups_data(train->rank->groups);

    /* Ranks of a tensor group have worked on the same samples: their sums are equal. */
    if (comm_all_reduce_f64(data, sums, 3, COMM_SUM, err) < 0 ||
        comm_all_reduce_f64(groups_tensor(train->rank->groups), worst, 3, COMM_MAX, err) <
            0 ||
        comm_all_reduce_f64(data, worst, 3, COMM_MAX, err) < 0)
        return -1;
    *totals = (struct totals){{sums[0], sums[1], sums[2]}, worst[0], worst[1], -worst[2]};
    return 0;
}

static int train_micro_batches(struct train *train, struct totals *totals,
                               struct err *err)
{
    for (int64_t m = 0; m < train->batch.n_micro; m++) {
        int rc;

        if (m == train->batch.n_micro - 1 && train->spec->optim.overlap_grad_sync)
            neva_begin_reduction(train->engine.model, groups_data(train->rank->groups));
        rc = engine_pass(&train->engine, train->loader, neva_step, &totals->work, err);
        if (rc == 0)
            rc = err_set(err, ERR_STATE, "there are no more samples");
        if (rc < 0)
            return err_wrap(err, "micro batch %" PRId64, m);
    }
    return 0;
}

static void train_note(struct train *train, const struct totals *totals,
                       const struct optim_report *report, int64_t step_ns)
{
    struct window *window = &train->window;

    window->n_steps++;
    window->step_ns += step_ns;
    window->wait_ns += (int64_t)totals->wait_ns;
    window->comm_ns += (int64_t)totals->comm_ns;
    if (isfinite(report->loss_sum)) { /* else the step was skipped */
        window->loss_sum += report->loss_sum;
        window->n_labels += totals->work.n_labels;
    }
    window->n_samples += (double)train->batch.global;
    window->n_tokens += totals->work.n_tokens;
    window->flops += totals->work.flops;
    window->lr = report->lr;
    window->grad_norm = report->grad_norm;
    window->loss_scale = train->scaling.is_on ? train->scaling.state.scale : 0;
    window->n_skipped = train->scaling.state.n_skipped;
}

static int train_update(struct train *train, const struct totals *totals,
                        struct optim_report *report, struct err *err)
{
    struct stage_mark before = stage_begin("optimizer", NULL, STAGE_LIMITED);
    int64_t n_updates = scaling_n_updates(&train->scaling, train->step);
    int rc =
        optim_step(train->engine.model, groups_data(train->rank->groups), &train->optim,
                   n_updates, (int64_t)totals->work.n_labels, report, err);

    stage_end(before);
    if (!isfinite(report->loss_sum) && !train->scaling.is_on)
        return err_set(err, ERR_FORMAT, "the loss is not a finite number");
    if (rc == 0)
        rc = scaling_update(&train->scaling, report, train->step, err);
    return rc;
}

/* 1: done, 0: done, and somebody was asked to stop. */
static int train_step(struct train *train, struct err *err)
{
    struct totals totals = {.is_stopping = pump_is_stopping(train->rank->pump)};
    struct optim_report report = {0};
    int64_t start_ns = clock_mono_ns();

    stage_set_step(train->step);
    neva_set_loss_scale(train->engine.model, train->scaling.state.scale);
    if (train_micro_batches(train, &totals, err) < 0)
        return -1;
    totals.wait_ns = (double)loader_take_wait_ns(train->loader);
    totals.comm_ns = (double)(comm_take_ns(groups_tensor(train->rank->groups)) +
                              comm_take_ns(groups_data(train->rank->groups)));
    if (totals_exchange(train, &totals, err) < 0)
        return -1;
    if (totals.work.n_labels < 1)
        return err_set(err, ERR_INVALID, "none of its samples has a token to learn");
    if (train_update(train, &totals, &report, err) < 0)
        return -1;
    if (train->sample_log &&
        sample_log_add(train->sample_log, &train->order, train->step, err) < 0)
        return -1;
    train->step++;
    train_note(train, &totals, &report, clock_mono_ns() - start_ns);
    return totals.is_stopping == 0;
}

/* ---- reports ---- */

/* Who decoded the videos since the last report, of this rank; nothing where frames are
 * stored. */
static int add_decoding(struct train *train, struct json *metrics, struct err *err)
{
    struct decode_counts now = decode_pool_counts(train->feed.pool);
    int64_t n_gpu = now.n_on_gpu - train->told.n_on_gpu;
    int64_t n_cpu = now.n_on_cpu - train->told.n_on_cpu;

    train->told = now;
    if (n_gpu + n_cpu == 0)
        return 0;
    if (json_set(metrics, "videos_on_gpu", json_new_int(n_gpu), err) < 0)
        return -1;
    return json_set(metrics, "videos_on_cpu", json_new_int(n_cpu), err);
}

/* Metrics every log_every_n_steps (rank 0), a sign of life every second. */
static int train_report(struct train *train, struct err *err)
{
    int64_t now_ms = clock_mono_ms(), max_steps = train->optim.max_steps;
    int64_t every = train->spec->trainer.log_every_n_steps;
    bool is_due = train->step % (every > 0 ? every : 1) == 0;
    struct json *metrics;
    int rc;

    if (!is_due && now_ms - train->reported_ms < TRAIN_REPORT_MS)
        return 0;
    train->reported_ms = now_ms;
    if (!is_due || train->rank->layout.rank != 0)
        return pump_progress(train->rank->pump, "training", -1, train->step, max_steps,
                             NULL, err);
    metrics = window_metrics(&train->window, err);
    if (!metrics)
        return -1;
    log_info("step %" PRId64 " of %" PRId64 ": loss %.4f, %.0f ms, waited %.1f ms",
             train->step, max_steps, json_get_double(metrics, "loss", 0),
             json_get_double(metrics, "step_ms", 0),
             json_get_double(metrics, "wait_ms", 0));
    rc = add_decoding(train, metrics, err);
    if (rc == 0)
        rc = pump_progress(train->rank->pump, "training", train->step, train->step,
                           max_steps, metrics, err);
    json_free(metrics);
    return rc;
}

/* ---- validation ---- */

static int train_validate(struct train *train, struct err *err)
{
    struct json *metrics;
    int rc;

    if (pump_progress(train->rank->pump, "validation", -1, train->step,
                      train->optim.max_steps, NULL, err) < 0 ||
        validation_run(&train->validation, &train->val_loss, train->loader, err) < 0)
        return err_wrap(err, "validation after step %" PRId64, train->step);
    if (train->rank->layout.rank != 0)
        return 0;
    log_info("step %" PRId64 ": validation loss %.4f", train->step, train->val_loss);
    metrics = json_new(JSON_OBJECT);
    rc = json_set(metrics, "val_loss", json_new_double(train->val_loss), err);
    if (rc == 0)
        rc = pump_progress(train->rank->pump, "training", train->step, train->step,
                           train->optim.max_steps, metrics, err);
    json_free(metrics);
    return rc;
}

/* ---- checkpoints and leases ---- */

static int train_save(struct train *train, char *path, struct err *err)
{
    struct stage_mark before = stage_begin("checkpoint", NULL, STAGE_LIMITED);
    const struct rank *rank = train->rank;
    struct json *meta = NULL;
    int rc;

    if (pump_progress(rank->pump, "checkpoint", -1, train->step, train->optim.max_steps,
                      NULL, err) < 0 ||
        fs_path(path, err, "%s/checkpoints", train->begin.folder) < 0 ||
        fs_make_dirs(path, 0755, err) < 0 ||
        checkpoint_path(path, train->begin.folder, train->step, rank->start->attempt,
                        err) < 0 ||
        checkpoints_meta(&meta, train->spec, train->binding, train->step,
                         corpus_info(train->feed.corpus), err) < 0)
        return -1;
    if (scaling_write(&train->scaling, meta, err) < 0) {
        json_free(meta);
        return -1;
    }
    rc = rank->layout.data_rank == 0
             ? carried_save(train->carried, train->engine.model, path, meta, err)
             : 0;
    json_free(meta);
    if (rc < 0 || (train->sample_log && sample_log_sync(train->sample_log, err) < 0))
        return -1;
    /* Nobody is told before all have come here. */
    rc = comm_barrier(groups_data(rank->groups), err);
    stage_end(before);
    return rc;
}

/* what: "checkpoint", that ends a lease; "earlier", that the job goes on from. */
static int train_result(const struct train *train, const char *what, const char *path,
                        struct buf *result, struct err *err)
{
    struct json *json = json_new(JSON_OBJECT), *checkpoint = json_new(JSON_OBJECT);
    int rc = -1;

    if (json_set(checkpoint, "path", json_new_string(path), err) == 0 &&
        json_set(checkpoint, "step", json_new_int(train->step), err) == 0 &&
        json_set(checkpoint, "consumed_samples",
                 json_new_int(train->step * train->batch.global), err) == 0 &&
        (isnan(train->val_loss) ||
         json_set(checkpoint, "val_loss", json_new_double(train->val_loss), err) == 0)) {
        rc = json_set(json, what, checkpoint, err);
        checkpoint = NULL; /* json's now */
    }
    if (rc == 0)
        json_write(result, json, 0);
    json_free(checkpoint);
    json_free(json);
    return rc;
}

/* What earlier jobs left in the folder counts among the last K until this job has as many
 * of its own. */
static int train_inherit(const struct train *train, struct json *args, struct err *err)
{
    if (train->begin.how != BEGIN_RESUME)
        return 0;
    return checkpoints_inherit(args, train->begin.folder,
                               checkpoints_step(train->begin.from),
                               train->spec->exp_manager.save_top_k, err);
}

/* The lease says which checkpoints are still kept; rank 0 deletes the others. */
static int train_clean(struct train *train, const struct msg_task_start *task,
                       struct err *err)
{
    struct json *args = NULL, *known;
    int rc;

    if (train->rank->layout.rank != 0)
        return 0;
    if (json_parse(&args, task->args, strlen(task->args), err) < 0)
        return err_wrap(err, "cannot read the arguments of a lease");
    rc = train_inherit(train, args, err);
    if (rc == 0)
        rc = checkpoints_clean(train->begin.folder, args, err);
    known = rc == 0 ? checkpoints_merge(train->known, args, err) : NULL;
    json_free(args);
    if (!known)
        return -1;
    json_free(train->known);
    train->known = known;
    return 0;
}

/* All leases are done, so every checkpoint is registered: the last K stay. */
static int train_end(void *state, struct err *err)
{
    const struct train *train = state;

    return checkpoints_clean_end(train->begin.folder, train->known,
                                 train->spec->exp_manager.save_top_k, err);
}

/* The steps up to last, or to where the ranks agree to stop. */
static int train_steps(struct train *train, int64_t last, struct err *err)
{
    while (train->step < last) {
        int rc;

        if (pump_poll(train->rank->pump, err) < 0)
            return -1;
        if (fault_hit("train.step"))
            return err_set(err, ERR_IO, "fault point train.step");
        rc = train_step(train, err);
        if (rc < 0) {
            err_wrap(err, "step %" PRId64, train->step);
            return memory_explain(&train->engine, train->feed.corpus, err);
        }
        if (train_report(train, err) < 0)
            return -1;
        if (rc == 0) {
            pump_set_stopping(train->rank->pump);
            log_info("stopping after step %" PRId64, train->step);
            return 0;
        }
        if (validation_is_due(&train->validation, train->step) &&
            train_validate(train, err) < 0)
            return -1;
    }
    return 0;
}

static int train_run(void *state, const struct msg_task_start *task, struct buf *result,
                     struct err *err)
{
    struct train *train = state;
    char path[FS_PATH_MAX];

    if (task->first + task->count <= train->step && train->from[0])
        return train_result(train, "earlier", train->from, result, err) < 0 ? -1 : 1;
    if (task->first > train->step || (task->first < train->step && !train->from[0]))
        return err_set(err, ERR_STATE,
                       "the lease begins at step %" PRId64 " but the model is at step "
                       "%" PRId64,
                       task->first, train->step);
    train->from[0] = '\0'; /* from here on step by step */
    if (train_clean(train, task, err) < 0 ||
        train_steps(train, task->first + task->count, err) < 0)
        return -1;
    if (!train->has_told_memory)
        memory_log(&train->engine, train->feed.corpus);
    train->has_told_memory = true;
    if (train_save(train, path, err) < 0)
        return -1;
    if (train->known && checkpoints_add(train->known, path, err) < 0)
        return -1;
    return train_result(train, "checkpoint", path, result, err) < 0 ? -1 : 1;
}

const struct rank_kind rank_kind_train = {
    .open = train_open,
    .run = train_run,
    .end = train_end,
    .close = train_close,
};
