#include "worker/rank/answer.h"

#include "worker/rank/results.h"

int answer_decode(struct buf *out, const struct tokenizer *tokenizer,
                  const int32_t *tokens, int64_t n_tokens, struct err *err)
{
    int64_t vocab = tokenizer_vocab(tokenizer);
    struct buf known = BUF_INIT;
    int rc;

    for (int64_t i = 0; i < n_tokens; i++)
        if (tokens[i] < vocab)
            buf_add(&known, &tokens[i], sizeof(*tokens));
    rc = buf_check(&known, err);
    if (rc == 0 && known.n_bytes)
        rc = tokenizer_decode(tokenizer, out, (const int32_t *)(const void *)known.data,
                              (int64_t)(known.n_bytes / sizeof(*tokens)), err);
    buf_fini(&known);
    return rc;
}

/* tokens: those of the prompt, then those of the answer. */
static int full_text(struct buf *out, const struct tokenizer *tokenizer,
                     const struct dataset_sample *sample, const int32_t *tokens,
                     int64_t n_tokens, struct err *err)
{
    int64_t first = 0, media = 0;

    for (int64_t t = 0; t <= n_tokens; t++) {
        if (t < n_tokens && tokens[t] != DATASET_TOKEN_MEDIA)
            continue;
        if (t > first &&
            answer_decode(out, tokenizer, tokens + first, t - first, err) < 0)
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
        answer_decode(answer, tokenizer, tokens, n_tokens, err) == 0)
        rc = full_text(full, tokenizer, sample, (const int32_t *)(void *)all.data,
                       sample->n_prompt + n_tokens, err);
    buf_fini(&all);
    buf_add(answer, "", 0); /* so that there is a text to trim */
    return rc < 0 ? -1 : buf_check(answer, err);
}

int answer_add(struct buf *lines, const struct tokenizer *tokenizer,
               const struct dataset_sample *sample, const int32_t *tokens,
               int64_t n_tokens, struct err *err)
{
    struct buf answer = BUF_INIT, full = BUF_INIT;
    int rc = answer_texts(&answer, &full, tokenizer, sample, tokens, n_tokens, err);

    if (rc == 0)
        rc = results_add(lines, sample->record, buf_str(&full), results_trim(answer.data),
                         err);
    buf_fini(&answer);
    buf_fini(&full);
    return rc < 0 ? err_wrap(err, "sample '%s'", sample->id) : 0;
}
