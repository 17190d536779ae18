#include "dataprep/text/conversation.h"

#include <string.h>

struct turn {
    const char *text;
    size_t n_bytes;
    bool is_human;
    const char *quality; /* NULL: none given */
};

/* What NeMo writes around the turns. A turn without text is its role alone. */
struct conv_template {
    const char *name;
    const char *opening, *system, *system_end; /* what opens the conversation */
    const char *first;                         /* opens the first question */
    const char *human, *human_begin, *human_end;
    const char *gpt, *gpt_begin, *gpt_end;
    const char *next;     /* between an answer and the next question */
    const char *quality;  /* SteerLM's label where the answer has none */
    const char *stop;     /* the token that ends gpt_end; NULL: end of sentence */
    bool has_begin;       /* a begin of sentence opens the conversation, */
    bool has_begins;      /* or every question but the first */
    bool is_plain;        /* media and caption, nothing else */
    bool takes_system;    /* the record's "system" replaces the template's */
    bool has_patch_token; /* NeMo keeps the patch token; elsewhere it writes 0 */
};

#define SEPARATOR "<extra_id_1>"
#define QUALITY "<extra_id_2>"
#define CURIOUS_USER                                                                     \
    "A chat between a curious user and an artificial intelligence assistant. The "       \
    "assistant gives helpful, detailed, and polite answers to the user's questions."
#define LLAVA_SYSTEM                                                                     \
    "You are a helpful language and vision assistant. You are able to understand the "   \
    "visual content that the user provides, and assist the user with a variety of "      \
    "tasks using natural language."
#define NV_TURNS                                                                         \
    .opening = "<extra_id_0>System\n", .system_end = SEPARATOR, .human = "User\n",       \
    .human_end = "\n" SEPARATOR, .gpt = "Assistant\n", .gpt_end = "\n" SEPARATOR,        \
    .stop = SEPARATOR, .takes_system = true, .has_patch_token = true
#define STEERLM                                                                          \
    NV_TURNS, .system = CURIOUS_USER "\n\n",                                             \
              .quality = "quality:4,toxicity:0,humor:0,creativity:0,helpfulness:4,"      \
                         "correctness:4,coherence:4,complexity:4,verbosity:4"

static const struct conv_template templates[] = {
    {.name = "plain", .is_plain = true, .has_patch_token = true},
    {.name = "v1",
     .system = CURIOUS_USER " ",
     .human = "USER:",
     .human_begin = " ",
     .human_end = " ",
     .gpt = "ASSISTANT:",
     .gpt_begin = " ",
     .next = " "},
    {.name = "llama_2",
     .first = "<<SYS>>\n" LLAVA_SYSTEM "\n<</SYS>>\n\n",
     .human_begin = " [INST] ",
     .human_end = " [/INST]",
     .gpt_begin = " ",
     .gpt_end = " ",
     .has_begins = true},
    {.name = "mistral",
     .human_begin = " [INST] ",
     .human_end = " [/INST]",
     .has_begin = true},
    {.name = "nvgpt", STEERLM},
    {.name = "nv_steerlm", STEERLM},
    {.name = "nv_dpo", NV_TURNS, .system = "\n"},
};

const struct conv_template *conv_template_find(const char *name)
{
    for (size_t i = 0; i < sizeof(templates) / sizeof(*templates); i++)
        if (strcmp(templates[i].name, name) == 0)
            return &templates[i];
    return NULL;
}

const char *conv_template_names(void)
{
    return "plain, v1, llama_2, mistral, nvgpt, nv_steerlm, nv_dpo";
}

/* ---- rendering ---- */

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
        add_words(out, QUALITY);
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

/* ---- encoding ---- */

/* Does the tokenizer find two tokens inside of text? Then the text around them is encoded
 * as one, as NeMo does, without a new leading space after them. */
