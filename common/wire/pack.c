#include "common/wire/pack.h"

#include <stdbool.h>
#include <string.h>

/* First bytes of the formats used (the specification's table "Formats"). */
enum {
    PACK_FIXARRAY = 0x90,
    PACK_FIXSTR = 0xa0,
    PACK_BIN8 = 0xc4, /* then BIN16, BIN32 */
    PACK_FLOAT64 = 0xcb,
    PACK_UINT8 = 0xcc, /* then UINT16, UINT32, UINT64, INT8, ... INT64 */
    PACK_UINT64 = 0xcf,
    PACK_INT8 = 0xd0,
    PACK_INT64 = 0xd3,
    PACK_STR8 = 0xd9, /* then STR16, STR32 */
    PACK_ARRAY16 = 0xdc,
    PACK_NEGATIVE_FIXINT = 0xe0,
};

/* ---- writing ---- */

/* A first byte and the low n bytes of value, big endian. */
static void put(struct buf *out, int first, uint64_t value, int n)
{
    buf_add_char(out, (char)first);
    while (n-- > 0)
        buf_add_char(out, (char)(value >> (8 * n)));
}

void pack_array(struct buf *out, size_t count)
{
    if (count < 16)
        put(out, PACK_FIXARRAY | (int)count, 0, 0);
    else
        put(out, PACK_ARRAY16, count, 2);
}

void pack_int(struct buf *out, int64_t value)
{
    if (value >= -32 && value < 128)
        put(out, (int)(value & 0xff), 0, 0);
    else if (value >= 0 && value <= UINT16_MAX)
        put(out, PACK_UINT8 + 1, (uint64_t)value, 2);
    else if (value >= 0 && value <= UINT32_MAX)
        put(out, PACK_UINT8 + 2, (uint64_t)value, 4);
    else
        put(out, PACK_INT64, (uint64_t)value, 8);
}

void pack_double(struct buf *out, double value)
{
    uint64_t bits;

    memcpy(&bits, &value, sizeof(bits));
    put(out, PACK_FLOAT64, bits, 8);
}

/* Length header of str and bin: 8, 16 or 32 bits from the format `first8` on. */
static void put_length(struct buf *out, int first8, size_t n_bytes)
{
    if (n_bytes <= UINT8_MAX)
        put(out, first8, n_bytes, 1);
    else if (n_bytes <= UINT16_MAX)
        put(out, first8 + 1, n_bytes, 2);
    else
        put(out, first8 + 2, n_bytes, 4);
}

void pack_str(struct buf *out, const void *text, size_t n_bytes)
{
    if (n_bytes < 32)
        put(out, PACK_FIXSTR | (int)n_bytes, 0, 0);
    else
        put_length(out, PACK_STR8, n_bytes);
    buf_add(out, text, n_bytes);
}

void pack_bin(struct buf *out, const void *bytes, size_t n_bytes)
{
    put_length(out, PACK_BIN8, n_bytes);
    buf_add(out, bytes, n_bytes);
}

/* ---- reading ---- */

static size_t left(const struct pack_cursor *cursor)
{
    return (size_t)(cursor->end - cursor->at);
}

/* The big-endian number of n bytes behind the first byte; false when cut. */
static bool get(const struct pack_cursor *cursor, int n, uint64_t *value)
{
    *value = 0;
    if (left(cursor) < 1 + (size_t)n)
        return false;
    for (int i = 1; i <= n; i++)
        *value = *value << 8 | cursor->at[i];
    return true;
}

static int cut(struct err *err)
{
    return err_set(err, ERR_FORMAT, "message is cut");
}

int pack_read_array(struct pack_cursor *cursor, size_t *count, struct err *err)
{
    uint64_t value;

    if (!left(cursor))
        return cut(err);
    if ((*cursor->at & 0xf0) == PACK_FIXARRAY) {
        *count = *cursor->at++ & 0x0f;
        return 0;
    }
    if (*cursor->at != PACK_ARRAY16)
        return err_set(err, ERR_FORMAT, "not an array");
    if (!get(cursor, 2, &value))
        return cut(err);
    *count = (size_t)value;
    cursor->at += 3;
    return 0;
}

