/* Datasets: what was written is read, damage is named, expansion is NeMo's. */
#include "common/base/fs.h"
#include "common/base/hash.h"
#include "dataprep/dataset/dataset.h"
#include "dataprep/dataset/manifest.h"
#include "dataprep/dataset/shard.h"

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static char folder[] = "/tmp/vneva-dataset-XXXXXX";

/* Two tokens, two media (2 and 1 frames), three tokens of which two are labels. */
static int32_t tokens[] = {11, 12, DATASET_TOKEN_MEDIA, DATASET_TOKEN_MEDIA, 13, 14, 2};
static uint8_t is_label[] = {0, 0, 0, 0, 0, 1, 1};

static void fill_sample(struct dataset_sample *out, struct dataset_media media[2],
                        char *id, uint8_t *frames)
{
    memset(media, 0, 2 * sizeof(*media));
    snprintf(media[0].ref.path, sizeof(media[0].ref.path), "a/%s.mp4", id);
    media[0].ref.start_s = 0.5;
    media[0].ref.end_s = 1.25;
    media[0].n_frames = 2;
    snprintf(media[1].ref.path, sizeof(media[1].ref.path), "b.png");
    media[1].ref.kind = MEDIA_IMAGE;
    media[1].n_frames = 1;
    *out = (struct dataset_sample){.id = id,
                                   .record = "{}",
                                   .n_media = 2,
                                   .media = media,
                                   .n_tokens = 7,
                                   .tokens = tokens,
                                   .is_label = is_label,
                                   .n_prompt = 5,
                                   .frames = frames,
                                   .n_frame_bytes = frames ? 3 * 2 * 2 * 3 : 0};
}

static void write_shard(const char *name, int64_t n_samples)
{
    struct shard_writer *writer;
    struct shard_meta meta = {.plan = 7, .n_records = n_samples + 1};
    struct shard_reject reject = {"f.jsonl", 3, "bad", "kind", "why"};
    char path[FS_PATH_MAX], id[20];
    uint8_t frames[36];
    struct err err;

    snprintf(path, sizeof(path), "%s/%s", folder, name);
    if (shard_writer_create(&writer, path, &err) < 0)
        fail_msg("%s", err.text);
    for (int64_t i = 0; i < n_samples; i++) {
        struct dataset_sample sample;
        struct dataset_media media[2];

        snprintf(id, sizeof(id), "id%d", (int)i);
        memset(frames, (int)i, sizeof(frames));
        fill_sample(&sample, media, id, frames);
        if (shard_writer_add(writer, &sample, 18, &err) < 0)
            fail_msg("%s", err.text);
    }
    if (shard_writer_reject(writer, &reject, &err) < 0 ||
        shard_writer_commit(writer, &meta, &err) < 0)
        fail_msg("%s", err.text);
    assert_int_equal(meta.n_samples, n_samples);
    assert_int_equal(meta.n_rejects, 1);
    assert_int_equal(meta.longest_tokens, n_samples ? 18 : 0);
    shard_writer_destroy(writer);
}

static const char manifest_text[] =
    "{\"version\": 1, \"n_samples\": 5, \"n_rejects\": 3, \"longest_tokens\": 18,"
    " \"fingerprint\": \"00000000000000ff\", \"settings\": {\"conv_template\": \"v1\","
    " \"tokenizer\": \"tokenizer.model\", \"extra_tokens\": [\"<x>\"],"
    " \"num_frames\": 2, \"image_size\": 2, \"patch\": 1, \"frame_tokens\": 4, "
    "\"splice\": \"none\","
    " \"aspect\": \"pad\", \"store_frames\": true, \"vocab\": 99, \"end_token\": 2,"
    " \"media_root\": \"/media\", \"media_is_tar\": false}}";

