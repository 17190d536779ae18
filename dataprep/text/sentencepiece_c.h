/* sentencepiece_c.h - the C boundary to libsentencepiece; only sp_tokenizer.c and
 * tokenizer_train.c include it
 *
 * No exception and no C++ type crosses it.
 * Owns: struct sp_model; free it with sp_close. Threads: reading from several is fine.
 * Source: sentencepiece_processor.h and sentencepiece_trainer.h of 0.1.97.
 */
#ifndef VNEVA_DATAPREP_TEXT_SENTENCEPIECE_C_H
#define VNEVA_DATAPREP_TEXT_SENTENCEPIECE_C_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct buf;
struct err;
struct sp_model;

/* bytes: of a .model file. has_prefix: a text that begins without a space is given one,
 * if the model wants that; false: never. */
int sp_open(struct sp_model **out, const char *bytes, size_t n_bytes, bool has_prefix,
            struct err *err);
void sp_close(struct sp_model *model);

int32_t sp_vocab(const struct sp_model *model);
int32_t sp_bos(const struct sp_model *model); /* -1: none */
int32_t sp_eos(const struct sp_model *model);
int32_t sp_find(const struct sp_model *model, const char *piece); /* -1: none */

/* Appends struct token_span, byte offsets moved by `shift`. */
int sp_encode(const struct sp_model *model, struct buf *out, const char *text,
              size_t n_bytes, uint32_t shift, struct err *err);
int sp_decode(const struct sp_model *model, struct buf *out, const int32_t *tokens,
              int64_t n_tokens, struct err *err);

/* Appends the serialized model to out. */
int sp_train(struct buf *out, const char *const *lines, int64_t n_lines, int64_t vocab,
             struct err *err);

#endif
