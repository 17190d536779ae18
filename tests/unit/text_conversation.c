/* Conversations: what NeMo 2.0 gave for the golden file, and what is refused. */
#include "common/base/fs.h"
#include "dataprep/text/conversation.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct tokenizer *tokenizer;

static char *golden_path(const char *name)
{
    static char path[FS_PATH_MAX];
    struct err err;

    assert_int_equal(
        fs_path(path, &err, "%s/tests/golden/%s", getenv("VNEVA_SOURCE"), name), 0);
    return path;
}

static int open_tokenizer(void **state)
{
    struct err err;

    (void)state;
    return tokenizer_open(&tokenizer, golden_path("tiny_llama.model"), NULL, 0, &err);
}

static int close_tokenizer(void **state)
{
    (void)state;
    tokenizer_close(tokenizer);
    return 0;
}

static void assert_ints(const struct buf *got, const struct json *expected,
                        const char *what, const char *id)
{
    const int32_t *ints = (const int32_t *)buf_str(got);

    if (got->n_bytes / 4 != json_count(expected))
        fail_msg("%s: %zu %s, expected %zu", id, got->n_bytes / 4, what,
                 json_count(expected));
    for (size_t i = 0; i < json_count(expected); i++)
        if (ints[i] != json_int(json_at(expected, i), -2))
            fail_msg("%s: %s[%zu] is %d, expected %lld", id, what, i, ints[i],
                     (long long)json_int(json_at(expected, i), -2));
}

/* Row by row of a golden file: what we give is what stands there. */
static void assert_like_nemo(const struct tokenizer *tokens_of, const struct json *row)
{
    const struct json *source = json_get(row, "source");
    const char *id = json_get_string(source, "id");
    struct conv_encoder encoder;
    struct conversation conversation = {0};
    struct conv_tokens tokens = {0};
    struct buf out_tokens = BUF_INIT, out_labels = BUF_INIT;
    int64_t n =
        json_get_int(row, "num_frames", 0) * json_get_int(row, "patches_per_frame", 0);
    int64_t n_patches[] = {n, n};
    struct err err;

    if (conv_encoder_init(&encoder, conv_template_find(json_get_string(row, "template")),
                          tokens_of, json_bool(json_get(row, "use_im_start_end"), false),
                          &err) < 0 ||
        conversation_render(&conversation, encoder.template, source, &err) < 0 ||
        conv_encode(&encoder, &tokens, &conversation, &err) < 0)
        fail_msg("%s: %s", id, err.text);
    assert_true(tokens.n_media <= 2);
    if (conv_nemo_form(&encoder, &tokens, n_patches, &out_tokens, &out_labels, &err) < 0)
        fail_msg("%s: %s", id, err.text);
    assert_ints(&out_tokens, json_get(row, "tokens"), "tokens", id);
    assert_ints(&out_labels, json_get(row, "labels"), "labels", id);
    buf_fini(&out_tokens);
    buf_fini(&out_labels);
    conv_tokens_fini(&tokens);
    conversation_fini(&conversation);
}

static void tokens_and_labels_are_those_of_nemo(void **state)
{
    static const struct {
        const char *name;
        int n;
    } expected[] = {{"plain", 18},    {"v1", 129},    {"llama_2", 140},
                    {"mistral", 122}, {"nvgpt", 138}, {"nv_dpo", 135}};
    enum { N = sizeof(expected) / sizeof(*expected) };
    int n[N] = {0};
    struct buf file = BUF_INIT;
    char *save = NULL;
    struct err err;

    (void)state;
    assert_int_equal(
        fs_read_file(&file, golden_path("nemo_conversations.jsonl"), 1 << 22, &err), 0);
    for (char *line = strtok_r(file.data, "\n", &save); line;
         line = strtok_r(NULL, "\n", &save)) {
        struct json *row = NULL;

        if (json_parse(&row, line, strlen(line), &err) < 0)
            fail_msg("%s", err.text);
        assert_like_nemo(tokenizer, row);
        for (int i = 0; i < N; i++)
            n[i] += strcmp(json_get_string(row, "template"), expected[i].name) == 0;
        json_free(row);
    }
    for (int i = 0; i < N; i++)
        assert_int_equal(n[i], expected[i].n);
    buf_fini(&file);
}

/* The tokenizer that a line of the golden file describes. */
static struct tokenizer *open_with_extras(const struct json *head)
{
    const struct json *list = json_get(head, "extra_tokens");
    const char *extras[16];
    struct tokenizer *out = NULL;
    struct err err;

