/* Words of a condition as values: the column says how a word is read. */
#define _DEFAULT_SOURCE /* timegm */
#include "coordinator/store/query_internal.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

struct suffix {
    const char *name;
    double factor;
};

static const struct suffix durations[] = {{"ms", 1},      {"s", 1e3},   {"m", 6e4},
                                          {"min", 6e4},   {"h", 3.6e6}, {"d", 8.64e7},
                                          {"w", 6.048e8}, {NULL, 0}};

static const struct suffix sizes[] = {{"B", 1},
                                      {"k", 1024.0},
                                      {"KiB", 1024.0},
                                      {"M", 1048576.0},
                                      {"MiB", 1048576.0},
                                      {"G", 1073741824.0},
                                      {"GiB", 1073741824.0},
                                      {"T", 1099511627776.0},
                                      {"TiB", 1099511627776.0},
                                      {NULL, 0}};

/* "90s", "1.5h": a number and one of the suffixes. */
static bool read_scaled(const char *word, const struct suffix *suffixes, double *out)
{
    char *end;
    double number = strtod(word, &end);

    if (end == word)
        return false;
    for (const struct suffix *s = suffixes; s->name; s++)
        if (strcasecmp(end, s->name) == 0) {
            *out = number * s->factor;
            return true;
        }
    return false;
}

static bool read_number(const char *word, double *out)
{
    char *end;

    *out = strtod(word, &end);
    return end != word && !*end;
}

/* One or two digits (four of a year), and what stands before them; *at moves behind. */
static bool read_part(const char **at, char before, int n_digits, int *out)
{
    const char *p = *at;
    int n = 0;

    if (before && *p++ != before)
        return false;
    for (*out = 0; n < n_digits && isdigit((unsigned char)*p); n++)
        *out = 10 * *out + (*p++ - '0');
    if (n == 0 || (n_digits == 4 && n < 4))
        return false;
    *at = p;
    return true;
}

/* "2026-11-27", with "T10:00" or "T10:00:30", with "Z" for UTC: else the asker's time. */
static bool read_date(const char *word, int64_t utc_offset_s, int64_t *ms)
{
    struct tm parts = {.tm_mday = 1};
    const char *at = word;

    if (!read_part(&at, 0, 4, &parts.tm_year) || !read_part(&at, '-', 2, &parts.tm_mon) ||
        !read_part(&at, '-', 2, &parts.tm_mday))
        return false;
    if ((read_part(&at, 'T', 2, &parts.tm_hour) ||
         read_part(&at, ' ', 2, &parts.tm_hour)) &&
        read_part(&at, ':', 2, &parts.tm_min))
        (void)read_part(&at, ':', 2, &parts.tm_sec); /* may be left out */
    if (strcmp(at, "Z") == 0)
        utc_offset_s = 0;
    else if (*at)
        return false;
    parts.tm_year -= 1900;
    parts.tm_mon -= 1;
    *ms = ((int64_t)timegm(&parts) - utc_offset_s) * 1000;
    return true;
}

static int read_time(struct query_value *out, const struct query_column *column,
                     const char *word, int64_t utc_offset_s, int64_t now_ms,
                     struct err *err)
{
    double number;

    out->type = QUERY_INT;
    if (strcmp(word, "now") == 0)
        out->whole = now_ms;
    else if (read_scaled(word, durations, &number))
        out->whole = now_ms - (int64_t)number;
    else if (read_number(word, &number))
        out->whole = (int64_t)number;
    else if (!read_date(word, utc_offset_s, &out->whole))
        return err_set(err, ERR_INVALID,
                       "'%s' is no time for %s; write how long ago (90s, 30m, 2h, 3d), "
                       "2026-11-27 or 2026-11-27T10:00",
                       word, column->name);
    return 0;
}

static int read_boolean(struct query_value *out, const struct query_column *column,
                        const char *word, struct err *err)
{
    static const char *const words[] = {"false", "no", "0", "true", "yes", "1"};

    out->type = QUERY_INT;
    for (int i = 0; i < 6; i++)
        if (strcasecmp(word, words[i]) == 0) {
            out->whole = i >= 3;
            return 0;
        }
    return err_set(err, ERR_INVALID, "%s is true or false, not '%s'", column->name, word);
}

static int read_numeric(struct query_value *out, const struct query_column *column,
                        const char *word, struct err *err)
{
    char *end;

    errno = 0;
    out->type = QUERY_INT;
    out->whole = strtoll(word, &end, 10);
    if (end != word && !*end && !errno)
        return 0;
    out->type = QUERY_REAL;
    if (read_number(word, &out->number) ||
        (strcmp(column->unit, "bytes") == 0 && read_scaled(word, sizes, &out->number)) ||
        (strcmp(column->unit, "ms") == 0 && read_scaled(word, durations, &out->number)))
        return 0;
    return err_set(err, ERR_INVALID, "%s is a number, '%s' is none", column->name, word);
}

int query_read_value(struct query_value *out, const struct query_column *column,
                     const char *word, const struct query_request *request,
                     int64_t now_ms, struct err *err)
{
    *out = (struct query_value){.type = QUERY_TEXT};
    if (strcmp(column->unit, "time") == 0)
        return read_time(out, column, word, request->utc_offset_s, now_ms, err);
    if (strcmp(column->type, "boolean") == 0)
        return read_boolean(out, column, word, err);
    if (strcmp(column->type, "integer") == 0 || strcmp(column->type, "real") == 0)
        return read_numeric(out, column, word, err);
    out->text = strdup(word);
    return out->text ? 0 : err_set(err, ERR_NOMEM, "no memory for a condition");
}
