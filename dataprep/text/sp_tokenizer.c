#include "dataprep/text/sp_tokenizer.h"

#include "dataprep/text/sentencepiece_c.h"
#include "dataprep/text/tokenizer.h"
#include "dataprep/text/unicode.h"
#include "dataprep/text/vocab.h"

#include <stdlib.h>
#include <string.h>

#define SPACE "\xe2\x96\x81" /* U+2581, SentencePiece's space */
#define N_SPACE 3

struct sp_tokenizer {
    struct sp_model *model;
    int64_t n_model;
    struct added added;
    struct vocab added_vocab; /* the same tokens, by text and number */
    int32_t bos, eos;
    bool has_one_prefix; /* "legacy": false */
};

/* ---- opening ---- */

static int open_model(struct sp_tokenizer *sp, const struct token_folder *folder,
                      struct err *err)
{
    struct buf bytes = BUF_INIT;
    int rc = fs_read_file(&bytes, folder->file, TOKEN_FILE_MAX_BYTES, err);

    if (rc == 0)
        rc =
            sp_open(&sp->model, buf_str(&bytes), bytes.n_bytes, !sp->has_one_prefix, err);
    buf_fini(&bytes);
    return rc;
}

/* The settings of the folder that LlamaTokenizer has. */
static int read_config(struct sp_tokenizer *sp, const struct token_folder *folder,
                       struct err *err)
{
    const char *class = json_get_string(folder->config, "tokenizer_class");

    if (class && strncmp(class, "LlamaTokenizer", strlen("LlamaTokenizer")) != 0)
        return err_set(err, ERR_UNSUPPORTED,
                       "the \"tokenizer_class\" %s of a folder without tokenizer.json is "
                       "not supported: only LlamaTokenizer is; name the .model file "
                       "itself, or save the folder with a tokenizer.json",
                       class);
    sp->has_one_prefix =
        !folder->is_alone && !json_bool(json_get(folder->config, "legacy"), true);
    if (sp->has_one_prefix &&
        !json_bool(json_get(folder->config, "add_prefix_space"), true))
        return err_set(err, ERR_UNSUPPORTED,
                       "\"add_prefix_space\": false is not supported without a "
                       "tokenizer.json");
    return 0;
}

static int add_token(struct sp_tokenizer *sp, const struct added_token *token,
                     struct err *err)
{
    struct added_token one = *token;
    int32_t id = sp_find(sp->model, token->content);

    if (!token->n_bytes || added_find(&sp->added, token->content, token->n_bytes))
        return 0;
    if (one.id < 0)
        one.id = id >= 0 ? id : (int32_t)sp_tokenizer_vocab(sp);
    if (id >= 0 ? one.id != id : one.id < sp->n_model)
        return err_set(err, ERR_FORMAT,
                       "added token '%s' has the number %d, which does not fit the model",
                       token->content, one.id);
    one.is_normalized = false; /* nothing is: all are found in the text as it is */
    if (vocab_add(&sp->added_vocab, token->content, token->n_bytes, one.id, err) < 0)
        return -1;
    return added_put(&sp->added, &one, err);
}

static int add_beside(void *state, const struct added_token *token, bool has_flags,
                      struct err *err)
{
    (void)has_flags;
    return add_token(state, token, err);
}

/* NeMo's: those that the model has are not looked for in the text. */
static int add_extras(struct sp_tokenizer *sp, const char *const *extra_tokens, int n,
                      struct err *err)
{
    for (int i = 0; i < n; i++) {
        struct added_token token = {.id = -1, .is_special = true};

        if (!*extra_tokens[i])
            return err_set(err, ERR_INVALID, "an extra token is empty");
        token.content = (char *)extra_tokens[i];
        token.n_bytes = strlen(extra_tokens[i]);
        if (sp_tokenizer_find(sp, extra_tokens[i]) < 0 && add_token(sp, &token, err) < 0)
            return -1;
    }
    return 0;
}

static int32_t find_end(const struct sp_tokenizer *sp, const struct token_folder *folder,
                        const char *key, int32_t of_model)
{
    const char *text;
    int says = token_folder_special(folder, key, &text);

    if (says < 0)
        return of_model;
    return says ? sp_tokenizer_find(sp, text) : -1;
}

static int read_all(struct sp_tokenizer *sp, const struct token_folder *folder,
                    const char *const *extra_tokens, int n_extra_tokens, struct err *err)
{
    if (read_config(sp, folder, err) < 0 || open_model(sp, folder, err) < 0)
        return -1;
    sp->n_model = sp_vocab(sp->model);
    if (token_folder_each(folder, sp, add_beside, err) < 0 ||
        add_extras(sp, extra_tokens, n_extra_tokens, err) < 0 ||
        vocab_index(&sp->added_vocab, err) < 0)
        return -1;
    sp->bos = find_end(sp, folder, "bos_token", sp_bos(sp->model));
    sp->eos = find_end(sp, folder, "eos_token", sp_eos(sp->model));
    return added_index(&sp->added, folder->is_alone ? ADDED_FIRST : ADDED_LONGEST, NULL,
                       NULL, err);
}

