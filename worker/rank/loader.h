/* loader.h - micro batches in order, decoded ahead of the model
 *
 * Keeps n_ahead micro batches planned and asked for beyond the one in use, as far as the
 * decoders' queue allows, so that decoding goes on while the model computes. What the
 * caller waits in loader_next is measured: it is the data's share of a step.
 * Owns: its batches. Threads: one caller.
 */
#ifndef VNEVA_WORKER_RANK_LOADER_H
#define VNEVA_WORKER_RANK_LOADER_H

#include "worker/rank/batch.h"

struct loader_config { /* borrowed */
    struct batch_source source;
    int64_t capacity; /* samples of a micro batch */
    int64_t n_ahead;  /* micro batches */
    int64_t first;    /* number of the first one wanted */
    void *state;
    /* The samples of micro batch k into out [capacity]; how many, 0: there is no such. */
    int64_t (*numbers)(void *state, int64_t k, int64_t *out);
};

struct loader;

int loader_create(struct loader **out, const struct loader_config *config,
                  struct err *err);
void loader_destroy(struct loader *loader);

/* The next micro batch, valid until the next call. 1: here it is, 0: that was all. */
int loader_next(struct loader *loader, const struct batch **batch, struct err *err);

/* The micro batch that loader_next gives next, if it is there already, so that something can
 * be begun with it; then the one it gave last is no longer valid. 1: here it is, 0: it is
 * not there, or something is wrong with it, which loader_next will tell. Never waits. */
int loader_peek(struct loader *loader, const struct batch **batch);

/* Time spent in loader_next since the last call of this. */
int64_t loader_take_wait_ns(struct loader *loader);

#endif
