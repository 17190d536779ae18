/* kept.h - packet indexes of videos, kept from one request to the next
 *
 * By path, place, size and time of change. At most KEPT_INDEX_BYTES are held once a new one
 * is made, the least recently used go first.
 * Owns: the indexes. Threads: one caller. Inside dataprep/media only.
 */
#ifndef VNEVA_DATAPREP_MEDIA_KEPT_H
#define VNEVA_DATAPREP_MEDIA_KEPT_H

#include "dataprep/media/index.h"

#define KEPT_INDEXES_MAX 64
#define KEPT_INDEX_BYTES ((size_t)64 << 20)

struct kept_index {
    struct packet_index index;
    char path[MEDIA_PATH_MAX];
    uint64_t offset, n_bytes;
    int64_t mtime_ns;
    uint64_t last_used;
    bool is_used;
};

struct kept_indexes { /* zeroed: empty */
    struct kept_index list[KEPT_INDEXES_MAX];
    uint64_t clock;
};

void kept_fini(struct kept_indexes *kept);

/* The index of this source, which counts as used now; NULL: there is none. */
struct packet_index *kept_find(struct kept_indexes *kept, const struct source *source,
                               const char *path);

/* A free place, to build an index in; it is free until kept_take. */
struct kept_index *kept_make_room(struct kept_indexes *kept);
void kept_take(struct kept_indexes *kept, struct kept_index *place,
               const struct source *source, const char *path);

#endif