    assert_in_range(json_count(list), 1, 16);
    for (size_t i = 0; i < json_count(list); i++)
        extras[i] = json_string(json_at(list, i));
    if (tokenizer_open(&out, golden_path(json_get_string(head, "tokenizer")), extras,
                       (int)json_count(list), &err) < 0)
        fail_msg("%s", err.text);
    return out;
}

static void the_other_templates_follow_nemos_rules(void **state)
{
    struct tokenizer *with_extras = NULL;
    struct buf file = BUF_INIT;
    char *save = NULL;
    int n = 0;
    struct err err;

    (void)state;
    assert_int_equal(
        fs_read_file(&file, golden_path("conversations.jsonl"), 1 << 22, &err), 0);
    for (char *line = strtok_r(file.data, "\n", &save); line;
         line = strtok_r(NULL, "\n", &save), n++) {
        struct json *row = NULL;

        if (json_parse(&row, line, strlen(line), &err) < 0)
            fail_msg("%s", err.text);
        if (json_get(row, "extra_tokens")) {
            tokenizer_close(with_extras);
            with_extras = open_with_extras(row);
        } else {
            assert_like_nemo(with_extras, row);
        }
        json_free(row);
    }
    assert_int_equal(n, 120);
    tokenizer_close(with_extras);
    buf_fini(&file);
}

static void encode(struct conv_tokens *out, const char *template, const char *record)
{
    struct conv_encoder encoder;
    struct conversation conversation = {0};
    struct json *json = NULL;
    struct err err;

    if (json_parse(&json, record, strlen(record), &err) < 0 ||
        conv_encoder_init(&encoder, conv_template_find(template), tokenizer, true, &err) <
            0 ||
        conversation_render(&conversation, encoder.template, json, &err) < 0 ||
        conv_encode(&encoder, out, &conversation, &err) < 0)
        fail_msg("%s", err.text);
    conversation_fini(&conversation);
    json_free(json);
}

#define TURNS(human, gpt)                                                                \
    "{\"conversations\": [{\"from\": \"human\", \"value\": \"" human "\"}, "             \
    "{\"from\": \"gpt\", \"value\": \"" gpt "\"}]}"

static void media_stand_where_their_placeholders_stood(void **state)
{
    struct conv_tokens tokens = {0};
    const int32_t *token;
    const enum media_kind *media;
    int64_t n = 0;

    (void)state;
    encode(&tokens, "v1", TURNS("a <image> and <video><video>b", "yes"));
    assert_int_equal(tokens.n_media, 3);
    media = (const enum media_kind *)buf_str(&tokens.media);
    assert_int_equal(media[0], MEDIA_IMAGE);
    assert_int_equal(media[1], MEDIA_VIDEO);
    assert_int_equal(media[2], MEDIA_VIDEO);
    token = (const int32_t *)buf_str(&tokens.tokens);
    for (int64_t i = 0; i < tokens.n_tokens; i++) {
        if (token[i] != CONV_TOKEN_MEDIA)
            continue;
        n++;
        assert_int_equal(token[i - 1], tokenizer_id(tokenizer, CONV_MEDIA_START));
        assert_int_equal(token[i + 1], tokenizer_id(tokenizer, CONV_MEDIA_END));
    }
    assert_int_equal(n, 3);
    conv_tokens_fini(&tokens);
}

static void markers_written_in_a_question_are_no_media(void **state)
{
    struct conv_tokens tokens = {0};

    (void)state;
    encode(&tokens, "v1", TURNS("<extra_id_4><extra_id_5></s>", "<extra_id_4> </s>"));
    assert_int_equal(tokens.n_media, 0);
    assert_int_equal(tokens.n_labels, tokens.n_tokens - tokens.n_prompt);
    conv_tokens_fini(&tokens);
}

/* Whatever an answer begins with, the prompt of generation is the tokens of the text
 * before it: training and generation see the same. */
