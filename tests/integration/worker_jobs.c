/* Whole jobs through a real coordinator, agent and ranks: prepare, train, evaluate. */
#include "common/base/fs.h"
#include "model/checkpoint/checkpoint.h"
#include "tests/integration/worker_data.h"
#include "tests/integration/worker_home.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void expect_file(const struct home *home, int64_t job, const char *name)
{
    char path[FS_PATH_MAX];
    struct err err = {0};

    assert_int_equal(
        fs_path(path, &err, "%s/jobs/%lld/%s", home->folder, (long long)job, name), 0);
    if (!fs_exists(path))
        fail_msg("'%s' is not there", path);
}

/* A checkpoint can be asked by itself: it has the dataset's tokenizer, and says how the
 * conversations were laid out. */
static void expect_complete(const char *checkpoint, const char *dataset)
{
    struct buf want = BUF_INIT, got = BUF_INIT;
    char path[FS_PATH_MAX];
    struct json *meta;
    struct err err = {0};

    assert_int_equal(fs_path(path, &err, "%s/tokenizer.model", dataset), 0);
    assert_int_equal(fs_read_file(&want, path, SIZE_MAX, &err), 0);
    assert_int_equal(fs_path(path, &err, "%s/tokenizer.model", checkpoint), 0);
    assert_int_equal(fs_read_file(&got, path, SIZE_MAX, &err), 0);
    assert_int_equal(got.n_bytes, want.n_bytes);
    assert_memory_equal(got.data, want.data, want.n_bytes);
    assert_int_equal(checkpoint_read_meta(&meta, checkpoint, &err), 0);
    assert_string_equal(json_get_string(json_get(meta, "prompt"), "template"), "v1");
    assert_true(json_get_int(json_get(meta, "prompt"), "end_token", -1) > 0);
    json_free(meta);
    buf_fini(&want);
    buf_fini(&got);
}

/* vneva generate says, line for line, what the evaluation of the run said. */
static void expect_same_answers(const struct home *home, int64_t evaluation,
                                const char *run)
{
    struct buf want = BUF_INIT, got = BUF_INIT;
    char command[2048], path[FS_PATH_MAX];
    struct err err = {0};

    snprintf(command, sizeof(command),
             "'%s/vneva-generate' --model '%s' --precision 32 --questions "
             "'%s/clips/annotations.jsonl' >'%s/said.jsonl'",
             getenv("VNEVA_BIN"), run, home->folder, home->folder);
    // NOLINTNEXTLINE(concurrency-mt-unsafe,cert-env33-c): as a person would run it
    assert_int_equal(system(command), 0);
    assert_int_equal(fs_path(path, &err, "%s/said.jsonl", home->folder), 0);
    assert_int_equal(fs_read_file(&got, path, SIZE_MAX, &err), 0);
    assert_int_equal(fs_path(path, &err, "%s/jobs/%lld/results.jsonl", home->folder,
                             (long long)evaluation),
                     0);
    assert_int_equal(fs_read_file(&want, path, SIZE_MAX, &err), 0);
    assert_string_equal(buf_str(&got), buf_str(&want));
    buf_fini(&want);
    buf_fini(&got);
}

/* keys: more of the specs of prepare and training, or NULL. */
static void prepare_train_and_ask(const char *const *keys)
{
    struct home home;
    struct buf spec = BUF_INIT;
    char dataset[128], run[128], checkpoint[256];
    struct json *row;
    int64_t job;

    home_init(&home, 2);
    home_prepare(&home, keys, dataset, sizeof(dataset));
    job = home_submit_training(&home, dataset, keys);
    home_wait_done(&home, job);
    expect_file(&home, job, "samples.log");
    home_last_checkpoint(&home, job, checkpoint, sizeof(checkpoint));
    assert_non_null(strstr(checkpoint, "step-00000012"));
    assert_true(fs_is_dir(checkpoint));
    expect_complete(checkpoint, dataset);
    snprintf(run, sizeof(run), "%s/jobs/%lld", home.folder, (long long)job);
    data_spec_evaluate(&spec, run, dataset, NULL);
    job = home_submit(&home, "evaluate", buf_str(&spec));
    home_wait_done(&home, job);
    buf_fini(&spec);
    expect_file(&home, job, "results.jsonl");
    expect_file(&home, job, "table.json");
    expect_file(&home, job, "examples/examples.json");
    row = home_job(&home, job);
    assert_int_equal(json_get_int(json_get(row, "result"), "n", 0), DATA_QUESTIONS);
    /* it was asked what it was trained on */
    assert_non_null(json_get_string(json_get(row, "result"), "trained_on"));
    json_free(row);
    expect_same_answers(&home, job, run);
    home_fini(&home);
}

static void clips_are_prepared_trained_on_and_asked_about(void **state)
{
    (void)state;
    prepare_train_and_ask(NULL);
}

/* A grid of 3 x 3 patches and two pixels over: 4 tokens a frame. */
static void with_siglip_and_joined_patches_too(void **state)
{
    static const char *const keys[] = {
        "model.mm_cfg.vision_encoder.model_type=siglip",
        "model.mm_cfg.vision_encoder.crop_size=50",
        "model.mm_cfg.vision_encoder.patch_dim=16",
        "model.mm_cfg.vision_encoder.vision_select_feature=cls_patch",
        "model.mm_cfg.mm_mlp_adapter_type=mlp_downsample",
        NULL,
    };

    (void)state;
    prepare_train_and_ask(keys);
}

static void with_clip_s_class_token_too(void **state)
{
    static const char *const keys[] = {
        "model.mm_cfg.vision_encoder.vision_select_feature=cls_patch",
        "model.mm_cfg.vision_encoder.class_token_length=1",
        "model.mm_cfg.vision_encoder.vision_select_layer=0",
        NULL,
    };

    (void)state;
    prepare_train_and_ask(keys);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(clips_are_prepared_trained_on_and_asked_about),
        cmocka_unit_test(with_siglip_and_joined_patches_too),
        cmocka_unit_test(with_clip_s_class_token_too),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
