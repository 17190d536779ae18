#include "dataprep/text/template.h"

#include <string.h>

#define PLACEHOLDER_BYTES 7 /* of <video> and of <image> */

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
    for (; at + PLACEHOLDER_BYTES <= turn->n_bytes; at++) {
        const char *text = turn->text + at;

        *kind =
            memcmp(text, "<image>", PLACEHOLDER_BYTES) == 0 ? MEDIA_IMAGE : MEDIA_VIDEO;
        if (*kind == MEDIA_IMAGE || memcmp(text, "<video>", PLACEHOLDER_BYTES) == 0)
            return at;
    }
    return turn->n_bytes;
}

static bool has_media(const struct turn *turn)
{
    enum media_kind kind;

    return find_placeholder(turn, 0, &kind) < turn->n_bytes;
}

static void add_media(struct conversation *out, enum media_kind kind)
{
    add_part(out, (struct conv_part){.kind = CONV_MEDIA, .media = kind});
}

/* The media of a text where they stand, and what stands between them. */
static void add_mixed(struct conversation *out, const struct turn *turn, bool is_answer)
{
    size_t done = 0;

    while (done < turn->n_bytes) {
        enum media_kind kind = MEDIA_VIDEO;
        size_t at = find_placeholder(turn, done, &kind);

        add_text(out, turn->text + done, at - done, is_answer);
        if (at < turn->n_bytes)
            add_media(out, kind);
        done = at < turn->n_bytes ? at + PLACEHOLDER_BYTES : at;
    }
}

/* The media of a text alone; what is left of it without them is appended to rest. */
static void split_media(struct conversation *out, struct buf *rest,
                        const struct turn *turn)
{
    size_t done = 0;

    while (done < turn->n_bytes) {
        enum media_kind kind = MEDIA_VIDEO;
        size_t at = find_placeholder(turn, done, &kind);

        buf_add(rest, turn->text + done, at - done);
        if (at < turn->n_bytes)
            add_media(out, kind);
        done = at < turn->n_bytes ? at + PLACEHOLDER_BYTES : at;
    }
}

/* Bytes of the white space that a text begins with, as Python's str.strip() sees it. */
static size_t space_bytes(const unsigned char *text, size_t n)
{
    if (n >= 1 && (text[0] == ' ' || (text[0] >= '\t' && text[0] <= '\r') ||
                   (text[0] >= 0x1c && text[0] <= 0x1f)))
        return 1;
    if (n >= 2 && text[0] == 0xc2 && (text[1] == 0x85 || text[1] == 0xa0))
        return 2;
    if (n >= 3 && ((text[0] == 0xe1 && text[1] == 0x9a && text[2] == 0x80) ||
                   (text[0] == 0xe2 && text[1] == 0x80 &&
                    ((text[2] >= 0x80 && text[2] <= 0x8a) || text[2] == 0xa8 ||
                     text[2] == 0xa9 || text[2] == 0xaf)) ||
                   (text[0] == 0xe2 && text[1] == 0x81 && text[2] == 0x9f) ||
                   (text[0] == 0xe3 && text[1] == 0x80 && text[2] == 0x80)))
        return 3;
    return 0;
}

static size_t trailing_space_bytes(const struct turn *turn)
{
    const unsigned char *end = (const unsigned char *)turn->text + turn->n_bytes;

    for (size_t n = 1; n <= 3 && n <= turn->n_bytes; n++)
        if (space_bytes(end - n, n) == n)
            return n;
    return 0;
}

static void strip(struct turn *turn)
{
    size_t n;

    while ((n = space_bytes((const unsigned char *)turn->text, turn->n_bytes))) {
        turn->text += n;
        turn->n_bytes -= n;
    }
    while ((n = trailing_space_bytes(turn)))
        turn->n_bytes -= n;
}

/* NeMo's sep_image_conv_front: media first, then its default conversation's separator
 * and role, then the question without them. */
static void add_media_first(struct conversation *out, const struct turn *turn)
{
    struct buf rest = BUF_INIT;
    struct turn question;

    split_media(out, &rest, turn);
    question = (struct turn){.text = buf_str(&rest), .n_bytes = rest.n_bytes};
    strip(&question);
    add_words(out, " USER: ");
    add_text(out, question.text, question.n_bytes, false);
    out->text.failed |= rest.failed;
    buf_fini(&rest);
}

