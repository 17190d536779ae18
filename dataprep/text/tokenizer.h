/* tokenizer.h - text to token numbers and back
 *
 * SentencePiece .model files through libsentencepiece, behind a C boundary. Extra tokens
 * (NeMo's additional_special_tokens) that the model does not have get the numbers after
 * the model's own; they are matched in the text first, leftmost first, and the text
 * between them is encoded piece by piece, as NeMo's tokenizer does.
 * Threads: a tokenizer may be read by several threads at once.
 */
#ifndef VNEVA_DATAPREP_TEXT_TOKENIZER_H
#define VNEVA_DATAPREP_TEXT_TOKENIZER_H

#include "common/base/buf.h"
#include "common/base/err.h"

#include <stdint.h>

#define TOKENIZER_VOCAB_MIN 300 /* bytes, control tokens, <extra_id_*> and some letters */

struct tokenizer;

/* A token and the bytes [begin, end) of the text it came from. The bytes of one letter
 * spelled out as byte tokens belong to the last of them, the others are empty; so is a
 * leading space that the text does not have. */
struct token_span {
    int32_t id;
    uint32_t begin, end;
};

int tokenizer_open(struct tokenizer **out, const char *path,
                   const char *const *extra_tokens, int n_extra_tokens, struct err *err);
void tokenizer_close(struct tokenizer *tokenizer);

int64_t tokenizer_vocab(const struct tokenizer *tokenizer);
int32_t tokenizer_bos(const struct tokenizer *tokenizer); /* -1: has none */
int32_t tokenizer_eos(const struct tokenizer *tokenizer);
int32_t tokenizer_id(const struct tokenizer *tokenizer, const char *piece); /* -1: none */

/* Appends int32 numbers to out. */
int tokenizer_encode(const struct tokenizer *tokenizer, struct buf *out, const char *text,
                     size_t n_bytes, struct err *err);
/* Appends struct token_span to out, in order. */
int tokenizer_encode_spans(const struct tokenizer *tokenizer, struct buf *out,
                           const char *text, size_t n_bytes, struct err *err);
/* Appends text to out. */
int tokenizer_decode(const struct tokenizer *tokenizer, struct buf *out,
                     const int32_t *tokens, int64_t n_tokens, struct err *err);

/* Trains a SentencePiece BPE model with byte fallback from text lines; writes a .model.
 * It has <unk>, <s>, </s>, then <extra_id_0> to <extra_id_7>, then the bytes. Fewer than
 * `vocab` tokens come out when the texts do not give more. The same texts give the same
 * bytes. Media start and end are <extra_id_4> and <extra_id_5>, as in NeMo. */
int tokenizer_train(const char *output, const char *const *texts, int64_t n_texts,
                    int64_t vocab, struct err *err);

#endif
