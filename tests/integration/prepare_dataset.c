/* Prepare: every reject has its reason and place, sources do not matter, NeMo's tokens. */
#include "common/base/fs.h"
#include "dataprep/dataset/dataset.h"
#include "dataprep/prepare/prepare.h"
#include "tests/support/fake_frames.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static char folder[] = "/tmp/vneva-prepare-XXXXXX";
static char tokenizer_path[FS_PATH_MAX];

/* A path in the test's folder; good for the whole run. */
static const char *in_folder(const char *name)
{
    static char paths[600][256];
    static int n;

    assert_true(n < 600);
    snprintf(paths[n], sizeof(paths[n]), "%s/%s", folder, name);
    return paths[n++];
}

static void write_text(const char *name, const char *text)
{
    struct err err;

    if (fs_write_file_atomic(in_folder(name), text, strlen(text), &err) < 0)
        fail_msg("%s", err.text);
}

static void run_command(const char *command)
{
    if (system(command) != 0) /* NOLINT(cert-env33-c): tar, in the test's folder */
        fail_msg("%s", command);
}

static struct prepare_config config_for(const char *const *data, int n_data,
                                        const char *media, const char *output)
{
    return (struct prepare_config){.data_paths = data,
                                   .n_data_paths = n_data,
                                   .video_root = media,
                                   .output = output,
                                   .tokenizer = tokenizer_path,
                                   .conv_template = "v1",
                                   .num_frames = 2,
                                   .image_size = 4,
                                   .patch = 2,
                                   .max_tokens = 400,
                                   .shard_size = 16,
                                   .max_reject_fraction = 1};
}

/* Plans, prepares all ranges, finishes. Returns what prepare_finish does. */
static int prepare(const struct prepare_config *config, struct json **summary,
                   int *n_requests, struct err *err)
{
    struct fake_frames fake;
    struct frame_service service = fake_frames_service(&fake);
    int64_t n = 0, n_rejects;

    *summary = NULL;
    if (prepare_plan(config, &n, err) < 0)
        return -1;
    for (int64_t first = 0; first < n; first += config->shard_size) {
        int64_t left = n - first;

        if (prepare_range(config, &service, first,
                          left < config->shard_size ? left : config->shard_size, NULL,
                          &n_rejects, err) < 0)
            fail_msg("%s", err->text);
    }
    assert_int_equal(fake.n_taken, 0); /* every ticket was released */
    if (fake.n_requests >= FAKE_SLOTS) /* and the decoders were all busy */
        assert_int_equal(fake.most_taken, FAKE_SLOTS);
    if (n_requests)
        *n_requests = fake.n_requests;
    return prepare_finish(config, summary, err);
}

static struct dataset *prepare_and_open(const struct prepare_config *config)
{
    struct dataset *dataset = NULL;
    struct json *summary = NULL;
    struct err err;

    if (prepare(config, &summary, NULL, &err) < 0 ||
        dataset_open(&dataset, config->output, &err) < 0)
        fail_msg("%s", err.text);
    json_free(summary);
    return dataset;
}

#define ASK(video, question, answer)                                                     \
    "\"video\": " video                                                                  \
    ", \"conversations\": [{\"from\": \"human\", \"value\": \"" question                 \
    "\"}, {\"from\": \"gpt\", \"value\": \"" answer "\"}]}\n"

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
    {"[1]\n", "bad-json", "no object"},
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

static void make_media(void)
{
    struct err err;

    assert_int_equal(fs_make_dirs(in_folder("media/sub"), 0777, &err), 0);
    write_text("media/good.mp4", "frames 5");
    write_text("media/sub/other.mp4", "frames 3");
    write_text("media/junk.mp4", "junk");
    write_text("media/long.mp4", "frames 90");
}

static struct json *read_lines(const char *path)
{
    struct buf text = BUF_INIT;
    struct json *list = json_new(JSON_ARRAY), *line;
    char *save = NULL;
    struct err err;

