#include "worker/rank/engine.h"

#include "common/base/log.h"
#include "worker/rank/loader.h"

#include <inttypes.h>
#include <string.h>

/* As backend_create; `auto` says why it is not the GPU. */
static int create_backend(struct backend **out, const char *name, int device,
                          int n_threads, struct err *err)
{
    struct err why = {0};

    if (strcmp(name, "auto") != 0)
        return backend_create(out, name, device, n_threads, err);
    if (backend_create_auto(out, device, n_threads, &why, err) < 0)
        return -1;
    if (why.code)
        log_info("computing on the CPU: %s", why.text);
    return 0;
}

static int open_backend(struct engine *engine, struct err *err)
{
    const struct rank *rank = engine->rank;
    const char *name = rank->spec->backend ? rank->spec->backend : "auto";
    int n_threads = rank->spec->n_threads > 0 ? (int)rank->spec->n_threads : rank->n_cpus;

    if (create_backend(&engine->backend, name, (int)rank->start->device, n_threads, err) <
        0)
        return err_wrap(err, "cannot open backend '%s'", name);
    backend_allow_tf32(engine->backend,
                       strcmp(rank->spec->trainer.precision, "tf32") == 0);
    if (engine->model_config.dtype != DTYPE_F32 &&
        !backend_is_fast(engine->backend, engine->model_config.dtype))
        log_warn("%s has no units of its own here: trainer.precision 32 may be faster",
                 dtype_name(engine->model_config.dtype));
    return 0;
}

int engine_open(struct engine *engine, struct rank *rank,
                const struct neva_config *config, struct err *err)
{
    engine->rank = rank;
    engine->model_config = *config;
    if (open_backend(engine, err) < 0)
        return -1;
    if (nn_open_group(engine->backend, groups_tensor(rank->groups), err) < 0 ||
        nn_open_group(engine->backend, groups_data(rank->groups), err) < 0)
        return -1;
    return neva_create_bare(&engine->model, &engine->model_config, engine->backend,
                            groups_tensor(rank->groups), err);
}

void engine_close(struct engine *engine)
{
    neva_destroy(engine->model);
    backend_destroy(engine->backend);
    *engine = (struct engine){0};
}

int engine_prefetch(struct engine *engine, struct loader *loader, struct err *err)
{
    const struct batch *next;

    if (engine->backend->ops->is_host || !loader_peek(loader, &next))
        return 0;
    return neva_prefetch(engine->model, batch_get(next), err);
}

int engine_pass(struct engine *engine, struct loader *loader,
                int (*pass)(struct neva *model, const struct neva_batch *batch,
                            struct neva_loss *loss, struct err *err),
                struct engine_work *work, struct err *err)
{
    const struct batch *batch;
    const struct neva_batch *it;
    struct neva_loss loss = {0};
    int rc = loader_next(loader, &batch, err);

    if (rc <= 0)
        return rc;
    it = batch_get(batch);
    if (pass(engine->model, it, &loss, err) < 0)
        return -1;
    work->n_labels += (double)loss.n_labels;
    work->n_tokens += (double)batch_n_real_tokens(batch);
    work->flops += neva_step_flops(&engine->model_config, it->n_samples, it->n_tokens,
                                   it->n_frames, loss.n_labels);
    return engine_prefetch(engine, loader, err) < 0 ? -1 : 1;
}

/* Number of the GPU that the engine computes on; -1: it does not, or is not open. */
static int gpu_of(const struct engine *engine)
{
    return engine->backend && !engine->backend->ops->is_host
               ? (int)engine->rank->start->device
               : -1;
}

int feed_open(struct feed *feed, const struct engine *engine,
              const struct spec_list *folders, int64_t n_requests, struct err *err)
{
    struct decode_pool_config pool;

    if (!feed->corpus && corpus_open(&feed->corpus, (const char *const *)folders->items,
                                     folders->count, err) < 0)
        return -1;
    config_pool(&pool, engine->rank->spec, &engine->frames, engine->rank->decode_program,
                engine->rank->n_cpus, n_requests);
    config_decode(&pool, engine->rank->spec, gpu_of(engine));
    if (pool.decode == MEDIA_DECODE_CPU) /* else the decoders say what they chose */
        log_info("videos are decoded on the CPU: %s",
                 gpu_of(engine) < 0 ? "this rank computes there"
                                    : "model.data.decode_device is cpu");
    if (decode_pool_create(&feed->pool, &pool, err) < 0)
        return -1;
    feed->service = decode_pool_service(feed->pool);
    return 0;
}

void feed_log_decoding(const struct decode_pool *pool)
{
    struct decode_counts counts = {0};

    if (pool)
        counts = decode_pool_counts(pool);
    if (counts.n_on_gpu + counts.n_gpu_failed == 0) {
        if (counts.n_on_cpu)
            log_info("%" PRId64 " videos were decoded on the CPU", counts.n_on_cpu);
        return;
    }
    log_info("%" PRId64 " videos were decoded on the GPU, %" PRId64
             " on the CPU, %" PRId64 " of these because the GPU failed%s%s",
             counts.n_on_gpu, counts.n_on_cpu, counts.n_gpu_failed,
             counts.loss[0] ? "; a decoder was lost: " : "", counts.loss);
}

void feed_close(struct feed *feed)
{
    feed_log_decoding(feed->pool);
    decode_pool_destroy(feed->pool);
    corpus_close(feed->corpus);
    *feed = (struct feed){0};
}
