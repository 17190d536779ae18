/* wire.h - messages as MessagePack, versioned, capped and strictly decoded
 *
 * On the wire a message is one MessagePack array: [version, type, sequence, reply_to,
 * field, field, ...]. sequence: the sender's own count, from 1; reply_to: the sequence a
 * reply answers, else 0.
 * Decoding refuses: other versions, unknown types, a wrong number or type of fields,
 * strings that are not UTF-8 or hold NUL, trailing bytes, more than WIRE_MESSAGE_MAX.
 * Owns: a decoded struct wire owns its texts; wire_fini frees them. For encoding texts
 * are borrowed.
 * The list of messages is in messages.def; this header makes structs from it.
 */
#ifndef VNEVA_COMMON_WIRE_WIRE_H
#define VNEVA_COMMON_WIRE_WIRE_H

#include "common/base/buf.h"
#include "common/base/err.h"

#include <stddef.h>
#include <stdint.h>

#define WIRE_VERSION 2
#define WIRE_MESSAGE_MAX (16u << 20) /* bytes; a spec or a page of rows is far below */

struct wire_bytes {
    const void *data;
    size_t n_bytes;
};

#define I64(name) int64_t name;
#define F64(name) double name;
#define STR(name) const char *name;
#define BIN(name) struct wire_bytes name;
#define MESSAGE(NAME, name, fields)                                                      \
    struct msg_##name {                                                                  \
        fields                                                                           \
    };
#include "common/wire/messages.def"
#undef MESSAGE

enum msg_type {
    MSG_NONE = 0,
#define MESSAGE(NAME, name, fields) MSG_##NAME,
#include "common/wire/messages.def"
#undef MESSAGE
    MSG_TYPE_COUNT
};
#undef I64
#undef F64
#undef STR
#undef BIN

struct wire {
    enum msg_type type;
    uint64_t sequence, reply_to;
    union {
#define MESSAGE(NAME, name, fields) struct msg_##name name;
#include "common/wire/messages.def"
#undef MESSAGE
    };
    void *memory; /* of a decoded message; NULL otherwise */
};

/* Appends the encoded message to out. */
int wire_encode(struct buf *out, const struct wire *message, struct err *err);

/* Fills message; wire_fini it also after an error is not needed. ERR_FORMAT says what is
 * wrong; *sequence_of_bad (may be NULL) is the sender's sequence when it could be read. */
int wire_decode(struct wire *message, const void *bytes, size_t n_bytes,
                uint64_t *sequence_of_bad, struct err *err);
void wire_fini(struct wire *message);

/* A copy that owns its texts, to be kept longer than what `message` borrows from. */
int wire_clone(struct wire *out, const struct wire *message, struct err *err);

const char *msg_type_name(enum msg_type type); /* "SUBMIT" */

#endif
