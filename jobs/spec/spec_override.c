/* Hydra's overrides (source: Hydra 1.3's "basic override syntax"), for one value each;
 * sweeps and functions are not for jobs. */
#include "jobs/spec/spec_schema.h"
#include "jobs/spec/spec_tree.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

struct text { /* what is being read */
    const char *at;
    int depth;
    struct err *err;
};

static void skip_space(struct text *t)
{
    t->at += strspn(t->at, " \t");
}

/* A list's member or a group's key ends at one of these; a whole value only at its end. */
static bool is_end(const struct text *t)
{
    return !*t->at || (t->depth > 0 && strchr(",]}", *t->at));
}

static struct json *read_quoted(struct text *t)
{
    struct buf out = BUF_INIT;
    char quote = *t->at++;
    struct json *json;

    while (*t->at && *t->at != quote) {
        if (*t->at == '\\' && (t->at[1] == quote || t->at[1] == '\\'))
            t->at++;
        buf_add_char(&out, *t->at++);
    }
    if (*t->at != quote) {
        err_set(t->err, ERR_INVALID, "a quote %c is not closed", quote);
        buf_fini(&out);
        return NULL;
    }
    t->at++;
    json = json_new_string(buf_str(&out));
    buf_fini(&out);
    return json;
}

/* Copies a reference with all its nested ones; false when it is not closed. */
static bool copy_reference(struct text *t, struct buf *out)
{
    int open = 0;

    do {
        if (t->at[0] == '$' && t->at[1] == '{') {
            open++;
            buf_add_char(out, *t->at++);
        } else if (*t->at == '}') {
            open--;
        }
        buf_add_char(out, *t->at++);
    } while (open > 0 && *t->at);
    return open == 0;
}

static struct json *read_bare(struct text *t)
{
    struct buf out = BUF_INIT;
    struct json *json = NULL;
    bool is_reference = false;
    size_t n;

    while (!is_end(t)) {
        if (t->at[0] == '$' && t->at[1] == '{') {
            is_reference = true;
            if (!copy_reference(t, &out)) {
                err_set(t->err, ERR_INVALID, "a reference ${ is not closed");
                goto done;
            }
        } else if (t->depth == 0 && *t->at == ',') {
            err_set(t->err, ERR_INVALID,
                    "a comma starts a sweep, which a job is not: write [a,b] for a list, "
                    "or quote the value");
            goto done;
        } else {
            if (*t->at == '\\' && t->at[1])
                t->at++;
            buf_add_char(&out, *t->at++);
        }
    }
    for (n = out.n_bytes; n && isspace((unsigned char)out.data[n - 1]); n--)
        out.data[n - 1] = '\0';
    /* An empty value is an empty text, as in Hydra. */
    json =
        is_reference ? json_new_string(buf_str(&out)) : spec_scalar_hydra(buf_str(&out));
done:
    buf_fini(&out);
    return json;
}

static struct json *read_value(struct text *t);

/* After a member: true when another follows. close is ']' or '}'. */
static int read_separator(struct text *t, char close)
{
    skip_space(t);
    if (*t->at == ',') {
        t->at++;
        return 1;
    }
    if (*t->at == close) {
        t->at++;
        return 0;
    }
    return err_set(t->err, ERR_INVALID,
                   *t->at ? "',' or '%c' expected before '%.20s'"
                          : "'%c' is missing at the end%s",
                   close, t->at);
}

static int read_pair(struct text *t, struct json *group)
{
    char key[SPEC_PATH_MAX];
    size_t n;

    skip_space(t);
    n = strcspn(t->at, ":,}]");
    if (t->at[n] != ':' || n == 0 || n >= sizeof(key))
        return err_set(t->err, ERR_INVALID, "'key: value' expected at '%.20s'", t->at);
    snprintf(key, sizeof(key), "%.*s", (int)n, t->at);
    t->at += n + 1;
    return json_set(group, key, read_value(t), NULL);
}

static struct json *read_list(struct text *t)
{
    char close = *t->at++ == '[' ? ']' : '}';
    struct json *list = json_new(close == ']' ? JSON_ARRAY : JSON_OBJECT);
    int more = 1;

    t->depth++;
    skip_space(t);
    if (*t->at == close) {
        t->at++;
        more = 0;
    }
    while (list && more > 0) {
        if ((close == ']' ? json_append(list, read_value(t), NULL) : read_pair(t, list)) <
            0)
            more = -1;
        else
            more = read_separator(t, close);
    }
    t->depth--;
    if (more < 0) {
        json_free(list);
        return NULL;
    }
    return list;
}

static struct json *read_value(struct text *t)
{
    struct json *json;

