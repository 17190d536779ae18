#include "dataprep/media/nal.h"

#include <string.h>

#define H264_IDR 5
#define H264_SEI 6
#define SEI_RECOVERY_POINT 6
#define HEVC_LAST_SLICE_TYPE 31
#define SEI_BYTES_MAX 4096

/* Walks the units of a packet, which follow a length or a start code. */
struct nal_walk {
    const uint8_t *at, *end;
    int length_bytes; /* 0: start codes */
    const uint8_t *unit;
    size_t n_unit;
};

static void nal_begin(struct nal_walk *walk, const AVCodecParameters *codec,
                      const AVPacket *packet)
{
    int at = codec->codec_id == AV_CODEC_ID_HEVC ? 21 : 4;

    *walk = (struct nal_walk){.at = packet->data, .end = packet->data + packet->size};
    if (codec->extradata_size > at && codec->extradata[0] == 1)
        walk->length_bytes = (codec->extradata[at] & 3) + 1;
}

static bool nal_next_prefixed(struct nal_walk *walk)
{
    size_t n = 0;

    if (walk->end - walk->at < walk->length_bytes)
        return false;
    for (int i = 0; i < walk->length_bytes; i++)
        n = n << 8 | *walk->at++;
    if (n > (size_t)(walk->end - walk->at))
        n = (size_t)(walk->end - walk->at);
    walk->unit = walk->at;
    walk->n_unit = n;
    walk->at += n;
    return true;
}

/* The place of the next 00 00 01, or the end. */
static const uint8_t *find_start_code(const uint8_t *at, const uint8_t *end)
{
    for (; end - at >= 3; at++)
        if (at[0] == 0 && at[1] == 0 && at[2] == 1)
            return at;
    return end;
}

static bool nal_next(struct nal_walk *walk)
{
    const uint8_t *start;

    if (walk->length_bytes)
        return nal_next_prefixed(walk);
    start = find_start_code(walk->at, walk->end);
    if (start == walk->end)
        return false;
    walk->unit = start + 3;
    walk->at = find_start_code(walk->unit, walk->end);
    walk->n_unit = (size_t)(walk->at - walk->unit);
    return true;
}

/* Without the 03 that keeps start codes out of the payload; cut at SEI_BYTES_MAX. */
static size_t nal_unescape(uint8_t *out, const struct nal_walk *walk)
{
    size_t n = 0;

    for (size_t i = 0; i < walk->n_unit && n < SEI_BYTES_MAX; i++)
        if (walk->unit[i] != 3 || n < 2 || out[n - 1] || out[n - 2] ||
            i + 1 == walk->n_unit)
            out[n++] = walk->unit[i];
    return n;
}

/* A number written as bytes of 255 and a rest. */
static size_t sei_number(const uint8_t *bytes, size_t n, size_t *at)
{
    size_t value = 0;

    while (*at < n && bytes[*at] == 255) {
        value += 255;
        ++*at;
    }
    if (*at < n)
        value += bytes[(*at)++];
    return value;
}

/* Whether the unit holds a recovery point of no frames: recovery_frame_cnt, an
 * Exp-Golomb number, is 0 when its first bit is set. */
static bool sei_recovers_at_once(const struct nal_walk *walk)
{
    uint8_t bytes[SEI_BYTES_MAX];
    size_t n = nal_unescape(bytes, walk);
    size_t at = 1;

    while (at + 2 < n) {
        size_t type = sei_number(bytes, n, &at);
        size_t n_payload = sei_number(bytes, n, &at);

        if (type == SEI_RECOVERY_POINT)
            return at < n && bytes[at] & 0x80;
        if (n_payload > n - at)
            return false;
        at += n_payload;
    }
    return false;
}

bool nal_is_clean_start(const AVCodecParameters *codec, const AVPacket *packet)
{
    struct nal_walk walk;

    if (codec->codec_id != AV_CODEC_ID_H264)
        return true;
    nal_begin(&walk, codec, packet);
    while (nal_next(&walk)) {
        int type = walk.n_unit ? walk.unit[0] & 31 : 0;

        if (type == H264_IDR || (type == H264_SEI && sei_recovers_at_once(&walk)))
            return true;
    }
    return false;
}

int nal_temporal_layer(const AVCodecParameters *codec, const AVPacket *packet)
{
    struct nal_walk walk;
    int highest = 0;

    if (codec->codec_id != AV_CODEC_ID_HEVC)
        return 0;
    nal_begin(&walk, codec, packet);
    while (nal_next(&walk)) {
        int layer = walk.n_unit >= 2 ? (walk.unit[1] & 7) - 1 : 0;

        if (layer > highest && (walk.unit[0] >> 1 & 63) <= HEVC_LAST_SLICE_TYPE)
            highest = layer;
    }
    return highest;
}
