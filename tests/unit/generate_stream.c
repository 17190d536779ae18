/* What a person sees of an answer while it comes. */
#include "worker/generate/stream.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static size_t settled(const char *text)
{
    return stream_settled(text, strlen(text));
}

static void what_a_later_token_may_change_waits(void **state)
{
    (void)state;
    assert_int_equal(settled(""), 0);
    assert_int_equal(settled("cat"), 3);
    assert_int_equal(settled("a cat \n"), 5);
    assert_int_equal(settled("\xC3\xA9"), 2);                  /* e acute, whole */
    assert_int_equal(settled("x\xC3"), 1);                     /* its first byte */
    assert_int_equal(settled("x\xE2\x82"), 1);                 /* two of three */
    assert_int_equal(settled("x\xF0\x9F\x90"), 1);             /* three of four */
    assert_int_equal(settled("x\xF0\x9F\x90\x88"), 5);         /* a cat */
    assert_int_equal(settled("x\xEF\xBF\xBD\xEF\xBF\xBD"), 1); /* bytes decoded apart */
    assert_int_equal(settled("\xEF\xBF\xBDx"), 4); /* is not going to change */
}

/* Streams `text`, token by token; *steps: what had been printed after each. */
static char *stream(const char *text, size_t *n_steps, size_t *steps)
{
    char path[1024], *printed = NULL;
    struct tokenizer *tokenizer = NULL;
    struct buf ids = BUF_INIT;
    size_t n_printed = 0;
    struct err err = {0};
    struct stream s = {.tokens = BUF_INIT};

    snprintf(path, sizeof(path), "%s/tests/golden/tiny_llama.model",
             getenv("VNEVA_SOURCE"));
    assert_int_equal(tokenizer_open(&tokenizer, path, NULL, 0, &err), 0);
    assert_int_equal(tokenizer_encode(tokenizer, &ids, text, strlen(text), &err), 0);
    s.tokenizer = tokenizer;
    s.file = open_memstream(&printed, &n_printed);
    assert_non_null(s.file);
    for (size_t i = 0; i < ids.n_bytes / sizeof(int32_t); i++) {
        assert_int_equal(stream_add(&s, ((const int32_t *)(void *)ids.data)[i], &err), 0);
        assert_int_equal(fflush(s.file), 0);
        steps[(*n_steps)++] = n_printed;
    }
    assert_int_equal(stream_end(&s, &err), 0);
    stream_fini(&s);
    buf_fini(&ids);
    tokenizer_close(tokenizer);
    assert_int_equal(fclose(s.file), 0);
    return printed;
}

static void an_answer_grows_by_whole_characters(void **state)
{
    static const char text[] = "A \xF0\x9F\x90\x88 and \xE7\x8C\xAB here";
    size_t n_steps = 0, steps[64];
    char *printed = stream(text, &n_steps, steps);

    (void)state;
    assert_string_equal(printed, "A \xF0\x9F\x90\x88 and \xE7\x8C\xAB here\n");
    assert_true(steps[0] == 1);          /* as soon as it is there */
    for (size_t i = 0; i < n_steps; i++) /* a cut stands before a character, not in one */
        assert_true(((unsigned char)printed[steps[i]] & 0xC0) != 0x80);
    free(printed);
}

static void spaces_around_an_answer_are_left_out(void **state)
{
    size_t n_steps = 0, steps[64];
    char *printed = stream("  yes  it is  ", &n_steps, steps);

    (void)state;
    assert_string_equal(printed, "yes  it is\n");
    free(printed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_a_later_token_may_change_waits),
        cmocka_unit_test(an_answer_grows_by_whole_characters),
        cmocka_unit_test(spaces_around_an_answer_are_left_out),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
