/* Prepare: images and videos of several places in one dataset, and the settings that say
 * how they stand in a conversation. */
#include "tests/support/prepare_help.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define PATCHES 4 /* of a frame: config_for's 4 x 4 pixels in patches of 2 x 2 */

#define MIXED                                                                            \
    "{\"id\": 1, \"image\": \"pic\", " ASK("\"good.mp4\"", "a <image> and <video>?",     \
                                           "b") "{\"id\": 2, \"conversations\": "        \
                                                "[{\"from\": \"human\", \"value\": "     \
                                                "\"a\"}, {\"from\": \"gpt\", "           \
                                                "\"value\": \"text only\"}]}\n"          \
                                                "{\"id\": 3, \"image\": [\"pic\", "      \
                                                "\"more/pic\"], \"conversations\": "     \
                                                "[{\"from\": \"human\", \"value\": "     \
                                                "\"<image><image>\"}, {\"from\": "       \
                                                "\"gpt\", \"value\": \"b\"}]}\n"

static struct prepare_config mixed_config(const char **data, const char *output)
{
    struct prepare_config config;
    struct err err;

    assert_int_equal(fs_make_dirs(in_folder("pictures/more"), 0777, &err), 0);
    write_text("pictures/pic", "frames 1");
    write_text("pictures/more/pic", "frames 1");
    write_text("pictures/good.mp4", "junk"); /* the name of a video, too */
    *data = in_folder("mixed.jsonl");
    write_text("mixed.jsonl", MIXED);
    config = config_for(data, 1, in_folder("media"), in_folder(output));
    config.image_root = in_folder("pictures");
    config.max_reject_fraction = 0;
    return config;
}

static struct dataset_sample *read_sample(struct dataset *dataset, int64_t number)
{
    struct dataset_sample *sample = NULL;
    struct err err;

    if (dataset_read(dataset, number, &sample, &err) < 0)
        fail_msg("%s", err.text);
    return sample;
}

static void expect_media(const struct dataset_sample *sample, int64_t i,
                         enum media_kind kind, const char *path, int64_t n_frames)
{
    assert_true(i < sample->n_media);
    assert_int_equal(sample->media[i].ref.kind, kind);
    assert_string_equal(sample->media[i].ref.path, path);
    assert_int_equal(sample->media[i].n_frames, n_frames);
}

static void images_and_videos_come_from_places_of_their_own(void **state)
{
    const char *data;
    struct prepare_config config = mixed_config(&data, "two-places");
    struct dataset *dataset = prepare_and_open(&config);
    struct dataset_sample *sample = read_sample(dataset, 0);

    (void)state;
    assert_int_equal(sample->n_media, 2);
    expect_media(sample, 0, MEDIA_IMAGE, in_folder("pictures/pic"), 1);
    expect_media(sample, 1, MEDIA_VIDEO, in_folder("media/good.mp4"), 2);
    dataset_sample_free(sample);
    sample = read_sample(dataset, 1);
    assert_int_equal(sample->n_media, 0);
    assert_true(sample->n_tokens > sample->n_prompt);
    dataset_sample_free(sample);
    sample = read_sample(dataset, 2);
    expect_media(sample, 0, MEDIA_IMAGE, in_folder("pictures/pic"), 1);
    expect_media(sample, 1, MEDIA_IMAGE, in_folder("pictures/more/pic"), 1);
    dataset_sample_free(sample);
    dataset_close(dataset);
}

/* Both places have a good.mp4; that of the pictures does not decode. */
static void either_place_may_be_a_tar(void **state)
{
    const char *data;
    struct prepare_config config = mixed_config(&data, "tars");
    char command[600];

    (void)state;
    snprintf(command, sizeof(command),
             "cd %s/media && tar -cf ../v.tar good.mp4 && cd ../pictures && "
             "tar -cf ../i.tar good.mp4 pic more",
             test_folder());
    run_command(command);
    for (int i = 1; i < 4; i++) {
        struct dataset *dataset;
        struct dataset_sample *sample;

        config.video_root = in_folder(i & 1 ? "v.tar" : "media");
        config.image_root = in_folder(i & 2 ? "i.tar" : "pictures");
        dataset = prepare_and_open(&config);
        assert_int_equal(dataset_info(dataset)->n_samples, 3);
        sample = read_sample(dataset, 0);
        expect_media(sample, 0, MEDIA_IMAGE, in_folder(i & 2 ? "i.tar" : "pictures/pic"),
                     1);
        expect_media(sample, 1, MEDIA_VIDEO,
                     in_folder(i & 1 ? "v.tar" : "media/good.mp4"), 2);
        assert_int_equal(sample->media[0].ref.offset > 0, (i & 2) != 0);
        assert_int_equal(sample->media[1].ref.offset > 0, (i & 1) != 0);
        dataset_sample_free(sample);
        dataset_close(dataset);
    }
}

