#include "common/wire/pack.h"

#include "common/base/utf8.h"

#include <msgpack.h>
#include <stdbool.h>

/* ---- writing ---- */

static int write_to_buf(void *out, const char *bytes, size_t n_bytes)
{
    buf_add(out, bytes, n_bytes);
    return 0; /* a buf keeps its own failure */
}

static msgpack_packer packer_on(struct buf *out)
{
    msgpack_packer packer;

    msgpack_packer_init(&packer, out, write_to_buf);
    return packer;
}

void pack_array(struct buf *out, size_t count)
{
    msgpack_packer packer = packer_on(out);

    msgpack_pack_array(&packer, count);
}

void pack_int(struct buf *out, int64_t value)
{
    msgpack_packer packer = packer_on(out);

    msgpack_pack_int64(&packer, value);
}

void pack_double(struct buf *out, double value)
{
    msgpack_packer packer = packer_on(out);

    msgpack_pack_double(&packer, value);
}

void pack_str(struct buf *out, const void *text, size_t n_bytes)
{
    msgpack_packer packer = packer_on(out);

    msgpack_pack_str(&packer, n_bytes);
    msgpack_pack_str_body(&packer, text, n_bytes);
}

void pack_bin(struct buf *out, const void *bytes, size_t n_bytes)
{
    msgpack_packer packer = packer_on(out);

    msgpack_pack_bin(&packer, n_bytes);
    msgpack_pack_bin_body(&packer, bytes, n_bytes);
}

/* ---- reading ---- */

static size_t left(const struct pack_cursor *cursor)
{
    return (size_t)(cursor->end - cursor->at);
}

/* Source: the specification's table "Formats". */
enum { FIXARRAY = 0x90, ARRAY16 = 0xdc };

int pack_read_array(struct pack_cursor *cursor, size_t *count, struct err *err)
{
    const uint8_t *at = cursor->at;

    if (left(cursor) > 0 && (*at & 0xf0) == FIXARRAY) {
        *count = *at & 0x0f;
        cursor->at += 1;
        return 0;
    }
    if (left(cursor) > 0 && *at != ARRAY16)
        return err_set(err, ERR_FORMAT, "not an array");
    if (left(cursor) < 3)
        return err_set(err, ERR_FORMAT, "message is cut");
    *count = (size_t)at[1] << 8 | at[2];
    cursor->at += 3;
    return 0;
}

/* Maps, arrays and extensions: msgpack-c would make room for as many members as the header
 * claims before it has seen one. */
static bool is_container(uint8_t first)
{
    return (first >= 0x80 && first <= 0x9f) || (first >= 0xc7 && first <= 0xc9) ||
           (first >= 0xd4 && first <= 0xd8) || (first >= 0xdc && first <= 0xdf);
}

/* One scalar; texts and bytes point into the cursor's input. */
static int read_scalar(struct pack_cursor *cursor, msgpack_object *out, struct err *err)
{
    msgpack_unpacked unpacked;
    msgpack_unpack_return rc;
    size_t used = 0;

    if (left(cursor) > 0 && is_container(*cursor->at))
        return err_set(err, ERR_FORMAT, "a list or map where one value belongs");
    msgpack_unpacked_init(&unpacked);
    rc = msgpack_unpack_next(&unpacked, (const char *)cursor->at, left(cursor), &used);
    *out = unpacked.data;
    msgpack_unpacked_destroy(&unpacked); /* a scalar needs nothing of it */
    if (rc == MSGPACK_UNPACK_CONTINUE)
        return err_set(err, ERR_FORMAT, "message is cut");
    if (rc != MSGPACK_UNPACK_SUCCESS && rc != MSGPACK_UNPACK_EXTRA_BYTES)
        return err_set(err, ERR_FORMAT, "not MessagePack");
    cursor->at += used;
    return 0;
}

int pack_read_int(struct pack_cursor *cursor, int64_t *value, struct err *err)
{
    struct pack_cursor before = *cursor;
    msgpack_object object = {.type = MSGPACK_OBJECT_NIL};

    if (read_scalar(cursor, &object, err) < 0)
        return -1;
    *value = object.via.i64;
    if (object.type == MSGPACK_OBJECT_NEGATIVE_INTEGER ||
        (object.type == MSGPACK_OBJECT_POSITIVE_INTEGER && object.via.u64 <= INT64_MAX))
        return 0;
    *cursor = before;
    return err_set(err, ERR_FORMAT,
                   object.type == MSGPACK_OBJECT_POSITIVE_INTEGER
                       ? "whole number above 2^63 - 1"
                       : "not a whole number");
}

int pack_read_double(struct pack_cursor *cursor, double *value, struct err *err)
{
    struct pack_cursor before = *cursor;
    msgpack_object object = {.type = MSGPACK_OBJECT_NIL};

    if (read_scalar(cursor, &object, err) < 0)
        return -1;
    *value = object.via.f64;
    if (object.type == MSGPACK_OBJECT_FLOAT64)
        return 0;
    *cursor = before;
    return err_set(err, ERR_FORMAT, "not a double");
}

int pack_read_bin(struct pack_cursor *cursor, const void **bytes, size_t *n_bytes,
                  struct err *err)
{
    struct pack_cursor before = *cursor;
    msgpack_object object = {.type = MSGPACK_OBJECT_NIL};

    if (read_scalar(cursor, &object, err) < 0)
        return -1;
    if (object.type != MSGPACK_OBJECT_BIN) {
        *cursor = before;
        return err_set(err, ERR_FORMAT, "not bytes");
    }
    *bytes = object.via.bin.ptr;
    *n_bytes = object.via.bin.size;
    return 0;
}

static int check_text(const uint8_t *text, size_t n_bytes, struct err *err)
{
    for (size_t i = 0, n; i < n_bytes; i += n) {
        n = utf8_length(text + i, n_bytes - i);
        if (!n || !text[i]) /* C text cannot hold NUL */
            return err_set(err, ERR_FORMAT, "text that is not UTF-8 or holds NUL");
    }
    return 0;
}

int pack_read_str(struct pack_cursor *cursor, const char **text, size_t *n_bytes,
                  struct err *err)
{
    struct pack_cursor before = *cursor;
    msgpack_object object = {.type = MSGPACK_OBJECT_NIL};

    if (read_scalar(cursor, &object, err) < 0)
        return -1;
    if (object.type != MSGPACK_OBJECT_STR) {
        *cursor = before;
        return err_set(err, ERR_FORMAT, "not a text");
    }
    if (check_text((const uint8_t *)object.via.str.ptr, object.via.str.size, err) < 0) {
        *cursor = before;
        return -1;
    }
    *text = object.via.str.ptr;
    *n_bytes = object.via.str.size;
    return 0;
}
