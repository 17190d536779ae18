#include "dataprep/text/normalize.h"

#include "dataprep/text/parts.h"
#include "dataprep/text/unicode.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define KNOWN "NFC, NFD, NFKC, NFKD, Prepend, Replace, Lowercase, Strip, Sequence"

enum step_kind {
    STEP_FORM,
    STEP_PREPEND,
    STEP_REPLACE,
    STEP_LOWER,
    STEP_STRIP,
};

struct normalizer_step {
    enum step_kind kind;
    enum unicode_form form;
    struct pattern pattern;
    char *content; /* of Prepend and Replace */
    size_t n_content;
    bool left, right;
};

/* ---- reading ---- */

static int read_content(struct normalizer_step *step, const struct json *part,
                        const char *key, struct err *err)
{
    const char *content = json_get_string(part, key);

    if (!content)
        return err_set(err, ERR_FORMAT, "it has no \"%s\"", key);
    step->n_content = json_string_bytes(json_get(part, key));
    step->content = malloc(step->n_content + 1);
    if (!step->content)
        return err_set(err, ERR_NOMEM, "cannot allocate a normalizer");
    memcpy(step->content, content, step->n_content);
    return 0;
}

static int read_kind(struct normalizer_step *step, const char *type,
                     const struct json *part, struct err *err)
{
    static const char *const forms[] = {[UNICODE_NFC] = "NFC",
                                        [UNICODE_NFD] = "NFD",
                                        [UNICODE_NFKC] = "NFKC",
                                        [UNICODE_NFKD] = "NFKD"};

    for (int i = UNICODE_NFC; i <= UNICODE_NFKD; i++)
        if (strcmp(type, forms[i]) == 0) {
            step->kind = STEP_FORM;
            step->form = (enum unicode_form)i;
            return 0;
        }
    if (strcmp(type, "Prepend") == 0) {
        step->kind = STEP_PREPEND;
        return read_content(step, part, "prepend", err);
    }
    if (strcmp(type, "Replace") == 0) {
        step->kind = STEP_REPLACE;
        if (pattern_read(&step->pattern, json_get(part, "pattern"), err) < 0)
            return -1;
        return read_content(step, part, "content", err);
    }
    if (strcmp(type, "Strip") == 0) {
        step->kind = STEP_STRIP;
        step->left = json_bool(json_get(part, "strip_left"), true);
        step->right = json_bool(json_get(part, "strip_right"), true);
        return 0;
    }
    step->kind = STEP_LOWER;
    return strcmp(type, "Lowercase") == 0 ? 0 : parts_refuse(KNOWN, err);
}

static void step_fini(struct normalizer_step *step)
{
    pattern_fini(&step->pattern);
    free(step->content);
}

static int read_step(void *state, const char *type, const struct json *part,
                     struct err *err)
{
    struct normalizer *normalizer = state;
    struct normalizer_step step = {0};

    if (read_kind(&step, type, part, err) < 0) {
        step_fini(&step);
        return -1;
    }
    buf_add(&normalizer->steps, &step, sizeof(step));
    if (!normalizer->steps.failed)
        return 0;
    step_fini(&step);
    return buf_check(&normalizer->steps, err);
}

int normalizer_read(struct normalizer *out, const struct json *json, struct err *err)
{
    *out = (struct normalizer){BUF_INIT};
    return parts_each(json, "normalizer", "normalizers", out, read_step, err);
}

static struct normalizer_step *steps_of(const struct normalizer *normalizer, size_t *n)
{
    *n = normalizer->steps.n_bytes / sizeof(struct normalizer_step);
    return (struct normalizer_step *)(void *)normalizer->steps.data;
}

void normalizer_fini(struct normalizer *normalizer)
{
    size_t n;
    struct normalizer_step *steps = steps_of(normalizer, &n);

    for (size_t i = 0; i < n; i++)
        step_fini(&steps[i]);
    buf_fini(&normalizer->steps);
}

/* ---- applying ---- */

/* Appends the text with every match replaced. */
static int replace_all(struct aligned *out, const struct aligned *in,
                       const struct pattern *pattern, struct regex_work *work,
                       const char *content, size_t n_content, struct err *err)
{
    size_t done = 0, begin, end;
    struct pattern_scan scan;
    int rc;

    pattern_scan_init(&scan, pattern, work, buf_str(&in->text), in->text.n_bytes);
    while ((rc = pattern_next(&scan, &begin, &end, err)) > 0) {
        aligned_add_part(out, in, done, begin);
        aligned_add_for(out, content, n_content, aligned_origin(in, begin));
        done = end;
    }
    aligned_add_part(out, in, done, in->text.n_bytes);
    out->end = in->end;
    return rc < 0 ? -1 : aligned_check(out, err);
}

static void strip(struct aligned *out, const struct aligned *in,
                  const struct normalizer_step *step)
{
    size_t begin = 0, end = in->text.n_bytes;
    uint32_t c;

    while (step->left && begin < end) {
        size_t n = unicode_decode(in->text.data + begin, &c);

        if (!unicode_is_space(c))
            break;
        begin += n;
    }
    while (step->right && end > begin) {
        size_t n = unicode_last(in->text.data, end, &c);

        if (!unicode_is_space(c))
            break;
        end -= n;
    }
    aligned_add_part(out, in, begin, end);
    out->end = aligned_origin(in, end);
}

static int apply(const struct normalizer_step *step, struct aligned *out,
                 const struct aligned *in, struct regex_work *work, struct err *err)
{
    switch (step->kind) {
    case STEP_FORM:
        return unicode_normalize(out, in, step->form, err);
    case STEP_PREPEND:
        if (in->text.n_bytes)
            aligned_add_for(out, step->content, step->n_content, aligned_origin(in, 0));
        aligned_add_part(out, in, 0, in->text.n_bytes);
        out->end = in->end;
        break;
    case STEP_REPLACE:
        return replace_all(out, in, &step->pattern, work, step->content, step->n_content,
                           err);
    case STEP_LOWER:
        unicode_lower(out, in);
        break;
    case STEP_STRIP:
        strip(out, in, step);
        break;
    }
    return aligned_check(out, err);
}

int normalizer_apply(const struct normalizer *normalizer, struct aligned *text,
                     struct aligned *other, struct regex_work *work, struct err *err)
{
    size_t n;
    const struct normalizer_step *steps = steps_of(normalizer, &n);

    for (size_t i = 0; i < n; i++) {
        struct aligned before;

        aligned_reset(other);
        if (apply(&steps[i], other, text, work, err) < 0)
            return -1;
        before = *text;
        *text = *other;
        *other = before;
    }
    return 0;
}
