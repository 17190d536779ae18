/* YAML 1.1 through libyaml's events: mappings with text keys, sequences, scalars, anchors,
 * aliases and merge keys ("<<"). Refused: duplicate keys, several documents, tags other
 * than the core ones, keys that are no scalars. */
#include "jobs/spec/spec_tree.h"

#include <string.h>
#include <yaml.h>

struct reader {
    yaml_parser_t parser;
    const char *file, *text;
    size_t n_bytes;
    struct spec_tree *tree;
    struct json *anchors; /* name -> finished value */
    int n_nodes;
    struct err *err;
};

static int fail(struct reader *r, const yaml_event_t *event, const char *what,
                const char *which)
{
    return err_set(r->err, ERR_FORMAT, "%s:%zu: %s%s%s%s", r->file,
                   event->start_mark.line + 1, what, *which ? " '" : "", which,
                   *which ? "'" : "");
}

/* Whether a line, from 0, has a tab before its first word. */
static bool is_tab_indented(const struct reader *r, size_t line)
{
    const char *at = r->text, *end = r->text + r->n_bytes;

    for (; at && line; line--) {
        at = memchr(at, '\n', (size_t)(end - at));
        at = at ? at + 1 : NULL;
    }
    while (at && at < end && *at == ' ')
        at++;
    return at && at < end && *at == '\t';
}

static int next_event(struct reader *r, yaml_event_t *event)
{
    const char *what;

    if (yaml_parser_parse(&r->parser, event))
        return 0;
    what = r->parser.problem ? r->parser.problem : "not valid YAML";
    if (is_tab_indented(r, r->parser.problem_mark.line))
        what = "a tab before the first word: YAML wants spaces there";
    return err_set(r->err, ERR_FORMAT, "%s:%zu: %s", r->file,
                   r->parser.problem_mark.line + 1, what);
}

static int count_nodes(const struct json *json)
{
    int n = 1;

    for (size_t i = 0; i < json_count(json) && n < SPEC_NODES_MAX; i++)
        n += count_nodes(json_at(json, i));
    return n;
}

static struct json *read_alias(struct reader *r, const yaml_event_t *event)
{
    const char *name = (const char *)event->data.alias.anchor;
    struct json *target = json_get(r->anchors, name);

    if (!target) {
        fail(r, event, "alias names no finished anchor:", name);
        return NULL;
    }
    r->n_nodes += count_nodes(target);
    return json_clone(target);
}

static struct json *read_scalar(struct reader *r, const yaml_event_t *event)
{
    const char *text = (const char *)event->data.scalar.value;
    const char *tag = (const char *)event->data.scalar.tag;

    if (strlen(text) != event->data.scalar.length) {
        fail(r, event, "text holds a zero byte", "");
        return NULL;
    }
    if (tag && strcmp(tag, YAML_STR_TAG) == 0)
        return json_new_string(text);
    if (tag && strncmp(tag, "tag:yaml.org,2002:", 18) != 0) {
        fail(r, event, "tag is not known:", tag);
        return NULL;
    }
    if (event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE)
        return spec_scalar_yaml(text);
    return json_new_string(text);
}

static struct json *read_node(struct reader *r, yaml_event_t *event, const char *path,
                              int depth);

static struct json *read_sequence(struct reader *r, const char *path, int depth)
{
    struct json *list = json_new(JSON_ARRAY);
    yaml_event_t event;

    while (list) {
        bool is_end;

        if (next_event(r, &event) < 0)
            break;
        is_end = event.type == YAML_SEQUENCE_END_EVENT;
        if (!is_end &&
            json_append(list, read_node(r, &event, path, depth + 1), NULL) < 0) {
            yaml_event_delete(&event);
            break;
        }
        yaml_event_delete(&event);
        if (is_end)
            return list;
    }
    json_free(list);
    return NULL;
}

/* Members of `from` (a mapping or a list of them) that `map` does not have. */
static int merge_into(struct reader *r, struct json *map, const struct json *from,
                      const yaml_event_t *event)
{
    if (json_type(from) == JSON_ARRAY) {
        for (size_t i = 0; i < json_count(from); i++)
            if (merge_into(r, map, json_at(from, i), event) < 0)
                return -1;
        return 0;
    }
    if (json_type(from) != JSON_OBJECT)
        return fail(r, event, "'<<' takes a mapping or a list of mappings", "");
    for (size_t i = 0; i < json_count(from); i++) {
        const char *key = json_key_at(from, i);

        if (!json_get(map, key) &&
            json_set(map, key, json_clone(json_at(from, i)), r->err) < 0)
            return -1;
    }
    return 0;
}

/* One key and its value. merges: what "<<" brings, applied last so that the mapping's own
 * keys win. */
static int read_member(struct reader *r, const yaml_event_t *key_event, struct json *map,
                       struct json *merges, const char *path, int depth)
{
    const char *key = (const char *)key_event->data.scalar.value;
    char where[SPEC_PATH_MAX + 32], member[SPEC_PATH_MAX];
    yaml_event_t event;
    struct json *value;