static int read_turn(struct turn *out, const struct json *turns, size_t i,
                     struct err *err)
{
    const struct json *turn = json_at(turns, i);
    const char *from = json_get_string(turn, "from");
    const struct json *value = json_get(turn, "value");

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
    if (!out->is_human && has_media(out))
        return err_set(err, ERR_INVALID, "turn %zu, an answer, holds a media placeholder",
                       i + 1);
    return 0;
}

/* What a conversation is rendered with. */
struct renderer {
    struct conversation *out;
    const struct conv_template *template;
    const struct json *record;
    unsigned flags; /* CONV_MEDIA_FIRST, CONV_PROMPT */
};

static void add_system(const struct renderer *r)
{
    const char *system = json_get_string(r->record, "system");

    if (!system)
        system = r->template->system;
    if (!system || (!*system && !r->template->system))
        return;
    add_words(r->out, r->template->system_begin);
    add_words(r->out, system);
    add_words(r->out, r->template->system_end);
}

static void add_question(const struct renderer *r, struct turn *turn, bool is_first)
{
    const struct conv_template *template = r->template;
    bool is_split = is_first && (r->flags & CONV_MEDIA_FIRST) && has_media(turn);

    add_words(r->out, template->human);
    if (!turn->n_bytes && !template->has_empty_questions)
        return;
    if (template->has_begins && !is_first)
        add_part(r->out, (struct conv_part){.kind = CONV_BEGIN});
    add_words(r->out, template->human_begin);
    if (is_first && template->system_in_question)
        add_system(r);
    if (template->strips_questions)
        strip(turn);
    if (is_split)
        add_media_first(r->out, turn);
    else
        add_mixed(r->out, turn, false);
    add_words(r->out, template->human_end);
}

/* What stands before an answer: its role, and SteerLM's qualities, the turn's own or the
 * template's; they are given, not predicted, whatever they say. */
static const char *add_role(const struct renderer *r, const struct turn *turn)
{
    const char *quality = r->template->takes_label ? turn->quality : NULL;

    add_words(r->out, r->template->gpt);
    if (!quality)
        quality = r->template->quality;
    if (quality) {
        add_words(r->out, CONV_QUALITY);
        add_words(r->out, quality);
        add_words(r->out, "\n");
    }
    return quality;
}

static void add_learnt(const struct renderer *r, const char *words)
{
    if (words)
        add_text(r->out, words, strlen(words), true);
}

/* The space before an answer belongs to it: SentencePiece makes it part of the answer's
 * first token. */
static void add_answer(const struct renderer *r, const struct turn *turn, bool is_last)
{
    const struct conv_template *template = r->template;
    const char *quality = add_role(r, turn);

    if (!turn->n_bytes && !is_last && template->has_empty_answers)
        add_learnt(r, template->gpt_end);
    else if (!turn->n_bytes && !is_last && quality)
        add_words(r->out, template->gpt_end);
    if (!turn->n_bytes)
        return;
    add_learnt(r, template->gpt_begin);
    add_text(r->out, turn->text, turn->n_bytes, true);
    add_learnt(r, template->gpt_end);
    if (!template->stop)
        add_part(r->out, (struct conv_part){.kind = CONV_STOP, .is_answer = true});
    if (!is_last && template->learns_next)
        add_learnt(r, template->next);
    else if (!is_last)
        add_words(r->out, template->next);
}

/* NeMo looks for the media in the first question only. */
static int check_media_first(const struct json *turns, struct err *err)
{
    struct turn turn = {0};

    for (size_t i = 0; i < json_count(turns); i++) {
        if (read_turn(&turn, turns, i, err) < 0)
            return -1;
        if (has_media(&turn))
            return i == 0 ? 0
                          : err_set(err, ERR_INVALID,
                                    "sep_image_conv_front wants media in the first "
                                    "question; the first stands in turn %zu",
                                    i + 1);
    }
    return 0;
}

/* The line break that ends a caption is a part of its own: a caption ends in the same
 * token whatever the tokenizer would make of its last letters and the break. */
static int render_plain(const struct renderer *r, const struct json *turns,
                        struct err *err)
{
    struct turn human = {0}, gpt = {0};
    struct buf words = BUF_INIT;
    bool is_prompt = r->flags & CONV_PROMPT;

