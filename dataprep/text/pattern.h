/* pattern.h - what Split and Replace of a tokenizer.json look for: a text or a regex
 *
 * Owns: a struct pattern its parts; pattern_fini frees them.
 */
#ifndef VNEVA_DATAPREP_TEXT_PATTERN_H
#define VNEVA_DATAPREP_TEXT_PATTERN_H

#include "common/base/json.h"
#include "dataprep/text/regex.h"

struct pattern {
    char *text; /* NULL: the regex */
    size_t n_bytes;
    struct regex *regex;
};

/* The matches of a pattern in a text, one after the other. */
struct pattern_scan {
    const struct pattern *pattern;
    struct regex_work *work;
    const char *text;
    size_t n_bytes, at;
    size_t last_end; /* SIZE_MAX: no match yet */
};

/* {"String": ...} or {"Regex": ...} */
int pattern_read(struct pattern *out, const struct json *json, struct err *err);
int pattern_from_regex(struct pattern *out, const char *regex, struct err *err);
void pattern_fini(struct pattern *pattern);

void pattern_scan_init(struct pattern_scan *scan, const struct pattern *pattern,
                       struct regex_work *work, const char *text, size_t n_bytes);
/* 1: the next match, 0: no more, -1: err. Two empty matches never stand at one place, nor
 * one where the match before ends. */
int pattern_next(struct pattern_scan *scan, size_t *begin, size_t *end, struct err *err);

#endif
