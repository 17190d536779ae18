#include "worker/rank/answer.h"

#include "worker/rank/results.h"

#include <string.h>

/* Tokenizers that put a space before every text take it away again when they decode, or,
 * as transformers' do, leave it there. */
static int leaves_space(bool *out, const struct tokenizer *tokenizer, struct err *err)
{
    struct buf tokens = BUF_INIT, text = BUF_INIT;
    int rc = tokenizer_encode(tokenizer, &tokens, "a", 1, err);

    if (rc == 0)
        rc =
            tokenizer_decode(tokenizer, &text, (const int32_t *)(const void *)tokens.data,
                             (int64_t)(tokens.n_bytes / sizeof(int32_t)), err);
    *out = text.n_bytes > 0 && text.data[0] == ' ';
    buf_fini(&tokens);
    buf_fini(&text);
    return rc;
}

/* Text between media, which was encoded by itself. */
static int add_text(struct buf *out, const struct tokenizer *tokenizer,
                    const int32_t *tokens, int64_t n_tokens, bool has_space,
                    struct err *err)
{
    struct buf text = BUF_INIT;
    int rc = tokenizer_decode(tokenizer, &text, tokens, n_tokens, err);
    size_t skip = has_space && text.n_bytes > 0 && text.data[0] == ' ';

    if (rc == 0 && text.n_bytes > 0)
        buf_add(out, text.data + skip, text.n_bytes - skip);
    buf_fini(&text);
    return rc;
}

/* tokens: those of the prompt, then those of the answer. */
static int full_text(struct buf *out, const struct tokenizer *tokenizer,
                     const struct dataset_sample *sample, const int32_t *tokens,
                     int64_t n_tokens, struct err *err)
{
    int64_t first = 0, media = 0;
    bool has_space;

    if (leaves_space(&has_space, tokenizer, err) < 0)
        return -1;
    for (int64_t t = 0; t <= n_tokens; t++) {
        if (t < n_tokens && tokens[t] != DATASET_TOKEN_MEDIA)
            continue;
        if (t > first &&
            add_text(out, tokenizer, tokens + first, t - first, has_space, err) < 0)
            return -1;
        if (t < n_tokens)
            buf_add_str(out, sample->media[media++].ref.kind == MEDIA_VIDEO ? "<video>"
                                                                            : "<image>");
        first = t + 1;
    }
    return buf_check(out, err);
}

int answer_texts(struct buf *answer, struct buf *full, const struct tokenizer *tokenizer,
                 const struct dataset_sample *sample, const int32_t *tokens,
                 int64_t n_tokens, struct err *err)
{
    struct buf all = BUF_INIT;
    int rc = -1;

    buf_add(&all, sample->tokens, (size_t)sample->n_prompt * sizeof(*tokens));
    buf_add(&all, tokens, (size_t)n_tokens * sizeof(*tokens));
    if (buf_check(&all, err) == 0 &&
        tokenizer_decode(tokenizer, answer, tokens, n_tokens, err) == 0)
        rc = full_text(full, tokenizer, sample, (const int32_t *)(void *)all.data,
                       sample->n_prompt + n_tokens, err);
    buf_fini(&all);
    buf_add(answer, "", 0); /* so that there is a text to trim */
    return rc < 0 ? -1 : buf_check(answer, err);
}

/* Where the first of them is in the text; NULL: there is none. */
static const char *find_end(const char *text, const struct spec_list *ends)
{
    const char *first = NULL;

    for (int64_t i = 0; i < ends->count; i++) {
        const char *at = strstr(text, ends->items[i]);

        if (at && (!first || at < first))
            first = at;
    }
    return first;
}

int answer_has_ended(bool *out, const struct tokenizer *tokenizer, const int32_t *tokens,
                     int64_t n_tokens, const struct spec_list *ends, struct err *err)
{
    struct buf text = BUF_INIT;
    int rc = tokenizer_decode(tokenizer, &text, tokens, n_tokens, err);

    *out = rc == 0 && find_end(buf_str(&text), ends);
    buf_fini(&text);
    return rc;
}

/* The whole text ends as the answer does. */
static void cut(struct buf *answer, struct buf *full, const struct spec_list *ends)
{
    const char *end = find_end(buf_str(answer), ends);
    size_t n_cut = end ? answer->n_bytes - (size_t)(end - answer->data) : 0;

    if (n_cut == 0 || n_cut > full->n_bytes)
        return;
    answer->n_bytes -= n_cut;
    answer->data[answer->n_bytes] = '\0';
    full->n_bytes -= n_cut;
    full->data[full->n_bytes] = '\0';
}

int answer_add(struct buf *lines, const struct tokenizer *tokenizer,
               const struct dataset_sample *sample, const int32_t *tokens,
               int64_t n_tokens, const struct spec_list *ends, struct err *err)
{
    struct buf answer = BUF_INIT, full = BUF_INIT;
    int rc = answer_texts(&answer, &full, tokenizer, sample, tokens, n_tokens, err);

    if (rc == 0)
        cut(&answer, &full, ends);
    if (rc == 0)
        rc = results_add(lines, sample->record, buf_str(&full), results_trim(answer.data),
                         err);
    buf_fini(&answer);
    buf_fini(&full);
    return rc < 0 ? err_wrap(err, "sample '%s'", sample->id) : 0;
}
