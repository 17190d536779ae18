/* The ids, texts and offsets that tokenizers, sentencepiece and transformers gave for
 * thousands of texts: tests/golden/make_tokenizers.py wrote their checksums. */
#include "common/base/fs.h"
#include "common/base/json.h"
#include "dataprep/text/tokenizer.h"
#include "dataprep/text/unicode.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define FILE_MAX (4u << 20)
#define WRONG_SHOWN 5
#define N_POINTS 64
#define LAST_POINT 0x32000
#define SPANS_EVERY 10

static struct json *fragments;
static char folder[] = "/tmp/vneva-tokens-XXXXXX";

static void golden_path(char out[FS_PATH_MAX], const char *name)
{
    struct err err;

    assert_int_equal(
        fs_path(out, &err, "%s/tests/golden/tokenizer_%s", getenv("VNEVA_SOURCE"), name),
        0);
}

static void read_golden(struct buf *out, const char *name)
{
    char path[FS_PATH_MAX];
    struct err err;

    golden_path(path, name);
    if (fs_read_file(out, path, FILE_MAX, &err) < 0)
        fail_msg("%s", err.text);
}

/* ---- the texts, as make_tokenizers.py puts them together ---- */

static uint64_t draw(uint64_t *state, uint64_t n) /* splitmix64 */
{
    uint64_t z = *state += 0x9E3779B97F4A7C15u;

    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return (z ^ (z >> 31)) % n;
}

static void add_fragment(struct buf *out, uint64_t i)
{
    const struct json *fragment = json_at(fragments, (size_t)i);

    buf_add(out, json_string(fragment), json_string_bytes(fragment));
}

static void make_text(struct buf *out, uint64_t i)
{
    uint64_t n = json_count(fragments), state = i, n_parts;
    char bytes[UNICODE_BYTES_MAX];

    buf_reset(out);
    if (i < n) {
        add_fragment(out, i);
        return;
    }
    if (i % 3 == 0 && i / 3 < LAST_POINT / N_POINTS) {
        for (uint64_t c = i / 3 * N_POINTS; c < (i / 3 + 1) * N_POINTS; c++)
            if (c < 0xD800 || c >= 0xE000)
                buf_add(out, bytes, unicode_encode(bytes, (uint32_t)c));
        return;
    }
    n_parts = 1 + draw(&state, 12);
    for (uint64_t part = 0; part < n_parts; part++) {
        uint64_t fragment = draw(&state, n);
        uint64_t times = draw(&state, 16) == 0 ? 1 + draw(&state, 12) : 1;

        for (uint64_t t = 0; t < times; t++)
            add_fragment(out, fragment);
    }
}

/* ---- comparing ---- */

static uint32_t crc32(const void *bytes, size_t n_bytes) /* zlib's */
{
    uint32_t crc = 0xFFFFFFFFu;

    for (size_t i = 0; i < n_bytes; i++) {
        crc ^= ((const unsigned char *)bytes)[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (0xEDB88320u & -(crc & 1));
    }
    return ~crc;
}

/* Characters of text[0, n_bytes) that begin before byte `at`. */
static uint32_t characters(const char *text, uint32_t at)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < at; i++)
        n += ((unsigned char)text[i] & 0xC0) != 0x80;
    return n;
}

/* In whole characters, as offsets are there; of tokens that share one it is the last's. */
static uint32_t crc_spans(const struct buf *spans, const struct buf *text)
{
    const struct token_span *span = (const struct token_span *)(const void *)spans->data;
    size_t n = spans->n_bytes / sizeof(*span);
    uint32_t *flat = calloc(2 * n + 1, sizeof(*flat)), crc;

    assert_non_null(flat);
    for (size_t i = 0; i < n; i++) {
        uint32_t begin = span[i].begin;

        while (begin > 0 && begin < text->n_bytes &&
               ((unsigned char)text->data[begin] & 0xC0) == 0x80)
            begin--; /* inside of a character */
        flat[2 * i] = characters(text->data, begin);
        flat[2 * i + 1] = span[i].begin == span[i].end
                              ? flat[2 * i]
                              : characters(text->data, span[i].end);
    }
    for (size_t i = 0; i + 1 < n; i++) {
        if (flat[2 * i + 1] > flat[2 * i + 2])
            flat[2 * i + 1] = flat[2 * i + 2];
        if (flat[2 * i + 1] < flat[2 * i])
            flat[2 * i + 1] = flat[2 * i];
    }
    crc = crc32(flat, 2 * n * sizeof(*flat));
    free(flat);
    return crc;
}