static int find_inline(const struct conv_encoder *encoder, bool *out, const char *probe,
                       int32_t first, int32_t second, struct err *err)
{
    struct buf spans = BUF_INIT;
    const struct token_span *span;
    size_t n;

    if (tokenizer_encode_spans(encoder->tokenizer, &spans, probe, strlen(probe), err) < 0)
        return -1;
    span = (const struct token_span *)spans.data;
    n = spans.n_bytes / sizeof(*span);
    for (size_t i = 0; first >= 0 && i + 1 < n; i++)
        if (span[i].id == first && span[i + 1].id == second)
            *out = true;
    buf_fini(&spans);
    return 0;
}

static int find_inlines(struct conv_encoder *encoder, struct err *err)
{
    if (find_inline(encoder, &encoder->is_inline, "a" CONV_MEDIA_START CONV_MEDIA_END "a",
                    encoder->start, encoder->end, err) < 0)
        return -1;
    return find_inline(encoder, &encoder->has_inline_ends,
                       "a" CONV_BEGIN_TEXT CONV_STOP_TEXT "a",
                       tokenizer_id(encoder->tokenizer, CONV_BEGIN_TEXT),
                       tokenizer_id(encoder->tokenizer, CONV_STOP_TEXT), err);
}

/* plain ends an answer with a line break: the token that a break at the end becomes. */
static int find_break(struct conv_encoder *encoder, struct err *err)
{
    struct buf spans = BUF_INIT;
    const struct token_span *last;
    int rc = -1;

    if (tokenizer_encode_spans(encoder->tokenizer, &spans, "a\n", 2, err) < 0)
        goto out;
    last = (const struct token_span *)(spans.data + spans.n_bytes) - 1;
    if (!spans.n_bytes || last->end != 2 || last->begin != 1) {
        err_set(err, ERR_INVALID,
                "the tokenizer has no token for a line break, which ends every answer of "
                "template plain; take one with byte fallback and no normalisation");
        goto out;
    }
    encoder->stop = last->id;
    rc = 0;
out:
    buf_fini(&spans);
    return rc;
}

int conv_encoder_init(struct conv_encoder *encoder, const struct conv_template *template,
                      const struct tokenizer *tokenizer, bool use_im_start_end,
                      struct err *err)
{
    *encoder = (struct conv_encoder){
        .template = template,
        .tokenizer = tokenizer,
        .use_im_start_end = use_im_start_end,
        .start = tokenizer_id(tokenizer, CONV_MEDIA_START),
        .end = tokenizer_id(tokenizer, CONV_MEDIA_END),
        .begin = tokenizer_bos(tokenizer),
        .stop = template->stop ? tokenizer_id(tokenizer, template->stop)
                               : tokenizer_eos(tokenizer),
    };
    if (use_im_start_end && (encoder->start < 0 || encoder->end < 0))
        return err_set(err, ERR_INVALID,
                       "use_im_start_end wants the tokens %s and %s, which the tokenizer "
                       "does not have; add them to additional_special_tokens",
                       CONV_MEDIA_START, CONV_MEDIA_END);
    if (template->is_plain)
        return find_break(encoder, err) < 0 ? -1 : find_inlines(encoder, err);
    if (encoder->stop < 0)
        return err_set(err, ERR_INVALID,
                       "the tokenizer has no %s, which ends every answer of template %s",
                       template->stop ? template->stop : "end of sentence",
                       template->name);
    if (encoder->begin < 0 && (template->has_begin || template->has_begins))
        return err_set(err, ERR_INVALID,
                       "the tokenizer has no begin of sentence, which template %s writes",
                       template->name);
    return find_inlines(encoder, err);
}

/* Where a part of the conversation lies in the text that is encoded as one. */
struct range {
    const struct conv_part *part;
    size_t begin, end;
};

struct builder {
    const struct conv_encoder *encoder;
    struct conv_tokens *out;
    struct buf chunk;  /* text encoded as one */
    struct buf ranges; /* struct range of the chunk, in order */
    struct buf spans;
    bool after_end; /* the token before the chunk is a begin or end of sentence */
};

