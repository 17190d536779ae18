/* Validation on a device, as the stand-ins count it (tests/cuda_host/counts.h): the host waits
 * once, and frames come ahead; what it gives is what `ref` does. */
#define _GNU_SOURCE /* mkdtemp */
#include "common/base/fs.h"
#include "dataprep/dataset/manifest.h"
#include "dataprep/dataset/shard.h"
#include "tests/cuda_host/counts.h"
#include "tests/op/tiny.h"
#include "worker/rank/validation.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#define MICRO 2
#define N_MICRO 6
#define SAMPLES (MICRO * N_MICRO) /* 12: in `settings` too */
#define SIZE 8                    /* of tiny_config's frames; in `settings` too */
#define FRAME_BYTES ((size_t)SIZE * SIZE * 3)
#define TEXT_MAX 18 /* tokens, but those of the frame */
#define SAME 1e-5

static char folder[] = "/tmp/vneva-validation-XXXXXX";

static void must(int rc, const struct err *err)
{
    if (rc < 0)
        fail_msg("%s", err->text);
}

/* ---- the dataset: its frames are stored, so no decoders are needed ---- */

static void write_samples(const char *path)
{
    struct shard_writer *writer = NULL;
    struct shard_meta meta = {.n_records = SAMPLES};
    struct err err = {0};

    must(shard_writer_create(&writer, path, &err), &err);
    for (int i = 0; i < SAMPLES; i++) {
        struct dataset_media media = {.ref = {.path = "a.png", .kind = MEDIA_IMAGE},
                                      .n_frames = 1};
        int n_text = i / MICRO % 2 ? TEXT_MAX : TEXT_MAX / 2; /* two shapes, in turn */
        int32_t tokens[1 + TEXT_MAX] = {DATASET_TOKEN_MEDIA};
        uint8_t is_label[1 + TEXT_MAX] = {0}, frames[FRAME_BYTES];
        char id[] = "sample";
        struct dataset_sample sample = {
            .id = id,
            .record = "{}",
            .n_media = 1,
            .media = &media,
            .n_tokens = 1 + n_text,
            .tokens = tokens,
            .is_label = is_label,
            .n_prompt = 4,
            .frames = frames,
            .n_frame_bytes = FRAME_BYTES,
        };

        for (int t = 1; t <= n_text; t++) {
            tokens[t] = (7 * i + 11 * t) % 61;
            is_label[t] = t >= 4 && (i + t) % 3 > 0;
        }
        for (size_t k = 0; k < FRAME_BYTES; k++)
            frames[k] = (uint8_t)((size_t)(37 * i + 1) * (k + 5));
        must(shard_writer_add(writer, &sample, n_text + 4 - 1, &err), &err);
    }
    must(shard_writer_commit(writer, &meta, &err), &err);
    shard_writer_destroy(writer);
}

static const char settings[] =
    "{\"version\": 1, \"n_samples\": 12, \"n_rejects\": 0, \"longest_tokens\": 21,"
    " \"fingerprint\": \"00000000000000ff\", \"settings\": {\"conv_template\": \"v1\","
    " \"tokenizer\": \"tokenizer.model\", \"num_frames\": 1, \"image_size\": 8,"
    " \"patch\": 4, \"frame_tokens\": 4, \"splice\": \"none\", \"aspect\": \"pad\","
    " \"processor\": \"clip\", \"store_frames\": true, \"vocab\": 61, \"end_token\": 2,"
    " \"media_root\": \"/media\", \"media_is_tar\": false}}";

static int setup(void **state)
{
    char path[FS_PATH_MAX], name[] = "shard-00000.sqlite";
    struct manifest_shard shard = {.file = name, .n_samples = SAMPLES};
    struct json *tree = NULL;
    struct buf text = BUF_INIT;
    struct stat st;
    struct err err = {0};

    (void)state;
    if (!mkdtemp(folder) || fs_path(path, &err, "%s/%s", folder, name) < 0)
        return -1;
    write_samples(path);
    if (stat(path, &st) < 0 || json_parse(&tree, settings, strlen(settings), &err) < 0)
        return -1;
    shard.n_bytes = st.st_size;
    must(manifest_add_shards(tree, &shard, 1, &err), &err);
    json_write(&text, tree, 1);
    must(fs_path(path, &err, "%s/manifest.json", folder), &err);
    must(fs_write_file_atomic(path, text.data, text.n_bytes, &err), &err);
    buf_fini(&text);
    json_free(tree);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    return fs_remove_tree(folder, NULL);
}

/* ---- a rank that could train on it, too ---- */

/* One rank; its backend's table is a copy, so that what it brings ahead is counted. */
struct bench {
    struct rank rank;
    struct engine engine;
    struct validation validation;
    struct order order; /* of training's samples */
    struct loader *training;
    struct backend_ops ops;
};

static int (*real_ahead_upload)(struct backend *b, void *dst, const void *host,
                                size_t n_bytes, struct err *err);
static int n_brought;

static int counted_ahead_upload(struct backend *b, void *dst, const void *host,
                                size_t n_bytes, struct err *err)
{
    n_brought += n_bytes > 0;
    return real_ahead_upload(b, dst, host, n_bytes, err);
}

