/* map.h - finds objects by the bytes of a key that they hold themselves
 *
 * A hash table of open addressing. Keys and values are borrowed: both stay as they are as
 * long as they are in the map.
 * Owns: its table. Threads: none; one caller at a time.
 */
#ifndef VNEVA_COMMON_BASE_MAP_H
#define VNEVA_COMMON_BASE_MAP_H

#include "common/base/err.h"

#include <stddef.h>

struct map_slot {
    const void *key; /* NULL: never used */
    size_t n_bytes;
    void *value; /* NULL: was removed */
};

struct map { /* zero: empty */
    struct map_slot *slots;
    size_t n_slots, n_used; /* used: removed ones count until the table grows */
};

/* A key that is there gets the new value, and keeps its bytes in the new place. value is
 * not NULL. ERR_NOMEM. */
int map_put(struct map *map, const void *key, size_t n_bytes, void *value,
            struct err *err);
void *map_find(const struct map *map, const void *key, size_t n_bytes); /* NULL: none */
void map_remove(struct map *map, const void *key, size_t n_bytes);
void map_fini(struct map *map);

#endif
