/* OmegaConf's references: ${a.b} from the root, ${.x} beside this key, ${..x} one group
 * up; ${multiply:a,b}; nested anywhere; alone they keep the type of what they name, inside
 * text they become text. "\${" is a plain "${". */
#include "jobs/spec/spec_schema.h"
#include "jobs/spec/spec_tree.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct resolver {
    const struct spec_tree *tree;
    char stack[SPEC_DEPTH_MAX][SPEC_PATH_MAX]; /* texts being resolved, by path */
    int depth;
    int n_nodes;
    struct err *err;
};

static struct json *resolve_node(struct resolver *r, const struct json *node,
                                 const char *path);
static struct json *resolve_text(struct resolver *r, const char *text, const char *path);

static bool has_reference(const struct json *json)
{
    const char *text = json_string(json);

    return text && strstr(text, "${");
}

/* The '}' that closes the reference at "${", or NULL. */
static const char *find_close(const char *at)
{
    int open = 0;

    for (; *at; at++) {
        if (at[0] == '$' && at[1] == '{') {
            open++;
            at++;
        } else if (*at == '}' && --open == 0) {
            return at;
        }
    }
    return NULL;
}

/* ---- references ---- */

/* Turns ".x", "..x", "a[0].b" as written at path into a path from the root. */
static int absolute_path(struct resolver *r, char *out, const char *reference,
                         const char *path)
{
    size_t n_dots = strspn(reference, "."), n = 0;
    char base[SPEC_PATH_MAX];

    snprintf(base, sizeof(base), "%s", n_dots ? path : "");
    for (size_t i = 0; i < n_dots; i++) {
        char *dot = strrchr(base, '.');

        if (!*base)
            return err_set(r->err, ERR_INVALID, "${%s} goes above the top", reference);
        *(dot ? dot : base) = '\0';
    }
    if (spec_path_join(out, base, reference + n_dots, r->err) < 0)
        return -1;
    for (const char *c = out; *c; c++) { /* a[0] is a.0 */
        if (*c == ']')
            continue;
        out[n++] = *c == '[' ? '.' : *c;
    }
    out[n] = '\0';
    return 0;
}

/* The longest part of path that is in the tree, resolved; *rest what is left to find in
 * it. The caller owns the result. */
static struct json *find_start(struct resolver *r, const char *path, const char **rest)
{
    char part[SPEC_PATH_MAX];
    struct json *node;

    snprintf(part, sizeof(part), "%s", path);
    for (;;) {
        char *dot = strrchr(part, '.');

        node = spec_tree_get(r->tree->root, part);
        if (node) {
            *rest = path + strlen(part) + (path[strlen(part)] == '.');
            /* Only the whole of path, or a reference on the way, is resolved. */
            return **rest && !has_reference(node) ? NULL : resolve_node(r, node, part);
        }
        if (!dot)
            return NULL;
        *dot = '\0';
    }
}

static struct json *look_up(struct resolver *r, const char *reference, const char *path)
{
    char target[SPEC_PATH_MAX];
    const char *rest = "", *text;
    struct json *start, *found;

    if (absolute_path(r, target, reference, path) < 0)
        return NULL;
    err_clear(r->err);
    start = find_start(r, target, &rest);
    if (!start && r->err->code)
        return NULL;
    if (start && !*rest)
        return start;
    found = start ? spec_tree_get(start, rest) : NULL;
    if (found) {
        found = json_clone(found);
    } else if (spec_schema_find(target)) {
        text = spec_schema_find(target)->text;
        found = resolve_text(r, text ? text : "null", target);
    } else {
        char near[SPEC_PATH_MAX] = "";

        spec_schema_suggest(near, target);
        err_set(r->err, ERR_INVALID, "${%s}: nothing is called '%s'%s%s%s", reference,
                target, *near ? "; did you mean '" : "", near, *near ? "'?" : "");
    }
    json_free(start);
    return found;
}

/* ---- ${multiply:a,b} ---- */

static struct json *multiply(struct resolver *r, const struct json *a,
                             const struct json *b)
{
    int64_t whole;
    double product;

    if (json_type(a) == JSON_INT && json_type(b) == JSON_INT) {
        if (!__builtin_mul_overflow(json_int(a, 0), json_int(b, 0), &whole))
            return json_new_int(whole);
        err_set(r->err, ERR_INVALID, "${multiply:...}: the product is too large");
        return NULL;
    }
    product = json_double(a, NAN) * json_double(b, NAN);
    if (isfinite(product))
        return json_new_double(product);
    err_set(r->err, ERR_INVALID, "${multiply:...} takes two numbers, not a %s and a %s",
            json_type_name(json_type(a)), json_type_name(json_type(b)));
    return NULL;
}

