#include "worker/decode/cache.h"

#include "common/base/hash.h"

#include <stdlib.h>
#include <string.h>

#define N_BUCKETS 4096

struct cache_entry {
    struct cached_frames kept; /* first: what callers hold points here */
    struct frame_request request;
    uint64_t hash;
    size_t n_bytes;
    int n_held;
    struct cache_entry *next_in_bucket;
    struct cache_entry *newer, *older;
};

struct frame_cache {
    uint64_t max_bytes, n_bytes;
    struct cache_entry *buckets[N_BUCKETS];
    struct cache_entry *newest, *oldest;
};

int frame_cache_create(struct frame_cache **out, uint64_t max_bytes, struct err *err)
{
    *out = calloc(1, sizeof(**out));
    if (!*out)
        return err_set(err, ERR_NOMEM, "cannot allocate a frame cache");
    (*out)->max_bytes = max_bytes;
    return 0;
}

/* Field by field: a struct has padding, and a path something after its end. */
static bool request_equals(const struct frame_request *a, const struct frame_request *b)
{
    return a->media.kind == b->media.kind && a->media.offset == b->media.offset &&
           a->media.n_bytes == b->media.n_bytes && a->media.start_s == b->media.start_s &&
           a->media.end_s == b->media.end_s && a->num_frames == b->num_frames &&
           a->splice == b->splice && a->image_size == b->image_size &&
           a->aspect == b->aspect && a->processor == b->processor &&
           strcmp(a->media.path, b->media.path) == 0;
}

static uint64_t request_hash(const struct frame_request *request)
{
    const struct media_ref *media = &request->media;
    const uint64_t numbers[] = {(uint64_t)media->kind,
                                media->offset,
                                media->n_bytes,
                                (uint64_t)request->num_frames,
                                (uint64_t)request->splice,
                                (uint64_t)request->image_size,
                                (uint64_t)request->aspect,
                                (uint64_t)request->processor};
    const double times[] = {media->start_s, media->end_s};
    uint64_t hash = hash64(media->path, strlen(media->path), 0);

    return hash64(times, sizeof(times), hash64(numbers, sizeof(numbers), hash));
}

static void lru_remove(struct frame_cache *cache, struct cache_entry *entry)
{
    *(entry->newer ? &entry->newer->older : &cache->newest) = entry->older;
    *(entry->older ? &entry->older->newer : &cache->oldest) = entry->newer;
}

static void lru_add(struct frame_cache *cache, struct cache_entry *entry)
{
    entry->newer = NULL;
    entry->older = cache->newest;
    *(cache->newest ? &cache->newest->newer : &cache->oldest) = entry;
    cache->newest = entry;
}

static void cache_drop(struct frame_cache *cache, struct cache_entry *entry)
{
    struct cache_entry **at = &cache->buckets[entry->hash % N_BUCKETS];

    while (*at != entry)
        at = &(*at)->next_in_bucket;
    *at = entry->next_in_bucket;
    lru_remove(cache, entry);
    cache->n_bytes -= entry->n_bytes;
    free((void *)entry->kept.frames);
    free(entry);
}

void frame_cache_destroy(struct frame_cache *cache)
{
    if (!cache)
        return;
    while (cache->oldest)
        cache_drop(cache, cache->oldest);
    free(cache);
}

static struct cache_entry *cache_find(struct frame_cache *cache,
                                      const struct frame_request *request, uint64_t hash)
{
    struct cache_entry *entry = cache->buckets[hash % N_BUCKETS];

    while (entry && (entry->hash != hash || !request_equals(&entry->request, request)))
        entry = entry->next_in_bucket;
    return entry;
}

const struct cached_frames *frame_cache_hold(struct frame_cache *cache,
                                             const struct frame_request *request)
{
    struct cache_entry *entry = cache_find(cache, request, request_hash(request));

    if (!entry)
        return NULL;
    lru_remove(cache, entry);
    lru_add(cache, entry);
    entry->n_held++;
    return &entry->kept;
}

void frame_cache_release(struct frame_cache *cache, const struct cached_frames *held)
{
    struct cache_entry *entry = (struct cache_entry *)held;

    (void)cache;
    entry->n_held--;
}

/* Drops the oldest that nobody holds until n_bytes more fit. */
static bool cache_make_room(struct frame_cache *cache, size_t n_bytes)
{
    struct cache_entry *entry = cache->oldest;

    while (entry && cache->n_bytes + n_bytes > cache->max_bytes) {
        struct cache_entry *newer = entry->newer;

        if (entry->n_held == 0)
            cache_drop(cache, entry);
        entry = newer;
    }
    return cache->n_bytes + n_bytes <= cache->max_bytes;
}

void frame_cache_put(struct frame_cache *cache, const struct frame_request *request,
                     const struct media_info *info, const uint8_t *frames, size_t n_bytes)
{
    uint64_t hash = request_hash(request);
    struct cache_entry *entry;
    uint8_t *copy;

    if (n_bytes > cache->max_bytes || cache_find(cache, request, hash) ||
        !cache_make_room(cache, n_bytes))
        return;
    entry = calloc(1, sizeof(*entry));
    copy = malloc(n_bytes ? n_bytes : 1);
    if (!entry || !copy) { /* a cache may forget */
        free(entry);
        free(copy);
        return;
    }
    memcpy(copy, frames, n_bytes);
    *entry = (struct cache_entry){.kept = {copy, *info},
                                  .request = *request,
                                  .hash = hash,
                                  .n_bytes = n_bytes,
                                  .next_in_bucket = cache->buckets[hash % N_BUCKETS]};
    cache->buckets[hash % N_BUCKETS] = entry;
    lru_add(cache, entry);
    cache->n_bytes += n_bytes;
}
