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

/* Makes the model of that configuration, without weights. How it computes (backend,
 * threads) is the rank's spec's. COLLECTIVE in the tensor group */
int engine_open(struct engine *engine, struct rank *rank,
                const struct neva_config *config, struct err *err);
void engine_close(struct engine *engine);

/* Starts decoders for n_requests requests ahead, on the GPU that the engine computes on
 * where it is open and the spec lets them. The corpus is opened unless it is. */
int feed_open(struct feed *feed, const struct engine *engine,
              const struct spec_list *folders, int64_t n_requests, struct err *err);
void feed_close(struct feed *feed);
/* A line about who decoded the videos; none if there were none. pool: NULL is fine. */
void feed_log_decoding(const struct decode_pool *pool);

#endif
