/* json_internal.h - what the tree, its reader and its writer share */
#ifndef VNEVA_COMMON_BASE_JSON_INTERNAL_H
#define VNEVA_COMMON_BASE_JSON_INTERNAL_H

#include "common/base/json.h"

struct json {
    enum json_type type;
    union { /* by type */
        bool boolean;
        int64_t whole;
        double number;
        struct {
            char *data;
            size_t n_bytes;
        } string;
    };
    struct {
        struct json **items;
        char **keys; /* objects only */
        size_t count;
        size_t capacity;
        uint32_t *places; /* of a large object: where a key is, by its hash */
    } list;
};

/* A string of these bytes with a NUL behind them; takes `owned` (NULL: out of memory) in
 * every case. */
struct json *json_take_string(char *owned, size_t n_bytes);

/* Takes the child and the key (NULL for arrays) in every case; the key is a new one. */
int json_list_add(struct json *list, char *key, struct json *child, struct err *err);

#endif
