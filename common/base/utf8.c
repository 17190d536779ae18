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
