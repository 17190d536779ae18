#include "worker/rank/batch.h"

#include "common/base/stage.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* Tokens go to the model as the dataset gives them. */
// NOLINTNEXTLINE(misc-redundant-expression): two rooms' numbers that must stay the same
_Static_assert(DATASET_TOKEN_MEDIA == NEVA_TOKEN_MEDIA, "marks of media differ");

enum item_state {
    ITEM_ELSEWHERE, /* other ranks encode it */
    ITEM_STORED,    /* its frames lie in the dataset */
    ITEM_WANTED,    /* to be asked for */
    ITEM_QUEUED,    /* asked for; the ticket is open */
    ITEM_COPIED,
};

struct item { /* one media item */
    enum item_state state;
    int64_t sample;          /* index in the batch */
    int64_t media;           /* index in the sample */
    int64_t first, n_frames; /* its place among the batch's frames */
    const uint8_t *stored;   /* ITEM_STORED */
    int64_t ticket;          /* ITEM_QUEUED */
};

struct batch {
    struct batch_source source;
    int64_t capacity, n_samples;
    struct dataset_sample **samples;   /* [capacity] */
    const struct dataset_info **infos; /* [capacity] */
    int32_t *tokens, *labels, *lens;   /* [capacity * max_tokens], [capacity] */
    struct item *items;
    int64_t n_items, items_capacity;
    uint8_t *pixels;
    size_t pixels_capacity;
    int64_t first_frame, n_own_frames; /* this rank's part */
    int64_t n_real_tokens;
    struct neva_batch neva;
};

int batch_create(struct batch **out, const struct batch_source *source, int64_t capacity,
                 struct err *err)
{
    struct batch *batch = calloc(1, sizeof(*batch));
    size_t n = (size_t)capacity, n_tokens = n * (size_t)source->frames->max_tokens;

    if (!batch)
        return err_set(err, ERR_NOMEM, "cannot allocate a micro batch");
    batch->source = *source;
    batch->capacity = capacity;
    batch->samples = calloc(n, sizeof(struct dataset_sample *));
    batch->infos = calloc(n, sizeof(struct dataset_info *));
    batch->tokens = calloc(n_tokens, sizeof(*batch->tokens));
    batch->labels = calloc(n_tokens, sizeof(*batch->labels));
    batch->lens = calloc(n, sizeof(*batch->lens));
    if (!batch->samples || !batch->infos || !batch->tokens || !batch->labels ||
        !batch->lens) {
        batch_destroy(batch);
        return err_set(err, ERR_NOMEM,
                       "cannot allocate a micro batch of %" PRId64 " samples", capacity);
    }
    *out = batch;
    return 0;
}

void batch_destroy(struct batch *batch)
{
    if (!batch)
        return;
    if (batch->samples)
        batch_reset(batch);
    free(batch->samples);
    free(batch->infos);
    free(batch->tokens);
    free(batch->labels);
    free(batch->lens);
    free(batch->items);
    free(batch->pixels);
    free(batch);
}

void batch_reset(struct batch *batch)
{
    struct frame_service *service = batch->source.service;

    for (int64_t i = 0; i < batch->n_items; i++)
        if (batch->items[i].state == ITEM_QUEUED)
            service->release(service->state, batch->items[i].ticket);
    for (int64_t i = 0; i < batch->n_samples; i++)
        dataset_sample_free(batch->samples[i]);
    batch->n_items = batch->n_samples = batch->n_real_tokens = 0;
}

const struct neva_batch *batch_get(const struct batch *batch)
{
    return &batch->neva;
}

const struct dataset_sample *batch_sample(const struct batch *batch, int64_t i)
{
    return batch->samples[i];
}

int64_t batch_n_real_tokens(const struct batch *batch)
{
    return batch->n_real_tokens;
}

/* ---- plan ---- */

