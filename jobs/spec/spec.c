#include "jobs/spec/spec.h"

#include "common/base/fs.h"
#include "jobs/spec/spec_schema.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *const kind_names[] = {
    [SPEC_NONE] = "none",         [SPEC_PREPARE] = "prepare",
    [SPEC_PRETRAIN] = "pretrain", [SPEC_FINETUNE] = "finetune",
    [SPEC_EVALUATE] = "evaluate",
};

const char *spec_kind_name(enum spec_kind kind)
{
    return (unsigned)kind < SPEC_KIND_COUNT ? kind_names[kind] : "unknown";
}

enum spec_kind spec_kind_find(const char *name)
{
    for (int kind = SPEC_NONE + 1; kind < SPEC_KIND_COUNT; kind++)
        if (strcmp(kind_names[kind], name) == 0)
            return kind;
    return SPEC_NONE;
}

bool spec_kind_is_training(enum spec_kind kind)
{
    return kind == SPEC_PRETRAIN || kind == SPEC_FINETUNE;
}

int64_t spec_n_ranks(const struct spec *spec)
{
    if (spec_kind_is_training(spec->kind))
        return spec->trainer.devices * spec->trainer.num_nodes;
    return spec->kind == SPEC_PREPARE ? 1 : spec->model.tensor_model_parallel_size;
}

const char *spec_tokenizer(const struct spec *spec, const char **key)
{
    bool is_huggingface =
        spec->tokenizer.library && strcmp(spec->tokenizer.library, "huggingface") == 0;
    bool has_type = is_huggingface && spec->tokenizer.type;

    *key = has_type ? "model.tokenizer.type" : "model.tokenizer.model";
    return has_type ? spec->tokenizer.type : spec->tokenizer.model;
}

bool spec_is_set(const struct spec *spec, const char *path)
{
    return json_type(spec_tree_get(spec->tree, path)) != JSON_NULL;
}

void spec_notes_fini(struct spec_notes *notes)
{
    spec_list_fini(&notes->ignored);
    spec_list_fini(&notes->refused);
}

/* Sets the tree's kind to the one asked for, or says that there is none. */
static int settle_kind(struct spec_tree *tree, enum spec_kind *kind, struct err *err)
{
    const char *name = json_get_string(tree->root, "kind");

    if (*kind != SPEC_NONE)
        return json_set(tree->root, "kind", json_new_string(spec_kind_name(*kind)), err);
    if (!name)
        return err_set(err, ERR_INVALID,
                       "no kind: give --kind, or a line 'kind: ' with prepare, pretrain, "
                       "finetune or evaluate");
    *kind = spec_kind_find(name);
    if (*kind == SPEC_NONE)
        return err_set(err, ERR_INVALID,
                       "%skind: '%s' is none of prepare, pretrain, finetune, evaluate",
                       spec_tree_where(tree, "kind"), name);
    return 0;
}

/* Checks the resolved tree and makes the struct; the tree's root moves into it. */
static int make_spec(struct spec **out, struct spec_tree *tree, enum spec_kind kind,
                     const char *folder, struct spec_notes *notes, struct err *err)
{
    struct spec *spec;

    if (settle_kind(tree, &kind, err) < 0 ||
        spec_check(tree, kind, folder, notes, err) < 0)
        return -1;
    spec = calloc(1, sizeof(*spec));
    if (!spec)
        return err_set(err, ERR_NOMEM, "cannot allocate a specification");
    spec->kind = kind;
    spec->tree = tree->root;
    tree->root = NULL;
    if (spec_fill(spec, spec->tree, err) < 0 ||
        spec_check_numbers(spec, notes, err) < 0) {
        spec_free(spec);
        return -1;
    }
    *out = spec;
    return 0;
}

static int read_tree(struct spec_tree *tree, const char *path,
                     const char *const *overrides, int n_overrides, struct err *err)
{
    struct buf text = BUF_INIT;
    int rc = fs_read_file(&text, path, SPEC_FILE_MAX, err);

    if (rc == 0)
        rc = spec_yaml_read(tree, path, buf_str(&text), text.n_bytes, err);
    buf_fini(&text);
    for (int i = 0; rc == 0 && i < n_overrides; i++)
        rc = spec_override_apply(tree, overrides[i], err);
    return rc;
}

int spec_read(struct spec **out, struct spec_notes *notes, const char *path,
              enum spec_kind kind, const char *const *overrides, int n_overrides,
              struct err *err)
{
    struct spec_tree tree;
    char folder[FS_PATH_MAX];
    int rc;

