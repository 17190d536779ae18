#include "common/base/proto.h"

#include <stdbool.h>

#define FIXED64_BYTES 8
#define FIXED32_BYTES 4

struct proto proto_of(const void *bytes, size_t n_bytes)
{
    const uint8_t *at = bytes;

    return (struct proto){at, at + n_bytes};
}

static bool read_varint(struct proto *proto, uint64_t *out)
{
    *out = 0;
    for (int shift = 0; shift < 64 && proto->at < proto->end; shift += 7) {
        uint8_t byte = *proto->at++;

        *out |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80)
            return true;
    }
    return false;
}

static bool take(struct proto *proto, uint64_t n_bytes, struct proto *out)
{
    if (n_bytes > (uint64_t)(proto->end - proto->at))
        return false;
    *out = (struct proto){proto->at, proto->at + n_bytes};
    proto->at += n_bytes;
    return true;
}

static bool read_value(struct proto *proto, struct proto_field *out)
{
    uint64_t n_bytes;

    switch (out->wire) {
    case PROTO_VARINT:
        return read_varint(proto, &out->value);
    case PROTO_FIXED64:
        return take(proto, FIXED64_BYTES, &out->bytes);
    case PROTO_BYTES:
        return read_varint(proto, &n_bytes) && take(proto, n_bytes, &out->bytes);
    case PROTO_FIXED32:
        return take(proto, FIXED32_BYTES, &out->bytes);
    default:
        return false;
    }
}

int proto_next(struct proto *proto, struct proto_field *out)
{
    uint64_t tag;

    if (proto->at == proto->end)
        return 0;
    if (!read_varint(proto, &tag))
        return -1;
    *out = (struct proto_field){.number = tag >> 3, .wire = (enum proto_wire)(tag & 7)};
    return read_value(proto, out) ? 1 : -1;
}
