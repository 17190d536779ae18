#include "dataprep/text/template.h"

#include <string.h>

enum { PATCH, START, END };

/* NeMo takes the second row where llm.model_type is llama_3. */
static const char *const media_markers[2][3] = {
    {CONV_PATCH, CONV_MEDIA_START, CONV_MEDIA_END},
    {"<|reserved_special_token_3|>", "<|reserved_special_token_4|>",
     "<|reserved_special_token_5|>"},
};

/* Does the tokenizer find two tokens inside of text? Then the text around them is encoded
 * as one, as NeMo does, without a new leading space after them. */
static int find_inline(const struct conv_encoder *encoder, bool *out, const char *first,
                       const char *second, struct err *err)
{
    int32_t ids[2] = {tokenizer_id(encoder->tokenizer, first),
                      tokenizer_id(encoder->tokenizer, second)};
    struct buf probe = BUF_INIT, spans = BUF_INIT;
    const struct token_span *span;
    size_t n;
    int rc;

    *out = false;
    buf_printf(&probe, "a%s%sa", first, second);
    rc = buf_check(&probe, err);
    if (rc == 0)
        rc = tokenizer_encode_spans(encoder->tokenizer, &spans, buf_str(&probe),
                                    probe.n_bytes, err);
    span = (const struct token_span *)spans.data;
    n = spans.n_bytes / sizeof(*span);
    for (size_t i = 0; rc == 0 && ids[0] >= 0 && i + 1 < n; i++)
        if (span[i].id == ids[0] && span[i + 1].id == ids[1])
            *out = true;
    buf_fini(&probe);
    buf_fini(&spans);
    return rc;
}

static int encode_words(const struct conv_encoder *encoder, struct buf *out,
                        const char *words, struct err *err)
{
    return tokenizer_encode(encoder->tokenizer, out, words, strlen(words), err);
}

/* SentencePiece puts a space before a text, so that a word is the same token anywhere;
 * byte-level tokenizers do not. */
static int find_space(struct conv_encoder *encoder, struct err *err)
{
    struct buf both = BUF_INIT, each = BUF_INIT;
    int rc = encode_words(encoder, &both, "a a", err);

    for (int i = 0; i < 2 && rc == 0; i++)
        rc = encode_words(encoder, &each, "a", err);
    encoder->adds_space = rc == 0 && both.n_bytes == each.n_bytes && both.n_bytes &&
                          memcmp(both.data, each.data, both.n_bytes) == 0;
    buf_fini(&both);
    buf_fini(&each);
    return rc;
}

