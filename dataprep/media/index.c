#include "dataprep/media/index.h"

#include "common/base/hash.h"
#include "dataprep/media/decoder.h"
#include "dataprep/media/nal.h"

#include <libavcodec/codec_desc.h>
#include <libavutil/display.h>
#include <stdlib.h>
#include <string.h>

#define HEAD_PACKETS 12 /* that the check of a doubtful order decodes */

void index_fini(struct packet_index *index)
{
    free(index->packets);
    free(index->shown);
    avcodec_parameters_free(&index->codec);
    memset(index, 0, sizeof(*index));
}

size_t index_bytes(const struct packet_index *index)
{
    return (size_t)index->capacity * sizeof(*index->packets) +
           (size_t)index->n_packets * sizeof(*index->shown) + sizeof(*index);
}

/* VP8 sends alternate reference frames as packets of their own (RFC 6386, 9.1: bit 4 of
 * the first byte is show_frame). */
static bool packet_is_hidden(const struct packet_index *index, const AVPacket *packet)
{
    if (packet->size == 0 || packet->flags & AV_PKT_FLAG_DISCARD)
        return true;
    return index->codec->codec_id == AV_CODEC_ID_VP8 && !(packet->data[0] & 0x10);
}

static int index_add(struct packet_index *index, const AVPacket *packet, struct err *err)
{
    if (index->n_packets == index->capacity) {
        int64_t capacity = index->capacity ? index->capacity * 2 : 256;
        void *grown =
            capacity > INDEX_PACKETS_MAX
                ? NULL
                : realloc(index->packets, (size_t)capacity * sizeof(*index->packets));

        if (!grown)
            return err_set(err, ERR_LIMIT,
                           "more than %lld packets, or no memory for them",
                           (long long)index->capacity);
        index->packets = grown;
        index->capacity = capacity;
    }
    if (nal_temporal_layer(index->codec, packet) > 0)
        index->may_skip = false;
    index->packets[index->n_packets++] = (struct packet_entry){
        .pts = packet->pts,
        .dts = packet->dts,
        .pos = packet->pos,
        .hash = packet->size ? hash64(packet->data, (size_t)packet->size, 0) : 0,
        .n_bytes = packet->size,
        .is_key =
            packet->flags & AV_PKT_FLAG_KEY && nal_is_clean_start(index->codec, packet),
        .is_hidden = packet_is_hidden(index, packet),
    };
    return 0;
}

static int index_read_packets(struct packet_index *index, struct source *source,
                              struct err *err)
{
    AVPacket *packet = av_packet_alloc();
    int rc = 0;

    if (!packet)
        return err_set(err, ERR_NOMEM, "cannot allocate a packet");
    for (unsigned i = 0; i < source->format->nb_streams; i++)
        if ((int)i != source->stream)
            source->format->streams[i]->discard = AVDISCARD_ALL;
    while (rc == 0 && av_read_frame(source->format, packet) >= 0) {
        if (packet->stream_index == source->stream) {
            if (packet->flags & AV_PKT_FLAG_CORRUPT)
                index->is_truncated = true;
            else
                rc = index_add(index, packet, err);
        }
        av_packet_unref(packet);
    }
    av_packet_free(&packet);
    return rc;
}

static void index_take_matrix(struct packet_index *index, const AVStream *stream)
{
#if LIBAVCODEC_VERSION_INT >= AV_VERSION_INT(60, 31, 102) /* FFmpeg 6.1 */
    const AVPacketSideData *side = av_packet_side_data_get(
        stream->codecpar->coded_side_data, stream->codecpar->nb_coded_side_data,
        AV_PKT_DATA_DISPLAYMATRIX);
    const uint8_t *data = side ? side->data : NULL;
    size_t n_bytes = side ? side->size : 0;
#else
    size_t n_bytes = 0;
    const uint8_t *data =
        av_stream_get_side_data(stream, AV_PKT_DATA_DISPLAYMATRIX, &n_bytes);
#endif

    index->has_matrix = data && n_bytes >= sizeof(index->matrix);
    if (index->has_matrix)
        memcpy(index->matrix, data, sizeof(index->matrix));
}

