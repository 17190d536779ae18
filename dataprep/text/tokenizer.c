#include "dataprep/text/tokenizer.h"

#include "common/base/fs.h"
#include "dataprep/text/sentencepiece_c.h"

#include <stdlib.h>
#include <string.h>

/* Spans hold byte offsets of 32 bits; a conversation is far below. */
#define TEXT_MAX_BYTES (64u << 20)

struct tokenizer {
    struct sp_model *model;
    int64_t n_model;
    char **extras; /* extras[i] has the number n_model + i */
    int n_extras;
};

static int add_extra(struct tokenizer *tokenizer, const char *text, struct err *err)
{
    if (!*text)
        return err_set(err, ERR_INVALID, "an extra token is empty");
    if (tokenizer_id(tokenizer, text) >= 0)
        return 0; /* the model has it, or it stands twice: NeMo keeps the first number */
    tokenizer->extras[tokenizer->n_extras] = strdup(text);
    if (!tokenizer->extras[tokenizer->n_extras])
        return err_set(err, ERR_NOMEM, "cannot keep extra token '%s'", text);
    tokenizer->n_extras++;
    return 0;
}

int tokenizer_open(struct tokenizer **out, const char *path,
                   const char *const *extra_tokens, int n_extra_tokens, struct err *err)
{
    struct tokenizer *tokenizer;
    struct sp_model *model = NULL;

    if (!fs_exists(path))
        return err_set(err, ERR_NOT_FOUND, "no tokenizer at '%s'", path);
    if (sp_open(&model, path, err) < 0)
        return err_wrap(err, "cannot read tokenizer '%s' as a SentencePiece model", path);
    tokenizer = calloc(1, sizeof(*tokenizer));
    if (!tokenizer) {
        sp_close(model);
        return err_set(err, ERR_NOMEM, "cannot allocate a tokenizer");
    }
    tokenizer->model = model; /* now the tokenizer's */
    tokenizer->n_model = sp_vocab(model);
    tokenizer->extras = calloc((size_t)n_extra_tokens + 1, sizeof(*tokenizer->extras));
    if (!tokenizer->extras) {
        err_set(err, ERR_NOMEM, "cannot allocate extra tokens");
        goto failed;
    }
    for (int i = 0; i < n_extra_tokens; i++)
        if (add_extra(tokenizer, extra_tokens[i], err) < 0)
            goto failed;
    *out = tokenizer;
    return 0;
failed:
    tokenizer_close(tokenizer);
    return -1;
}

void tokenizer_close(struct tokenizer *tokenizer)
{
    if (!tokenizer)
        return;
    for (int i = 0; i < tokenizer->n_extras; i++)
        free(tokenizer->extras[i]);
    free(tokenizer->extras);
    sp_close(tokenizer->model);
    free(tokenizer);
}

int64_t tokenizer_vocab(const struct tokenizer *tokenizer)
{
    return tokenizer->n_model + tokenizer->n_extras;
}

int32_t tokenizer_bos(const struct tokenizer *tokenizer)
{
    return sp_bos(tokenizer->model);
}

int32_t tokenizer_eos(const struct tokenizer *tokenizer)
{
    return sp_eos(tokenizer->model);
}

int32_t tokenizer_id(const struct tokenizer *tokenizer, const char *piece)
{
    int32_t id = sp_find(tokenizer->model, piece);

    for (int i = 0; id < 0 && i < tokenizer->n_extras; i++)
        if (strcmp(tokenizer->extras[i], piece) == 0)
            id = (int32_t)tokenizer->n_model + i;
    return id;
}

/* First byte of `word` in text[0, n_bytes), or n_bytes. Text may hold NUL bytes. */
static size_t find_word(const char *text, size_t n_bytes, const char *word)
{
    size_t n_word = strlen(word);

    for (size_t at = 0; at + n_word <= n_bytes; at++) {
        const char *hit = memchr(text + at, word[0], n_bytes - n_word + 1 - at);

        if (!hit)
            break;
        at = (size_t)(hit - text);
        if (memcmp(hit, word, n_word) == 0)
            return at;
    }
    return n_bytes;
}

