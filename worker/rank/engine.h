/* engine.h - what training and evaluation share: backend, model, data, decoders
 *
 * Owns: all it points to but rank and the configs' strings. Threads: one caller.
 */
#ifndef VNEVA_WORKER_RANK_ENGINE_H
#define VNEVA_WORKER_RANK_ENGINE_H

#include "worker/rank/config.h"
#include "worker/rank/corpus.h"
#include "worker/rank/rank.h"

struct engine {
    struct rank *rank;
    struct frame_config frames;
    struct neva_config model_config;
    struct backend *backend;
    struct neva *model;
};

/* A prepared dataset and the decoders that give its frames. */
struct feed {
    struct corpus *corpus;
    struct decode_pool *pool;
    struct frame_service service;
};

struct loader;

/* What the micro batches that went through the model had. */
struct engine_work {
    double n_labels, n_tokens; /* without padding */
    double flops;              /* of a training step over them, all ranks */
};

/* Makes the model of that configuration, without weights. How it computes (backend,
 * threads) is the rank's spec's. COLLECTIVE in the tensor group */
int engine_open(struct engine *engine, struct rank *rank,
                const struct neva_config *config, struct err *err);
void engine_close(struct engine *engine);

/* The loader's next micro batch goes through `pass`, neva_step or neva_evaluate, and is added
 * to `work`; then engine_prefetch. 1: done, 0: there are no more. COLLECTIVE in the tensor
 * group */
int engine_pass(struct engine *engine, struct loader *loader,
                int (*pass)(struct neva *model, const struct neva_batch *batch,
                            struct neva_loss *loss, struct err *err),
                struct engine_work *work, struct err *err);
/* The frames of the loader's next micro batch come to the device while it is at work, if
 * they are decoded already. */
int engine_prefetch(struct engine *engine, struct loader *loader, struct err *err);

/* Starts decoders for n_requests requests ahead, on the GPU that the engine computes on
 * where it is open and the spec lets them. The corpus is opened unless it is. */
int feed_open(struct feed *feed, const struct engine *engine,
              const struct spec_list *folders, int64_t n_requests, struct err *err);
void feed_close(struct feed *feed);
/* A line about who decoded the videos; none if there were none. pool: NULL is fine. */
void feed_log_decoding(const struct decode_pool *pool);

#endif
