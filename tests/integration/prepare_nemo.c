/* Prepare: NeMo's tokens through prepare, read and expand. */
#include "tests/support/prepare_help.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void assert_expands_to(const struct dataset_sample *sample,
                              const struct json *golden)
{
    static const int64_t patches = 4;
    int64_t n_frames = json_get_int(golden, "num_frames", 0), n = 0, n_media = 0;
    const struct json *tokens = json_get(golden, "tokens");
    const struct json *labels = json_get(golden, "labels");
    int32_t got_tokens[2000], got_labels[2000];
    struct err err;

    if (dataset_expand(sample, &n_frames, patches, got_tokens, got_labels, 2000, &n,
                       &err) < 0)
        fail_msg("%s", err.text);
    assert_int_equal(n, json_count(tokens));
    for (int64_t i = 0; i < n; i++) {
        if (got_tokens[i] == DATASET_TOKEN_MEDIA)
            n_media++; /* NeMo's start, end and patch tokens, which vary with settings */
        else
            assert_int_equal(got_tokens[i], json_int(json_at(tokens, (size_t)i), -2));
        assert_int_equal(got_labels[i], json_int(json_at(labels, (size_t)i), -2));
    }
    assert_int_equal(n_media, sample->n_media * n_frames * patches);
}

static bool has_label(const struct json *golden)
{
    const struct json *labels = json_get(golden, "labels");

    for (size_t i = 0; i < json_count(labels); i++)
        if (json_int(json_at(labels, i), -1) != -1)
            return true;
    return false;
}

/* Prepares the golden rows of one setting; returns how many there were. */
static int check_golden_group(const struct json *rows, const char *template, int frames,
                              bool start_end)
{
    const char *data = in_folder("golden.jsonl");
    struct prepare_config config =
        config_for(&data, 1, in_folder("media"), in_folder("golden"));
    struct buf text = BUF_INIT;
    struct dataset *dataset;
    int64_t number = 0;
    int n = 0;
    struct err err;

    for (int pass = 0; pass < 2; pass++) {
        dataset = pass ? prepare_and_open(&config) : NULL;
        for (size_t i = 0; i < json_count(rows); i++) {
            const struct json *row = json_at(rows, i);
            struct json *source;
            struct dataset_sample *sample = NULL;

            if (strcmp(json_get_string(row, "template"), template) != 0 ||
                json_get_int(row, "num_frames", 0) != frames ||
                json_bool(json_get(row, "use_im_start_end"), false) != start_end)
                continue;
            if (pass && has_label(row)) {
                assert_int_equal(dataset_read(dataset, number++, &sample, &err), 0);
                assert_expands_to(sample, row);
                dataset_sample_free(sample);
            }
            if (pass)
                continue;
            source = json_clone(json_get(row, "source"));
            json_set(source, "video", json_new_string("good.mp4"), NULL);
            if (!strstr(json_get_string(json_at(json_get(source, "conversations"), 0),
                                        "value"),
                        "<video>"))
                json_remove(source, "video");
            json_write(&text, source, 0);
            buf_add_char(&text, '\n');
            json_free(source);
            n++;
        }
        if (!pass)
            write_text("golden.jsonl", buf_str(&text));
        config.conv_template = template;
        config.max_tokens = 1000;
        config.num_frames = frames;
        config.use_im_start_end = start_end;
    }
    assert_int_equal(dataset_info(dataset)->n_samples, number);
    dataset_close(dataset);
    buf_fini(&text);
    return n;
}

static void prepared_samples_expand_to_what_nemo_trains_on(void **state)
{
    static const char *const templates[] = {"v1",      "plain", "llama_2",
                                            "mistral", "nvgpt", "nv_dpo"};
    static const int frames[] = {1, 2, 4};
    char path[FS_PATH_MAX];
    struct json *rows;
    int n = 0;

    (void)state;
    snprintf(path, sizeof(path), "%s/tests/golden/nemo_conversations.jsonl",
             getenv("VNEVA_SOURCE"));
    rows = read_lines(path);
    for (int i = 0; i < 3; i++)
        for (int start_end = 0; start_end < 2; start_end++)
            for (int t = 0; t < 6; t++)
                n += check_golden_group(rows, templates[t], frames[i], start_end);
    assert_int_equal(n, 682);
    json_free(rows);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(prepared_samples_expand_to_what_nemo_trains_on),
    };

    return run_prepare_tests("tests", tests, sizeof(tests) / sizeof(*tests));
}