static int index_take_stream(struct packet_index *index, AVFormatContext *format,
                             AVStream *stream, struct err *err)
{
    index->codec = avcodec_parameters_alloc();
    if (!index->codec || avcodec_parameters_copy(index->codec, stream->codecpar) < 0)
        return err_set(err, ERR_NOMEM, "cannot copy the codec's parameters");
    index->stream = stream->index;
    index->time_base = stream->time_base;
    index->frame_rate = av_guess_frame_rate(format, stream, NULL);
    index_take_matrix(index, stream);
    /* unless HEVC's temporal layers are found: "non-reference" frames of lower ones are
     * what higher ones refer to */
    index->may_skip = true;
    return 0;
}

/* One frame and its place, for sorting. */
struct shown_entry {
    int64_t pts, packet;
};

static int shown_compare(const void *a, const void *b)
{
    const struct shown_entry *x = a, *y = b;

    if (x->pts != y->pts)
        return x->pts < y->pts ? -1 : 1;
    return x->packet < y->packet ? -1 : x->packet > y->packet;
}

/* Fills `shown` in packet order; says whether every frame has its own timestamp. */
static bool index_collect(struct packet_index *index, struct shown_entry *entries)
{
    bool has_pts = true;

    index->n_shown = 0;
    for (int64_t i = 0; i < index->n_packets; i++) {
        if (index->packets[i].is_hidden)
            continue;
        has_pts = has_pts && index->packets[i].pts != AV_NOPTS_VALUE;
        entries[index->n_shown++] = (struct shown_entry){index->packets[i].pts, i};
    }
    return has_pts;
}

/* Presentation order by timestamps. is_certain: false when they do not tell it. */
static int index_sort(struct packet_index *index, bool *is_certain, struct err *err)
{
    const AVCodecDescriptor *codec = avcodec_descriptor_get(index->codec->codec_id);
    size_t n = (size_t)index->n_packets;
    struct shown_entry *entries = malloc(n * sizeof(*entries));

    index->shown = malloc(n * sizeof(*index->shown));
    if (!entries || !index->shown) {
        free(entries);
        return err_set(err, ERR_NOMEM, "cannot allocate an index of %zu packets", n);
    }
    *is_certain = index_collect(index, entries);
    if (*is_certain)
        qsort(entries, (size_t)index->n_shown, sizeof(*entries), shown_compare);
    else
        *is_certain = codec && !(codec->props & AV_CODEC_PROP_REORDER);
    for (int64_t i = 0; i < index->n_shown; i++) {
        index->shown[i] = entries[i].packet;
        if (i && entries[i].pts == entries[i - 1].pts && entries[i].pts != AV_NOPTS_VALUE)
            *is_certain = false;
    }
    free(entries);
    return 0;
}

/* True when the timestamps may be right but packets may not be one frame each. */
static bool index_needs_check(const struct packet_index *index)
{
    const AVCodecDescriptor *codec = avcodec_descriptor_get(index->codec->codec_id);
    enum AVFieldOrder fields = index->codec->field_order;
    int64_t key = 0;

    if (codec && codec->props & AV_CODEC_PROP_INTRA_ONLY)
        return false;
    while (key < index->n_packets && !index->packets[key].is_key)
        key++;
    if (key > 0 || index->codec->codec_id == AV_CODEC_ID_MPEG4)
        return true;
    if (fields != AV_FIELD_UNKNOWN && fields != AV_FIELD_PROGRESSIVE)
        return true;
    /* frames presented before the first key frame may not decode */
    return index->n_shown > 0 && index->shown[0] != 0;
}

