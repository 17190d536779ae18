/* realpath is an XSI function */
#define _XOPEN_SOURCE 700

#include "dataprep/prepare/settings.h"

#include "common/base/hash.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int settings_check(const struct prepare_config *config, struct err *err)
{
    if (!config->n_data_paths)
        return err_set(err, ERR_INVALID, "no annotation files: set model.data.data_path");
    if (!config->output || !*config->output)
        return err_set(err, ERR_INVALID, "no output folder: set model.data.output");
    if (!config->tokenizer || !*config->tokenizer)
        return err_set(err, ERR_INVALID, "no tokenizer: set model.tokenizer.model");
    if (!config->conv_template || !conv_template_find(config->conv_template))
        return err_set(
            err, ERR_INVALID, "unknown conversation template '%s'; known are: %s",
            config->conv_template ? config->conv_template : "", conv_template_names());
    if (config->num_frames < 1 && config->num_frames != -1)
        return err_set(err, ERR_INVALID, "num_frames is %lld, not positive or -1 (all)",
                       (long long)config->num_frames);
    if (config->patch < 1 || config->image_size < config->patch ||
        config->image_size > 16384 || config->frame_tokens < 1)
        return err_set(err, ERR_INVALID,
                       "an image of %lld pixels a side has no patches of %lld that make "
                       "%lld tokens",
                       (long long)config->image_size, (long long)config->patch,
                       (long long)config->frame_tokens);
    if (config->max_tokens < 1 || config->shard_size < 1)
        return err_set(err, ERR_INVALID, "max_tokens and shard_size must be positive");
    if (!(config->max_reject_fraction >= 0 && config->max_reject_fraction <= 1))
        return err_set(err, ERR_INVALID, "max_reject_fraction must be between 0 and 1");
    if (config->media_first && strcmp(config->conv_template, "interleaved") == 0)
        return err_set(err, ERR_INVALID,
                       "sep_image_conv_front moves media out of a question, and template "
                       "interleaved has none");
    return media_check_processor(config->processor, config->aspect, err);
}

static int find_root(struct media_root *out, const char *given, struct err *err)
{
    char *path;
    size_t n;

    *out = (struct media_root){.path = ""};
    if (!given || !*given)
        return 0;
    path = realpath(given, NULL);
    if (!path)
        return err_set(err, errno == ENOENT ? ERR_NOT_FOUND : ERR_IO,
                       "media root '%s': %s", given, strerror(errno));
    n = strlen(path);
    out->is_tar = !fs_is_dir(path);
    if (out->is_tar && (n < 4 || strcmp(path + n - 4, ".tar") != 0)) {
        free(path);
        return err_set(err, ERR_INVALID, "media root '%s' is neither a folder nor a .tar",
                       given);
    }
    if (n >= MEDIA_PATH_MAX) {
        free(path);
        return err_set(err, ERR_LIMIT, "the path of media root '%s' is too long", given);
    }
    memcpy(out->path, path, n + 1);
    free(path);
    return 0;
}

static const char *first_given(const char *a, const char *b)
{
    return a && *a ? a : b;
}

int settings_find_roots(struct media_roots *out, const struct prepare_config *config,
                        struct err *err)
{
    const char *video = config->video_root, *image = config->image_root;

    if (find_root(&out->of[MEDIA_VIDEO], first_given(video, image), err) < 0 ||
        find_root(&out->of[MEDIA_IMAGE], first_given(image, video), err) < 0)
        return -1;
    out->are_same = strcmp(out->of[MEDIA_VIDEO].path, out->of[MEDIA_IMAGE].path) == 0;
    return 0;
}

int settings_root_index(const struct media_roots *roots, enum media_kind kind)
{
    return roots->are_same ? 0 : (int)kind;
}

/* Is it a .model that was named itself? It is copied as such, as in datasets of old. */
static bool is_model(const char *path)
{
    size_t n = strlen(path), n_end = strlen(".json");

    return !fs_is_dir(path) && !(n >= n_end && strcmp(path + n - n_end, ".json") == 0);
}

int settings_open_encoder(struct settings_encoder *out,
                          const struct prepare_config *config, const char *path,
                          struct err *err)
{
    *out = (struct settings_encoder){0};
    if (tokenizer_open(&out->tokenizer, path, config->extra_tokens,
                       config->n_extra_tokens, err) < 0)
        return -1;
    if (conv_encoder_init(&out->encoder, conv_template_find(config->conv_template),
                          out->tokenizer, config->use_im_start_end, err) < 0) {
        settings_close_encoder(out);
        return err_wrap(err, "tokenizer '%s'", path);
    }
    out->name = is_model(path) ? MANIFEST_TOKENIZER : MANIFEST_TOKENIZER_FOLDER;
    return 0;
}