int batch_media_frames(int64_t *out, const struct frame_config *frames,
                       const struct dataset_info *info, const struct dataset_media *media,
                       struct err *err)
{
    if (media->ref.kind == MEDIA_IMAGE || frames->splice != MEDIA_SPLICE_NONE)
        *out = 1;
    else if (frames->num_frames > 0)
        *out = frames->num_frames;
    else if (info->num_frames == -1 && info->splice == MEDIA_SPLICE_NONE)
        *out = media->n_frames;
    else
        return err_set(err, ERR_INVALID,
                       "model.data.num_frames is -1 but the dataset was prepared for "
                       "%" PRId64 " frames: prepare it again with -1",
                       info->num_frames);
    return 0;
}

void batch_media_request(struct frame_request *out, const struct frame_config *frames,
                         const struct dataset_media *media)
{
    *out = (struct frame_request){
        .media = media->ref,
        .num_frames = frames->num_frames,
        .splice = frames->splice,
        .image_size = frames->image_size,
        .aspect = frames->aspect,
        .processor = frames->processor,
    };
}

/* Whether the frames stored beside this sample are those the settings ask for. */
static bool is_stored(const struct frame_config *frames, const struct dataset_info *info,
                      const struct dataset_sample *sample)
{
    return sample->frames && frames->splice == info->splice &&
           (frames->splice != MEDIA_SPLICE_NONE ||
            frames->num_frames == info->num_frames) &&
           frames->image_size == info->image_size && frames->aspect == info->aspect &&
           frames->processor == info->processor;
}

static int batch_add_item(struct batch *batch, const struct item *item, struct err *err)
{
    if (batch->n_items == batch->items_capacity) {
        int64_t capacity = batch->items_capacity ? 2 * batch->items_capacity : 32;
        struct item *items =
            realloc(batch->items, (size_t)capacity * sizeof(*batch->items));

        if (!items)
            return err_set(err, ERR_NOMEM, "cannot allocate a micro batch");
        batch->items = items;
        batch->items_capacity = capacity;
    }
    batch->items[batch->n_items++] = *item;
    return 0;
}

/* Puts the media items of sample i behind those there are, and its tokens into row i of
 * [capacity, max_tokens]. */
static int batch_plan_sample(struct batch *batch, int64_t i, struct err *err)
{
    const struct frame_config *frames = batch->source.frames;
    const struct dataset_info *info = batch->infos[i];
    struct dataset_sample sample = *batch->samples[i]; /* borrowed copy: may be cut */
    int64_t n_frames[DATASET_MEDIA_MAX], n_tokens, n_before = 0;
    size_t row = (size_t)i * (size_t)frames->max_tokens;
    size_t frame_bytes = (size_t)(frames->image_size * frames->image_size * 3);

    if (info->prompts_only && !batch->source.is_prompt)
        return err_set(err, ERR_INVALID,
                       "its dataset was prepared with model.data.prompts_only: there is "
                       "nothing to learn in it; prepare it without");
    if (sample.n_media > DATASET_MEDIA_MAX)
        return err_set(err, ERR_LIMIT, "it has more than %d media items",
                       DATASET_MEDIA_MAX);
    for (int64_t m = 0; m < sample.n_media; m++) {
        struct item item = {.state = ITEM_WANTED, .sample = i, .media = m};

        if (batch_media_frames(&item.n_frames, frames, info, &sample.media[m], err) < 0)
            return -1;
        n_frames[m] = item.n_frames;
        item.first = batch->neva.n_frames;
        if (is_stored(frames, info, &sample)) {
            item.state = ITEM_STORED;
            item.stored = sample.frames + (size_t)n_before * frame_bytes;
        }
        n_before += item.n_frames;
        batch->neva.n_frames += item.n_frames;
        if (batch_add_item(batch, &item, err) < 0)
            return -1;
    }
    if (batch->source.is_prompt)
        sample.n_tokens = sample.n_prompt + 1; /* the last one is only a label */
    if (dataset_expand(&sample, n_frames, frames->frame_tokens, batch->tokens + row,
                       batch->labels + row, frames->max_tokens, &n_tokens, err) < 0)
        return -1;
    batch->lens[i] = (int32_t)n_tokens;
    batch->n_real_tokens += n_tokens;
    return 0;
}

