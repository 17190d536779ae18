/* Prepare: every reject has its reason and place, nothing is cut. */
#include "tests/support/prepare_help.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* Line by line; `kind` NULL: a good record. */
static const struct {
    const char *text, *kind, *says;
} records[] = {
    {"{\"id\": \"good\", " ASK("\"good.mp4\"", "<video>\\nWhat?", "Left."), NULL, ""},
    {"{\"id\": 7, \"conversations\": [{\"from\": \"human\", \"value\": \"a\"}, "
     "{\"from\": "
     "\"gpt\", \"value\": \"text only\"}]}\n",
     NULL, ""},
    {"{\"id\": \"cut\", " ASK("\"good.mp4\", \"start\": 0.5, \"end\": 1", "<video>", "b"),
     NULL, ""},
    {"{\"id\": \"two\", \"image\": \"good.mp4\", " ASK(
         "[\"good.mp4\", \"sub/other.mp4\"]", "<video> <image> <video>", "b"),
     NULL, ""},
    {"{\"id\": \"bad\", \"x\": tru}\n", "bad-json", "line 5, column 20"},
    {"[1]\n", "bad-json", "name a file that is one list of records .json"},
    {"5\n", "bad-json", "the record is no object"},
    {"{\"id\": \"good\", " ASK("\"good.mp4\"", "<video>", "b"), "duplicate-id",
     "line 1 of"},
    {"{\"id\": \"turns\", \"conversations\": []}\n", "conversation", "turns"},
    {"{\"id\": \"roles\", \"conversations\": [{\"from\": \"gpt\", \"value\": \"a\"}]}\n",
     "conversation", "human first"},
    {"{\"id\": \"empty\", " ASK("\"good.mp4\"", "<video>", ""), "no-answer", "empty"},
    {"{\"id\": \"few\", " ASK("[\"good.mp4\", \"good.mp4\"]", "<video>", "b"),
     "media-fields", "1 <video> placeholders in the human turns, but 2"},
    {"{\"id\": \"many\", " ASK("\"good.mp4\"", "<video><video>", "b"), "media-fields",
     "2 <"},
    {"{\"id\": \"none\", " ASK("\"good.mp4\"", "b", "b"), "media-fields", "0 <video>"},
    {"{\"id\": \"type\", " ASK("5", "<video>", "b"), "media-fields", "no text"},
    {"{\"id\": \"segment\", " ASK("\"good.mp4\", \"start\": 2, \"end\": 1", "<video>",
                                  "b"),
     "media-fields", "start < end"},
    {"{\"id\": \"gone\", " ASK("\"gone.mp4\"", "<video>", "b"), "media-missing",
     "gone.mp4"},
    {"{\"id\": \"dir\", " ASK("\"sub\"", "<video>", "b"), "media-missing", "no file"},
    {"{\"id\": \"up\", " ASK("\"sub/../../x.mp4\"", "<video>", "b"), "media-outside",
     ".."},
    {"{\"id\": \"root\", " ASK("\"/etc/passwd\"", "<video>", "b"), "media-outside",
     "absolute"},
    {"{\"id\": \"junk\", " ASK("\"junk.mp4\"", "<video>", "b"), "media-bad",
     "junk.mp4: it is no video"},
};
#define N_RECORDS (int)(sizeof(records) / sizeof(*records))

static void every_reject_is_listed_with_place_and_reason(void **state)
{
    const char *data = in_folder("all.jsonl");
    struct prepare_config config =
        config_for(&data, 1, in_folder("media"), in_folder("rejects"));
    struct buf text = BUF_INIT;
    struct dataset *dataset;
    struct json *rejects;
    int n_rejects = 0;

    (void)state;
    for (int i = 0; i < N_RECORDS; i++)
        buf_add_str(&text, records[i].text);
    write_text("all.jsonl", buf_str(&text));
    buf_fini(&text);
    dataset = prepare_and_open(&config);
    rejects = read_lines(in_folder("rejects/rejects.jsonl"));
    for (int i = 0; i < N_RECORDS; i++) {
        const struct json *reject;

        if (!records[i].kind)
            continue;
        reject = json_at(rejects, (size_t)n_rejects++);
        assert_string_equal(json_get_string(reject, "file"), data);
        assert_int_equal(json_get_int(reject, "line", 0), i + 1);
        if (strcmp(json_get_string(reject, "kind"), records[i].kind) != 0 ||
            !strstr(json_get_string(reject, "reason"), records[i].says))
            fail_msg("line %d: %s: %s", i + 1, json_get_string(reject, "kind"),
                     json_get_string(reject, "reason"));
    }
    assert_int_equal(json_count(rejects), n_rejects);
    assert_int_equal(dataset_info(dataset)->n_rejects, n_rejects);
    assert_int_equal(dataset_info(dataset)->n_samples, N_RECORDS - n_rejects);
    json_free(rejects);
    dataset_close(dataset);
}

