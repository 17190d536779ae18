/* batch.h - one micro batch on its way from samples to the model
 *
 *     empty --plan--> planned --submit...--> submitted --finish--> ready --reset--> empty
 *
 * plan reads the samples, expands and pads their tokens; submit asks the decoders for the
 * frames this rank encodes (neva_frame_range) and no others; finish waits for them. Frames
 * stored in the dataset under the same settings are taken from there.
 * A sample that cannot be read or decoded is an error that names it: nothing is replaced.
 * Owns: samples, tokens, pixels, tickets. Threads: one caller.
 * Letters: B samples, T tokens of the longest rounded up (batch_round_tokens), S image size.
 */
#ifndef VNEVA_WORKER_RANK_BATCH_H
#define VNEVA_WORKER_RANK_BATCH_H

#include "worker/rank/config.h"
#include "worker/rank/corpus.h"

/* Tokens of the longest row, rounded up to one of at most BATCH_LENGTHS_MAX lengths below
 * max_tokens, all multiples of BATCH_TOKENS_MULTIPLE but perhaps the last: what a device
 * plans and records for a shape serves again only when the shape comes again. */
#define BATCH_LENGTHS_MAX 64
#define BATCH_TOKENS_MULTIPLE 8
int64_t batch_round_tokens(int64_t n_tokens, int64_t max_tokens);

struct batch_source {      /* what batches are made of; borrowed */
    struct corpus *corpus; /* NULL: only batch_plan_one */
    const struct frame_config *frames;
    struct frame_service *service;
    const struct neva *model; /* for neva_frame_range; NULL: all frames are wanted here */
    bool is_prompt;           /* only the tokens up to the last answer */
};

struct batch;

/* capacity: most samples of one batch. */
int batch_create(struct batch **out, const struct batch_source *source, int64_t capacity,
                 struct err *err);
void batch_destroy(struct batch *batch);

int batch_plan(struct batch *batch, const int64_t *numbers, int64_t n, struct err *err);
/* A batch of one sample that is in no dataset. The batch owns it from here on, whatever is
 * returned; info, borrowed until reset, says what a dataset's would. */
int batch_plan_one(struct batch *batch, struct dataset_sample *sample,
                   const struct dataset_info *info, struct err *err);
/* 1: everything is asked for, 0: the decoders' queue is full. */
int batch_submit(struct batch *batch, struct err *err);
int batch_finish(struct batch *batch, struct err *err);
/* True when batch_finish would not wait. */
bool batch_is_ready(const struct batch *batch);
void batch_reset(struct batch *batch);

/* Valid from finish to reset. */
const struct neva_batch *batch_get(const struct batch *batch);
const struct dataset_sample *batch_sample(const struct batch *batch, int64_t i);
int64_t batch_n_real_tokens(const struct batch *batch); /* without padding */

/* Frames this sample's i-th media item gives under these settings. ERR_INVALID when the
 * settings do not say and the dataset does not know. */
int batch_media_frames(int64_t *out, const struct frame_config *frames,
                       const struct dataset_info *info, const struct dataset_media *media,
                       struct err *err);
/* What to ask a decoder for. */
void batch_media_request(struct frame_request *out, const struct frame_config *frames,
                         const struct dataset_media *media);

#endif
