#include "dataprep/dataset/dataset.h"

#include "common/base/fs.h"
#include "dataprep/dataset/manifest.h"
#include "dataprep/dataset/shard.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* Shards held open; more than a rank's batches touch at once, and far below the usual
 * limit of 1024 files. */
#define OPEN_SHARDS_MAX 128

struct open_shard {
    int64_t number; /* of the shard; -1: none */
    struct shard *shard;
    uint64_t last_use;
};

struct dataset {
    char folder[FS_PATH_MAX];
    struct manifest manifest;
    struct open_shard open[OPEN_SHARDS_MAX];
    uint64_t n_uses;
};

/* Cheap checks of every shard: it is there and of its size. The contents are checked
 * sample by sample, when read. */
static int check_shards(const struct dataset *dataset, struct err *err)
{
    for (int64_t i = 0; i < dataset->manifest.n_shards; i++) {
        const struct manifest_shard *shard = &dataset->manifest.shards[i];
        char path[FS_PATH_MAX];
        struct stat st;

        if (fs_path(path, err, "%s/%s", dataset->folder, shard->file) < 0)
            return -1;
        if (stat(path, &st) < 0)
            return err_set(err, ERR_NOT_FOUND, "shard '%s': %s", path, strerror(errno));
        if ((int64_t)st.st_size != shard->n_bytes)
            return err_set(err, ERR_FORMAT,
                           "shard '%s' is damaged: %lld bytes, %lld expected; prepare "
                           "the dataset again",
                           path, (long long)st.st_size, (long long)shard->n_bytes);
    }
    return 0;
}

int dataset_open(struct dataset **out, const char *folder, struct err *err)
{
    struct dataset *dataset = calloc(1, sizeof(*dataset));

    if (!dataset)
        return err_set(err, ERR_NOMEM, "cannot allocate a dataset");
    for (int i = 0; i < OPEN_SHARDS_MAX; i++)
        dataset->open[i].number = -1;
    if (fs_path(dataset->folder, err, "%s", folder) < 0 ||
        manifest_load(&dataset->manifest, folder, err) < 0 ||
        check_shards(dataset, err) < 0) {
        dataset_close(dataset);
        return -1;
    }
    *out = dataset;
    return 0;
}

void dataset_close(struct dataset *dataset)
{
    if (!dataset)
        return;
    for (int i = 0; i < OPEN_SHARDS_MAX; i++)
        shard_close(dataset->open[i].shard);
    manifest_fini(&dataset->manifest);
    free(dataset);
}

const struct dataset_info *dataset_info(const struct dataset *dataset)
{
    return &dataset->manifest.info;
}

/* The shard that holds sample `number`: the last whose first sample is not after it. */
static int64_t find_shard(const struct manifest *manifest, int64_t number)
{
    int64_t low = 0, high = manifest->n_shards;

    while (high - low > 1) {
        int64_t middle = low + (high - low) / 2;

        if (manifest->shards[middle].first_sample <= number)
            low = middle;
        else
            high = middle;
    }
    return low;
}

static int use_shard(struct dataset *dataset, struct shard **out, int64_t number,
                     struct err *err)
{
    const struct manifest_shard *entry = &dataset->manifest.shards[number];
    struct open_shard *place = &dataset->open[0];
    char path[FS_PATH_MAX];

    for (int i = 0; i < OPEN_SHARDS_MAX; i++) {
        struct open_shard *open = &dataset->open[i];

        if (open->number == number) {
            place = open;
            break;
        }
        if (open->last_use < place->last_use)
            place = open;
    }
    if (place->number != number) {
        shard_close(place->shard);
        *place = (struct open_shard){.number = -1};
        if (fs_path(path, err, "%s/%s", dataset->folder, entry->file) < 0 ||
            shard_open(&place->shard, path, err) < 0)
            return -1;
        if (shard_meta(place->shard)->n_samples != entry->n_samples)
            return err_set(err, ERR_FORMAT,
                           "shard '%s' holds %lld samples, the manifest says %lld", path,
                           (long long)shard_meta(place->shard)->n_samples,
                           (long long)entry->n_samples);
        place->number = number;
    }
    place->last_use = ++dataset->n_uses;
    *out = place->shard;
    return 0;
}

