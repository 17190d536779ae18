#include "common/base/json.h"

#include "common/base/utf8.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct json {
    enum json_type type;
    bool boolean;
    int64_t whole;
    double number;
    struct {
        char *data;
        size_t n_bytes;
    } string;
    struct {
        struct json **items;
        char **keys; /* objects only */
        size_t count;
        size_t capacity;
    } list;
};

static bool is_list(const struct json *json)
{
    return json && (json->type == JSON_ARRAY || json->type == JSON_OBJECT);
}

void json_free(struct json *json)
{
    if (!json)
        return;
    if (json->type == JSON_STRING)
        free(json->string.data);
    if (is_list(json)) {
        for (size_t i = 0; i < json->list.count; i++) {
            json_free(json->list.items[i]);
            if (json->list.keys)
                free(json->list.keys[i]);
        }
        free(json->list.items);
        free(json->list.keys);
    }
    free(json);
}

/* ---- reading a tree ---- */

enum json_type json_type(const struct json *json)
{
    return json ? json->type : JSON_NULL;
}

const char *json_type_name(enum json_type type)
{
    static const char *const names[] = {
        [JSON_NULL] = "null",        [JSON_BOOL] = "true or false",
        [JSON_INT] = "whole number", [JSON_DOUBLE] = "number",
        [JSON_STRING] = "string",    [JSON_ARRAY] = "list",
        [JSON_OBJECT] = "object",
    };

    return names[type];
}

const char *json_string(const struct json *json)
{
    return json && json->type == JSON_STRING ? json->string.data : NULL;
}

size_t json_string_bytes(const struct json *json)
{
    return json && json->type == JSON_STRING ? json->string.n_bytes : 0;
}

int64_t json_int(const struct json *json, int64_t otherwise)
{
    return json && json->type == JSON_INT ? json->whole : otherwise;
}

double json_double(const struct json *json, double otherwise)
{
    if (json && json->type == JSON_INT)
        return (double)json->whole;
    return json && json->type == JSON_DOUBLE ? json->number : otherwise;
}

bool json_bool(const struct json *json, bool otherwise)
{
    return json && json->type == JSON_BOOL ? json->boolean : otherwise;
}

size_t json_count(const struct json *json)
{
    return is_list(json) ? json->list.count : 0;
}

struct json *json_at(const struct json *json, size_t i)
{
    return is_list(json) && i < json->list.count ? json->list.items[i] : NULL;
}

const char *json_key_at(const struct json *json, size_t i)
{
    return json_type(json) == JSON_OBJECT && i < json->list.count ? json->list.keys[i]
                                                                  : NULL;
}

/* Index of a key, or -1. */
static ptrdiff_t find_key(const struct json *json, const char *key)
{
    if (json_type(json) == JSON_OBJECT)
        for (size_t i = 0; i < json->list.count; i++)
            if (strcmp(json->list.keys[i], key) == 0)
                return (ptrdiff_t)i;
    return -1;
}

struct json *json_get(const struct json *json, const char *key)
{
    ptrdiff_t i = find_key(json, key);

    return i < 0 ? NULL : json->list.items[i];
}

const char *json_get_string(const struct json *json, const char *key)
{
    return json_string(json_get(json, key));
}

int64_t json_get_int(const struct json *json, const char *key, int64_t otherwise)
{
    return json_int(json_get(json, key), otherwise);
}

double json_get_double(const struct json *json, const char *key, double otherwise)
{
    return json_double(json_get(json, key), otherwise);
}

/* ---- building ---- */

struct json *json_new(enum json_type type)
{
    struct json *json = calloc(1, sizeof(*json));

    if (!json)
        return NULL;
    json->type = type;
    if (type == JSON_STRING) {
        json->string.data = calloc(1, 1);
        if (!json->string.data) {
            free(json);
            return NULL;
        }
    }
    return json;
}

struct json *json_new_bool(bool value)
{
    struct json *json = json_new(JSON_BOOL);

    if (json)
        json->boolean = value;
    return json;
}

struct json *json_new_int(int64_t value)
{
    struct json *json = json_new(JSON_INT);

    if (json)
        json->whole = value;
    return json;
}

struct json *json_new_double(double value)
{
    struct json *json = json_new(JSON_DOUBLE);

    if (json)
        json->number = value;
    return json;
}

static struct json *new_string_bytes(char *owned, size_t n_bytes)
{
    struct json *json = owned ? calloc(1, sizeof(*json)) : NULL;

