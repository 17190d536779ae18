#include "jobs/spec/spec_tree.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int spec_tree_init(struct spec_tree *tree, struct err *err)
{
    tree->root = json_new(JSON_OBJECT);
    tree->where = json_new(JSON_OBJECT);
    if (tree->root && tree->where)
        return 0;
    spec_tree_fini(tree);
    return err_set(err, ERR_NOMEM, "cannot allocate a specification");
}

void spec_tree_fini(struct spec_tree *tree)
{
    json_free(tree->root);
    json_free(tree->where);
    tree->root = tree->where = NULL;
}

/* Takes the first component off *path into out; false when there is none or it is too
 * long to be in any tree. */
static bool next_part(char out[SPEC_PATH_MAX], const char **path)
{
    size_t n = strcspn(*path, ".");

    if (n == 0 || n >= SPEC_PATH_MAX)
        return false;
    memcpy(out, *path, n);
    out[n] = '\0';
    *path += n + ((*path)[n] == '.');
    return true;
}

static struct json *child_of(const struct json *json, const char *part)
{
    char *end;
    unsigned long i;

    if (json_type(json) != JSON_ARRAY)
        return json_get(json, part);
    i = strtoul(part, &end, 10);
    return *end ? NULL : json_at(json, i);
}

struct json *spec_tree_get(const struct json *root, const char *path)
{
    char part[SPEC_PATH_MAX];
    struct json *json = (struct json *)root;

    while (json && *path)
        json = next_part(part, &path) ? child_of(json, part) : NULL;
    return json;
}

int spec_tree_set(struct json *root, const char *path, struct json *value,
                  struct err *err)
{
    char part[SPEC_PATH_MAX];
    const char *rest = path;
    struct json *group = root;

    while (next_part(part, &rest) && *rest) {
        struct json *child = json_get(group, part);

        if (json_type(child) == JSON_NULL) {
            child = json_new(JSON_OBJECT);
            if (json_set(group, part, child, err) < 0)
                goto failed;
        } else if (json_type(child) != JSON_OBJECT) {
            err_set(err, ERR_INVALID, "cannot set '%s': '%.*s' is a %s, not a group",
                    path, (int)(rest - path - 1), path, json_type_name(json_type(child)));
            goto failed;
        }
        group = child;
    }
    if (*rest || rest == path || rest[-1] == '.') {
        err_set(err, ERR_INVALID, "'%s' is not a key: it has an empty part", path);
        goto failed;
    }
    return json_set(group, part, value, err);
failed:
    json_free(value);
    return -1;
}

int spec_tree_remove(struct json *root, const char *path)
{
    const char *dot = strrchr(path, '.');
    char parent[SPEC_PATH_MAX] = "";

    if (dot)
        snprintf(parent, sizeof(parent), "%.*s", (int)(dot - path), path);
    root = spec_tree_get(root, parent);
    return json_type(root) == JSON_OBJECT ? json_remove(root, dot ? dot + 1 : path) : -1;
}

const char *spec_tree_where(const struct spec_tree *tree, const char *path)
{
    char at[SPEC_PATH_MAX];
    char *dot;

    snprintf(at, sizeof(at), "%s", path);
    for (;;) {
        const char *place = json_get_string(tree->where, at);

        if (place)
            return place;
        dot = strrchr(at, '.');
        if (!dot)
            return "";
        *dot = '\0';
    }
}

int spec_tree_note_where(struct spec_tree *tree, const char *path, const char *place,
                         struct err *err)
{
    return json_set(tree->where, path, json_new_string(place), err);
}

int spec_path_join(char *out, const char *parent, const char *key, struct err *err)
{
    int n = snprintf(out, SPEC_PATH_MAX, "%s%s%s", parent, *parent ? "." : "", key);

    if (n < 0 || n >= SPEC_PATH_MAX)
        return err_set(err, ERR_LIMIT, "a key is longer than %d bytes: '%.60s...'",
                       SPEC_PATH_MAX - 1, out);
    return 0;
}
