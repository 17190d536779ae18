#include "dataprep/text/bpe.h"

#include "dataprep/text/byte_letters.h"
#include "dataprep/text/unicode.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void bpe_fini(struct bpe *bpe)
{
    vocab_fini(&bpe->vocab);
    vocab_fini(&bpe->words);
    free(bpe->merges);
    bpe->merges = NULL;
}

static int read_vocab(struct bpe *out, const struct json *json, struct err *err)
{
    size_t n = json_count(json);

    if (json_type(json) != JSON_OBJECT || !n)
        return err_set(err, ERR_FORMAT, "it has no \"vocab\", an object");
    for (size_t i = 0; i < n; i++) {
        const char *text = json_key_at(json, i);

        if (json_type(json_at(json, i)) != JSON_INT)
            return err_set(err, ERR_FORMAT, "token '%.80s' has no number", text);
        if (vocab_add(&out->vocab, text, strlen(text), json_int(json_at(json, i), -1),
                      err) < 0)
            return -1;
    }
    return vocab_index(&out->vocab, err);
}

/* ---- merges ---- */

struct half { /* of a pair */
    const char *text;
    size_t n_bytes;
};

/* "left right", or ["left", "right"] */
static int read_pair(struct half pair[2], const struct json *json)
{
    const char *text = json_string(json), *space;

    if (json_type(json) == JSON_ARRAY && json_count(json) == 2) {
        for (int i = 0; i < 2; i++) {
            pair[i].text = json_string(json_at(json, (size_t)i));
            pair[i].n_bytes = json_string_bytes(json_at(json, (size_t)i));
        }
        return pair[0].text && pair[1].text ? 0 : -1;
    }
    space = text ? strchr(text, ' ') : NULL;
    if (!space || strchr(space + 1, ' '))
        return -1;
    pair[0] = (struct half){text, (size_t)(space - text)};
    pair[1] = (struct half){space + 1, strlen(space + 1)};
    return 0;
}

static int add_merge(struct bpe *out, const struct half pair[2], size_t rank,
                     struct buf *joined, struct err *err)
{
    struct bpe_merge merge = {.rank = (int32_t)rank};
    int32_t ids[2];
    size_t mask = out->n_merges - 1, at;

    for (int i = 0; i < 2; i++) {
        ids[i] = vocab_find(&out->vocab, pair[i].text, pair[i].n_bytes);
        if (ids[i] < 0)
            return err_set(err, ERR_FORMAT, "'%.*s' is no token of \"vocab\"",
                           (int)pair[i].n_bytes, pair[i].text);
    }
    buf_reset(joined);
    buf_add(joined, pair[0].text, pair[0].n_bytes);
    buf_add(joined, pair[1].text, pair[1].n_bytes);
    if (buf_check(joined, err) < 0)
        return -1;
    merge.id = vocab_find(&out->vocab, buf_str(joined), joined->n_bytes);
    if (merge.id < 0)
        return err_set(err, ERR_FORMAT,
                       "'%s', its two together, is no token of \"vocab\"",
                       buf_str(joined));
    merge.pair = (uint64_t)(uint32_t)ids[0] << 32 | (uint32_t)ids[1];
    at = (size_t)((merge.pair * 0x9E3779B97F4A7C15u) >> 32) & mask;
    while (out->merges[at].rank >= 0 && out->merges[at].pair != merge.pair)
        at = (at + 1) & mask;
    out->merges[at] = merge; /* of two alike the later counts */
    return 0;
}

static int read_merges(struct bpe *out, const struct json *json, struct err *err)
{
    struct buf joined = BUF_INIT;
    size_t n = json_count(json);
    int rc = 0;

    if (json_type(json) != JSON_ARRAY || n > BPE_MERGES_MAX)
        return err_set(err, ERR_FORMAT, "it has no \"merges\", a list of at most %d",
                       BPE_MERGES_MAX);
    for (out->n_merges = 16; out->n_merges < 2 * n; out->n_merges *= 2)
        ;
    out->merges = malloc(out->n_merges * sizeof(*out->merges));
    if (!out->merges)
        return err_set(err, ERR_NOMEM, "cannot allocate %zu merges", n);
    for (size_t i = 0; i < out->n_merges; i++)
        out->merges[i].rank = -1;
    for (size_t i = 0; i < n && rc == 0; i++) {
        struct half pair[2];

        rc = read_pair(pair, json_at(json, i));
        if (rc < 0)
            err_set(err, ERR_FORMAT, "it is no pair of tokens");
        else
            rc = add_merge(out, pair, i, &joined, err);
        if (rc < 0)
            err_wrap(err, "merge %zu", i + 1);
    }
    buf_fini(&joined);
    return rc;
}

