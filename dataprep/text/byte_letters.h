/* byte_letters.h - the letters that GPT-2's vocabularies write bytes with
 *
 * Printable bytes of Latin-1 are themselves, the 68 others are U+0100 and on, in order.
 * Source: bytes_to_unicode in encoder.py of GPT-2.
 */
#ifndef VNEVA_DATAPREP_TEXT_BYTE_LETTERS_H
#define VNEVA_DATAPREP_TEXT_BYTE_LETTERS_H

#include "common/base/buf.h"

#include <stdbool.h>
#include <stdint.h>

uint32_t byte_letter(unsigned char byte);
/* Appends the bytes that a text of letters stands for; false: it holds what is no such
 * letter, and nothing was appended. */
bool byte_letters_decode(struct buf *out, const char *text, size_t n_bytes);

#endif