struct compared {
    const struct tokenizer *tokenizer;
    const uint32_t *crcs; /* [n_texts, 2], then [n_spans] */
    uint64_t n_texts, n_spans;
    bool has_text;
    int n_wrong;
};

static void complain(struct compared *c, const char *what, uint64_t i,
                     const struct buf *text)
{
    struct buf shown = BUF_INIT;

    if (c->n_wrong++ < WRONG_SHOWN) {
        json_write_string(&shown, buf_str(text), text->n_bytes);
        print_error("%s of text %llu are others: %s\n", what, (unsigned long long)i,
                    buf_str(&shown));
    }
    buf_fini(&shown);
}

static void compare_text(struct compared *c, uint64_t i, const struct buf *text)
{
    struct buf spans = BUF_INIT, ids = BUF_INIT, again = BUF_INIT;
    const struct token_span *span;
    uint32_t of_spans;
    struct err err;

    if (tokenizer_encode_spans(c->tokenizer, &spans, buf_str(text), text->n_bytes, &err) <
        0)
        fail_msg("text %llu: %s", (unsigned long long)i, err.text);
    span = (const struct token_span *)(const void *)spans.data;
    for (size_t k = 0; k < spans.n_bytes / sizeof(*span); k++)
        buf_add(&ids, &span[k].id, sizeof(span[k].id));
    if (tokenizer_decode(c->tokenizer, &again, (const int32_t *)(void *)ids.data,
                         (int64_t)(ids.n_bytes / 4), &err) < 0)
        fail_msg("text %llu: %s", (unsigned long long)i, err.text);
    of_spans = i % SPANS_EVERY == 0 && i / SPANS_EVERY < c->n_spans
                   ? c->crcs[2 * c->n_texts + i / SPANS_EVERY]
                   : 0;
    if (crc32(ids.data, ids.n_bytes) != c->crcs[2 * i])
        complain(c, "ids", i, text);
    else if (c->has_text && crc32(again.data, again.n_bytes) != c->crcs[2 * i + 1])
        complain(c, "letters", i, text);
    else if (of_spans && crc_spans(&spans, text) != of_spans)
        complain(c, "spans", i, text);
    buf_fini(&spans);
    buf_fini(&ids);
    buf_fini(&again);
}

/* path: of the tokenizer; name: of the .crc file. n_texts of it are compared. */
static void compare(const char *path, const char *name, uint64_t n_texts, bool has_spans,
                    bool has_text)
{
    struct compared c = {.n_texts = n_texts, .has_text = has_text};
    struct buf crcs = BUF_INIT, text = BUF_INIT;
    struct tokenizer *tokenizer = NULL;
    char file[64];
    struct err err;

    snprintf(file, sizeof(file), "%s.crc", name);
    read_golden(&crcs, file);
    c.n_spans = has_spans ? (n_texts + SPANS_EVERY - 1) / SPANS_EVERY : 0;
    assert_int_equal(crcs.n_bytes, (2 * c.n_texts + c.n_spans) * sizeof(uint32_t));
    if (tokenizer_open(&tokenizer, path, NULL, 0, &err) < 0)
        fail_msg("%s", err.text);
    c.tokenizer = tokenizer;
    c.crcs = (const uint32_t *)(const void *)crcs.data;
    for (uint64_t i = 0; i < n_texts; i++) {
        make_text(&text, i);
        compare_text(&c, i, &text);
    }
    tokenizer_close(tokenizer);
    buf_fini(&crcs);
    buf_fini(&text);
    assert_int_equal(c.n_wrong, 0);
}