    memset(notes, 0, sizeof(*notes));
    if (!getcwd(folder, sizeof(folder)))
        return err_set(err, ERR_IO, "cannot tell the current folder: %s",
                       strerror(errno));
    if (spec_tree_init(&tree, err) < 0)
        return -1;
    rc = read_tree(&tree, path, overrides, n_overrides, err);
    if (rc == 0)
        rc = spec_resolve(&tree, err);
    if (rc == 0)
        rc = make_spec(out, &tree, kind, folder, notes, err);
    spec_tree_fini(&tree);
    if (rc < 0)
        spec_notes_fini(notes);
    return rc;
}

int spec_from_json(struct spec **out, const char *json, size_t n_bytes, struct err *err)
{
    struct spec_tree tree;
    struct spec_notes notes = {{NULL, 0}, {NULL, 0}};
    struct spec *spec = NULL;
    struct json *root;
    int rc = -1;

    if (spec_tree_init(&tree, err) < 0)
        return -1;
    if (json_parse(&root, json, n_bytes, err) < 0) {
        err_wrap(err, "specification");
        goto out;
    }
    json_free(tree.root);
    tree.root = root;
    if (json_type(root) != JSON_OBJECT) {
        err_set(err, ERR_FORMAT, "a specification is an object, not a %s",
                json_type_name(json_type(root)));
        goto out;
    }
    if (make_spec(&spec, &tree, SPEC_NONE, NULL, &notes, err) < 0)
        goto out;
    if (notes.refused.count) {
        err_set(err, ERR_UNSUPPORTED, "%s", notes.refused.items[0]);
        goto out;
    }
    *out = spec;
    spec = NULL;
    rc = 0;
out:
    spec_free(spec);
    spec_tree_fini(&tree);
    spec_notes_fini(&notes);
    return rc;
}

static const char *short_type(enum spec_type type)
{
    static const char *const names[] = {
        [SPEC_INT] = "int",           [SPEC_NUMBER] = "number",
        [SPEC_BOOL] = "bool",         [SPEC_STRING] = "string",
        [SPEC_PATH] = "path",         [SPEC_MAYBE_PATH] = "path or name",
        [SPEC_PATHS] = "path(s)",     [SPEC_STRINGS] = "string(s)",
        [SPEC_SIDE] = "S or [S,S]",   [SPEC_PAIR] = "[a,b]",
        [SPEC_SHARE] = "int or part", [SPEC_PRECISION] = "precision",
        [SPEC_ANY] = "any",           [SPEC_GROUP] = "group",
    };

    return names[type];
}

static void describe_key(struct buf *out, const struct spec_key *key)
{
    buf_printf(out, "%s: %s", key->path, short_type(key->type));
    if (key->choices && key->use == SPEC_USED)
        buf_printf(out, " (%s)", key->choices);
    if (key->text)
        buf_printf(out, " = %s", key->text);
    if (key->meaning && *key->meaning)
        buf_printf(out, "\n    %s", key->meaning);
    if (key->weights)
        buf_add_str(out, "\n    where a folder of weights is named and this is not set: "
                         "as its config.json has it");
    if (key->needed) {
        const char *before = "\n    needed for";

        for (int kind = SPEC_NONE + 1; kind < SPEC_KIND_COUNT; kind++)
            if (key->needed & SPEC_OF(kind)) {
                buf_printf(out, "%s %s", before, spec_kind_name(kind));
                before = ",";
            }
    }
    if (key->now)
        buf_printf(out, "\n    this version runs: %s", key->now);
    buf_add_char(out, '\n');
}

void spec_describe(struct buf *out)
{
    static const char *const titles[] = {
        [SPEC_USED] = "# keys that are used: type (values) = default\n",
        [SPEC_FIXED] = "\n# keys of which some values only can be honoured\n",
        [SPEC_IGNORED] = "\n# keys of NeMo without a meaning here: accepted, ignored\n",
    };
    static const enum spec_use order[] = {SPEC_USED, SPEC_FIXED, SPEC_IGNORED};

    for (size_t part = 0; part < 3; part++) {
        buf_add_str(out, titles[order[part]]);
        for (size_t i = 0; i < spec_n_keys; i++) {
            const struct spec_key *key = &spec_keys[i];

            if (key->use != order[part])
                continue;
            if (key->use == SPEC_FIXED)
                buf_printf(out, "%s: %s\n    %s\n", key->path, key->choices,
                           key->meaning);
            else
                describe_key(out, key);
        }
    }
}
