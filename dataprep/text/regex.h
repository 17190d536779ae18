/* regex.h - regular expressions of tokenizer.json files; only here is PCRE2 included
 *
 * The files are written for Oniguruma in its Ruby dialect. What both say differently is
 * translated (\s, \w and \d as Unicode has them, \uHHHH, {,n}); what cannot be said in
 * PCRE2 is refused by name, never read otherwise. An expression that tries too many ways
 * at one place ends in ERR_LIMIT; one that is slow at every place is slow.
 * Categories are PCRE2's: of Unicode 14 in version 10.42, where the library has 16; letters
 * that are newer (CJK extensions H and I, Kawi, Garay...) are none here.
 * Source: doc/RE of Oniguruma, and pcre2pattern.
 * Owns: both structs; destroy with NULL is fine. Threads: a regex may be used by several
 * at once, a work by one.
 */
#ifndef VNEVA_DATAPREP_TEXT_REGEX_H
#define VNEVA_DATAPREP_TEXT_REGEX_H

#include "common/base/buf.h"
#include "common/base/err.h"

#include <stddef.h>
#include <stdint.h>

#define REGEX_PATTERN_MAX (16u << 10)  /* bytes */
#define REGEX_STEPS_MAX 1000000u       /* at one place of a text, ... */
#define REGEX_STEPS_OF_BYTE 8u         /* ... and more in longer ones */
#define REGEX_HEAP_MAX_KIB (64u << 10) /* for going back */

struct regex;
struct regex_work; /* what one search at a time needs */

/* ERR_UNSUPPORTED: a construct that is not translated; ERR_FORMAT: no expression. */
int regex_create(struct regex **out, const char *pattern, struct err *err);
void regex_destroy(struct regex *regex);
int regex_work_create(struct regex_work **out, struct err *err);
void regex_work_destroy(struct regex_work *work);

/* The first match in text[from, n_bytes), valid UTF-8; text before `from` counts for
 * looking back. 1: found, 0: none, -1: err. */
int regex_find(const struct regex *regex, struct regex_work *work, const char *text,
               size_t n_bytes, size_t from, size_t *begin, size_t *end, struct err *err);

/* Oniguruma's expression in PCRE2's words, appended to out. */
int regex_translate(struct buf *out, const char *pattern, struct err *err);

#endif