int tokenizer_encode_spans(const struct tokenizer *tokenizer, struct buf *out,
                           const char *text, size_t n_bytes, struct err *err)
{
    size_t done = 0;

    if (n_bytes > TEXT_MAX_BYTES)
        return err_set(err, ERR_LIMIT, "text of %zu bytes, at most %u are encoded",
                       n_bytes, TEXT_MAX_BYTES);
    while (done < n_bytes) {
        size_t next = n_bytes;
        int extra = -1;

        for (int i = 0; i < tokenizer->n_extras; i++) {
            size_t at =
                done + find_word(text + done, n_bytes - done, tokenizer->extras[i]);

            if (at < next) {
                next = at;
                extra = i;
            }
        }
        if (next > done && sp_encode(tokenizer->model, out, text + done, next - done,
                                     (uint32_t)done, err) < 0)
            return -1;
        done = next;
        if (extra >= 0) {
            struct token_span span = {(int32_t)tokenizer->n_model + extra, (uint32_t)next,
                                      (uint32_t)next};

            span.end += (uint32_t)strlen(tokenizer->extras[extra]);
            buf_add(out, &span, sizeof(span));
            done = span.end;
        }
    }
    return buf_check(out, err);
}

int tokenizer_encode(const struct tokenizer *tokenizer, struct buf *out, const char *text,
                     size_t n_bytes, struct err *err)
{
    struct buf spans = BUF_INIT;
    int rc = tokenizer_encode_spans(tokenizer, &spans, text, n_bytes, err);
    const struct token_span *span = (const struct token_span *)spans.data;

    for (size_t i = 0; rc == 0 && i < spans.n_bytes / sizeof(*span); i++)
        buf_add(out, &span[i].id, sizeof(span[i].id));
    buf_fini(&spans);
    return rc < 0 ? -1 : buf_check(out, err);
}

int tokenizer_decode(const struct tokenizer *tokenizer, struct buf *out,
                     const int32_t *tokens, int64_t n_tokens, struct err *err)
{
    int64_t first = 0;

    for (int64_t i = 0; i <= n_tokens; i++) {
        if (i < n_tokens && (tokens[i] < 0 || tokens[i] >= tokenizer_vocab(tokenizer)))
            return err_set(err, ERR_INVALID, "token %d is outside of the vocabulary",
                           tokens[i]);
        if (i < n_tokens && tokens[i] < tokenizer->n_model)
            continue;
        if (i > first &&
            sp_decode(tokenizer->model, out, tokens + first, i - first, err) < 0)
            return -1;
        if (i < n_tokens)
            buf_add_str(out, tokenizer->extras[tokens[i] - tokenizer->n_model]);
        first = i + 1;
    }
    return buf_check(out, err);
}

/* ---- training ---- */

/* Splits the texts into lines: line breaks are left to the byte tokens. Appends char *
 * pointers into the copies, which `owner` keeps. */
static int split_lines(struct buf *lines, char **copies, const char *const *texts,
                       int64_t n_texts, struct err *err)
{
    for (int64_t i = 0; i < n_texts; i++) {
        char *save = NULL;

        copies[i] = strdup(texts[i]);
        if (!copies[i])
            return err_set(err, ERR_NOMEM, "cannot copy the training texts");
        for (char *line = strtok_r(copies[i], "\r\n", &save); line;
             line = strtok_r(NULL, "\r\n", &save))
            buf_add(lines, &line, sizeof(line));
    }
    return buf_check(lines, err);
}

int tokenizer_train(const char *output, const char *const *texts, int64_t n_texts,
                    int64_t vocab, struct err *err)
{
    char **copies = calloc((size_t)n_texts + 1, sizeof(*copies));
    struct buf lines = BUF_INIT, model = BUF_INIT;
    int rc = -1;

    if (vocab < TOKENIZER_VOCAB_MIN) {
        err_set(err, ERR_INVALID, "a vocabulary of %lld is too small, take at least %d",
                (long long)vocab, TOKENIZER_VOCAB_MIN);
        goto out;
    }
    if (!copies) {
        err_set(err, ERR_NOMEM, "cannot copy the training texts");
        goto out;
    }
    if (split_lines(&lines, copies, texts, n_texts, err) < 0)
        goto out;
    if (!lines.n_bytes) {
        err_set(err, ERR_INVALID, "no text to train a tokenizer from");
        goto out;
    }
    if (sp_train(&model, (const char *const *)lines.data,
                 (int64_t)(lines.n_bytes / sizeof(char *)), vocab, err) < 0) {
        err_wrap(err, "cannot train a tokenizer of %lld tokens", (long long)vocab);
        goto out;
    }
    rc = fs_write_file_atomic(output, model.data, model.n_bytes, err);
out:
    for (int64_t i = 0; copies && i < n_texts; i++)
        free(copies[i]);
    free(copies);
    buf_fini(&lines);
    buf_fini(&model);
    return rc;
}
