/* Tokenizer: text comes back as it was, extra tokens follow NeMo, training repeats. */
#include "common/base/fs.h"
#include "dataprep/text/tokenizer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static char folder[] = "/tmp/vneva-text-XXXXXX";

static const char *const texts[] = {
    "The red circle moves to the left.", "The blue square moves to the right.",
    "Which way does the circle move? USER: ASSISTANT: left\nright\nup\ndown"};

static void open_golden(struct tokenizer **out, const char *const *extras, int n)
{
    char path[FS_PATH_MAX];
    struct err err;

    assert_int_equal(
        fs_path(path, &err, "%s/tests/golden/tiny_llama.model", getenv("VNEVA_SOURCE")),
        0);
    if (tokenizer_open(out, path, extras, n, &err) < 0)
        fail_msg("%s", err.text);
}

static void open_trained(struct tokenizer **out, const char *name)
{
    char path[FS_PATH_MAX];
    struct err err;

    assert_int_equal(fs_path(path, &err, "%s/%s", folder, name), 0);
    if (tokenizer_train(path, texts, 3, 320, &err) < 0 ||
        tokenizer_open(out, path, NULL, 0, &err) < 0)
        fail_msg("%s", err.text);
}

static void assert_comes_back(const struct tokenizer *tokenizer, const char *text)
{
    struct buf tokens = BUF_INIT, again = BUF_INIT;
    struct err err;

    assert_int_equal(tokenizer_encode(tokenizer, &tokens, text, strlen(text), &err), 0);
    if (tokenizer_decode(tokenizer, &again, (const int32_t *)tokens.data,
                         (int64_t)(tokens.n_bytes / 4), &err) < 0)
        fail_msg("%s", err.text);
    assert_string_equal(buf_str(&again), text);
    buf_fini(&tokens);
    buf_fini(&again);
}

static void text_comes_back_from_its_tokens(void **state)
{
    static const char *const samples[] = {"left",
                                          "two  spaces   and more",
                                          "line\nbreaks\n\nand\ttabs",
                                          "caf\xc3\xa9",
                                          "\xe4\xb8\xa4\xe5\x8f\xaa\xe7\x8c\xab",
                                          "\xf0\x9f\x98\x80 ok",
                                          "12345.678",
                                          "\x01"};
    struct tokenizer *golden = NULL, *trained = NULL;

    (void)state;
    open_golden(&golden, NULL, 0);
    open_trained(&trained, "round.model");
    for (size_t i = 0; i < sizeof(samples) / sizeof(*samples); i++) {
        assert_comes_back(golden, samples[i]);
        assert_comes_back(trained, samples[i]);
    }
    tokenizer_close(golden);
    tokenizer_close(trained);
}

static void extra_tokens_follow_the_model_and_split_the_text(void **state)
{
    static const char *const extras[] = {"<a>", "<extra_id_4>", "<b>", "<a>"};
    static const char text[] = "x<b>x<a>";
    struct tokenizer *with = NULL, *without = NULL;
    struct buf tokens = BUF_INIT, x = BUF_INIT;
    const int32_t *ids;
    struct err err;

    (void)state;
    open_golden(&with, extras, 4);
    open_golden(&without, NULL, 0);
    assert_int_equal(tokenizer_vocab(without), 4096);
    assert_int_equal(tokenizer_vocab(with), 4098);
    assert_int_equal(tokenizer_id(with, "<extra_id_4>"), 7); /* the model has it */
    assert_int_equal(tokenizer_id(with, "<a>"), 4096);
    assert_int_equal(tokenizer_id(with, "<b>"), 4097);
    assert_int_equal(tokenizer_id(without, "<b>"), -1);
    assert_int_equal(tokenizer_encode(without, &x, "x", 1, &err), 0);
    assert_int_equal(tokenizer_encode(with, &tokens, text, strlen(text), &err), 0);
    /* the text between them is encoded by itself, its own leading space included */
    assert_int_equal(tokens.n_bytes, 2 * x.n_bytes + 8);
    ids = (const int32_t *)tokens.data;
    assert_memory_equal(ids, x.data, x.n_bytes);
    assert_int_equal(ids[x.n_bytes / 4], 4097);
    assert_memory_equal(ids + x.n_bytes / 4 + 1, x.data, x.n_bytes);
    assert_int_equal(ids[2 * (x.n_bytes / 4) + 1], 4096);
    assert_comes_back(with, "x<b><a>");
    buf_fini(&tokens);
    buf_fini(&x);
    tokenizer_close(with);
    tokenizer_close(without);
}

