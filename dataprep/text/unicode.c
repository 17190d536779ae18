#include "dataprep/text/unicode.h"

#include "common/base/utf8.h"

#include <string.h>

#include <utf8proc.h>

/* Below it no character has a canonical decomposition into the one before it, ... */
#define FIRST_MARK 0x300
/* ... and these are the vowels and ends of Korean syllables, letters that compose. */
#define JAMO_FIRST 0x1160
#define JAMO_LAST 0x11FF
#define I_WITH_DOT 0x130 /* the one letter whose small form is two characters */

/* Marks and letters with decompositions that came after Unicode 9, whose tables the
 * tokenizers library normalizes with: to it, and so here, they are letters without any. */
static const uint32_t newer[][2] = {
    {0x7FD, 0x7FD},     {0x898, 0x89F},     {0x8CA, 0x8D3},     {0x9FE, 0x9FE},
    {0xC3C, 0xC3C},     {0xD3B, 0xD3C},     {0xEBA, 0xEBA},     {0x1715, 0x1715},
    {0x1ABF, 0x1ACE},   {0x1DF6, 0x1DFA},   {0x32FF, 0x32FF},   {0xA7F2, 0xA7F4},
    {0xA82C, 0xA82C},   {0xAB69, 0xAB69},   {0x10781, 0x10785}, {0x10787, 0x107B0},
    {0x107B2, 0x107BA}, {0x10D24, 0x10D27}, {0x10EAB, 0x10EAC}, {0x10EFD, 0x10EFF},
    {0x10F46, 0x10F50}, {0x10F82, 0x10F85}, {0x11070, 0x11070}, {0x1133B, 0x1133B},
    {0x1145E, 0x1145E}, {0x11839, 0x1183A}, {0x11930, 0x11930}, {0x11935, 0x11935},
    {0x11938, 0x11938}, {0x1193D, 0x1193E}, {0x11943, 0x11943}, {0x119E0, 0x119E0},
    {0x11A34, 0x11A34}, {0x11A47, 0x11A47}, {0x11A99, 0x11A99}, {0x11D42, 0x11D42},
    {0x11D44, 0x11D45}, {0x11D97, 0x11D97}, {0x11F41, 0x11F42}, {0x16FF0, 0x16FF1},
    {0x1E030, 0x1E06D}, {0x1E08F, 0x1E08F}, {0x1E130, 0x1E136}, {0x1E2AE, 0x1E2AE},
    {0x1E2EC, 0x1E2EF}, {0x1E4EC, 0x1E4EF}, {0x1F16C, 0x1F16C}, {0x1FBF0, 0x1FBF9}};

int unicode_check(const char *text, size_t n_bytes, struct err *err)
{
    size_t at = 0;

    while (at < n_bytes) {
        size_t n = utf8_length((const unsigned char *)text + at, n_bytes - at);

        if (!n)
            return err_set(err, ERR_INVALID, "the text is no valid UTF-8 at its byte %zu",
                           at + 1);
        at += n;
    }
    return 0;
}

size_t unicode_decode(const char *text, uint32_t *out)
{
    const unsigned char *s = (const unsigned char *)text;

    if (s[0] < 0x80) {
        *out = s[0];
        return 1;
    }
    if (s[0] < 0xE0) {
        *out = (s[0] & 0x1Fu) << 6 | (s[1] & 0x3Fu);
        return 2;
    }
    if (s[0] < 0xF0) {
        *out = (s[0] & 0x0Fu) << 12 | (s[1] & 0x3Fu) << 6 | (s[2] & 0x3Fu);
        return 3;
    }
    *out = (s[0] & 0x07u) << 18 | (s[1] & 0x3Fu) << 12 | (s[2] & 0x3Fu) << 6 |
           (s[3] & 0x3Fu);
    return 4;
}

size_t unicode_last(const char *text, size_t n_bytes, uint32_t *out)
{
    size_t at = n_bytes - 1;

    while (at > 0 && ((unsigned char)text[at] & 0xC0) == 0x80)
        at--;
    unicode_decode(text + at, out);
    return n_bytes - at;
}

size_t unicode_encode(char out[UNICODE_BYTES_MAX], uint32_t c)
{
    return (size_t)utf8proc_encode_char((utf8proc_int32_t)c, (utf8proc_uint8_t *)out);
}

bool unicode_is_space(uint32_t c)
{
    return (c >= 0x9 && c <= 0xD) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F ||
           c == 0x205F || c == 0x3000;
}

bool unicode_is_number(uint32_t c)
{
    utf8proc_category_t category = utf8proc_category((utf8proc_int32_t)c);

    return category == UTF8PROC_CATEGORY_ND || category == UTF8PROC_CATEGORY_NL ||
           category == UTF8PROC_CATEGORY_NO;
}

