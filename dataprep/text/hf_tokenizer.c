#include "dataprep/text/hf_parts.h"

#include "dataprep/text/tokenizer.h"
#include "dataprep/text/unicode.h"

#include <stdlib.h>
#include <string.h>

int hf_open(struct hf_tokenizer **out, const struct token_folder *folder,
            const char *const *extra_tokens, int n_extra_tokens, struct err *err)
{
    struct hf_tokenizer *hf = calloc(1, sizeof(*hf));

    if (!hf)
        return err_set(err, ERR_NOMEM, "cannot allocate a tokenizer");
    if (hf_read(hf, folder, extra_tokens, n_extra_tokens, err) < 0) {
        hf_close(hf);
        return err_wrap(err, "cannot read tokenizer '%s'", folder->file);
    }
    *out = hf;
    return 0;
}

void hf_close(struct hf_tokenizer *hf)
{
    if (!hf)
        return;
    added_fini(&hf->added);
    vocab_fini(&hf->added_vocab);
    normalizer_fini(&hf->normalizer);
    pretokenizer_fini(&hf->pretokenizer);
    bpe_fini(&hf->bpe);
    detokenizer_fini(&hf->detokenizer);
    free(hf);
}

int64_t hf_vocab(const struct hf_tokenizer *hf)
{
    int64_t n_model = hf->bpe.vocab.n_ids;

    return hf->added_vocab.n_ids > n_model ? hf->added_vocab.n_ids : n_model;
}

int32_t hf_bos(const struct hf_tokenizer *hf)
{
    return hf->bos;
}

int32_t hf_eos(const struct hf_tokenizer *hf)
{
    return hf->eos;
}

int32_t hf_find(const struct hf_tokenizer *hf, const char *piece, size_t n_bytes)
{
    int32_t id = vocab_find(&hf->added_vocab, piece, n_bytes);

    return id >= 0 ? id : vocab_find(&hf->bpe.vocab, piece, n_bytes);
}

/* ---- encoding ---- */

/* What one call needs, kept from piece to piece. */
struct encoding {
    const struct hf_tokenizer *hf;
    struct buf *out;
    struct aligned text, other;   /* the present piece, and a second buffer */
    struct buf plain, normalized; /* struct added_piece */
    struct buf pieces, tokens;    /* struct piece, struct bpe_token */
    struct pretokenizer_work words;
    struct bpe_work bpe;
    struct regex_work *regex;
    struct err *err;
};

static int encoding_init(struct encoding *e, const struct hf_tokenizer *hf,
                         struct buf *out, struct err *err)
{
    *e = (struct encoding){.hf = hf, .out = out, .err = err};
    return regex_work_create(&e->regex, err);
}

static void encoding_fini(struct encoding *e)
{
    aligned_fini(&e->text);
    aligned_fini(&e->other);
    buf_fini(&e->plain);
    buf_fini(&e->normalized);
    buf_fini(&e->pieces);
    buf_fini(&e->tokens);
    pretokenizer_work_fini(&e->words);
    bpe_work_fini(&e->bpe);
    regex_work_destroy(e->regex);
}

static void put_span(struct encoding *e, int32_t id, uint32_t begin, uint32_t end)
{
    struct token_span span = {id, begin, end};

    buf_add(e->out, &span, sizeof(span));
}

static int encode_word(struct encoding *e, struct piece word)
{
    const struct bpe_token *tokens;

    buf_reset(&e->tokens);
    if (bpe_encode(&e->hf->bpe, &e->bpe, &e->tokens, e->text.text.data + word.begin,
                   word.end - word.begin, e->err) < 0)
        return -1;
    tokens = (const struct bpe_token *)(const void *)e->tokens.data;
    for (size_t i = 0; i < e->tokens.n_bytes / sizeof(*tokens); i++)
        put_span(e, tokens[i].id, aligned_origin(&e->text, word.begin + tokens[i].begin),
                 aligned_origin(&e->text, word.begin + tokens[i].end));
    return 0;
}

/* The words of e->pieces: from here on no token is looked for. */
static int encode_words(struct encoding *e)
{
    const struct piece *words;

    if (pretokenizer_apply(&e->hf->pretokenizer, &e->text, &e->pieces, &e->words,
                           e->regex, e->err) < 0)
        return -1;
    words = (const struct piece *)(const void *)e->pieces.data;
    for (size_t i = 0; i < e->pieces.n_bytes / sizeof(*words); i++)
        if (encode_word(e, words[i]) < 0)
            return -1;
    return 0;
}

