/* hf_tokenizer.h - tokenizers of Hugging Face's tokenizer.json files
 *
 * Text is cut at added tokens, normalized, cut into words, and the words into tokens (see
 * added.h, normalize.h, pretokenize.h, bpe.h). No special tokens are put around it: the
 * conversation templates do that. "truncation" and "padding" are settings of callers
 * there, and are not read.
 * Source: the tokenizers library, version 0.22.
 * Owns: all its parts; close with NULL is fine. Threads: reading from several is fine.
 */
#ifndef VNEVA_DATAPREP_TEXT_HF_TOKENIZER_H
#define VNEVA_DATAPREP_TEXT_HF_TOKENIZER_H

#include "common/base/buf.h"
#include "common/base/err.h"
#include "dataprep/text/token_folder.h"

#include <stdint.h>

struct hf_tokenizer;

/* ERR_UNSUPPORTED names a part of the file that is not had; ERR_FORMAT what is wrong. */
int hf_open(struct hf_tokenizer **out, const struct token_folder *folder,
            const char *const *extra_tokens, int n_extra_tokens, struct err *err);
void hf_close(struct hf_tokenizer *hf);

int64_t hf_vocab(const struct hf_tokenizer *hf); /* the largest number + 1 */
int32_t hf_bos(const struct hf_tokenizer *hf);   /* -1: none */
int32_t hf_eos(const struct hf_tokenizer *hf);
int32_t hf_find(const struct hf_tokenizer *hf, const char *piece, size_t n_bytes);

/* Appends struct token_span. ERR_INVALID: the text is no UTF-8. */
int hf_encode(const struct hf_tokenizer *hf, struct buf *out, const char *text,
              size_t n_bytes, struct err *err);
/* Appends text. Numbers that no token has are passed over. */
int hf_decode(const struct hf_tokenizer *hf, struct buf *out, const int32_t *tokens,
              int64_t n_tokens, struct err *err);

#endif
