/* stream.h - an answer's tokens as text, while they come
 *
 * Never half a character: the bytes of one that is spelled out over several tokens wait for
 * the last of them. Spaces around the answer are left out, as NeMo trims answers.
 * Threads: one caller.
 */
#ifndef VNEVA_WORKER_GENERATE_STREAM_H
#define VNEVA_WORKER_GENERATE_STREAM_H

#include "dataprep/text/tokenizer.h"

#include <stdio.h>

struct stream {
    const struct tokenizer *tokenizer; /* borrowed, as is file */
    FILE *file;
    struct buf tokens; /* int32, all so far */
    size_t n_printed;  /* bytes of their text */
};

/* ERR_IO: the file cannot be written. */
int stream_add(struct stream *stream, int32_t token, struct err *err);
/* What still waits, and a line break. */
int stream_end(struct stream *stream, struct err *err);
void stream_fini(struct stream *stream);

/* Bytes of text[0, n) that no later token can change: without spaces, unfinished characters
 * and replacement characters (U+FFFD stands for bytes of an unfinished one) at its end. */
size_t stream_settled(const char *text, size_t n);

#endif
