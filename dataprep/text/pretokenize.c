#include "dataprep/text/pretokenize.h"

#include "dataprep/text/parts.h"
#include "dataprep/text/unicode.h"

#include <string.h>

#define KNOWN                                                                            \
    "ByteLevel, Split, Digits, Punctuation, Metaspace, Whitespace, WhitespaceSplit, "    \
    "CharDelimiterSplit, Sequence"
/* GPT-2's words, and words as Whitespace has them. */
#define GPT2_REGEX                                                                       \
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"
#define WHITESPACE_REGEX "\\w+|[^\\w\\s]+"

enum behavior {
    SPLIT_REMOVED,
    SPLIT_ISOLATED,
    SPLIT_WITH_PREVIOUS,
    SPLIT_WITH_NEXT,
    SPLIT_CONTIGUOUS,
};

enum match_kind { MATCH_PATTERN, MATCH_NUMBER, MATCH_PUNCTUATION, MATCH_SPACE };

enum prepend { PREPEND_NEVER, PREPEND_FIRST, PREPEND_ALWAYS };

/* First a letter is put before words and spaces become it, then words are split. */
struct pretokenizer_step {
    enum prepend prepend;
    bool has_space; /* replace spaces by the letter */
    char letter[UNICODE_BYTES_MAX];
    size_t n_letter;
    bool has_split;
    enum match_kind match;
    struct pattern pattern;
    bool invert;
    enum behavior behavior;
};

/* ---- reading ---- */

static int read_behavior(enum behavior *out, const struct json *part, const char *absent,
                         struct err *err)
{
    static const char *const names[] = {
        [SPLIT_REMOVED] = "Removed",
        [SPLIT_ISOLATED] = "Isolated",
        [SPLIT_WITH_PREVIOUS] = "MergedWithPrevious",
        [SPLIT_WITH_NEXT] = "MergedWithNext",
        [SPLIT_CONTIGUOUS] = "Contiguous",
    };
    const char *name = json_get_string(part, "behavior");

    if (!name)
        name = absent;
    for (int i = SPLIT_REMOVED; name && i <= SPLIT_CONTIGUOUS; i++)
        if (strcmp(name, names[i]) == 0) {
            *out = (enum behavior)i;
            return 0;
        }
    return err_set(err, ERR_UNSUPPORTED,
                   "its \"behavior\" %s is not Removed, Isolated, MergedWithPrevious, "
                   "MergedWithNext or Contiguous",
                   name ? name : "is not there:");
}

static int read_byte_level(struct pretokenizer_step *step, const struct json *part,
                           struct err *err)
{
    step->has_split = json_bool(json_get(part, "use_regex"), true);
    step->behavior = SPLIT_ISOLATED;
    step->n_letter = 1;
    step->letter[0] = ' ';
    if (json_bool(json_get(part, "add_prefix_space"), true))
        step->prepend = PREPEND_ALWAYS;
    return step->has_split ? pattern_from_regex(&step->pattern, GPT2_REGEX, err) : 0;
}

static int read_metaspace(struct pretokenizer_step *step, const struct json *part,
                          struct err *err)
{
    static const char *const schemes[] = {[PREPEND_NEVER] = "never",
                                          [PREPEND_FIRST] = "first",
                                          [PREPEND_ALWAYS] = "always"};
    const char *letter, *scheme = json_get_string(part, "prepend_scheme");

    if (parts_letter(part, "replacement", &letter, &step->n_letter, err) < 0)
        return -1;
    memcpy(step->letter, letter, step->n_letter);
    step->has_space = true;
    step->has_split = json_bool(json_get(part, "split"), true);
    step->behavior = SPLIT_WITH_NEXT;
    step->pattern.n_bytes = step->n_letter;
    step->pattern.text = strndup(letter, step->n_letter);
    if (!step->pattern.text)
        return err_set(err, ERR_NOMEM, "cannot allocate a pre-tokenizer");
    if (!scheme) /* as files of before 2024 say it */
        scheme = json_bool(json_get(part, "add_prefix_space"), true) ? "always" : "never";
    for (int i = PREPEND_NEVER; i <= PREPEND_ALWAYS; i++)
        if (strcmp(scheme, schemes[i]) == 0) {
            step->prepend = (enum prepend)i;
            return 0;
        }
    return err_set(err, ERR_UNSUPPORTED,
                   "its \"prepend_scheme\" '%s' is not always, first or never", scheme);
}

static int read_delimiter(struct pretokenizer_step *step, const struct json *part,
                          struct err *err)
{
    const char *letter;

    if (parts_letter(part, "delimiter", &letter, &step->pattern.n_bytes, err) < 0)
        return -1;
    step->pattern.text = strndup(letter, step->pattern.n_bytes);
    return step->pattern.text ? 0 : err_set(err, ERR_NOMEM, "cannot allocate a pattern");
}

