/* detokenize.h - the "decoder" of a tokenizer.json: texts of tokens into one text
 *
 * ByteLevel, Replace, ByteFallback, Fuse, Strip, Metaspace, and Sequences. Without one
 * the tokens stand with spaces between them.
 * Owns: a struct detokenizer its parts; detokenizer_fini frees them.
 */
#ifndef VNEVA_DATAPREP_TEXT_DETOKENIZE_H
#define VNEVA_DATAPREP_TEXT_DETOKENIZE_H

#include "common/base/json.h"
#include "dataprep/text/pattern.h"

struct detokenizer {
    struct buf steps; /* struct detokenizer_step */
};

/* Texts one after the other: what a step reads and writes. */
struct token_texts {
    struct buf bytes;
    struct buf ends; /* size_t, in bytes */
};

#define TOKEN_TEXTS_INIT                                                                 \
    {                                                                                    \
        BUF_INIT, BUF_INIT                                                               \
    }

void token_texts_add(struct token_texts *texts, const char *bytes, size_t n_bytes);
void token_texts_fini(struct token_texts *texts);

/* json: NULL or null is none. ERR_UNSUPPORTED names a part that is not had. */
int detokenizer_read(struct detokenizer *out, const struct json *json, struct err *err);
void detokenizer_fini(struct detokenizer *detokenizer);

/* Appends the text that these tokens' texts make; `texts` is used up. */
int detokenizer_apply(const struct detokenizer *detokenizer, struct buf *out,
                      struct token_texts *texts, struct err *err);

#endif
