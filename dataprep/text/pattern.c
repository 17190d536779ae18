#include "dataprep/text/pattern.h"

#include "dataprep/text/unicode.h"

#include <stdlib.h>
#include <string.h>

int pattern_from_regex(struct pattern *out, const char *regex, struct err *err)
{
    *out = (struct pattern){0};
    return regex_create(&out->regex, regex, err);
}

int pattern_read(struct pattern *out, const struct json *json, struct err *err)
{
    const char *text = json_get_string(json, "String");
    const char *regex = json_get_string(json, "Regex");

    *out = (struct pattern){0};
    if (!text && !regex)
        return err_set(err, ERR_FORMAT, "its \"pattern\" has neither String nor Regex");
    if (regex)
        return strlen(regex) == json_string_bytes(json_get(json, "Regex"))
                   ? regex_create(&out->regex, regex, err)
                   : err_set(err, ERR_UNSUPPORTED, "its \"pattern\" holds a NUL");
    out->n_bytes = json_string_bytes(json_get(json, "String"));
    if (!out->n_bytes)
        return err_set(err, ERR_UNSUPPORTED, "its \"pattern\" is an empty text");
    out->text = malloc(out->n_bytes);
    if (!out->text)
        return err_set(err, ERR_NOMEM, "cannot allocate a pattern");
    memcpy(out->text, text, out->n_bytes);
    return 0;
}

void pattern_fini(struct pattern *pattern)
{
    free(pattern->text);
    regex_destroy(pattern->regex);
    *pattern = (struct pattern){0};
}

void pattern_scan_init(struct pattern_scan *scan, const struct pattern *pattern,
                       struct regex_work *work, const char *text, size_t n_bytes)
{
    *scan = (struct pattern_scan){pattern, work, text, n_bytes, 0, SIZE_MAX};
}

static int find_text(const struct pattern_scan *scan, size_t *begin, size_t *end)
{
    const struct pattern *pattern = scan->pattern;
    size_t at = scan->at;

    while (at + pattern->n_bytes <= scan->n_bytes) {
        const char *hit = memchr(scan->text + at, pattern->text[0],
                                 scan->n_bytes - pattern->n_bytes + 1 - at);

        if (!hit)
            return 0;
        at = (size_t)(hit - scan->text);
        if (memcmp(hit, pattern->text, pattern->n_bytes) == 0) {
            *begin = at;
            *end = at + pattern->n_bytes;
            return 1;
        }
        at++;
    }
    return 0;
}

int pattern_next(struct pattern_scan *scan, size_t *begin, size_t *end, struct err *err)
{
    while (scan->at <= scan->n_bytes) {
        uint32_t c;
        int rc = scan->pattern->text
                     ? find_text(scan, begin, end)
                     : regex_find(scan->pattern->regex, scan->work, scan->text,
                                  scan->n_bytes, scan->at, begin, end, err);

        if (rc <= 0)
            return rc;
        if (*begin < *end || *end != scan->last_end) {
            scan->at = scan->last_end = *end;
            return 1;
        }
        scan->at +=
            scan->at < scan->n_bytes ? unicode_decode(scan->text + scan->at, &c) : 1;
    }
    return 0;
}