static int find_inlines(struct conv_encoder *encoder, struct err *err)
{
    if (find_inline(encoder, &encoder->is_inline, encoder->marker[START],
                    encoder->marker[END], err) < 0 ||
        find_inline(encoder, &encoder->has_inline_ends, CONV_BEGIN_TEXT, CONV_STOP_TEXT,
                    err) < 0)
        return -1;
    return find_space(encoder, err);
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

/* The tokens in the template's words: each must be one token, found in the text. */
static int check_needs(const struct conv_encoder *encoder, struct err *err)
{
    const struct conv_template *template = encoder->template;

    for (int i = 0; i < CONV_NEEDS_MAX && template->needs[i]; i++) {
        bool is_found = false;

        if (find_inline(encoder, &is_found, template->needs[i], template->needs[i], err) <
            0)
            return -1;
        if (!is_found)
            return err_set(err, ERR_INVALID,
                           "template %s writes %s, which the tokenizer does not have as "
                           "one token: add it to "
                           "model.tokenizer.additional_special_tokens, or take the "
                           "tokenizer of a model that was trained with this template",
                           template->name, template->needs[i]);
    }
    return 0;
}

static int check_ends(const struct conv_encoder *encoder, struct err *err)
{
    const struct conv_template *template = encoder->template;

    if (encoder->stop < 0 && template->shape != CONV_SHAPE_INTERLEAVED)
        return err_set(err, ERR_INVALID,
                       "the tokenizer has no %s, which ends every answer of template %s; "
                       "take a tokenizer that has one",
                       template->stop ? template->stop : "end of sentence",
                       template->name);
    if (encoder->begin < 0 && (template->has_begin || template->has_begins))
        return err_set(err, ERR_INVALID,
                       "the tokenizer has no begin of sentence, which template %s "
                       "writes; take a tokenizer that has one",
                       template->name);
    return 0;
}

/* The template's own media tokens, or those of the two that the tokenizer has. */
static void choose_markers(struct conv_encoder *encoder)
{
    const struct tokenizer *tokenizer = encoder->tokenizer;
    int own = encoder->template->is_llama_3;
    bool has_own = tokenizer_id(tokenizer, media_markers[own][START]) >= 0;
    bool has_other = tokenizer_id(tokenizer, media_markers[!own][START]) >= 0;

    encoder->marker = media_markers[has_own || !has_other ? own : !own];
    encoder->patch = tokenizer_id(tokenizer, encoder->marker[PATCH]);
    encoder->start = tokenizer_id(tokenizer, encoder->marker[START]);
    encoder->end = tokenizer_id(tokenizer, encoder->marker[END]);
}

int conv_encoder_init(struct conv_encoder *encoder, const struct conv_template *template,
                      const struct tokenizer *tokenizer, bool use_im_start_end,
                      struct err *err)
{
    *encoder = (struct conv_encoder){
        .template = template,
        .tokenizer = tokenizer,
        .use_im_start_end = use_im_start_end,
        .pad = tokenizer_id(tokenizer, CONV_PAD),
        .begin = tokenizer_bos(tokenizer),
        .stop = template->stop ? tokenizer_id(tokenizer, template->stop)
                               : tokenizer_eos(tokenizer),
    };
    choose_markers(encoder);
    if (use_im_start_end && (encoder->start < 0 || encoder->end < 0))
        return err_set(err, ERR_INVALID,
                       "use_im_start_end wants the tokens %s and %s, which the tokenizer "
                       "does not have; add them to additional_special_tokens",
                       encoder->marker[START], encoder->marker[END]);
    if (check_needs(encoder, err) < 0 || find_inlines(encoder, err) < 0)
        return -1;
    return template->shape == CONV_SHAPE_PLAIN ? find_break(encoder, err)
                                               : check_ends(encoder, err);
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

/* The first token is nothing's label: no entry comes before it. */
static void put(struct conv_tokens *out, int32_t token, bool is_answer)
{
    uint8_t is_label = is_answer && out->n_tokens > 0;
    const uint8_t *before = (const uint8_t *)out->is_label.data;

    if (is_label && !before[out->n_tokens - 1])
        out->n_prompt = out->n_tokens;
    buf_add(&out->tokens, &token, sizeof(token));
    buf_add(&out->is_label, &is_label, sizeof(is_label));
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

/* NeMo masks these in an interleaved text, wherever they come from. */
static bool is_masked(const struct conv_encoder *encoder, int32_t id)
{
    return encoder->template->shape == CONV_SHAPE_INTERLEAVED &&
           (id == encoder->start || id == encoder->end || id == encoder->pad);
}

static void put_span(struct builder *b, const struct token_span *span, size_t *i)
{
    const struct range *first = range_at(b, i, span->begin);
    size_t j = *i;
    const struct range *last =
        span->end > span->begin ? range_at(b, &j, span->end - 1) : first;
    bool is_answer = first->part->is_answer || last->part->is_answer;

    if (is_end(first->part) && span->end > span->begin)
        put_end(b, first->part);
    else if (first->part->kind != CONV_MEDIA || span->end == span->begin)
        put(b->out, span->id, is_answer && !is_masked(b->encoder, span->id));
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

static void add_markers_to_chunk(struct builder *b, const struct conv_part *part)
{
    const char *start = b->encoder->marker[START], *end = b->encoder->marker[END];
    size_t n_start = strlen(start), n_end = strlen(end);
    struct range range = {part, b->chunk.n_bytes, b->chunk.n_bytes + n_start + n_end};

    buf_add(&b->chunk, start, n_start);
    buf_add(&b->chunk, end, n_end);
    buf_add(&b->ranges, &range, sizeof(range));
}

static int add_to_tokens(struct builder *b, const struct conversation *conversation,
                         const struct conv_part *part, struct err *err)
{
    const char *text = buf_str(&conversation->text) + part->begin;
    size_t n_bytes = part->end - part->begin;
    const char *ends = part->kind == CONV_BEGIN ? CONV_BEGIN_TEXT : CONV_STOP_TEXT;

    if (part->kind == CONV_TEXT && b->after_end && b->encoder->adds_space &&
        *text == ' ') {
        text++; /* the tokenizer puts its own space where a chunk begins */
        n_bytes--;
    }
    b->after_end = false;
    if (part->kind == CONV_TEXT) {
        if (n_bytes)
            add_to_chunk(b, part, text, n_bytes);
    } else if (part->kind == CONV_MEDIA && b->encoder->is_inline) {
        add_markers_to_chunk(b, part);
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

/* The last entry is only a label, so a medium that ends a text would be cut. */
static int check_end(const struct conv_tokens *out, const struct conversation *of,
                     struct err *err)
{
    const int32_t *tokens = (const int32_t *)out->tokens.data;

    if (of->is_prompt || !out->n_tokens || tokens[out->n_tokens - 1] != CONV_TOKEN_MEDIA)
        return 0;
    return err_set(err, ERR_INVALID,
                   "the text ends with a medium, after which nothing is to be learnt; "
                   "put its text after it");
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
         buf_check(&out->media, err) < 0 || check_end(out, conversation, err) < 0))
        rc = -1;
    if (!out->n_labels || conversation->is_prompt)
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