    if (!json) {
        free(owned);
        return NULL;
    }
    json->type = JSON_STRING;
    json->string.data = owned;
    json->string.n_bytes = n_bytes;
    return json;
}

struct json *json_new_string(const char *text)
{
    return new_string_bytes(strdup(text), strlen(text));
}

/* Takes the child and the key (NULL for arrays) in every case. */
static int list_add(struct json *list, char *key, struct json *child, struct err *err)
{
    bool is_object = list->type == JSON_OBJECT;

    if (!child || (is_object && !key))
        goto failed;
    if (list->list.count == list->list.capacity) {
        size_t capacity = list->list.capacity ? 2 * list->list.capacity : 4;
        struct json **items = realloc(list->list.items, capacity * sizeof(*items));
        char **keys = NULL;

        if (!items)
            goto failed;
        list->list.items = items;
        if (is_object) {
            keys = realloc(list->list.keys, capacity * sizeof(*keys));
            if (!keys)
                goto failed;
            list->list.keys = keys;
        }
        list->list.capacity = capacity;
    }
    if (is_object)
        list->list.keys[list->list.count] = key;
    list->list.items[list->list.count++] = child;
    return 0;
failed:
    free(key);
    json_free(child);
    return err_set(err, ERR_NOMEM, "out of memory in a JSON tree");
}

int json_append(struct json *array, struct json *child, struct err *err)
{
    if (json_type(array) != JSON_ARRAY) {
        json_free(child);
        return err_set(err, ERR_NOMEM, "out of memory in a JSON tree");
    }
    return list_add(array, NULL, child, err);
}

int json_set(struct json *object, const char *key, struct json *child, struct err *err)
{
    ptrdiff_t i = find_key(object, key);

    if (json_type(object) != JSON_OBJECT || !child) {
        json_free(child);
        return err_set(err, ERR_NOMEM, "out of memory in a JSON tree");
    }
    if (i >= 0) {
        json_free(object->list.items[i]);
        object->list.items[i] = child;
        return 0;
    }
    return list_add(object, strdup(key), child, err);
}

int json_remove(struct json *object, const char *key)
{
    ptrdiff_t i = find_key(object, key);
    size_t after;

    if (i < 0)
        return -1;
    json_free(object->list.items[i]);
    free(object->list.keys[i]);
    after = --object->list.count - (size_t)i;
    memmove(&object->list.items[i], &object->list.items[i + 1],
            after * sizeof(*object->list.items));
    memmove(&object->list.keys[i], &object->list.keys[i + 1],
            after * sizeof(*object->list.keys));
    return 0;
}

struct json *json_clone(const struct json *json)
{
    struct json *copy;

    if (json_type(json) == JSON_STRING) {
        char *data = malloc(json->string.n_bytes + 1);

        if (data)
            memcpy(data, json->string.data, json->string.n_bytes + 1);
        return new_string_bytes(data, json->string.n_bytes);
    }
    copy = json_new(json_type(json));
    if (!copy || !json)
        return copy;
    if (!is_list(json)) {
        *copy = *json;
        return copy;
    }
    for (size_t i = 0; i < json->list.count; i++) {
        char *key = json->list.keys ? strdup(json->list.keys[i]) : NULL;

        if (list_add(copy, key, json_clone(json->list.items[i]), NULL) < 0) {
            json_free(copy);
            return NULL;
        }
    }
    return copy;
}

/* ---- parsing ---- */

struct parser {
    const char *start, *at, *end;
    int64_t line, column; /* of start */
    struct err *err;
};

static int parse_fail(struct parser *p, const char *what)
{
    int64_t line = p->line, column = p->column;

    for (const char *c = p->start; c < p->at; c++) {
        column = *c == '\n' ? 1 : column + 1;
        line += *c == '\n';
    }
    return err_set(p->err, ERR_FORMAT, "%s at line %lld, column %lld", what,
                   (long long)line, (long long)column);
}

static void skip_space(struct parser *p)
{
    while (p->at < p->end &&
           (*p->at == ' ' || *p->at == '\n' || *p->at == '\r' || *p->at == '\t'))
        p->at++;
}

