#include "dataprep/prepare/prepare.h"

#include "dataprep/dataset/plan.h"
#include "dataprep/dataset/shard.h"
#include "dataprep/prepare/candidate.h"
#include "dataprep/prepare/fetch.h"
#include "dataprep/prepare/settings.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct range {
    const struct prepare_config *config;
    int64_t first, count;
    struct media_roots roots;
    struct settings_encoder encoder;
    struct plan *plan;
    int *files;
    struct candidate *candidates; /* [count] */
    struct fetch *fetch;
    struct shard_writer *writer;
};

static int open_files(struct range *range, struct err *err)
{
    const struct prepare_config *config = range->config;

    range->files = malloc((size_t)config->n_data_paths * sizeof(*range->files));
    if (!range->files)
        return err_set(err, ERR_NOMEM, "cannot allocate the list of annotation files");
    for (int i = 0; i < config->n_data_paths; i++)
        range->files[i] = -1;
    for (int i = 0; i < config->n_data_paths; i++) {
        range->files[i] = open(config->data_paths[i], O_RDONLY | O_CLOEXEC);
        if (range->files[i] < 0)
            return err_set(err, ERR_IO, "cannot open '%s': %s", config->data_paths[i],
                           strerror(errno));
    }
    return 0;
}

/* A range is one shard: it begins at a multiple of shard_size and is full, or the last. */
static int check_range(const struct range *range, struct err *err)
{
    int64_t n = plan_n_records(range->plan), size = range->config->shard_size;
    int64_t left = n - range->first;

    if (range->first < 0 || range->first % size || range->first >= n ||
        range->count != (left < size ? left : size))
        return err_set(err, ERR_INVALID,
                       "%lld samples from %lld on are no shard: there are %lld, %lld a "
                       "shard",
                       (long long)range->count, (long long)range->first, (long long)n,
                       (long long)size);
    return 0;
}

static int open_range(struct range *range, const struct frame_service *frames,
                      struct err *err)
{
    const struct prepare_config *config = range->config;
    struct frame_request shape = {.num_frames = config->num_frames,
                                  .splice = config->splice,
                                  .image_size = config->image_size,
                                  .aspect = config->aspect,
                                  .processor = config->processor};
    char plan[FS_PATH_MAX], tokenizer[FS_PATH_MAX];

    if (settings_check(config, err) < 0 ||
        settings_find_roots(&range->roots, config, err) < 0 ||
        settings_path(plan, config, PLAN_FILE, err) < 0 ||
        settings_tokenizer(tokenizer, config, err) < 0 ||
        plan_open(&range->plan, plan, err) < 0 || check_range(range, err) < 0 ||
        settings_open_encoder(&range->encoder, config, tokenizer, err) < 0 ||
        fetch_create(&range->fetch, frames, &shape, config->store_frames, err) < 0)
        return -1;
    range->candidates = calloc((size_t)range->count, sizeof(*range->candidates));
    if (!range->candidates)
        return err_set(err, ERR_NOMEM, "cannot allocate %lld records",
                       (long long)range->count);
    return open_files(range, err);
}

static void close_range(struct range *range)
{
    shard_writer_destroy(range->writer);
    fetch_destroy(range->fetch);
    for (int64_t i = 0; range->candidates && i < range->count; i++)
        candidate_fini(&range->candidates[i]);
    free(range->candidates);
    for (int i = 0; range->files && i < range->config->n_data_paths; i++)
        if (range->files[i] >= 0)
            close(range->files[i]);
    free(range->files);
    settings_close_encoder(&range->encoder);
    plan_close(range->plan);
}

/* First pass: everything that needs no decoder, and what is to be asked of decoders. */
static int check_all(struct range *range, struct err *err)
{
    struct candidate_context context = {
        range->config, &range->roots, &range->encoder.encoder, range->plan, range->files};

    for (int64_t i = 0; i < range->count; i++) {
        struct candidate *candidate = &range->candidates[i];

        if (candidate_check(candidate, &context, range->first + i, err) < 0)
            return -1;
        if (candidate->reject_kind)
            continue;
        for (int64_t k = 0; k < candidate->tokens.n_media; k++) {
            struct media_ref ref;

            if (candidate_place_media(&ref, candidate, &range->roots, k, err) < 0 ||
                fetch_add(range->fetch, &ref, &candidate->items[k], err) < 0)
                return -1;
        }
    }
    return 0;
}

/* Appends the frames of one media item, or marks the candidate as rejected. */
static int take_media(struct range *range, struct candidate *candidate, int64_t k,
                      struct buf *frames, struct err *err)
{
    struct dataset_media *media = &candidate->media[k];
    size_t size = (size_t)range->config->image_size;
    struct media_info info;
    const uint8_t *pixels = NULL;
    struct err reason = {0};

