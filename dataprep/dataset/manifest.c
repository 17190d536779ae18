#include "dataprep/dataset/manifest.h"

#include "common/base/fs.h"
#include "common/base/hash.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *const aspect_names[] = {
    [MEDIA_ASPECT_SQUARE] = "square",
    [MEDIA_ASPECT_PAD] = "pad",
    [MEDIA_ASPECT_KEEP] = "keep",
};
static const char *const splice_names[] = {
    [MEDIA_SPLICE_NONE] = "none",
    [MEDIA_SPLICE_FIRST] = "first",
    [MEDIA_SPLICE_MIDDLE] = "middle",
    [MEDIA_SPLICE_LAST] = "last",
};

static const char *const processor_names[] = {
    [MEDIA_PROCESSOR_CLIP] = "clip",
    [MEDIA_PROCESSOR_SIGLIP] = "siglip",
};

static int find_name(const char *const *names, size_t n_names, const char *name)
{
    for (size_t i = 0; name && i < n_names; i++)
        if (strcmp(names[i], name) == 0)
            return (int)i;
    return -1;
}

#define NAMED(noun)                                                                      \
    const char *manifest_##noun##_name(enum media_##noun noun)                           \
    {                                                                                    \
        return noun##_names[noun];                                                       \
    }                                                                                    \
    bool manifest_##noun##_find(enum media_##noun *out, const char *name)                \
    {                                                                                    \
        int at =                                                                         \
            find_name(noun##_names, sizeof(noun##_names) / sizeof(*noun##_names), name); \
                                                                                         \
        if (at >= 0)                                                                     \
            *out = (enum media_##noun)at;                                                \
        return at >= 0;                                                                  \
    }

NAMED(aspect)
NAMED(splice)
NAMED(processor)

int manifest_hash_file(uint64_t *out, const char *path, struct err *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    void *bytes = NULL;
    int rc = -1;

    if (fd < 0 || fstat(fd, &st) < 0) {
        err_set(err, ERR_IO, "cannot open '%s': %s", path, strerror(errno));
        goto out;
    }
    if (st.st_size > 0) {
        bytes = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (bytes == MAP_FAILED) {
            err_set(err, ERR_IO, "cannot map '%s': %s", path, strerror(errno));
            goto out;
        }
    }
    *out = hash64(bytes ? bytes : "", (size_t)st.st_size, 0);
    if (bytes)
        munmap(bytes, (size_t)st.st_size);
    rc = 0;
out:
    if (fd >= 0)
        close(fd);
    return rc;
}

/* ---- writing ---- */

static int set_hash(struct json *object, const char *key, uint64_t hash, struct err *err)
{
    char text[20]; /* 16 digits: JSON numbers do not hold 64 bits everywhere */

    snprintf(text, sizeof(text), "%016" PRIx64, hash);
    return json_set(object, key, json_new_string(text), err);
}

int manifest_add_shards(struct json *tree, const struct manifest_shard *shards,
                        int64_t n_shards, struct err *err)
{
    struct json *list = json_new(JSON_ARRAY);

    for (int64_t i = 0; i < n_shards; i++) {
        struct json *shard = json_new(JSON_OBJECT);

        if (json_set(shard, "file", json_new_string(shards[i].file), err) < 0 ||
            json_set(shard, "first_sample", json_new_int(shards[i].first_sample), err) <
                0 ||
            json_set(shard, "n_samples", json_new_int(shards[i].n_samples), err) < 0 ||
            json_set(shard, "n_bytes", json_new_int(shards[i].n_bytes), err) < 0 ||
            set_hash(shard, "hash", shards[i].hash, err) < 0) {
            json_free(shard);
            json_free(list);
            return -1;
        }
        if (json_append(list, shard, err) < 0) {
            json_free(list);
            return -1;
        }
    }
    return json_set(tree, "shards", list, err);
}

/* ---- reading ---- */

static int read_hash(uint64_t *out, const struct json *object, const char *key,
                     struct err *err)
{
    const char *text = json_get_string(object, key);
    char *end;

    if (!text || strlen(text) != 16)
        return err_set(err, ERR_FORMAT, "'%s' is not there or no checksum", key);
    *out = strtoull(text, &end, 16);
    if (*end)
        return err_set(err, ERR_FORMAT, "'%s' is no checksum", key);
    return 0;
}

static int read_extra_tokens(struct manifest *out, const struct json *settings,
                             struct err *err)
{
    const struct json *list = json_get(settings, "extra_tokens");
    size_t n = json_count(list);

    out->extra_tokens = calloc(n + 1, sizeof(*out->extra_tokens));
    if (!out->extra_tokens)
        return err_set(err, ERR_NOMEM, "cannot allocate extra tokens");
    for (size_t i = 0; i < n; i++) {
        out->extra_tokens[i] = json_string(json_at(list, i));
        if (!out->extra_tokens[i])
            return err_set(err, ERR_FORMAT, "'extra_tokens' holds what is no text");
    }
    out->info.extra_tokens = out->extra_tokens;
    out->info.n_extra_tokens = (int)n;
    return 0;
}

static void read_roots(struct manifest *out, const struct json *settings)
{
    const char *image = json_get_string(settings, "image_root");

    out->roots[MEDIA_VIDEO].path = json_get_string(settings, "media_root");
    out->roots[MEDIA_VIDEO].is_tar = json_bool(json_get(settings, "media_is_tar"), false);
    out->roots[MEDIA_IMAGE] = out->roots[MEDIA_VIDEO];
    if (image) { /* datasets from before had one place for all */
        out->roots[MEDIA_IMAGE].path = image;
        out->roots[MEDIA_IMAGE].is_tar =
            json_bool(json_get(settings, "image_is_tar"), false);
    }
}

/* Datasets from before name no processor: it was CLIP's, but that a "square" was resized
 * whatever its aspect, as SigLIP's does. */
static int read_processor(struct dataset_info *info, const struct json *settings)
{
    if (json_type(json_get(settings, "processor")) != JSON_NULL)
        return manifest_processor_find(&info->processor,
                                       json_get_string(settings, "processor"))
                   ? 0
                   : -1;
    info->processor = info->aspect == MEDIA_ASPECT_SQUARE ? MEDIA_PROCESSOR_SIGLIP
                                                          : MEDIA_PROCESSOR_CLIP;
    return 0;
}

static int read_settings(struct manifest *out, struct err *err)
{
    const struct json *settings = json_get(out->tree, "settings");
    struct dataset_info *info = &out->info;

    info->conv_template = json_get_string(settings, "conv_template");
    info->tokenizer = json_get_string(settings, "tokenizer");
    info->use_im_start_end = json_bool(json_get(settings, "use_im_start_end"), false);
    info->media_first = json_bool(json_get(settings, "media_first"), false);
    info->prompts_only = json_bool(json_get(settings, "prompts_only"), false);
    info->has_frames = json_bool(json_get(settings, "store_frames"), false);
    info->num_frames = json_get_int(settings, "num_frames", 0);
    info->image_size = json_get_int(settings, "image_size", 0);
    info->patch = json_get_int(settings, "patch", 0);
    info->frame_tokens = json_get_int(settings, "frame_tokens", 0);
    if (!json_get(settings, "frame_tokens") && info->patch > 0) /* an older dataset */
        info->frame_tokens =
            (info->image_size / info->patch) * (info->image_size / info->patch);
    info->vocab = json_get_int(settings, "vocab", 0);
    info->end_token = json_get_int(settings, "end_token", -2);
    read_roots(out, settings);
    if (!manifest_aspect_find(&info->aspect, json_get_string(settings, "aspect")) ||
        !manifest_splice_find(&info->splice, json_get_string(settings, "splice")) ||
        !info->conv_template || !info->tokenizer || !out->roots[MEDIA_VIDEO].path ||
        info->num_frames == 0 || info->image_size < 1 || info->patch < 1 ||
        info->frame_tokens < 1 || info->vocab < 1 || info->end_token < -1)
        return err_set(err, ERR_FORMAT, "its settings are not complete");
    if (read_processor(info, settings) < 0)
        return err_set(err, ERR_FORMAT, "its processor is neither clip nor siglip");
    return read_extra_tokens(out, settings, err);
}

static int read_shard(struct manifest_shard *out, const struct json *json, int64_t first,
                      struct err *err)
{
    const char *file = json_get_string(json, "file");

    if (!file || strchr(file, '/'))
        return err_set(err, ERR_FORMAT, "a shard has no plain file name");
    out->file = strdup(file);
    if (!out->file)
        return err_set(err, ERR_NOMEM, "cannot allocate a shard's name");
    out->first_sample = json_get_int(json, "first_sample", -1);
    out->n_samples = json_get_int(json, "n_samples", -1);
    out->n_bytes = json_get_int(json, "n_bytes", -1);
    if (out->first_sample != first || out->n_samples < 0 || out->n_bytes < 0 ||
        read_hash(&out->hash, json, "hash", err) < 0)
        return err_set(err, ERR_FORMAT, "the entry of shard '%s' does not fit", file);
    return 0;
}

static int read_shards(struct manifest *out, struct err *err)
{
    const struct json *list = json_get(out->tree, "shards");
    int64_t n_samples = 0;

    out->n_shards = (int64_t)json_count(list);
    out->shards = calloc((size_t)out->n_shards + 1, sizeof(*out->shards));
    if (!out->shards)
        return err_set(err, ERR_NOMEM, "cannot allocate the list of shards");
    for (int64_t i = 0; i < out->n_shards; i++) {
        if (read_shard(&out->shards[i], json_at(list, (size_t)i), n_samples, err) < 0)
            return -1;
        n_samples += out->shards[i].n_samples;
    }
    if (n_samples != out->info.n_samples)
        return err_set(err, ERR_FORMAT, "its shards hold %lld samples, not %lld",
                       (long long)n_samples, (long long)out->info.n_samples);
    return 0;
}

static int read_tree(struct manifest *out, const char *path, struct err *err)
{
    struct buf text = BUF_INIT;
    int rc = fs_read_file(&text, path, MANIFEST_MAX_BYTES, err);

    if (rc == 0)
        rc = json_parse(&out->tree, buf_str(&text), text.n_bytes, err);
    buf_fini(&text);
    if (rc == 0 && json_get_int(out->tree, "version", 0) != MANIFEST_VERSION)
        rc = err_set(err, ERR_UNSUPPORTED,
                     "it is of version %lld, this program reads version %d; prepare the "
                     "dataset again",
                     (long long)json_get_int(out->tree, "version", 0), MANIFEST_VERSION);
    return rc;
}

int manifest_load(struct manifest *out, const char *folder, struct err *err)
{
    char path[FS_PATH_MAX];

    *out = (struct manifest){0};
    if (fs_path(path, err, "%s/%s", folder, MANIFEST_FILE) < 0)
        return -1;
    if (!fs_exists(path))
        return err_set(err, ERR_NOT_FOUND,
                       "'%s' is no prepared dataset: it has no %s (not prepared yet, or "
                       "not to its end)",
                       folder, MANIFEST_FILE);
    if (read_tree(out, path, err) < 0)
        goto failed;
    out->info.n_samples = json_get_int(out->tree, "n_samples", -1);
    out->info.n_rejects = json_get_int(out->tree, "n_rejects", -1);
    out->info.longest_tokens = json_get_int(out->tree, "longest_tokens", -1);
    if (out->info.n_samples < 0 || out->info.n_rejects < 0 ||
        out->info.longest_tokens < 0) {
        err_set(err, ERR_FORMAT, "its counts are not complete");
        goto failed;
    }
    if (read_hash(&out->info.fingerprint, out->tree, "fingerprint", err) < 0 ||
        read_settings(out, err) < 0 || read_shards(out, err) < 0)
        goto failed;
    return 0;
failed:
    manifest_fini(out);
    return err_wrap(err, "'%s'", path);
}

void manifest_fini(struct manifest *manifest)
{
    for (int64_t i = 0; manifest->shards && i < manifest->n_shards; i++)
        free(manifest->shards[i].file);
    free(manifest->shards);
    free(manifest->extra_tokens);
    json_free(manifest->tree);
    *manifest = (struct manifest){0};
}