static void write_manifest(void)
{
    static const int64_t counts[] = {3, 0, 2};
    struct manifest_shard shards[3];
    char names[3][30], path[FS_PATH_MAX];
    struct json *tree = NULL;
    struct buf text = BUF_INIT;
    int64_t first = 0;
    struct err err;

    for (int i = 0; i < 3; i++) {
        struct stat st;

        snprintf(names[i], sizeof(names[i]), "shard-%05d.sqlite", i);
        write_shard(names[i], counts[i]);
        snprintf(path, sizeof(path), "%s/%s", folder, names[i]);
        assert_int_equal(stat(path, &st), 0);
        shards[i] = (struct manifest_shard){names[i], first, counts[i], st.st_size, 0};
        first += counts[i];
    }
    assert_int_equal(json_parse(&tree, manifest_text, strlen(manifest_text), &err), 0);
    assert_int_equal(manifest_add_shards(tree, shards, 3, &err), 0);
    json_write(&text, tree, 1);
    snprintf(path, sizeof(path), "%s/manifest.json", folder);
    assert_int_equal(fs_write_file_atomic(path, text.data, text.n_bytes, &err), 0);
    buf_fini(&text);
    json_free(tree);
}

static int make_dataset(void **state)
{
    (void)state;
    write_manifest();
    return 0;
}

static void samples_are_numbered_over_the_shards(void **state)
{
    static const char *const ids[] = {"id0", "id1", "id2", "id0", "id1"};
    struct dataset *dataset = NULL;
    struct dataset_sample *sample = NULL;
    struct err err;

    (void)state;
    if (dataset_open(&dataset, folder, &err) < 0)
        fail_msg("%s", err.text);
    assert_int_equal(dataset_info(dataset)->n_samples, 5);
    assert_int_equal(dataset_info(dataset)->fingerprint, 0xff);
    assert_int_equal(dataset_info(dataset)->aspect, MEDIA_ASPECT_PAD);
    assert_string_equal(dataset_info(dataset)->extra_tokens[0], "<x>");
    for (int64_t i = 0; i < 5; i++) {
        if (dataset_read(dataset, i, &sample, &err) < 0)
            fail_msg("%s", err.text);
        assert_int_equal(sample->number, i);
        assert_string_equal(sample->id, ids[i]);
        dataset_sample_free(sample);
    }
    assert_int_equal(dataset_read(dataset, 5, &sample, &err), -1);
    assert_int_equal(dataset_read(dataset, -1, &sample, &err), -1);
    dataset_close(dataset);
}

static void a_sample_comes_back_as_it_was_written(void **state)
{
    struct dataset *dataset = NULL;
    struct dataset_sample *sample = NULL;
    struct err err;

    (void)state;
    if (dataset_open(&dataset, folder, &err) < 0 ||
        dataset_read(dataset, 1, &sample, &err) < 0 || !sample) {
        fail_msg("%s", err.text);
        return;
    }
    assert_int_equal(sample->n_tokens, 7);
    assert_memory_equal(sample->tokens, tokens, sizeof(tokens));
    assert_memory_equal(sample->is_label, is_label, sizeof(is_label));
    assert_int_equal(sample->n_prompt, 5);
    assert_string_equal(sample->media[0].ref.path, "/media/a/id1.mp4");
    assert_true(sample->media[0].ref.start_s == 0.5);
    assert_true(sample->media[0].ref.end_s == 1.25);
    assert_int_equal(sample->media[0].n_frames, 2);
    assert_int_equal(sample->media[1].ref.kind, MEDIA_IMAGE);
    assert_int_equal(sample->n_frame_bytes, 36);
    assert_int_equal(sample->frames[35], 1);
    dataset_sample_free(sample);
    dataset_close(dataset);
}