/* Gives every packet its place; says whether each one has a place of its own. */
static bool index_place(struct packet_index *index)
{
    bool is_one_to_one = true;

    for (int64_t k = 0; k < index->n_packets; k++)
        index->packets[k].place = -1;
    for (int64_t i = 0; i < index->n_shown; i++) {
        struct packet_entry *entry = &index->packets[index->shown[i]];

        is_one_to_one = is_one_to_one && entry->place < 0;
        entry->place = (int32_t)i;
    }
    for (int64_t k = 0; k < index->n_packets; k++)
        if (index->packets[k].place < 0 && !index->packets[k].is_hidden)
            is_one_to_one = false;
    return is_one_to_one;
}

/* Decodes the first packets: every one that is shown must give its frame, in order. */
static int index_check_head(struct packet_index *index, struct source *source,
                            const struct media_limits *limits, bool *is_right,
                            struct err *err)
{
    int64_t tags[HEAD_PACKETS * 2];
    int64_t n_tags = 0, expected = 0;
    int64_t n = index->n_packets < HEAD_PACKETS ? index->n_packets : HEAD_PACKETS;

    if (decoder_list_tags(index, source, limits, n, tags, HEAD_PACKETS * 2, &n_tags,
                          err) < 0)
        return -1;
    *is_right = true;
    for (int64_t i = 0; i < index->n_shown; i++) {
        if (index->shown[i] >= n)
            continue;
        if (expected >= n_tags || tags[expected] != index->shown[i])
            *is_right = false;
        expected++;
    }
    *is_right = *is_right && expected == n_tags;
    return 0;
}

int index_measure(struct packet_index *index, struct source *source,
                  const struct media_limits *limits, struct err *err)
{
    int64_t room = index->n_packets * 2;
    int64_t *tags = malloc((size_t)room * sizeof(*tags));
    int64_t n_tags = 0;

    if (!tags)
        return err_set(err, ERR_NOMEM, "cannot allocate an index");
    if (decoder_list_tags(index, source, limits, index->n_packets, tags, room, &n_tags,
                          err) < 0) {
        free(tags);
        return -1;
    }
    free(index->shown);
    index->shown = tags;
    index->n_shown = n_tags;
    index->is_linear = !index_place(index);
    return 0;
}

int index_build(struct packet_index *out, struct source *source,
                const struct media_limits *limits, struct err *err)
{
    AVStream *stream = source->format->streams[source->stream];
    bool is_certain = false;

    memset(out, 0, sizeof(*out));
    if (index_take_stream(out, source->format, stream, err) < 0)
        goto failed;
    out->is_truncated = source_promised_bytes(source) > source->n_bytes;
    if (index_read_packets(out, source, err) < 0)
        goto failed;
    if (out->n_packets == 0) {
        err_set(err, ERR_FORMAT, "%sno frame in its video stream",
                out->is_truncated ? "truncated: " : "");
        goto failed;
    }
    if (index_sort(out, &is_certain, err) < 0)
        goto failed;
    if (is_certain && index_needs_check(out) &&
        index_check_head(out, source, limits, &is_certain, err) < 0)
        goto failed;
    (void)index_place(out);
    if (!is_certain && index_measure(out, source, limits, err) < 0)
        goto failed;
    return 0;
failed:
    index_fini(out);
    return -1;
}

double index_fps(const struct packet_index *index)
{
    AVRational rate = index->frame_rate;

    return rate.num > 0 && rate.den > 0 ? (double)rate.num / rate.den : 25;
}

double index_time(const struct packet_index *index, int64_t i)
{
    const struct packet_entry *first = &index->packets[index->shown[0]];
    const struct packet_entry *frame = &index->packets[index->shown[i]];
    int64_t ticks;

    if (first->pts != AV_NOPTS_VALUE && frame->pts != AV_NOPTS_VALUE)
        ticks = frame->pts - first->pts;
    else
        return (double)i / index_fps(index);
    return (double)(ticks * index->time_base.num) / index->time_base.den;
}
