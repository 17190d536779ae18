#include "dataprep/prepare/prepare.h"

#include "common/base/fault.h"
#include "common/base/hash.h"
#include "dataprep/dataset/plan.h"
#include "dataprep/dataset/shard.h"
#include "dataprep/prepare/settings.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* What is summed up over the shards. */
struct total {
    const struct prepare_config *config;
    struct manifest_shard *shards;
    int64_t n_shards, n_records, n_samples, n_rejects, longest_tokens;
    uint64_t plan, digest;
    struct json *reasons; /* kind: count */
    FILE *rejects;        /* the list, under its temporary name */
};

static int list_reject(void *state, const struct shard_reject *reject, struct err *err)
{
    struct total *total = state;
    struct buf line = BUF_INIT;
    int64_t n = json_get_int(total->reasons, reject->kind, 0);
    int rc;

    buf_add_str(&line, "{\"file\": ");
    json_write_string(&line, reject->file, strlen(reject->file));
    buf_printf(&line, ", \"line\": %lld, \"id\": ", (long long)reject->line);
    json_write_string(&line, reject->id, strlen(reject->id));
    buf_add_str(&line, ", \"kind\": ");
    json_write_string(&line, reject->kind, strlen(reject->kind));
    buf_add_str(&line, ", \"reason\": ");
    json_write_string(&line, reject->reason, strlen(reject->reason));
    buf_add_str(&line, "}\n");
    rc = buf_check(&line, err);
    if (rc == 0 && fwrite(line.data, line.n_bytes, 1, total->rejects) != 1)
        rc = err_set(err, ERR_IO, "cannot write the reject list: %s", strerror(errno));
    buf_fini(&line);
    return rc < 0 ? -1 : json_set(total->reasons, reject->kind, json_new_int(n + 1), err);
}

static int check_shard(const struct total *total, const struct shard_meta *meta,
                       int64_t number, struct err *err)
{
    int64_t size = total->config->shard_size, first = number * size;
    int64_t left = total->n_records - first;

    if (meta->plan != total->plan || meta->first_record != first ||
        meta->n_records != (left < size ? left : size) ||
        meta->n_samples + meta->n_rejects != meta->n_records)
        return err_set(err, ERR_STATE,
                       "it was made with other settings or annotations; submit again");
    return 0;
}

static int add_shard(struct total *total, int64_t number, struct err *err)
{
    struct manifest_shard *entry = &total->shards[number];
    char name[40], path[FS_PATH_MAX];
    struct shard *shard = NULL;
    struct stat st;
    int rc = -1;

    settings_shard_name(name, sizeof(name), number);
    if (settings_path(path, total->config, name, err) < 0 ||
        shard_open(&shard, path, err) < 0)
        return -1;
    if (check_shard(total, shard_meta(shard), number, err) < 0) {
        err_wrap(err, "shard '%s'", path);
        goto out;
    }
    if (shard_each_reject(shard, list_reject, total, err) < 0 ||
        manifest_hash_file(&entry->hash, path, err) < 0)
        goto out;
    entry->file = strdup(name);
    if (!entry->file || stat(path, &st) < 0) {
        err_set(err, ERR_IO, "cannot look at '%s': %s", path, strerror(errno));
        goto out;
    }
    entry->first_sample = total->n_samples;
    entry->n_samples = shard_meta(shard)->n_samples;
    entry->n_bytes = st.st_size;
    total->n_samples += shard_meta(shard)->n_samples;
    total->n_rejects += shard_meta(shard)->n_rejects;
    if (shard_meta(shard)->longest_tokens > total->longest_tokens)
        total->longest_tokens = shard_meta(shard)->longest_tokens;
    total->digest = hash64(&shard_meta(shard)->digest, sizeof(uint64_t), total->digest);
    rc = 0;
out:
    shard_close(shard);
    return rc;
}

/* Reads every shard; the reject list is complete and in its place when this returns. */
static int add_shards(struct total *total, struct err *err)
{
    char path[FS_PATH_MAX], temporary[FS_PATH_MAX];
    int rc = 0;

    if (settings_path(path, total->config, MANIFEST_REJECTS, err) < 0 ||
        fs_path(temporary, err, "%s.tmp-%ld", path, (long)getpid()) < 0)
        return -1;
    total->rejects = fopen(temporary, "we");
    if (!total->rejects)
        return err_set(err, ERR_IO, "cannot create '%s': %s", temporary, strerror(errno));
    for (int64_t i = 0; i < total->n_shards && rc == 0; i++)
        rc = add_shard(total, i, err);
    if (rc == 0 && (fflush(total->rejects) || fsync(fileno(total->rejects)) < 0))
        rc = err_set(err, ERR_IO, "cannot write '%s': %s", temporary, strerror(errno));
    fclose(total->rejects);
    if (rc == 0 && rename(temporary, path) < 0)
        rc = err_set(err, ERR_IO, "cannot rename '%s': %s", temporary, strerror(errno));
    if (rc < 0)
        unlink(temporary);
    return rc;
}

