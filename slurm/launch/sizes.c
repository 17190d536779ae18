#include "slurm/launch/sizes.h"

#include "common/base/fs.h"
#include "jobs/spec/spec_tree.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define NUM_NODES "trainer.num_nodes"
#define DEVICES "trainer.devices"

/* The file and the user's overrides, without defaults: what somebody said. */
static int read_said(struct spec_tree *tree, const char *path,
                     const char *const *overrides, int n, struct err *err)
{
    struct buf text = BUF_INIT;
    int rc = fs_read_file(&text, path, SPEC_FILE_MAX, err);

    if (rc == 0)
        rc = spec_yaml_read(tree, path, buf_str(&text), text.n_bytes, err);
    for (int i = 0; rc == 0 && i < n; i++)
        rc = spec_override_apply(tree, overrides[i], err);
    buf_fini(&text);
    return rc;
}

static bool is_training(const struct spec_tree *tree)
{
    const char *kind = json_get_string(tree->root, "kind");

    return kind && spec_kind_is_training(spec_kind_find(kind));
}

static void add_override(struct sizes *sizes, int which, const char *key,
                         const char *value)
{
    snprintf(sizes->texts[which], SIZES_TEXT_MAX, "%s=%s", key, value);
    sizes->overrides[sizes->n_overrides++] = sizes->texts[which];
}

static void add_number(struct sizes *sizes, int which, const char *key, int64_t value)
{
    char text[32];

    snprintf(text, sizeof(text), "%" PRId64, value);
    add_override(sizes, which, key, text);
}

static int must_agree(const struct spec_tree *tree, const char *key, int64_t says,
                      const char *option, int64_t asked, struct err *err)
{
    if (!asked || says == asked)
        return 0;
    return err_set(err, ERR_INVALID,
                   "%s%s is %" PRId64 ", but %s %" PRId64 " is asked for: say %s=%" PRId64
                   " behind the file, or leave %s out",
                   spec_tree_where(tree, key), key, says, option, asked, key, asked,
                   option);
}

/* Says it where nobody did. A plain number is compared before anything else of the file is
 * looked at: sizes that do not fit the machines make errors of other keys. */
static int settle_number(struct sizes *sizes, int which, const struct spec_tree *tree,
                         const char *key, const char *option, int64_t asked,
                         struct err *err)
{
    const struct json *said = spec_tree_get(tree->root, key);

    if (json_type(said) == JSON_INT)
        return must_agree(tree, key, json_int(said, 0), option, asked, err);
    if (asked && json_type(said) == JSON_NULL)
        add_number(sizes, which, key, asked);
    return 0;
}

static int check_refused(const struct spec_notes *notes, struct err *err)
{
    int64_t n = notes->refused.count;
    char more[80] = "";

    if (!n)
        return 0;
    if (n > 1)
        snprintf(more, sizeof(more),
                 " (and %" PRId64 " more: `vneva submit --check` lists them)", n - 1);
    return err_set(err, ERR_INVALID, "refused: %s%s", notes->refused.items[0], more);
}

/* Reads the whole, and compares what it says with what is asked for. */
static int read_whole(struct sizes *out, const char *path, const struct spec_tree *tree,
                      const struct sizes_asked *asked, struct err *err)
{
    struct spec_notes notes;
    const struct spec *spec;
    int rc;

    if (spec_read(&out->spec, &notes, path, SPEC_NONE, out->overrides, out->n_overrides,
                  err) < 0)
        return -1;
    spec = out->spec;
    rc = check_refused(&notes, err);
    spec_notes_fini(&notes);
    out->n_nodes = asked->n_nodes ? asked->n_nodes : 1;
    out->n_devices = asked->n_devices;
    if (rc < 0 || !spec_kind_is_training(spec->kind))
        return rc;
    out->n_nodes = spec->trainer.num_nodes;
    out->n_devices = spec->trainer.devices;
    if (must_agree(tree, NUM_NODES, out->n_nodes, asked->nodes_option, asked->n_nodes,
                   err) < 0)
        return -1;
    return must_agree(tree, DEVICES, out->n_devices, asked->devices_option,
                      asked->n_devices, err);
}

int sizes_read(struct sizes *out, const char *path, const char *const *overrides,
               int n_overrides, const struct sizes_asked *asked, struct err *err)
{
    struct spec_tree tree;
    int rc;

    memset(out, 0, sizeof(*out));
    memcpy(out->overrides, overrides, (size_t)n_overrides * sizeof(*overrides));
    out->n_overrides = n_overrides;
    if (asked->kind)
        add_override(out, 0, "kind", asked->kind);
    if (spec_tree_init(&tree, err) < 0)
        return -1;
    rc = read_said(&tree, path, out->overrides, out->n_overrides, err);
    if (rc == 0 && is_training(&tree))
        rc = settle_number(out, 1, &tree, NUM_NODES, asked->nodes_option, asked->n_nodes,
                           err);
    if (rc == 0 && is_training(&tree))
        rc = settle_number(out, 2, &tree, DEVICES, asked->devices_option,
                           asked->n_devices, err);
    if (rc == 0)
        rc = read_whole(out, path, &tree, asked, err);
    spec_tree_fini(&tree);
    if (rc < 0)
        sizes_fini(out);
    return rc;
}

void sizes_fini(struct sizes *sizes)
{
    spec_free(sizes->spec);
    sizes->spec = NULL;
}
