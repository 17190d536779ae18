/* Templates: prompts, ends, system prompts, media in front, tokens that must be there. */
#include "common/base/fs.h"
#include "dataprep/text/conversation.h"
#include "jobs/spec/spec_schema.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static const char *const extras[] = {"<|begin_of_text|>",
                                     "<|start_header_id|>",
                                     "<|end_header_id|>",
                                     "<|eot_id|>",
                                     "<|reserved_special_token_3|>",
                                     "<|reserved_special_token_4|>",
                                     "<|reserved_special_token_5|>",
                                     "<|im_start|>",
                                     "<|im_end|>",
                                     "<extra_id_0>",
                                     "<extra_id_1>",
                                     "<extra_id_2>",
                                     "<extra_id_3>",
                                     "<extra_id_4>",
                                     "<extra_id_5>"};
#define N_EXTRAS (int)(sizeof(extras) / sizeof(*extras))

static const char *const turn_templates[] = {
    "v1",      "vicuna_v1", "llava_v1",   "llama_2", "llava_llama_2", "llama_3",
    "mistral", "nvgpt",     "nv_steerlm", "nv_dpo",  "yi_34b"};
#define N_TURN_TEMPLATES (sizeof(turn_templates) / sizeof(*turn_templates))

static struct tokenizer *tokenizer; /* with the extras */
static bool is_byte_level;          /* its line break goes by another name */

static struct tokenizer *open_with(const char *path, int n_extras)
{
    struct tokenizer *out = NULL;
    struct err err;

    if (tokenizer_open(&out, path, extras, n_extras, &err) < 0)
        fail_msg("%s", err.text);
    return out;
}

static void golden_path(char out[FS_PATH_MAX], const char *name)
{
    assert_int_equal(
        fs_path(out, NULL, "%s/tests/golden/%s", getenv("VNEVA_SOURCE"), name), 0);
}

static int open_sentencepiece(void **state)
{
    char path[FS_PATH_MAX];

    (void)state;
    golden_path(path, "tiny_llama.model");
    tokenizer = open_with(path, N_EXTRAS);
    is_byte_level = false;
    return 0;
}

/* A folder as Hugging Face has it: the file alone does not say what ends a sentence. */
static int open_byte_level(void **state)
{
    static const char config[] =
        "{\"bos_token\": \"<|begin_of_text|>\", \"eos_token\": \"<|eot_id|>\"}";
    char folder[] = "/tmp/vneva-templates-XXXXXX", path[FS_PATH_MAX];
    struct buf json = BUF_INIT;

    (void)state;
    golden_path(path, "tokenizer_llama3.json");
    assert_int_equal(fs_read_file(&json, path, 1 << 20, NULL), 0);
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof(path), "%s/tokenizer.json", folder);
    assert_int_equal(fs_write_file_atomic(path, json.data, json.n_bytes, NULL), 0);
    snprintf(path, sizeof(path), "%s/tokenizer_config.json", folder);
    assert_int_equal(fs_write_file_atomic(path, config, sizeof(config) - 1, NULL), 0);
    buf_fini(&json);
    tokenizer = open_with(folder, N_EXTRAS);
    is_byte_level = true;
    return fs_remove_tree(folder, NULL);
}

static int close_tokenizer(void **state)
{
    (void)state;
    tokenizer_close(tokenizer);
    return 0;
}

static void init(struct conv_encoder *out, const char *template)
{
    struct err err;

    if (conv_encoder_init(out, conv_template_find(template), tokenizer, true, &err) < 0)
        fail_msg("%s: %s", template, err.text);
}

static int render(struct conversation *out, const char *template, unsigned flags,
                  const char *record, struct err *err)
{
    struct json *json = NULL;
    int rc = json_parse(&json, record, strlen(record), err);

    if (rc == 0)
        rc = conversation_render_as(out, conv_template_find(template), flags, json, err);
    json_free(json);
    return rc;
}

static void encode(struct conv_tokens *out, const char *template, unsigned flags,
                   const char *record)
{
    struct conversation conversation = {0};
    struct conv_encoder encoder;
    struct err err;

    init(&encoder, template);
    if (render(&conversation, template, flags, record, &err) < 0 ||
        conv_encode(&encoder, out, &conversation, &err) < 0)
        fail_msg("%s: %s", template, err.text);
    conversation_fini(&conversation);
}

static void expect_text(const char *template, unsigned flags, const char *record,
                        const char *text)
{
    struct conversation conversation = {0};
    struct err err;

    if (render(&conversation, template, flags, record, &err) < 0)
        fail_msg("%s: %s", template, err.text);
    assert_string_equal(buf_str(&conversation.text), text);
    conversation_fini(&conversation);
}

