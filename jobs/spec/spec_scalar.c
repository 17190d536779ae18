#include "jobs/spec/spec_tree.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define NUMBER_MAX 64 /* longer digit strings are strings */

static bool is_one_of(const char *text, const char *const *words)
{
    for (; *words; words++)
        if (strcmp(text, *words) == 0)
            return true;
    return false;
}

/* Digits of a base in text, underscores between; their number, *end after them. */
static int skip_digits(const char *text, const char *digits, const char **end)
{
    int n = 0;

    for (; *text && (strchr(digits, *text) || (*text == '_' && n)); text++)
        n += *text != '_';
    *end = text;
    return n;
}

/* Copies text without underscores; false when it does not fit. */
static bool copy_plain(char out[NUMBER_MAX], const char *text)
{
    size_t n = 0;

    for (; *text && n < NUMBER_MAX - 1; text++)
        if (*text != '_')
            out[n++] = *text;
    out[n] = '\0';
    return !*text;
}

/* Whole numbers in base 10, 16 (0x), 8 (leading 0) and 2 (0b). */
static bool read_whole(const char *text, int64_t *value)
{
    const char *at = text + (*text == '-' || *text == '+'), *end;
    const char *digits = "0123456789";
    char plain[NUMBER_MAX], *stop;
    int base = 10, skip = 0;
    long long magnitude;

    if (at[0] == '0' && at[1]) {
        base = at[1] == 'x' ? 16 : at[1] == 'b' ? 2 : 8;
        digits = base == 16 ? "0123456789abcdefABCDEF" : base == 2 ? "01" : "01234567";
        skip = base == 8 ? 1 : 2;
    }
    if (!skip_digits(at + skip, digits, &end) || *end || !copy_plain(plain, at + skip))
        return false;
    errno = 0;
    magnitude = strtoll(plain, &stop, base);
    if (errno || *stop)
        return false;
    *value = *text == '-' ? -magnitude : magnitude;
    return true;
}

/* Digits with a point, an exponent, or both: 1. .5 1e-5 2.5E+3. */
static bool read_number(const char *text, double *value)
{
    static const char digits[] = "0123456789";
    const char *at = text + (*text == '-' || *text == '+');
    char plain[NUMBER_MAX];
    int n = skip_digits(at, digits, &at);

    if (!*at)
        return false; /* no point, no exponent: not for us */
    if (*at == '.')
        n += skip_digits(at + 1, digits, &at);
    if (n == 0)
        return false;
    if (*at == 'e' || *at == 'E') {
        at += 1 + (at[1] == '-' || at[1] == '+');
        if (skip_digits(at, digits, &at) == 0)
            return false;
    }
    if (*at || !copy_plain(plain, text))
        return false;
    *value = strtod(plain, NULL);
    return isfinite(*value);
}

/* NULL: not a number. */
static struct json *scalar_number(const char *text)
{
    int64_t whole;
    double value;

    if (read_whole(text, &whole))
        return json_new_int(whole);
    return read_number(text, &value) ? json_new_double(value) : NULL;
}

struct json *spec_scalar_yaml(const char *text)
{
    static const char *const nulls[] = {"", "~", "null", "Null", "NULL", NULL};
    static const char *const yes[] = {"yes",  "Yes", "YES", "true", "True",
                                      "TRUE", "on",  "On",  "ON",   NULL};
    static const char *const no[] = {"no",    "No",  "NO",  "false", "False",
                                     "FALSE", "off", "Off", "OFF",   NULL};
    struct json *number;

    if (is_one_of(text, nulls))
        return json_new(JSON_NULL);
    if (is_one_of(text, yes))
        return json_new_bool(true);
    if (is_one_of(text, no))
        return json_new_bool(false);
    number = scalar_number(text);
    return number ? number : json_new_string(text);
}

struct json *spec_scalar_hydra(const char *text)
{
    struct json *number;

    if (strcasecmp(text, "null") == 0)
        return json_new(JSON_NULL);
    if (strcasecmp(text, "true") == 0 || strcasecmp(text, "false") == 0)
        return json_new_bool(strcasecmp(text, "true") == 0);
    number = scalar_number(text);
    return number ? number : json_new_string(text);
}
