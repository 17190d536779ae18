#include "common/base/hash.h"
#include "common/base/json_internal.h"

#include <stdlib.h>
#include <string.h>

/* Objects of more members find their keys by a hash table: a vocabulary has 100,000. */
#define LINEAR_MAX 16

static bool is_list(const struct json *json)
{
    return json && (json->type == JSON_ARRAY || json->type == JSON_OBJECT);
}

void json_free(struct json *json)
{
    if (!json)
        return;
    if (json->type == JSON_STRING)
        free(json->string.data);
    if (is_list(json)) {
        for (size_t i = 0; i < json->list.count; i++) {
            json_free(json->list.items[i]);
            if (json->list.keys)
                free(json->list.keys[i]);
        }
        free(json->list.items);
        free(json->list.keys);
        free(json->list.places);
    }
    free(json);
}

/* ---- reading a tree ---- */

enum json_type json_type(const struct json *json)
{
    return json ? json->type : JSON_NULL;
}

const char *json_type_name(enum json_type type)
{
    static const char *const names[] = {
        [JSON_NULL] = "null",        [JSON_BOOL] = "true or false",
        [JSON_INT] = "whole number", [JSON_DOUBLE] = "number",
        [JSON_STRING] = "string",    [JSON_ARRAY] = "list",
        [JSON_OBJECT] = "object",
    };

    return names[type];
}

const char *json_string(const struct json *json)
{
    return json && json->type == JSON_STRING ? json->string.data : NULL;
}

size_t json_string_bytes(const struct json *json)
{
    return json && json->type == JSON_STRING ? json->string.n_bytes : 0;
}

int64_t json_int(const struct json *json, int64_t otherwise)
{
    return json && json->type == JSON_INT ? json->whole : otherwise;
}

double json_double(const struct json *json, double otherwise)
{
    if (json && json->type == JSON_INT)
        return (double)json->whole;
    return json && json->type == JSON_DOUBLE ? json->number : otherwise;
}

bool json_bool(const struct json *json, bool otherwise)
{
    return json && json->type == JSON_BOOL ? json->boolean : otherwise;
}

size_t json_count(const struct json *json)
{
    return is_list(json) ? json->list.count : 0;
}

struct json *json_at(const struct json *json, size_t i)
{
    return is_list(json) && i < json->list.count ? json->list.items[i] : NULL;
}

const char *json_key_at(const struct json *json, size_t i)
{
    return json_type(json) == JSON_OBJECT && i < json->list.count ? json->list.keys[i]
                                                                  : NULL;
}

/* ---- keys ---- */

/* Slots of the table: twice the capacity, which is a power of two. A slot holds a member's
 * number + 1, or 0; a key goes into the first free slot from that of its hash on. */
static size_t n_slots(const struct json *object)
{
    return 2 * object->list.capacity;
}

static size_t next_slot(const struct json *object, size_t slot)
{
    return (slot + 1) & (n_slots(object) - 1);
}

static size_t first_slot(const struct json *object, const char *key)
{
    return hash64(key, strlen(key), 0) & (n_slots(object) - 1);
}

static void place_key(struct json *object, size_t i)
{
    size_t slot = first_slot(object, object->list.keys[i]);

    while (object->list.places[slot])
        slot = next_slot(object, slot);
    object->list.places[slot] = (uint32_t)i + 1;
}

/* The table anew; without memory for it keys are searched one by one. */
static void place_keys(struct json *object)
{
    free(object->list.places);
    object->list.places = NULL;
    if (object->list.count < LINEAR_MAX || object->list.capacity > UINT32_MAX / 4)
        return;
    object->list.places = calloc(n_slots(object), sizeof(*object->list.places));
    for (size_t i = 0; object->list.places && i < object->list.count; i++)
        place_key(object, i);
}

static ptrdiff_t find_place(const struct json *object, const char *key)
{
    size_t slot = first_slot(object, key);

    while (object->list.places[slot]) {
        size_t i = object->list.places[slot] - 1;

        if (strcmp(object->list.keys[i], key) == 0)
            return (ptrdiff_t)i;
        slot = next_slot(object, slot);
    }
    return -1;
}

/* Number of a member, or -1. */
static ptrdiff_t find_key(const struct json *json, const char *key)
{
    if (json_type(json) != JSON_OBJECT)
        return -1;
    if (json->list.places)
        return find_place(json, key);
    for (size_t i = 0; i < json->list.count; i++)
        if (strcmp(json->list.keys[i], key) == 0)
            return (ptrdiff_t)i;
    return -1;
}

struct json *json_get(const struct json *json, const char *key)
{
    ptrdiff_t i = find_key(json, key);

    return i < 0 ? NULL : json->list.items[i];
}

const char *json_get_string(const struct json *json, const char *key)
{
    return json_string(json_get(json, key));
}

const char *json_get_text(const struct json *json, const char *key)
{
    const char *text = json_get_string(json, key);

    return text ? text : "";
}

