/* utf8.h - which bytes are UTF-8, and texts made so
 *
 * Source: RFC 3629, section 4 (no overlong forms, no surrogates, nothing above U+10FFFF).
 */
#ifndef VNEVA_COMMON_BASE_UTF8_H
#define VNEVA_COMMON_BASE_UTF8_H

#include <stddef.h>

/* Bytes of the valid sequence at s, of which n_left >= 1 may be read; 0: there is none. */
size_t utf8_length(const unsigned char *s, size_t n_left);

/* Bytes of the longest beginning of a character at s, where no whole one is (as Unicode
 * 15, section 3.9, counts them for U+FFFD); at least 1. */
size_t utf8_cut_length(const unsigned char *s, size_t n_left);

/* Makes a text fit for a message, in place: a last character that was cut off goes, other
 * bytes that are no UTF-8 become '?'. */
void utf8_mend(char *text);

#endif