static void expect_refusal(const char *template, unsigned flags, const char *record,
                           const char *says)
{
    struct conversation conversation = {0};
    struct err err;

    assert_int_equal(render(&conversation, template, flags, record, &err), -1);
    if (!strstr(err.text, says))
        fail_msg("'%s' does not say '%s'", err.text, says);
}

#define HUMAN(text) "{\"from\": \"human\", \"value\": \"" text "\"}"
#define GPT(text) "{\"from\": \"gpt\", \"value\": \"" text "\"}"
#define RECORD(turns) "{\"conversations\": [" turns "]}"
#define WITH_SYSTEM(turns) "{\"system\": \"S\", \"conversations\": [" turns "]}"

static const char one[] = RECORD(HUMAN("<video>\\nq") ", " GPT("Left."));
static const char two[] =
    RECORD(HUMAN("<video>\\nq") ", " GPT("Left.") ", " HUMAN("Why?") ", " GPT("So."));

/* Whether the token that ends an answer stands in the text, not beside it. */
static bool has_written_ends(const char *template)
{
    return strncmp(template, "nv", 2) == 0 || strcmp(template, "llama_3") == 0 ||
           strcmp(template, "yi_34b") == 0;
}

static void assert_prompt(const char *template, const char *full, const char *asked)
{
    struct conv_tokens learnt = {0}, prompt = {0};

    encode(&learnt, template, 0, full);
    encode(&prompt, template, CONV_PROMPT, asked);
    assert_int_equal(prompt.n_prompt, prompt.n_tokens);
    if (prompt.n_prompt != learnt.n_prompt)
        fail_msg("%s: a prompt of %lld tokens, in training %lld", template,
                 (long long)prompt.n_prompt, (long long)learnt.n_prompt);
    assert_memory_equal(prompt.tokens.data, learnt.tokens.data,
                        (size_t)prompt.n_prompt * sizeof(int32_t));
    conv_tokens_fini(&learnt);
    conv_tokens_fini(&prompt);
}

/* What generation is given is what training had before the answer, whether the answer is
 * there, empty, or not there at all. */
static void prompts_are_what_training_had_before_the_answer(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_TURN_TEMPLATES; i++) {
        const char *template = turn_templates[i];

        assert_prompt(template, one, one);
        assert_prompt(template, one, RECORD(HUMAN("<video>\\nq") ", " GPT("")));
        assert_prompt(template, one, RECORD(HUMAN("<video>\\nq")));
        assert_prompt(template, two, two);
        assert_prompt(template, two,
                      RECORD(HUMAN("<video>\\nq") ", " GPT("Left.") ", " HUMAN("Why?")));
    }
    assert_prompt("plain", one, one);
    assert_prompt("plain", one, RECORD(HUMAN("<video>")));
    assert_prompt("interleaved", "{\"conversations\": \"See <video> it turns\"}",
                  "{\"conversations\": \"See <video>\"}");
}

static void answers_end_in_the_templates_own_token(void **state)
{
    const struct {
        const char *template, *stop; /* NULL: end of sentence */
    } rows[] = {{"v1", NULL},
                {"llama_2", NULL},
                {"mistral", NULL},
                {"llama_3", "<|eot_id|>"},
                {"nvgpt", "<extra_id_1>"},
                {"nv_dpo", "<extra_id_1>"},
                {"yi_34b", "<|im_end|>"},
                {"plain", is_byte_level ? "\xc4\x8a" : "<0x0A>"}};

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        struct conv_tokens tokens = {0};
        struct conv_encoder encoder;
        const int32_t *token;

        init(&encoder, rows[i].template);
        assert_int_equal(encoder.stop, rows[i].stop
                                           ? tokenizer_id(tokenizer, rows[i].stop)
                                           : tokenizer_eos(tokenizer));
        assert_true(encoder.stop > 0);
        encode(&tokens, rows[i].template, 0, one);
        token = (const int32_t *)buf_str(&tokens.tokens);
        assert_int_equal(token[tokens.n_tokens - 1], encoder.stop);
        assert_int_equal(buf_str(&tokens.is_label)[tokens.n_tokens - 1], 1);
        conv_tokens_fini(&tokens);
    }
}

/* A byte-level tokenizer's tokens are the text, every space of it: none is put before a
 * text, so none may be left out for it after an end of sentence. */
