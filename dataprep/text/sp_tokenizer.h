/* sp_tokenizer.h - tokenizers of SentencePiece .model files
 *
 * A file that is named itself is read as NeMo does: extra tokens that it does not have
 * come after its own, are matched in the text first, leftmost first, and the text between
 * them is encoded piece by piece. With the files of a Hugging Face folder beside it, it is
 * read as their slow LlamaTokenizer does: tokens and numbers come from the files beside it, and "legacy":
 * false puts a space only where the whole text begins.
 * Owns: all its parts; close with NULL is fine. Threads: reading from several is fine.
 */
#ifndef VNEVA_DATAPREP_TEXT_SP_TOKENIZER_H
#define VNEVA_DATAPREP_TEXT_SP_TOKENIZER_H

#include "common/base/buf.h"
#include "common/base/err.h"
#include "dataprep/text/token_folder.h"

#include <stdint.h>

struct sp_tokenizer;

int sp_tokenizer_open(struct sp_tokenizer **out, const struct token_folder *folder,
                      const char *const *extra_tokens, int n_extra_tokens,
                      struct err *err);
void sp_tokenizer_close(struct sp_tokenizer *sp);

int64_t sp_tokenizer_vocab(const struct sp_tokenizer *sp);
int32_t sp_tokenizer_bos(const struct sp_tokenizer *sp); /* -1: none */
int32_t sp_tokenizer_eos(const struct sp_tokenizer *sp);
int32_t sp_tokenizer_find(const struct sp_tokenizer *sp, const char *piece);

/* Appends struct token_span. */
int sp_tokenizer_encode(const struct sp_tokenizer *sp, struct buf *out, const char *text,
                        size_t n_bytes, struct err *err);
/* Appends text. Numbers that no token has are passed over. */
int sp_tokenizer_decode(const struct sp_tokenizer *sp, struct buf *out,
                        const int32_t *tokens, int64_t n_tokens, struct err *err);

#endif