    switch (fetch_get(range->fetch, candidate->items[k], &info, &pixels, &reason)) {
    case FETCH_FAILED:
        return err_set(err, reason.code, "%s", reason.text);
    case FETCH_BAD_MEDIA:
        if (candidate->reject_kind)
            return 0; /* an item before it was bad too */
        err_wrap(&reason, "%s", media->ref.path);
        return candidate_reject(candidate, "media-bad", reason.text, err);
    case FETCH_GOOD:
        break;
    }
    media->n_frames = info.n_frames;
    if (pixels && !candidate->reject_kind)
        buf_add(frames, pixels, (size_t)info.n_frames * size * size * 3);
    return buf_check(frames, err);
}

/* Entries of the sample with its media expanded; the last token is only a label. */
static int64_t count_expanded(const struct range *range,
                              const struct candidate *candidate)
{
    int64_t n = candidate->tokens.n_tokens - 1;

    for (int64_t k = 0; k < candidate->tokens.n_media; k++)
        n += candidate->media[k].n_frames * range->config->frame_tokens - 1;
    return n;
}

static int check_length(struct range *range, struct candidate *candidate, int64_t n,
                        struct err *err)
{
    struct err reason = {0};

    if (n <= range->config->max_tokens)
        return 0;
    err_set(
        &reason, ERR_LIMIT,
        "%lld tokens with its media, encoder_seq_length is %lld; take fewer frames or "
        "a longer sequence",
        (long long)n, (long long)range->config->max_tokens);
    return candidate_reject(candidate, "too-long", reason.text, err);
}

static int write_reject(struct range *range, const struct candidate *candidate,
                        struct err *err)
{
    struct shard_reject reject = {.file = range->config->data_paths[candidate->file],
                                  .line = candidate->line,
                                  .id = candidate->id,
                                  .kind = candidate->reject_kind,
                                  .reason = candidate->reject_reason};

    return shard_writer_reject(range->writer, &reject, err);
}

static int write_sample(struct range *range, struct candidate *candidate,
                        const struct buf *frames, int64_t n_expanded, struct err *err)
{
    struct conv_tokens *tokens = &candidate->tokens;
    struct dataset_sample sample = {
        .id = candidate->id,
        .record = candidate->record,
        .n_media = tokens->n_media,
        .media = candidate->media,
        .n_tokens = tokens->n_tokens,
        .tokens = (int32_t *)tokens->tokens.data,
        .is_label = (uint8_t *)tokens->is_label.data,
        .n_prompt = tokens->n_prompt,
        .frames = (uint8_t *)frames->data, /* NULL when none are stored */
        .n_frame_bytes = frames->n_bytes,
    };

    return shard_writer_add(range->writer, &sample, n_expanded, err);
}

/* Second pass, one record: its media, its length, and into the shard with it. */
static int finish_one(struct range *range, struct candidate *candidate, struct err *err)
{
    struct buf frames = BUF_INIT;
    int64_t n_expanded = 0;
    int rc = 0;

    if (!candidate->reject_kind) {
        for (int64_t k = 0; k < candidate->tokens.n_media && rc == 0; k++) {
            rc = take_media(range, candidate, k, &frames, err);
            fetch_done(range->fetch, candidate->items[k]);
        }
        n_expanded = count_expanded(range, candidate);
        if (rc == 0 && !candidate->reject_kind)
            rc = check_length(range, candidate, n_expanded, err);
    }
    if (rc == 0)
        rc = candidate->reject_kind
                 ? write_reject(range, candidate, err)
                 : write_sample(range, candidate, &frames, n_expanded, err);
    buf_fini(&frames);
    candidate_fini(candidate);
    return rc;
}

static int write_range(struct range *range, const struct prepare_progress *progress,
                       int64_t *n_rejects, struct err *err)
{
    struct shard_meta meta = {.plan = plan_hash(range->plan),
                              .first_record = range->first,
                              .n_records = range->count};
    char name[40], path[FS_PATH_MAX];

    settings_shard_name(name, sizeof(name), range->first / range->config->shard_size);
    if (settings_path(path, range->config, name, err) < 0 ||
        shard_writer_create(&range->writer, path, err) < 0)
        return -1;
    for (int64_t i = 0; i < range->count; i++) {
        if (finish_one(range, &range->candidates[i], err) < 0)
            return -1;
        if (progress && progress->report &&
            progress->report(progress->state, i + 1, range->count, err) < 0)
            return -1;
    }
    if (shard_writer_commit(range->writer, &meta, err) < 0)
        return -1;
    *n_rejects = meta.n_rejects;
    return 0;
}

int prepare_range(const struct prepare_config *config, struct frame_service *frames,
                  int64_t first, int64_t count, const struct prepare_progress *progress,
                  int64_t *n_rejects, struct err *err)
{
    struct range range = {.config = config, .first = first, .count = count};
    int rc = open_range(&range, frames, err);

    if (rc == 0)
        rc = check_all(&range, err);
    if (rc == 0)
        rc = write_range(&range, progress, n_rejects, err);
    close_range(&range);
    if (rc < 0)
        err_wrap(err, "cannot prepare samples %lld to %lld", (long long)first,
                 (long long)(first + count - 1));
    return rc;
}
