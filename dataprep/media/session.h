/* session.h - what a decoder process keeps between requests: packet indexes, a GPU
 *
 * The same video is asked for again and again, with other segments and frames; its index
 * is kept (kept.h). No file stays open.
 * With a GPU videos are decoded there where that is faster (choice.h): the frames are the
 * same, and what the GPU fails at is decoded by the CPU within the same request.
 * Owns: the indexes, the GPU's context. Threads: one caller.
 */
#ifndef VNEVA_DATAPREP_MEDIA_SESSION_H
#define VNEVA_DATAPREP_MEDIA_SESSION_H

#include "dataprep/media/media.h"

struct media_session;

int media_session_create(struct media_session **out, struct err *err);
void media_session_destroy(struct media_session *session);

/* Lets a GPU decode, at most once a session: mode is MEDIA_DECODE_AUTO or _CUDA, device its
 * number as CUDA counts. ERR_UNSUPPORTED says why it cannot; the CPU decodes then. */
int media_session_open_gpu(struct media_session *session, enum media_decode mode,
                           int device, struct err *err);

/* Whether the next requests may be decoded on the GPU; they may once it is open. */
void media_session_allow_gpu(struct media_session *session, bool is_allowed);

/* A line for the log, what was chosen or why the GPU failed; NULL: there is none. Valid
 * until the next call with this session. */
const char *media_session_take_note(struct media_session *session);

/* As media_frames of media.h. */
int media_session_frames(struct media_session *session, uint8_t *frames,
                         size_t capacity_bytes, struct media_info *info,
                         const struct frame_request *request,
                         const struct media_limits *limits, struct err *err);

#endif
