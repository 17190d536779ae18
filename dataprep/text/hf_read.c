#include "dataprep/text/hf_parts.h"

#include "dataprep/text/parts.h"

#include <string.h>

/* ---- added tokens ---- */

/* The number of a new token, as the library gives it: after the vocabulary's and after
 * those of tokens added before. */
static int64_t next_id(const struct hf_tokenizer *hf)
{
    int64_t n_model = (int64_t)vocab_count(&hf->bpe.vocab);

    return hf->added_vocab.n_ids > n_model ? hf->added_vocab.n_ids : n_model;
}

/* id: what the file says, -1: nothing. */
static int add_token(struct hf_tokenizer *hf, const struct added_token *token,
                     struct err *err)
{
    struct added_token one = *token;
    int32_t id = hf_find(hf, token->content, token->n_bytes);
    size_t n_bytes;

    if (!token->n_bytes)
        return 0;
    one.id = id >= 0 ? id : (int32_t)next_id(hf);
    if (token->id >= 0 && token->id != one.id)
        return err_set(err, ERR_FORMAT,
                       "added token '%s' has the number %d, which the vocabulary makes "
                       "%d: it does not fit this tokenizer",
                       token->content, token->id, one.id);
    if (id < 0 && vocab_text(&hf->bpe.vocab, one.id, &n_bytes))
        return err_set(err, ERR_FORMAT,
                       "added token '%s' would have the number %d, which another has",
                       token->content, one.id);
    if (!added_find(&hf->added, token->content, token->n_bytes) &&
        vocab_add(&hf->added_vocab, token->content, token->n_bytes, one.id, err) < 0)
        return -1;
    return added_put(&hf->added, &one, err);
}

static int read_added(struct hf_tokenizer *hf, const struct json *list, struct err *err)
{
    for (size_t i = 0; i < json_count(list); i++) {
        const struct json *entry = json_at(list, i);
        struct added_token token = {.is_normalized = true};
        int64_t id = json_get_int(entry, "id", -1);

        token.content = (char *)json_get_string(entry, "content");
        token.n_bytes = json_string_bytes(json_get(entry, "content"));
        if (!token.content || id < 0 || id > VOCAB_ID_MAX)
            return err_set(err, ERR_FORMAT,
                           "added token %zu has no \"content\" or no \"id\" of 0 to %d",
                           i + 1, VOCAB_ID_MAX);
        token_flags_read(&token, entry);
        token.id = (int32_t)id;
        if (added_find(&hf->added, token.content, token.n_bytes))
            return err_set(err, ERR_FORMAT, "added token '%s' stands twice",
                           token.content);
        if (add_token(hf, &token, err) < 0)
            return -1;
    }
    return 0;
}

/* One that the files beside tokenizer.json name. */
static int add_beside(void *state, const struct added_token *token, bool has_flags,
                      struct err *err)
{
    struct hf_tokenizer *hf = state;

    if (!has_flags && added_find(&hf->added, token->content, token->n_bytes))
        return 0;
    return add_token(hf, token, err);
}

static int add_extras(struct hf_tokenizer *hf, const char *const *extra_tokens, int n,
                      struct err *err)
{
    for (int i = 0; i < n; i++) {
        struct added_token token = {.id = -1, .is_special = true};

        if (!*extra_tokens[i])
            return err_set(err, ERR_INVALID, "an extra token is empty");
        token.content = (char *)extra_tokens[i];
        token.n_bytes = strlen(extra_tokens[i]);
        if (!added_find(&hf->added, token.content, token.n_bytes) &&
            add_token(hf, &token, err) < 0)
            return -1;
    }
    return 0;
}

/* ---- begin and end ---- */

struct ends {
    const char *bos, *eos; /* NULL: none */
};

/* "single" of a TemplateProcessing: special tokens before and after the text. */
static void read_template(struct ends *ends, const struct json *part)
{
    const struct json *pieces = json_get(part, "single");
    bool is_after = false;

    for (size_t i = 0; i < json_count(pieces); i++) {
        const struct json *token = json_get(json_at(pieces, i), "SpecialToken");

        if (!token)
            is_after = true;
        else if (is_after && !ends->eos)
            ends->eos = json_get_string(token, "id");
        else if (!is_after && !ends->bos)
            ends->bos = json_get_string(token, "id");
    }
}

static int read_processor(void *state, const char *type, const struct json *part,
                          struct err *err)
{
    if (strcmp(type, "TemplateProcessing") == 0)
        read_template(state, part);
    else if (strcmp(type, "ByteLevel") != 0) /* which only moves offsets */
        return parts_refuse("TemplateProcessing, ByteLevel, Sequence", err);
    return 0;
}

static int32_t find_end(const struct hf_tokenizer *hf, const struct token_folder *folder,
                        const char *key, const char *processor)
{
    const char *text;

    if (token_folder_special(folder, key, &text) < 0)
        text = processor;
    return text ? hf_find(hf, text, strlen(text)) : -1;
}

static int read_ends(struct hf_tokenizer *hf, const struct token_folder *folder,
                     const struct json *tree, struct err *err)
{
    struct ends ends = {NULL, NULL};

    if (parts_each(json_get(tree, "post_processor"), "post-processor", "processors",
                   &ends, read_processor, err) < 0)
        return -1;
    hf->bos = find_end(hf, folder, "bos_token", ends.bos);
    hf->eos = find_end(hf, folder, "eos_token", ends.eos);
    return 0;
}

/* ---- all ---- */

static int read_tree(struct hf_tokenizer *hf, const struct token_folder *folder,
                     const struct json *tree, struct err *err)
{
    if (json_type(json_get(tree, "model")) != JSON_OBJECT)
        return err_set(err, ERR_FORMAT, "it has no \"model\": it is no tokenizer.json");
    if (normalizer_read(&hf->normalizer, json_get(tree, "normalizer"), err) < 0 ||
        pretokenizer_read(&hf->pretokenizer, json_get(tree, "pre_tokenizer"), err) < 0 ||
        detokenizer_read(&hf->detokenizer, json_get(tree, "decoder"), err) < 0 ||
        bpe_read(&hf->bpe, json_get(tree, "model"), hf->pretokenizer.is_bytes, err) < 0 ||
        read_added(hf, json_get(tree, "added_tokens"), err) < 0 ||
        token_folder_each(folder, hf, add_beside, err) < 0)
        return -1;
    return read_ends(hf, folder, tree, err);
}

int hf_read(struct hf_tokenizer *out, const struct token_folder *folder,
            const char *const *extra_tokens, int n_extra_tokens, struct err *err)
{
    struct buf text = BUF_INIT;
    struct json *tree = NULL;
    int rc = fs_read_file(&text, folder->file, TOKEN_FILE_MAX_BYTES, err);

    if (rc == 0)
        rc = json_parse(&tree, buf_str(&text), text.n_bytes, err);
    buf_fini(&text);
    if (rc == 0)
        rc = read_tree(out, folder, tree, err);
    json_free(tree);
    if (rc < 0 || add_extras(out, extra_tokens, n_extra_tokens, err) < 0 ||
        vocab_index(&out->added_vocab, err) < 0)
        return -1;
    return added_index(&out->added, ADDED_LONGEST, hf_normalize_token, out, err);
}
