#include "tests/support/prometheus_check.h"
#include "common/base/utf8.h"

#include <ctype.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NAMES_MAX 256
#define SERIES_MAX 4096
#define NAME_MAX_BYTES 128
#define LINE_MAX_BYTES 4096

struct reader {
    char family[NAME_MAX_BYTES], type[16]; /* of the family under way; "": HELP only */
    char names[NAMES_MAX][NAME_MAX_BYTES]; /* of families that have begun */
    int n_names;
    char *series[SERIES_MAX];
    int n_series;
};

static size_t name_length(const char *text, bool may_have_colon)
{
    size_t n = 0;

    while (isalnum((unsigned char)text[n]) || text[n] == '_' ||
           (may_have_colon && text[n] == ':'))
        n++;
    return isdigit((unsigned char)text[0]) || n >= NAME_MAX_BYTES ? 0 : n;
}

static int take_help(struct reader *r, const char *text, struct err *err)
{
    size_t n = name_length(text, true);

    if (!n || text[n] != ' ' || !text[n + 1])
        return err_set(err, ERR_FORMAT, "HELP without a name or a text");
    for (int i = 0; i < r->n_names; i++)
        if (strncmp(r->names[i], text, n) == 0 && !r->names[i][n])
            return err_set(err, ERR_FORMAT, "a family comes twice");
    if (r->n_names == NAMES_MAX)
        return err_set(err, ERR_LIMIT, "too many families");
    snprintf(r->family, sizeof(r->family), "%.*s", (int)n, text);
    memcpy(r->names[r->n_names++], r->family, sizeof(r->family));
    r->type[0] = '\0';
    return 0;
}

static int take_type(struct reader *r, const char *text, struct err *err)
{
    size_t n = strlen(r->family);
    bool is_counter = n > 6 && strcmp(r->family + n - 6, "_total") == 0;

    if (strncmp(text, r->family, n) != 0 || text[n] != ' ' || r->type[0])
        return err_set(err, ERR_FORMAT, "TYPE that does not follow its HELP");
    if (strcmp(text + n + 1, is_counter ? "counter" : "gauge") != 0)
        return err_set(err, ERR_FORMAT, "TYPE does not fit the name");
    snprintf(r->type, sizeof(r->type), "%s", text + n + 1);
    return 0;
}

/* {name="value",...}; where it ends, or NULL. */
static const char *skip_labels(const char *at)
{
    if (*at != '{')
        return at;
    do {
        size_t n = name_length(++at, false);

        if (!n || strncmp(at + n, "=\"", 2) != 0)
            return NULL;
        for (at += n + 2; *at != '"'; at++) {
            if (!*at || (*at == '\\' && !strchr("\\\"n", *++at)))
                return NULL;
            if (!*at)
                return NULL;
        }
        at++;
    } while (*at == ',');
    return *at == '}' ? at + 1 : NULL;
}

static int take_sample(struct reader *r, const char *line, struct err *err)
{
    size_t n = name_length(line, true);
    const char *at = skip_labels(line + n);
    char *end;

    if (!n || strlen(r->family) != n || strncmp(r->family, line, n) != 0 || !r->type[0])
        return err_set(err, ERR_FORMAT, "a sample outside of its family");
    if (!at || *at != ' ')
        return err_set(err, ERR_FORMAT, "labels that cannot be read");
    (void)strtod(at + 1, &end);
    if (end == at + 1 || isspace((unsigned char)at[1]) || *end)
        return err_set(err, ERR_FORMAT, "a value that is no number");
    if (r->n_series == SERIES_MAX)
        return err_set(err, ERR_LIMIT, "too many series");
    for (int i = 0; i < r->n_series; i++)
        if (strlen(r->series[i]) == (size_t)(at - line) &&
            strncmp(r->series[i], line, (size_t)(at - line)) == 0)
            return err_set(err, ERR_FORMAT, "a series comes twice");
    r->series[r->n_series++] = strndup(line, (size_t)(at - line));
    return 0;
}

static int take_line(struct reader *r, const char *line, struct err *err)
{
    size_t n = strlen(line);

    for (size_t i = 0; i < n;) {
        size_t step = utf8_length((const unsigned char *)line + i, n - i);

        if (!step)
            return err_set(err, ERR_FORMAT, "no UTF-8");
        i += step;
    }
    if (strncmp(line, "# HELP ", 7) == 0)
        return take_help(r, line + 7, err);
    if (strncmp(line, "# TYPE ", 7) == 0)
        return take_type(r, line + 7, err);
    return take_sample(r, line, err);
}

int prometheus_check(const char *text, struct err *err)
{
    struct reader *r = calloc(1, sizeof(*r));
    char line[LINE_MAX_BYTES];
    int rc = 0;

    if (!r)
        return err_set(err, ERR_NOMEM, "no memory");
    for (int number = 1; rc == 0 && *text; number++) {
        const char *end = strchr(text, '\n');

        if (!end || end - text >= LINE_MAX_BYTES) {
            rc = err_set(err, ERR_FORMAT, "line %d has no end", number);
            break;
        }
        snprintf(line, sizeof(line), "%.*s", (int)(end - text), text);
        rc = take_line(r, line, err);
        if (rc < 0)
            err_wrap(err, "line %d, '%.100s'", number, line);
        text = end + 1;
    }
    for (int i = 0; i < r->n_series; i++)
        free(r->series[i]);
    free(r);
    return rc;
}
