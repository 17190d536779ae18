/* source.h - a media file, or a member of a tar, opened for demuxing
 *
 * Reads stay inside [offset, offset + n_bytes) of one regular file; nothing the file
 * names (playlists, references) is ever opened. The format is told from the bytes alone.
 * Owns: descriptor, AVIOContext, AVFormatContext. Inside dataprep/media only.
 */
#ifndef VNEVA_DATAPREP_MEDIA_SOURCE_H
#define VNEVA_DATAPREP_MEDIA_SOURCE_H

#include "dataprep/media/media.h"

#include <libavformat/avformat.h>

struct source {
    int fd;
    uint64_t offset, n_bytes; /* of what belongs to us in the file */
    uint64_t at;              /* read position, relative to offset */
    int64_t mtime_ns;
    AVIOContext *io;
    AVFormatContext *format; /* NULL until source_demux */
    int stream;              /* the video stream; -1 until source_find_video */
};

/* Opens the bytes: what is no regular file, or empty, is an error. */
int source_open(struct source *out, const struct media_ref *ref, struct err *err);

/* Finds out the container. Reasons of a reject: text, moov missing, not a media file. */
int source_demux(struct source *source, struct err *err);

/* Probes the streams and chooses the video stream. */
int source_find_video(struct source *source, const struct media_limits *limits,
                      struct err *err);

/* Starts again from the first byte (a demuxer anew, its streams not probed). */
int source_rewind(struct source *source, struct err *err);

void source_close(struct source *source);

/* Bytes the container says it has, by walking its outermost boxes (ISO media, RIFF,
 * Matroska, Ogg pages); 0 where it does not say. More than n_bytes: the file was cut. */
uint64_t source_promised_bytes(struct source *source);

/* Bytes [at, at + n_bytes) of the source; fewer at its end; -1 on an error. */
int64_t source_read_at(const struct source *source, uint64_t at, void *bytes,
                       size_t n_bytes);

#endif
