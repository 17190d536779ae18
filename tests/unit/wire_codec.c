/* Wire messages: what goes in comes out, msgpack-c reads what we write, and whatever is
 * done to the bytes of any message, decoding answers and never crashes. */
#include "common/wire/pack.h"
#include "common/wire/wire.h"

#include <msgpack.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* NOLINTBEGIN(bugprone-macro-parentheses): fields are statements */
/* A message of the type with a value in every field, by walking messages.def again. */
static struct wire sample(enum msg_type type)
{
    static const char long_text[] =
        "a text of more than thirty-one bytes: \xc3\xa9\xe2\x82\xac";
    static const uint8_t bytes[] = {0, 1, 0xff, 0x80};
    struct wire message = {.type = type, .sequence = 70000, .reply_to = 3};
    int64_t next = -5;

    switch (type) {
#define I64(field) m->field = next = next * -3571 % (1ll << 40);
#define F64(field) m->field = (double)next / 3;
#define STR(field) m->field = next++ % 2 ? long_text : "short";
#define BIN(field) m->field = (struct wire_bytes){bytes, sizeof(bytes)};
#define MESSAGE(NAME, name, fields)                                                      \
    case MSG_##NAME: {                                                                   \
        struct msg_##name *m = &message.name;                                            \
        fields break;                                                                    \
    }
#include "common/wire/messages.def"
#undef MESSAGE
#undef I64
#undef F64
#undef STR
#undef BIN
    case MSG_NONE:
    case MSG_TYPE_COUNT:
        fail();
    }
    return message;
}

static bool is_equal(const struct wire *a, const struct wire *b)
{
    bool equal =
        a->type == b->type && a->sequence == b->sequence && a->reply_to == b->reply_to;

    switch (a->type) {
#define I64(field) equal &= a_->field == b_->field;
#define F64(field) equal &= memcmp(&a_->field, &b_->field, 8) == 0;
#define STR(field) equal &= strcmp(a_->field, b_->field) == 0;
#define BIN(field)                                                                       \
    equal &= a_->field.n_bytes == b_->field.n_bytes &&                                   \
             memcmp(a_->field.data, b_->field.data, a_->field.n_bytes) == 0;
#define MESSAGE(NAME, name, fields)                                                      \
    case MSG_##NAME: {                                                                   \
        const struct msg_##name *a_ = &a->name, *b_ = &b->name;                          \
        fields break;                                                                    \
    }
#include "common/wire/messages.def"
#undef MESSAGE
#undef I64
#undef F64
#undef STR
#undef BIN
    case MSG_NONE:
    case MSG_TYPE_COUNT:
        return false;
    }
    return equal;
}
/* NOLINTEND(bugprone-macro-parentheses) */

static void every_message_comes_out_as_it_went_in(void **state)
{
    (void)state;
    for (int type = MSG_NONE + 1; type < MSG_TYPE_COUNT; type++) {
        struct wire message = sample((enum msg_type)type), decoded, clone;
        struct buf packed = BUF_INIT;
        struct err err;

        assert_int_equal(wire_encode(&packed, &message, &err), 0);
        assert_int_equal(wire_decode(&decoded, packed.data, packed.n_bytes, NULL, &err),
                         0);
        assert_true(is_equal(&message, &decoded));
        assert_int_equal(wire_clone(&clone, &decoded, &err), 0);
        wire_fini(&decoded);
        assert_true(is_equal(&message, &clone));
        wire_fini(&clone);
        buf_fini(&packed);
    }
}

static void msgpack_c_reads_every_message(void **state)
{
    (void)state;
    for (int type = MSG_NONE + 1; type < MSG_TYPE_COUNT; type++) {
        struct wire message = sample((enum msg_type)type);
        struct buf packed = BUF_INIT;
        msgpack_unpacked unpacked;
        size_t offset = 0;
        struct err err;

        assert_int_equal(wire_encode(&packed, &message, &err), 0);
        msgpack_unpacked_init(&unpacked);
        assert_int_equal(
            msgpack_unpack_next(&unpacked, packed.data, packed.n_bytes, &offset),
            MSGPACK_UNPACK_SUCCESS);
        assert_int_equal(offset, packed.n_bytes);
        assert_int_equal(unpacked.data.type, MSGPACK_OBJECT_ARRAY);
        assert_true(unpacked.data.via.array.size > 4);
        assert_int_equal(unpacked.data.via.array.ptr[1].via.u64, type);
        assert_int_equal(unpacked.data.via.array.ptr[2].via.u64, 70000);
        msgpack_unpacked_destroy(&unpacked);
        buf_fini(&packed);
    }
}

static void whole_numbers_of_every_width_are_read(void **state)
{
    static const int64_t values[] = {
        0,         1,         -1,        127,         128,        -32,
        -33,       -128,      -129,      255,         256,        32767,
        -32768,    65535,     65536,     INT32_MIN,   UINT32_MAX, 1ll << 32,
        INT64_MAX, INT64_MIN, INT32_MAX, -(1ll << 40)};
    (void)state;
    for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
        msgpack_sbuffer theirs;
        msgpack_packer packer;
        struct buf ours = BUF_INIT;
        struct pack_cursor cursor;
        struct err err;
        int64_t value;

        msgpack_sbuffer_init(&theirs);
        msgpack_packer_init(&packer, &theirs, msgpack_sbuffer_write);
        msgpack_pack_int64(&packer, values[i]);
        cursor = (struct pack_cursor){(uint8_t *)theirs.data,
                                      (uint8_t *)theirs.data + theirs.size};
        assert_int_equal(pack_read_int(&cursor, &value, &err), 0);
        assert_int_equal(value, values[i]);
        assert_ptr_equal(cursor.at, cursor.end);
        pack_int(&ours, values[i]);
        cursor = (struct pack_cursor){(uint8_t *)ours.data,
                                      (uint8_t *)ours.data + ours.n_bytes};
        assert_int_equal(pack_read_int(&cursor, &value, &err), 0);
        assert_int_equal(value, values[i]);
        msgpack_sbuffer_destroy(&theirs);
        buf_fini(&ours);
    }
}

