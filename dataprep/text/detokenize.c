#include "dataprep/text/detokenize.h"

#include "common/base/utf8.h"
#include "dataprep/text/byte_letters.h"
#include "dataprep/text/parts.h"
#include "dataprep/text/unicode.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define KNOWN "ByteLevel, Replace, ByteFallback, Fuse, Strip, Metaspace, Sequence"
#define NO_CHARACTER "\xef\xbf\xbd" /* U+FFFD, for bytes that are no UTF-8 */
#define STRIP_MAX (1 << 20)

enum step_kind {
    STEP_BYTE_LEVEL,
    STEP_REPLACE,
    STEP_BYTE_FALLBACK,
    STEP_FUSE,
    STEP_STRIP,
    STEP_METASPACE,
};

struct detokenizer_step {
    enum step_kind kind;
    struct pattern pattern;
    char *content; /* of Replace */
    size_t n_content;
    char letter[UNICODE_BYTES_MAX]; /* of Strip and Metaspace */
    size_t n_letter;
    int64_t start, stop; /* most letters to strip */
    bool drops_first;    /* Metaspace: letters of the first token are no spaces */
};

void token_texts_add(struct token_texts *texts, const char *bytes, size_t n_bytes)
{
    buf_add(&texts->bytes, bytes, n_bytes);
    buf_add(&texts->ends, &texts->bytes.n_bytes, sizeof(size_t));
}

void token_texts_fini(struct token_texts *texts)
{
    buf_fini(&texts->bytes);
    buf_fini(&texts->ends);
}

static size_t texts_count(const struct token_texts *texts)
{
    return texts->ends.n_bytes / sizeof(size_t);
}

static const char *texts_get(const struct token_texts *texts, size_t i, size_t *n_bytes)
{
    const size_t *ends = (const size_t *)(const void *)texts->ends.data;
    size_t begin = i ? ends[i - 1] : 0;

    *n_bytes = ends[i] - begin;
    return buf_str(&texts->bytes) + begin;
}

/* Ends a text whose bytes were appended already. */
static void texts_end(struct token_texts *texts)
{
    token_texts_add(texts, "", 0);
}

/* ---- reading ---- */

static int read_letter(struct detokenizer_step *step, const struct json *part,
                       const char *key, struct err *err)
{
    const char *letter;

    if (parts_letter(part, key, &letter, &step->n_letter, err) < 0)
        return -1;
    memcpy(step->letter, letter, step->n_letter);
    return 0;
}

static int read_replace(struct detokenizer_step *step, const struct json *part,
                        struct err *err)
{
    const char *content = json_get_string(part, "content");

    step->kind = STEP_REPLACE;
    if (!content)
        return err_set(err, ERR_FORMAT, "it has no \"content\"");
    step->n_content = json_string_bytes(json_get(part, "content"));
    step->content = malloc(step->n_content + 1);
    if (!step->content)
        return err_set(err, ERR_NOMEM, "cannot allocate a decoder");
    memcpy(step->content, content, step->n_content);
    return pattern_read(&step->pattern, json_get(part, "pattern"), err);
}

static int read_strip(struct detokenizer_step *step, const struct json *part,
                      struct err *err)
{
    step->kind = STEP_STRIP;
    step->start = json_get_int(part, "start", -1);
    step->stop = json_get_int(part, "stop", -1);
    if (step->start < 0 || step->stop < 0 || step->start > STRIP_MAX ||
        step->stop > STRIP_MAX)
        return err_set(err, ERR_FORMAT, "its \"start\" and \"stop\" are not 0 to %d",
                       STRIP_MAX);
    return read_letter(step, part, "content", err);
}

static int read_metaspace(struct detokenizer_step *step, const struct json *part,
                          struct err *err)
{
    const char *scheme = json_get_string(part, "prepend_scheme");

    step->kind = STEP_METASPACE;
    step->drops_first = scheme ? strcmp(scheme, "never") != 0
                               : json_bool(json_get(part, "add_prefix_space"), true);
    return read_letter(step, part, "replacement", err);
}