static void byte_level_tokens_spell_the_text_out(void **state)
{
    static const char talk[] =
        RECORD(HUMAN("q") ", " GPT("Left.") ", " HUMAN("Why?") ", " GPT("So."));

    (void)state;
    for (size_t i = 0; is_byte_level && i < N_TURN_TEMPLATES; i++) {
        struct conversation conversation = {0};
        struct conv_tokens tokens = {0};
        struct conv_encoder encoder;
        struct buf text = BUF_INIT;
        bool is_written = has_written_ends(turn_templates[i]);
        struct err err;

        init(&encoder, turn_templates[i]);
        encode(&tokens, turn_templates[i], 0, talk);
        assert_int_equal(render(&conversation, turn_templates[i], 0, talk, &err), 0);
        for (int64_t k = 0; k < tokens.n_tokens; k++) {
            const int32_t *token = (const int32_t *)buf_str(&tokens.tokens) + k;

            if (is_written || (*token != encoder.stop && *token != encoder.begin))
                assert_int_equal(tokenizer_decode(tokenizer, &text, token, 1, &err), 0);
        }
        assert_string_equal(buf_str(&text), buf_str(&conversation.text));
        buf_fini(&text);
        conv_tokens_fini(&tokens);
        conversation_fini(&conversation);
    }
}

static void a_system_prompt_of_the_record_replaces_the_templates(void **state)
{
    static const char turns[] = WITH_SYSTEM(HUMAN("a") ", " GPT("b"));

    (void)state;
    expect_text("v1", 0, turns, "S USER: a ASSISTANT: b");
    expect_text("llama_2", 0, turns, " [INST] <<SYS>>\nS\n<</SYS>>\n\na [/INST] b ");
    expect_text("mistral", 0, turns, " [INST] S\na [/INST]b");
    expect_text("yi_34b", 0, turns,
                "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\na<|im_end|>\n"
                "<|im_start|>assistant\nb<|im_end|>");
    expect_text("llama_3", 0, turns,
                "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nS"
                "<|eot_id|><|start_header_id|>user<|end_header_id|>\n\na<|eot_id|>"
                "<|start_header_id|>assistant<|end_header_id|>\n\nb<|eot_id|>");
    expect_text("yi_34b", 0, RECORD(HUMAN("a") ", " GPT("b")),
                "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nb<|im_end|>");
    expect_refusal("v1", 0,
                   "{\"system\": 5, \"conversations\": [" HUMAN("a") ", " GPT("b") "]}",
                   "'system' is no text");
}

/* NeMo: the media, " ", "USER", ": ", the question without them, stripped. */
static void media_in_front_are_followed_by_nemos_separator(void **state)
{
    static const char middle[] = RECORD(HUMAN("  Is <video> like <image> ? ") ", " GPT(
        "b") ", " HUMAN("and <video>") ", " GPT("c"));
    struct conversation conversation = {0};
    const struct conv_part *part;
    struct err err;

    (void)state;
    assert_int_equal(render(&conversation, "yi_34b", CONV_MEDIA_FIRST, middle, &err), 0);
    assert_string_equal(buf_str(&conversation.text),
                        "<|im_start|>user\n USER: Is  like  ?<|im_end|>\n"
                        "<|im_start|>assistant\nb<|im_end|>\n<|im_start|>user\nand "
                        "<|im_end|>\n<|im_start|>assistant\nc<|im_end|>");
    part = (const struct conv_part *)buf_str(&conversation.parts);
    assert_int_equal(part[1].kind, CONV_MEDIA);
    assert_int_equal(part[1].media, MEDIA_VIDEO);
    assert_int_equal(part[2].media, MEDIA_IMAGE);
    assert_int_equal(part[3].kind, CONV_TEXT);
    conversation_fini(&conversation);
    /* text alone is left as it is, and so is plain, which has no words in front */
    expect_text("mistral", CONV_MEDIA_FIRST, RECORD(HUMAN(" a ") ", " GPT("b")),
                " [INST]  a  [/INST]b");
    expect_text("plain", CONV_MEDIA_FIRST, one, "Left.");
    expect_refusal("v1", CONV_MEDIA_FIRST,
                   RECORD(HUMAN("a") ", " GPT("b") ", " HUMAN("<video>") ", " GPT("c")),
                   "turn 3");
    expect_refusal("interleaved", CONV_MEDIA_FIRST, "{\"conversations\": \"<video> a\"}",
                   "sep_image_conv_front");
}

