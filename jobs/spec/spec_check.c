/* The resolved tree against the table: unknown keys, types, values; then the defaults. */
#include "jobs/spec/spec_schema.h"

#include "common/base/fs.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define VALUE_SHOWN 60 /* letters of a wrong value in a message */

struct checker {
    struct spec_tree *tree;
    enum spec_kind kind;
    const char *folder;
    struct spec_notes *notes;
    struct err *err;
};

/* "train.yaml:3: model.x: " and what is wrong. */
static int fail(struct checker *c, enum err_code code, const char *path, const char *what)
{
    return err_set(c->err, code, "%s%s: %s", spec_tree_where(c->tree, path), path, what);
}

static int fail_value(struct checker *c, enum err_code code, const struct spec_key *key,
                      const struct json *value, const char *expected)
{
    struct buf text = BUF_INIT, what = BUF_INIT;

    json_write(&text, value, 0);
    buf_printf(&what, "expected %s, got %s %.*s", expected,
               json_type_name(json_type(value)), VALUE_SHOWN, buf_str(&text));
    fail(c, code, key->path, buf_str(&what));
    buf_fini(&text);
    buf_fini(&what);
    return -1;
}

/* "1|null" as "1 or null", "a|b|c" as "a, b or c". */
static void add_choices(struct buf *out, const char *choices)
{
    for (const char *c = choices; *c; c++) {
        if (*c != '|')
            buf_add_char(out, *c);
        else
            buf_add_str(out, strchr(c + 1, '|') ? ", " : " or ");
    }
}

/* ---- values ---- */

static bool is_text_list(const struct json *value)
{
    if (json_string(value))
        return true;
    if (json_type(value) != JSON_ARRAY)
        return false;
    for (size_t i = 0; i < json_count(value); i++)
        if (!json_string(json_at(value, i)) || !*json_string(json_at(value, i)))
            return false;
    return true;
}

static bool is_number(const struct json *value)
{
    return json_type(value) == JSON_INT || json_type(value) == JSON_DOUBLE;
}

static bool is_side(const struct json *value)
{
    if (json_type(value) == JSON_INT)
        return true;
    return json_type(value) == JSON_ARRAY && json_count(value) == 2 &&
           json_type(json_at(value, 0)) == JSON_INT &&
           json_type(json_at(value, 1)) == JSON_INT &&
           json_int(json_at(value, 0), 0) == json_int(json_at(value, 1), 1);
}

static bool has_type(const struct json *value, enum spec_type type)
{
    switch (type) {
    case SPEC_INT:
        return json_type(value) == JSON_INT;
    case SPEC_NUMBER:
        return is_number(value);
    case SPEC_SHARE:
        return json_type(value) == JSON_INT ||
               (json_type(value) == JSON_DOUBLE && json_double(value, 0) >= 0 &&
                json_double(value, 0) <= 1);
    case SPEC_BOOL:
        return json_type(value) == JSON_BOOL;
    case SPEC_STRING:
    case SPEC_PATH:
    case SPEC_MAYBE_PATH:
    case SPEC_PRECISION:
        return json_type(value) == JSON_STRING;
    case SPEC_PATHS:
    case SPEC_STRINGS:
        return is_text_list(value);
    case SPEC_SIDE:
        return is_side(value);
    case SPEC_PAIR:
        return json_type(value) == JSON_ARRAY && json_count(value) == 2 &&
               is_number(json_at(value, 0)) && is_number(json_at(value, 1));
    default:
        return true;
    }
}

static bool in_bounds(const struct spec_key *key, const struct json *value)
{
    if (key->min == key->max)
        return true;
    if (json_type(value) == JSON_ARRAY)
        return in_bounds(key, json_at(value, 0)) && in_bounds(key, json_at(value, 1));
    return json_double(value, 0) >= key->min && json_double(value, 0) <= key->max;
}

/* OmegaConf's mark of a value that somebody must give, alone or in a list. */
static bool is_missing(const struct json *value)
{
    for (size_t i = 0; json_type(value) == JSON_ARRAY && i < json_count(value); i++)
        if (is_missing(json_at(value, i)))
            return true;
    return json_string(value) && strcmp(json_string(value), "???") == 0;
}

/* A path from the folder; "~/" is the home folder. NULL: out of memory. */
static struct json *absolute(struct checker *c, const char *path, bool only_existing)
{
    struct buf out = BUF_INIT;
    struct json *json;