static int read_kind(struct detokenizer_step *step, const char *type,
                     const struct json *part, struct err *err)
{
    if (strcmp(type, "Replace") == 0)
        return read_replace(step, part, err);
    if (strcmp(type, "Strip") == 0)
        return read_strip(step, part, err);
    if (strcmp(type, "Metaspace") == 0)
        return read_metaspace(step, part, err);
    if (strcmp(type, "ByteLevel") == 0)
        step->kind = STEP_BYTE_LEVEL;
    else if (strcmp(type, "ByteFallback") == 0)
        step->kind = STEP_BYTE_FALLBACK;
    else if (strcmp(type, "Fuse") == 0)
        step->kind = STEP_FUSE;
    else
        return parts_refuse(KNOWN, err);
    return 0;
}

static void step_fini(struct detokenizer_step *step)
{
    pattern_fini(&step->pattern);
    free(step->content);
}

static int read_step(void *state, const char *type, const struct json *part,
                     struct err *err)
{
    struct detokenizer *detokenizer = state;
    struct detokenizer_step step = {0};
    int rc = read_kind(&step, type, part, err);

    if (rc == 0) {
        buf_add(&detokenizer->steps, &step, sizeof(step));
        rc = buf_check(&detokenizer->steps, err);
    }
    if (rc < 0)
        step_fini(&step);
    return rc;
}

int detokenizer_read(struct detokenizer *out, const struct json *json, struct err *err)
{
    *out = (struct detokenizer){BUF_INIT};
    return parts_each(json, "decoder", "decoders", out, read_step, err);
}

static struct detokenizer_step *steps_of(const struct detokenizer *detokenizer, size_t *n)
{
    *n = detokenizer->steps.n_bytes / sizeof(struct detokenizer_step);
    return (struct detokenizer_step *)(void *)detokenizer->steps.data;
}

void detokenizer_fini(struct detokenizer *detokenizer)
{
    size_t n;
    struct detokenizer_step *steps = steps_of(detokenizer, &n);

    for (size_t i = 0; i < n; i++)
        step_fini(&steps[i]);
    buf_fini(&detokenizer->steps);
}

/* ---- applying ---- */

/* Appends bytes as UTF-8: each longest beginning of a character that goes no further
 * becomes one U+FFFD (Unicode's recommendation, chapter 3.9). */
static void add_lossy(struct buf *out, const char *bytes, size_t n_bytes)
{
    const unsigned char *s = (const unsigned char *)bytes;

    for (size_t at = 0; at < n_bytes;) {
        size_t n = utf8_length(s + at, n_bytes - at);

        if (n) {
            buf_add(out, bytes + at, n);
        } else {
            n = utf8_cut_length(s + at, n_bytes - at);
            buf_add_str(out, NO_CHARACTER);
        }
        at += n;
    }
}

