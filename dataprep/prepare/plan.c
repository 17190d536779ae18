/* realpath is an XSI function */
#define _XOPEN_SOURCE 700

#include "dataprep/prepare/prepare.h"

#include "common/base/hash.h"
#include "dataprep/annotations/annotations.h"
#include "dataprep/annotations/record.h"
#include "dataprep/annotations/tar.h"
#include "dataprep/dataset/plan.h"
#include "dataprep/prepare/settings.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* While planning: what goes into the plan, and the hash over all of it. */
struct planner {
    struct plan_writer *writer;
    int64_t file;
    int root; /* of the tar's members: its index */
    int64_t n_records;
    uint64_t hash;
    const char *tokenizer; /* name of its copy */
};

static void add_hash(struct planner *planner, const void *bytes, size_t n_bytes)
{
    planner->hash = hash64(bytes, n_bytes, planner->hash);
}

static int add_record(void *state, const struct annotation *annotation, struct err *err)
{
    struct planner *planner = state;
    struct plan_record record = {
        .file = planner->file,
        .line = annotation->line,
        .column = annotation->column,
        .offset = annotation->offset,
        .n_bytes = annotation->n_bytes,
        .hash = hash64(annotation->text, (size_t)annotation->n_bytes, 0)};
    struct json *tree = NULL;
    struct buf id = BUF_INIT;
    int rc = -1;

    /* What does not parse has no id; its range rejects it with the reason. */
    if (json_parse(&tree, annotation->text, (size_t)annotation->n_bytes, NULL) == 0)
        rc = record_id(&id, tree);
    planner->n_records++;
    add_hash(planner, &record.hash, sizeof(record.hash));
    rc = plan_writer_add(planner->writer, &record, rc == 0 ? buf_str(&id) : NULL, err);
    buf_fini(&id);
    json_free(tree);
    return rc;
}

static int add_member(void *state, const char *name, uint64_t offset, uint64_t n_bytes,
                      struct err *err)
{
    struct planner *planner = state;

    add_hash(planner, &planner->root, sizeof(planner->root));
    add_hash(planner, name, strlen(name));
    add_hash(planner, &offset, sizeof(offset));
    add_hash(planner, &n_bytes, sizeof(n_bytes));
    return plan_writer_add_member(planner->writer, planner->root, name, offset, n_bytes,
                                  err);
}

/* Whether any annotation file of the dataset that is there is one of these. */
static bool is_of_same_files(const struct prepare_config *config,
                             const struct json *manifest)
{
    const struct json *old = json_get(json_get(manifest, "settings"), "data_paths");

    for (size_t i = 0; i < json_count(old); i++)
        for (int j = 0; j < config->n_data_paths; j++)
            if (json_string(json_at(old, i)) &&
                strcmp(json_string(json_at(old, i)), config->data_paths[j]) == 0)
                return true;
    return json_count(old) == 0;
}

/* Prepared again, with other settings or records, is what people do; a dataset of other
 * files is another one, whose name was given by mistake. */
static int check_same_files(const struct prepare_config *config,
                            const struct json *manifest, struct err *err)
{
    const struct json *old = json_get(json_get(manifest, "settings"), "data_paths");

    if (is_of_same_files(config, manifest))
        return 0;
    return err_set(err, ERR_EXISTS,
                   "'%s' holds a dataset of %lld samples of other annotations (%s): "
                   "choose another folder as model.data.output, or remove this one",
                   config->output, (long long)json_get_int(manifest, "n_samples", 0),
                   json_string(json_at(old, 0)) ? json_string(json_at(old, 0)) : "?");
}

/* Whether the manifest that stands there is ours to remove. */
static int check_manifest(const struct prepare_config *config, const char *path,
                          struct err *err)
{
    struct buf text = BUF_INIT;
    struct json *tree = NULL;
    const char *format = NULL;
    int rc = 0;

    if (!fs_exists(path))
        return 0;
    if (fs_read_file(&text, path, MANIFEST_MAX_BYTES, NULL) == 0 &&
        json_parse(&tree, buf_str(&text), text.n_bytes, NULL) == 0)
        format = json_get_string(tree, "format");
    if (!format || strcmp(format, MANIFEST_FORMAT) != 0)
        rc = err_set(err, ERR_EXISTS,
                     "'%s' is there and no prepared dataset's: choose another folder "
                     "as model.data.output",
                     path);
    else
        rc = check_same_files(config, tree, err);
    json_free(tree);
    buf_fini(&text);
    return rc;
}

/* A manifest from before would name shards that are about to change. */
static int remove_manifest(const struct prepare_config *config, struct err *err)
{
    static const char *const files[] = {MANIFEST_FILE, MANIFEST_REJECTS};
    char path[FS_PATH_MAX];

    for (int i = 0; i < 2; i++) {
        if (settings_path(path, config, files[i], err) < 0)
            return -1;
        if (unlink(path) < 0 && errno != ENOENT)
            return err_set(err, ERR_IO, "cannot remove '%s': %s", path, strerror(errno));
    }
    return fs_sync_dir(config->output, err);
}

/* Starts the hash with the settings: shards made under others do not fit this plan. */
static int hash_settings(struct planner *planner, const struct prepare_config *config,
                         const struct media_roots *roots, uint64_t of_tokenizer,
                         struct err *err)
{
    struct settings_encoder encoder;
    struct json *tree;
    struct buf text = BUF_INIT;