    if (fs_read_file(&text, path, 1 << 22, &err) < 0)
        fail_msg("%s", err.text);
    for (char *at = text.data ? strtok_r(text.data, "\n", &save) : NULL; at;
         at = strtok_r(NULL, "\n", &save))
        if (json_parse(&line, at, strlen(at), &err) < 0 ||
            json_append(list, line, &err) < 0)
            fail_msg("%s", err.text);
    buf_fini(&text);
    return list;
}

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
    if (!strstr(err.text, "16 of 20 records") || !strstr(err.text, "5 media-fields") ||
        !strstr(err.text, "vneva data rejects"))
        fail_msg("%s", err.text);
    assert_true(fs_exists(in_folder("limit/rejects.jsonl")));
    assert_int_equal(dataset_open(&dataset, in_folder("limit"), &err), -1);
    config.max_reject_fraction = 0.8;
    assert_int_equal(prepare(&config, &summary, NULL, &err), 0);
    assert_int_equal(json_get_int(summary, "rejects", 0), 16);
    assert_int_equal(json_get_int(json_get(summary, "reasons"), "media-outside", 0), 2);
    json_free(summary);
}

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
                 folder, formats[i], formats[i]);
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
    snprintf(command, sizeof(command), "head -c 3000 %s/gnu.tar > %s/cut.tar", folder,
             folder);
    run_command(command);
    assert_int_equal(prepare_plan(&config, &n, &err), -1);
    if (!strstr(err.text, "cut.tar") || !strstr(err.text, "damaged"))
        fail_msg("%s", err.text);
    snprintf(command, sizeof(command),
             "sed 's/good.mp4/gxod.mp4/' %s/gnu.tar > %s/cut.tar", folder, folder);
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
               {"[{},\n,{}]", "line 2, column 2: record expected"},
               {"{}", "'[' expected"},
               {"[{}] x", "after the array"},
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
    buf_printf(&deep, "%s/%s", folder, buf_str(&name));
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

/* ---- NeMo's tokens through prepare, read and expand ---- */

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
    static const int frames[] = {1, 2, 4};
    char path[FS_PATH_MAX];
    struct json *rows;
    int n = 0;

    (void)state;
    snprintf(path, sizeof(path), "%s/tests/golden/nemo_conversations.jsonl",
             getenv("VNEVA_SOURCE"));
    rows = read_lines(path);
    for (int i = 0; i < 3; i++)
        for (int start_end = 0; start_end < 2; start_end++) {
            n += check_golden_group(rows, "v1", frames[i], start_end);
            n += check_golden_group(rows, "plain", frames[i], start_end);
        }
    assert_int_equal(n, 147);
    json_free(rows);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_reject_is_listed_with_place_and_reason),
        cmocka_unit_test(samples_hold_what_the_record_says),
        cmocka_unit_test(too_long_samples_are_rejected_not_cut),
        cmocka_unit_test(finish_fails_over_the_reject_limit_and_says_how_to_see),
        cmocka_unit_test(a_tar_gives_the_samples_of_its_folder),
        cmocka_unit_test(a_damaged_tar_is_named),
        cmocka_unit_test(json_and_jsonl_and_several_files_give_the_same_samples),
        cmocka_unit_test(files_whose_records_cannot_be_told_apart_are_refused),
        cmocka_unit_test(fifty_damaged_of_two_hundred_are_all_listed),
        cmocka_unit_test(a_medium_of_many_samples_is_asked_for_once),
        cmocka_unit_test(wrong_input_leaves_the_dataset_that_is_there),
        cmocka_unit_test(files_of_others_stay_in_the_folder),
        cmocka_unit_test(the_reject_limit_is_exact),
        cmocka_unit_test(a_path_that_is_too_long_is_the_records_fault),
        cmocka_unit_test(prepared_samples_expand_to_what_nemo_trains_on),
    };
    int failed;

    if (!mkdtemp(folder))
        return 1;
    snprintf(tokenizer_path, sizeof(tokenizer_path), "%s/tests/golden/tiny_llama.model",
             getenv("VNEVA_SOURCE"));
    make_media();
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    fs_remove_tree(folder, NULL);
    return failed;
}