/* One argument, up to a comma outside of any nested reference; *at moves past it. */
static struct json *read_argument(struct resolver *r, const char **at, const char *path)
{
    const char *start = *at + strspn(*at, " \t"), *end = start;
    struct json *json;
    char *text;

    while (*end && *end != ',') {
        const char *close = end[0] == '$' && end[1] == '{' ? find_close(end) : end;

        end = close ? close + 1 : end + 1;
    }
    *at = end + (*end == ',');
    while (end > start && (end[-1] == ' ' || end[-1] == '\t'))
        end--;
    text = strndup(start, (size_t)(end - start));
    json = text ? resolve_text(r, text, path) : NULL;
    free(text);
    return json;
}

static struct json *call_function(struct resolver *r, const char *call, size_t n_name,
                                  const char *path)
{
    const char *at = call + n_name + 1;
    struct json *a, *b, *product = NULL;

    if (n_name != strlen("multiply") || strncmp(call, "multiply", n_name) != 0) {
        err_set(r->err, ERR_INVALID, "${%s}: no function '%.*s'; there is multiply", call,
                (int)n_name, call);
        return NULL;
    }
    a = read_argument(r, &at, path);
    b = a ? read_argument(r, &at, path) : NULL;
    if (b && *at)
        err_set(r->err, ERR_INVALID, "${%s}: multiply takes two arguments", call);
    else if (b)
        product = multiply(r, a, b);
    json_free(a);
    json_free(b);
    return product;
}

/* ---- texts ---- */

/* As Python writes it, for a text that a NeMo user expects. */
static int add_as_text(struct resolver *r, struct buf *out, const struct json *json)
{
    switch (json_type(json)) {
    case JSON_STRING:
        buf_add_str(out, json_string(json));
        return 0;
    case JSON_BOOL:
        buf_add_str(out, json_bool(json, false) ? "True" : "False");
        return 0;
    case JSON_NULL:
        buf_add_str(out, "None");
        return 0;
    case JSON_ARRAY:
    case JSON_OBJECT:
        return err_set(r->err, ERR_INVALID, "a %s cannot be part of a text",
                       json_type_name(json_type(json)));
    default:
        json_write(out, json, 0);
        return 0;
    }
}

/* What is between "${" and its "}". */
static struct json *resolve_inner(struct resolver *r, const char *inner, const char *path)
{
    size_t n_name = strspn(inner, "abcdefghijklmnopqrstuvwxyz_.");
    struct json *name, *found = NULL;

    if (n_name && inner[n_name] == ':')
        return call_function(r, inner, n_name, path);
    if (!strstr(inner, "${"))
        return look_up(r, inner, path);
    name = resolve_text(r, inner, path); /* ${a.${b}} */
    if (json_string(name))
        found = look_up(r, json_string(name), path);
    else if (name)
        err_set(r->err, ERR_INVALID, "${%s} does not give a name", inner);
    json_free(name);
    return found;
}

/* The reference at "${"; *at moves past it. */
static struct json *take_reference(struct resolver *r, const char **at, const char *path)
{
    const char *close = find_close(*at);
    struct json *json;
    char *inner;

    if (!close) {
        err_set(r->err, ERR_INVALID, "a reference is not closed: '%.60s'", *at);
        return NULL;
    }
    inner = strndup(*at + 2, (size_t)(close - *at - 2));
    json = inner ? resolve_inner(r, inner, path) : NULL;
    free(inner);
    *at = close + 1;
    return json;
}

/* A text with references in it, at least one of them not being all of it. */
static struct json *resolve_mixed(struct resolver *r, const char *text, const char *path)
{
    struct buf out = BUF_INIT;
    struct json *json = NULL;

    while (*text) {
        if (strncmp(text, "\\${", 3) == 0) {
            buf_add_str(&out, "${");
            text += 3;
        } else if (strncmp(text, "${", 2) == 0) {
            struct json *part = take_reference(r, &text, path);
            int rc = part ? add_as_text(r, &out, part) : -1;

            json_free(part);
            if (rc < 0)
                goto done;
        } else {
            buf_add_char(&out, *text++);
        }
        if (out.n_bytes > SPEC_FILE_MAX) {
            err_set(r->err, ERR_LIMIT, "a text grows past %u bytes", SPEC_FILE_MAX);
            goto done;
        }
    }
    json = json_new_string(buf_str(&out));
done:
    buf_fini(&out);
    return json;
}

