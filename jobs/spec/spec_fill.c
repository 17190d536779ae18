#include "jobs/spec/spec_schema.h"

#include <stdlib.h>
#include <string.h>

int spec_list_add(struct spec_list *list, const char *text, struct err *err)
{
    char *copy = strdup(text);
    char **items = realloc(list->items, (size_t)(list->count + 1) * sizeof(*list->items));

    if (items)
        list->items = items;
    if (!items || !copy) {
        free(copy);
        return err_set(err, ERR_NOMEM, "out of memory in a list");
    }
    items[list->count++] = copy;
    return 0;
}

void spec_list_fini(struct spec_list *list)
{
    for (int64_t i = 0; i < list->count; i++)
        free(list->items[i]);
    free(list->items);
    list->items = NULL;
    list->count = 0;
}

static bool is_text(enum spec_type type)
{
    return type == SPEC_STRING || type == SPEC_PATH || type == SPEC_MAYBE_PATH ||
           type == SPEC_PRECISION;
}

static bool is_list(enum spec_type type)
{
    return type == SPEC_PATHS || type == SPEC_STRINGS;
}

static int fill_text(char **out, const struct json *value, struct err *err)
{
    free(*out);
    *out = strdup(json_string(value));
    return *out ? 0 : err_set(err, ERR_NOMEM, "out of memory in a specification");
}

static int fill_list(struct spec_list *out, const struct json *value, struct err *err)
{
    spec_list_fini(out);
    for (size_t i = 0; i < json_count(value); i++)
        if (spec_list_add(out, json_string(json_at(value, i)), err) < 0)
            return -1;
    return 0;
}

/* The value was checked: it has the key's type. */
static int fill_key(struct spec *spec, const struct spec_key *key,
                    const struct json *value, struct err *err)
{
    void *target = (char *)spec + key->offset;
    double *pair = target;

    if (json_type(value) == JSON_NULL)
        return 0;
    if (is_text(key->type))
        return fill_text(target, value, err);
    if (is_list(key->type))
        return fill_list(target, value, err);
    if (key->type == SPEC_SIDE && json_type(value) == JSON_ARRAY)
        value = json_at(value, 0);
    if (key->type == SPEC_INT || key->type == SPEC_SIDE) {
        *(int64_t *)target = json_int(value, 0);
    } else if (key->type == SPEC_NUMBER) {
        *(double *)target = json_double(value, 0);
    } else if (key->type == SPEC_BOOL) {
        *(bool *)target = json_bool(value, false);
    } else if (key->type == SPEC_SHARE) {
        bool is_count = json_type(value) == JSON_INT;

        *(struct spec_share *)target = (struct spec_share){
            is_count ? json_int(value, 0) : -1, is_count ? 0 : json_double(value, 0)};
    } else if (key->type == SPEC_PAIR) {
        pair[0] = json_double(json_at(value, 0), 0);
        pair[1] = json_double(json_at(value, 1), 0);
    }
    return 0;
}

int spec_fill(struct spec *spec, const struct json *tree, struct err *err)
{
    for (size_t i = 0; i < spec_n_keys; i++)
        if (spec_keys[i].use == SPEC_USED &&
            fill_key(spec, &spec_keys[i], spec_tree_get(tree, spec_keys[i].path), err) <
                0)
            return -1;
    return 0;
}

void spec_free(struct spec *spec)
{
    if (!spec)
        return;
    for (size_t i = 0; i < spec_n_keys; i++) {
        char *target = (char *)spec + spec_keys[i].offset;

        if (spec_keys[i].use != SPEC_USED)
            continue;
        if (is_text(spec_keys[i].type)) {
            free(*(char **)(void *)target);
            *(char **)(void *)target = NULL; /* two keys may fill one field */
        } else if (is_list(spec_keys[i].type)) {
            spec_list_fini((struct spec_list *)(void *)target);
        }
    }
    json_free(spec->tree);
    free(spec);
}