static void compare_json(const char *name, uint64_t n_texts, bool has_spans)
{
    char path[FS_PATH_MAX], file[64];

    snprintf(file, sizeof(file), "%s.json", name);
    golden_path(path, file);
    compare(path, name, n_texts, has_spans, true);
}

#define GOLDEN_TEST(name, n_texts, has_spans)                                            \
    static void name##_is_equal(void **state)                                            \
    {                                                                                    \
        (void)state;                                                                     \
        compare_json(#name, n_texts, has_spans);                                         \
    }

GOLDEN_TEST(llama3, 10000, true)
GOLDEN_TEST(qwen2, 10000, true)
GOLDEN_TEST(llama2, 10000, true)
GOLDEN_TEST(mistral, 2500, true)
GOLDEN_TEST(gpt2, 2500, true)
GOLDEN_TEST(odds, 2500, false)
GOLDEN_TEST(marks, 2500, false)

static void sentencepiece_is_equal(void **state)
{
    char path[FS_PATH_MAX];

    (void)state;
    golden_path(path, "sp.model");
    compare(path, "sp", 10000, false, true);
}

/* A folder as LLaVA-1.5 has it: no tokenizer.json. */
static void llama_tokenizer_is_equal(void **state)
{
    static const char added[] = "{\"<pad>\": 1000, \"<both>\": 1001}";
    struct buf model = BUF_INIT, config = BUF_INIT;
    char path[FS_PATH_MAX];

    (void)state;
    read_golden(&model, "sp.model");
    for (int is_legacy = 0; is_legacy < 2; is_legacy++) {
        buf_reset(&config);
        buf_printf(&config,
                   "{\"tokenizer_class\": \"LlamaTokenizer\", \"legacy\": %s, "
                   "\"bos_token\": \"<s>\", \"eos_token\": \"</s>\", \"unk_token\": "
                   "\"<unk>\", \"pad_token\": \"<pad>\"}",
                   is_legacy ? "true" : "false");
        snprintf(path, sizeof(path), "%s/tokenizer.model", folder);
        assert_int_equal(fs_write_file_atomic(path, model.data, model.n_bytes, NULL), 0);
        snprintf(path, sizeof(path), "%s/tokenizer_config.json", folder);
        assert_int_equal(fs_write_file_atomic(path, config.data, config.n_bytes, NULL),
                         0);
        snprintf(path, sizeof(path), "%s/added_tokens.json", folder);
        assert_int_equal(fs_write_file_atomic(path, added, strlen(added), NULL), 0);
        compare(folder, is_legacy ? "sp_legacy" : "sp_new", 2500, false, false);
    }
    buf_fini(&model);
    buf_fini(&config);
}

static int read_fragments(void **state)
{
    struct buf text = BUF_INIT;
    int rc;

    (void)state;
    read_golden(&text, "texts.json");
    rc = json_parse(&fragments, text.data, text.n_bytes, NULL);
    buf_fini(&text);
    return rc < 0 || !mkdtemp(folder) ? -1 : 0;
}

static int free_fragments(void **state)
{
    (void)state;
    json_free(fragments);
    return fs_remove_tree(folder, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(llama3_is_equal),
        cmocka_unit_test(qwen2_is_equal),
        cmocka_unit_test(llama2_is_equal),
        cmocka_unit_test(mistral_is_equal),
        cmocka_unit_test(gpt2_is_equal),
        cmocka_unit_test(odds_is_equal),
        cmocka_unit_test(marks_is_equal),
        cmocka_unit_test(sentencepiece_is_equal),
        cmocka_unit_test(llama_tokenizer_is_equal),
    };

    return cmocka_run_group_tests(tests, read_fragments, free_fragments);
}