int64_t json_get_int(const struct json *json, const char *key, int64_t otherwise)
{
    return json_int(json_get(json, key), otherwise);
}

double json_get_double(const struct json *json, const char *key, double otherwise)
{
    return json_double(json_get(json, key), otherwise);
}

/* ---- building ---- */

struct json *json_new(enum json_type type)
{
    struct json *json = calloc(1, sizeof(*json));

    if (!json)
        return NULL;
    json->type = type;
    if (type == JSON_STRING) {
        json->string.data = calloc(1, 1);
        if (!json->string.data) {
            free(json);
            return NULL;
        }
    }
    return json;
}

struct json *json_new_bool(bool value)
{
    struct json *json = json_new(JSON_BOOL);

    if (json)
        json->boolean = value;
    return json;
}

struct json *json_new_int(int64_t value)
{
    struct json *json = json_new(JSON_INT);

    if (json)
        json->whole = value;
    return json;
}

struct json *json_new_double(double value)
{
    struct json *json = json_new(JSON_DOUBLE);

    if (json)
        json->number = value;
    return json;
}

struct json *json_take_string(char *owned, size_t n_bytes)
{
    struct json *json = owned ? calloc(1, sizeof(*json)) : NULL;

    if (!json) {
        free(owned);
        return NULL;
    }
    json->type = JSON_STRING;
    json->string.data = owned;
    json->string.n_bytes = n_bytes;
    return json;
}

struct json *json_new_string(const char *text)
{
    return json_take_string(strdup(text), strlen(text));
}

static int list_grow(struct json *list)
{
    size_t capacity = list->list.capacity ? 2 * list->list.capacity : 4;
    struct json **items;
    char **keys;

    if (list->type == JSON_OBJECT) {
        keys = realloc(list->list.keys, capacity * sizeof(*keys));
        if (!keys)
            return -1;
        list->list.keys = keys;
    }
    items = realloc(list->list.items, capacity * sizeof(*items));
    if (!items)
        return -1;
    list->list.items = items;
    list->list.capacity = capacity;
    if (list->type == JSON_OBJECT)
        place_keys(list);
    return 0;
}

int json_list_add(struct json *list, char *key, struct json *child, struct err *err)
{
    bool is_object = list->type == JSON_OBJECT;

    if (!child || (is_object && !key) ||
        (list->list.count == list->list.capacity && list_grow(list) < 0)) {
        free(key);
        json_free(child);
        return err_set(err, ERR_NOMEM, "out of memory in a JSON tree");
    }
    if (is_object)
        list->list.keys[list->list.count] = key;
    list->list.items[list->list.count++] = child;
    if (list->list.places)
        place_key(list, list->list.count - 1);
    return 0;
}

int json_append(struct json *array, struct json *child, struct err *err)
{
    if (json_type(array) != JSON_ARRAY) {
        json_free(child);
        return err_set(err, ERR_NOMEM, "out of memory in a JSON tree");
    }
    return json_list_add(array, NULL, child, err);
}

int json_set(struct json *object, const char *key, struct json *child, struct err *err)
{
    ptrdiff_t i = find_key(object, key);

    if (json_type(object) != JSON_OBJECT || !child) {
        json_free(child);
        return err_set(err, ERR_NOMEM, "out of memory in a JSON tree");
    }
    if (i >= 0) {
        json_free(object->list.items[i]);
        object->list.items[i] = child;
        return 0;
    }
    return json_list_add(object, strdup(key), child, err);
}

int json_remove(struct json *object, const char *key)
{
    ptrdiff_t i = find_key(object, key);
    size_t after;

    if (i < 0)
        return -1;
    json_free(object->list.items[i]);
    free(object->list.keys[i]);
    after = --object->list.count - (size_t)i;
    memmove(&object->list.items[i], &object->list.items[i + 1],
            after * sizeof(*object->list.items));
    memmove(&object->list.keys[i], &object->list.keys[i + 1],
            after * sizeof(*object->list.keys));
    place_keys(object);
    return 0;
}

struct json *json_clone(const struct json *json)
{
    struct json *copy;

    if (json_type(json) == JSON_STRING) {
        char *data = malloc(json->string.n_bytes + 1);

        if (data)
            memcpy(data, json->string.data, json->string.n_bytes + 1);
        return json_take_string(data, json->string.n_bytes);
    }
    copy = json_new(json_type(json));
    if (!copy || !json)
        return copy;
    if (!is_list(json)) {
        *copy = *json;
        return copy;
    }
    for (size_t i = 0; i < json->list.count; i++) {
        char *key = copy->type == JSON_OBJECT ? strdup(json->list.keys[i]) : NULL;

        if (json_list_add(copy, key, json_clone(json->list.items[i]), NULL) < 0) {
            json_free(copy);
            return NULL;
        }
    }
    return copy;
}