static int64_t round_up(int64_t n, int64_t multiple)
{
    return (n + multiple - 1) / multiple * multiple;
}

int64_t batch_round_tokens(int64_t n_tokens, int64_t max_tokens)
{
    int64_t step = round_up((max_tokens + BATCH_LENGTHS_MAX - 1) / BATCH_LENGTHS_MAX,
                            BATCH_TOKENS_MULTIPLE);
    int64_t rounded = round_up(n_tokens, step);

    return rounded < max_tokens ? rounded : max_tokens;
}

/* From rows of max_tokens to rows of T, padded with token 0 and label -1. */
static void batch_pad(struct batch *batch)
{
    int64_t max_tokens = batch->source.frames->max_tokens, longest = 1, n_tokens;

    for (int64_t i = 0; i < batch->n_samples; i++)
        if (batch->lens[i] > longest)
            longest = batch->lens[i];
    n_tokens = batch_round_tokens(longest, max_tokens);
    for (int64_t i = 0; i < batch->n_samples; i++) {
        size_t len = (size_t)batch->lens[i];
        int32_t *tokens = batch->tokens + i * n_tokens;
        int32_t *labels = batch->labels + i * n_tokens;

        memmove(tokens, batch->tokens + i * max_tokens, len * sizeof(*tokens));
        memmove(labels, batch->labels + i * max_tokens, len * sizeof(*labels));
        for (size_t t = len; t < (size_t)n_tokens; t++) {
            tokens[t] = 0;
            labels[t] = -1;
        }
    }
    batch->neva.n_samples = batch->n_samples;
    batch->neva.n_tokens = n_tokens;
    batch->neva.tokens = batch->tokens;
    batch->neva.labels = batch->labels;
    batch->neva.lens = batch->lens;
}

/* Room for this rank's frames; items of other ranks are struck off. */
static int batch_plan_frames(struct batch *batch, struct err *err)
{
    const struct frame_config *frames = batch->source.frames;
    size_t n_bytes;
    int64_t last;

    batch->first_frame = 0;
    batch->n_own_frames = batch->neva.n_frames;
    if (batch->source.model)
        neva_frame_range(batch->source.model, batch->neva.n_frames, &batch->first_frame,
                         &batch->n_own_frames);
    last = batch->first_frame + batch->n_own_frames;
    for (int64_t i = 0; i < batch->n_items; i++) {
        struct item *item = &batch->items[i];

        if (item->first >= last || item->first + item->n_frames <= batch->first_frame)
            item->state = ITEM_ELSEWHERE;
    }
    n_bytes = (size_t)batch->n_own_frames *
              (size_t)(frames->image_size * frames->image_size * 3);
    if (n_bytes > batch->pixels_capacity) {
        uint8_t *pixels = realloc(batch->pixels, n_bytes);

        if (!pixels)
            return err_set(err, ERR_NOMEM, "cannot allocate the frames of a micro batch");
        batch->pixels = pixels;
        batch->pixels_capacity = n_bytes;
    }
    batch->neva.pixels = batch->pixels;
    return 0;
}

int batch_plan_one(struct batch *batch, struct dataset_sample *sample,
                   const struct dataset_info *info, struct err *err)
{
    batch_reset(batch);
    batch->neva = (struct neva_batch){0};
    batch->samples[0] = sample;
    batch->infos[0] = info;
    batch->n_samples = 1;
    if (batch_plan_sample(batch, 0, err) < 0)
        return -1;
    batch_pad(batch);
    return batch_plan_frames(batch, err);
}

int batch_plan(struct batch *batch, const int64_t *numbers, int64_t n, struct err *err)
{
    batch_reset(batch);
    batch->neva = (struct neva_batch){0};
    for (int64_t i = 0; i < n; i++) {
        if (corpus_read(batch->source.corpus, numbers[i], &batch->samples[i],
                        &batch->infos[i], err) < 0)
            return err_wrap(err, "cannot read sample %" PRId64, numbers[i]);
        batch->n_samples++;
        if (batch_plan_sample(batch, i, err) < 0)
            return err_wrap(err, "sample %" PRId64 " ('%s')", numbers[i],
                            batch->samples[i]->id);
    }
    batch_pad(batch);
    return batch_plan_frames(batch, err);
}

