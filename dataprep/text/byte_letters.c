#include "dataprep/text/byte_letters.h"

#include "dataprep/text/unicode.h"

static bool is_itself(uint32_t c)
{
    return (c >= 0x21 && c <= 0x7E) || (c >= 0xA1 && c <= 0xAC) ||
           (c >= 0xAE && c <= 0xFF);
}

/* The bytes that are not themselves, in order: 0-32, 127-160, 173. */
uint32_t byte_letter(unsigned char byte)
{
    if (is_itself(byte))
        return byte;
    if (byte <= 0x20)
        return 0x100u + byte;
    return byte == 0xAD ? 0x143u : 0x121u + byte - 0x7Fu;
}

/* -1: no letter of a byte */
static int letter_byte(uint32_t c)
{
    if (is_itself(c))
        return (int)c;
    if (c >= 0x100 && c <= 0x120)
        return (int)c - 0x100;
    if (c >= 0x121 && c <= 0x142)
        return (int)c - 0x121 + 0x7F;
    return c == 0x143 ? 0xAD : -1;
}

bool byte_letters_decode(struct buf *out, const char *text, size_t n_bytes)
{
    size_t before = out->n_bytes;

    for (size_t at = 0; at < n_bytes;) {
        uint32_t c;
        int byte;

        at += unicode_decode(text + at, &c);
        byte = letter_byte(c);
        if (byte < 0) {
            out->n_bytes = before;
            return false;
        }
        buf_add_char(out, (char)byte);
    }
    return true;
}