static void samples_hold_what_the_record_says(void **state)
{
    struct dataset *dataset = NULL;
    struct dataset_sample *sample = NULL;
    struct err err;

    (void)state;
    if (dataset_open(&dataset, in_folder("rejects"), &err) < 0)
        fail_msg("%s", err.text);
    assert_int_equal(dataset_read(dataset, 1, &sample, &err), 0);
    assert_string_equal(sample->id, "7");
    assert_int_equal(sample->n_media, 0);
    dataset_sample_free(sample);
    assert_int_equal(dataset_read(dataset, 2, &sample, &err), 0);
    assert_true(sample->media[0].ref.start_s == 0.5 && sample->media[0].ref.end_s == 1);
    dataset_sample_free(sample);
    assert_int_equal(dataset_read(dataset, 3, &sample, &err), 0);
    assert_int_equal(sample->n_media, 3);
    assert_string_equal(sample->media[0].ref.path, in_folder("media/good.mp4"));
    assert_int_equal(sample->media[1].ref.kind, MEDIA_IMAGE);
    assert_int_equal(sample->media[1].n_frames, 1);
    assert_string_equal(sample->media[2].ref.path, in_folder("media/sub/other.mp4"));
    assert_int_equal(sample->media[2].n_frames, 2);
    dataset_sample_free(sample);
    dataset_close(dataset);
}

static void too_long_samples_are_rejected_not_cut(void **state)
{
    const char *data = in_folder("long.jsonl");
    struct prepare_config config =
        config_for(&data, 1, in_folder("media"), in_folder("long"));
    struct dataset *dataset;
    struct json *rejects;

    (void)state;
    write_text("long.jsonl",
               "{\"id\": \"a\", " ASK("\"good.mp4\"", "<video>",
                                      "b") "{\"id\": \"b\", " ASK("\"long.mp4\"",
                                                                  "<video>", "b"));
    config.num_frames = -1; /* 5 and 90 frames of 4 patches */
    dataset = prepare_and_open(&config);
    assert_int_equal(dataset_info(dataset)->n_samples, 1);
    rejects = read_lines(in_folder("long/rejects.jsonl"));
    assert_int_equal(json_count(rejects), 1);
    assert_string_equal(json_get_string(json_at(rejects, 0), "kind"), "too-long");
    /* exactly as long as the limit is fine, one less is not */
    config.max_tokens = dataset_info(dataset)->longest_tokens;
    dataset_close(dataset);
    dataset = prepare_and_open(&config);
    assert_int_equal(dataset_info(dataset)->n_samples, 1);
    dataset_close(dataset);
    json_free(rejects);
}

static void finish_fails_over_the_reject_limit_and_says_how_to_see(void **state)
{
    const char *data = in_folder("all.jsonl");
    struct prepare_config config =
        config_for(&data, 1, in_folder("media"), in_folder("limit"));
    struct json *summary = NULL;
    struct dataset *dataset = NULL;
    struct err err;

    (void)state;
    config.max_reject_fraction = 0.5;
    assert_int_equal(prepare(&config, &summary, NULL, &err), -1);
    if (!strstr(err.text, "17 of 21 records") || !strstr(err.text, "5 media-fields") ||
        !strstr(err.text, "vneva data rejects"))
        fail_msg("%s", err.text);
    assert_true(fs_exists(in_folder("limit/rejects.jsonl")));
    assert_int_equal(dataset_open(&dataset, in_folder("limit"), &err), -1);
    config.max_reject_fraction = 0.85;
    assert_int_equal(prepare(&config, &summary, NULL, &err), 0);
    assert_int_equal(json_get_int(summary, "rejects", 0), 17);
    assert_int_equal(json_get_int(json_get(summary, "reasons"), "media-outside", 0), 2);
    json_free(summary);
}

