#define PCRE2_CODE_UNIT_WIDTH 8

#include "dataprep/text/regex.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include <pcre2.h>

struct regex {
    pcre2_code *code;
    char *pattern; /* as the file has it, for errors */
};

struct regex_work {
    pcre2_match_data *match;
    pcre2_match_context *context;
};

static int compile(struct regex *regex, const struct buf *text, struct err *err)
{
    pcre2_compile_context *context = pcre2_compile_context_create(NULL);
    unsigned char message[128];
    PCRE2_SIZE at = 0;
    int code = 0;

    if (!context)
        return err_set(err, ERR_NOMEM, "cannot allocate a regular expression");
    pcre2_set_newline(context, PCRE2_NEWLINE_LF);
    regex->code =
        pcre2_compile((PCRE2_SPTR)buf_str(text), text->n_bytes,
                      PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C,
                      &code, &at, context);
    pcre2_compile_context_free(context);
    if (!regex->code) {
        pcre2_get_error_message(code, message, sizeof(message));
        return err_set(err, ERR_FORMAT, "it is not understood: %s", (char *)message);
    }
    /* Without it the expression is interpreted: slower, the same answers. */
    pcre2_jit_compile(regex->code, PCRE2_JIT_COMPLETE);
    return 0;
}

int regex_create(struct regex **out, const char *pattern, struct err *err)
{
    struct regex *regex = calloc(1, sizeof(*regex));
    struct buf text = BUF_INIT;
    int rc = -1;

    if (regex)
        regex->pattern = strdup(pattern);
    if (!regex || !regex->pattern)
        err_set(err, ERR_NOMEM, "cannot allocate a regular expression");
    else if (strlen(pattern) > REGEX_PATTERN_MAX)
        err_set(err, ERR_LIMIT, "it has %zu bytes, at most %u are taken", strlen(pattern),
                REGEX_PATTERN_MAX);
    else if (regex_translate(&text, pattern, err) == 0)
        rc = compile(regex, &text, err);
    buf_fini(&text);
    if (rc < 0) {
        regex_destroy(regex);
        return err_wrap(err, "regular expression '%.80s'", pattern);
    }
    *out = regex;
    return 0;
}

void regex_destroy(struct regex *regex)
{
    if (!regex)
        return;
    pcre2_code_free(regex->code);
    free(regex->pattern);
    free(regex);
}

int regex_work_create(struct regex_work **out, struct err *err)
{
    struct regex_work *work = calloc(1, sizeof(*work));

    if (work) {
        work->match = pcre2_match_data_create(1, NULL);
        work->context = pcre2_match_context_create(NULL);
    }
    if (!work || !work->match || !work->context) {
        regex_work_destroy(work);
        return err_set(err, ERR_NOMEM, "cannot allocate a search");
    }
    pcre2_set_heap_limit(work->context, REGEX_HEAP_MAX_KIB);
    *out = work;
    return 0;
}

void regex_work_destroy(struct regex_work *work)
{
    if (!work)
        return;
    pcre2_match_data_free(work->match);
    pcre2_match_context_free(work->context);
    free(work);
}

static int find_fail(const struct regex *regex, int code, struct err *err)
{
    unsigned char message[128];

    pcre2_get_error_message(code, message, sizeof(message));
    return err_set(err, code == PCRE2_ERROR_NOMEMORY ? ERR_NOMEM : ERR_LIMIT,
                   "regular expression '%.80s' tries too many ways on this text: %s",
                   regex->pattern, (char *)message);
}

int regex_find(const struct regex *regex, struct regex_work *work, const char *text,
               size_t n_bytes, size_t from, size_t *begin, size_t *end, struct err *err)
{
    size_t steps = n_bytes * REGEX_STEPS_OF_BYTE;
    const PCRE2_SIZE *found;
    int rc;

    pcre2_set_match_limit(work->context,
                          steps > REGEX_STEPS_MAX ? (uint32_t)steps : REGEX_STEPS_MAX);
    rc = pcre2_match(regex->code, (PCRE2_SPTR)text, n_bytes, from, PCRE2_NO_UTF_CHECK,
                     work->match, work->context);
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT)
        rc = pcre2_match(regex->code, (PCRE2_SPTR)text, n_bytes, from,
                         PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, work->match, work->context);
    if (rc == PCRE2_ERROR_NOMATCH)
        return 0;
    if (rc < 0)
        return find_fail(regex, rc, err);
    found = pcre2_get_ovector_pointer(work->match);
    *begin = found[0];
    *end = found[1];
    return 1;
}
