/* How long a container says it is: the outermost boxes only, nothing is decoded. */
#include "dataprep/media/source.h"

#include <string.h>

#define BOXES_MAX 65536
#define OGG_TAIL_BYTES (128 << 10)

static uint64_t big_endian(const uint8_t *bytes, int n)
{
    uint64_t value = 0;

    for (int i = 0; i < n; i++)
        value = value << 8 | bytes[i];
    return value;
}

/* ISO/IEC 14496-12, 4.2: size (32 bits, 1: a 64-bit size follows, 0: to the end), type */
static uint64_t extent_iso(const struct source *source)
{
    uint64_t at = 0;
    uint8_t head[16];

    for (int i = 0; i < BOXES_MAX && at < source->n_bytes; i++) {
        int64_t n = source_read_at(source, at, head, sizeof(head));
        uint64_t size;

        if (n < 8)
            return at + 8;
        size = big_endian(head, 4);
        if (size == 1)
            size = n < 16 ? 16 : big_endian(head + 8, 8);
        if (size == 0)
            return 0;
        if (size < 8 || size > UINT64_MAX - at)
            return 0;
        at += size;
    }
    return at;
}

/* RIFF: "RIFF", size of what follows (little endian, 32 bits) */
static uint64_t extent_riff(const uint8_t *head)
{
    uint64_t size = head[4] | head[5] << 8 | head[6] << 16 | (uint64_t)head[7] << 24;

    return size && size != UINT32_MAX ? size + 8 : 0; /* those two: written to a pipe */
}

/* RFC 8794: an element is id, size (a variable integer), payload. Returns where the
 * element that begins at `at` ends; 0 when it does not say. */
static uint64_t ebml_end(const struct source *source, uint64_t at, int id_bytes)
{
    uint8_t head[12] = {0};
    int n_size = 1;
    uint64_t size;

    if (source_read_at(source, at, head, sizeof(head)) < (int64_t)sizeof(head))
        return 0;
    while (n_size <= 8 && !(head[id_bytes] & 0x80 >> (n_size - 1)))
        n_size++;
    if (n_size > 8)
        return 0;
    size = big_endian(head + id_bytes, n_size) & ((UINT64_C(1) << 7 * n_size) - 1);
    if (size == (UINT64_C(1) << 7 * n_size) - 1) /* all ones: unknown */
        return 0;
    return at + (uint64_t)(id_bytes + n_size) + size;
}

static uint64_t extent_matroska(const struct source *source)
{
    uint64_t segment = ebml_end(source, 0, 4);

    return segment ? ebml_end(source, segment, 4) : 0;
}

/* RFC 3533: the last page must be whole and carry the end-of-stream flag (bit 2). */
static uint64_t extent_ogg(const struct source *source, uint8_t *tail,
                           uint64_t tail_bytes)
{
    uint64_t start = source->n_bytes - tail_bytes;

    if (source_read_at(source, start, tail, (size_t)tail_bytes) != (int64_t)tail_bytes)
        return 0;
    for (uint64_t i = tail_bytes; i-- > 0;) {
        uint64_t end = 27;

        if (tail_bytes - i < 27 || memcmp(tail + i, "OggS", 4) != 0)
            continue;
        if (tail_bytes - i < 27 + (uint64_t)tail[i + 26])
            return source->n_bytes + 1;
        for (int s = 0; s < tail[i + 26]; s++)
            end += 1 + (uint64_t)tail[i + 27 + (uint64_t)s];
        if (end > tail_bytes - i)
            return start + i + end;
        return tail[i + 5] & 4 ? start + i + end : source->n_bytes + 1;
    }
    return 0;
}

uint64_t source_promised_bytes(struct source *source)
{
    uint8_t head[12];
    uint64_t promised = 0;

    if (source_read_at(source, 0, head, sizeof(head)) < (int64_t)sizeof(head))
        return 0;
    if (memcmp(head, "RIFF", 4) == 0)
        return extent_riff(head);
    if (memcmp(head, "\x1a\x45\xdf\xa3", 4) == 0)
        return extent_matroska(source);
    if (memcmp(head + 4, "ftyp", 4) == 0 || memcmp(head + 4, "moov", 4) == 0)
        return extent_iso(source);
    if (memcmp(head, "OggS", 4) == 0) {
        uint64_t n = source->n_bytes < OGG_TAIL_BYTES ? source->n_bytes : OGG_TAIL_BYTES;
        uint8_t *tail = av_malloc((size_t)n);

        if (tail)
            promised = extent_ogg(source, tail, n);
        av_free(tail);
    }
    return promised;
}