static void fifty_damaged_of_two_hundred_are_all_listed(void **state)
{
    const char *data = in_folder("many.jsonl");
    struct prepare_config config =
        config_for(&data, 1, in_folder("many-media"), in_folder("many"));
    struct buf text = BUF_INIT;
    struct dataset *dataset;
    struct json *rejects;
    struct err err;

    (void)state;
    assert_int_equal(fs_make_dirs(in_folder("many-media"), 0777, &err), 0);
    for (int i = 0; i < 200; i++) {
        char name[40];

        snprintf(name, sizeof(name), "many-media/%d.mp4", i);
        write_text(name, i % 4 == 1 ? "damaged" : "frames 5");
        buf_printf(&text, "{\"id\": \"%d\", " ASK("\"%d.mp4\"", "<video>", "b"), i, i);
    }
    write_text("many.jsonl", buf_str(&text));
    buf_fini(&text);
    dataset = prepare_and_open(&config);
    rejects = read_lines(in_folder("many/rejects.jsonl"));
    assert_int_equal(json_count(rejects), 50);
    for (size_t i = 0; i < 50; i++)
        assert_int_equal(strtol(json_get_string(json_at(rejects, i), "id"), NULL, 10),
                         4 * i + 1);
    assert_int_equal(dataset_info(dataset)->n_samples, 150);
    for (int64_t i = 0; i < 150; i++) {
        struct dataset_sample *sample = NULL;

        assert_int_equal(dataset_read(dataset, i, &sample, &err), 0);
        assert_int_equal(strtol(sample->id, NULL, 10), i / 3 * 4 + i % 3 + (i % 3 > 0));
        dataset_sample_free(sample);
    }
    json_free(rejects);
    dataset_close(dataset);
}

static void the_reject_limit_is_exact(void **state)
{
    const char *data = in_folder("exact.jsonl");
    struct prepare_config config =
        config_for(&data, 1, in_folder("media"), in_folder("exact"));
    struct json *summary = NULL;
    struct buf text = BUF_INIT;
    struct err err;

    (void)state;
    for (int i = 0; i < 100; i++)
        buf_printf(&text, "{\"id\": %d, " ASK("\"%s\"", "<video>", "b"), i,
                   i < 29 ? "gone.mp4" : "good.mp4");
    write_text("exact.jsonl", buf_str(&text));
    buf_fini(&text);
    config.shard_size = 100;
    config.max_reject_fraction = 0.29; /* times 100 it is 28.999999999999996 */
    if (prepare(&config, &summary, NULL, &err) < 0)
        fail_msg("%s", err.text);
    json_free(summary);
    config.max_reject_fraction = 0.28;
    assert_int_equal(prepare(&config, &summary, NULL, &err), -1);
    assert_non_null(strstr(err.text, "allows 28"));
}

/* Media may lie under a root that makes their paths too long for a request. */
static void a_path_that_is_too_long_is_the_records_fault(void **state)
{
    const char *data = in_folder("far.jsonl");
    struct prepare_config config = config_for(&data, 1, NULL, in_folder("far"));
    struct buf deep = BUF_INIT, name = BUF_INIT, text = BUF_INIT;
    struct dataset *dataset;
    struct json *rejects;
    char path[FS_PATH_MAX];
    struct err err;

    (void)state;
    for (int i = 0; i < 6; i++)
        buf_printf(&name, "%s%0100d", i ? "/" : "", i);
    buf_printf(&deep, "%s/%s", test_folder(), buf_str(&name));
    snprintf(path, sizeof(path), "%s/%s", buf_str(&deep), buf_str(&name));
    assert_int_equal(fs_make_dirs(path, 0777, &err), 0);
    snprintf(path, sizeof(path), "%s/%s/x.mp4", buf_str(&deep), buf_str(&name));
    assert_int_equal(fs_write_file_atomic(path, "frames 5", 8, &err), 0);
    buf_printf(&text,
               "{\"id\": 1, \"conversations\": [{\"from\": \"human\", \"value\": "
               "\"a\"}, {\"from\": \"gpt\", \"value\": \"b\"}]}\n"
               "{\"id\": 2, " ASK("\"%s/x.mp4\"", "<video>", "b"),
               buf_str(&name));
    write_text("far.jsonl", buf_str(&text));
    config.video_root = buf_str(&deep);
    dataset = prepare_and_open(&config);
    assert_int_equal(dataset_info(dataset)->n_samples, 1);
    dataset_close(dataset);
    rejects = read_lines(in_folder("far/rejects.jsonl"));
    assert_int_equal(json_count(rejects), 1);
    assert_non_null(strstr(json_get_string(json_at(rejects, 0), "reason"), "at most"));
    json_free(rejects);
    buf_fini(&deep);
    buf_fini(&name);
    buf_fini(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_reject_is_listed_with_place_and_reason),
        cmocka_unit_test(samples_hold_what_the_record_says),
        cmocka_unit_test(too_long_samples_are_rejected_not_cut),
        cmocka_unit_test(finish_fails_over_the_reject_limit_and_says_how_to_see),
        cmocka_unit_test(fifty_damaged_of_two_hundred_are_all_listed),
        cmocka_unit_test(the_reject_limit_is_exact),
        cmocka_unit_test(a_path_that_is_too_long_is_the_records_fault),
    };

    return run_prepare_tests("tests", tests, sizeof(tests) / sizeof(*tests));
}