static int parse_hex4(struct parser *p, uint32_t *out)
{
    *out = 0;
    if (p->end - p->at < 4)
        return parse_fail(p, "cut \\u escape");
    for (int i = 0; i < 4; i++) {
        char c = *p->at++;
        int digit = c >= '0' && c <= '9'   ? c - '0'
                    : c >= 'a' && c <= 'f' ? c - 'a' + 10
                    : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                           : -1;

        if (digit < 0)
            return parse_fail(p, "bad \\u escape");
        *out = *out << 4 | (uint32_t)digit;
    }
    return 0;
}

static void add_utf8(struct buf *out, uint32_t c)
{
    if (c < 0x80) {
        buf_add_char(out, (char)c);
    } else if (c < 0x800) {
        buf_add_char(out, (char)(0xC0 | c >> 6));
        buf_add_char(out, (char)(0x80 | (c & 0x3F)));
    } else if (c < 0x10000) {
        buf_add_char(out, (char)(0xE0 | c >> 12));
        buf_add_char(out, (char)(0x80 | (c >> 6 & 0x3F)));
        buf_add_char(out, (char)(0x80 | (c & 0x3F)));
    } else {
        buf_add_char(out, (char)(0xF0 | c >> 18));
        buf_add_char(out, (char)(0x80 | (c >> 12 & 0x3F)));
        buf_add_char(out, (char)(0x80 | (c >> 6 & 0x3F)));
        buf_add_char(out, (char)(0x80 | (c & 0x3F)));
    }
}

static int parse_escape(struct parser *p, struct buf *out)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    uint32_t c, low;
    const char *hit;

    if (p->at == p->end)
        return parse_fail(p, "cut escape");
    hit = memchr(from, *p->at, sizeof(from) - 1);
    if (hit) {
        buf_add_char(out, to[hit - from]);
        p->at++;
        return 0;
    }
    if (*p->at != 'u')
        return parse_fail(p, "unknown escape");
    p->at++;
    if (parse_hex4(p, &c) < 0)
        return -1;
    if (c >= 0xDC00 && c < 0xE000)
        return parse_fail(p, "second half of a surrogate pair without the first");
    if (c >= 0xD800 && c < 0xDC00) {
        if (p->end - p->at < 6 || p->at[0] != '\\' || p->at[1] != 'u')
            return parse_fail(p, "first half of a surrogate pair without the second");
        p->at += 2;
        if (parse_hex4(p, &low) < 0)
            return -1;
        if (low < 0xDC00 || low >= 0xE000)
            return parse_fail(p, "first half of a surrogate pair without the second");
        c = 0x10000 + ((c - 0xD800) << 10) + (low - 0xDC00);
    }
    add_utf8(out, c);
    return 0;
}

static int parse_string(struct parser *p, struct buf *out)
{
    p->at++; /* the opening quote */
    while (p->at < p->end && *p->at != '"') {
        size_t n;

        if ((unsigned char)*p->at < 0x20)
            return parse_fail(p, "control character in a string");
        if (*p->at == '\\') {
            p->at++;
            if (parse_escape(p, out) < 0)
                return -1;
            continue;
        }
        n = utf8_length((const unsigned char *)p->at, (size_t)(p->end - p->at));
        if (!n)
            return parse_fail(p, "invalid UTF-8");
        buf_add(out, p->at, n);
        p->at += n;
    }
    if (p->at == p->end)
        return parse_fail(p, "string without end");
    p->at++;
    return buf_check(out, p->err);
}

static bool is_digit(const struct parser *p)
{
    return p->at < p->end && *p->at >= '0' && *p->at <= '9';
}

static int skip_digits(struct parser *p)
{
    if (!is_digit(p))
        return parse_fail(p, "digit expected");
    while (is_digit(p))
        p->at++;
    return 0;
}

static struct json *parse_number(struct parser *p)
{
    const char *start = p->at;
    bool is_whole = true;
    char text[400];

    if (*p->at == '-')
        p->at++;
    if (p->at < p->end && *p->at == '0')
        p->at++;
    else if (skip_digits(p) < 0)
        return NULL;
    if (p->at < p->end && *p->at == '.') {
        is_whole = false;
        p->at++;
        if (skip_digits(p) < 0)
            return NULL;
    }
    if (p->at < p->end && (*p->at == 'e' || *p->at == 'E')) {
        is_whole = false;
        p->at++;
        if (p->at < p->end && (*p->at == '+' || *p->at == '-'))
            p->at++;
        if (skip_digits(p) < 0)
            return NULL;
    }
    if (p->at - start >= (ptrdiff_t)sizeof(text)) {
        parse_fail(p, "number with too many digits");
        return NULL;
    }
    memcpy(text, start, (size_t)(p->at - start));
    text[p->at - start] = '\0';
    errno = 0;
    if (is_whole) {
        long long value = strtoll(text, NULL, 10);

        if (errno == 0)
            return json_new_int(value);
    }
    return json_new_double(strtod(text, NULL));
}