/* Whether a file is ours and no longer needed: a shard past the last, or what a killed
 * process was writing. Other files of the folder are somebody else's. */
static bool is_leftover(const char *name, int64_t n_shards)
{
    const char *temporary = strstr(name, ".sqlite.tmp-");
    bool is_shard = strncmp(name, "shard-", 6) == 0;
    char own[40];
    int64_t number;

    if (temporary)
        return is_shard || strncmp(name, PLAN_FILE ".tmp-", strlen(PLAN_FILE) + 5) == 0;
    if (!is_shard)
        return false;
    number = strtoll(name + 6, NULL, 10);
    settings_shard_name(own, sizeof(own), number);
    return number >= n_shards && strcmp(name, own) == 0;
}

/* Shards of an earlier, larger dataset and what killed processes left behind. */
static int remove_leftovers(const struct total *total, struct err *err)
{
    const char *folder = total->config->output;
    DIR *dir = opendir(folder);
    const struct dirent *entry;

    if (!dir)
        return err_set(err, ERR_IO, "cannot list '%s': %s", folder, strerror(errno));
    while ((entry = readdir(dir))) {
        char path[FS_PATH_MAX];

        if (!is_leftover(entry->d_name, total->n_shards) ||
            fs_path(path, NULL, "%s/%s", folder, entry->d_name) < 0)
            continue;
        unlink(path); /* what stays does no harm: the manifest does not name it */
    }
    closedir(dir);
    return 0;
}

#define REASONS_NAMED 3

/* The commonest reasons: "8 media-missing, 4 bad-json". */
static void list_reasons(struct buf *out, const struct json *reasons)
{
    bool is_named[64] = {false}; /* far more than there are kinds */

    for (int n = 0; n < REASONS_NAMED; n++) {
        size_t best = 0;
        int64_t count = 0;

        for (size_t i = 0; i < json_count(reasons) && i < 64; i++) {
            if (is_named[i] || json_int(json_at(reasons, i), 0) <= count)
                continue;
            best = i;
            count = json_int(json_at(reasons, i), 0);
        }
        if (!count)
            return;
        is_named[best] = true;
        buf_printf(out, "%s%lld %s", n ? ", " : "", (long long)count,
                   json_key_at(reasons, best));
    }
}

static int check_rejects(const struct total *total, struct err *err)
{
    /* 0.29 of 100 is 29, though in binary it is a little less */
    int64_t allowed =
        (int64_t)(total->config->max_reject_fraction * (double)total->n_records + 1e-6);
    struct buf reasons = BUF_INIT;

    if (total->n_rejects <= allowed && total->n_samples)
        return 0;
    list_reasons(&reasons, total->reasons);
    if (total->n_rejects <= allowed)
        err_set(err, ERR_FORMAT,
                "no sample is left: all %lld records were rejected (%s); 'vneva data "
                "rejects %s' lists them",
                (long long)total->n_rejects, buf_str(&reasons), total->config->output);
    else
        err_set(err, ERR_FORMAT,
                "%lld of %lld records were rejected (%s), max_reject_fraction %g allows "
                "%lld; 'vneva data rejects %s' lists them; mend or remove them, or raise "
                "model.data.max_reject_fraction",
                (long long)total->n_rejects, (long long)total->n_records,
                buf_str(&reasons), total->config->max_reject_fraction, (long long)allowed,
                total->config->output);
    buf_fini(&reasons);
    return -1;
}

static struct json *make_settings(const struct total *total, uint64_t *fingerprint,
                                  struct err *err)
{
    struct settings_encoder encoder;
    struct media_roots roots;
    struct json *settings = NULL;
    char path[FS_PATH_MAX];
    uint64_t of_tokenizer;

