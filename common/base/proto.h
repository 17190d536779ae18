/* proto.h - protocol buffers read field by field, without their schema
 *
 * Source: https://protobuf.dev/programming-guides/encoding
 * Owns: nothing; fields point into the bytes given. Threads: any.
 */
#ifndef VNEVA_COMMON_BASE_PROTO_H
#define VNEVA_COMMON_BASE_PROTO_H

#include <stddef.h>
#include <stdint.h>

enum proto_wire {
    PROTO_VARINT = 0,
    PROTO_FIXED64 = 1,
    PROTO_BYTES = 2,
    PROTO_FIXED32 = 5
};

struct proto { /* what is still to be read */
    const uint8_t *at, *end;
};

struct proto_field {
    uint64_t number;
    enum proto_wire wire;
    uint64_t value;     /* PROTO_VARINT; a negative int32 is its two's complement */
    struct proto bytes; /* PROTO_BYTES: a text or a message within */
};

struct proto proto_of(const void *bytes, size_t n_bytes);

/* 1: a field, 0: the end, -1: these bytes are no protocol buffer. */
int proto_next(struct proto *proto, struct proto_field *out);

#endif
