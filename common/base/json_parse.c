/* JSON texts into trees. */
#include "common/base/json_internal.h"
#include "common/base/utf8.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

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

/* A key of `object` and its colon; NULL: there is none, p->err says why. */
static char *parse_key(struct parser *p, const struct json *object)
{
    struct buf key = BUF_INIT;

    skip_space(p);
    if (p->at == p->end || *p->at != '"') {
        parse_fail(p, "key in quotes expected");
        return NULL;
    }
    if (parse_string(p, &key) < 0)
        goto failed;
    if (strlen(buf_str(&key)) != key.n_bytes || json_get(object, buf_str(&key))) {
        parse_fail(p, "key that stands twice or holds a NUL");
        goto failed;
    }
    skip_space(p);
    if (p->at == p->end || *p->at != ':') {
        parse_fail(p, "':' expected");
        goto failed;
    }
    p->at++;
    return buf_take(&key);
failed:
    buf_fini(&key);
    return NULL;
}

static int parse_member(struct parser *p, struct json *list, int depth)
{
    bool is_object = list->type == JSON_OBJECT;
    char *key = is_object ? parse_key(p, list) : NULL;
    struct json *child = is_object && !key ? NULL : parse_value(p, depth + 1);

    if (!child) {
        free(key);
        return -1;
    }
    return json_list_add(list, key, child, p->err);
}

static struct json *parse_list(struct parser *p, enum json_type type, int depth)
{
    char close = type == JSON_OBJECT ? '}' : ']';
    struct json *list = json_new(type);

    p->at++;
    skip_space(p);
    if (list && p->at < p->end && *p->at == close) {
        p->at++;
        return list;
    }
    while (list && parse_member(p, list, depth) == 0) {
        skip_space(p);
        if (p->at < p->end && *p->at == close) {
            p->at++;
            return list;
        }
        if (p->at == p->end || *p->at != ',') {
            parse_fail(p, type == JSON_OBJECT ? "',' or '}' expected"
                                              : "',' or ']' expected");
            break;
        }
        p->at++;
    }
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

        return json_take_string(buf_take(&text), n_bytes);
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
