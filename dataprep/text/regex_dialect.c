/* Oniguruma's words in PCRE2's: one pass over the expression, construct by construct. */
#include "dataprep/text/regex.h"

#include <ctype.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* Letters, marks, digits and what connects them; outside of a class Oniguruma also takes
 * the small digits and fractions of Latin-1. */
#define WORD_INSIDE "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}"
#define WORD_OUTSIDE WORD_INSIDE "\\x{b2}\\x{b3}\\x{b9}\\x{bc}-\\x{be}"

struct dialect {
    const char *start, *at;
    struct buf *out;
    struct err *err;
};

static int refuse(struct dialect *d, const char *what)
{
    return err_set(d->err, ERR_UNSUPPORTED, "%s is not supported (at byte %zu)", what,
                   (size_t)(d->at - d->start) + 1);
}

static void pass(struct dialect *d, size_t n)
{
    buf_add(d->out, d->at, n);
    d->at += n;
}

/* Writes `text` for the n bytes at hand. */
static int put(struct dialect *d, const char *text, size_t n)
{
    buf_add_str(d->out, text);
    d->at += n;
    return 0;
}

/* A category or a property that both have; any other name is a script, of which PCRE2
 * would take the characters used with it, too. */
static bool is_script(const char *name, size_t n)
{
    static const char *const others[] = {"Any", "Alphabetic", "White_Space"};

    for (size_t i = 0; i < sizeof(others) / sizeof(*others); i++)
        if (strlen(others[i]) == n && strncmp(name, others[i], n) == 0)
            return false;
    return n > 2;
}

/* \p{Name}, \P{Name}, \p{^Name} */
static int property(struct dialect *d)
{
    const char *name = d->at + 2, *close = strchr(name, '}');
    bool is_other = d->at[1] == 'P';

    if (*name != '{' || !close)
        return refuse(d, "a property without braces");
    name++;
    if (*name == '^') {
        is_other = !is_other;
        name++;
    }
    buf_printf(d->out, "\\%c{%s%.*s}", is_other ? 'P' : 'p',
               is_script(name, (size_t)(close - name)) ? "sc:" : "", (int)(close - name),
               name);
    d->at = close + 1;
    return 0;
}

/* \uHHHH */
static int code_point(struct dialect *d)
{
    for (int i = 2; i < 6; i++)
        if (!isxdigit((unsigned char)d->at[i]))
            return refuse(d, "\\u without four digits");
    buf_printf(d->out, "\\x{%.4s}", d->at + 2);
    d->at += 6;
    return 0;
}

static int refuse_escape(struct dialect *d)
{
    char what[] = "\\?";

    what[1] = d->at[1];
    return refuse(d, d->at[1] ? what : "a '\\' at the end");
}

static int escape(struct dialect *d, bool in_class)
{
    unsigned char c = (unsigned char)d->at[1];

    switch (c) {
    case 'p':
    case 'P':
        return property(d);
    case 'u':
        return code_point(d);
    case 's':
        return put(d, "\\p{White_Space}", 2);
    case 'S':
        return put(d, "\\P{White_Space}", 2);
    case 'd':
        return put(d, "\\p{Nd}", 2);
    case 'D':
        return put(d, "\\P{Nd}", 2);
    case 'w':
        return put(d, in_class ? WORD_INSIDE : "[" WORD_OUTSIDE "]", 2);
    case 'W':
        return in_class ? refuse_escape(d) : put(d, "[^" WORD_OUTSIDE "]", 2);
    case 'v':
        return put(d, "\\x0b", 2);
    case 'A':
    case 'z':
        if (in_class)
            return refuse_escape(d);
        pass(d, 2);
        return 0;
    default:
        if (!c || (isalnum(c) && !strchr("nrtfaex", c)) || c >= 0x80)
            return refuse_escape(d);
        pass(d, 2);
        return 0;
    }
}

/* [...]: a class inside a class and && are Oniguruma's alone. */
static int class(struct dialect *d)
{
    pass(d, 1);
    if (*d->at == '^')
        pass(d, 1);
    if (*d->at == ']')
        return refuse(d, "a ']' that begins a class");
    while (*d->at != ']') {
        if (!*d->at)
            return refuse(d, "a class without end");
        if (d->at[0] == '[')
            return refuse(d, d->at[1] == ':' ? "a POSIX class" : "a class in a class");
        if (d->at[0] == '&' && d->at[1] == '&')
            return refuse(d, "an intersection of classes (&&)");
        if (d->at[0] != '\\')
            pass(d, 1);
        else if (escape(d, true) < 0)
            return -1;
    }
    pass(d, 1);
    return 0;
}

static int group(struct dialect *d)
{
    static const char *const known[] = {"(?:",  "(?=",  "(?!", "(?>",
                                        "(?<=", "(?<!", "(?i:"};

    if (d->at[1] != '?') {
        if (d->at[1] == '*')
            return refuse(d, "a '(*'");
        pass(d, 1);
        return 0;
    }
    for (size_t i = 0; i < sizeof(known) / sizeof(*known); i++)
        if (strncmp(d->at, known[i], strlen(known[i])) == 0) {
            pass(d, strlen(known[i]));
            return 0;
        }
    /* in the middle it would reach as far as its group in one, to a '|' in the other */
    if (strncmp(d->at, "(?i)", 4) == 0 && d->at == d->start) {
        pass(d, 4);
        return 0;
    }
    return refuse(d, "a group of this kind");
}

/* {n}, {n,}, {n,m}, {,m}; any other brace stands for itself. */
static int interval(struct dialect *d)
{
    const char *end = d->at + 1, *comma;
    size_t n_first = strspn(end, "0123456789"), n_last = 0;

    end += n_first;
    comma = *end == ',' ? end : NULL;
    if (comma) {
        n_last = strspn(end + 1, "0123456789");
        end += 1 + n_last;
    }
    if (*end != '}' || (!n_first && !n_last))
        return put(d, "\\{", 1);
    if (end[1] == '+' || (end[1] == '?' && !comma))
        return refuse(d, "an interval that '+' or '?' follows");
    if (!n_first)
        put(d, "{0", 1);
    pass(d, (size_t)(end + 1 - d->at));
    return 0;
}

static int construct(struct dialect *d)
{
    switch (*d->at) {
    case '\\':
        return escape(d, false);
    case '[':
        return class(d);
    case '(':
        return group(d);
    case '{':
        return interval(d);
    case '$':
        return refuse(d, "'$' (say \\z)");
    default:
        pass(d, 1);
        return 0;
    }
}

int regex_translate(struct buf *out, const char *pattern, struct err *err)
{
    struct dialect d = {pattern, pattern, out, err};

    while (*d.at)
        if (construct(&d) < 0)
            return -1;
    return buf_check(out, err);
}
