#include "dataprep/text/template.h"

#include <string.h>

struct turn {
    const char *text;
    size_t n_bytes;
    bool is_human;
    const char *quality; /* NULL: none given */
};

static void add_part(struct conversation *out, struct conv_part part)
{
    buf_add(&out->parts, &part, sizeof(part));
}

static void add_text(struct conversation *out, const char *text, size_t n_bytes,
                     bool is_answer)
{
    size_t begin = out->text.n_bytes;

    if (!n_bytes)
        return;
    buf_add(&out->text, text, n_bytes);
    add_part(out, (struct conv_part){.kind = CONV_TEXT,
                                     .is_answer = is_answer,
                                     .begin = begin,
                                     .end = begin + n_bytes});
}

static void add_words(struct conversation *out, const char *words)
{
    if (words)
        add_text(out, words, strlen(words), false);
}

/* The next <video> or <image> at or after `at`; n_bytes when there is none. */
static size_t find_placeholder(const struct turn *turn, size_t at, enum media_kind *kind)
{
    for (; at + 7 <= turn->n_bytes; at++) {
        *kind = memcmp(turn->text + at, "<image>", 7) == 0 ? MEDIA_IMAGE : MEDIA_VIDEO;
        if (*kind == MEDIA_IMAGE || memcmp(turn->text + at, "<video>", 7) == 0)
            return at;
    }
    return turn->n_bytes;
}

/* A human turn; with is_plain its media only. */
static void add_human(struct conversation *out, const struct turn *turn, bool is_plain)
{
    size_t done = 0;

    while (done < turn->n_bytes) {
        enum media_kind kind = MEDIA_VIDEO;
        size_t at = find_placeholder(turn, done, &kind);

        if (!is_plain)
            add_text(out, turn->text + done, at - done, false);
        if (at < turn->n_bytes)
            add_part(out, (struct conv_part){.kind = CONV_MEDIA, .media = kind});
        done = at < turn->n_bytes ? at + 7 : at;
    }
}

static int read_turn(struct turn *out, const struct json *turns, size_t i,
                     struct err *err)
{
    const struct json *turn = json_at(turns, i);
    const char *from = json_get_string(turn, "from");
    const struct json *value = json_get(turn, "value");
    enum media_kind kind;

    if (!from || json_type(value) != JSON_STRING)
        return err_set(err, ERR_INVALID, "turn %zu lacks the texts 'from' and 'value'",
                       i + 1);
    if (strcmp(from, "human") != 0 && strcmp(from, "gpt") != 0)
        return err_set(err, ERR_INVALID, "turn %zu is from '%.40s', not 'human' or 'gpt'",
                       i + 1, from);
    out->is_human = strcmp(from, "human") == 0;
    out->text = json_string(value);
    out->n_bytes = json_string_bytes(value);
    out->quality = json_get_string(turn, "label");
    if (out->is_human != (i % 2 == 0))
        return err_set(
            err, ERR_INVALID,
            "turn %zu is from '%s': human and gpt must take turns, human first", i + 1,
            from);
    if (!out->is_human && find_placeholder(out, 0, &kind) < out->n_bytes)
        return err_set(err, ERR_INVALID, "turn %zu, an answer, holds a media placeholder",
                       i + 1);
    return 0;
}

static void add_question(struct conversation *out, const struct conv_template *template,
                         const struct turn *turn, bool is_first)
{
    add_words(out, template->human);
    if (!turn->n_bytes)
        return;
    if (template->has_begins && !is_first)
        add_part(out, (struct conv_part){.kind = CONV_BEGIN});
    add_words(out, template->human_begin);
    if (is_first)
        add_words(out, template->first);
    add_human(out, turn, false);
    add_words(out, template->human_end);
}

/* SteerLM's qualities of an answer, the turn's own or the template's; they are given, not
 * predicted, whatever they say. */
