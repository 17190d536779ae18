#include "dataprep/text/tokenizer.h"

#include "common/base/fs.h"
#include "common/base/hash.h"
#include "dataprep/text/hf_tokenizer.h"
#include "dataprep/text/sp_tokenizer.h"

#include <stdlib.h>
#include <string.h>

/* Spans hold byte offsets of 32 bits; a conversation is far below. */
#define TEXT_MAX_BYTES (64u << 20)

struct tokenizer { /* one of the two */
    struct hf_tokenizer *hf;
    struct sp_tokenizer *sp;
};

int tokenizer_open(struct tokenizer **out, const char *path,
                   const char *const *extra_tokens, int n_extra_tokens, struct err *err)
{
    struct tokenizer *tokenizer;
    struct token_folder folder;
    int rc;

    if (token_folder_open(&folder, path, err) < 0)
        return -1;
    tokenizer = calloc(1, sizeof(*tokenizer));
    if (!tokenizer)
        rc = err_set(err, ERR_NOMEM, "cannot allocate a tokenizer");
    else
        rc = folder.is_json
                 ? hf_open(&tokenizer->hf, &folder, extra_tokens, n_extra_tokens, err)
                 : sp_tokenizer_open(&tokenizer->sp, &folder, extra_tokens,
                                     n_extra_tokens, err);
    token_folder_fini(&folder);
    if (rc < 0) {
        tokenizer_close(tokenizer);
        return -1;
    }
    *out = tokenizer;
    return 0;
}

void tokenizer_close(struct tokenizer *tokenizer)
{
    if (!tokenizer)
        return;
    hf_close(tokenizer->hf);
    sp_tokenizer_close(tokenizer->sp);
    free(tokenizer);
}

int64_t tokenizer_vocab(const struct tokenizer *tokenizer)
{
    return tokenizer->hf ? hf_vocab(tokenizer->hf) : sp_tokenizer_vocab(tokenizer->sp);
}

int32_t tokenizer_bos(const struct tokenizer *tokenizer)
{
    return tokenizer->hf ? hf_bos(tokenizer->hf) : sp_tokenizer_bos(tokenizer->sp);
}

int32_t tokenizer_eos(const struct tokenizer *tokenizer)
{
    return tokenizer->hf ? hf_eos(tokenizer->hf) : sp_tokenizer_eos(tokenizer->sp);
}

int32_t tokenizer_id(const struct tokenizer *tokenizer, const char *piece)
{
    return tokenizer->hf ? hf_find(tokenizer->hf, piece, strlen(piece))
                         : sp_tokenizer_find(tokenizer->sp, piece);
}

int tokenizer_encode_spans(const struct tokenizer *tokenizer, struct buf *out,
                           const char *text, size_t n_bytes, struct err *err)
{
    if (n_bytes > TEXT_MAX_BYTES)
        return err_set(err, ERR_LIMIT, "text of %zu bytes, at most %u are encoded",
                       n_bytes, TEXT_MAX_BYTES);
    return tokenizer->hf ? hf_encode(tokenizer->hf, out, text, n_bytes, err)
                         : sp_tokenizer_encode(tokenizer->sp, out, text, n_bytes, err);
}

int tokenizer_encode(const struct tokenizer *tokenizer, struct buf *out, const char *text,
                     size_t n_bytes, struct err *err)
{
    struct buf spans = BUF_INIT;
    int rc = tokenizer_encode_spans(tokenizer, &spans, text, n_bytes, err);
    const struct token_span *span = (const struct token_span *)(const void *)spans.data;

    for (size_t i = 0; rc == 0 && i < spans.n_bytes / sizeof(*span); i++)
        buf_add(out, &span[i].id, sizeof(span[i].id));
    buf_fini(&spans);
    return rc < 0 ? -1 : buf_check(out, err);
}

int tokenizer_decode(const struct tokenizer *tokenizer, struct buf *out,
                     const int32_t *tokens, int64_t n_tokens, struct err *err)
{
    for (int64_t i = 0; i < n_tokens; i++)
        if (tokens[i] < 0)
            return err_set(err, ERR_INVALID, "token %d is outside of the vocabulary",
                           tokens[i]);
    return tokenizer->hf ? hf_decode(tokenizer->hf, out, tokens, n_tokens, err)
                         : sp_tokenizer_decode(tokenizer->sp, out, tokens, n_tokens, err);
}

/* ---- files ---- */

int tokenizer_each_file(const char *path, void *state, tokenizer_file_fn *use,
                        struct err *err)
{
    struct token_folder folder;
    int rc = 0;

    if (token_folder_open(&folder, path, err) < 0)
        return -1;
    for (int i = 0; i < folder.n_paths && rc == 0; i++) {
        struct buf bytes = BUF_INIT;
        const char *slash = strrchr(folder.paths[i], '/');
        const char *name = slash ? slash + 1 : folder.paths[i];

        if (i == 0)
            name = folder.is_json ? "tokenizer.json" : "tokenizer.model";
        rc = fs_read_file(&bytes, folder.paths[i], TOKEN_FILE_MAX_BYTES, err);
        if (rc == 0)
            rc = use(state, name, &bytes, err);
        buf_fini(&bytes);
    }
    token_folder_fini(&folder);
    return rc;
}

static int hash_file(void *state, const char *name, const struct buf *bytes,
                     struct err *err)
{
    uint64_t *hash = state;

    (void)name;
    (void)err;
    *hash = hash64(buf_str(bytes), bytes->n_bytes, *hash);
    return 0;
}

int tokenizer_hash(uint64_t *out, const char *path, struct err *err)
{
    *out = 0;
    return tokenizer_each_file(path, out, hash_file, err);
}
