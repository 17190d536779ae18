#include "common/wire/wire.h"
#include "common/wire/pack.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define WIRE_HEADER_FIELDS 4 /* version, type, sequence, reply_to */

/* What messages.def says, as a table that encode, decode and clone all walk: of every
 * message its fields in order, ended by FIELD_END. */
enum field_kind { FIELD_END, FIELD_I64, FIELD_F64, FIELD_STR, FIELD_BIN };

struct field {
    enum field_kind kind;
    const char *name;
};

/* NOLINTBEGIN(bugprone-macro-parentheses): fields are pieces of initialisers and sums */
#define I64(field) {FIELD_I64, #field},
#define F64(field) {FIELD_F64, #field},
#define STR(field) {FIELD_STR, #field},
#define BIN(field) {FIELD_BIN, #field},
#define MESSAGE(NAME, name, fields)                                                      \
    static const struct field fields_of_##name[] = {fields{FIELD_END, NULL}};
#include "common/wire/messages.def"
#undef MESSAGE
#undef I64
#undef F64
#undef STR
#undef BIN

/* Fields lie one behind the other, as the walks below assume: no struct has padding. */
#define I64(field) +sizeof(int64_t)
#define F64(field) +sizeof(double)
#define STR(field) +sizeof(const char *)
#define BIN(field) +sizeof(struct wire_bytes)
#define MESSAGE(NAME, name, fields)                                                      \
    _Static_assert(sizeof(struct msg_##name) == 0 fields, "padding in msg_" #name);
#include "common/wire/messages.def"
#undef MESSAGE
#undef I64
#undef F64
#undef STR
#undef BIN
/* NOLINTEND(bugprone-macro-parentheses) */

static const struct {
    const char *name;
    const struct field *fields;
    size_t offset; /* of the message in struct wire */
} types[MSG_TYPE_COUNT] = {
#define MESSAGE(NAME, name, fields)                                                      \
    [MSG_##NAME] = {#NAME, fields_of_##name, offsetof(struct wire, name)},
#include "common/wire/messages.def"
#undef MESSAGE
};

static size_t field_bytes(enum field_kind kind)
{
    static const size_t bytes[] = {
        [FIELD_I64] = sizeof(int64_t),
        [FIELD_F64] = sizeof(double),
        [FIELD_STR] = sizeof(const char *),
        [FIELD_BIN] = sizeof(struct wire_bytes),
    };

    return bytes[kind];
}

static bool is_type(int64_t type)
{
    return type > MSG_NONE && type < MSG_TYPE_COUNT;
}

static size_t count_fields(enum msg_type type)
{
    size_t n = 0;

    while (types[type].fields[n].kind != FIELD_END)
        n++;
    return n;
}

const char *msg_type_name(enum msg_type type)
{
    return is_type(type) ? types[type].name : "unknown";
}

/* ---- encoding ---- */

static int encode_field(struct buf *out, const struct field *field, const void *at,
                        struct err *err)
{
    const struct wire_bytes *bytes = at;
    const char *text;

    switch (field->kind) {
    case FIELD_I64:
        pack_int(out, *(const int64_t *)at);
        break;
    case FIELD_F64:
        pack_double(out, *(const double *)at);
        break;
    case FIELD_STR:
        text = *(const char *const *)at;
        if (!text)
            return err_set(err, ERR_INVALID, "text of field '%s' is missing",
                           field->name);
        pack_str(out, text, strlen(text));
        break;
    case FIELD_BIN:
        pack_bin(out, bytes->data, bytes->n_bytes);
        break;
    case FIELD_END:
        break;
    }
    return 0;
}

/* Texts are checked when they are read, so a wrong one is the sender's error there. */
int wire_encode(struct buf *out, const struct wire *message, struct err *err)
{
    size_t before = out->n_bytes;
    const struct field *field;
    const char *at;

    if (!is_type(message->type))
        return err_set(err, ERR_INVALID, "no message has type %d", (int)message->type);
    pack_array(out, WIRE_HEADER_FIELDS + count_fields(message->type));
    pack_int(out, WIRE_VERSION);
    pack_int(out, message->type);
    pack_int(out, (int64_t)message->sequence);
    pack_int(out, (int64_t)message->reply_to);
    at = (const char *)message + types[message->type].offset;
    for (field = types[message->type].fields; field->kind != FIELD_END; field++) {
        if (encode_field(out, field, at, err) < 0)
            return err_wrap(err, "cannot encode %s", types[message->type].name);
        at += field_bytes(field->kind);
    }
    if (buf_check(out, err) < 0)
        return -1;
    if (out->n_bytes - before > WIRE_MESSAGE_MAX)
        return err_set(err, ERR_LIMIT, "%s of %zu bytes is above the limit of %u",
                       types[message->type].name, out->n_bytes - before,
                       WIRE_MESSAGE_MAX);
    return 0;
}

/* ---- decoding ---- */

/* Where the texts of a decoded or cloned message go: one block, never outgrown. */
struct memory {
    char *at;
};

/* Bytes and a NUL; the NUL of bytes is never read, but costs nothing. */
static const char *keep(struct memory *memory, const void *bytes, size_t n_bytes)
{
    char *kept = memory->at;

    if (n_bytes)
        memcpy(kept, bytes, n_bytes);
    kept[n_bytes] = '\0';
    memory->at += n_bytes + 1;
    return kept;
}

static int decode_field(struct pack_cursor *cursor, enum field_kind kind, void *at,
                        struct memory *memory, struct err *err)
{
    struct wire_bytes *bytes = at;
    const char *text;
    size_t n_bytes;

    switch (kind) {
    case FIELD_I64:
        return pack_read_int(cursor, at, err);
    case FIELD_F64:
        return pack_read_double(cursor, at, err);
    case FIELD_STR:
        if (pack_read_str(cursor, &text, &n_bytes, err) < 0)
            return -1;
        *(const char **)at = keep(memory, text, n_bytes);
        return 0;
    case FIELD_BIN:
        if (pack_read_bin(cursor, &bytes->data, &bytes->n_bytes, err) < 0)
            return -1;
        bytes->data = keep(memory, bytes->data, bytes->n_bytes);
        return 0;
    case FIELD_END:
        break;
    }
    return 0;
}

/* Version, type, sequence, reply_to. The sequence is read whatever the version, so that
 * a sender of another version gets an answer to its message. */
static int decode_header(struct wire *message, struct pack_cursor *cursor,
                         uint64_t *sequence_of_bad, struct err *err)
{
    int64_t version, type, sequence, reply_to;
    size_t count;

    if (pack_read_array(cursor, &count, err) < 0)
        return -1;
    if (count < WIRE_HEADER_FIELDS)
        return err_set(err, ERR_FORMAT, "message has %zu parts, its header alone has %d",
                       count, WIRE_HEADER_FIELDS);
    if (pack_read_int(cursor, &version, err) < 0 ||
        pack_read_int(cursor, &type, err) < 0 ||
        pack_read_int(cursor, &sequence, err) < 0 ||
        pack_read_int(cursor, &reply_to, err) < 0)
        return err_wrap(err, "header");
    if (sequence < 0 || reply_to < 0)
        return err_set(err, ERR_FORMAT, "negative sequence number");
    *sequence_of_bad = (uint64_t)sequence;
    if (version != WIRE_VERSION)
        return err_set(err, ERR_FORMAT,
                       "message of version %lld, this program speaks version %d; "
                       "use the same release on both sides",
                       (long long)version, WIRE_VERSION);
    if (!is_type(type))
        return err_set(err, ERR_FORMAT, "unknown message type %lld", (long long)type);
    message->type = (enum msg_type)type;
    message->sequence = (uint64_t)sequence;
    message->reply_to = (uint64_t)reply_to;
    count -= WIRE_HEADER_FIELDS;
    if (count != count_fields(message->type))
        return err_set(err, ERR_FORMAT, "%s has %zu fields, %zu expected",
                       types[type].name, count, count_fields(message->type));
    return 0;
}

static int decode_fields(struct wire *message, struct pack_cursor *cursor,
                         struct memory *memory, struct err *err)
{
    const struct field *field = types[message->type].fields;
    char *at = (char *)message + types[message->type].offset;

    for (; field->kind != FIELD_END; field++) {
        if (decode_field(cursor, field->kind, at, memory, err) < 0)
            return err_wrap(err, "%s field '%s'", types[message->type].name, field->name);
        at += field_bytes(field->kind);
    }
    if (cursor->at != cursor->end)
        return err_set(err, ERR_FORMAT, "%zu bytes more behind %s",
                       (size_t)(cursor->end - cursor->at), types[message->type].name);
    return 0;
}

int wire_decode(struct wire *message, const void *bytes, size_t n_bytes,
                uint64_t *sequence_of_bad, struct err *err)
{
    struct pack_cursor cursor = {bytes, (const uint8_t *)bytes + n_bytes};
    uint64_t ignored;
    struct memory memory;

    if (!sequence_of_bad)
        sequence_of_bad = &ignored;
    *sequence_of_bad = 0;
    memset(message, 0, sizeof(*message));
    if (n_bytes > WIRE_MESSAGE_MAX)
        return err_set(err, ERR_FORMAT, "message of %zu bytes is above the limit of %u",
                       n_bytes, WIRE_MESSAGE_MAX);
    if (decode_header(message, &cursor, sequence_of_bad, err) < 0)
        return -1;
    /* A packed text is a byte longer than the text at least: room for every NUL. */
    memory.at = message->memory = malloc(n_bytes + 1);
    if (!memory.at)
        return err_set(err, ERR_NOMEM, "no memory for a message of %zu bytes", n_bytes);
    if (decode_fields(message, &cursor, &memory, err) < 0) {
        wire_fini(message);
        return -1;
    }
    return 0;
}

void wire_fini(struct wire *message)
{
    free(message->memory);
    memset(message, 0, sizeof(*message));
}

int wire_clone(struct wire *out, const struct wire *message, struct err *err)
{
    struct buf packed = BUF_INIT;
    int rc = wire_encode(&packed, message, err);

    if (rc == 0)
        rc = wire_decode(out, packed.data, packed.n_bytes, NULL, err);
    buf_fini(&packed);
    return rc;
}
