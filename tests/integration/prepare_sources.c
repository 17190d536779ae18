/* Prepare: where annotations and media come from does not matter; bad input harms nothing. */
#include "tests/support/prepare_help.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* Same ids, tokens, labels, frames; media by name below their roots. */
static void assert_same_samples(struct dataset *a, struct dataset *b, bool same_media)
{
    int64_t n = dataset_info(a)->n_samples;
    struct err err;

    assert_int_equal(n, dataset_info(b)->n_samples);
    assert_int_equal(dataset_info(a)->longest_tokens, dataset_info(b)->longest_tokens);
    for (int64_t i = 0; i < n; i++) {
        struct dataset_sample *x = NULL, *y = NULL;

        if (dataset_read(a, i, &x, &err) < 0 || dataset_read(b, i, &y, &err) < 0 || !x ||
            !y) {
            fail_msg("%s", err.text);
            return;
        }
        assert_string_equal(x->id, y->id);
        assert_int_equal(x->n_tokens, y->n_tokens);
        assert_memory_equal(x->tokens, y->tokens, (size_t)x->n_tokens * 4);
        assert_memory_equal(x->is_label, y->is_label, (size_t)x->n_tokens);
        assert_int_equal(x->n_media, y->n_media);
        assert_int_equal(x->n_frame_bytes, y->n_frame_bytes);
        if (x->n_frame_bytes)
            assert_memory_equal(x->frames, y->frames, x->n_frame_bytes);
        for (int64_t k = 0; k < x->n_media && same_media; k++)
            assert_string_equal(x->media[k].ref.path, y->media[k].ref.path);
        dataset_sample_free(x);
        dataset_sample_free(y);
    }
}

static void a_tar_gives_the_samples_of_its_folder(void **state)
{
    static const char *const formats[] = {"ustar", "gnu", "pax"};
    static const char deep[] = "a-folder-with-a-rather-long-name-so-that-tar-needs-more-"
                               "than-its-one-hundred-bytes/and-another-one";
    const char *data = in_folder("tar.jsonl");
    struct prepare_config config =
        config_for(&data, 1, in_folder("media"), in_folder("from-folder"));
    struct dataset *from_folder;
    char text[2000];
    struct err err;

    (void)state;
    snprintf(text, sizeof(text), "media/%s", deep);
    assert_int_equal(fs_make_dirs(in_folder(text), 0777, &err), 0);
    snprintf(text, sizeof(text), "media/%s/x.mp4", deep);
    write_text(text, "frames 9");
    snprintf(
        text, sizeof(text),
        "{\"id\": \"a\", " ASK("\"good.mp4\"", "<video>", "b") "{\"id\": \"b\", " ASK(
            "[\"sub/other.mp4\", \"good.mp4\"]", "<video><video>",
            "b") "{\"id\": \"c\", " ASK("\"%s/x.mp4\"", "<video>", "b"),
        deep);
    write_text("tar.jsonl", text);
    config.store_frames = true;
    config.max_reject_fraction = 0;
    from_folder = prepare_and_open(&config);
    for (int i = 0; i < 3; i++) {
        struct prepare_config tar_config = config;
        struct dataset *from_tar;

        snprintf(text, sizeof(text), "cd %s/media && tar --format=%s -cf ../%s.tar .",
                 test_folder(), formats[i], formats[i]);
        run_command(text);
        snprintf(text, sizeof(text), "%s.tar", formats[i]);
        tar_config.video_root = in_folder(text);
        tar_config.output = in_folder(formats[i]);
        from_tar = prepare_and_open(&tar_config);
        assert_same_samples(from_folder, from_tar, false);
        dataset_close(from_tar);
    }
    dataset_close(from_folder);
}

static void a_damaged_tar_is_named(void **state)
{
    const char *data = in_folder("tar.jsonl");
    struct prepare_config config =
        config_for(&data, 1, in_folder("cut.tar"), in_folder("cut"));
    char command[2000];
    int64_t n;
    struct err err;

    (void)state;
    snprintf(command, sizeof(command), "head -c 3000 %s/gnu.tar > %s/cut.tar",
             test_folder(), test_folder());
    run_command(command);
    assert_int_equal(prepare_plan(&config, &n, &err), -1);
    if (!strstr(err.text, "cut.tar") || !strstr(err.text, "damaged"))
        fail_msg("%s", err.text);
    snprintf(command, sizeof(command),
             "sed 's/good.mp4/gxod.mp4/' %s/gnu.tar > %s/cut.tar", test_folder(),
             test_folder());
    run_command(command);
    assert_int_equal(prepare_plan(&config, &n, &err), -1);
    assert_non_null(strstr(err.text, "checksum"));
}

