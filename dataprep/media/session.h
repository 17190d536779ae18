/* session.h - what a decoder process keeps between requests: packet indexes
 *
 * The same video is asked for again and again, with other segments and frames; its index
 * is kept by path, place, size and time of change. No file stays open.
 * Owns: the indexes, at most SESSION_INDEX_BYTES of them, least recently used go first.
 * Threads: one caller.
 */
#ifndef VNEVA_DATAPREP_MEDIA_SESSION_H
#define VNEVA_DATAPREP_MEDIA_SESSION_H

#include "dataprep/media/media.h"

#define SESSION_INDEXES_MAX 64
#define SESSION_INDEX_BYTES ((size_t)64 << 20)

struct media_session;

int media_session_create(struct media_session **out, struct err *err);
void media_session_destroy(struct media_session *session);

/* As media_frames and media_probe of media.h; frames NULL probes. */
int media_session_frames(struct media_session *session, uint8_t *frames,
                         size_t capacity_bytes, struct media_info *info,
                         const struct frame_request *request,
                         const struct media_limits *limits, struct err *err);

#endif
