/* record.h - what one annotation says besides its conversation: id and media
 *
 * "video" and "image" name media below the media root, as a text or a list of texts; the
 * k-th <video> placeholder takes the k-th video, likewise for images. "start" and "end",
 * in seconds, cut a segment out of the videos. Source: LLaVA's and NeMo's data files;
 * start and end are ours.
 * Threads: none. Owns: nothing; names are borrowed from the record.
 */
#ifndef VNEVA_DATAPREP_ANNOTATIONS_RECORD_H
#define VNEVA_DATAPREP_ANNOTATIONS_RECORD_H

#include "common/base/buf.h"
#include "common/base/json.h"
#include "dataprep/media/media.h"

struct record_media {
    enum media_kind kind;
    const char *name;
    double start_s, end_s; /* end_s 0: to the end */
};

/* The id as text (whole numbers too), appended to out; 0 when it has one, -1 if not. */
int record_id(struct buf *out, const struct json *record);

/* The media that placeholders of these kinds, in order, stand for: out[n]. ERR_INVALID:
 * there are not as many media as placeholders, or a field is of the wrong type;
 * ERR_DENIED: a name leads out of the media root. */
int record_find_media(struct record_media *out, const struct json *record,
                      const enum media_kind *placeholders, int64_t n, struct err *err);

#endif
