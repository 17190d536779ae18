#include "dataprep/vneva_data.h"

#include "common/base/fs.h"
#include "common/base/json.h"
#include "dataprep/dataset/dataset.h"
#include "dataprep/dataset/manifest.h"
#include "dataprep/text/tokenizer.h"

#include <stdio.h>
#include <string.h>

static const char help[] =
    "usage: vneva data show FOLDER [--sample N] [--verify] [--json]\n"
    "\n"
    "Shows what a prepared dataset holds and was made with, or one of its samples: its\n"
    "media, and its tokens as text, answers (what is learnt) between [[ and ]].\n"
    "\n"
    "  --sample N   sample N, counted from 0\n"
    "  --verify     read every shard and compare checksums\n"
    "  --json       as one JSON object\n"
    "\n"
    "Exit status: 0 done, 2 wrong usage, no such dataset or a damaged one, 5 an error "
    "of\n"
    "the system.\n"
    "\n"
    "Example:\n"
    "  vneva data show datasets/train --sample 0\n";

struct options {
    const char *folder;
    int64_t sample; /* -1: the whole */
    bool as_json, verify;
};

static void print_json(const struct json *json)
{
    struct buf text = BUF_INIT;

    json_write(&text, json, 0);
    puts(buf_str(&text));
    buf_fini(&text);
}

/* ---- the whole ---- */

static int verify(const struct manifest *manifest, const char *folder, struct err *err)
{
    for (int64_t i = 0; i < manifest->n_shards; i++) {
        const struct manifest_shard *shard = &manifest->shards[i];
        char path[FS_PATH_MAX];
        uint64_t hash;

        if (fs_path(path, err, "%s/%s", folder, shard->file) < 0 ||
            manifest_hash_file(&hash, path, err) < 0)
            return -1;
        if (hash != shard->hash)
            return err_set(err, ERR_FORMAT,
                           "shard '%s' is damaged: its checksum does not fit; prepare "
                           "the dataset again",
                           path);
    }
    return 0;
}

static void print_manifest(const struct manifest *manifest)
{
    const struct json *settings = json_get(manifest->tree, "settings");

    printf("samples          %lld in %lld shards\n", (long long)manifest->info.n_samples,
           (long long)manifest->n_shards);
    printf("rejects          %lld\n", (long long)manifest->info.n_rejects);
    printf("longest          %lld tokens\n", (long long)manifest->info.longest_tokens);
    printf("fingerprint      %016llx\n", (unsigned long long)manifest->info.fingerprint);
    for (size_t i = 0; i < json_count(settings); i++) {
        struct buf value = BUF_INIT;

        json_write(&value, json_at(settings, i), 0);
        printf("%-16s %s\n", json_key_at(settings, i), buf_str(&value));
        buf_fini(&value);
    }
}

static int show_whole(const struct options *options, struct err *err)
{
    struct manifest manifest;
    int rc;

    if (manifest_load(&manifest, options->folder, err) < 0)
        return -1;
    rc = options->verify ? verify(&manifest, options->folder, err) : 0;
    if (rc == 0 && options->sample < 0 && options->as_json)
        print_json(manifest.tree);
    else if (rc == 0 && options->sample < 0)
        print_manifest(&manifest);
    manifest_fini(&manifest);
    return rc;
}

/* ---- one sample ---- */

static int add_media_json(struct json *out, const struct dataset_sample *sample,
                          struct err *err)
{
    struct json *list = json_new(JSON_ARRAY);

    for (int64_t i = 0; i < sample->n_media; i++) {
        const struct media_ref *ref = &sample->media[i].ref;
        struct json *media = json_new(JSON_OBJECT);
        const char *kind = ref->kind == MEDIA_IMAGE ? "image" : "video";

        if (json_set(media, "kind", json_new_string(kind), err) < 0 ||
            json_set(media, "path", json_new_string(ref->path), err) < 0 ||
            json_set(media, "offset", json_new_int((int64_t)ref->offset), err) < 0 ||
            json_set(media, "n_bytes", json_new_int((int64_t)ref->n_bytes), err) < 0 ||
            json_set(media, "start", json_new_double(ref->start_s), err) < 0 ||
            json_set(media, "end", json_new_double(ref->end_s), err) < 0 ||
            json_set(media, "n_frames", json_new_int(sample->media[i].n_frames), err) <
                0) {
            json_free(media);
            json_free(list);
            return -1;
        }
        if (json_append(list, media, err) < 0) {
            json_free(list);
            return -1;
        }
    }
    return json_set(out, "media", list, err);
}

static int add_tokens_json(struct json *out, const struct dataset_sample *sample,
                           struct err *err)
{
    struct json *tokens = json_new(JSON_ARRAY), *is_label = json_new(JSON_ARRAY);
    int rc = 0;