static void one_place_serves_both_kinds(void **state)
{
    const char *data;
    struct prepare_config config = mixed_config(&data, "one-place");
    struct json *summary = NULL, *rejects;
    struct dataset *dataset;
    struct err err;

    (void)state;
    write_text("pictures/good.mp4", "frames 4");
    config.video_root = NULL;
    dataset = prepare_and_open(&config);
    assert_int_equal(dataset_info(dataset)->n_samples, 3);
    dataset_close(dataset);
    config.video_root = config.image_root;
    config.image_root = "";
    dataset = prepare_and_open(&config);
    assert_int_equal(dataset_info(dataset)->n_samples, 3);
    dataset_close(dataset);
    config.video_root = config.image_root = NULL;
    config.max_reject_fraction = 1;
    if (prepare(&config, &summary, NULL, &err) < 0)
        fail_msg("%s", err.text);
    json_free(summary);
    rejects = read_lines(in_folder("one-place/rejects.jsonl"));
    assert_int_equal(json_count(rejects), 2); /* the third is text */
    assert_non_null(strstr(json_get_string(json_at(rejects, 0), "reason"),
                           "model.data.video_folder or model.data.image_folder"));
    json_free(rejects);
}

/* Entries of the sample with its media expanded to n_frames each. */
static int64_t count_entries(const struct dataset_sample *sample)
{
    int32_t tokens[2000], labels[2000];
    int64_t n_frames[DATASET_MEDIA_MAX], n = 0;
    struct err err;

    for (int64_t i = 0; i < sample->n_media; i++)
        n_frames[i] = sample->media[i].n_frames;
    if (dataset_expand(sample, n_frames, PATCHES, tokens, labels, 2000, &n, &err) < 0)
        fail_msg("%s", err.text);
    return n;
}

static void a_splice_is_one_frame_and_all_frames_are_all(void **state)
{
    static const struct {
        int64_t num_frames;
        enum media_splice splice;
        int64_t wanted; /* of a video of 5 frames */
    } rows[] = {{1, MEDIA_SPLICE_NONE, 1},   {2, MEDIA_SPLICE_NONE, 2},
                {64, MEDIA_SPLICE_NONE, 64}, {-1, MEDIA_SPLICE_NONE, 5},
                {8, MEDIA_SPLICE_FIRST, 1},  {8, MEDIA_SPLICE_MIDDLE, 1},
                {-1, MEDIA_SPLICE_LAST, 1}};
    const char *data;
    struct prepare_config config = mixed_config(&data, "frames");

    (void)state;
    config.store_frames = true;
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        struct dataset *dataset;
        struct dataset_sample *sample;

        config.num_frames = rows[i].num_frames;
        config.splice = rows[i].splice;
        dataset = prepare_and_open(&config);
        sample = read_sample(dataset, 0);
        assert_int_equal(sample->media[0].n_frames, 1); /* the image */
        assert_int_equal(sample->media[1].n_frames, rows[i].wanted);
        assert_int_equal(sample->n_frame_bytes, (rows[i].wanted + 1) * 4 * 4 * 3);
        assert_int_equal(count_entries(sample),
                         sample->n_tokens - 3 + (rows[i].wanted + 1) * PATCHES);
        dataset_sample_free(sample);
        dataset_close(dataset);
    }
}

static int64_t count_token(const struct dataset_sample *sample, int32_t token)
{
    int64_t n = 0;

    for (int64_t i = 0; i < sample->n_tokens; i++)
        n += sample->tokens[i] == token;
    return n;
}

/* tiny_llama.model has <extra_id_4> as 7 and <extra_id_5> as 8. */
static void start_and_end_stand_around_media_when_asked_for(void **state)
{
    const char *data;
    struct prepare_config config = mixed_config(&data, "start-end");

    (void)state;
    for (int with = 0; with < 2; with++) {
        struct dataset *dataset;
        struct dataset_sample *sample;

        config.use_im_start_end = with;
        dataset = prepare_and_open(&config);
        sample = read_sample(dataset, 0);
        assert_int_equal(count_token(sample, 7), with ? 2 : 0);
        assert_int_equal(count_token(sample, 8), with ? 2 : 0);
        assert_int_equal(count_token(sample, DATASET_TOKEN_MEDIA), 2);
        for (int64_t i = 1; with && i + 1 < sample->n_tokens; i++)
            if (sample->tokens[i] == DATASET_TOKEN_MEDIA) {
                assert_int_equal(sample->tokens[i - 1], 7);
                assert_int_equal(sample->tokens[i + 1], 8);
            }
        dataset_sample_free(sample);
        dataset_close(dataset);
    }
}