static void spans_cover_the_text_once_and_in_order(void **state)
{
    static const char text[] = "caf\xc3\xa9 \xe4\xb8\xa4!<extra_id_4>\n z";
    struct tokenizer *tokenizer = NULL;
    struct buf spans = BUF_INIT;
    const struct token_span *span;
    uint32_t at = 0;
    struct err err;

    (void)state;
    open_golden(&tokenizer, NULL, 0);
    assert_int_equal(tokenizer_encode_spans(tokenizer, &spans, text, strlen(text), &err),
                     0);
    span = (const struct token_span *)spans.data;
    for (size_t i = 0; i < spans.n_bytes / sizeof(*span); i++) {
        assert_int_equal(span[i].begin, at);
        at = span[i].end;
    }
    assert_int_equal(at, strlen(text));
    buf_fini(&spans);
    tokenizer_close(tokenizer);
}

static void training_twice_gives_the_same_bytes(void **state)
{
    struct tokenizer *tokenizer = NULL;
    struct buf a = BUF_INIT, b = BUF_INIT;
    char path[FS_PATH_MAX];
    struct err err;

    (void)state;
    open_trained(&tokenizer, "a.model");
    assert_true(tokenizer_vocab(tokenizer) <= 320);
    assert_true(tokenizer_vocab(tokenizer) >= TOKENIZER_VOCAB_MIN);
    assert_true(tokenizer_id(tokenizer, "<extra_id_5>") >= 0);
    assert_true(tokenizer_eos(tokenizer) >= 0);
    tokenizer_close(tokenizer);
    open_trained(&tokenizer, "b.model");
    tokenizer_close(tokenizer);
    snprintf(path, sizeof(path), "%s/a.model", folder);
    assert_int_equal(fs_read_file(&a, path, 1 << 20, &err), 0);
    snprintf(path, sizeof(path), "%s/b.model", folder);
    assert_int_equal(fs_read_file(&b, path, 1 << 20, &err), 0);
    assert_int_equal(a.n_bytes, b.n_bytes);
    assert_memory_equal(a.data, b.data, a.n_bytes);
    buf_fini(&a);
    buf_fini(&b);
}

static void what_is_no_tokenizer_is_refused_by_name(void **state)
{
    struct tokenizer *tokenizer = NULL;
    char path[FS_PATH_MAX];
    struct err err;
    int32_t outside = 4096;
    struct buf out = BUF_INIT;

    (void)state;
    snprintf(path, sizeof(path), "%s/missing.model", folder);
    assert_int_equal(tokenizer_open(&tokenizer, path, NULL, 0, &err), -1);
    assert_int_equal(err.code, ERR_NOT_FOUND);
    assert_non_null(strstr(err.text, "missing.model"));
    snprintf(path, sizeof(path), "%s/damaged.model", folder);
    assert_int_equal(fs_write_file_atomic(path, "\x0a\xff\xff", 3, &err), 0);
    assert_int_equal(tokenizer_open(&tokenizer, path, NULL, 0, &err), -1);
    assert_non_null(strstr(err.text, "damaged.model"));
    assert_int_equal(tokenizer_train(path, texts, 3, 100, &err), -1);
    assert_int_equal(tokenizer_train(path, texts, 0, 400, &err), -1);
    open_golden(&tokenizer, NULL, 0);
    assert_int_equal(tokenizer_decode(tokenizer, &out, &outside, 1, &err), 0);
    assert_int_equal(out.n_bytes, 0); /* of a padded vocabulary */
    outside = -1;
    assert_int_equal(tokenizer_decode(tokenizer, &out, &outside, 1, &err), -1);
    buf_fini(&out);
    tokenizer_close(tokenizer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_comes_back_from_its_tokens),
        cmocka_unit_test(extra_tokens_follow_the_model_and_split_the_text),
        cmocka_unit_test(spans_cover_the_text_once_and_in_order),
        cmocka_unit_test(training_twice_gives_the_same_bytes),
        cmocka_unit_test(what_is_no_tokenizer_is_refused_by_name),
    };
    int failed;

    if (!mkdtemp(folder))
        return 1;
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    fs_remove_tree(folder, NULL);
    return failed;
}
