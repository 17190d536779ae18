/* JSON trees into texts. */
#include "common/base/json_internal.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void json_write_string(struct buf *out, const char *text, size_t n_bytes)
{
    buf_add_char(out, '"');
    for (size_t i = 0; i < n_bytes; i++) {
        unsigned char c = (unsigned char)text[i];

        if (c == '"' || c == '\\') {
            buf_add_char(out, '\\');
            buf_add_char(out, (char)c);
        } else if (c == '\n') {
            buf_add_str(out, "\\n");
        } else if (c == '\t') {
            buf_add_str(out, "\\t");
        } else if (c < 0x20) {
            buf_printf(out, "\\u%04x", c);
        } else {
            buf_add_char(out, (char)c);
        }
    }
    buf_add_char(out, '"');
}

static void write_double(struct buf *out, double value)
{
    char text[40];

    if (!isfinite(value)) {
        buf_add_str(out, "null");
        return;
    }
    for (int digits = 1; digits <= 17; digits++) {
        snprintf(text, sizeof(text), "%.*g", digits, value);
        if (strtod(text, NULL) == value)
            break;
    }
    buf_add_str(out, text);
    if (!strpbrk(text, ".e")) /* so that it reads back as a double */
        buf_add_str(out, ".0");
}

static void write_break(struct buf *out, int indent, int depth)
{
    if (indent)
        buf_printf(out, "\n%*s", indent * depth, "");
}

static void write_value(struct buf *out, const struct json *json, int indent, int depth)
{
    bool is_object = json_type(json) == JSON_OBJECT;

    switch (json_type(json)) {
    case JSON_NULL:
        buf_add_str(out, "null");
        break;
    case JSON_BOOL:
        buf_add_str(out, json->boolean ? "true" : "false");
        break;
    case JSON_INT:
        buf_printf(out, "%lld", (long long)json->whole);
        break;
    case JSON_DOUBLE:
        write_double(out, json->number);
        break;
    case JSON_STRING:
        json_write_string(out, json->string.data, json->string.n_bytes);
        break;
    case JSON_ARRAY:
    case JSON_OBJECT:
        buf_add_char(out, is_object ? '{' : '[');
        for (size_t i = 0; i < json->list.count; i++) {
            if (i)
                buf_add_str(out, indent ? "," : ", ");
            write_break(out, indent, depth + 1);
            if (is_object) {
                json_write_string(out, json->list.keys[i], strlen(json->list.keys[i]));
                buf_add_str(out, ": ");
            }
            write_value(out, json->list.items[i], indent, depth + 1);
        }
        if (json->list.count)
            write_break(out, indent, depth);
        buf_add_char(out, is_object ? '}' : ']');
        break;
    }
}

void json_write(struct buf *out, const struct json *json, int indent)
{
    write_value(out, json, indent, 0);
}