static void byte_level(struct token_texts *out, const struct token_texts *in)
{
    struct buf bytes = BUF_INIT;

    for (size_t i = 0; i < texts_count(in); i++) {
        size_t n;
        const char *text = texts_get(in, i, &n);

        if (!byte_letters_decode(&bytes, text, n))
            buf_add(&bytes, text, n);
    }
    add_lossy(&out->bytes, buf_str(&bytes), bytes.n_bytes);
    out->bytes.failed |= bytes.failed;
    texts_end(out);
    buf_fini(&bytes);
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* <0xHH>; -1: no such token */
static int byte_of(const char *text, size_t n)
{
    int high, low;

    if (n != 6 || memcmp(text, "<0x", 3) != 0 || text[5] != '>')
        return -1;
    high = hex_digit(text[3]);
    low = hex_digit(text[4]);
    return high < 0 || low < 0 ? -1 : 16 * high + low;
}

/* A run of byte tokens: one text if it is UTF-8, else U+FFFD for every byte. */
static void end_bytes(struct token_texts *out, struct buf *bytes)
{
    if (!bytes->n_bytes)
        return;
    if (unicode_check(bytes->data, bytes->n_bytes, NULL) == 0)
        token_texts_add(out, bytes->data, bytes->n_bytes);
    else
        for (size_t i = 0; i < bytes->n_bytes; i++)
            token_texts_add(out, NO_CHARACTER, strlen(NO_CHARACTER));
    buf_reset(bytes);
}

static void byte_fallback(struct token_texts *out, const struct token_texts *in)
{
    struct buf bytes = BUF_INIT;

    for (size_t i = 0; i < texts_count(in); i++) {
        size_t n;
        const char *text = texts_get(in, i, &n);
        int byte = byte_of(text, n);

        if (byte >= 0) {
            buf_add_char(&bytes, (char)byte);
            continue;
        }
        end_bytes(out, &bytes);
        token_texts_add(out, text, n);
    }
    end_bytes(out, &bytes);
    out->bytes.failed |= bytes.failed;
    buf_fini(&bytes);
}

static int replace(const struct detokenizer_step *step, struct regex_work *work,
                   struct token_texts *out, const char *text, size_t n, struct err *err)
{
    size_t done = 0, begin, end;
    struct pattern_scan scan;
    int rc;

    pattern_scan_init(&scan, &step->pattern, work, text, n);
    while ((rc = pattern_next(&scan, &begin, &end, err)) > 0) {
        buf_add(&out->bytes, text + done, begin - done);
        buf_add(&out->bytes, step->content, step->n_content);
        done = end;
    }
    buf_add(&out->bytes, text + done, n - done);
    texts_end(out);
    return rc;
}

static bool is_letter_at(const struct detokenizer_step *step, const char *text)
{
    return memcmp(text, step->letter, step->n_letter) == 0;
}

static void strip(const struct detokenizer_step *step, struct token_texts *out,
                  const char *text, size_t n)
{
    size_t size = step->n_letter;

    for (int64_t i = 0; i < step->start && n >= size && is_letter_at(step, text); i++) {
        text += size;
        n -= size;
    }
    for (int64_t i = 0;
         i < step->stop && n >= size && is_letter_at(step, text + n - size); i++)
        n -= size;
    token_texts_add(out, text, n);
}

static void metaspace(const struct detokenizer_step *step, struct token_texts *out,
                      const char *text, size_t n, bool is_first)
{
    for (size_t at = 0; at < n;) {
        bool is_space = n - at >= step->n_letter && is_letter_at(step, text + at);

        if (!is_space)
            buf_add_char(&out->bytes, text[at]);
        else if (!is_first || !step->drops_first)
            buf_add_char(&out->bytes, ' ');
        at += is_space ? step->n_letter : 1;
    }
    texts_end(out);
}

/* The steps that change every text by itself. */
static int each(const struct detokenizer_step *step, struct token_texts *out,
                const struct token_texts *in, struct err *err)
{
    struct regex_work *work = NULL;
    int rc = step->pattern.regex ? regex_work_create(&work, err) : 0;

    for (size_t i = 0; i < texts_count(in) && rc == 0; i++) {
        size_t n;
        const char *text = texts_get(in, i, &n);

        if (step->kind == STEP_REPLACE)
            rc = replace(step, work, out, text, n, err);
        else if (step->kind == STEP_STRIP)
            strip(step, out, text, n);
        else
            metaspace(step, out, text, n, i == 0);
    }
    regex_work_destroy(work);
    return rc;
}

static int apply(const struct detokenizer_step *step, struct token_texts *out,
                 const struct token_texts *in, struct err *err)
{
    switch (step->kind) {
    case STEP_BYTE_LEVEL:
        byte_level(out, in);
        break;
    case STEP_BYTE_FALLBACK:
        byte_fallback(out, in);
        break;
    case STEP_FUSE:
        token_texts_add(out, buf_str(&in->bytes), in->bytes.n_bytes);
        break;
    default:
        if (each(step, out, in, err) < 0)
            return -1;
    }
    return buf_check(&out->bytes, err) < 0 ? -1 : buf_check(&out->ends, err);
}

int detokenizer_apply(const struct detokenizer *detokenizer, struct buf *out,
                      struct token_texts *texts, struct err *err)
{
    struct token_texts other = TOKEN_TEXTS_INIT;
    size_t n;
    const struct detokenizer_step *steps = steps_of(detokenizer, &n);
    int rc = 0;

    for (size_t i = 0; i < n && rc == 0; i++) {
        struct token_texts before = *texts;

        buf_reset(&other.bytes);
        buf_reset(&other.ends);
        rc = apply(&steps[i], &other, texts, err);
        *texts = other;
        other = before;
    }
    token_texts_fini(&other);
    for (size_t i = 0; i < texts_count(texts) && rc == 0; i++) {
        size_t n_bytes;
        const char *text = texts_get(texts, i, &n_bytes);

        if (!n && i)
            buf_add_char(out, ' ');
        buf_add(out, text, n_bytes);
    }
    return rc < 0 ? -1 : buf_check(out, err);
}