    if (settings_open_encoder(&encoder, config, config->tokenizer, err) < 0)
        return -1;
    planner->tokenizer = encoder.name;
    tree = settings_tree(config, roots, &encoder, err);
    settings_close_encoder(&encoder);
    if (!tree)
        return -1;
    json_write(&text, tree, 0);
    json_free(tree);
    planner->hash = hash64(buf_str(&text), text.n_bytes, of_tokenizer);
    buf_fini(&text);
    return 0;
}

static int scan_tars(struct planner *planner, const struct media_roots *roots,
                     struct err *err)
{
    int n_roots = roots->are_same ? 1 : 2;

    for (planner->root = 0; planner->root < n_roots; planner->root++) {
        const struct media_root *root = &roots->of[planner->root];

        if (root->is_tar && tar_scan(root->path, add_member, planner, err) < 0)
            return -1;
    }
    return 0;
}

/* Everything that input can be wrong in; the folder keeps what it holds. */
static int scan_all(struct planner *planner, const struct prepare_config *config,
                    const struct media_roots *roots, struct err *err)
{
    char path[FS_PATH_MAX];

    if (settings_path(path, config, MANIFEST_FILE, err) < 0 ||
        check_manifest(config, path, err) < 0 ||
        settings_path(path, config, PLAN_FILE, err) < 0 ||
        plan_writer_create(&planner->writer, path, err) < 0)
        return -1;
    for (int i = 0; i < config->n_data_paths; i++) {
        planner->file = i;
        if (annotations_scan(config->data_paths[i], add_record, planner, err) < 0)
            return -1;
    }
    if (planner->n_records == 0)
        return err_set(err, ERR_INVALID, "no records in the annotation files");
    return scan_tars(planner, roots, err);
}

/* Is a tokenizer's file or folder this folder, or in it? */
static bool is_same(const char *tokenizer, const char *folder)
{
    char *of_tokenizer = realpath(tokenizer, NULL), *of_folder = realpath(folder, NULL);
    size_t n = of_folder ? strlen(of_folder) : 0;
    bool is_same = of_tokenizer && of_folder &&
                   strncmp(of_tokenizer, of_folder, n) == 0 &&
                   (of_tokenizer[n] == '\0' || of_tokenizer[n] == '/');

    free(of_tokenizer);
    free(of_folder);
    return is_same;
}

static int write_file(void *state, const char *name, const struct buf *bytes,
                      struct err *err)
{
    char path[FS_PATH_MAX];

    if (fs_path(path, err, "%s/%s", (const char *)state, name) < 0)
        return -1;
    return fs_write_file_atomic(path, bytes->data, bytes->n_bytes, err);
}

/* What an earlier tokenizer left there would be read with the new one. */
static int clear_tokenizer(const char *folder, const char *model, struct err *err)
{
    static const char *const names[] = {"tokenizer.json", "tokenizer_config.json",
                                        "special_tokens_map.json", "added_tokens.json"};
    char path[FS_PATH_MAX];

    if (unlink(model) < 0 && errno != ENOENT)
        return err_set(err, ERR_IO, "cannot remove '%s': %s", model, strerror(errno));
    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
        if (fs_path(path, err, "%s/%s", folder, names[i]) < 0)
            return -1;
        if (unlink(path) < 0 && errno != ENOENT)
            return err_set(err, ERR_IO, "cannot remove '%s': %s", path, strerror(errno));
    }
    return 0;
}

/* A .model by itself goes into the dataset as it is, other tokenizers into a folder. */
static int copy_tokenizer(const struct prepare_config *config, const char *name,
                          struct err *err)
{
    char folder[FS_PATH_MAX], model[FS_PATH_MAX];

    if (settings_path(folder, config, MANIFEST_TOKENIZER_FOLDER, err) < 0 ||
        settings_path(model, config, MANIFEST_TOKENIZER, err) < 0)
        return -1;
    if (strcmp(name, MANIFEST_TOKENIZER) == 0)
        return tokenizer_each_file(config->tokenizer, (void *)config->output, write_file,
                                   err);
    if (is_same(config->tokenizer, folder))
        return 0; /* prepared again with its own copy */
    if (clear_tokenizer(folder, model, err) < 0 || fs_make_dirs(folder, 0777, err) < 0)
        return -1;
    return tokenizer_each_file(config->tokenizer, folder, write_file, err);
}

/* From here on the dataset that was in the folder is no more. */
static int replace(struct planner *planner, const struct prepare_config *config,
                   int64_t *n_samples, struct err *err)
{
    if (remove_manifest(config, err) < 0 ||
        copy_tokenizer(config, planner->tokenizer, err) < 0)
        return -1;
    return plan_writer_commit(planner->writer, planner->hash, n_samples, err);
}

int prepare_plan(const struct prepare_config *config, int64_t *n_samples, struct err *err)
{
    struct planner planner = {0};
    struct media_roots roots;
    uint64_t of_tokenizer;
    int rc = -1;

    if (settings_check(config, err) == 0 &&
        settings_find_roots(&roots, config, err) == 0 &&
        fs_make_dirs(config->output, 0777, err) == 0 &&
        tokenizer_hash(&of_tokenizer, config->tokenizer, err) == 0 &&
        hash_settings(&planner, config, &roots, of_tokenizer, err) == 0 &&
        scan_all(&planner, config, &roots, err) == 0)
        rc = replace(&planner, config, n_samples, err);
    plan_writer_destroy(planner.writer);
    return rc < 0 ? err_wrap(err, "cannot plan dataset '%s'",
                             config->output ? config->output : "")
                  : 0;
}