    if (json_count(turns) != 2 && !(is_prompt && json_count(turns) == 1))
        return err_set(err, ERR_INVALID,
                       "template plain takes one question and one answer, here are %zu "
                       "turns",
                       json_count(turns));
    if (read_turn(&human, turns, 0, err) < 0 ||
        (!is_prompt && read_turn(&gpt, turns, 1, err) < 0))
        return -1;
    split_media(r->out, &words, &human); /* its words are left out */
    buf_fini(&words);
    if (!r->out->parts.n_bytes)
        return err_set(err, ERR_INVALID,
                       "template plain wants <video> or <image> in the question");
    if (is_prompt)
        return 0;
    add_text(r->out, gpt.text, gpt.n_bytes, true);
    add_part(r->out, (struct conv_part){.kind = CONV_STOP, .is_answer = gpt.n_bytes > 0});
    return 0;
}

static int render_interleaved(const struct renderer *r, const struct json *text,
                              struct err *err)
{
    struct turn turn = {.text = json_string(text), .n_bytes = json_string_bytes(text)};

    if (json_type(text) != JSON_STRING || !turn.n_bytes)
        return err_set(err, ERR_INVALID,
                       "template interleaved wants 'conversations' to be one text with "
                       "<video> or <image> where the media stand");
    if (r->flags & CONV_MEDIA_FIRST)
        return err_set(err, ERR_INVALID,
                       "sep_image_conv_front moves media out of a question, and template "
                       "interleaved has none");
    add_mixed(r->out, &turn, true);
    return 0;
}

/* A prompt: all but the last answer, whether it is there or not. */
static size_t count_turns(const struct renderer *r, const struct json *turns)
{
    size_t n = json_count(turns);

    return (r->flags & CONV_PROMPT) && n % 2 == 0 ? n - 1 : n;
}

static int render_turns(const struct renderer *r, const struct json *turns,
                        struct err *err)
{
    size_t n = count_turns(r, turns);
    struct turn turn = {0}, answer = {0};

    if ((r->flags & CONV_MEDIA_FIRST) && check_media_first(turns, err) < 0)
        return -1;
    if (r->template->has_begin)
        add_part(r->out, (struct conv_part){.kind = CONV_BEGIN});
    if (!r->template->system_in_question)
        add_system(r);
    for (size_t i = 0; i < n; i++) {
        if (read_turn(&turn, turns, i, err) < 0)
            return -1;
        if (i == 0 && !turn.n_bytes && r->template->needs_question)
            return err_set(err, ERR_INVALID, "template %s wants a first question",
                           r->template->name);
        if (turn.is_human)
            add_question(r, &turn, i == 0);
        else
            add_answer(r, &turn, i + 1 == n);
    }
    if (turn.is_human && !(r->flags & CONV_PROMPT))
        return err_set(err, ERR_INVALID, "the last question has no answer");
    if (json_count(turns) > n && read_turn(&answer, turns, n, err) < 0)
        return -1;
    if (turn.is_human)
        add_role(r, &answer);
    return 0;
}

static int render(const struct renderer *r, struct err *err)
{
    const struct json *turns = json_get(r->record, "conversations");
    const struct json *system = json_get(r->record, "system");

    if (json_type(system) != JSON_NULL && json_type(system) != JSON_STRING)
        return err_set(err, ERR_INVALID, "'system' is no text");
    if (r->template->shape == CONV_SHAPE_INTERLEAVED)
        return render_interleaved(r, turns, err);
    if (json_type(turns) != JSON_ARRAY || !json_count(turns))
        return err_set(err, ERR_INVALID,
                       "no 'conversations', a list of turns, in the record");
    return r->template->shape == CONV_SHAPE_PLAIN ? render_plain(r, turns, err)
                                                  : render_turns(r, turns, err);
}

int conversation_render_as(struct conversation *out, const struct conv_template *template,
                           unsigned flags, const struct json *record, struct err *err)
{
    const struct renderer r = {out, template, record, flags};

    *out = (struct conversation){BUF_INIT, BUF_INIT, (flags & CONV_PROMPT) != 0};
    if (render(&r, err) < 0 || buf_check(&out->text, err) < 0 ||
        buf_check(&out->parts, err) < 0) {
        conversation_fini(out);
        return -1;
    }
    return 0;
}

int conversation_render(struct conversation *out, const struct conv_template *template,
                        const struct json *record, struct err *err)
{
    return conversation_render_as(out, template, 0, record, err);
}

void conversation_fini(struct conversation *conversation)
{
    buf_fini(&conversation->text);
    buf_fini(&conversation->parts);
}
