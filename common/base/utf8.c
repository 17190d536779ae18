#include "common/base/utf8.h"

#include <stdbool.h>
#include <string.h>

size_t utf8_length(const unsigned char *s, size_t n_left)
{
    size_t n = s[0] < 0x80 ? 1 : s[0] < 0xC2 ? 0 : s[0] < 0xE0 ? 2 : s[0] < 0xF0 ? 3 : 4;

    if (n == 0 || s[0] > 0xF4 || n > n_left)
        return 0;
    for (size_t i = 1; i < n; i++)
        if ((s[i] & 0xC0) != 0x80)
            return 0;
    if ((s[0] == 0xE0 && s[1] < 0xA0) || (s[0] == 0xED && s[1] > 0x9F) ||
        (s[0] == 0xF0 && s[1] < 0x90) || (s[0] == 0xF4 && s[1] > 0x8F))
        return 0;
    return n;
}

/* May `second` follow `first`, the first of several bytes? */
static bool is_pair(unsigned char first, unsigned char second)
{
    unsigned char low = first == 0xE0 ? 0xA0 : first == 0xF0 ? 0x90 : 0x80;
    unsigned char high = first == 0xED ? 0x9F : first == 0xF4 ? 0x8F : 0xBF;

    return second >= low && second <= high;
}

size_t utf8_cut_length(const unsigned char *s, size_t n_left)
{
    size_t whole = s[0] < 0xE0 ? 2 : s[0] < 0xF0 ? 3 : 4, n = 1;

    if (s[0] < 0xC2 || s[0] > 0xF4 || n_left < 2 || !is_pair(s[0], s[1]))
        return 1;
    for (n = 2; n < whole && n < n_left && (s[n] & 0xC0) == 0x80;)
        n++;
    return n;
}

/* May the n bytes at s, which are no character, be the beginning of one? */
static bool is_cut(const unsigned char *s, size_t n)
{
    size_t whole = s[0] < 0xE0 ? 2 : s[0] < 0xF0 ? 3 : 4;

    if (s[0] < 0xC2 || s[0] > 0xF4 || n >= whole)
        return false;
    for (size_t i = 1; i < n; i++)
        if ((s[i] & 0xC0) != 0x80)
            return false;
    return true;
}

void utf8_mend(char *text)
{
    unsigned char *s = (unsigned char *)text;
    size_t n_left = strlen(text);

    while (n_left) {
        size_t n = utf8_length(s, n_left);

        if (n == 0 && is_cut(s, n_left)) {
            *s = '\0';
            return;
        }
        if (n == 0)
            *s = '?';
        s += n ? n : 1;
        n_left -= n ? n : 1;
    }
}

/* ---- on a terminal ---- */

static unsigned decode(const unsigned char *s, size_t n)
{
    unsigned c = n < 2 ? s[0] : s[0] & (0x7Fu >> n);

    for (size_t i = 1; i < n; i++)
        c = c << 6 | (s[i] & 0x3F);
    return c;
}

/* Bytes of the character at s, or one that is none. */
static size_t step(const char *s, unsigned *c)
{
    const unsigned char *u = (const unsigned char *)s;
    size_t n = utf8_length(u, strnlen(s, 4));

    *c = decode(u, n);
    return n ? n : 1;
}

static bool is_control(unsigned c)
{
    return c < 0x20 || (c >= 0x7F && c <= 0x9F) || c == 0x200E || c == 0x200F ||
           (c >= 0x2028 && c <= 0x202E) || (c >= 0x2066 && c <= 0x2069);
}

void utf8_hide_controls(char *text)
{
    char *to = text;

    while (*text) {
        unsigned c;
        size_t n = step(text, &c);

        if (is_control(c))
            *to++ = '?';
        else
            for (size_t i = 0; i < n; i++)
                *to++ = text[i];
        text += n;
    }
    *to = '\0';
}

int utf8_columns(const char *s, size_t *n_bytes)
{
    static const struct {
        unsigned first, last;
        int columns;
    } ranges[] = {
        {0x0300, 0x036F, 0},   {0x1100, 0x115F, 2},   {0x1AB0, 0x1AFF, 0},
        {0x1DC0, 0x1DFF, 0},   {0x200B, 0x200F, 0},   {0x20D0, 0x20FF, 0},
        {0x2E80, 0x303E, 2},   {0x3041, 0xA4CF, 2},   {0xA960, 0xA97C, 2},
        {0xAC00, 0xD7A3, 2},   {0xF900, 0xFAFF, 2},   {0xFE00, 0xFE0F, 0},
        {0xFE10, 0xFE19, 2},   {0xFE20, 0xFE2F, 0},   {0xFE30, 0xFE6F, 2},
        {0xFF01, 0xFF60, 2},   {0xFFE0, 0xFFE6, 2},   {0x1F300, 0x1F64F, 2},
        {0x1F680, 0x1F6FF, 2}, {0x1F900, 0x1F9FF, 2}, {0x20000, 0x3FFFD, 2},
    };
    unsigned c;

    *n_bytes = step(s, &c);
    for (size_t i = 0; i < sizeof(ranges) / sizeof(ranges[0]) && ranges[i].first <= c;
         i++)
        if (c <= ranges[i].last)
            return ranges[i].columns;
    return 1;
}