static void json_and_jsonl_and_several_files_give_the_same_samples(void **state)
{
    static const char a[] =
        "{\"id\": \"a\", " ASK("\"good.mp4\"", "<video>", "[b], \\\"]");
    static const char b[] = "{\"id\": \"b\",\n " ASK("\"good.mp4\"", "<video>", "c");
    const char *lines = in_folder("one.jsonl"), *array = in_folder("one.json");
    const char *parts[] = {in_folder("a.json"), in_folder("b.json")};
    struct prepare_config config =
        config_for(&lines, 1, in_folder("media"), in_folder("lines"));
    struct dataset *one, *other;
    char text[1000];

    (void)state;
    snprintf(text, sizeof(text), "\n%s\r\n{\"id\": \"b\", %s", a, strchr(b, '\n') + 1);
    write_text("one.jsonl", text);
    snprintf(text, sizeof(text), "\xef\xbb\xbf [ %s , %s ]\n", a, b);
    write_text("one.json", text);
    snprintf(text, sizeof(text), "[%s]", a);
    write_text("a.json", text);
    snprintf(text, sizeof(text), "[%s]", b);
    write_text("b.json", text);
    one = prepare_and_open(&config);
    assert_int_equal(dataset_info(one)->n_samples, 2);
    config.data_paths = &array;
    config.output = in_folder("array");
    other = prepare_and_open(&config);
    assert_same_samples(one, other, true);
    dataset_close(other);
    config.data_paths = parts;
    config.n_data_paths = 2;
    config.output = in_folder("parts");
    other = prepare_and_open(&config);
    assert_same_samples(one, other, true);
    dataset_close(other);
    dataset_close(one);
}

static void files_whose_records_cannot_be_told_apart_are_refused(void **state)
{
    static const struct {
        const char *text, *says;
    } bad[] = {{"[{\"id\": 1}, {\"id\"", "line 1, column 18"},
               {"[{}", "cut off"},
               {"[{},\n,{}]", "line 2, column 1: record expected"},
               {"{}", "column 1: '[' expected"},
               {"\xff\xfe[", "not UTF-8 but UTF-16"},
               {"[{}] x", "column 6: more text after the array"},
               {"[]", "no records"},
               {"", "'[' expected"}};
    const char *data = in_folder("bad.json");
    struct prepare_config config = config_for(&data, 1, NULL, in_folder("bad"));
    int64_t n;
    struct err err;

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        write_text("bad.json", bad[i].text);
        assert_int_equal(prepare_plan(&config, &n, &err), -1);
        if (!strstr(err.text, bad[i].says))
            fail_msg("%s", err.text);
    }
    config.conv_template = "v9";
    assert_int_equal(prepare_plan(&config, &n, &err), -1);
    assert_non_null(strstr(err.text, "known are: plain, v1"));
}

static void a_medium_of_many_samples_is_asked_for_once(void **state)
{
    const char *data = in_folder("same.jsonl");
    struct prepare_config config =
        config_for(&data, 1, in_folder("media"), in_folder("same"));
    struct buf text = BUF_INIT;
    struct json *summary = NULL;
    int n_requests = 0;
    struct err err;

    (void)state;
    for (int i = 0; i < 16; i++)
        buf_printf(&text, "{\"id\": %d, " ASK("\"%s\"", "<video>", "b"), i,
                   i % 2 ? "good.mp4" : "sub/other.mp4");
    write_text("same.jsonl", buf_str(&text));
    buf_fini(&text);
    config.store_frames = true;
    assert_int_equal(prepare(&config, &summary, &n_requests, &err), 0);
    assert_int_equal(n_requests, 2);
    json_free(summary);
}

static void assert_whole(const char *output)
{
    struct dataset *dataset = NULL;
    struct err err;

    if (dataset_open(&dataset, output, &err) < 0)
        fail_msg("%s", err.text);
    dataset_close(dataset);
}