static const char *add_quality(struct conversation *out,
                               const struct conv_template *template,
                               const struct turn *turn)
{
    const char *quality = template->takes_system ? turn->quality : NULL;

    if (!quality)
        quality = template->quality;
    if (quality) {
        add_words(out, CONV_QUALITY);
        add_words(out, quality);
        add_words(out, "\n");
    }
    return quality;
}

/* The space before an answer belongs to it: SentencePiece makes it part of the answer's
 * first token. */
static void add_answer(struct conversation *out, const struct conv_template *template,
                       const struct turn *turn, bool is_last)
{
    const char *quality;

    add_words(out, template->gpt);
    quality = add_quality(out, template, turn);
    if (!turn->n_bytes) {
        if (quality && !is_last)
            add_words(out, template->gpt_end);
        return;
    }
    if (template->gpt_begin)
        add_text(out, template->gpt_begin, strlen(template->gpt_begin), true);
    add_text(out, turn->text, turn->n_bytes, true);
    if (template->gpt_end)
        add_text(out, template->gpt_end, strlen(template->gpt_end), true);
    if (!template->stop)
        add_part(out, (struct conv_part){.kind = CONV_STOP, .is_answer = true});
    if (!is_last)
        add_words(out, template->next);
}

static int render_plain(struct conversation *out, const struct json *turns,
                        struct err *err)
{
    struct turn human = {0}, gpt = {0};

    if (json_count(turns) != 2)
        return err_set(err, ERR_INVALID,
                       "template plain takes one question and one answer, here are %zu "
                       "turns",
                       json_count(turns));
    if (read_turn(&human, turns, 0, err) < 0 || read_turn(&gpt, turns, 1, err) < 0)
        return -1;
    add_human(out, &human, true);
    if (!out->parts.n_bytes)
        return err_set(err, ERR_INVALID,
                       "template plain wants <video> or <image> in the question");
    add_text(out, gpt.text, gpt.n_bytes, true);
    add_text(out, "\n", 1, gpt.n_bytes > 0);
    return 0;
}

static void add_opening(struct conversation *out, const struct conv_template *template,
                        const struct json *record)
{
    const char *system =
        template->takes_system ? json_get_string(record, "system") : NULL;

    if (template->has_begin)
        add_part(out, (struct conv_part){.kind = CONV_BEGIN});
    add_words(out, template->opening);
    add_words(out, system ? system : template->system);
    add_words(out, template->system_end);
}

static int render_turns(struct conversation *out, const struct conv_template *template,
                        const struct json *record, struct err *err)
{
    const struct json *turns = json_get(record, "conversations");
    size_t n = json_count(turns);
    struct turn turn = {0};

    add_opening(out, template, record);
    for (size_t i = 0; i < n; i++) {
        if (read_turn(&turn, turns, i, err) < 0)
            return -1;
        if (turn.is_human && i == 0 && !turn.n_bytes && !template->human)
            return err_set(err, ERR_INVALID, "template %s wants a first question",
                           template->name);
        if (turn.is_human)
            add_question(out, template, &turn, i == 0);
        else
            add_answer(out, template, &turn, i + 1 == n);
    }
    if (turn.is_human)
        return err_set(err, ERR_INVALID, "the last question has no answer");
    return 0;
}

int conversation_render(struct conversation *out, const struct conv_template *template,
                        const struct json *record, struct err *err)
{
    const struct json *turns = json_get(record, "conversations");
    int rc;

    *out = (struct conversation){BUF_INIT, BUF_INIT};
    if (json_type(turns) != JSON_ARRAY || !json_count(turns))
        return err_set(err, ERR_INVALID,
                       "no 'conversations', a list of turns, in the record");
    rc = template->is_plain ? render_plain(out, turns, err)
                            : render_turns(out, template, record, err);
    if (rc < 0 || buf_check(&out->text, err) < 0 || buf_check(&out->parts, err) < 0) {
        conversation_fini(out);
        return -1;
    }
    return 0;
}

void conversation_fini(struct conversation *conversation)
{
    buf_fini(&conversation->text);
    buf_fini(&conversation->parts);
}
