/* cache.h - frames kept by request, the least recently used leave first
 *
 * Owns: copies of the frames, at most max_bytes of them. An entry that is held is not
 * dropped. The key is the request alone: a file that changes while a job runs is not
 * noticed. Threads: one caller.
 */
#ifndef VNEVA_WORKER_DECODE_CACHE_H
#define VNEVA_WORKER_DECODE_CACHE_H

#include "dataprep/media/media.h"

struct frame_cache;

struct cached_frames {
    const uint8_t *frames; /* borrowed while held */
    struct media_info info;
};

/* max_bytes 0 keeps nothing. */
int frame_cache_create(struct frame_cache **out, uint64_t max_bytes, struct err *err);
void frame_cache_destroy(struct frame_cache *cache);

/* The frames of a request, held until frame_cache_release; NULL when not there. */
const struct cached_frames *frame_cache_hold(struct frame_cache *cache,
                                             const struct frame_request *request);
void frame_cache_release(struct frame_cache *cache, const struct cached_frames *held);

/* Copies frames in; what finds no room is not kept. */
void frame_cache_put(struct frame_cache *cache, const struct frame_request *request,
                     const struct media_info *info, const uint8_t *frames,
                     size_t n_bytes);

#endif