#define FRONT(question)                                                                  \
    "{\"id\": 1, \"image\": \"pic\", " ASK("\"good.mp4\"", question, "Left.")

/* NeMo rewrites the question; here it is, written by hand. */
static void media_in_front_are_what_nemo_makes_of_the_question(void **state)
{
    const char *data;
    struct prepare_config config = mixed_config(&data, "front");
    struct dataset *moved, *written;
    struct dataset_sample *a, *b;

    (void)state;
    config.media_first = true;
    write_text("mixed.jsonl", FRONT(" What is <image>\\nin <video> ? "));
    moved = prepare_and_open(&config);
    assert_true(dataset_info(moved)->media_first);
    config.media_first = false;
    config.output = in_folder("front-written");
    write_text("mixed.jsonl", FRONT("<image><video> USER: What is \\nin  ?"));
    written = prepare_and_open(&config);
    a = read_sample(moved, 0);
    b = read_sample(written, 0);
    assert_int_equal(a->n_tokens, b->n_tokens);
    assert_memory_equal(a->tokens, b->tokens, (size_t)a->n_tokens * sizeof(*a->tokens));
    expect_media(a, 0, MEDIA_IMAGE, in_folder("pictures/pic"), 1);
    expect_media(a, 1, MEDIA_VIDEO, in_folder("media/good.mp4"), 2);
    dataset_sample_free(a);
    dataset_sample_free(b);
    dataset_close(moved);
    dataset_close(written);
}

static void expect_no_plan(const struct prepare_config *config, const char *says)
{
    int64_t n;
    struct err err;

    assert_int_equal(prepare_plan(config, &n, &err), -1);
    if (!strstr(err.text, says))
        fail_msg("'%s' does not say '%s'", err.text, says);
}

static void what_does_not_go_together_is_said_at_the_start(void **state)
{
    const char *data;
    struct prepare_config config = mixed_config(&data, "refused");

    (void)state;
    config.conv_template = "llama_3";
    expect_no_plan(&config, "template llama_3 writes <|begin_of_text|>");
    config.conv_template = "interleaved";
    config.media_first = true;
    expect_no_plan(&config, "sep_image_conv_front");
    config.conv_template = "v1";
    config.processor = MEDIA_PROCESSOR_SIGLIP;
    config.aspect = MEDIA_ASPECT_KEEP;
    expect_no_plan(&config, "take square or pad");
}

/* What evaluate stops at. The extra tokens come after tiny_llama.model's own. */
static void the_end_token_is_the_templates_own(void **state)
{
    static const char *const extras[] = {"<|begin_of_text|>", "<|start_header_id|>",
                                         "<|end_header_id|>", "<|eot_id|>",
                                         "<|im_start|>",      "<|im_end|>"};
    static const struct {
        const char *template;
        int64_t end, extra; /* extra: number of the end token among them; -1: `end` is */
    } rows[] = {{"llama_3", 0, 3}, {"yi_34b", 0, 5}, {"nvgpt", 4, -1}, {"v1", 2, -1}};
    const char *data;
    struct prepare_config config = mixed_config(&data, "ends");

    (void)state;
    config.extra_tokens = extras;
    config.n_extra_tokens = 6;
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        struct dataset *dataset;
        const struct dataset_info *info;
        struct dataset_sample *sample;
        int64_t end = rows[i].end;

        config.conv_template = rows[i].template;
        dataset = prepare_and_open(&config);
        info = dataset_info(dataset);
        if (rows[i].extra >= 0)
            end = info->vocab - config.n_extra_tokens + rows[i].extra;
        assert_int_equal(info->end_token, end);
        sample = read_sample(dataset, 0);
        assert_int_equal(sample->tokens[sample->n_tokens - 1], end);
        dataset_sample_free(sample);
        dataset_close(dataset);
    }
}

