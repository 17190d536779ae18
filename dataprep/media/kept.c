#include "dataprep/media/kept.h"

#include <stdio.h>
#include <string.h>

static void place_drop(struct kept_index *place)
{
    if (place->is_used)
        index_fini(&place->index);
    place->is_used = false;
}

void kept_fini(struct kept_indexes *kept)
{
    for (int i = 0; i < KEPT_INDEXES_MAX; i++)
        place_drop(&kept->list[i]);
}

struct packet_index *kept_find(struct kept_indexes *kept, const struct source *source,
                               const char *path)
{
    for (int i = 0; i < KEPT_INDEXES_MAX; i++) {
        struct kept_index *place = &kept->list[i];

        if (!place->is_used || place->offset != source->offset ||
            place->n_bytes != source->n_bytes || place->mtime_ns != source->mtime_ns ||
            strcmp(place->path, path) != 0)
            continue;
        place->last_used = ++kept->clock;
        return &place->index;
    }
    return NULL;
}

/* The least recently used goes when all places are taken or they hold too much. */
struct kept_index *kept_make_room(struct kept_indexes *kept)
{
    for (;;) {
        struct kept_index *oldest = NULL, *empty = NULL;
        size_t n_bytes = 0;

        for (int i = 0; i < KEPT_INDEXES_MAX; i++) {
            struct kept_index *place = &kept->list[i];

            if (!place->is_used) {
                empty = place;
                continue;
            }
            n_bytes += index_bytes(&place->index);
            if (!oldest || place->last_used < oldest->last_used)
                oldest = place;
        }
        if (empty && (n_bytes <= KEPT_INDEX_BYTES || !oldest))
            return empty;
        place_drop(oldest);
    }
}

void kept_take(struct kept_indexes *kept, struct kept_index *place,
               const struct source *source, const char *path)
{
    snprintf(place->path, sizeof(place->path), "%s", path);
    place->offset = source->offset;
    place->n_bytes = source->n_bytes;
    place->mtime_ns = source->mtime_ns;
    place->last_used = ++kept->clock;
    place->is_used = true;
}