/* text: a scalar as YAML, or one with references. */
static struct json *resolve_text(struct resolver *r, const char *text, const char *path)
{
    const char *at = text, *close;
    struct json *json = NULL;

    if (!strstr(text, "${"))
        return spec_scalar_yaml(text);
    if (r->depth == SPEC_DEPTH_MAX) {
        err_set(r->err, ERR_INVALID, "references are nested deeper than %d",
                SPEC_DEPTH_MAX);
        return NULL;
    }
    snprintf(r->stack[r->depth++], SPEC_PATH_MAX, "%s", path);
    close = strncmp(text, "${", 2) == 0 ? find_close(text) : NULL;
    json =
        close && !close[1] ? take_reference(r, &at, path) : resolve_mixed(r, text, path);
    r->depth--;
    return json;
}

/* Says how the texts being resolved lead back to path. */
static void name_cycle(struct resolver *r, int first, const char *path)
{
    struct buf names = BUF_INIT;

    for (int i = first; i < r->depth; i++)
        buf_printf(&names, "%s -> ", r->stack[i]);
    err_set(r->err, ERR_INVALID, "references go in a circle: %s%s", buf_str(&names),
            path);
    buf_fini(&names);
}

static struct json *resolve_list(struct resolver *r, const struct json *node,
                                 const char *path)
{
    bool is_object = json_type(node) == JSON_OBJECT;
    struct json *copy = json_new(json_type(node));

    for (size_t i = 0; copy && i < json_count(node); i++) {
        char member[SPEC_PATH_MAX], number[24];
        const char *key = json_key_at(node, i);
        struct json *child = NULL;

        snprintf(number, sizeof(number), "%zu", i);
        if (spec_path_join(member, path, key ? key : number, r->err) == 0)
            child = resolve_node(r, json_at(node, i), member);
        if (!child || (is_object ? json_set(copy, key, child, r->err)
                                 : json_append(copy, child, r->err)) < 0) {
            json_free(copy);
            return NULL;
        }
    }
    return copy;
}

static struct json *resolve_node(struct resolver *r, const struct json *node,
                                 const char *path)
{
    const char *text;
    struct json *json;

    if (++r->n_nodes > SPEC_NODES_MAX) {
        err_set(r->err, ERR_LIMIT, "references give more than %d values", SPEC_NODES_MAX);
        return NULL;
    }
    if (json_type(node) == JSON_ARRAY || json_type(node) == JSON_OBJECT)
        return resolve_list(r, node, path);
    text = json_string(node);
    if (!text || !has_reference(node))
        return json_clone(node);
    for (int i = 0; i < r->depth; i++)
        if (strcmp(r->stack[i], path) == 0) {
            name_cycle(r, i, path);
            return NULL;
        }
    json = resolve_text(r, text, path);
    if (!json && r->depth == 0) { /* said once, for the outermost */
        char place[SPEC_PATH_MAX];

        snprintf(place, sizeof(place), "%s%s", spec_tree_where(r->tree, path), path);
        err_wrap(r->err, "%s", place);
    }
    return json;
}

/* Errors are kept here, for look_up must know whether there was one. */
static struct json *resolve_top(const struct spec_tree *tree, const struct json *node,
                                const char *path, const char *text, struct err *err)
{
    struct resolver *r = calloc(1, sizeof(*r)); /* large for the stack */
    struct err own = {ERR_NONE, ""};
    struct json *json = NULL;

    if (r) {
        r->tree = tree;
        r->err = &own;
        if (node)
            json = resolve_node(r, node, path);
        else if (text)
            json = resolve_text(r, text, path);
    }
    if (!json) {
        if (own.code)
            err_set(err, own.code, "%s", own.text);
        else
            err_set(err, ERR_NOMEM, "out of memory in references");
    }
    free(r);
    return json;
}

int spec_resolve(struct spec_tree *tree, struct err *err)
{
    struct json *resolved = resolve_top(tree, tree->root, "", NULL, err);

    if (!resolved)
        return -1;
    json_free(tree->root);
    tree->root = resolved;
    return 0;
}

int spec_resolve_text(struct json **out, const struct spec_tree *tree, const char *path,
                      const char *text, struct err *err)
{
    *out = resolve_top(tree, NULL, path, text, err);
    return *out ? 0 : -1;
}