    if (*path == '/' || !c->folder)
        return json_new_string(path);
    if (strncmp(path, "~/", 2) == 0 && getenv("HOME")) {
        buf_printf(&out, "%s/%s", getenv("HOME"), path + 2);
    } else {
        while (strncmp(path, "./", 2) == 0)
            path += 2;
        buf_printf(&out, "%s/%s", c->folder, strcmp(path, ".") == 0 ? "" : path);
    }
    json = json_new_string(only_existing && !fs_exists(buf_str(&out)) ? path
                                                                      : buf_str(&out));
    buf_fini(&out);
    return json;
}

static struct json *plain_list(struct checker *c, const struct json *value, bool is_paths)
{
    struct json *list = json_new(JSON_ARRAY);
    size_t n = json_string(value) ? 1 : json_count(value);

    for (size_t i = 0; list && i < n; i++) {
        const char *text = json_string(json_string(value) ? value : json_at(value, i));

        if (json_append(list, is_paths ? absolute(c, text, false) : json_new_string(text),
                        c->err) < 0) {
            json_free(list);
            return NULL;
        }
    }
    return list;
}

/* 32, "32-true", "bf16-mixed": the part before the dash, as a text. */
static struct json *plain_precision(const struct json *value)
{
    char text[32];

    if (json_type(value) == JSON_INT)
        snprintf(text, sizeof(text), "%lld", (long long)json_int(value, 0));
    else if (json_string(value))
        snprintf(text, sizeof(text), "%.*s", (int)strcspn(json_string(value), "-"),
                 json_string(value));
    else
        return json_clone(value);
    return json_new_string(text);
}

/* The value as the rest reads it; "" is nothing. */
static struct json *plain_value(struct checker *c, const struct spec_key *key,
                                const struct json *value)
{
    const char *text = json_string(value);
    bool is_text = key->type == SPEC_STRING || key->type == SPEC_PATH ||
                   key->type == SPEC_MAYBE_PATH || key->type == SPEC_PATHS ||
                   key->type == SPEC_STRINGS;

    if (is_text && text && !*text)
        return json_new(JSON_NULL);
    if (is_missing(value))
        return json_clone(value); /* check_used says so */
    if (key->type == SPEC_PRECISION)
        return plain_precision(value);
    if ((key->type == SPEC_PATH || key->type == SPEC_MAYBE_PATH) && text)
        return absolute(c, text, key->type == SPEC_MAYBE_PATH);
    if ((key->type == SPEC_PATHS || key->type == SPEC_STRINGS) && is_text_list(value))
        return plain_list(c, value, key->type == SPEC_PATHS);
    return json_clone(value);
}

static int note_later(struct checker *c, const struct spec_key *key,
                      const struct json *value)
{
    struct buf text = BUF_INIT;
    int rc;

    buf_printf(&text, "%s: ", key->path);
    json_write(&text, value, 0);
    buf_add_str(&text, " cannot be run by this version; possible: ");
    add_choices(&text, key->now);
    rc = spec_list_add(&c->notes->refused, buf_str(&text), c->err);
    buf_fini(&text);
    return rc;
}

static int fail_bounds(struct checker *c, const struct spec_key *key,
                       const struct json *value)
{
    char expected[96];

    if (key->max >= 1e15)
        snprintf(expected, sizeof(expected), "%g or more", key->min);
    else
        snprintf(expected, sizeof(expected), "%g to %.10g", key->min, key->max);
    return fail_value(c, ERR_INVALID, key, value, expected);
}

static int check_used(struct checker *c, const struct spec_key *key,
                      const struct json *value)
{
    struct buf choices = BUF_INIT;
    int rc = 0;

    if (json_type(value) == JSON_NULL)
        return 0;
    if (is_missing(value))
        return fail(c, ERR_INVALID, key->path, "'\?\?\?' stands for a value to be given");
    if (key->choices)
        add_choices(&choices, key->choices);
    if (!has_type(value, key->type))
        rc = fail_value(c, ERR_INVALID, key, value, spec_type_name(key->type));
    else if (key->choices && !spec_value_is_one_of(value, key->choices))
        rc = fail_value(c, ERR_INVALID, key, value, buf_str(&choices));
    else if (!in_bounds(key, value))
        rc = fail_bounds(c, key, value);
    else if (key->now && (key->kinds & SPEC_OF(c->kind)) &&
             !spec_value_is_one_of(value, key->now))
        rc = note_later(c, key, value);
    buf_fini(&choices);
    return rc;
}