static void expansion_repeats_media_and_shifts_labels(void **state)
{
    static const int64_t n_frames[] = {2, 1};
    static const int32_t want_tokens[] = {11, 12, -1, -1, -1, -1, -1, -1, 13, 14};
    static const int32_t want_labels[] = {-1, -1, -1, -1, -1, -1, -1, -1, 14, 2};
    struct dataset_sample sample;
    struct dataset_media media[2];
    int32_t out_tokens[10], out_labels[10];
    int64_t n = 0;
    struct err err;

    (void)state;
    fill_sample(&sample, media, "x", NULL);
    if (dataset_expand(&sample, n_frames, 2, out_tokens, out_labels, 10, &n, &err) < 0)
        fail_msg("%s", err.text);
    assert_int_equal(n, 10);
    assert_memory_equal(out_tokens, want_tokens, sizeof(want_tokens));
    assert_memory_equal(out_labels, want_labels, sizeof(want_labels));
    assert_int_equal(
        dataset_expand(&sample, n_frames, 2, out_tokens, out_labels, 9, &n, &err), -1);
    assert_int_equal(err.code, ERR_LIMIT);
    assert_int_equal(n, 10);
    sample.n_media = 1;
    assert_int_equal(
        dataset_expand(&sample, n_frames, 2, out_tokens, out_labels, 10, &n, &err), -1);
}

static void the_same_samples_give_the_same_bytes(void **state)
{
    uint64_t a = 0, b = 1;
    char path[FS_PATH_MAX];
    struct err err;

    (void)state;
    snprintf(path, sizeof(path), "%s/shard-00000.sqlite", folder);
    assert_int_equal(manifest_hash_file(&a, path, &err), 0);
    write_shard("shard-00000.sqlite", 3);
    assert_int_equal(manifest_hash_file(&b, path, &err), 0);
    assert_true(a == b);
}

/* Every byte of the shard flipped in turn: an error or the sample as it was. */
static void damage_is_named_and_never_read_as_data(void **state)
{
    char path[FS_PATH_MAX];
    struct buf good = BUF_INIT;
    int n_found = 0;
    struct err err;

    (void)state;
    snprintf(path, sizeof(path), "%s/shard-00002.sqlite", folder);
    assert_int_equal(fs_read_file(&good, path, 1 << 20, &err), 0);
    for (size_t at = 0; at < good.n_bytes; at += 13) {
        struct dataset *dataset = NULL;
        struct dataset_sample *sample = NULL;
        FILE *file = fopen(path, "r+b");

        assert_non_null(file);
        fseek(file, (long)at, SEEK_SET);
        fputc(good.data[at] ^ 0x41, file);
        fclose(file);
        assert_int_equal(dataset_open(&dataset, folder, &err), 0);
        if (dataset_read(dataset, 4, &sample, &err) == 0) {
            assert_memory_equal(sample->tokens, tokens, sizeof(tokens));
            assert_int_equal(sample->frames[7], 1);
        } else {
            n_found++;
            if (!strstr(err.text, "shard-00002"))
                fail_msg("byte %zu: %s", at, err.text);
        }
        dataset_sample_free(sample);
        dataset_close(dataset);
        file = fopen(path, "r+b");
        fseek(file, (long)at, SEEK_SET);
        fputc(good.data[at], file);
        fclose(file);
    }
    assert_true(n_found > 10);
    buf_fini(&good);
}

static void a_folder_that_is_not_there_is_the_cause_told(void **state)
{
    struct shard_writer *writer = NULL;
    struct err err = {0};

    (void)state;
    assert_int_equal(shard_writer_create(&writer, "/no/such/shard", &err), -1);
    if (!strstr(err.text, "cannot create the database: No such file or directory"))
        fail_msg("%s", err.text);
}

static void a_missing_or_cut_shard_is_named_at_opening(void **state)
{
    struct dataset *dataset = NULL;
    char path[FS_PATH_MAX];
    struct err err;

    (void)state;
    snprintf(path, sizeof(path), "%s/shard-00001.sqlite", folder);
    assert_int_equal(truncate(path, 100), 0);
    assert_int_equal(dataset_open(&dataset, folder, &err), -1);
    assert_non_null(strstr(err.text, "shard-00001"));
    unlink(path);
    assert_int_equal(dataset_open(&dataset, folder, &err), -1);
    assert_non_null(strstr(err.text, "shard-00001"));
    assert_int_equal(dataset_open(&dataset, "/nowhere", &err), -1);
    assert_int_equal(err.code, ERR_NOT_FOUND);
    write_shard("shard-00001.sqlite", 0);
}

