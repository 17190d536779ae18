/* pretokenize.h - the "pre_tokenizer" of a tokenizer.json: text into words
 *
 * ByteLevel (last), Split, Digits, Punctuation, Metaspace, Whitespace, WhitespaceSplit,
 * CharDelimiterSplit, and Sequences.
 * Owns: a struct pretokenizer its parts; pretokenizer_fini frees them.
 */
#ifndef VNEVA_DATAPREP_TEXT_PRETOKENIZE_H
#define VNEVA_DATAPREP_TEXT_PRETOKENIZE_H

#include "common/base/json.h"
#include "dataprep/text/aligned.h"
#include "dataprep/text/pattern.h"

#include <stdbool.h>

struct pretokenizer {
    struct buf steps; /* struct pretokenizer_step */
    bool is_bytes;    /* ByteLevel is the last: words are bytes */
};

/* A word: bytes [begin, end) of a text. */
struct piece {
    size_t begin, end;
};

/* Buffers that last over several calls. */
struct pretokenizer_work {
    struct aligned text;
    struct buf pieces, marks;
};

/* json: NULL or null is none. ERR_UNSUPPORTED names a part that is not had. */
int pretokenizer_read(struct pretokenizer *out, const struct json *json, struct err *err);
void pretokenizer_fini(struct pretokenizer *pretokenizer);
void pretokenizer_work_fini(struct pretokenizer_work *work);

/* pieces: struct piece of text, in order and none empty; both are changed in place. */
int pretokenizer_apply(const struct pretokenizer *pretokenizer, struct aligned *text,
                       struct buf *pieces, struct pretokenizer_work *work,
                       struct regex_work *regex, struct err *err);

#endif
