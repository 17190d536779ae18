#include "model/tools/words.h"

#include "common/base/json_file.h"
#include "common/base/proto.h"
#include "model/tools/tool.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ModelProto, its SentencePiece and TrainerSpec */
enum { MODEL_PIECES = 1, MODEL_TRAINER = 2, PIECE_TEXT = 1 };
enum { TRAINER_UNK = 40, TRAINER_BOS = 41, TRAINER_EOS = 42 };

int words_put(struct words *words, const char *text, int64_t id, struct err *err)
{
    if (id >= words->next)
        words->next = id + 1;
    return json_set(words->ids, text, json_new_int(id), err);
}

/* ---- SentencePiece ---- */

static int read_piece(struct words *words, struct proto piece, int64_t id,
                      struct err *err)
{
    struct proto_field field;
    struct buf text = BUF_INIT;
    int rc;

    while ((rc = proto_next(&piece, &field)) > 0)
        if (field.number == PIECE_TEXT)
            buf_add(&text, field.bytes.at, (size_t)(field.bytes.end - field.bytes.at));
    if (rc == 0 && buf_check(&text, err) == 0)
        rc = words_put(words, buf_str(&text), id, err);
    else
        rc = err_set(err, ERR_FORMAT, "piece %" PRId64 " cannot be read", id);
    buf_fini(&text);
    return rc;
}

/* The numbers of special pieces; a negative one says that there is none. */
static int read_trainer(struct words *words, struct proto trainer)
{
    struct proto_field field;
    int rc;

    while ((rc = proto_next(&trainer, &field)) > 0) {
        int64_t id = (int32_t)field.value;

        if (field.number == TRAINER_UNK)
            words->unk = id;
        else if (field.number == TRAINER_BOS)
            words->bos = id;
        else if (field.number == TRAINER_EOS)
            words->eos = id;
    }
    return rc;
}

static int read_model(struct words *words, const char *path, struct err *err)
{
    struct buf file = BUF_INIT;
    struct proto_field field;
    struct proto model;
    int64_t n = 0;
    int rc = fs_read_file(&file, path, TOOL_JSON_MAX, err);

    words->unk = 0; /* as sentencepiece_model.proto has them by default */
    words->bos = 1;
    words->eos = 2;
    model = proto_of(buf_str(&file), file.n_bytes);
    while (rc == 0 && (rc = proto_next(&model, &field)) > 0) {
        rc = 0;
        if (field.number == MODEL_PIECES)
            rc = read_piece(words, field.bytes, n++, err);
        else if (field.number == MODEL_TRAINER)
            rc = read_trainer(words, field.bytes);
    }
    if (rc < 0 || n == 0)
        rc = err_set(err, ERR_FORMAT, "'%s' is no SentencePiece model", path);
    buf_fini(&file);
    return rc;
}

/* {"added_tokens_decoder": {"32000": {"content": "<image>"}}} */
static int read_decoder(struct words *words, const struct json *config, struct err *err)
{
    const struct json *decoder = json_get(config, "added_tokens_decoder");

    for (size_t i = 0; i < json_count(decoder); i++) {
        const char *text = json_get_string(json_at(decoder, i), "content");

        if (text &&
            words_put(words, text, strtoll(json_key_at(decoder, i), NULL, 10), err) < 0)
            return -1;
    }
    return 0;
}

/* {"<image>": 32000} */
static int read_ids(struct words *words, const struct json *ids, struct err *err)
{
    for (size_t i = 0; i < json_count(ids); i++)
        if (words_put(words, json_key_at(ids, i), json_int(json_at(ids, i), -1), err) < 0)
            return -1;
    return 0;
}

static int read_slow(struct words *words, const char *folder, struct err *err)
{
    struct json *config = NULL, *added = NULL;
    char path[FS_PATH_MAX];
    int rc = -1;

    if (fs_path(path, err, "%s/tokenizer.model", folder) == 0 &&
        read_model(words, path, err) == 0 &&
        json_file_find(&config, folder, "tokenizer_config.json", TOOL_JSON_MAX, err) ==
            0 &&
        json_file_find(&added, folder, "added_tokens.json", TOOL_JSON_MAX, err) == 0 &&
        read_decoder(words, config, err) == 0)
        rc = read_ids(words, added, err);
    json_free(config);
    json_free(added);
    return rc;
}

/* ---- tokenizer.json ---- */

static int read_fast(struct words *words, const char *folder, struct err *err)
{
    struct json *root = NULL;
    const struct json *added, *vocab;
    int rc = json_file_find(&root, folder, "tokenizer.json", TOOL_JSON_MAX, err);

    words->is_fast = true;
    vocab = json_get(json_get(root, "model"), "vocab");
    added = json_get(root, "added_tokens");
    if (rc == 0 && json_type(vocab) != JSON_OBJECT)
        rc = err_set(err, ERR_UNSUPPORTED,
                     "'%s/tokenizer.json' is not of the kind BPE: its vocabulary is no "
                     "object",
                     folder);
    if (rc == 0)
        rc = read_ids(words, vocab, err);
    for (size_t i = 0; i < json_count(added) && rc == 0; i++) {
        const char *text = json_get_string(json_at(added, i), "content");

        if (text)
            rc = words_put(words, text, json_get_int(json_at(added, i), "id", -1), err);
    }
    json_free(root);
    return rc;
}