/* ---- settings ---- */

/* A setting that has to be absent, null or this text. */
static int refuse_unless(const struct json *json, const char *key, const char *fine,
                         struct err *err)
{
    const struct json *value = json_get(json, key);

    if (!value || json_type(value) == JSON_NULL)
        return 0;
    if (json_string(value) && strcmp(json_string(value), fine) == 0)
        return 0;
    return err_set(err, ERR_UNSUPPORTED, "its \"%s\" is not supported: only null is",
                   key);
}

static int read_settings(struct bpe *out, const struct json *json, struct err *err)
{
    const struct json *dropout = json_get(json, "dropout");
    const char *unknown = json_get_string(json, "unk_token");

    if (json_type(dropout) != JSON_NULL && json_double(dropout, 1) != 0)
        return err_set(err, ERR_UNSUPPORTED,
                       "its \"dropout\" is not supported: only null is");
    if (refuse_unless(json, "continuing_subword_prefix", "", err) < 0 ||
        refuse_unless(json, "end_of_word_suffix", "", err) < 0)
        return -1;
    out->byte_fallback = json_bool(json_get(json, "byte_fallback"), false);
    out->fuse_unknown = json_bool(json_get(json, "fuse_unk"), false);
    out->ignore_merges = json_bool(json_get(json, "ignore_merges"), false);
    out->unknown = -1;
    if (!unknown)
        return 0;
    out->unknown = vocab_find(&out->vocab, unknown, strlen(unknown));
    return out->unknown < 0
               ? err_set(err, ERR_FORMAT,
                         "its \"unk_token\" '%s' is no token of \"vocab\"", unknown)
               : 0;
}

static void find_bytes(struct bpe *out)
{
    for (int i = 0; i < 256; i++) {
        char name[8];
        int n = snprintf(name, sizeof(name), "<0x%02X>", (unsigned)i);

        if (out->is_bytes)
            n = (int)unicode_encode(name, byte_letter((unsigned char)i));
        out->bytes[i] = vocab_find(&out->vocab, name, (size_t)n);
    }
}

/* The tokens as bytes, to find whole words among them. */
static int find_words(struct bpe *out, struct err *err)
{
    struct buf bytes = BUF_INIT;
    int rc = 0;

    for (int32_t id = 0; id < out->vocab.n_ids && rc == 0; id++) {
        size_t n;
        const char *text = vocab_text(&out->vocab, id, &n);

        buf_reset(&bytes);
        if (text && byte_letters_decode(&bytes, text, n))
            rc = vocab_add(&out->words, buf_str(&bytes), bytes.n_bytes, id, err);
    }
    buf_fini(&bytes);
    return rc;
}

int bpe_read(struct bpe *out, const struct json *json, bool is_bytes, struct err *err)
{
    const char *type = json_get_string(json, "type");

    *out = (struct bpe){.vocab = VOCAB_INIT, .words = VOCAB_INIT, .is_bytes = is_bytes};
    /* files of before 2021 do not name it */
    if (type ? strcmp(type, "BPE") != 0 : !json_get(json, "merges"))
        return err_set(err, ERR_UNSUPPORTED, "model %s is not supported: only BPE is",
                       type ? type : "without a type");
    if (read_vocab(out, json_get(json, "vocab"), err) < 0 ||
        read_settings(out, json, err) < 0 ||
        read_merges(out, json_get(json, "merges"), err) < 0)
        return err_wrap(err, "model");
    find_bytes(out);
    return is_bytes && out->ignore_merges ? find_words(out, err) : 0;
}