static void put(struct conv_tokens *out, int32_t token, bool is_label)
{
    uint8_t flag = is_label;
    const uint8_t *before = (const uint8_t *)out->is_label.data;

    if (is_label && (!out->n_tokens || !before[out->n_tokens - 1]))
        out->n_prompt = out->n_tokens;
    buf_add(&out->tokens, &token, sizeof(token));
    buf_add(&out->is_label, &flag, sizeof(flag));
    if (out->tokens.failed || out->is_label.failed)
        return; /* found by buf_check at the end */
    out->n_tokens++;
    out->n_labels += is_label;
}

static void put_media(struct builder *b, enum media_kind kind)
{
    const struct conv_encoder *encoder = b->encoder;

    if (encoder->use_im_start_end)
        put(b->out, encoder->start, false);
    put(b->out, CONV_TOKEN_MEDIA, false);
    if (encoder->use_im_start_end)
        put(b->out, encoder->end, false);
    buf_add(&b->out->media, &kind, sizeof(kind));
    b->out->n_media++;
}

/* The range that holds byte `at` of the chunk, looking from *i on. */
static const struct range *range_at(const struct builder *b, size_t *i, size_t at)
{
    const struct range *ranges = (const struct range *)b->ranges.data;
    size_t n = b->ranges.n_bytes / sizeof(*ranges);

    while (*i + 1 < n && ranges[*i].end <= at)
        (*i)++;
    return &ranges[*i];
}

static bool is_end(const struct conv_part *part)
{
    return part->kind == CONV_BEGIN || part->kind == CONV_STOP;
}

static void put_end(struct builder *b, const struct conv_part *part)
{
    put(b->out, part->kind == CONV_BEGIN ? b->encoder->begin : b->encoder->stop,
        part->is_answer);
}

static void put_span(struct builder *b, const struct token_span *span, size_t *i)
{
    const struct range *first = range_at(b, i, span->begin);
    size_t j = *i;
    const struct range *last =
        span->end > span->begin ? range_at(b, &j, span->end - 1) : first;

    if (is_end(first->part) && span->end > span->begin)
        put_end(b, first->part);
    else if (first->part->kind != CONV_MEDIA || span->end == span->begin)
        put(b->out, span->id, first->part->is_answer || last->part->is_answer);
    else if (span->id == b->encoder->start)
        put_media(b, first->part->media); /* its end token comes with it */
}

/* Encodes the chunk and empties it. */
static int flush(struct builder *b, struct err *err)
{
    size_t i = 0;

    buf_reset(&b->spans);
    if (buf_check(&b->chunk, err) < 0 || buf_check(&b->ranges, err) < 0 ||
        tokenizer_encode_spans(b->encoder->tokenizer, &b->spans, buf_str(&b->chunk),
                               b->chunk.n_bytes, err) < 0)
        return -1;
    for (size_t k = 0; k < b->spans.n_bytes / sizeof(struct token_span); k++)
        put_span(b, (const struct token_span *)b->spans.data + k, &i);
    buf_reset(&b->chunk);
    buf_reset(&b->ranges);
    return 0;
}

static void add_to_chunk(struct builder *b, const struct conv_part *part,
                         const char *text, size_t n_bytes)
{
    struct range range = {part, b->chunk.n_bytes, b->chunk.n_bytes + n_bytes};

    buf_add(&b->chunk, text, n_bytes);
    buf_add(&b->ranges, &range, sizeof(range));
}

