#include "dataprep/text/token_folder.h"

#include "common/base/json_file.h"

#include <stdlib.h>
#include <string.h>

#define JSON_FILE "tokenizer.json"
#define MODEL_FILE "tokenizer.model"
#define CONFIG_FILE "tokenizer_config.json"
#define MAP_FILE "special_tokens_map.json"
#define ADDED_FILE "added_tokens.json"

/* ---- finding ---- */

static int find_in(struct token_folder *out, const char *path, struct err *err)
{
    if (fs_path(out->file, err, "%s/%s", path, JSON_FILE) < 0)
        return -1;
    out->is_json = fs_exists(out->file);
    if (out->is_json)
        return 0;
    if (fs_path(out->file, err, "%s/%s", path, MODEL_FILE) < 0)
        return -1;
    if (fs_exists(out->file))
        return 0;
    return err_set(err, ERR_NOT_FOUND,
                   "no tokenizer in folder '%s': it holds neither %s nor %s", path,
                   JSON_FILE, MODEL_FILE);
}

/* The tokenizer's file and the folder that it is in. */
static int find(struct token_folder *out, char folder[FS_PATH_MAX], const char *path,
                struct err *err)
{
    if (!fs_exists(path))
        return err_set(err, ERR_NOT_FOUND, "no tokenizer at '%s'%s", path,
                       *path == '/'
                           ? ""
                           : "; a name on a hub is not downloaded: give the path "
                             "of a folder with a tokenizer.json");
    if (fs_is_dir(path))
        return fs_path(folder, err, "%s", path) < 0 ? -1 : find_in(out, path, err);
    if (fs_path(out->file, err, "%s", path) < 0)
        return -1;
    out->is_json = fs_ends(path, ".json");
    out->is_alone = !out->is_json;
    return fs_parent(folder, path, err);
}

static int add_path(struct token_folder *out, const char *path, struct err *err)
{
    return fs_path(out->paths[out->n_paths++], err, "%s", path);
}

/* Reads folder/name if it is there. */
static int read_beside(struct token_folder *out, struct json **tree, const char *folder,
                       const char *name, struct err *err)
{
    char path[FS_PATH_MAX];

    if (fs_path(path, err, "%s/%s", folder, name) < 0 ||
        json_file_find(tree, folder, name, TOKEN_FILE_MAX_BYTES, err) < 0)
        return -1;
    if (!*tree)
        return 0;
    if (json_type(*tree) != JSON_OBJECT)
        return err_set(err, ERR_FORMAT, "'%s': it holds no object", path);
    return add_path(out, path, err);
}

int token_folder_open(struct token_folder *out, const char *path, struct err *err)
{
    char folder[FS_PATH_MAX];

    *out = (struct token_folder){0};
    if (find(out, folder, path, err) < 0 || add_path(out, out->file, err) < 0)
        return -1;
    if (out->is_alone)
        return 0;
    if (read_beside(out, &out->config, folder, CONFIG_FILE, err) == 0 &&
        read_beside(out, &out->map, folder, MAP_FILE, err) == 0 &&
        read_beside(out, &out->added, folder, ADDED_FILE, err) == 0) {
        out->is_alone = !out->is_json && out->n_paths == 1;
        return 0;
    }
    token_folder_fini(out);
    return -1;
}

void token_folder_fini(struct token_folder *folder)
{
    json_free(folder->config);
    json_free(folder->map);
    json_free(folder->added);
    folder->config = folder->map = folder->added = NULL;
}

/* ---- what they say ---- */

/* A newer tokenizer_config.json lists all added tokens and outdoes the other files. */
static const struct json *decoder_of(const struct token_folder *folder)
{
    const struct json *list = json_get(folder->config, "added_tokens_decoder");

    return json_type(list) == JSON_OBJECT ? list : NULL;
}

/* The entry of this name, or NULL. */
static const struct json *special(const struct token_folder *folder, const char *key)
{
    const struct json *of_config = json_get(folder->config, key);
    const struct json *of_map = json_get(folder->map, key);

    if (decoder_of(folder))
        return of_config ? of_config : of_map;
    return of_map ? of_map : of_config;
}

static const char *special_text(const struct json *entry)
{
    return json_type(entry) == JSON_OBJECT ? json_get_string(entry, "content")
                                           : json_string(entry);
}

int token_folder_special(const struct token_folder *folder, const char *key,
                         const char **out)
{
    const struct json *entry = special(folder, key);

    *out = special_text(entry);
    if (*out)
        return 1;
    return entry ? 0 : -1;
}

void token_flags_read(struct added_token *out, const struct json *json)
{
    out->is_special = json_bool(json_get(json, "special"), out->is_special);
    out->is_normalized = json_bool(json_get(json, "normalized"), out->is_normalized);
    out->lstrip = json_bool(json_get(json, "lstrip"), out->lstrip);
    out->rstrip = json_bool(json_get(json, "rstrip"), out->rstrip);
    out->single_word = json_bool(json_get(json, "single_word"), out->single_word);
}