bool unicode_is_punctuation(uint32_t c)
{
    switch (utf8proc_category((utf8proc_int32_t)c)) {
    case UTF8PROC_CATEGORY_PC:
    case UTF8PROC_CATEGORY_PD:
    case UTF8PROC_CATEGORY_PS:
    case UTF8PROC_CATEGORY_PE:
    case UTF8PROC_CATEGORY_PI:
    case UTF8PROC_CATEGORY_PF:
    case UTF8PROC_CATEGORY_PO:
        return true;
    default:
        return c < 0x80 && c && strchr("$+<=>^`|~", (int)c);
    }
}

/* ---- normal forms ---- */

static bool is_newer(uint32_t c)
{
    size_t low = 0, high = sizeof(newer) / sizeof(*newer);

    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (newer[middle][1] < c)
            low = middle + 1;
        else
            high = middle;
    }
    return low < sizeof(newer) / sizeof(*newer) && newer[low][0] <= c;
}

/* May a text be cut before c, each part normalized by itself? Not before marks and the
 * letters that compose with the one before. */
static bool is_boundary(uint32_t c)
{
    if (c < FIRST_MARK || is_newer(c))
        return true;
    if (c >= JAMO_FIRST && c <= JAMO_LAST)
        return false;
    switch (utf8proc_category((utf8proc_int32_t)c)) {
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
        return false;
    default:
        return true;
    }
}

static utf8proc_option_t form_options(enum unicode_form form)
{
    bool is_compatible = form == UNICODE_NFKC || form == UNICODE_NFKD;
    bool is_composed = form == UNICODE_NFC || form == UNICODE_NFKC;

    return (utf8proc_option_t)(UTF8PROC_STABLE |
                               (is_composed ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE) |
                               (is_compatible ? UTF8PROC_COMPAT : 0));
}

/* One letter with its marks, text[begin, end) of in. */
static int normalize_cluster(struct aligned *out, const struct aligned *in, size_t begin,
                             size_t end, utf8proc_option_t options, struct err *err)
{
    utf8proc_int32_t points[UNICODE_CLUSTER_MAX];
    const utf8proc_uint8_t *text = (const utf8proc_uint8_t *)in->text.data + begin;
    utf8proc_ssize_t n = utf8proc_decompose(text, (utf8proc_ssize_t)(end - begin), points,
                                            UNICODE_CLUSTER_MAX, options);
    char bytes[UNICODE_BYTES_MAX];
    size_t n_same = 0, first = out->text.n_bytes;

    if (n > UNICODE_CLUSTER_MAX || n < 0)
        return err_set(err, ERR_LIMIT, "more than %d marks on one letter at byte %u",
                       UNICODE_CLUSTER_MAX, aligned_origin(in, begin) + 1);
    n = utf8proc_normalize_utf32(points, n, options);
    for (utf8proc_ssize_t i = 0; i < n; i++) {
        size_t n_bytes = unicode_encode(bytes, (uint32_t)points[i]);

        buf_add(&out->text, bytes, n_bytes);
    }
    if (buf_check(&out->text, err) < 0)
        return -1;
    n_same = out->text.n_bytes - first;
    out->text.n_bytes = first; /* the bytes stay where they are, and go in again */
    if (n_same == end - begin && memcmp(out->text.data + first, text, n_same) == 0)
        aligned_add_part(out, in, begin, end);
    else
        aligned_add_for(out, out->text.data + first, n_same, aligned_origin(in, begin));
    return 0;
}

int unicode_normalize(struct aligned *out, const struct aligned *in,
                      enum unicode_form form, struct err *err)
{
    /* what the form leaves as it is when it stands alone */
    uint32_t safe = form == UNICODE_NFC ? FIRST_MARK : 0x80;
    utf8proc_option_t options = form_options(form);
    size_t n = in->text.n_bytes, at = 0, same = 0;

    while (at < n) {
        uint32_t c, next = 0;
        size_t end = at + unicode_decode(in->text.data + at, &c), step = 0;
        bool is_alone = true;

        while (!is_newer(c) && end < n &&
               (step = unicode_decode(in->text.data + end, &next)) &&
               !is_boundary(next)) {
            end += step;
            is_alone = false;
        }
        if (!is_newer(c) && (!is_alone || c >= safe)) {
            aligned_add_part(out, in, same, at);
            if (normalize_cluster(out, in, at, end, options, err) < 0)
                return -1;
            same = end;
        }
        at = end;
    }
    aligned_add_part(out, in, same, n);
    out->end = in->end;
    return aligned_check(out, err);
}

void unicode_lower(struct aligned *out, const struct aligned *in)
{
    size_t n = 0;

    for (size_t at = 0; at < in->text.n_bytes; at += n) {
        char bytes[UNICODE_BYTES_MAX];
        uint32_t c, small;

        n = unicode_decode(in->text.data + at, &c);
        small = (uint32_t)utf8proc_tolower((utf8proc_int32_t)c);
        if (c == I_WITH_DOT)
            aligned_add_for(out, "i\xcc\x87", 3, aligned_origin(in, at));
        else if (small == c)
            aligned_add_part(out, in, at, at + n);
        else
            aligned_add_for(out, bytes, unicode_encode(bytes, small),
                            aligned_origin(in, at));
    }
    out->end = in->end;
}
