/* unicode.h - what a character is, and the normal forms; only here is utf8proc included
 *
 * Texts are valid UTF-8 (unicode_check), characters are code points.
 * Source: Unicode Standard Annex 15 for the forms; the data is utf8proc's, of Unicode 15,
 * and for the forms of Unicode 9, as the tokenizers library has it.
 * Threads: any.
 */
#ifndef VNEVA_DATAPREP_TEXT_UNICODE_H
#define VNEVA_DATAPREP_TEXT_UNICODE_H

#include "dataprep/text/aligned.h"

#include <stdbool.h>

#define UNICODE_BYTES_MAX 4 /* of one character */
/* Characters that are put in order and composed as one: a letter and its marks. */
#define UNICODE_CLUSTER_MAX 4096

enum unicode_form { UNICODE_NFC, UNICODE_NFD, UNICODE_NFKC, UNICODE_NFKD };

/* ERR_INVALID names the first byte that is no UTF-8. */
int unicode_check(const char *text, size_t n_bytes, struct err *err);
/* The character at text; *out its code point. Returns its bytes. */
size_t unicode_decode(const char *text, uint32_t *out);
/* Bytes of the last character of text[0, n_bytes), n_bytes > 0. */
size_t unicode_last(const char *text, size_t n_bytes, uint32_t *out);
size_t unicode_encode(char out[UNICODE_BYTES_MAX], uint32_t c);

bool unicode_is_space(uint32_t c);       /* White_Space */
bool unicode_is_number(uint32_t c);      /* Nd, Nl, No */
bool unicode_is_punctuation(uint32_t c); /* P*, and ASCII's symbols */

/* Appends the text in the form to out. ERR_LIMIT: more marks on one letter than
 * UNICODE_CLUSTER_MAX. */
int unicode_normalize(struct aligned *out, const struct aligned *in,
                      enum unicode_form form, struct err *err);
/* Appends the text in small letters: each character's own mapping, no context. */
void unicode_lower(struct aligned *out, const struct aligned *in);

#endif