void settings_close_encoder(struct settings_encoder *encoder)
{
    tokenizer_close(encoder->tokenizer);
    encoder->tokenizer = NULL;
}

static struct json *string_list(const char *const *items, int n)
{
    struct json *list = json_new(JSON_ARRAY);

    for (int i = 0; i < n; i++)
        if (json_append(list, json_new_string(items[i]), NULL) < 0) {
            json_free(list);
            return NULL;
        }
    return list;
}

struct json *settings_tree(const struct prepare_config *config,
                           const struct media_roots *roots,
                           const struct settings_encoder *encoder, struct err *err)
{
    const struct media_root *videos = &roots->of[MEDIA_VIDEO];
    const struct media_root *images = &roots->of[MEDIA_IMAGE];
    const struct {
        const char *key;
        struct json *value;
    } fields[] = {
        {"conv_template", json_new_string(config->conv_template)},
        {"use_im_start_end", json_new_bool(config->use_im_start_end)},
        {"media_first", json_new_bool(config->media_first)},
        {"tokenizer", json_new_string(encoder->name)},
        {"extra_tokens", string_list(config->extra_tokens, config->n_extra_tokens)},
        {"vocab", json_new_int(tokenizer_vocab(encoder->tokenizer))},
        {"end_token", json_new_int(encoder->encoder.stop)},
        {"num_frames", json_new_int(config->num_frames)},
        {"splice", json_new_string(manifest_splice_name(config->splice))},
        {"image_size", json_new_int(config->image_size)},
        {"patch", json_new_int(config->patch)},
        {"frame_tokens", json_new_int(config->frame_tokens)},
        {"aspect", json_new_string(manifest_aspect_name(config->aspect))},
        {"processor", json_new_string(manifest_processor_name(config->processor))},
        {"max_tokens", json_new_int(config->max_tokens)},
        {"store_frames", json_new_bool(config->store_frames)},
        {"prompts_only", json_new_bool(config->prompts_only)},
        /* from here on: where things stand, no part of the fingerprint */
        {"shard_size", json_new_int(config->shard_size)},
        {"media_root", json_new_string(videos->path)},
        {"media_is_tar", json_new_bool(videos->is_tar)},
        {"image_root", json_new_string(images->path)},
        {"image_is_tar", json_new_bool(images->is_tar)},
        {"data_paths", string_list(config->data_paths, config->n_data_paths)},
    };
    struct json *tree = json_new(JSON_OBJECT);
    int rc = 0;

    for (size_t i = 0; i < sizeof(fields) / sizeof(*fields); i++)
        if (json_set(tree, fields[i].key, fields[i].value, err) < 0)
            rc = -1; /* the others go into the tree, which frees them */
    if (rc == 0)
        return tree;
    json_free(tree);
    return NULL;
}

uint64_t settings_hash(const struct json *settings, uint64_t tokenizer_hash)
{
    struct buf text = BUF_INIT;
    uint64_t hash;

    for (size_t i = 0; i < json_count(settings); i++) {
        if (strcmp(json_key_at(settings, i), "shard_size") == 0)
            break;
        buf_printf(&text, "%s=", json_key_at(settings, i));
        json_write(&text, json_at(settings, i), 0);
    }
    hash = hash64(buf_str(&text), text.n_bytes, tokenizer_hash);
    buf_fini(&text);
    return hash;
}

int settings_tokenizer(char out[FS_PATH_MAX], const struct prepare_config *config,
                       struct err *err)
{
    if (settings_path(out, config, MANIFEST_TOKENIZER, err) < 0)
        return -1;
    return fs_exists(out) ? 0
                          : settings_path(out, config, MANIFEST_TOKENIZER_FOLDER, err);
}

int settings_path(char out[FS_PATH_MAX], const struct prepare_config *config,
                  const char *file, struct err *err)
{
    return fs_path(out, err, "%s/%s", config->output, file);
}

int settings_shard_name(char *out, size_t n, int64_t number)
{
    return snprintf(out, n, "shard-%05lld.sqlite", (long long)number);
}