static int read_kind(struct pretokenizer_step *step, const char *type,
                     const struct json *part, struct err *err)
{
    step->has_split = true;
    if (strcmp(type, "ByteLevel") == 0)
        return read_byte_level(step, part, err);
    if (strcmp(type, "Metaspace") == 0)
        return read_metaspace(step, part, err);
    if (strcmp(type, "Split") == 0) {
        step->invert = json_bool(json_get(part, "invert"), false);
        return read_behavior(&step->behavior, part, NULL, err) < 0
                   ? -1
                   : pattern_read(&step->pattern, json_get(part, "pattern"), err);
    }
    if (strcmp(type, "Digits") == 0) {
        step->match = MATCH_NUMBER;
        step->behavior = json_bool(json_get(part, "individual_digits"), false)
                             ? SPLIT_ISOLATED
                             : SPLIT_CONTIGUOUS;
        return 0;
    }
    if (strcmp(type, "Punctuation") == 0) {
        step->match = MATCH_PUNCTUATION;
        return read_behavior(&step->behavior, part, "Isolated", err);
    }
    step->behavior = SPLIT_REMOVED;
    if (strcmp(type, "CharDelimiterSplit") == 0)
        return read_delimiter(step, part, err);
    if (strcmp(type, "WhitespaceSplit") == 0) {
        step->match = MATCH_SPACE;
        return 0;
    }
    if (strcmp(type, "Whitespace") != 0)
        return parts_refuse(KNOWN, err);
    step->invert = true;
    return pattern_from_regex(&step->pattern, WHITESPACE_REGEX, err);
}

static int read_step(void *state, const char *type, const struct json *part,
                     struct err *err)
{
    struct pretokenizer *out = state;
    struct pretokenizer_step step = {0};
    int rc = -1;

    if (out->is_bytes)
        return err_set(err, ERR_UNSUPPORTED,
                       "it comes after ByteLevel, which is supported only as the last");
    out->is_bytes = strcmp(type, "ByteLevel") == 0;
    if (read_kind(&step, type, part, err) == 0) {
        buf_add(&out->steps, &step, sizeof(step));
        rc = buf_check(&out->steps, err);
    }
    if (rc < 0)
        pattern_fini(&step.pattern);
    return rc;
}

int pretokenizer_read(struct pretokenizer *out, const struct json *json, struct err *err)
{
    *out = (struct pretokenizer){BUF_INIT, false};
    return parts_each(json, "pre-tokenizer", "pretokenizers", out, read_step, err);
}

static struct pretokenizer_step *steps_of(const struct pretokenizer *pretokenizer,
                                          size_t *n)
{
    *n = pretokenizer->steps.n_bytes / sizeof(struct pretokenizer_step);
    return (struct pretokenizer_step *)(void *)pretokenizer->steps.data;
}

void pretokenizer_fini(struct pretokenizer *pretokenizer)
{
    size_t n;
    struct pretokenizer_step *steps = steps_of(pretokenizer, &n);

    for (size_t i = 0; i < n; i++)
        pattern_fini(&steps[i].pattern);
    buf_fini(&pretokenizer->steps);
}

void pretokenizer_work_fini(struct pretokenizer_work *work)
{
    aligned_fini(&work->text);
    buf_fini(&work->pieces);
    buf_fini(&work->marks);
}

/* ---- the letter ---- */

struct apply {
    const struct pretokenizer_step *step;
    struct pretokenizer_work *work;
    struct regex_work *regex;
    struct err *err;
};

static bool begins_with_letter(const struct pretokenizer_step *step, const char *text,
                               size_t n_bytes)
{
    bool is_space = step->has_space && text[0] == ' '; /* which becomes the letter */

    return is_space ||
           (n_bytes >= step->n_letter && memcmp(text, step->letter, step->n_letter) == 0);
}

static void add_lettered(struct apply *a, const struct aligned *in, struct piece piece)
{
    const struct pretokenizer_step *step = a->step;
    struct aligned *out = &a->work->text;
    const char *text = in->text.data;
    struct piece made = {out->text.n_bytes, 0};
    uint32_t origin = aligned_origin(in, piece.begin);
    size_t done = piece.begin;

    if (!begins_with_letter(step, text + piece.begin, piece.end - piece.begin) &&
        (step->prepend == PREPEND_ALWAYS ||
         (step->prepend == PREPEND_FIRST && origin == 0)))
        aligned_add_for(out, step->letter, step->n_letter, origin);
    for (size_t i = piece.begin; step->has_space && i < piece.end; i++) {
        if (text[i] != ' ')
            continue;
        aligned_add_part(out, in, done, i);
        aligned_add_for(out, step->letter, step->n_letter, aligned_origin(in, i));
        done = i + 1;
    }
    aligned_add_part(out, in, done, piece.end);
    made.end = out->text.n_bytes;
    buf_add(&a->work->pieces, &made, sizeof(made));
}

static void swap_pieces(struct buf *pieces, struct pretokenizer_work *work)
{
    struct buf other = *pieces;

    *pieces = work->pieces;
    work->pieces = other;
    buf_reset(&work->pieces);
}