    for (int64_t i = 0; i < sample->n_tokens && rc == 0; i++)
        if (json_append(tokens, json_new_int(sample->tokens[i]), err) < 0 ||
            json_append(is_label, json_new_int(sample->is_label[i]), err) < 0)
            rc = -1;
    if (rc < 0) {
        json_free(tokens);
        json_free(is_label);
        return -1;
    }
    rc = json_set(out, "tokens", tokens, err);
    return json_set(out, "is_label", is_label, err) < 0 ? -1 : rc;
}

static int print_sample_json(const struct dataset_sample *sample, const char *text,
                             struct err *err)
{
    struct json *out = json_new(JSON_OBJECT), *record = NULL;
    int rc = json_parse(&record, sample->record, strlen(sample->record), err);

    if (rc == 0 && (json_set(out, "number", json_new_int(sample->number), err) < 0 ||
                    json_set(out, "id", json_new_string(sample->id), err) < 0 ||
                    add_media_json(out, sample, err) < 0 ||
                    json_set(out, "n_prompt", json_new_int(sample->n_prompt), err) < 0 ||
                    json_set(out, "text", json_new_string(text), err) < 0 ||
                    add_tokens_json(out, sample, err) < 0 ||
                    json_set(out, "record", json_clone(record), err) < 0))
        rc = -1;
    if (rc == 0)
        print_json(out);
    json_free(record);
    json_free(out);
    return rc;
}

static void print_sample(const struct dataset_sample *sample, const char *text)
{
    printf("sample  %lld\nid      %s\n", (long long)sample->number, sample->id);
    for (int64_t i = 0; i < sample->n_media; i++) {
        const struct dataset_media *media = &sample->media[i];

        printf("media   %s, %lld frames", media->ref.path, (long long)media->n_frames);
        if (media->ref.n_bytes)
            printf(", at byte %llu", (unsigned long long)media->ref.offset);
        if (media->ref.end_s > 0 || media->ref.start_s > 0)
            printf(", from %g s to %g s", media->ref.start_s, media->ref.end_s);
        putchar('\n');
    }
    printf("tokens  %lld, of them %lld before the last answer\ntext    %s\n",
           (long long)sample->n_tokens, (long long)sample->n_prompt, text);
}

/* The tokens as text, run by run: media, answers, the rest. */
static int decode(struct buf *out, const struct tokenizer *tokenizer,
                  const struct dataset_sample *sample, struct err *err)
{
    int64_t item = 0;

    for (int64_t first = 0, end; first < sample->n_tokens; first = end) {
        bool is_label = sample->is_label[first];

        end = first + 1;
        if (sample->tokens[first] == DATASET_TOKEN_MEDIA) {
            buf_printf(out, "<media %lld>", (long long)item++);
            continue;
        }
        while (end < sample->n_tokens && sample->is_label[end] == is_label &&
               sample->tokens[end] != DATASET_TOKEN_MEDIA)
            end++;
        buf_add_str(out, is_label ? "[[" : "");
        if (tokenizer_decode(tokenizer, out, sample->tokens + first, end - first, err) <
            0)
            return -1;
        buf_add_str(out, is_label ? "]]" : "");
    }
    return buf_check(out, err);
}

static int show_sample(const struct options *options, struct err *err)
{
    struct dataset *dataset = NULL;
    struct dataset_sample *sample = NULL;
    struct tokenizer *tokenizer = NULL;
    const struct dataset_info *info;
    struct buf text = BUF_INIT;
    char path[FS_PATH_MAX];
    int rc = -1;

    if (dataset_open(&dataset, options->folder, err) < 0)
        return -1;
    info = dataset_info(dataset);
    if (dataset_read(dataset, options->sample, &sample, err) < 0 ||
        fs_path(path, err, "%s/%s", options->folder, info->tokenizer) < 0 ||
        tokenizer_open(&tokenizer, path, info->extra_tokens, info->n_extra_tokens, err) <
            0 ||
        decode(&text, tokenizer, sample, err) < 0)
        goto out;
    rc = 0;
    if (options->as_json)
        rc = print_sample_json(sample, buf_str(&text), err);
    else
        print_sample(sample, buf_str(&text));
out:
    buf_fini(&text);
    tokenizer_close(tokenizer);
    dataset_sample_free(sample);
    dataset_close(dataset);
    return rc;
}

static int run(const struct args *args, struct err *err)
{
    struct options options = {.folder = args->words[0],
                              .as_json = args_has(args, "json"),
                              .verify = args_has(args, "verify")};

    if (args_int(args, "sample", 0, INT64_MAX, -1, &options.sample, err) < 0 ||
        ((options.sample < 0 || options.verify) && show_whole(&options, err) < 0) ||
        (options.sample >= 0 && show_sample(&options, err) < 0))
        return -1;
    return DATA_DONE;
}

static const struct args_option known[] = {
    {.name = "sample", .value = "N"}, {.name = "verify"}, {.name = "json"}, {0}};

const struct program_command data_show = {
    "show", "vneva data show", help, known, "one FOLDER", 1, 1, run};