static int check_fixed(struct checker *c, const struct spec_key *key,
                       const struct json *value)
{
    struct buf what = BUF_INIT, text = BUF_INIT;

    if (spec_value_is_one_of(value, key->choices))
        return 0;
    json_write(&text, value, 0);
    buf_printf(&what, "%.*s cannot be honoured: %s; possible: ", VALUE_SHOWN,
               buf_str(&text), key->meaning);
    add_choices(&what, key->choices);
    fail(c, ERR_UNSUPPORTED, key->path, buf_str(&what));
    buf_fini(&what);
    buf_fini(&text);
    return -1;
}

static int note_ignored(struct checker *c, const struct spec_key *key)
{
    char text[ERR_TEXT_MAX];

    snprintf(text, sizeof(text), "%s: %s", key->path, key->meaning);
    return spec_list_add(&c->notes->ignored, text, c->err);
}

/* ---- the tree ---- */

static int fail_unknown(struct checker *c, const char *path)
{
    char near[SPEC_PATH_MAX] = "", what[SPEC_PATH_MAX + 64];

    spec_schema_suggest(near, path);
    snprintf(what, sizeof(what),
             *near ? "no such key; did you mean '%s'?" : "no such key%s", near);
    return fail(c, ERR_INVALID, path, what);
}

static int check_key(struct checker *c, struct json *group, const char *name,
                     const struct spec_key *key)
{
    struct json *plain;

    if (key->use == SPEC_IGNORED)
        return note_ignored(c, key);
    if (key->use == SPEC_FIXED)
        return check_fixed(c, key, json_get(group, name));
    plain = plain_value(c, key, json_get(group, name));
    if (json_set(group, name, plain, c->err) < 0)
        return -1;
    return check_used(c, key, plain);
}

static int check_group(struct checker *c, struct json *group, const char *path)
{
    for (size_t i = 0; i < json_count(group); i++) {
        const char *name = json_key_at(group, i);
        struct json *value = json_at(group, i);
        char member[SPEC_PATH_MAX];
        const struct spec_key *key;
        int rc;

        if (spec_path_join(member, path, name, c->err) < 0)
            return -1;
        key = spec_schema_find(member);
        if (key)
            rc = check_key(c, group, name, key);
        else if (!spec_schema_is_group(member))
            rc = fail_unknown(c, member);
        else if (json_type(value) == JSON_OBJECT)
            rc = check_group(c, value, member);
        else if (json_type(value) == JSON_NULL)
            rc = 0; /* "optim:" with nothing under it */
        else
            rc = fail(c, ERR_INVALID, member, "is a group of keys and takes no value");
        if (rc < 0)
            return -1;
    }
    return 0;
}

/* A prepare job wants a tokenizer, whose key is another one for each library. */
static void need_tokenizer(struct checker *c, struct buf *missing)
{
    const struct json *group = spec_tree_get(c->tree->root, "model.tokenizer");
    const char *library = json_get_string(group, "library");
    bool is_huggingface = library && strcmp(library, "huggingface") == 0;

    if (c->kind != SPEC_PREPARE || json_get_string(group, "model") ||
        (is_huggingface && json_get_string(group, "type")))
        return;
    buf_printf(missing, "%s%s", missing->n_bytes ? ", " : "",
               is_huggingface
                   ? "model.tokenizer.type (a folder with a tokenizer.json)"
                   : "model.tokenizer.model (a SentencePiece .model file; with "
                     "model.tokenizer.library=huggingface model.tokenizer.type, a folder "
                     "with a tokenizer.json)");
}

static int check_needed(struct checker *c)
{
    unsigned in_weights = spec_in_weights(c->tree->root, c->kind);
    struct buf missing = BUF_INIT;
    int rc = 0;

    for (size_t i = 0; i < spec_n_keys; i++) {
        const struct spec_key *key = &spec_keys[i];

        if ((key->needed & SPEC_OF(c->kind)) && !(key->weights & in_weights) &&
            json_type(spec_tree_get(c->tree->root, key->path)) == JSON_NULL)
            buf_printf(&missing, "%s%s (%s)", missing.n_bytes ? ", " : "", key->path,
                       key->meaning);
    }
    need_tokenizer(c, &missing);
    if (missing.n_bytes)
        rc = err_set(c->err, ERR_INVALID, "a job of kind %s needs %s",
                     spec_kind_name(c->kind), buf_str(&missing));
    buf_fini(&missing);
    return rc;
}