static void wrong_input_leaves_the_dataset_that_is_there(void **state)
{
    static const char *const bad[] = {"[{\"id\": 1}, {", "[]"};
    const char *data = in_folder("keep.json"), *output = in_folder("keep");
    struct prepare_config config = config_for(&data, 1, in_folder("media"), output);
    int64_t n;
    struct err err;

    (void)state;
    write_text("keep.json", "[{\"id\": \"a\", " ASK("\"good.mp4\"", "<video>", "b") "]");
    dataset_close(prepare_and_open(&config));
    for (int i = 0; i < 2; i++) {
        write_text("keep.json", bad[i]);
        assert_int_equal(prepare_plan(&config, &n, &err), -1);
        assert_whole(output);
    }
    config.video_root = in_folder("cut.tar"); /* damaged, see above */
    write_text("keep.json", "[{\"id\": 1}]");
    assert_int_equal(prepare_plan(&config, &n, &err), -1);
    assert_whole(output);
}

static void dataset_of_other_files_is_not_replaced(void **state)
{
    const char *first = in_folder("first.json"), *second = in_folder("second.json");
    const char *both[] = {second, first}, *output = in_folder("taken");
    struct prepare_config config = config_for(&first, 1, in_folder("media"), output);
    int64_t n;
    struct err err;

    (void)state;
    write_text("first.json", "[{\"id\": \"a\", " ASK("\"good.mp4\"", "<video>", "b") "]");
    write_text("second.json",
               "[{\"id\": \"c\", " ASK("\"good.mp4\"", "<video>", "d") "]");
    dataset_close(prepare_and_open(&config));
    config.data_paths = &second;
    assert_int_equal(prepare_plan(&config, &n, &err), -1);
    assert_int_equal(err.code, ERR_EXISTS);
    assert_non_null(strstr(err.text, "first.json"));
    assert_non_null(strstr(err.text, "model.data.output"));
    assert_whole(output);
    config.data_paths = both; /* the same one, grown */
    config.n_data_paths = 2;
    dataset_close(prepare_and_open(&config));
}

static void files_of_others_stay_in_the_folder(void **state)
{
    static const char *const theirs[] = {"shard-000123.tar", "shard-9.sqlite",
                                         "notes.sqlite.tmp-1"};
    static const char *const ours[] = {"shard-00007.sqlite", "shard-00000.sqlite.tmp-1",
                                       "plan.sqlite.tmp-1"};
    const char *data = in_folder("mixed.jsonl");
    struct prepare_config config =
        config_for(&data, 1, in_folder("media"), in_folder("mixed"));
    char name[100];
    int64_t n;
    struct err err;

    (void)state;
    assert_int_equal(fs_make_dirs(in_folder("mixed"), 0777, &err), 0);
    write_text("mixed.jsonl", "{\"id\": \"a\", " ASK("\"good.mp4\"", "<video>", "b"));
    for (int i = 0; i < 3; i++) {
        snprintf(name, sizeof(name), "mixed/%s", theirs[i]);
        write_text(name, "x");
        snprintf(name, sizeof(name), "mixed/%s", ours[i]);
        write_text(name, "x");
    }
    dataset_close(prepare_and_open(&config));
    for (int i = 0; i < 3; i++) {
        snprintf(name, sizeof(name), "mixed/%s", theirs[i]);
        assert_true(fs_exists(in_folder(name)));
        snprintf(name, sizeof(name), "mixed/%s", ours[i]);
        assert_false(fs_exists(in_folder(name)));
    }
    /* nor is a manifest of something else taken for an old one of ours */
    write_text("mixed/manifest.json", "{\"name\": \"a web page\"}");
    assert_int_equal(prepare_plan(&config, &n, &err), -1);
    assert_non_null(strstr(err.text, "model.data.output"));
    assert_true(fs_exists(in_folder("mixed/manifest.json")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_tar_gives_the_samples_of_its_folder),
        cmocka_unit_test(a_damaged_tar_is_named),
        cmocka_unit_test(json_and_jsonl_and_several_files_give_the_same_samples),
        cmocka_unit_test(files_whose_records_cannot_be_told_apart_are_refused),
        cmocka_unit_test(a_medium_of_many_samples_is_asked_for_once),
        cmocka_unit_test(wrong_input_leaves_the_dataset_that_is_there),
        cmocka_unit_test(dataset_of_other_files_is_not_replaced),
        cmocka_unit_test(files_of_others_stay_in_the_folder),
    };

    return run_prepare_tests("tests", tests, sizeof(tests) / sizeof(*tests));
}
