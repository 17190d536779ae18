#include "dataprep/media/reader.h"

#include "common/base/hash.h"

#include <string.h>

/* Packets that reading on costs less than a seek. */
#define NEAR_PACKETS 64
/* Packets looked at after a seek before it counts as failed. */
#define SEEK_PACKETS_MAX 1024

int reader_init(struct reader *out, struct packet_index *index, struct source *source,
                struct err *err)
{
    *out = (struct reader){.source = source, .index = index, .next = -1};
    out->packet = av_packet_alloc();
    return out->packet ? 0 : err_set(err, ERR_NOMEM, "cannot allocate a packet");
}

void reader_fini(struct reader *reader)
{
    av_packet_free(&reader->packet);
}

/* The next packet of the video stream; those that were damaged are not in the index. */
static int reader_next_packet(struct reader *reader)
{
    for (;;) {
        int rc;

        av_packet_unref(reader->packet);
        rc = av_read_frame(reader->source->format, reader->packet);
        if (rc < 0)
            return rc;
        if (reader->packet->stream_index == reader->source->stream &&
            !(reader->packet->flags & AV_PKT_FLAG_CORRUPT))
            return 0;
    }
}

static bool reader_has_packet(const struct reader *reader, int64_t k)
{
    const struct packet_entry *entry = &reader->index->packets[k];
    const AVPacket *packet = reader->packet;

    return packet->size == entry->n_bytes &&
           (packet->size == 0 ||
            hash64(packet->data, (size_t)packet->size, 0) == entry->hash);
}

/* The same bytes may stand in a file more than once (still pictures): after a seek the
 * place or the time must agree as well. */
static bool reader_is_at(const struct reader *reader, int64_t k)
{
    const struct packet_entry *entry = &reader->index->packets[k];
    const AVPacket *packet = reader->packet;

    if (!reader_has_packet(reader, k))
        return false;
    if (packet->pos >= 0 && entry->pos >= 0)
        return packet->pos == entry->pos;
    return packet->dts == entry->dts && packet->dts != AV_NOPTS_VALUE;
}

static int reader_seek(struct reader *reader, int64_t k)
{
    const struct packet_entry *entry = &reader->index->packets[k];
    AVFormatContext *format = reader->source->format;
    bool by_byte = strncmp(format->iformat->name, "mpeg", 4) == 0;
    int64_t time = entry->pts != AV_NOPTS_VALUE ? entry->pts : entry->dts;
    int rc;

    if (by_byte)
        rc =
            entry->pos < 0 ? -1 : av_seek_frame(format, -1, entry->pos, AVSEEK_FLAG_BYTE);
    else
        rc = time == AV_NOPTS_VALUE ? -1
                                    : av_seek_frame(format, reader->source->stream, time,
                                                    AVSEEK_FLAG_BACKWARD);
    if (rc < 0)
        return -1;
    for (int i = 0; i < SEEK_PACKETS_MAX; i++) {
        if (reader_next_packet(reader) < 0)
            return -1;
        if (reader_is_at(reader, k))
            return 0;
    }
    return -1;
}

/* Reads on until packet k has been read; -1 when what comes is not what the index says. */
static int reader_read_on(struct reader *reader, int64_t k)
{
    while (reader->next <= k) {
        if (reader_next_packet(reader) < 0 || !reader_has_packet(reader, reader->next))
            return -1;
        reader->next++;
    }
    return 0;
}

static void reader_discard_others(struct reader *reader)
{
    AVFormatContext *format = reader->source->format;

    for (unsigned i = 0; i < format->nb_streams; i++)
        if ((int)i != reader->source->stream)
            format->streams[i]->discard = AVDISCARD_ALL;
}

int reader_read(struct reader *reader, int64_t k, struct err *err)
{
    bool is_near = reader->next >= 0 && k >= reader->next &&
                   (reader->index->no_seek || k - reader->next < NEAR_PACKETS);

    if (is_near && reader_read_on(reader, k) == 0)
        return 0;
    if (!reader->index->no_seek) {
        if (reader_seek(reader, k) == 0) {
            reader->next = k + 1;
            return 0;
        }
        reader->index->no_seek = true;
    }
    if (source_rewind(reader->source, err) < 0)
        return -1;
    reader_discard_others(reader);
    reader->next = 0;
    if (reader_read_on(reader, k) == 0)
        return 0;
    reader->next = -1;
    return err_set(err, ERR_FORMAT, "packet %lld cannot be read a second time",
                   (long long)k);
}