/* Part [begin, end) of the normalized text e->other, which has no added token in it. */
static int encode_part(struct encoding *e, size_t begin, size_t end)
{
    struct piece all = {0, end - begin};

    if (begin == end)
        return 0;
    aligned_reset(&e->text);
    aligned_add_part(&e->text, &e->other, begin, end);
    e->text.end = aligned_origin(&e->other, end);
    buf_reset(&e->pieces);
    buf_add(&e->pieces, &all, sizeof(all));
    return encode_words(e);
}

/* text[begin, end), between tokens that stand in the text as it is. */
static int encode_between(struct encoding *e, const char *text, size_t begin, size_t end)
{
    const struct added_piece *pieces;

    aligned_reset(&e->other);
    aligned_add_same(&e->other, text + begin, end - begin, (uint32_t)begin);
    e->other.end = (uint32_t)end;
    if (aligned_check(&e->other, e->err) < 0 ||
        normalizer_apply(&e->hf->normalizer, &e->other, &e->text, e->regex, e->err) < 0)
        return -1;
    buf_reset(&e->normalized);
    if (added_split(&e->hf->added, true, &e->normalized, buf_str(&e->other.text),
                    e->other.text.n_bytes, e->regex, e->err) < 0)
        return -1;
    pieces = (const struct added_piece *)(const void *)e->normalized.data;
    for (size_t i = 0; i < e->normalized.n_bytes / sizeof(*pieces); i++) {
        if (pieces[i].token >= 0)
            put_span(e, added_get(&e->hf->added, (size_t)pieces[i].token)->id,
                     aligned_origin(&e->other, pieces[i].begin),
                     aligned_origin(&e->other, pieces[i].end));
        else if (encode_part(e, pieces[i].begin, pieces[i].end) < 0)
            return -1;
    }
    return 0;
}

static int encode_all(struct encoding *e, const char *text, size_t n_bytes)
{
    const struct added_piece *pieces;

    if (added_split(&e->hf->added, false, &e->plain, text, n_bytes, e->regex, e->err) < 0)
        return -1;
    pieces = (const struct added_piece *)(const void *)e->plain.data;
    for (size_t i = 0; i < e->plain.n_bytes / sizeof(*pieces); i++) {
        if (pieces[i].token >= 0)
            put_span(e, added_get(&e->hf->added, (size_t)pieces[i].token)->id,
                     (uint32_t)pieces[i].begin, (uint32_t)pieces[i].end);
        else if (encode_between(e, text, pieces[i].begin, pieces[i].end) < 0)
            return -1;
    }
    return buf_check(e->out, e->err);
}

int hf_encode(const struct hf_tokenizer *hf, struct buf *out, const char *text,
              size_t n_bytes, struct err *err)
{
    struct encoding e;
    int rc = -1;

    if (unicode_check(text, n_bytes, err) < 0)
        return -1;
    if (encoding_init(&e, hf, out, err) == 0)
        rc = encode_all(&e, text, n_bytes);
    encoding_fini(&e);
    return rc;
}

int hf_normalize_token(void *state, struct buf *out, const struct added_token *token,
                       struct err *err)
{
    const struct hf_tokenizer *hf = state;
    struct aligned text = ALIGNED_INIT, other = ALIGNED_INIT;
    struct regex_work *work = NULL;
    int rc = regex_work_create(&work, err);

    aligned_add_same(&text, token->content, token->n_bytes, 0);
    text.end = (uint32_t)token->n_bytes;
    if (rc == 0)
        rc = aligned_check(&text, err);
    if (rc == 0)
        rc = normalizer_apply(&hf->normalizer, &text, &other, work, err);
    buf_add(out, buf_str(&text.text), text.text.n_bytes);
    aligned_fini(&text);
    aligned_fini(&other);
    regex_work_destroy(work);
    return rc;
}

/* ---- decoding ---- */

int hf_decode(const struct hf_tokenizer *hf, struct buf *out, const int32_t *tokens,
              int64_t n_tokens, struct err *err)
{
    struct token_texts texts = TOKEN_TEXTS_INIT;
    int rc;

    for (int64_t i = 0; i < n_tokens; i++) {
        size_t n;
        const char *text = vocab_text(&hf->added_vocab, tokens[i], &n);

        if (!text)
            text = vocab_text(&hf->bpe.vocab, tokens[i], &n);
        if (text)
            token_texts_add(&texts, text, n);
    }
    rc = buf_check(&texts.bytes, err) < 0 ? -1 : buf_check(&texts.ends, err);
    if (rc == 0)
        rc = detokenizer_apply(&hf->detokenizer, out, &texts, err);
    token_texts_fini(&texts);
    return rc;
}
