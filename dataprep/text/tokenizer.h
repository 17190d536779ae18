/* tokenizer.h - text to token numbers and back
 *
 * A tokenizer is one of:
 *     a SentencePiece .model file, as NeMo reads it
 *     a tokenizer.json of Hugging Face's tokenizers library (model BPE), with the
 *         tokenizer_config.json, special_tokens_map.json and added_tokens.json beside it
 *     a folder that holds one of them; a .model with such files beside it is read as
 *         transformers' LlamaTokenizer does
 * The numbers are those that sentencepiece, tokenizers and transformers give, without
 * special tokens around the text. Extra tokens (NeMo's additional_special_tokens) that it
 * does not have get the numbers after its own; they are matched in the text first.
 * Threads: a tokenizer may be read by several threads at once.
 */
#ifndef VNEVA_DATAPREP_TEXT_TOKENIZER_H
#define VNEVA_DATAPREP_TEXT_TOKENIZER_H

#include "common/base/buf.h"
#include "common/base/err.h"

#include <stdint.h>

#define TOKENIZER_VOCAB_MIN 300 /* bytes, control tokens, <extra_id_*> and some letters */

struct tokenizer;

/* A token and the bytes [begin, end) of the text it came from, whatever a normalizer made
 * of them; the next token's are after it. A letter that was spelled out in byte tokens,
 * or that became several, belongs to the last of these, the others are empty; so is a
 * leading space that the text does not have. Only where tokens are pieces of unchanged
 * text may a letter's bytes lie in several. Text that is dropped lies between tokens. */
struct token_span {
    int32_t id;
    uint32_t begin, end;
};

/* ERR_UNSUPPORTED: a part of a tokenizer.json that is not had here, by name. */
int tokenizer_open(struct tokenizer **out, const char *path,
                   const char *const *extra_tokens, int n_extra_tokens, struct err *err);
void tokenizer_close(struct tokenizer *tokenizer);

int64_t tokenizer_vocab(const struct tokenizer *tokenizer);
int32_t tokenizer_bos(const struct tokenizer *tokenizer); /* -1: has none */
int32_t tokenizer_eos(const struct tokenizer *tokenizer);
int32_t tokenizer_id(const struct tokenizer *tokenizer, const char *piece); /* -1: none */

/* Appends int32 numbers to out. ERR_INVALID: the text is no UTF-8; ERR_LIMIT: it is too
 * long, or a regular expression of the tokenizer tries too many ways on it. */
int tokenizer_encode(const struct tokenizer *tokenizer, struct buf *out, const char *text,
                     size_t n_bytes, struct err *err);
/* Appends struct token_span to out, in order. */
int tokenizer_encode_spans(const struct tokenizer *tokenizer, struct buf *out,
                           const char *text, size_t n_bytes, struct err *err);
/* Appends text to out. Numbers that no token has are passed over: a model's vocabulary may
 * be padded. ERR_INVALID: a number below 0. */
int tokenizer_decode(const struct tokenizer *tokenizer, struct buf *out,
                     const int32_t *tokens, int64_t n_tokens, struct err *err);

/* Calls `use` with the bytes of every file that makes it up, under the name it has in a
 * folder of Hugging Face: tokenizer.json or tokenizer.model, then those beside it. A folder
 * with just these is the same tokenizer. */
#define TOKENIZER_FILES_MAX 4
typedef int tokenizer_file_fn(void *state, const char *name, const struct buf *bytes,
                              struct err *err);
int tokenizer_each_file(const char *path, void *state, tokenizer_file_fn *use,
                        struct err *err);
/* hash64 of these files, one after the other. */
int tokenizer_hash(uint64_t *out, const char *path, struct err *err);

/* Trains a SentencePiece BPE model with byte fallback from text lines; writes a .model.
 * It has <unk>, <s>, </s>, then <extra_id_0> to <extra_id_7>, then the bytes. Fewer than
 * `vocab` tokens come out when the texts do not give more. The same texts give the same
 * bytes. Media start and end are <extra_id_4> and <extra_id_5>, as in NeMo. */
int tokenizer_train(const char *output, const char *const *texts, int64_t n_texts,
                    int64_t vocab, struct err *err);

#endif
