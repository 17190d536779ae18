/* added.h - tokens that are found in the text before anything else is done to it
 *
 * "added_tokens" of a tokenizer.json, NeMo's additional_special_tokens. Those that are
 * "normalized" are looked for after normalizing, in their normalized form.
 * Source: tokenizers/src/tokenizer/added_vocabulary.rs of Hugging Face.
 * Owns: its parts; added_fini frees them.
 */
#ifndef VNEVA_DATAPREP_TEXT_ADDED_H
#define VNEVA_DATAPREP_TEXT_ADDED_H

#include "common/base/buf.h"
#include "common/base/err.h"
#include "dataprep/text/regex.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ADDED_TOKENS_MAX 10000

struct added_token {
    char *content;
    size_t n_bytes;
    int32_t id;
    bool is_special, is_normalized;
    bool lstrip, rstrip; /* spaces beside it belong to it */
    bool single_word;    /* only where no letter stands beside it */
};

/* Of several texts that begin at one place. */
enum added_rule { ADDED_LONGEST, ADDED_FIRST };

/* Texts to look for, sorted. */
struct added_texts {
    struct added_text *sorted;
    size_t n;
    size_t firsts[257]; /* first one of each first byte */
    enum added_rule rule;
};

struct added {
    struct buf tokens; /* struct added_token, in the order they were added */
    struct added_texts plain, normalized;
    struct regex *word; /* a letter of a word, when a token wants it */
};

struct added_piece { /* of a text; token -1: text between tokens */
    size_t begin, end;
    int32_t token; /* place in tokens */
};

void added_fini(struct added *added);
/* Copies the token. One of the same content is changed instead; its number stays. */
int added_put(struct added *added, const struct added_token *token, struct err *err);
const struct added_token *added_get(const struct added *added, size_t i);
/* NULL: none. */
const struct added_token *added_find(const struct added *added, const char *content,
                                     size_t n_bytes);

/* After the last token: makes added_split work. normalize: appends the normalized form;
 * NULL: as they are. */
int added_index(struct added *added, enum added_rule rule,
                int (*normalize)(void *state, struct buf *out,
                                 const struct added_token *token, struct err *err),
                void *state, struct err *err);
/* Appends struct added_piece that cover the text: of the plain or of the normalized
 * tokens. */
int added_split(const struct added *added, bool is_normalized, struct buf *out,
                const char *text, size_t n_bytes, struct regex_work *work,
                struct err *err);

#endif
