#include "worker/generate/stream.h"

#include <ctype.h>
#include <errno.h>
#include <string.h>

#define REPLACEMENT "\xEF\xBF\xBD" /* U+FFFD in UTF-8 */

/* Bytes at the end of text[0, n) that begin a character and do not end it. */
static size_t n_unfinished(const char *text, size_t n)
{
    size_t back = 0;

    while (back < 3 && back < n && ((unsigned char)text[n - 1 - back] & 0xC0) == 0x80)
        back++;
    if (back < n) {
        unsigned char lead = (unsigned char)text[n - 1 - back];
        size_t wanted = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : lead >= 0xC0 ? 2 : 1;

        if (wanted > back + 1)
            return back + 1;
    }
    return 0;
}

size_t stream_settled(const char *text, size_t n)
{
    n -= n_unfinished(text, n);
    while (n >= 3 && memcmp(text + n - 3, REPLACEMENT, 3) == 0)
        n -= 3;
    while (n && isspace((unsigned char)text[n - 1]))
        n--;
    return n;
}

static int print(struct stream *stream, const char *text, size_t n, struct err *err)
{
    size_t first = stream->n_printed;

    while (stream->n_printed == 0 && first < n && isspace((unsigned char)text[first]))
        first++;
    if (n <= first)
        return 0;
    stream->n_printed = n;
    if (fwrite(text + first, 1, n - first, stream->file) != n - first ||
        fflush(stream->file) != 0)
        return err_set(err, ERR_IO, "cannot write the answer: %s", strerror(errno));
    return 0;
}

/* The text of all tokens: what one token becomes hangs on those before it. An answer is a
 * few hundred tokens, and decoding them anew each time is nothing beside the model. */
static int decode(struct buf *out, const struct stream *stream, struct err *err)
{
    const int32_t *tokens = (const int32_t *)(const void *)stream->tokens.data;

    if (buf_check(&stream->tokens, err) < 0)
        return -1;
    return tokenizer_decode(stream->tokenizer, out, tokens,
                            (int64_t)(stream->tokens.n_bytes / sizeof(*tokens)), err);
}

int stream_add(struct stream *stream, int32_t token, struct err *err)
{
    struct buf text = BUF_INIT;
    int rc;

    buf_add(&stream->tokens, &token, sizeof(token));
    rc = decode(&text, stream, err);
    if (rc == 0)
        rc = print(stream, buf_str(&text), stream_settled(buf_str(&text), text.n_bytes),
                   err);
    buf_fini(&text);
    return rc;
}

int stream_end(struct stream *stream, struct err *err)
{
    struct buf text = BUF_INIT;
    int rc = stream->tokens.n_bytes ? decode(&text, stream, err) : 0;
    size_t n = text.n_bytes;

    while (n && isspace((unsigned char)text.data[n - 1]))
        n--;
    if (rc == 0)
        rc = print(stream, buf_str(&text), n, err);
    buf_fini(&text);
    if (rc == 0 && (fputc('\n', stream->file) == EOF || fflush(stream->file) != 0))
        rc = err_set(err, ERR_IO, "cannot write the answer: %s", strerror(errno));
    return rc;
}

void stream_fini(struct stream *stream)
{
    buf_fini(&stream->tokens);
}