/* ---- frames ---- */

/* A decoder that died or hung says something of the file and not of the ranks: the code
 * must not be taken for a lost peer. */
static int item_failed(const struct batch *batch, const struct item *item,
                       struct err *err)
{
    const struct dataset_sample *sample = batch->samples[item->sample];

    if (err->code == ERR_PEER || err->code == ERR_TIMEOUT)
        err->code = ERR_FORMAT;
    return err_wrap(err, "sample %" PRId64 " ('%s'): media '%s'", sample->number,
                    sample->id, sample->media[item->media].ref.path);
}

int batch_submit(struct batch *batch, struct err *err)
{
    struct frame_service *service = batch->source.service;

    for (int64_t i = 0; i < batch->n_items; i++) {
        struct item *item = &batch->items[i];
        struct frame_request request;

        if (item->state != ITEM_WANTED)
            continue;
        batch_media_request(&request, batch->source.frames,
                            &batch->samples[item->sample]->media[item->media]);
        if (service->submit(service->state, &request, false, &item->ticket, err) == 0) {
            item->state = ITEM_QUEUED;
            continue;
        }
        if (err->code == ERR_LIMIT) {
            err_clear(err);
            return 0;
        }
        return item_failed(batch, item, err);
    }
    return 1;
}

/* The part of an item's frames that is this rank's, into its place. */
static void item_copy(struct batch *batch, struct item *item, const uint8_t *frames)
{
    const struct frame_config *config = batch->source.frames;
    size_t frame_bytes = (size_t)(config->image_size * config->image_size * 3);
    int64_t first = item->first, last = item->first + item->n_frames;
    int64_t own_last = batch->first_frame + batch->n_own_frames;

    if (first < batch->first_frame)
        first = batch->first_frame;
    if (last > own_last)
        last = own_last;
    memcpy(batch->pixels + (size_t)(first - batch->first_frame) * frame_bytes,
           frames + (size_t)(first - item->first) * frame_bytes,
           (size_t)(last - first) * frame_bytes);
    item->state = ITEM_COPIED;
}

static int item_wait(struct batch *batch, struct item *item, struct err *err)
{
    struct frame_service *service = batch->source.service;
    const uint8_t *frames;
    struct media_info info;

    if (service->wait(service->state, item->ticket, &frames, &info, err) < 0)
        return item_failed(batch, item, err);
    if (info.n_frames != item->n_frames) {
        err_set(err, ERR_FORMAT,
                "it gives %" PRId64 " frames where %" PRId64
                " were counted when it was prepared",
                info.n_frames, item->n_frames);
        return item_failed(batch, item, err);
    }
    item_copy(batch, item, frames);
    service->release(service->state, item->ticket);
    return 0;
}

bool batch_is_ready(const struct batch *batch)
{
    const struct frame_service *service = batch->source.service;

    for (int64_t i = 0; i < batch->n_items; i++) {
        const struct item *item = &batch->items[i];

        if (item->state == ITEM_WANTED ||
            (item->state == ITEM_QUEUED &&
             (!service->is_ready || !service->is_ready(service->state, item->ticket))))
            return false;
    }
    return true;
}

int batch_finish(struct batch *batch, struct err *err)
{
    for (int64_t i = 0; i < batch->n_items; i++) {
        struct item *item = &batch->items[i];

        stage_touch();
        if (item->state == ITEM_STORED)
            item_copy(batch, item, item->stored);
        if (item->state == ITEM_WANTED) {
            int rc = batch_submit(batch, err);

            if (rc == 0 && item->state == ITEM_WANTED)
                rc = err_set(err, ERR_STATE, "the decoders have no room for one request");
            if (rc < 0)
                return -1;
        }
        if (item->state == ITEM_QUEUED && item_wait(batch, item, err) < 0)
            return -1;
    }
    return 0;
}
