/* tokenizer.h - text to token numbers and back
 *
 * SentencePiece .model files through libsentencepiece, behind a C boundary. Extra tokens
 * (NeMo's additional_special_tokens) get the numbers after the model's own.
 * Threads: a tokenizer may be read by several threads at once.
 */
#ifndef VNEVA_DATAPREP_TEXT_TOKENIZER_H
#define VNEVA_DATAPREP_TEXT_TOKENIZER_H

#include "common/base/buf.h"
#include "common/base/err.h"

#include <stdint.h>

struct tokenizer;

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
/* Appends text to out. */
int tokenizer_decode(const struct tokenizer *tokenizer, struct buf *out,
                     const int32_t *tokens, int64_t n_tokens, struct err *err);

/* Trains a SentencePiece BPE model with byte fallback from text lines; writes a .model. */
int tokenizer_train(const char *output, const char *const *texts, int64_t n_texts,
                    int64_t vocab, struct err *err);

#endif