int words_read(struct words *out, const char *folder, struct err *err)
{
    char path[FS_PATH_MAX];
    int rc;

    *out = (struct words){.ids = json_new(JSON_OBJECT), .unk = -1, .bos = -1, .eos = -1};
    if (fs_path(path, err, "%s/tokenizer.json", folder) < 0)
        return -1;
    if (fs_exists(path)) {
        rc = read_fast(out, folder, err);
    } else if (fs_path(path, err, "%s/tokenizer.model", folder) == 0 && fs_exists(path)) {
        rc = read_slow(out, folder, err);
    } else {
        rc = err_set(err, ERR_NOT_FOUND,
                     "no tokenizer in '%s': looked for tokenizer.json and "
                     "tokenizer.model",
                     folder);
    }
    if (rc < 0)
        return -1;
    out->n_known = (int64_t)json_count(out->ids);
    return 0;
}

void words_fini(struct words *words)
{
    json_free(words->ids);
    *words = (struct words){0};
}

int64_t words_find(const struct words *words, const char *text)
{
    return json_get_int(words->ids, text, -1);
}

const char *words_text(const struct words *words, int64_t id)
{
    for (size_t i = 0; i < json_count(words->ids); i++)
        if (json_int(json_at(words->ids, i), -1) == id)
            return json_key_at(words->ids, i);
    return NULL;
}

int words_add(struct words *words, const char *text, int64_t *id, struct err *err)
{
    *id = words_find(words, text);
    if (*id >= 0)
        return 0;
    *id = words->next;
    return words_put(words, text, *id, err);
}

/* ---- writing ---- */

static int set_flags(struct json *token, struct err *err)
{
    static const char *const off[] = {"lstrip", "normalized", "rstrip", "single_word"};

    for (size_t i = 0; i < sizeof(off) / sizeof(off[0]); i++)
        if (json_set(token, off[i], json_new_bool(false), err) < 0)
            return -1;
    return json_set(token, "special", json_new_bool(true), err);
}

/* id -1: it is the key. */
static struct json *token_json(const char *text, int64_t id, struct err *err)
{
    struct json *token = json_new(JSON_OBJECT);

    if ((id < 0 || json_set(token, "id", json_new_int(id), err) == 0) &&
        json_set(token, "content", json_new_string(text), err) == 0 &&
        set_flags(token, err) == 0)
        return token;
    json_free(token);
    return NULL;
}

/* The object under a key, made when it is not there. */
static struct json *need(struct json *root, const char *key, enum json_type type,
                         struct err *err)
{
    if (json_type(json_get(root, key)) != type &&
        json_set(root, key, json_new(type), err) < 0)
        return NULL;
    return json_get(root, key);
}

static int add_to_decoder(struct json *config, const char *text, int64_t id,
                          struct err *err)
{
    struct json *decoder = need(config, "added_tokens_decoder", JSON_OBJECT, err);
    char key[24];

    if (!decoder || id < 0)
        return decoder ? 0 : -1;
    snprintf(key, sizeof(key), "%" PRId64, id);
    return json_set(decoder, key, token_json(text, -1, err), err);
}

/* What AutoTokenizer needs beside a SentencePiece model. */
static int describe_model(const struct words *words, struct json *config, struct err *err)
{
    const struct {
        const char *key;
        int64_t id;
    } special[] = {
        {"unk_token", words->unk}, {"bos_token", words->bos}, {"eos_token", words->eos}};

    if (json_get(config, "tokenizer_class"))
        return 0; /* it came with one */
    if (json_set(config, "tokenizer_class", json_new_string("LlamaTokenizer"), err) < 0 ||
        json_set(config, "legacy", json_new_bool(false), err) < 0 ||
        json_set(config, "add_bos_token", json_new_bool(false), err) < 0 ||
        json_set(config, "add_eos_token", json_new_bool(false), err) < 0)
        return -1;
    for (size_t i = 0; i < sizeof(special) / sizeof(special[0]); i++) {
        const char *text = special[i].id < 0 ? NULL : words_text(words, special[i].id);

        if (text && (json_set(config, special[i].key, json_new_string(text), err) < 0 ||
                     add_to_decoder(config, text, special[i].id, err) < 0))
            return -1;
    }
    return 0;
}

static int write_config(const struct words *words, const char *folder, struct err *err)
{
    struct json *config = NULL;
    int rc = json_file_find(&config, folder, "tokenizer_config.json", TOOL_JSON_MAX, err);
    bool was_there = config != NULL;

    if (rc == 0 && !config)
        config = json_new(JSON_OBJECT);
    if (rc == 0 && !words->is_fast)
        rc = describe_model(words, config, err);
    for (size_t i = (size_t)words->n_known; i < json_count(words->ids) && rc == 0; i++)
        rc = add_to_decoder(config, json_key_at(words->ids, i),
                            json_int(json_at(words->ids, i), -1), err);
    if (rc == 0 && (was_there || !words->is_fast))
        rc = json_file_write(folder, "tokenizer_config.json", config, err);
    json_free(config);
    return rc;
}

static int write_fast(const struct words *words, const char *folder, struct err *err)
{
    struct json *root = NULL, *added;
    int rc = json_file_find(&root, folder, "tokenizer.json", TOOL_JSON_MAX, err);

    added = rc == 0 ? need(root, "added_tokens", JSON_ARRAY, err) : NULL;
    for (size_t i = (size_t)words->n_known; i < json_count(words->ids) && added; i++)
        if (json_append(added,
                        token_json(json_key_at(words->ids, i),
                                   json_int(json_at(words->ids, i), -1), err),
                        err) < 0)
            added = NULL;
    rc = added ? json_file_write(folder, "tokenizer.json", root, err) : -1;
    json_free(root);
    return rc;
}

int words_write(const struct words *words, const char *folder, struct err *err)
{
    bool has_added = words->n_known < (int64_t)json_count(words->ids);

    if (words->is_fast && has_added && write_fast(words, folder, err) < 0)
        return -1;
    return words->is_fast && !has_added ? 0 : write_config(words, folder, err);
}
