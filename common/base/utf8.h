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

/* What would move a terminal's cursor, or turn the order of a line round, becomes '?', in
 * place: control characters (also U+0080 to U+009F, which xterm obeys), line and paragraph
 * separators, marks of direction. */
void utf8_hide_controls(char *text);

/* Columns of a terminal that the character at s takes (2: those of East Asia, 0: marks on
 * the one before), and its bytes. s[0] is not '\0'.
 * Source: Unicode 15, EastAsianWidth.txt (W and F) and the combining blocks, in ranges. */
int utf8_columns(const char *s, size_t *n_bytes);

#endif
