/* words.h - the tokens of a folder's tokenizer, so that one more can be given a number
 *
 * Reads tokenizer.json (Hugging Face), or tokenizer.model (SentencePiece) with the tokens
 * that tokenizer_config.json adds; writes what was added into a folder's files.
 * Source: sentencepiece_model.proto (ModelProto, TrainerSpec); the files of transformers
 * 4.57's PreTrainedTokenizer.
 * Owns: all it points to. Threads: one caller.
 */
#ifndef VNEVA_MODEL_TOOLS_WORDS_H
#define VNEVA_MODEL_TOOLS_WORDS_H

#include "common/base/json.h"

#include <stdint.h>

struct words {
    struct json *ids;      /* {text: number} */
    int64_t next;          /* the first free number */
    int64_t n_known;       /* tokens of the files; the others were added */
    int64_t unk, bos, eos; /* of a SentencePiece model; -1: none */
    bool is_fast;          /* of tokenizer.json */
};

/* ERR_NOT_FOUND: the folder has no tokenizer. */
int words_read(struct words *out, const char *folder, struct err *err);
void words_fini(struct words *words);

int64_t words_find(const struct words *words, const char *text); /* -1: no such token */
/* The number of a token, a new one when it is not there yet. */
int words_add(struct words *words, const char *text, int64_t *id, struct err *err);

/* The text of a number; NULL: it has none. Borrowed. */
const char *words_text(const struct words *words, int64_t id);
/* Gives a number that has no text one. */
int words_put(struct words *words, const char *text, int64_t id, struct err *err);

/* Writes the added tokens into the files of a folder that has the tokenizer's already; a
 * SentencePiece model alone gets the tokenizer_config.json that transformers wants. */
int words_write(const struct words *words, const char *folder, struct err *err);

#endif