static void the_processor_is_written_down(void **state)
{
    const char *data;
    struct prepare_config config = mixed_config(&data, "siglip");
    struct dataset *clip = prepare_and_open(&config), *siglip;
    uint64_t fingerprint = dataset_info(clip)->fingerprint;

    (void)state;
    assert_int_equal(dataset_info(clip)->processor, MEDIA_PROCESSOR_CLIP);
    dataset_close(clip);
    config.processor = MEDIA_PROCESSOR_SIGLIP;
    siglip = prepare_and_open(&config);
    assert_int_equal(dataset_info(siglip)->processor, MEDIA_PROCESSOR_SIGLIP);
    assert_true(dataset_info(siglip)->fingerprint != fingerprint);
    dataset_close(siglip);
}

static void an_interleaved_text_is_learnt_but_for_its_media(void **state)
{
    const char *data;
    struct prepare_config config = mixed_config(&data, "interleaved");
    struct dataset *dataset;
    struct dataset_sample *sample;

    (void)state;
    config.conv_template = "interleaved";
    write_text("mixed.jsonl",
               "{\"id\": 1, \"video\": \"good.mp4\", \"image\": \"pic\", "
               "\"conversations\": \"First <video> then <image> it turns.\"}\n");
    dataset = prepare_and_open(&config);
    sample = read_sample(dataset, 0);
    assert_int_equal(sample->n_media, 2);
    for (int64_t i = 1; i < sample->n_tokens; i++)
        assert_int_equal(sample->is_label[i], sample->tokens[i] != DATASET_TOKEN_MEDIA);
    dataset_sample_free(sample);
    dataset_close(dataset);
}

#define QUESTION(id, more)                                                               \
    "{\"id\": \"" id "\", \"video\": \"good.mp4\", \"conversations\": [{\"from\": "      \
    "\"human\", \"value\": \"<video>\\nWhat?\"}" more "]}\n"

/* Asked with an answer, with an empty one and with none, it is the same prompt, which is
 * that of the sample to learn from. */
static void prompts_need_no_answers(void **state)
{
    const char *data;
    struct prepare_config config = mixed_config(&data, "prompts");
    struct dataset *learnt, *asked;
    struct dataset_sample *sample;

    (void)state;
    write_text("mixed.jsonl",
               QUESTION("a", ", {\"from\": \"gpt\", \"value\": \"Left.\"}"));
    learnt = prepare_and_open(&config);
    sample = read_sample(learnt, 0);
    write_text("mixed.jsonl", QUESTION("a", ", {\"from\": \"gpt\", \"value\": \"Left.\"}")
                                  QUESTION("b", ", {\"from\": \"gpt\", \"value\": \"\"}")
                                      QUESTION("c", ""));
    config.prompts_only = true;
    config.output = in_folder("prompts-only");
    asked = prepare_and_open(&config);
    assert_true(dataset_info(asked)->prompts_only);
    assert_false(dataset_info(learnt)->prompts_only);
    assert_int_equal(dataset_info(asked)->n_samples, 3);
    for (int64_t i = 0; i < 3; i++) {
        struct dataset_sample *prompt = read_sample(asked, i);

        assert_int_equal(prompt->n_prompt, sample->n_prompt);
        assert_memory_equal(prompt->tokens, sample->tokens,
                            (size_t)sample->n_prompt * sizeof(*sample->tokens));
        /* all of it is had as batches of prompts have it */
        assert_int_equal(prompt->n_tokens, prompt->n_prompt + 1);
        assert_int_equal(count_entries(prompt),
                         prompt->n_prompt - 1 + prompt->media[0].n_frames * PATCHES);
        dataset_sample_free(prompt);
    }
    dataset_sample_free(sample);
    dataset_close(learnt);
    dataset_close(asked);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(images_and_videos_come_from_places_of_their_own),
        cmocka_unit_test(either_place_may_be_a_tar),
        cmocka_unit_test(one_place_serves_both_kinds),
        cmocka_unit_test(a_splice_is_one_frame_and_all_frames_are_all),
        cmocka_unit_test(start_and_end_stand_around_media_when_asked_for),
        cmocka_unit_test(media_in_front_are_what_nemo_makes_of_the_question),
        cmocka_unit_test(what_does_not_go_together_is_said_at_the_start),
        cmocka_unit_test(the_end_token_is_the_templates_own),
        cmocka_unit_test(the_processor_is_written_down),
        cmocka_unit_test(prompts_need_no_answers),
        cmocka_unit_test(an_interleaved_text_is_learnt_but_for_its_media),
    };

    return run_prepare_tests("tests", tests, sizeof(tests) / sizeof(*tests));
}
