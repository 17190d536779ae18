#include "common/base/map.h"

#include "common/base/hash.h"

#include <stdlib.h>
#include <string.h>

#define SLOTS_FIRST 16

/* The slot that has the key, or the first that was never used. There is one: tables are
 * never more than three quarters full. */
static struct map_slot *look(const struct map *map, const void *key, size_t n_bytes)
{
    size_t mask = map->n_slots - 1, at = hash64(key, n_bytes, 0) & mask;

    for (;; at = (at + 1) & mask) {
        struct map_slot *slot = &map->slots[at];

        if (!slot->key)
            return slot;
        if (slot->value && slot->n_bytes == n_bytes &&
            memcmp(slot->key, key, n_bytes) == 0)
            return slot;
    }
}

/* Room for one more; those removed leave the table. */
static int grow(struct map *map, struct err *err)
{
    struct map grown = {.n_slots = SLOTS_FIRST};
    size_t n = 0;

    if (map->n_slots && (map->n_used + 1) * 4 <= map->n_slots * 3)
        return 0;
    for (size_t i = 0; i < map->n_slots; i++)
        n += map->slots[i].value != NULL;
    while (grown.n_slots * 3 < (n + 1) * 4 * 2)
        grown.n_slots *= 2;
    grown.slots = calloc(grown.n_slots, sizeof(*grown.slots));
    if (!grown.slots)
        return err_set(err, ERR_NOMEM, "no memory for a map of %zu", grown.n_slots);
    for (size_t i = 0; i < map->n_slots; i++)
        if (map->slots[i].value) {
            *look(&grown, map->slots[i].key, map->slots[i].n_bytes) = map->slots[i];
            grown.n_used++;
        }
    free(map->slots);
    *map = grown;
    return 0;
}

int map_put(struct map *map, const void *key, size_t n_bytes, void *value,
            struct err *err)
{
    struct map_slot *slot;

    if (grow(map, err) < 0)
        return -1;
    slot = look(map, key, n_bytes);
    map->n_used += slot->key == NULL;
    *slot = (struct map_slot){key, n_bytes, value};
    return 0;
}

void *map_find(const struct map *map, const void *key, size_t n_bytes)
{
    return map->n_slots ? look(map, key, n_bytes)->value : NULL;
}

void map_remove(struct map *map, const void *key, size_t n_bytes)
{
    struct map_slot *slot = map->n_slots ? look(map, key, n_bytes) : NULL;

    if (slot && slot->key)
        *slot = (struct map_slot){.key = ""}; /* those behind it are still found */
}

void map_fini(struct map *map)
{
    free(map->slots);
    *map = (struct map){0};
}