    if (key_event->type != YAML_SCALAR_EVENT)
        return fail(r, key_event, "a key must be a word", "");
    if (json_get(map, key))
        return fail(r, key_event, "key is there twice:", key);
    if (spec_path_join(member, path, key, r->err) < 0 || next_event(r, &event) < 0)
        return -1;
    snprintf(where, sizeof(where), "%.200s:%zu: ", r->file,
             key_event->start_mark.line + 1);
    value = read_node(r, &event, member, depth + 1);
    yaml_event_delete(&event);
    if (!value)
        return -1;
    if (strcmp(key, "<<") == 0)
        return json_append(merges, value, r->err);
    if (json_set(map, key, value, r->err) < 0)
        return -1;
    return spec_tree_note_where(r->tree, member, where, r->err);
}

static struct json *read_mapping(struct reader *r, const char *path, int depth)
{
    struct json *map = json_new(JSON_OBJECT), *merges = json_new(JSON_ARRAY);
    yaml_event_t event;
    bool is_end = false;
    int rc = map && merges ? 0 : -1;

    while (rc == 0 && !is_end) {
        rc = next_event(r, &event);
        if (rc < 0)
            break;
        is_end = event.type == YAML_MAPPING_END_EVENT;
        rc = is_end ? merge_into(r, map, merges, &event)
                    : read_member(r, &event, map, merges, path, depth);
        yaml_event_delete(&event);
    }
    json_free(merges);
    if (rc < 0) {
        json_free(map);
        return NULL;
    }
    return map;
}

static const char *anchor_of(const yaml_event_t *event)
{
    const yaml_char_t *anchor = NULL;

    if (event->type == YAML_SCALAR_EVENT)
        anchor = event->data.scalar.anchor;
    else if (event->type == YAML_SEQUENCE_START_EVENT)
        anchor = event->data.sequence_start.anchor;
    else if (event->type == YAML_MAPPING_START_EVENT)
        anchor = event->data.mapping_start.anchor;
    return (const char *)anchor;
}

static struct json *read_node(struct reader *r, yaml_event_t *event, const char *path,
                              int depth)
{
    struct json *json = NULL;

    if (depth > SPEC_DEPTH_MAX) {
        fail(r, event, "nested too deep", "");
        return NULL;
    }
    if (event->type == YAML_ALIAS_EVENT)
        json = read_alias(r, event);
    else if (event->type == YAML_SCALAR_EVENT)
        json = read_scalar(r, event);
    else if (event->type == YAML_SEQUENCE_START_EVENT)
        json = read_sequence(r, path, depth);
    else if (event->type == YAML_MAPPING_START_EVENT)
        json = read_mapping(r, path, depth);
    else
        fail(r, event, "value expected", "");
    if (json && ++r->n_nodes > SPEC_NODES_MAX) {
        json_free(json);
        fail(r, event, "more values than a specification may hold", "");
        return NULL;
    }
    if (json && anchor_of(event) &&
        json_set(r->anchors, anchor_of(event), json_clone(json), r->err) < 0) {
        json_free(json);
        return NULL;
    }
    return json;
}

/* The one document of the stream; an empty one leaves the tree empty. */
static int read_document(struct reader *r, const yaml_event_t *event)
{
    yaml_event_t first;
    struct json *root;

    if (json_count(r->tree->root))
        return fail(r, event, "a second document: a specification is one", "");
    if (next_event(r, &first) < 0)
        return -1;
    root = read_node(r, &first, "", 0);
    if (json_type(root) != JSON_OBJECT && json_type(root) != JSON_NULL)
        fail(r, &first, "a specification is a mapping of keys", "");
    yaml_event_delete(&first);
    if (!root || json_type(root) == JSON_NULL) {
        int rc = root ? 0 : -1;

        json_free(root);
        return rc;
    }
    if (json_type(root) != JSON_OBJECT) {
        json_free(root);
        return -1;
    }
    json_free(r->tree->root);
    r->tree->root = root;
    return 0;
}

int spec_yaml_read(struct spec_tree *tree, const char *file, const char *text,
                   size_t n_bytes, struct err *err)
{
    struct reader r = {
        .file = file, .text = text, .n_bytes = n_bytes, .tree = tree, .err = err};
    bool is_end = false;
    int rc;

    err_set(err, ERR_NOMEM,
            "out of memory in a specification"); /* if nobody says better */
    r.anchors = json_new(JSON_OBJECT);
    if (!r.anchors)
        return -1;
    if (!yaml_parser_initialize(&r.parser)) {
        json_free(r.anchors);
        return -1;
    }
    yaml_parser_set_input_string(&r.parser, (const unsigned char *)text, n_bytes);
    do {
        yaml_event_t event;

        rc = next_event(&r, &event);
        if (rc < 0)
            break;
        if (event.type == YAML_DOCUMENT_START_EVENT)
            rc = read_document(&r, &event);
        is_end = event.type == YAML_STREAM_END_EVENT;
        yaml_event_delete(&event);
    } while (rc == 0 && !is_end);
    yaml_parser_delete(&r.parser);
    json_free(r.anchors);
    if (rc == 0)
        err_clear(err);
    return rc;
}