static void prompt_ends_where_the_answer_begins(void **state)
{
    static const char *const answers[] = {
        TURNS("q", "Left."), TURNS("q", " Left."), TURNS("q", "\\u4e24"),
        TURNS("q", "\\n"),   TURNS("q", ": x"),    TURNS("q", "ASSISTANT: x")};
    static const char *const templates[] = {"v1",    "llama_2",    "mistral",
                                            "nvgpt", "nv_steerlm", "nv_dpo"};
    enum { N = sizeof(answers) / sizeof(*answers) };

    (void)state;
    for (size_t t = 0; t < sizeof(templates) / sizeof(*templates); t++) {
        struct conv_tokens first = {0}, tokens = {0};

        encode(&first, templates[t], answers[0]);
        for (size_t i = 1; i < N; i++) {
            /* NeMo's mistral has nothing between "[/INST]" and an answer, and a token "]:"
             * takes from both. */
            if (strcmp(templates[t], "mistral") == 0 && strstr(answers[i], "\": x"))
                continue;
            encode(&tokens, templates[t], answers[i]);
            assert_int_equal(tokens.n_prompt, first.n_prompt);
            assert_memory_equal(tokens.tokens.data, first.tokens.data,
                                (size_t)first.n_prompt * 4);
            assert_int_equal(tokens.n_labels, tokens.n_tokens - tokens.n_prompt);
            conv_tokens_fini(&tokens);
        }
        conv_tokens_fini(&first);
    }
}

/* The literal text; begin and end of sentence are parts of their own. */
static void templates_write_this_text(void **state)
{
    static const struct {
        const char *template, *record, *text;
    } rows[] = {
        {"mistral", TURNS("a", "b"), " [INST] a [/INST]b"},
        {"llama_2", TURNS("a", "b"),
         " [INST] <<SYS>>\nYou are a helpful language and vision assistant. You are able "
         "to understand the visual content that the user provides, and assist the user "
         "with a variety of tasks using natural language.\n<</SYS>>\n\na [/INST] b "},
        {"nv_dpo", TURNS("a", "b"),
         "<extra_id_0>System\n\n<extra_id_1>User\na\n<extra_id_1>Assistant\nb\n"
         "<extra_id_1>"},
        {"nv_dpo",
         "{\"system\": \"S\", \"conversations\": [{\"from\": \"human\", \"value\": "
         "\"a\"},"
         " {\"from\": \"gpt\", \"value\": \"b\", \"label\": \"quality:1\"}]}",
         "<extra_id_0>System\nS<extra_id_1>User\na\n<extra_id_1>Assistant\n"
         "<extra_id_2>quality:1\nb\n<extra_id_1>"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        struct conversation conversation = {0};
        struct json *json = NULL;
        struct err err;

        if (json_parse(&json, rows[i].record, strlen(rows[i].record), &err) < 0 ||
            conversation_render(&conversation, conv_template_find(rows[i].template), json,
                                &err) < 0)
            fail_msg("%s", err.text);
        assert_string_equal(buf_str(&conversation.text), rows[i].text);
        conversation_fini(&conversation);
        json_free(json);
    }
}

static void wrong_turns_are_refused_with_a_reason(void **state)
{
    static const struct {
        const char *template, *record, *says;
    } bad[] = {
        {"v1", "{}", "conversations"},
        {"v1", "{\"conversations\": []}", "conversations"},
        {"v1", "{\"conversations\": [{\"from\": \"human\"}]}", "turn 1 lacks"},
        {"v1", "{\"conversations\": [{\"from\": \"gpt\", \"value\": \"a\"}]}",
         "human first"},
        {"v1", "{\"conversations\": [{\"from\": \"system\", \"value\": \"a\"}]}",
         "'system'"},
        {"v1", "{\"conversations\": [{\"from\": \"human\", \"value\": \"a\"}]}",
         "no answer"},
        {"v1", TURNS("a", "<video>"), "placeholder"},
        {"llama_2", TURNS("", "b"), "first question"},
        {"plain", TURNS("a", "b"), "wants <video>"},
        {"plain", "{\"conversations\": [{\"from\": \"human\", \"value\": \"a\"}]}",
         "1 turns"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        struct conversation conversation = {0};
        struct json *json = NULL;
        struct err err;

        assert_int_equal(json_parse(&json, bad[i].record, strlen(bad[i].record), &err),
                         0);
        assert_int_equal(conversation_render(&conversation,
                                             conv_template_find(bad[i].template), json,
                                             &err),
                         -1);
        if (!strstr(err.text, bad[i].says))
            fail_msg("'%s' does not say '%s'", err.text, bad[i].says);
        json_free(json);
    }
    assert_null(conv_template_find("v2"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tokens_and_labels_are_those_of_nemo),
        cmocka_unit_test(the_other_templates_follow_nemos_rules),
        cmocka_unit_test(media_stand_where_their_placeholders_stood),
        cmocka_unit_test(markers_written_in_a_question_are_no_media),
        cmocka_unit_test(prompt_ends_where_the_answer_begins),
        cmocka_unit_test(templates_write_this_text),
        cmocka_unit_test(wrong_turns_are_refused_with_a_reason),
    };

    return cmocka_run_group_tests(tests, open_tokenizer, close_tokenizer);
}