    skip_space(t);
    if (t->depth > SPEC_DEPTH_MAX) {
        err_set(t->err, ERR_INVALID, "nested too deep");
        return NULL;
    }
    if (*t->at == '[' || *t->at == '{')
        json = read_list(t);
    else if (*t->at == '\'' || *t->at == '"')
        json = read_quoted(t);
    else
        json = read_bare(t);
    if (!json)
        return NULL;
    skip_space(t);
    if (!is_end(t)) {
        err_set(t->err, ERR_INVALID, "more text after the value: '%.20s'", t->at);
        json_free(json);
        return NULL;
    }
    return json;
}

enum operation { OP_SET, OP_ADD, OP_FORCE, OP_DELETE };

static enum operation read_operation(const char **text)
{
    static const struct {
        const char *prefix;
        enum operation operation;
    } table[] = {{"++", OP_FORCE}, {"+", OP_ADD}, {"~", OP_DELETE}};

    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
        if (strncmp(*text, table[i].prefix, strlen(table[i].prefix)) == 0) {
            *text += strlen(table[i].prefix);
            return table[i].operation;
        }
    return OP_SET;
}

static bool is_equal(const struct json *a, const struct json *b)
{
    struct buf text_a = BUF_INIT, text_b = BUF_INIT;
    bool result;

    json_write(&text_a, a, 0);
    json_write(&text_b, b, 0);
    result = strcmp(buf_str(&text_a), buf_str(&text_b)) == 0;
    buf_fini(&text_a);
    buf_fini(&text_b);
    return result;
}

static int apply_delete(struct spec_tree *tree, const char *key, const struct json *value,
                        struct err *err)
{
    const struct json *there = spec_tree_get(tree->root, key);

    if (!there)
        return err_set(err, ERR_INVALID, "nothing to remove: '%s' is not in the file",
                       key);
    if (value && !is_equal(there, value))
        return err_set(err, ERR_INVALID, "'%s' has another value, so it is not removed",
                       key);
    if (spec_tree_remove(tree->root, key) < 0)
        return err_set(err, ERR_INVALID, "'%s' is a list's member: set the whole list",
                       key);
    return 0;
}

/* The key, and the groups that were made for it, came from here. */
static int note_place(struct spec_tree *tree, const char *key, const char *place,
                      struct err *err)
{
    for (const char *dot = strchr(key, '.'); dot; dot = strchr(dot + 1, '.')) {
        char group[SPEC_PATH_MAX];

        snprintf(group, sizeof(group), "%.*s", (int)(dot - key), key);
        if (!json_get(tree->where, group) &&
            spec_tree_note_where(tree, group, place, err) < 0)
            return -1;
    }
    return spec_tree_note_where(tree, key, place, err);
}

static int apply_value(struct spec_tree *tree, enum operation operation, const char *key,
                       struct json *value, const char *place, struct err *err)
{
    if (operation == OP_ADD && spec_tree_get(tree->root, key)) {
        json_free(value);
        return err_set(err, ERR_EXISTS,
                       "'%s' is there already: leave out the + to change it", key);
    }
    if (operation == OP_SET && !spec_tree_get(tree->root, key) &&
        !spec_schema_find(key) && !spec_schema_is_group(key)) {
        char near[SPEC_PATH_MAX] = "";

        json_free(value);
        spec_schema_suggest(near, key);
        return err_set(err, ERR_INVALID, "no key '%s'%s%s%s", key,
                       *near ? "; did you mean '" : "", near, *near ? "'?" : "");
    }
    if (spec_tree_set(tree->root, key, value, err) < 0)
        return -1;
    return note_place(tree, key, place, err);
}

int spec_override_apply(struct spec_tree *tree, const char *override, struct err *err)
{
    const char *text = override;
    enum operation operation = read_operation(&text);
    const char *equals = strchr(text, '=');
    char key[SPEC_PATH_MAX], place[SPEC_PATH_MAX];
    size_t n = equals ? (size_t)(equals - text) : strlen(text);
    struct text value = {equals ? equals + 1 : "", 0, err};
    struct json *json = NULL;
    int rc;

    snprintf(place, sizeof(place), "override '%.200s': ", override);
    if (n == 0 || n >= sizeof(key) || (!equals && operation != OP_DELETE))
        return err_set(err, ERR_INVALID, "%skey=value expected", place);
    snprintf(key, sizeof(key), "%.*s", (int)n, text);
    if (equals) {
        err_set(err, ERR_NOMEM, "out of memory"); /* if nobody says better */
        json = read_value(&value);
        if (!json)
            goto failed;
    }
    if (operation == OP_DELETE) {
        rc = apply_delete(tree, key, json, err);
        json_free(json);
    } else {
        rc = apply_value(tree, operation, key, json, place, err);
    }
    if (rc == 0) {
        err_clear(err);
        return 0;
    }
failed:
    return err_wrap(err, "override '%.200s'", override);
}