static int put_defaults(struct checker *c)
{
    unsigned in_weights = spec_in_weights(c->tree->root, c->kind);

    for (size_t i = 0; i < spec_n_keys; i++) {
        const struct spec_key *key = &spec_keys[i];
        struct json *value, *plain;

        if (key->use != SPEC_USED || !key->text || !(key->kinds & SPEC_OF(c->kind)) ||
            (key->weights & in_weights) ||
            json_type(spec_tree_get(c->tree->root, key->path)) != JSON_NULL)
            continue;
        if (*key->text == '[') { /* a list: as JSON */
            if (json_parse(&value, key->text, strlen(key->text), c->err) < 0)
                return -1;
        } else if (spec_resolve_text(&value, c->tree, key->path, key->text, c->err) < 0) {
            return err_wrap(c->err, "default of %s", key->path);
        }
        plain = plain_value(c, key, value);
        json_free(value);
        if (spec_tree_set(c->tree->root, key->path, plain, c->err) < 0 ||
            check_used(c, key, plain) < 0)
            return -1;
    }
    return 0;
}

#define VISION "model.mm_cfg.vision_encoder."

/* A default that depends on others; value moves. */
static int put_missing(struct checker *c, const char *path, struct json *value)
{
    if (json_type(spec_tree_get(c->tree->root, path)) == JSON_NULL)
        return spec_tree_set(c->tree->root, path, value, c->err);
    json_free(value);
    return 0;
}

/* Sizes of the encoders that OpenAI and LAION published as CLIP, and Google as SigLIP. */
static int put_encoder_sizes(struct checker *c, bool is_siglip, int64_t width)
{
    static const struct encoder_size {
        bool is_siglip;
        int64_t width, n_layers, n_heads, ffn;
    } known[] = {
        {false, 768, 12, 12, 3072},  {false, 1024, 24, 16, 4096},
        {false, 1280, 32, 16, 5120}, {false, 1408, 40, 16, 5632},
        {true, 768, 12, 12, 3072},   {true, 1024, 24, 16, 4096},
        {true, 1152, 27, 16, 4304},
    };
    static const char layers[] = VISION "num_layers";
    static const char heads[] = VISION "num_attention_heads";
    struct json *root = c->tree->root;
    const struct encoder_size *size = NULL;

    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
        if (known[i].is_siglip == is_siglip && known[i].width == width)
            size = &known[i];
    if (put_missing(c, VISION "ffn_hidden_size",
                    json_new_int(size ? size->ffn : 4 * width)) < 0)
        return -1;
    if (size)
        return put_missing(c, layers, json_new_int(size->n_layers)) < 0
                   ? -1
                   : put_missing(c, heads, json_new_int(size->n_heads));
    for (int i = 0; i < 2; i++)
        if (json_type(spec_tree_get(root, i ? heads : layers)) == JSON_NULL)
            return fail(c, ERR_INVALID, i ? heads : layers,
                        is_siglip
                            ? "must be given: no SigLIP encoder has this hidden_size"
                            : "must be given: no CLIP encoder has this hidden_size");
    return 0;
}

/* Defaults that follow from the family of the encoder. */
static int put_encoder(struct checker *c)
{
    struct json *root = c->tree->root;
    const char *type = json_string(spec_tree_get(root, VISION "model_type"));
    bool is_siglip = type && strcmp(type, "siglip") == 0;

    if (put_missing(c, VISION "activation",
                    json_new_string(is_siglip ? "gelu_pytorch_tanh" : "quick_gelu")) <
            0 ||
        put_missing(c, VISION "layernorm_epsilon",
                    json_new_double(is_siglip ? 1e-6 : 1e-5)) < 0)
        return -1;
    return put_encoder_sizes(c, is_siglip,
                             json_int(spec_tree_get(root, VISION "hidden_size"), 0));
}

int spec_check(struct spec_tree *tree, enum spec_kind kind, const char *folder,
               struct spec_notes *notes, struct err *err)
{
    struct checker c = {tree, kind, folder, notes, err};
    struct json *top;

    if (check_group(&c, tree->root, "") < 0 || check_needed(&c) < 0 ||
        put_defaults(&c) < 0)
        return -1;
    if (spec_kind_is_training(kind) &&
        !(spec_in_weights(tree->root, kind) & SPEC_OF_VISION) && put_encoder(&c) < 0)
        return -1;
    top = json_get(tree->root, "tensor_model_parallel_size");
    if (kind == SPEC_EVALUATE && json_type(top) == JSON_INT)
        return spec_tree_set(tree->root, "model.tensor_model_parallel_size",
                             json_clone(top), err);
    return 0;
}
