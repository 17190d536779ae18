/* decoder.h - decodes chosen frames of an indexed video, exactly, and no more than needed
 *
 * What comes out equals, bit for bit, what decoding the whole file in order gives. For
 * every wanted frame: from the key frame it depends on, non-reference frames in between
 * skipped, the decoder drained after the last wanted packet and flushed for the next.
 * Inside dataprep/media only.
 */
#ifndef VNEVA_DATAPREP_MEDIA_DECODER_H
#define VNEVA_DATAPREP_MEDIA_DECODER_H

#include "dataprep/media/gpu.h"
#include "dataprep/media/index.h"

/* Called once or more for a wanted frame (a later call replaces an earlier). `which` is
 * its place in the list of wanted frames. */
typedef int (*decoder_take)(void *state, int64_t which, const AVFrame *frame,
                            struct err *err);

enum decode_outcome {
    DECODE_FAILED = -1,
    DECODE_DONE = 0,
    DECODE_REMEASURED = 1 /* the index was wrong and is right now: choose again */
};

/* Decodes frames wanted[n], numbers in presentation order, ascending, each once. gpu: that
 * decodes, NULL the CPU. With a GPU anything unexpected is DECODE_FAILED and may be tried
 * again without; the index stays as it is. */
enum decode_outcome decoder_frames(struct packet_index *index, struct source *source,
                                   const struct media_limits *limits, struct gpu *gpu,
                                   const int64_t *wanted, int64_t n, decoder_take take,
                                   void *state, struct err *err);

/* Decodes the first n_packets in order and lists the packets whose frames came out, as
 * they came: tags[*n_tags], at most room. */
int decoder_list_tags(struct packet_index *index, struct source *source,
                      const struct media_limits *limits, int64_t n_packets, int64_t *tags,
                      int64_t room, int64_t *n_tags, struct err *err);

#endif