/* Decodes from a block of exactly that size, so that ASan sees one byte too far. */
static int decode_exactly(const char *bytes, size_t n_bytes)
{
    uint8_t *copy = malloc(n_bytes ? n_bytes : 1);
    struct wire message;
    uint64_t sequence;
    struct err err = {ERR_NONE, ""};
    int rc;

    assert_non_null(copy);
    memcpy(copy, bytes, n_bytes);
    rc = wire_decode(&message, copy, n_bytes, &sequence, &err);
    if (rc == 0)
        wire_fini(&message);
    else
        assert_true(err.code == ERR_FORMAT && err.text[0]);
    free(copy);
    return rc;
}

static void every_truncation_is_refused(void **state)
{
    (void)state;
    for (int type = MSG_NONE + 1; type < MSG_TYPE_COUNT; type++) {
        struct wire message = sample((enum msg_type)type);
        struct buf packed = BUF_INIT;
        struct err err;

        assert_int_equal(wire_encode(&packed, &message, &err), 0);
        for (size_t n = 0; n < packed.n_bytes; n++)
            assert_int_equal(decode_exactly(packed.data, n), -1);
        buf_add_char(&packed, 0);
        assert_int_equal(decode_exactly(packed.data, packed.n_bytes), -1);
        buf_fini(&packed);
    }
}

static void every_changed_byte_is_decoded_or_refused(void **state)
{
    int n_decoded = 0, n_refused = 0;

    (void)state;
    for (int type = MSG_NONE + 1; type < MSG_TYPE_COUNT; type++) {
        struct wire message = sample((enum msg_type)type);
        struct buf packed = BUF_INIT;
        struct err err;

        assert_int_equal(wire_encode(&packed, &message, &err), 0);
        for (size_t i = 0; i < packed.n_bytes; i++) {
            char kept = packed.data[i];

            for (int value = 0; value < 256; value++) {
                packed.data[i] = (char)value;
                if (decode_exactly(packed.data, packed.n_bytes) == 0)
                    n_decoded++;
                else
                    n_refused++;
            }
            packed.data[i] = kept;
        }
        buf_fini(&packed);
    }
    assert_true(n_decoded > 0 && n_refused > 0);
}

static void another_version_is_refused_with_both_numbers(void **state)
{
    struct buf packed = BUF_INIT;
    struct wire message;
    uint64_t sequence;
    struct err err;
    char said[32];

    (void)state;
    pack_array(&packed, 5);
    pack_int(&packed, WIRE_VERSION + 1);
    pack_int(&packed, 999); /* a type this version does not know */
    pack_int(&packed, 42);
    pack_int(&packed, 0);
    pack_str(&packed, "x", 1);
    assert_int_equal(wire_decode(&message, packed.data, packed.n_bytes, &sequence, &err),
                     -1);
    assert_int_equal(err.code, ERR_FORMAT);
    snprintf(said, sizeof(said), "version %d", WIRE_VERSION + 1);
    assert_non_null(strstr(err.text, said));
    snprintf(said, sizeof(said), "version %d", WIRE_VERSION);
    assert_non_null(strstr(err.text, said));
    assert_int_equal(sequence, 42);
    buf_fini(&packed);
}

static void text_that_is_not_utf8_is_refused(void **state)
{
    static const char *const texts[] = {"\xff", "\xc0\x80", "\xed\xa0\x80", "\xe2\x82",
                                        "\xf5\x80\x80\x80"};
    (void)state;
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]) + 1; i++) {
        struct wire message = {.type = MSG_HEARTBEAT}, decoded;
        struct buf packed = BUF_INIT;
        struct err err;

        message.heartbeat.agent = i ? texts[i - 1] : "0";
        assert_int_equal(wire_encode(&packed, &message, &err), 0);
        if (i == 0)
            packed.data[packed.n_bytes - 1] = '\0'; /* NUL within the text */
        assert_int_equal(wire_decode(&decoded, packed.data, packed.n_bytes, NULL, &err),
                         -1);
        assert_non_null(strstr(err.text, "HEARTBEAT field 'agent'"));
        buf_fini(&packed);
    }
}

static void more_than_the_cap_is_not_encoded(void **state)
{
    char *text = malloc(WIRE_MESSAGE_MAX + 1);
    struct wire message = {.type = MSG_ROWS};
    struct buf packed = BUF_INIT;
    struct err err;

    (void)state;
    assert_non_null(text);
    memset(text, 'x', WIRE_MESSAGE_MAX);
    text[WIRE_MESSAGE_MAX] = '\0';
    message.rows.json = text;
    assert_int_equal(wire_encode(&packed, &message, &err), -1);
    assert_int_equal(err.code, ERR_LIMIT);
    buf_fini(&packed);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_message_comes_out_as_it_went_in),
        cmocka_unit_test(msgpack_c_reads_every_message),
        cmocka_unit_test(whole_numbers_of_every_width_are_read),
        cmocka_unit_test(every_truncation_is_refused),
        cmocka_unit_test(every_changed_byte_is_decoded_or_refused),
        cmocka_unit_test(another_version_is_refused_with_both_numbers),
        cmocka_unit_test(text_that_is_not_utf8_is_refused),
        cmocka_unit_test(more_than_the_cap_is_not_encoded),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
