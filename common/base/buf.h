/* buf.h - a growing byte string, always NUL terminated
 *
 * Owns: its bytes; buf_fini frees them, buf_take hands them over.
 * Errors: running out of memory sets `failed` and later calls do nothing, so that a
 * sequence of appends is checked once, at its end, with buf_check.
 * Units: bytes.
 */
#ifndef VNEVA_COMMON_BASE_BUF_H
#define VNEVA_COMMON_BASE_BUF_H

#include "common/base/err.h"

#include <stdbool.h>
#include <stddef.h>

struct buf {
    char *data; /* NULL or NUL terminated */
    size_t n_bytes;
    size_t capacity;
    bool failed;
};

#define BUF_INIT                                                                         \
    {                                                                                    \
        NULL, 0, 0, false                                                                \
    }

void buf_fini(struct buf *buf);
void buf_reset(struct buf *buf); /* empty; keeps the memory and clears `failed` */
void buf_add(struct buf *buf, const void *bytes, size_t n_bytes);
void buf_add_str(struct buf *buf, const char *text);
void buf_add_char(struct buf *buf, char c);
void buf_printf(struct buf *buf, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* The text so far, "" when empty. Borrowed: valid until the next change. */
const char *buf_str(const struct buf *buf);

/* The bytes, owned by the caller (free); never NULL unless out of memory. */
char *buf_take(struct buf *buf);

int buf_check(const struct buf *buf, struct err *err);

#endif