static int put_letters(struct apply *a, struct aligned *text, struct buf *pieces)
{
    struct pretokenizer_work *work = a->work;
    const struct piece *piece = (const struct piece *)(const void *)pieces->data;
    struct aligned other;

    if (!a->step->has_space && a->step->prepend == PREPEND_NEVER)
        return 0;
    aligned_reset(&work->text);
    for (size_t i = 0; i < pieces->n_bytes / sizeof(*piece); i++)
        add_lettered(a, text, piece[i]);
    work->text.end = text->end;
    if (aligned_check(&work->text, a->err) < 0 || buf_check(&work->pieces, a->err) < 0)
        return -1;
    other = *text;
    *text = work->text;
    work->text = other;
    swap_pieces(pieces, work);
    return 0;
}

/* ---- splitting ---- */

struct mark { /* of a word: a match, or what lies between two */
    size_t begin, end;
    bool is_match;
};

static void add_mark(struct apply *a, size_t begin, size_t end, bool is_match)
{
    struct mark mark = {begin, end, is_match != a->step->invert};

    buf_add(&a->work->marks, &mark, sizeof(mark));
}

static bool is_letter(enum match_kind match, uint32_t c)
{
    switch (match) {
    case MATCH_NUMBER:
        return unicode_is_number(c);
    case MATCH_PUNCTUATION:
        return unicode_is_punctuation(c);
    default:
        return unicode_is_space(c);
    }
}

/* Matches of single characters, each its own. */
static void mark_letters(struct apply *a, const char *text, size_t n_bytes)
{
    size_t done = 0, n;

    for (size_t at = 0; at < n_bytes; at += n) {
        uint32_t c;

        n = unicode_decode(text + at, &c);
        if (!is_letter(a->step->match, c))
            continue;
        if (done < at)
            add_mark(a, done, at, false);
        add_mark(a, at, at + n, true);
        done = at + n;
    }
    if (done < n_bytes)
        add_mark(a, done, n_bytes, false);
}

static int mark_matches(struct apply *a, const char *text, size_t n_bytes)
{
    size_t done = 0, begin, end;
    struct pattern_scan scan;
    int rc;

    pattern_scan_init(&scan, &a->step->pattern, a->regex, text, n_bytes);
    while ((rc = pattern_next(&scan, &begin, &end, a->err)) > 0) {
        if (done < begin)
            add_mark(a, done, begin, false);
        add_mark(a, begin, end, true);
        done = end;
    }
    if (done < n_bytes)
        add_mark(a, done, n_bytes, false);
    return rc;
}

static void add_piece(struct apply *a, size_t shift, size_t begin, size_t end)
{
    struct piece piece = {shift + begin, shift + end};

    if (begin < end)
        buf_add(&a->work->pieces, &piece, sizeof(piece));
}

/* Does mark i go on the word that the mark before it is in? */
static bool is_joined(enum behavior behavior, const struct mark *marks, size_t i)
{
    switch (behavior) {
    case SPLIT_WITH_PREVIOUS:
        return marks[i].is_match && !marks[i - 1].is_match;
    case SPLIT_WITH_NEXT:
        return marks[i - 1].is_match && !marks[i].is_match;
    case SPLIT_CONTIGUOUS:
        return marks[i].is_match == marks[i - 1].is_match;
    default:
        return false;
    }
}

static int split_piece(struct apply *a, const char *text, struct piece piece)
{
    size_t n_bytes = piece.end - piece.begin, n;
    const struct mark *marks;

    buf_reset(&a->work->marks);
    if (a->step->match != MATCH_PATTERN)
        mark_letters(a, text + piece.begin, n_bytes);
    else if (mark_matches(a, text + piece.begin, n_bytes) < 0)
        return -1;
    marks = (const struct mark *)(const void *)a->work->marks.data;
    n = a->work->marks.n_bytes / sizeof(*marks);
    for (size_t i = 0, next; i < n; i = next) {
        for (next = i + 1; next < n && is_joined(a->step->behavior, marks, next);)
            next++;
        if (a->step->behavior != SPLIT_REMOVED || !marks[i].is_match)
            add_piece(a, piece.begin, marks[i].begin, marks[next - 1].end);
    }
    return buf_check(&a->work->marks, a->err);
}

static int split(struct apply *a, const struct aligned *text, struct buf *pieces)
{
    const struct piece *piece = (const struct piece *)(const void *)pieces->data;

    if (!a->step->has_split)
        return 0;
    for (size_t i = 0; i < pieces->n_bytes / sizeof(*piece); i++)
        if (split_piece(a, text->text.data, piece[i]) < 0)
            return -1;
    if (buf_check(&a->work->pieces, a->err) < 0)
        return -1;
    swap_pieces(pieces, a->work);
    return 0;
}

int pretokenizer_apply(const struct pretokenizer *pretokenizer, struct aligned *text,
                       struct buf *pieces, struct pretokenizer_work *work,
                       struct regex_work *regex, struct err *err)
{
    size_t n;
    const struct pretokenizer_step *steps = steps_of(pretokenizer, &n);

    buf_reset(&work->pieces);
    for (size_t i = 0; i < n; i++) {
        struct apply a = {&steps[i], work, regex, err};

        if (put_letters(&a, text, pieces) < 0 || split(&a, text, pieces) < 0)
            return -1;
    }
    return 0;
}