int pack_read_int(struct pack_cursor *cursor, int64_t *value, struct err *err)
{
    uint64_t bits;
    int first, n;

    if (!left(cursor))
        return cut(err);
    first = *cursor->at;
    if (first < 128 || first >= PACK_NEGATIVE_FIXINT) {
        *value = first < 128 ? first : first - 256;
        cursor->at++;
        return 0;
    }
    if (first < PACK_UINT8 || first > PACK_INT64)
        return err_set(err, ERR_FORMAT, "not a whole number");
    n = 1 << ((first - PACK_UINT8) & 3);
    if (!get(cursor, n, &bits))
        return cut(err);
    if (first == PACK_UINT64 && bits > INT64_MAX)
        return err_set(err, ERR_FORMAT, "whole number above 2^63 - 1");
    if (first >= PACK_INT8 && n < 8 && bits >> (8 * n - 1))
        bits |= UINT64_MAX << (8 * n); /* sign extension */
    *value = (int64_t)bits;
    cursor->at += 1 + n;
    return 0;
}

int pack_read_double(struct pack_cursor *cursor, double *value, struct err *err)
{
    uint64_t bits;

    if (!left(cursor))
        return cut(err);
    if (*cursor->at != PACK_FLOAT64)
        return err_set(err, ERR_FORMAT, "not a double");
    if (!get(cursor, 8, &bits))
        return cut(err);
    memcpy(value, &bits, sizeof(*value));
    cursor->at += 9;
    return 0;
}

/* Reads the length header whose 8-bit form is first8, and the bytes behind it. */
static int read_bytes(struct pack_cursor *cursor, int first8, const void **bytes,
                      size_t *n_bytes, struct err *err)
{
    int n = 1 << (*cursor->at - first8);
    uint64_t length;

    if (!get(cursor, n, &length) || left(cursor) - 1 - (size_t)n < length)
        return cut(err);
    *bytes = cursor->at + 1 + n;
    *n_bytes = (size_t)length;
    cursor->at += 1 + (size_t)n + (size_t)length;
    return 0;
}

int pack_read_bin(struct pack_cursor *cursor, const void **bytes, size_t *n_bytes,
                  struct err *err)
{
    if (!left(cursor))
        return cut(err);
    if (*cursor->at < PACK_BIN8 || *cursor->at > PACK_BIN8 + 2)
        return err_set(err, ERR_FORMAT, "not bytes");
    return read_bytes(cursor, PACK_BIN8, bytes, n_bytes, err);
}

/* Length of the UTF-8 sequence at s, 0 when there is none. Source: RFC 3629, section 4;
 * NUL is left out as C text cannot hold it. */
static size_t utf8_length(const uint8_t *s, size_t n_left)
{
    size_t n = s[0] < 0x80 ? 1 : s[0] < 0xc2 ? 0 : s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : 4;

    if (n == 0 || s[0] == 0 || s[0] > 0xf4 || n > n_left)
        return 0;
    for (size_t i = 1; i < n; i++)
        if ((s[i] & 0xc0) != 0x80)
            return 0;
    if ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f) ||
        (s[0] == 0xf0 && s[1] < 0x90) || (s[0] == 0xf4 && s[1] > 0x8f))
        return 0;
    return n;
}

static int check_text(const uint8_t *text, size_t n_bytes, struct err *err)
{
    for (size_t i = 0, n; i < n_bytes; i += n) {
        n = utf8_length(text + i, n_bytes - i);
        if (!n)
            return err_set(err, ERR_FORMAT, "text that is not UTF-8 or holds NUL");
    }
    return 0;
}

int pack_read_str(struct pack_cursor *cursor, const char **text, size_t *n_bytes,
                  struct err *err)
{
    struct pack_cursor before = *cursor;
    const void *bytes = "";

    if (!left(cursor))
        return cut(err);
    if ((*cursor->at & 0xe0) == PACK_FIXSTR) {
        *n_bytes = *cursor->at & 0x1f;
        if (left(cursor) - 1 < *n_bytes)
            return cut(err);
        bytes = cursor->at + 1;
        cursor->at += 1 + *n_bytes;
    } else if (*cursor->at < PACK_STR8 || *cursor->at > PACK_STR8 + 2) {
        return err_set(err, ERR_FORMAT, "not a text");
    } else if (read_bytes(cursor, PACK_STR8, &bytes, n_bytes, err) < 0) {
        return -1;
    }
    *text = bytes;
    if (check_text(bytes, *n_bytes, err) < 0) {
        *cursor = before;
        return -1;
    }
    return 0;
}