struct numbered {
    int64_t id;
    struct added_token token;
    bool has_flags;
};

static int compare(const void *left, const void *right)
{
    const struct numbered *a = left, *b = right;

    return a->id < b->id ? -1 : a->id > b->id;
}

static int number_of(int64_t *out, const char *text, struct err *err)
{
    char *end;

    *out = strtoll(text, &end, 10);
    if (!*text || *end || *out < 0 || *out > INT32_MAX)
        return err_set(err, ERR_FORMAT, "'%.80s' is no number of a token", text);
    return 0;
}

/* {"32000": {"content": "<x>", ...}, ...} */
static int list_decoder(struct buf *out, const struct json *list, struct err *err)
{
    for (size_t i = 0; i < json_count(list); i++) {
        const struct json *entry = json_at(list, i);
        struct numbered one = {.has_flags = true};

        one.token.content = (char *)json_get_string(entry, "content");
        one.token.n_bytes = json_string_bytes(json_get(entry, "content"));
        if (!one.token.content)
            return err_set(err, ERR_FORMAT, "%s: token %.20s has no content", CONFIG_FILE,
                           json_key_at(list, i));
        if (number_of(&one.id, json_key_at(list, i), err) < 0)
            return err_wrap(err, CONFIG_FILE);
        token_flags_read(&one.token, entry);
        buf_add(out, &one, sizeof(one));
    }
    return buf_check(out, err);
}

static bool is_named(const struct token_folder *folder, const char *content);

/* {"<x>": 32000, ...}: special are those that have a name. */
static int list_added(struct buf *out, const struct token_folder *folder, struct err *err)
{
    const struct json *list = folder->added;

    for (size_t i = 0; i < json_count(list); i++) {
        struct numbered one = {.id = json_int(json_at(list, i), -1)};

        one.token.content = (char *)json_key_at(list, i);
        one.token.n_bytes = strlen(one.token.content);
        one.token.is_special = is_named(folder, one.token.content);
        one.token.is_normalized = !one.token.is_special;
        if (one.id < 0 || one.id > INT32_MAX)
            return err_set(err, ERR_FORMAT, "%s: token '%.80s' has no number", ADDED_FILE,
                           one.token.content);
        buf_add(out, &one, sizeof(one));
    }
    return buf_check(out, err);
}

static const char *const names[] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                    "pad_token", "cls_token", "mask_token"};
#define N_NAMES (sizeof(names) / sizeof(*names))

static bool is_named(const struct token_folder *folder, const char *content)
{
    const struct json *more = special(folder, "additional_special_tokens");
    const char *text;

    for (size_t i = 0; i < N_NAMES; i++)
        if (token_folder_special(folder, names[i], &text) > 0 &&
            strcmp(text, content) == 0)
            return true;
    for (size_t i = 0; i < json_count(more); i++) {
        text = special_text(json_at(more, i));
        if (text && strcmp(text, content) == 0)
            return true;
    }
    return false;
}

static int add_named(const struct json *entry, void *state, token_add_fn *add,
                     struct err *err)
{
    struct added_token token = {.id = -1, .is_special = true};

    token.content = (char *)special_text(entry);
    if (!token.content || !*token.content)
        return 0;
    token.n_bytes = strlen(token.content);
    token_flags_read(&token, entry);
    token.is_special = true;
    return add(state, &token, false, err);
}

static int add_all_named(const struct token_folder *folder, void *state,
                         token_add_fn *add, struct err *err)
{
    const struct json *more = special(folder, "additional_special_tokens");

    for (size_t i = 0; i < N_NAMES; i++)
        if (add_named(special(folder, names[i]), state, add, err) < 0)
            return -1;
    for (size_t i = 0; i < json_count(more); i++)
        if (add_named(json_at(more, i), state, add, err) < 0)
            return -1;
    return 0;
}

int token_folder_each(const struct token_folder *folder, void *state, token_add_fn *add,
                      struct err *err)
{
    struct buf list = BUF_INIT;
    struct numbered *one;
    size_t n;
    int rc = decoder_of(folder) ? list_decoder(&list, decoder_of(folder), err)
                                : list_added(&list, folder, err);

    one = (struct numbered *)(void *)list.data;
    n = list.n_bytes / sizeof(*one);
    if (n)
        qsort(one, n, sizeof(*one), compare);
    for (size_t i = 0; i < n && rc == 0; i++) {
        one[i].token.id = (int32_t)one[i].id;
        rc = add(state, &one[i].token, one[i].has_flags, err);
    }
    buf_fini(&list);
    return rc < 0 ? -1 : add_all_named(folder, state, add, err);
}
