/* index.h - every packet of a video stream, and which frame of the film each one is
 *
 * Made by demuxing once, without decoding. A frame is named by its packet: the decoder is
 * given packet numbers as timestamps and gives them back on the frames. Where timestamps
 * do not tell the presentation order for certain (none there, fields as packets, leading
 * frames without their key frame), the whole is decoded once to measure it.
 * Owns: its arrays. Inside dataprep/media only.
 */
#ifndef VNEVA_DATAPREP_MEDIA_INDEX_H
#define VNEVA_DATAPREP_MEDIA_INDEX_H

#include "dataprep/media/source.h"

#include <libavcodec/avcodec.h>

/* Longest video: 19 h at 30 frames/s. 56 bytes each, so at most 118 MB. */
#define INDEX_PACKETS_MAX (1 << 21)

struct packet_entry {
    int64_t pts, dts, pos; /* as the demuxer said; AV_NOPTS_VALUE, -1: unknown */
    uint64_t hash;         /* of its bytes */
    int32_t n_bytes;
    int32_t place;  /* in `shown`; -1: not there */
    bool is_key;    /* everything shown after it decodes exactly from here */
    bool is_hidden; /* decodes to nothing that is shown */
};

struct packet_index {
    struct packet_entry *packets; /* in decode order */
    int64_t n_packets, capacity;
    int64_t *shown; /* [n_shown]: packet of the i-th frame in presentation order */
    int64_t n_shown;
    int stream; /* its number in the container */
    AVCodecParameters *codec;
    AVRational time_base, frame_rate;
    bool has_matrix; /* the container's display matrix, applied to every frame */
    int32_t matrix[9];
    bool is_truncated;
    bool may_skip;  /* non-reference frames are refered to by nothing at all */
    bool is_linear; /* only a decode from the first packet on gives these frames */
    bool no_seek;   /* seeking did not find the packets again: read from the start */
};

/* Reads the whole stream once. The source must have its video stream found. */
int index_build(struct packet_index *out, struct source *source,
                const struct media_limits *limits, struct err *err);
void index_fini(struct packet_index *index);

/* Decodes the whole file and makes `shown` from what came out. Sets is_linear where that
 * says more or less than a frame for each packet. */
int index_measure(struct packet_index *index, struct source *source,
                  const struct media_limits *limits, struct err *err);

/* Presentation time of frame i in seconds from the first frame's. */
double index_time(const struct packet_index *index, int64_t i);
double index_fps(const struct packet_index *index);

/* Memory it holds. */
size_t index_bytes(const struct packet_index *index);

#endif