/* Media names become paths: of the tar itself, or below the media folder. */
static int place_media(const struct manifest *manifest, struct dataset_sample *sample,
                       struct err *err)
{
    for (int64_t i = 0; i < sample->n_media; i++) {
        struct media_ref *ref = &sample->media[i].ref;
        char path[FS_PATH_MAX];

        if (fs_path(path, err, manifest->roots[ref->kind].is_tar ? "%s" : "%s/%s",
                    manifest->roots[ref->kind].path, ref->path) < 0)
            return -1;
        if (strlen(path) >= sizeof(ref->path))
            return err_set(err, ERR_LIMIT, "the media path '%.80s...' is too long", path);
        memcpy(ref->path, path, strlen(path) + 1);
    }
    return 0;
}

static int check_frames(const struct dataset_info *info,
                        const struct dataset_sample *sample, struct err *err)
{
    uint64_t n_frames = 0;

    for (int64_t i = 0; i < sample->n_media; i++)
        n_frames += (uint64_t)sample->media[i].n_frames;
    if (sample->frames && sample->n_frame_bytes != n_frames * (uint64_t)info->image_size *
                                                       (uint64_t)info->image_size * 3)
        return err_set(err, ERR_FORMAT, "sample %lld: the stored frames do not fit",
                       (long long)sample->number);
    return 0;
}

int dataset_read(struct dataset *dataset, int64_t number, struct dataset_sample **out,
                 struct err *err)
{
    const struct manifest *manifest = &dataset->manifest;
    struct dataset_sample *sample = NULL;
    struct shard *shard;
    int64_t at;

    if (number < 0 || number >= manifest->info.n_samples)
        return err_set(err, ERR_INVALID, "no sample %lld, '%s' has %lld",
                       (long long)number, dataset->folder,
                       (long long)manifest->info.n_samples);
    at = find_shard(manifest, number);
    if (use_shard(dataset, &shard, at, err) < 0 ||
        shard_read(shard, number - manifest->shards[at].first_sample, &sample, err) < 0)
        return -1;
    sample->number = number;
    if (place_media(manifest, sample, err) < 0 ||
        check_frames(&manifest->info, sample, err) < 0) {
        dataset_sample_free(sample);
        return -1;
    }
    *out = sample;
    return 0;
}

void dataset_sample_free(struct dataset_sample *sample)
{
    if (!sample)
        return;
    free(sample->id);
    free(sample->record);
    free(sample->media);
    free(sample->tokens);
    free(sample->is_label);
    free(sample->frames);
    free(sample);
}

/* ---- expansion ---- */

/* Entries that token i becomes. */
static int64_t width(const struct dataset_sample *sample, const int64_t *n_frames,
                     int64_t frame_tokens, int64_t i, int64_t *item)
{
    if (sample->tokens[i] != DATASET_TOKEN_MEDIA)
        return 1;
    return n_frames[(*item)++] * frame_tokens;
}

static int count_entries(const struct dataset_sample *sample, const int64_t *n_frames,
                         int64_t frame_tokens, int64_t *n_out, struct err *err)
{
    int64_t item = 0;

    *n_out = 0;
    for (int64_t i = 0; i < sample->n_tokens - 1; i++) {
        if (sample->tokens[i] == DATASET_TOKEN_MEDIA && item == sample->n_media)
            return err_set(err, ERR_FORMAT,
                           "sample '%s' has more media tokens than media", sample->id);
        *n_out += width(sample, n_frames, frame_tokens, i, &item);
    }
    return 0;
}

int dataset_expand(const struct dataset_sample *sample, const int64_t *n_frames,
                   int64_t frame_tokens, int32_t *tokens, int32_t *labels,
                   int64_t capacity, int64_t *n_out, struct err *err)
{
    int64_t at = 0, item = 0;

    if (count_entries(sample, n_frames, frame_tokens, n_out, err) < 0)
        return -1;
    if (*n_out > capacity)
        return err_set(err, ERR_LIMIT,
                       "sample '%s' takes %lld tokens, there is room for "
                       "%lld",
                       sample->id, (long long)*n_out, (long long)capacity);
    for (int64_t i = 0; i < sample->n_tokens - 1; i++) {
        int64_t n = width(sample, n_frames, frame_tokens, i, &item);

        for (int64_t k = 0; k < n; k++, at++) {
            tokens[at] = sample->tokens[i];
            labels[at] = -1;
        }
        if (n && sample->is_label[i + 1])
            labels[at - 1] = sample->tokens[i + 1];
    }
    return 0;
}
