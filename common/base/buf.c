#include "common/base/buf.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BUF_FIRST_BYTES 64

void buf_fini(struct buf *buf)
{
    free(buf->data);
    *buf = (struct buf)BUF_INIT;
}

void buf_reset(struct buf *buf)
{
    buf->n_bytes = 0;
    buf->failed = false;
    if (buf->data)
        buf->data[0] = '\0';
}

/* Makes room for n_bytes more and the NUL. */
static int buf_grow(struct buf *buf, size_t n_bytes)
{
    size_t capacity = buf->capacity ? buf->capacity : BUF_FIRST_BYTES;
    char *data;

    if (buf->failed || n_bytes > SIZE_MAX / 4 - buf->n_bytes) {
        buf->failed = true;
        return -1;
    }
    while (capacity < buf->n_bytes + n_bytes + 1)
        capacity *= 2;
    if (capacity == buf->capacity)
        return 0;
    data = realloc(buf->data, capacity);
    if (!data) {
        buf->failed = true;
        return -1;
    }
    buf->data = data;
    buf->capacity = capacity;
    return 0;
}

void buf_add(struct buf *buf, const void *bytes, size_t n_bytes)
{
    if (buf_grow(buf, n_bytes) < 0)
        return;
    if (n_bytes)
        memcpy(buf->data + buf->n_bytes, bytes, n_bytes);
    buf->n_bytes += n_bytes;
    buf->data[buf->n_bytes] = '\0';
}

void buf_add_str(struct buf *buf, const char *text)
{
    buf_add(buf, text, strlen(text));
}

void buf_add_char(struct buf *buf, char c)
{
    buf_add(buf, &c, 1);
}

void buf_printf(struct buf *buf, const char *format, ...)
{
    va_list args;
    int n;

    va_start(args, format);
    n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (n < 0 || buf_grow(buf, (size_t)n) < 0)
        return;
    va_start(args, format);
    vsnprintf(buf->data + buf->n_bytes, (size_t)n + 1, format, args);
    va_end(args);
    buf->n_bytes += (size_t)n;
}

const char *buf_str(const struct buf *buf)
{
    return buf->data ? buf->data : "";
}

char *buf_take(struct buf *buf)
{
    char *data;

    if (buf->failed || (!buf->data && buf_grow(buf, 0) < 0) || !buf->data) {
        buf_fini(buf);
        return NULL;
    }
    buf->data[buf->n_bytes] = '\0';
    data = buf->data;
    *buf = (struct buf)BUF_INIT;
    return data;
}

int buf_check(const struct buf *buf, struct err *err)
{
    return buf->failed ? err_set(err, ERR_NOMEM, "out of memory in a text buffer") : 0;
}
