#include "jobs/client/sentencepiece.h"

#include "common/base/fs.h"

#include <stdbool.h>

#define MODEL_MAX (64u << 20)
#define FIELD_PIECES 1
enum { WIRE_VARINT = 0, WIRE_FIXED64 = 1, WIRE_BYTES = 2, WIRE_FIXED32 = 5 };

struct cursor {
    const uint8_t *at, *end;
};

static bool read_varint(struct cursor *c, uint64_t *out)
{
    *out = 0;
    for (int shift = 0; shift < 64 && c->at < c->end; shift += 7) {
        uint8_t byte = *c->at++;

        *out |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80)
            return true;
    }
    return false;
}

static bool skip(struct cursor *c, uint64_t n_bytes)
{
    if (n_bytes > (uint64_t)(c->end - c->at))
        return false;
    c->at += n_bytes;
    return true;
}

static bool skip_field(struct cursor *c, int wire)
{
    uint64_t value;

    switch (wire) {
    case WIRE_VARINT:
        return read_varint(c, &value);
    case WIRE_FIXED64:
        return skip(c, 8);
    case WIRE_BYTES:
        return read_varint(c, &value) && skip(c, value);
    case WIRE_FIXED32:
        return skip(c, 4);
    default:
        return false;
    }
}

int64_t sentencepiece_count(const char *path)
{
    struct buf file = BUF_INIT;
    struct cursor c;
    uint64_t tag;
    int64_t n = 0;

    if (!path || fs_read_file(&file, path, MODEL_MAX, NULL) < 0) {
        buf_fini(&file);
        return 0;
    }
    c.at = (const uint8_t *)buf_str(&file);
    c.end = c.at + file.n_bytes;
    while (n >= 0 && c.at < c.end) {
        if (!read_varint(&c, &tag) || !skip_field(&c, (int)(tag & 7)))
            n = -1;
        else if (tag >> 3 == FIELD_PIECES)
            n++;
    }
    buf_fini(&file);
    return n < 0 ? 0 : n;
}