static int add_to_tokens(struct builder *b, const struct conversation *conversation,
                         const struct conv_part *part, struct err *err)
{
    static const char markers[] = CONV_MEDIA_START CONV_MEDIA_END;
    const char *text = buf_str(&conversation->text) + part->begin;
    size_t n_bytes = part->end - part->begin;
    const char *ends = part->kind == CONV_BEGIN ? CONV_BEGIN_TEXT : CONV_STOP_TEXT;

    if (part->kind == CONV_TEXT && b->after_end && *text == ' ') {
        text++; /* the tokenizer puts its own space where a chunk begins */
        n_bytes--;
    }
    b->after_end = false;
    if (part->kind == CONV_TEXT) {
        if (n_bytes)
            add_to_chunk(b, part, text, n_bytes);
    } else if (part->kind == CONV_MEDIA && b->encoder->is_inline) {
        add_to_chunk(b, part, markers, sizeof(markers) - 1);
    } else if (is_end(part) && b->encoder->has_inline_ends) {
        add_to_chunk(b, part, ends, strlen(ends));
    } else {
        if (flush(b, err) < 0)
            return -1;
        if (part->kind == CONV_MEDIA)
            put_media(b, part->media);
        else
            put_end(b, part);
        b->after_end = is_end(part);
    }
    return 0;
}

int conv_encode(const struct conv_encoder *encoder, struct conv_tokens *out,
                const struct conversation *conversation, struct err *err)
{
    struct builder b = {encoder, out, BUF_INIT, BUF_INIT, BUF_INIT, false};
    const struct conv_part *parts = (const struct conv_part *)conversation->parts.data;
    size_t n_parts = conversation->parts.n_bytes / sizeof(*parts);
    int rc = 0;

    *out =
        (struct conv_tokens){.tokens = BUF_INIT, .is_label = BUF_INIT, .media = BUF_INIT};
    for (size_t i = 0; i < n_parts && rc == 0; i++)
        rc = add_to_tokens(&b, conversation, &parts[i], err);
    if (rc == 0)
        rc = flush(&b, err);
    if (rc == 0 &&
        (buf_check(&out->tokens, err) < 0 || buf_check(&out->is_label, err) < 0 ||
         buf_check(&out->media, err) < 0))
        rc = -1;
    if (!out->n_labels)
        out->n_prompt = out->n_tokens;
    if (rc < 0)
        conv_tokens_fini(out);
    buf_fini(&b.chunk);
    buf_fini(&b.ranges);
    buf_fini(&b.spans);
    return rc;
}

void conv_tokens_fini(struct conv_tokens *tokens)
{
    buf_fini(&tokens->tokens);
    buf_fini(&tokens->is_label);
    buf_fini(&tokens->media);
}

/* ---- NeMo's form ---- */

static void add_int(struct buf *out, int32_t value)
{
    buf_add(out, &value, sizeof(value));
}

static void add_media(const struct conv_encoder *encoder, struct buf *tokens, int64_t n)
{
    int32_t patch = tokenizer_id(encoder->tokenizer, CONV_PATCH);
    bool has_ends = !encoder->use_im_start_end && n >= 2 && encoder->start >= 0;

    if (!encoder->template->has_patch_token || patch < 0)
        patch = 0;
    for (int64_t i = 0; i < n; i++)
        add_int(tokens, has_ends && i == 0       ? encoder->start
                        : has_ends && i == n - 1 ? encoder->end
                                                 : patch);
}

int conv_nemo_form(const struct conv_encoder *encoder, const struct conv_tokens *tokens,
                   const int64_t *n_patches, struct buf *out_tokens,
                   struct buf *out_labels, struct err *err)
{
    const int32_t *token = (const int32_t *)tokens->tokens.data;
    const uint8_t *is_label = (const uint8_t *)tokens->is_label.data;
    int64_t media = 0;

    for (int64_t i = 0; i < tokens->n_tokens; i++) {
        int64_t n = 1;

        if (token[i] == CONV_TOKEN_MEDIA)
            n = n_patches[media++];
        if (token[i] == CONV_TOKEN_MEDIA)
            add_media(encoder, out_tokens, n);
        else if (i + 1 < tokens->n_tokens)
            add_int(out_tokens, token[i]);
        for (int64_t k = 0; k < n; k++)
            if (i > 0 || k > 0) /* the label of the entry before */
                add_int(out_labels, is_label[i] ? token[i] : -1);
    }
    return buf_check(out_tokens, err) < 0 ? -1 : buf_check(out_labels, err);
}