    if (settings_find_roots(&roots, total->config, err) < 0 ||
        settings_tokenizer(path, total->config, err) < 0 ||
        tokenizer_hash(&of_tokenizer, path, err) < 0 ||
        settings_open_encoder(&encoder, total->config, path, err) < 0)
        return NULL;
    settings = settings_tree(total->config, &roots, &encoder, err);
    settings_close_encoder(&encoder);
    if (settings)
        *fingerprint = settings_hash(settings, of_tokenizer ^ total->digest);
    return settings;
}

static struct json *make_manifest(const struct total *total, struct err *err)
{
    struct json *tree = json_new(JSON_OBJECT);
    uint64_t fingerprint = 0;
    struct json *settings = make_settings(total, &fingerprint, err);
    char hex[20];

    snprintf(hex, sizeof(hex), "%016" PRIx64, fingerprint);
    if (settings &&
        json_set(tree, "format", json_new_string(MANIFEST_FORMAT), err) == 0 &&
        json_set(tree, "version", json_new_int(MANIFEST_VERSION), err) == 0 &&
        json_set(tree, "n_samples", json_new_int(total->n_samples), err) == 0 &&
        json_set(tree, "n_rejects", json_new_int(total->n_rejects), err) == 0 &&
        json_set(tree, "longest_tokens", json_new_int(total->longest_tokens), err) == 0 &&
        json_set(tree, "fingerprint", json_new_string(hex), err) == 0 &&
        json_set(tree, "settings", json_clone(settings), err) == 0 &&
        manifest_add_shards(tree, total->shards, total->n_shards, err) == 0) {
        json_free(settings);
        return tree;
    }
    json_free(settings);
    json_free(tree);
    return NULL;
}

static int write_manifest(const struct total *total, struct err *err)
{
    struct json *tree = make_manifest(total, err);
    struct buf text = BUF_INIT;
    char path[FS_PATH_MAX];
    int rc = tree ? settings_path(path, total->config, MANIFEST_FILE, err) : -1;

    if (rc == 0) {
        json_write(&text, tree, 1);
        buf_add_char(&text, '\n');
        rc = buf_check(&text, err);
    }
    if (rc == 0 && fault_hit("prepare.manifest"))
        rc = err_set(err, ERR_IO, "fault point prepare.manifest");
    if (rc == 0)
        rc = fs_write_file_atomic(path, text.data, text.n_bytes, err);
    buf_fini(&text);
    json_free(tree);
    return rc;
}

static int read_plan(struct total *total, struct err *err)
{
    int64_t size = total->config->shard_size;
    struct plan *plan;
    char path[FS_PATH_MAX];

    if (settings_check(total->config, err) < 0 ||
        settings_path(path, total->config, PLAN_FILE, err) < 0 ||
        plan_open(&plan, path, err) < 0)
        return -1;
    total->plan = plan_hash(plan);
    total->n_records = plan_n_records(plan);
    plan_close(plan);
    total->n_shards = (total->n_records + size - 1) / size;
    total->shards = calloc((size_t)total->n_shards + 1, sizeof(*total->shards));
    total->reasons = json_new(JSON_OBJECT);
    if (!total->shards || !total->reasons)
        return err_set(err, ERR_NOMEM, "cannot allocate the list of shards");
    return 0;
}

static int make_summary(struct json **out, struct total *total, struct err *err)
{
    struct json *summary = json_new(JSON_OBJECT), *reasons = total->reasons;

    total->reasons = NULL; /* moves into the summary, also when that fails */
    if (json_set(summary, "samples", json_new_int(total->n_samples), err) < 0 ||
        json_set(summary, "rejects", json_new_int(total->n_rejects), err) < 0) {
        json_free(reasons);
        json_free(summary);
        return -1;
    }
    if (json_set(summary, "reasons", reasons, err) < 0) {
        json_free(summary);
        return -1;
    }
    *out = summary;
    return 0;
}

int prepare_finish(const struct prepare_config *config, struct json **summary,
                   struct err *err)
{
    struct total total = {.config = config};
    int rc = -1;

    *summary = NULL;
    if (read_plan(&total, err) < 0 || add_shards(&total, err) < 0 ||
        remove_leftovers(&total, err) < 0 || check_rejects(&total, err) < 0 ||
        write_manifest(&total, err) < 0 || make_summary(summary, &total, err) < 0)
        goto out;
    rc = 0;
out:
    for (int64_t i = 0; total.shards && i < total.n_shards; i++)
        free(total.shards[i].file);
    free(total.shards);
    json_free(total.reasons);
    if (rc < 0)
        err_wrap(err, "cannot finish dataset '%s'", config->output);
    return rc;
}
