#include "jobs/client/html.h"

#include <stdint.h>

void html_text(struct buf *out, const char *text)
{
    for (; text && *text; text++) {
        switch (*text) {
        case '&':
            buf_add_str(out, "&amp;");
            break;
        case '<':
            buf_add_str(out, "&lt;");
            break;
        case '>':
            buf_add_str(out, "&gt;");
            break;
        case '"':
            buf_add_str(out, "&quot;");
            break;
        case '\'':
            buf_add_str(out, "&#39;");
            break;
        default:
            buf_add_char(out, *text);
        }
    }
}

void html_base64(struct buf *out, const void *bytes, size_t n_bytes)
{
    static const char letters[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const uint8_t *b = bytes;

    for (size_t i = 0; i < n_bytes; i += 3) {
        size_t left = n_bytes - i;
        uint32_t three = (uint32_t)b[i] << 16 | (left > 1 ? (uint32_t)b[i + 1] << 8 : 0) |
                         (left > 2 ? b[i + 2] : 0U);

        buf_add_char(out, letters[three >> 18]);
        buf_add_char(out, letters[three >> 12 & 63]);
        buf_add_char(out, left > 1 ? letters[three >> 6 & 63] : '=');
        buf_add_char(out, left > 2 ? letters[three & 63] : '=');
    }
}