static void a_manifest_that_does_not_fit_is_refused(void **state)
{
    static const char counts[] =
        "{\"version\": 1, \"n_samples\": 1, \"n_rejects\": 0, \"longest_tokens\": 1}";
    static const char no_hash[] =
        "{\"version\": 1, \"n_samples\": 1, \"n_rejects\": 0, \"longest_tokens\": 1,"
        " \"fingerprint\": \"zz\"}";
    static const char *const bad[] = {"", "{}", "{\"version\": 2}", counts, no_hash};
    struct dataset *dataset = NULL;
    char path[FS_PATH_MAX];
    struct err err;

    (void)state;
    snprintf(path, sizeof(path), "%s/manifest.json", folder);
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        assert_int_equal(fs_write_file_atomic(path, bad[i], strlen(bad[i]), &err), 0);
        assert_int_equal(dataset_open(&dataset, folder, &err), -1);
        assert_non_null(strstr(err.text, "manifest.json"));
    }
    /* settings are there, but the shards hold fewer samples than it says */
    assert_int_equal(
        fs_write_file_atomic(path, manifest_text, strlen(manifest_text), &err), 0);
    assert_int_equal(dataset_open(&dataset, folder, &err), -1);
    assert_non_null(strstr(err.text, "5"));
}

/* A manifest without samples, with these words among its settings. */
static void open_with(struct dataset **out, const char *words)
{
    char path[FS_PATH_MAX], text[1000];
    struct err err;

    snprintf(path, sizeof(path), "%s/manifest.json", folder);
    snprintf(text, sizeof(text),
             "{\"version\": 1, \"n_samples\": 0, \"n_rejects\": 0, \"longest_tokens\": 0,"
             " \"fingerprint\": \"00000000000000ff\", \"shards\": [], \"settings\": {"
             "\"conv_template\": \"v1\", \"tokenizer\": \"tokenizer.model\","
             " \"num_frames\": 2, \"image_size\": 2, \"patch\": 1, \"splice\": \"none\","
             " \"vocab\": 99, \"end_token\": 2, \"media_root\": \"/m\", %s}}",
             words);
    assert_int_equal(fs_write_file_atomic(path, text, strlen(text), &err), 0);
    if (dataset_open(out, folder, &err) < 0)
        fail_msg("%s", err.text);
}

/* "square" was resized straight, as SigLIP's processor does, before manifests named one:
 * frames stored then are not taken for CLIP's. */
static void older_manifests_say_how_their_frames_were_made(void **state)
{
    static const struct {
        const char *words;
        enum media_processor processor;
    } rows[] = {
        {"\"aspect\": \"square\"", MEDIA_PROCESSOR_SIGLIP},
        {"\"aspect\": \"pad\"", MEDIA_PROCESSOR_CLIP},
        {"\"aspect\": \"square\", \"processor\": \"clip\"", MEDIA_PROCESSOR_CLIP},
        {"\"aspect\": \"pad\", \"processor\": \"siglip\"", MEDIA_PROCESSOR_SIGLIP},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        struct dataset *dataset = NULL;

        open_with(&dataset, rows[i].words);
        assert_int_equal(dataset_info(dataset)->processor, rows[i].processor);
        dataset_close(dataset);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(samples_are_numbered_over_the_shards),
        cmocka_unit_test(a_sample_comes_back_as_it_was_written),
        cmocka_unit_test(expansion_repeats_media_and_shifts_labels),
        cmocka_unit_test(the_same_samples_give_the_same_bytes),
        cmocka_unit_test(damage_is_named_and_never_read_as_data),
        cmocka_unit_test(a_folder_that_is_not_there_is_the_cause_told),
        cmocka_unit_test(a_missing_or_cut_shard_is_named_at_opening),
        cmocka_unit_test(a_manifest_that_does_not_fit_is_refused),
        cmocka_unit_test(older_manifests_say_how_their_frames_were_made),
    };
    int failed;

    if (!mkdtemp(folder))
        return 1;
    failed = cmocka_run_group_tests(tests, make_dataset, NULL);
    fs_remove_tree(folder, NULL);
    return failed;
}