int sp_tokenizer_open(struct sp_tokenizer **out, const struct token_folder *folder,
                      const char *const *extra_tokens, int n_extra_tokens,
                      struct err *err)
{
    struct sp_tokenizer *sp = calloc(1, sizeof(*sp));

    if (!sp)
        return err_set(err, ERR_NOMEM, "cannot allocate a tokenizer");
    if (read_all(sp, folder, extra_tokens, n_extra_tokens, err) < 0) {
        sp_tokenizer_close(sp);
        return err_wrap(err, "cannot read tokenizer '%s' as a SentencePiece model",
                        folder->file);
    }
    *out = sp;
    return 0;
}

void sp_tokenizer_close(struct sp_tokenizer *sp)
{
    if (!sp)
        return;
    added_fini(&sp->added);
    vocab_fini(&sp->added_vocab);
    sp_close(sp->model);
    free(sp);
}

int64_t sp_tokenizer_vocab(const struct sp_tokenizer *sp)
{
    return sp->added_vocab.n_ids > sp->n_model ? sp->added_vocab.n_ids : sp->n_model;
}

int32_t sp_tokenizer_bos(const struct sp_tokenizer *sp)
{
    return sp->bos;
}

int32_t sp_tokenizer_eos(const struct sp_tokenizer *sp)
{
    return sp->eos;
}

int32_t sp_tokenizer_find(const struct sp_tokenizer *sp, const char *piece)
{
    int32_t id = vocab_find(&sp->added_vocab, piece, strlen(piece));

    return id >= 0 ? id : sp_find(sp->model, piece);
}

/* ---- encoding ---- */

static void put_span(struct buf *out, int32_t id, size_t begin, size_t end)
{
    struct token_span span = {id, (uint32_t)begin, (uint32_t)end};

    buf_add(out, &span, sizeof(span));
}

/* The beginning of a text, after a space that it does not have. */
static int encode_prefixed(const struct sp_tokenizer *sp, struct buf *out,
                           const char *text, size_t n_bytes, struct err *err)
{
    struct buf prefixed = BUF_INIT;
    size_t before = out->n_bytes;
    struct token_span *span;
    int rc;

    buf_add_str(&prefixed, SPACE);
    buf_add(&prefixed, text, n_bytes);
    rc = buf_check(&prefixed, err);
    if (rc == 0)
        rc = sp_encode(sp->model, out, prefixed.data, prefixed.n_bytes, 0, err);
    buf_fini(&prefixed);
    span = (struct token_span *)(void *)out->data;
    for (size_t i = before / sizeof(*span); rc == 0 && i < out->n_bytes / sizeof(*span);
         i++) {
        span[i].begin = span[i].begin < N_SPACE ? 0 : span[i].begin - N_SPACE;
        span[i].end = span[i].end < N_SPACE ? 0 : span[i].end - N_SPACE;
    }
    return rc;
}

/* Piece i of the text. */
static int encode_piece(const struct sp_tokenizer *sp, struct buf *out, const char *text,
                        const struct added_piece *pieces, size_t i, struct err *err)
{
    const struct added_piece *piece = &pieces[i];
    const struct added_token *token;

    if (piece->token < 0 && i == 0 && sp->has_one_prefix)
        return encode_prefixed(sp, out, text, piece->end, err);
    if (piece->token < 0)
        return sp_encode(sp->model, out, text + piece->begin, piece->end - piece->begin,
                         (uint32_t)piece->begin, err);
    token = added_get(&sp->added, (size_t)piece->token);
    /* the space stands before tokens that are not special, too */
    if (i == 0 && sp->has_one_prefix && !token->is_special &&
        encode_prefixed(sp, out, text, 0, err) < 0)
        return -1;
    put_span(out, token->id, piece->begin, piece->end);
    return 0;
}

int sp_tokenizer_encode(const struct sp_tokenizer *sp, struct buf *out, const char *text,
                        size_t n_bytes, struct err *err)
{
    struct buf pieces = BUF_INIT;
    const struct added_piece *piece;
    struct regex_work *work = NULL;
    int rc = unicode_check(text, n_bytes, err);

    if (rc == 0)
        rc = regex_work_create(&work, err);
    if (rc == 0)
        rc = added_split(&sp->added, false, &pieces, text, n_bytes, work, err);
    piece = (const struct added_piece *)(const void *)pieces.data;
    for (size_t i = 0; rc == 0 && i < pieces.n_bytes / sizeof(*piece); i++)
        rc = encode_piece(sp, out, text, piece, i, err);
    buf_fini(&pieces);
    regex_work_destroy(work);
    return rc < 0 ? -1 : buf_check(out, err);
}

int sp_tokenizer_decode(const struct sp_tokenizer *sp, struct buf *out,
                        const int32_t *tokens, int64_t n_tokens, struct err *err)
{
    int64_t first = 0;

    for (int64_t i = 0; i <= n_tokens; i++) {
        const char *text;
        size_t n;

        if (i < n_tokens && tokens[i] < sp->n_model)
            continue;
        if (i > first && sp_decode(sp->model, out, tokens + first, i - first, err) < 0)
            return -1;
        text = i < n_tokens ? vocab_text(&sp->added_vocab, tokens[i], &n) : NULL;
        if (text)
            buf_add(out, text, n);
        first = i + 1;
    }
    return buf_check(out, err);
}
