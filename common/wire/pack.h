/* pack.h - the part of MessagePack that wire messages use, written and read strictly
 *
 * Arrays of whole numbers, doubles, texts and bytes; nothing nested. MessagePack-C does
 * the work value by value: it is never shown an array or map, for which it would make
 * room as a header claims, so that five bytes could ask for gigabytes.
 * Source: https://github.com/msgpack/msgpack/blob/master/spec.md
 * Owns: nothing; texts and bytes read point into the cursor's input.
 */
#ifndef VNEVA_COMMON_WIRE_PACK_H
#define VNEVA_COMMON_WIRE_PACK_H

#include "common/base/buf.h"
#include "common/base/err.h"

#include <stddef.h>
#include <stdint.h>

void pack_array(struct buf *out, size_t count); /* count <= 65535 */
void pack_int(struct buf *out, int64_t value);
void pack_double(struct buf *out, double value);
void pack_str(struct buf *out, const void *text, size_t n_bytes);
void pack_bin(struct buf *out, const void *bytes, size_t n_bytes);

struct pack_cursor {
    const uint8_t *at, *end;
};

/* Each reads one value of its type and moves on; any other type, a value out of range or
 * a cut one is ERR_FORMAT and leaves the cursor where it was. */
int pack_read_array(struct pack_cursor *cursor, size_t *count, struct err *err);
int pack_read_int(struct pack_cursor *cursor, int64_t *value, struct err *err);
int pack_read_double(struct pack_cursor *cursor, double *value, struct err *err);
int pack_read_str(struct pack_cursor *cursor, const char **text, size_t *n_bytes,
                  struct err *err); /* UTF-8 without NUL */
int pack_read_bin(struct pack_cursor *cursor, const void **bytes, size_t *n_bytes,
                  struct err *err);

#endif
