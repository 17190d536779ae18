/* fetch.h - asks a frame_service for the media of a range, several at once
 *
 * Each distinct medium (file, segment) of the range is asked for once and its answer
 * shared. Requests run ahead of what is read, so that all decoders are busy.
 * Owns: copies of frames until their last use (or until FETCH_KEEP_BYTES are held).
 * Threads: one caller.
 */
#ifndef VNEVA_DATAPREP_PREPARE_FETCH_H
#define VNEVA_DATAPREP_PREPARE_FETCH_H

#include "dataprep/media/media.h"

#define FETCH_IN_FLIGHT_MAX 32             /* requests before the one waited for */
#define FETCH_KEEP_BYTES ((size_t)1 << 28) /* of frames kept for later samples */

struct fetch;

/* shape: num_frames, splice, image_size, aspect of every request. */
int fetch_create(struct fetch **out, const struct frame_service *service,
                 const struct frame_request *shape, bool wants_frames, struct err *err);
void fetch_destroy(struct fetch *fetch);

/* One more use of a medium; *item names it. Call for all uses before the first get. */
int fetch_add(struct fetch *fetch, const struct media_ref *ref, int64_t *item,
              struct err *err);

enum fetch_answer {
    FETCH_FAILED = -1, /* the service itself; err says why */
    FETCH_GOOD = 0,
    FETCH_BAD_MEDIA = 1, /* err is the reason */
};

/* Waits. frames [n_frames, S, S, 3], borrowed until the item's next fetch_done; NULL
 * without wants_frames. */
enum fetch_answer fetch_get(struct fetch *fetch, int64_t item, struct media_info *info,
                            const uint8_t **frames, struct err *err);

/* The use is over; call as often as fetch_add gave this item. */
void fetch_done(struct fetch *fetch, int64_t item);

#endif