static struct json *parse_value(struct parser *p, int depth);

static struct json *parse_list(struct parser *p, enum json_type type, int depth)
{
    char close = type == JSON_OBJECT ? '}' : ']';
    struct json *list = json_new(type), *child;
    struct buf key = BUF_INIT;

    p->at++;
    skip_space(p);
    if (list && p->at < p->end && *p->at == close) {
        p->at++;
        return list;
    }
    for (;;) {
        char *owned_key = NULL;

        skip_space(p);
        if (type == JSON_OBJECT) {
            if (p->at == p->end || *p->at != '"') {
                parse_fail(p, "key in quotes expected");
                goto failed;
            }
            if (parse_string(p, &key) < 0)
                goto failed;
            if (strlen(buf_str(&key)) != key.n_bytes || json_get(list, buf_str(&key))) {
                parse_fail(p, "key that stands twice or holds a NUL");
                goto failed;
            }
            owned_key = buf_take(&key);
            skip_space(p);
            if (p->at == p->end || *p->at != ':') {
                free(owned_key);
                parse_fail(p, "':' expected");
                goto failed;
            }
            p->at++;
        }
        child = parse_value(p, depth + 1);
        if (!child) {
            free(owned_key);
            goto failed;
        }
        if (!list || list_add(list, owned_key, child, p->err) < 0)
            goto failed;
        skip_space(p);
        if (p->at < p->end && *p->at == close) {
            p->at++;
            return list;
        }
        if (p->at == p->end || *p->at != ',') {
            parse_fail(p, type == JSON_OBJECT ? "',' or '}' expected"
                                              : "',' or ']' expected");
            goto failed;
        }
        p->at++;
    }
failed:
    buf_fini(&key);
    json_free(list);
    return NULL;
}

static struct json *parse_word(struct parser *p)
{
    static const struct {
        const char *word;
        enum json_type type;
        bool value;
    } words[] = {{"null", JSON_NULL, false},
                 {"true", JSON_BOOL, true},
                 {"false", JSON_BOOL, false}};

    for (size_t i = 0; i < 3; i++) {
        size_t n = strlen(words[i].word);

        if ((size_t)(p->end - p->at) >= n && memcmp(p->at, words[i].word, n) == 0) {
            p->at += n;
            return words[i].type == JSON_NULL ? json_new(JSON_NULL)
                                              : json_new_bool(words[i].value);
        }
    }
    parse_fail(p, "value expected");
    return NULL;
}

static struct json *parse_value(struct parser *p, int depth)
{
    skip_space(p);
    if (depth > JSON_DEPTH_MAX) {
        parse_fail(p, "nested too deep");
        return NULL;
    }
    if (p->at == p->end) {
        parse_fail(p, "value expected, text ends");
        return NULL;
    }
    if (*p->at == '{')
        return parse_list(p, JSON_OBJECT, depth);
    if (*p->at == '[')
        return parse_list(p, JSON_ARRAY, depth);
    if (*p->at == '"') {
        struct buf text = BUF_INIT;

        if (parse_string(p, &text) < 0) {
            buf_fini(&text);
            return NULL;
        }
        size_t n_bytes = text.n_bytes;

        return new_string_bytes(buf_take(&text), n_bytes);
    }
    if (*p->at == '-' || is_digit(p))
        return parse_number(p);
    return parse_word(p);
}

int json_parse(struct json **out, const char *text, size_t n_bytes, struct err *err)
{
    return json_parse_at(out, text, n_bytes, 1, 1, err);
}

int json_parse_at(struct json **out, const char *text, size_t n_bytes, int64_t line,
                  int64_t column, struct err *err)
{
    struct parser p = {text, text, text + n_bytes, line, column, err};
    struct json *json;

    err_set(err, ERR_NOMEM, "out of memory in a JSON tree"); /* if nobody says better */
    json = parse_value(&p, 0);
    if (!json)
        return -1;
    skip_space(&p);
    if (p.at != p.end) {
        json_free(json);
        return parse_fail(&p, "more text after the value");
    }
    err_clear(err);
    *out = json;
    return 0;
}

/* ---- writing ---- */

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