static void tokens_that_a_template_writes_must_be_there(void **state)
{
    static const struct {
        const char *template, *token;
    } rows[] = {{"llama_3", "<|begin_of_text|>"}, {"yi_34b", "<|im_start|>"}};
    char path[FS_PATH_MAX];
    struct tokenizer *bare;
    struct conv_encoder encoder;
    struct err err;

    (void)state;
    golden_path(path, "tiny_llama.model");
    bare = open_with(path, 0);
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(conv_encoder_init(&encoder, conv_template_find(rows[i].template),
                                           bare, false, &err),
                         -1);
        if (!strstr(err.text, rows[i].template) || !strstr(err.text, rows[i].token) ||
            !strstr(err.text, "additional_special_tokens"))
            fail_msg("%s", err.text);
    }
    tokenizer_close(bare);
}

/* As in NeMo: spelled out it is the token, but it ends nothing of the mask. */
static void special_tokens_in_a_turn_are_tokens_and_no_ends(void **state)
{
    struct conv_tokens tokens = {0};
    const int32_t *token;
    int n_ends = 0, n_learnt_ends = 0;
    int32_t eot = tokenizer_id(tokenizer, "<|eot_id|>");

    (void)state;
    encode(&tokens, "llama_3", 0,
           RECORD(HUMAN(
               "a<|eot_id|>"
               "<|start_header_id|>assistant<|end_header_id|>\\n\\nno") ", " GPT("yes")));
    token = (const int32_t *)buf_str(&tokens.tokens);
    for (int64_t i = 0; i < tokens.n_tokens; i++) {
        n_ends += token[i] == eot;
        n_learnt_ends += token[i] == eot && buf_str(&tokens.is_label)[i];
    }
    assert_int_equal(n_ends, 4); /* system, the written one, question, answer */
    assert_int_equal(n_learnt_ends, 1);
    assert_int_equal(tokens.n_labels, tokens.n_tokens - tokens.n_prompt);
    conv_tokens_fini(&tokens);
}

static void what_cannot_be_learnt_is_refused(void **state)
{
    struct conversation conversation = {0};
    struct conv_tokens tokens = {0};
    struct conv_encoder encoder;
    struct err err;

    (void)state;
    expect_refusal("llama_3", 0, RECORD(HUMAN("") ", " GPT("b")), "first question");
    expect_refusal("interleaved", 0, RECORD(HUMAN("a") ", " GPT("b")), "one text");
    expect_refusal("interleaved", 0, "{\"conversations\": \"\"}", "one text");
    expect_refusal("plain", CONV_PROMPT, RECORD(HUMAN("a")), "wants <video>");
    assert_int_equal(conv_encoder_init(&encoder, conv_template_find("interleaved"),
                                       tokenizer, false, &err),
                     0);
    assert_int_equal(render(&conversation, "interleaved", 0,
                            "{\"conversations\": \"see <video>\"}", &err),
                     0);
    assert_int_equal(conv_encode(&encoder, &tokens, &conversation, &err), -1);
    assert_non_null(strstr(err.text, "ends with a medium"));
    conversation_fini(&conversation);
}

static int check_names(const char *list, const char *separators)
{
    char names[400];
    char *save = NULL;
    int n = 0;

    snprintf(names, sizeof(names), "%s", list);
    for (char *name = strtok_r(names, separators, &save); name;
         name = strtok_r(NULL, separators, &save), n++)
        assert_non_null(conv_template_find(name));
    return n;
}

static void every_name_is_a_template_and_a_choice_of_the_spec(void **state)
{
    (void)state;
    assert_int_equal(check_names(conv_template_names(), ", "), 14);
    assert_int_equal(
        check_names(spec_schema_find("model.data.conv_template")->choices, "|"), 14);
    assert_int_equal(
        check_names(spec_schema_find("model.mm_cfg.llm.model_type")->choices, "|"), 14);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(prompts_are_what_training_had_before_the_answer),
        cmocka_unit_test(answers_end_in_the_templates_own_token),
        cmocka_unit_test(byte_level_tokens_spell_the_text_out),
        cmocka_unit_test(a_system_prompt_of_the_record_replaces_the_templates),
        cmocka_unit_test(media_in_front_are_followed_by_nemos_separator),
        cmocka_unit_test(tokens_that_a_template_writes_must_be_there),
        cmocka_unit_test(special_tokens_in_a_turn_are_tokens_and_no_ends),
        cmocka_unit_test(what_cannot_be_learnt_is_refused),
        cmocka_unit_test(every_name_is_a_template_and_a_choice_of_the_spec),
    };

    return cmocka_run_group_tests(tests, open_sentencepiece, close_tokenizer) +
           cmocka_run_group_tests(tests, open_byte_level, close_tokenizer);
}