static int64_t training_numbers(void *state, int64_t k, int64_t *out)
{
    const struct bench *bench = state;

    order_train_batch(&bench->order, k, out);
    return MICRO;
}

static void open_rank(struct bench *bench, const char *backend)
{
    struct engine *engine = &bench->engine;
    struct json *peers = json_new(JSON_ARRAY);
    struct err err = {0};

    must(layout_make(&bench->rank.layout, 1, 0, 1, &err), &err);
    must(groups_open(&bench->rank.groups, &bench->rank.layout, "here", "127.0.0.1", &err),
         &err);
    must(json_append(peers, json_new_string("here"), &err), &err);
    must(groups_connect(bench->rank.groups, peers, "one", NULL, &err), &err);
    json_free(peers);
    engine->rank = &bench->rank;
    engine->model_config = tiny_config();
    engine->frames = (struct frame_config){.num_frames = 1,
                                           .aspect = MEDIA_ASPECT_PAD,
                                           .image_size = SIZE,
                                           .frame_tokens = 4,
                                           .max_tokens = engine->model_config.max_tokens};
    must(backend_create(&engine->backend, backend, 0, 1, &err), &err);
    bench->ops = *engine->backend->ops;
    real_ahead_upload = bench->ops.ahead_upload;
    if (real_ahead_upload)
        bench->ops.ahead_upload = counted_ahead_upload;
    engine->backend->ops = &bench->ops;
    must(neva_create(&engine->model, &engine->model_config, engine->backend,
                     groups_tensor(bench->rank.groups), &err),
         &err);
}

static void bench_open(struct bench *bench, const char *backend)
{
    struct validation *validation = &bench->validation;
    struct loader_config config = {
        .capacity = MICRO, .n_ahead = 1, .state = bench, .numbers = training_numbers};
    const char *dataset = folder;
    struct err err = {0};

    *bench = (struct bench){0};
    open_rank(bench, backend);
    validation->engine = &bench->engine;
    bench->order = (struct order){
        .n_samples = SAMPLES, .micro = MICRO, .global = MICRO, .n_data = 1};
    validation->order = bench->order;
    must(corpus_open(&validation->feed.corpus, &dataset, 1, &err), &err);
    config.source = (struct batch_source){.corpus = validation->feed.corpus,
                                          .frames = &bench->engine.frames,
                                          .service = &validation->feed.service,
                                          .model = bench->engine.model};
    must(loader_create(&bench->training, &config, &err), &err);
}

static void bench_close(struct bench *bench)
{
    loader_destroy(bench->training);
    validation_close(&bench->validation);
    engine_close(&bench->engine);
    groups_close(bench->rank.groups);
}

static double run(struct bench *bench)
{
    struct err err = {0};
    double loss = 0;

    if (validation_run(&bench->validation, &loss, bench->training, &err) < 0)
        fail_msg("%s", err.text);
    return loss;
}

static double loss_on(const char *backend)
{
    struct bench bench;
    double loss;

    bench_open(&bench, backend);
    loss = run(&bench);
    bench_close(&bench);
    return loss;
}

/* ---- tests ---- */

/* What is made once is made by the first. Every micro batch but its first comes ahead, and
 * at the end the one that training goes on with. */
static void validation_waits_once_and_brings_frames_ahead(void **state)
{
    struct cuda_host_counts before;
    struct bench bench;
    double first;

    (void)state;
    bench_open(&bench, "cuda");
    first = run(&bench);
    before = cuda_host_counts();
    n_brought = 0;
    assert_true(run(&bench) == first);
    assert_int_equal(cuda_host_counts().n_waits - before.n_waits, 1);
    assert_int_equal(n_brought, N_MICRO - 1 + 1);
    bench_close(&bench);
}

static void it_loses_the_same_on_every_backend(void **state)
{
    double want = loss_on("ref");

    (void)state;
    assert_true(want > 1);
    assert_float_equal(loss_on("cpu") / want, 1, SAME);
    assert_float_equal(loss_on("cuda") / want, 1, SAME);
}

static void one_that_failed_leaves_nothing(void **state)
{
    struct err err = {0};
    struct bench bench;
    double loss, want;

    (void)state;
    bench_open(&bench, "cpu");
    want = run(&bench);
    bench.validation.order.n_samples = SAMPLES + 1; /* there is no such sample */
    assert_int_equal(validation_run(&bench.validation, &loss, bench.training, &err), -1);
    bench.validation.order.n_samples = SAMPLES;
    assert_true(run(&bench) == want);
    bench_close(&bench);
}

/* Fewer samples than data-parallel ranks: this one has none. */
static void of_no_samples_there_is_no_loss(void **state)
{
    struct bench bench;

    (void)state;
    bench_open(&bench, "cuda");
    bench.validation.order.n_samples = MICRO;
    bench.validation.order.n_data = 2;
    assert_true(run(&bench) > 1);
    bench.validation.order.data_rank = 1;
    assert_true(isnan(run(&bench)));
    bench_close(&bench);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(validation_waits_once_and_brings_frames_ahead),
        cmocka_unit_test(it_loses_the_same_on_every_backend),
        cmocka_unit_test(one_that_failed_leaves_nothing),
        cmocka_unit_test(of_no_samples_there_is_no_loss),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
