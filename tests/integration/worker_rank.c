/* Real ranks under a scripted agent: prepare, train, go on, evaluate. */
#define _GNU_SOURCE /* mkdtemp */
#include "common/base/fs.h"
#include "common/base/json.h"
#include "model/checkpoint/checkpoint.h"
#include "tests/integration/worker_data.h"
#include "tests/integration/worker_gang.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct world {
    char folder[64];
    char dataset[128];
};

static struct json *parse(const char *text)
{
    struct json *json = NULL;
    struct err err = {0};

    if (json_parse(&json, text, strlen(text), &err) < 0)
        fail_msg("%s in '%s'", err.text, text);
    return json;
}

static void read_file(struct buf *out, const char *path)
{
    struct err err = {0};

    if (fs_read_file(out, path, 1 << 26, &err) < 0)
        fail_msg("%s", err.text);
}

static void sub_folder(char out[128], const struct world *world, const char *name)
{
    snprintf(out, 128, "%s/%s", world->folder, name);
}

/* ---- prepare ---- */

/* Runs the leases of a prepare job; the result of the last. */
static struct json *run_prepare(const struct world *world, const char *output,
                                const char *const *more)
{
    struct buf spec = BUF_INIT, result = BUF_INIT;
    struct json *plan, *json;
    struct gang gang;
    char job[128];
    int64_t n;

    sub_folder(job, world, "prepare-job");
    data_spec_prepare(&spec, world->folder, output, more);
    gang_start(&gang, job, "prepare", buf_str(&spec), 1, 1, "", NULL);
    gang_do(&gang, "plan", 0, 0, "{}", &result);
    plan = parse(buf_str(&result));
    n = json_get_int(plan, "n_samples", -1);
    json_free(plan);
    for (int64_t first = 0; first < n; first += 20) {
        buf_reset(&result);
        gang_do(&gang, "work", first, n - first < 20 ? n - first : 20, "{}", &result);
    }
    buf_reset(&result);
    gang_do(&gang, "finish", 0, n, "{}", &result);
    gang_finish(&gang);
    json = parse(buf_str(&result));
    gang_fini(&gang);
    buf_fini(&spec);
    buf_fini(&result);
    return json;
}

static int setup_world(void **state)
{
    struct world *world = calloc(1, sizeof(*world));
    struct json *result;

    strcpy(world->folder, "/tmp/vneva-rank-XXXXXX");
    if (!mkdtemp(world->folder))
        return -1;
    sub_folder(world->dataset, world, "dataset");
    data_make(world->folder);
    result = run_prepare(world, world->dataset, NULL);
    assert_int_equal(json_get_int(result, "n_samples", 0), DATA_QUESTIONS);
    assert_int_equal(json_get_int(result, "n_rejects", -1), 0);
    assert_string_equal(json_get_string(result, "path"), world->dataset);
    assert_int_equal(strlen(json_get_string(result, "fingerprint")), 16);
    json_free(result);
    *state = world;
    return 0;
}

static int teardown_world(void **state)
{
    struct world *world = *state;

    if (!getenv("VNEVA_TEST_KEEP"))
        fs_remove_tree(world->folder, NULL);
    free(world);
    return 0;
}

/* ---- train ---- */

static void start_training(struct gang *gang, const struct world *world, const char *job,
                           int n_ranks, int64_t attempt, const char *resume,
                           const char *const *hosts, const char *const *more)
{
    struct buf spec = BUF_INIT;
    char folder[128];

    sub_folder(folder, world, job);
    data_spec_train(&spec, world->folder, world->dataset, more);
    gang_start(gang, folder, "pretrain", buf_str(&spec), n_ranks, attempt, resume, hosts);
    buf_fini(&spec);
}

/* One lease of steps; the path of the checkpoint it ends with (copied into path). */
static void do_steps(struct gang *gang, int64_t first, int64_t count, char path[256])
{
    struct buf result = BUF_INIT;
    struct json *json, *checkpoint;

    gang_do(gang, "work", first, count, "{}", &result);
    json = parse(buf_str(&result));
    checkpoint = json_get(json, "checkpoint");
    assert_int_equal(json_get_int(checkpoint, "step", -1), first + count);
    assert_int_equal(json_get_int(checkpoint, "consumed_samples", -1),
                     (first + count) * 8);
    snprintf(path, 256, "%s", json_get_string(checkpoint, "path"));
    json_free(json);
    buf_fini(&result);
}

static bool is_same_file(const char *folder_a, const char *folder_b, const char *name)
{
    struct buf a = BUF_INIT, b = BUF_INIT;
    char path[512];
    bool is_same;

    snprintf(path, sizeof(path), "%s/%s", folder_a, name);
    read_file(&a, path);
    snprintf(path, sizeof(path), "%s/%s", folder_b, name);
    read_file(&b, path);
    assert_true(a.n_bytes > 0);
    is_same = a.n_bytes == b.n_bytes && memcmp(a.data, b.data, a.n_bytes) == 0;
    buf_fini(&a);
    buf_fini(&b);
    return is_same;
}

static void expect_same_file(const char *folder_a, const char *folder_b, const char *name)
{
    if (!is_same_file(folder_a, folder_b, name))
        fail_msg("'%s' and '%s' have another %s", folder_a, folder_b, name);
}

/* "loss_scale" of the meta of two checkpoints. */
static void expect_same_scale(const char *folder_a, const char *folder_b)
{
    const char *folders[] = {folder_a, folder_b};
    struct buf text[2] = {BUF_INIT, BUF_INIT};
    struct err err = {0};

    for (int i = 0; i < 2; i++) {
        struct json *meta = NULL;

        assert_int_equal(checkpoint_read_meta(&meta, folders[i], &err), 0);
        assert_true(json_get_int(json_get(meta, "loss_scale"), "skipped_steps", 0) > 0);
        json_write(&text[i], json_get(meta, "loss_scale"), 0);
        json_free(meta);
    }
    assert_string_equal(buf_str(&text[0]), buf_str(&text[1]));
    buf_fini(&text[0]);
    buf_fini(&text[1]);
}

static const char *const one[] = {"trainer.devices=1",
                                  "model.tensor_model_parallel_size=1", NULL};
static const char *const two_tensor[] = {"trainer.devices=2",
                                         "model.tensor_model_parallel_size=2", NULL};
static const char *const two_data[] = {"trainer.devices=2",
                                       "model.tensor_model_parallel_size=1", NULL};

/* Twelve steps in three leases of one attempt. */
static void train_through(const struct world *world, const char *job,
                          const char *const *more, const char *const *hosts,
                          char path[256])
{
    struct gang gang;

    start_training(&gang, world, job, 2, 1, "", hosts, more);
    for (int64_t first = 0; first < 12; first += 4)
        do_steps(&gang, first, 4, path);
    gang_finish(&gang);
    assert_non_null(strstr(buf_str(&gang.metrics), "\"loss\""));
    assert_non_null(strstr(buf_str(&gang.metrics), "\"val_loss\""));
    assert_non_null(strstr(buf_str(&gang.metrics), "\"videos_on_cpu\""));
    gang_fini(&gang);
}

static void resumed_training_equals_the_one_left_alone(void **state)
{
    const struct world *world = *state;
    char whole[256], half[256], rest[256], a[128], b[128];
    struct gang gang;

    train_through(world, "whole", two_tensor, NULL, whole);
    start_training(&gang, world, "halves", 2, 1, "", NULL, two_tensor);
    do_steps(&gang, 0, 4, half);
    gang_lease(&gang, "work", 4, 4, "{}");
    gang_signal(&gang, 1, SIGKILL);
    gang_fini(&gang);
    start_training(&gang, world, "halves", 2, 2, half, NULL, two_tensor);
    do_steps(&gang, 4, 4, rest);
    do_steps(&gang, 8, 4, rest);
    gang_finish(&gang);
    gang_fini(&gang);
    expect_same_file(whole, rest, "tensors-0000.safetensors");
    expect_same_file(whole, rest, "tensors-0001.safetensors");
    sub_folder(a, world, "whole");
    sub_folder(b, world, "halves");
    expect_same_file(a, b, "samples.log");
}

/* A first scale so large that the first steps overflow and more come behind: what is skipped
 * before and after the checkpoint is the same as in one go. */
static void fp16_training_resumes_with_its_loss_scale(void **state)
{
    static const char *const more[] = {"trainer.devices=2",
                                       "model.tensor_model_parallel_size=1",
                                       "trainer.precision=16",
                                       "trainer.log_every_n_steps=1",
                                       "trainer.limit_val_batches=0",
                                       "model.native_amp_init_scale=131072",
                                       "model.native_amp_growth_interval=3",
                                       NULL};
    const struct world *world = *state;
    char whole[256], half[256], rest[256];
    struct gang gang;

    start_training(&gang, world, "scaled", 2, 1, "", NULL, more);
    for (int64_t first = 0; first < 12; first += 4)
        do_steps(&gang, first, 4, whole);
    gang_finish(&gang);
    assert_non_null(strstr(buf_str(&gang.metrics), "\"loss_scale\": 131072"));
    assert_non_null(strstr(buf_str(&gang.metrics), "\"loss_scale\": 65536"));
    assert_non_null(strstr(buf_str(&gang.metrics), "\"skipped_steps\": 2"));
    gang_fini(&gang);
    start_training(&gang, world, "scaled-halves", 2, 1, "", NULL, more);
    do_steps(&gang, 0, 4, half);
    gang_finish(&gang);
    gang_fini(&gang);
    start_training(&gang, world, "scaled-halves", 2, 2, half, NULL, more);
    do_steps(&gang, 4, 4, rest);
    do_steps(&gang, 8, 4, rest);
    gang_finish(&gang);
    gang_fini(&gang);
    expect_same_file(whole, rest, "tensors-0000.safetensors");
    expect_same_scale(whole, rest);
}

static void sigterm_ends_the_step_with_a_checkpoint(void **state)
{
    const struct world *world = *state;
    struct buf result = BUF_INIT;
    struct json *json;
    struct gang gang;
    char path[256], rest[256], whole[256];
    int64_t step;

    start_training(&gang, world, "term", 2, 1, "", NULL, two_tensor);
    gang_lease(&gang, "work", 0, 12, "{}");
    gang_wait_step(&gang, 2);
    gang_signal(&gang, 1, SIGTERM); /* one rank alone: the other agrees */
    assert_int_equal(gang_answer(&gang, &result), 1);
    gang_wait_end(&gang);
    assert_int_equal(gang.statuses[0], 0);
    assert_int_equal(gang.statuses[1], 0);
    gang_fini(&gang);
    json = parse(buf_str(&result));
    step = json_get_int(json_get(json, "checkpoint"), "step", -1);
    snprintf(path, sizeof(path), "%s",
             json_get_string(json_get(json, "checkpoint"), "path"));
    assert_in_range(step, 2, 12);
    json_free(json);
    buf_fini(&result);
    if (step == 12)
        return; /* it was done before the signal came */
    start_training(&gang, world, "term", 2, 2, path, NULL, two_tensor);
    do_steps(&gang, step, 12 - step, rest);
    gang_finish(&gang);
    gang_fini(&gang);
    train_through(world, "term-whole", two_tensor, NULL, whole);
    expect_same_file(whole, rest, "tensors-0000.safetensors");
}

static void data_parallel_ranks_take_the_same_samples(void **state)
{
    const struct world *world = *state;
    char path[256], a[128], b[128];

    train_through(world, "tensor", two_tensor, NULL, path);
    train_through(world, "data", two_data, NULL, path);
    sub_folder(a, world, "tensor");
    sub_folder(b, world, "data");
    expect_same_file(a, b, "samples.log");
}

static void ranks_of_two_hosts_meet_over_the_mesh(void **state)
{
    static const char *const hosts[] = {"one", "two"};
    const struct world *world = *state;
    char shared[256], meshed[256];

    train_through(world, "one-host", two_tensor, NULL, shared);
    train_through(world, "two-hosts", two_tensor, hosts, meshed);
    expect_same_file(shared, meshed, "tensors-0000.safetensors");
}

/* ---- validation ---- */

#define SAME 1e-5 /* two steps, whose sums have other orders, lie before */

/* The n values of a metric that were told first, in order. */
static void read_metric(const struct gang *gang, const char *name, double *values, int n)
{
    const char *at = buf_str(&gang->metrics);
    char key[32];

    snprintf(key, sizeof(key), "\"%s\":", name);
    for (int i = 0; i < n; i++) {
        at = strstr(at, key);
        assert_non_null(at);
        at += strlen(key);
        values[i] = strtod(at, NULL);
        assert_true(values[i] > 0);
    }
}

/* Of all samples, after two steps: twelve micro batches of one rank, six of each of two. */
static double validation_loss(const struct world *world, const char *job, int n_ranks,
                              const char *const layout[2])
{
    const char *const more[] = {layout[0], layout[1], "trainer.val_check_interval=2",
                                "trainer.limit_val_batches=1.0", NULL};
    struct gang gang;
    char path[256];
    double loss;

    start_training(&gang, world, job, n_ranks, 1, "", NULL, more);
    do_steps(&gang, 0, 2, path);
    gang_finish(&gang);
    read_metric(&gang, "val_loss", &loss, 1);
    gang_fini(&gang);
    return loss;
}

static void every_layout_validates_to_the_same_loss(void **state)
{
    const struct world *world = *state;
    double loss = validation_loss(world, "valid-one", 1, one);

    assert_float_equal(validation_loss(world, "valid-data", 2, two_data) / loss, 1, SAME);
    assert_float_equal(validation_loss(world, "valid-tensor", 2, two_tensor) / loss, 1,
                       SAME);
}

/* Validations are after steps 6 and 12, checkpoints every four. */
static void training_killed_in_a_validation_resumes(void **state)
{
    const struct world *world = *state;
    char whole[256], half[256], rest[256];
    double want[2], got[2];
    struct gang gang;

    start_training(&gang, world, "valid-whole", 1, 1, "", NULL, one);
    for (int64_t first = 0; first < 12; first += 4)
        do_steps(&gang, first, 4, whole);
    gang_finish(&gang);
    read_metric(&gang, "val_loss", want, 2);
    gang_fini(&gang);
    setenv("VNEVA_FAULT", "rank0.evaluation:kill@1", 1);
    start_training(&gang, world, "valid-killed", 1, 1, "", NULL, one);
    unsetenv("VNEVA_FAULT");
    do_steps(&gang, 0, 4, half);
    gang_lease(&gang, "work", 4, 4, "{}");
    gang_wait_end(&gang);
    assert_int_not_equal(gang.statuses[0], 0);
    gang_fini(&gang);
    start_training(&gang, world, "valid-killed", 1, 2, half, NULL, one);
    do_steps(&gang, 4, 4, rest);
    do_steps(&gang, 8, 4, rest);
    gang_finish(&gang);
    read_metric(&gang, "val_loss", got, 2);
    gang_fini(&gang);
    expect_same_file(whole, rest, "tensors-0000.safetensors");
    assert_true(got[0] == want[0] && got[1] == want[1]);
}

static void expect_failure(const struct world *world, const char *job, const char *resume,
                           const char *const *more, const char *reason)
{
    struct gang gang;

    start_training(&gang, world, job, 1, 9, resume, NULL, more);
    gang_wait_end(&gang);
    assert_int_equal(gang.statuses[0], 1);
    if (!strstr(gang.reasons[0], reason))
        fail_msg("'%s' does not say '%s'", gang.reasons[0], reason);
    gang_fini(&gang);
}

static void what_cannot_be_loaded_is_one_clear_line(void **state)
{
    static const char *const no_data[] = {"trainer.devices=1",
                                          "model.tensor_model_parallel_size=1",
                                          "model.data.data_path=/nowhere", NULL};
    static const char *const other_seed[] = {
        "trainer.devices=1", "model.tensor_model_parallel_size=1", "model.seed=77", NULL};
    const struct world *world = *state;
    char path[256], file[512];
    struct err err = {0};

    expect_failure(world, "no-data", "", no_data, "/nowhere");
    train_through(world, "to-damage", two_tensor, NULL, path);
    expect_failure(world, "seed", path, other_seed, "model.seed was 1234");
    snprintf(file, sizeof(file), "%s/tensors-0000.safetensors", path);
    assert_int_equal(fs_write_file_atomic(file, "damage", 6, &err), 0);
    expect_failure(world, "damaged", path, one, "tensors-0000");
}

static void video_that_vanished_fails_the_task_by_name(void **state)
{
    const struct world *world = *state;
    struct buf result = BUF_INIT, saved = BUF_INIT;
    struct gang gang;
    char clip[256];
    struct err err = {0};

    snprintf(clip, sizeof(clip), "%s/clips/clip_00003.mp4", world->folder);
    read_file(&saved, clip);
    assert_int_equal(fs_remove_tree(clip, &err), 0);
    start_training(&gang, world, "vanished", 2, 1, "", NULL, two_data);
    gang_lease(&gang, "work", 0, 12, "{}");
    assert_int_equal(gang_answer(&gang, &result), 0);
    assert_non_null(strstr(buf_str(&result), "clip_00003.mp4"));
    gang_fini(&gang);
    assert_int_equal(fs_write_file_atomic(clip, saved.data, saved.n_bytes, &err), 0);
    buf_fini(&result);
    buf_fini(&saved);
}

/* ---- evaluate ---- */

static struct json *run_evaluate(const struct world *world, const char *job,
                                 const char *run, int n_ranks, const char *const *more)
{
    struct buf spec = BUF_INIT, result = BUF_INIT;
    struct json *table;
    struct gang gang;
    char folder[128];

    sub_folder(folder, world, job);
    data_spec_evaluate(&spec, run, world->dataset, more);
    gang_start(&gang, folder, "evaluate", buf_str(&spec), n_ranks, 1, "", NULL);
    gang_do(&gang, "plan", 0, 0, "{}", &result);
    assert_string_equal(buf_str(&result), "{\"n_samples\":48}");
    gang_do(&gang, "work", 20, 20, "{}", &result); /* in any order */
    gang_do(&gang, "work", 0, 20, "{}", &result);
    gang_do(&gang, "work", 40, 8, "{}", &result);
    buf_reset(&result);
    gang_do(&gang, "finish", 0, 48, "{}", &result);
    gang_finish(&gang);
    gang_fini(&gang);
    table = parse(buf_str(&result));
    buf_fini(&spec);
    buf_fini(&result);
    return table;
}

static bool ends_with(const char *text, const char *end)
{
    size_t n = strlen(text), n_end = strlen(end);

    return n >= n_end && strcmp(text + n - n_end, end) == 0;
}

/* Every line's full_text is one mark of the video, the question, and the answer. */
static void expect_full_texts(const char *path)
{
    struct buf text = BUF_INIT;
    char *newline;

    read_file(&text, path);
    for (char *at = text.data; (newline = strchr(at, '\n')); at = newline + 1) {
        struct json *line;
        const char *full, *video;

        *newline = '\0';
        line = parse(at);
        full = json_get_string(line, "full_text");
        video = strstr(full, "<video>");
        assert_non_null(video);
        assert_null(strstr(video + 1, "<video>"));
        assert_true(ends_with(full, json_get_string(line, "pred_answer")));
        json_free(line);
    }
    buf_fini(&text);
}

static void evaluation_answers_every_question_in_order(void **state)
{
    static const char *const alone[] = {"inference.examples=5", NULL};
    static const char *const two[] = {"model.tensor_model_parallel_size=2",
                                      "inference.batch_size=3", NULL};
    const struct world *world = *state;
    struct buf text = BUF_INIT;
    struct json *table, *examples;
    char path[256], run[128], a[128], b[128];

    train_through(world, "to-ask", two_tensor, NULL, path);
    sub_folder(run, world, "to-ask");
    table = run_evaluate(world, "answers", run, 1, alone);
    assert_int_equal(json_get_int(table, "n", 0), DATA_QUESTIONS);
    assert_true(json_count(json_get(table, "categories")) > 1);
    json_free(table);
    json_free(run_evaluate(world, "answers-two", path, 2, two));
    sub_folder(a, world, "answers");
    sub_folder(b, world, "answers-two");
    expect_same_file(a, b, "results.jsonl");
    snprintf(path, sizeof(path), "%s/results.jsonl", a);
    expect_full_texts(path);
    snprintf(path, sizeof(path), "%s/examples/examples.json", a);
    read_file(&text, path);
    examples = parse(buf_str(&text));
    assert_int_equal(json_count(examples), 5);
    assert_int_equal(json_count(json_get(json_at(examples, 0), "frames")), 4);
    snprintf(path, sizeof(path), "%s/examples/%s", a,
             json_string(json_at(json_get(json_at(examples, 0), "frames"), 3)));
    assert_true(fs_exists(path));
    json_free(examples);
    buf_fini(&text);
}

/* Whatever the batches and the ranks. */
static void drawn_answers_are_the_same_again(void **state)
{
    static const char *const drawn[] = {"inference.greedy=false",
                                        "inference.temperature=2",
                                        "inference.top_p=0.95",
                                        "inference.repetition_penalty=1.2",
                                        "inference.min_tokens_to_generate=2",
                                        "inference.examples=0",
                                        "inference.batch_size=3",
                                        "model.tensor_model_parallel_size=2",
                                        NULL};
    static const char *const greedy[] = {"inference.examples=0", NULL};
    const char *alone[sizeof(drawn) / sizeof(drawn[0])] = {NULL};
    const struct world *world = *state;
    char path[256], run[128], a[128], b[128];

    memcpy(alone, drawn, sizeof(drawn) - 3 * sizeof(drawn[0]));
    train_through(world, "to-draw", two_tensor, NULL, path);
    sub_folder(run, world, "to-draw");
    json_free(run_evaluate(world, "drawn", run, 1, alone));
    json_free(run_evaluate(world, "drawn-two", run, 2, drawn));
    json_free(run_evaluate(world, "not-drawn", run, 1, greedy));
    sub_folder(a, world, "drawn");
    sub_folder(b, world, "drawn-two");
    expect_same_file(a, b, "results.jsonl");
    sub_folder(b, world, "not-drawn");
    assert_false(is_same_file(a, b, "results.jsonl"));
}

/* The first answer of an evaluation. */
static void first_answer(char *out, size_t n_bytes, const struct world *world,
                         const char *job)
{
    struct buf text = BUF_INIT;
    struct json *line;
    char path[256];

    snprintf(path, sizeof(path), "%s/%s/results.jsonl", world->folder, job);
    read_file(&text, path);
    *strchr(text.data, '\n') = '\0';
    line = parse(text.data);
    snprintf(out, n_bytes, "%s", json_get_string(line, "pred_answer"));
    json_free(line);
    buf_fini(&text);
}

/* Here at the last letter of what the first is without. */
static void answers_end_at_their_strings(void **state)
{
    static const char *const plain[] = {"inference.examples=0", NULL};
    char key[64], path[256], run[128], whole[128], cut[128];
    const char *const ended[] = {"inference.examples=0", key, NULL};
    const struct world *world = *state;
    size_t n;

    train_through(world, "to-end", two_tensor, NULL, path);
    sub_folder(run, world, "to-end");
    json_free(run_evaluate(world, "not-ended", run, 1, plain));
    first_answer(whole, sizeof(whole), world, "not-ended");
    n = strlen(whole);
    assert_true(n > 1);
    snprintf(key, sizeof(key), "inference.end_strings=['%c']", whole[n - 1]);
    json_free(run_evaluate(world, "ended", run, 1, ended));
    first_answer(cut, sizeof(cut), world, "ended");
    assert_true(strlen(cut) < n && strncmp(cut, whole, strlen(cut)) == 0);
    assert_null(strchr(cut, whole[n - 1]));
}

static void spliced_evaluation_sees_one_frame(void **state)
{
    static const char *const first[] = {"model.data.splice_single_frame=first",
                                        "inference.examples=1", NULL};
    const struct world *world = *state;
    struct buf text = BUF_INIT;
    struct json *examples;
    char path[256], run[128];

    train_through(world, "to-splice", two_tensor, NULL, path);
    sub_folder(run, world, "to-splice");
    json_free(run_evaluate(world, "spliced", run, 1, first));
    snprintf(path, sizeof(path), "%s/spliced/examples/examples.json", world->folder);
    read_file(&text, path);
    examples = parse(buf_str(&text));
    assert_int_equal(json_count(json_get(json_at(examples, 0), "frames")), 1);
    json_free(examples);
    buf_fini(&text);
}

/* ---- on a GPU ---- */

#define FEW_STEPS 2

/* The losses of the first steps, under tensor parallelism, and of a validation of six micro
 * batches after them. */
static void few_losses(const struct world *world, const char *job, const char *backend,
                       double losses[FEW_STEPS], double *validated)
{
    const char *const more[] = {"trainer.devices=2",
                                "model.tensor_model_parallel_size=2",
                                "model.micro_batch_size=1",
                                "model.global_batch_size=1",
                                "trainer.max_steps=2",
                                "trainer.log_every_n_steps=1",
                                "trainer.val_check_interval=2",
                                "trainer.limit_val_batches=6",
                                backend,
                                NULL};
    struct buf result = BUF_INIT;
    struct gang gang;

    start_training(&gang, world, job, 2, 1, "", NULL, more);
    gang_do(&gang, "work", 0, FEW_STEPS, "{}", &result);
    gang_finish(&gang);
    read_metric(&gang, "loss", losses, FEW_STEPS);
    read_metric(&gang, "val_loss", validated, 1);
    gang_fini(&gang);
    buf_fini(&result);
}

/* The driver's stand-in, and its decoder's; a file that gets a line for every picture. */
static void stand_in_for_nvdec(const struct world *world, char log[FS_PATH_MAX])
{
    char libraries[FS_PATH_MAX];

    assert_int_equal(
        fs_path(libraries, NULL, "%s/../tests/nvdec_host", getenv("VNEVA_BIN")), 0);
    assert_int_equal(fs_path(log, NULL, "%s/nvdec.log", world->folder), 0);
    setenv("LD_LIBRARY_PATH", libraries, 1);
    setenv("NVDEC_HOST_LOG", log, 1);
}

/* The plugin over host stand-ins; both ranks share its one device, and decode there. */
static void training_on_cuda_loses_what_it_loses_on_the_cpu(void **state)
{
    const struct world *world = *state;
    double cuda[FEW_STEPS], cpu[FEW_STEPS], cuda_validated, cpu_validated;
    char plugin[512], log[FS_PATH_MAX];

    snprintf(plugin, sizeof(plugin), "%s/../tests/cuda_host/libvneva_cuda.so",
             getenv("VNEVA_BIN"));
    setenv("VNEVA_CUDA_PLUGIN", plugin, 1);
    stand_in_for_nvdec(world, log);
    few_losses(world, "on-cuda", "backend=cuda", cuda, &cuda_validated);
    unsetenv("VNEVA_CUDA_PLUGIN");
    unsetenv("LD_LIBRARY_PATH");
    assert_true(fs_exists(log)); /* videos went through FFmpeg's NVDEC path */
    few_losses(world, "on-cpu", "backend=cpu", cpu, &cpu_validated);
    for (int i = 0; i < FEW_STEPS; i++)
        assert_float_equal(cuda[i] / cpu[i], 1, 1e-4);
    assert_float_equal(cuda_validated / cpu_validated, 1, 1e-4);
}

static void what_does_not_fit_is_told_with_what_would(void **state)
{
    static const char *const more[] = {"backend=cuda",
                                       "trainer.devices=1",
                                       "model.tensor_model_parallel_size=1",
                                       "model.micro_batch_size=4",
                                       "model.global_batch_size=4",
                                       NULL};
    const struct world *world = *state;
    char plugin[512];
    struct gang gang;

    snprintf(plugin, sizeof(plugin), "%s/../tests/cuda_host/libvneva_cuda.so",
             getenv("VNEVA_BIN"));
    setenv("VNEVA_CUDA_PLUGIN", plugin, 1);
    setenv("CUDA_HOST_MEMORY", "38000000", 1); /* its own 32 MiB, and a little */
    start_training(&gang, world, "too-large", 1, 1, "", NULL, more);
    gang_wait_end(&gang);
    unsetenv("CUDA_HOST_MEMORY");
    unsetenv("VNEVA_CUDA_PLUGIN");
    assert_non_null(strstr(gang.reasons[0], "a rank needs "));
    assert_non_null(strstr(gang.reasons[0], " would fit: "));
    gang_fini(&gang);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(resumed_training_equals_the_one_left_alone),
        cmocka_unit_test(fp16_training_resumes_with_its_loss_scale),
        cmocka_unit_test(sigterm_ends_the_step_with_a_checkpoint),
        cmocka_unit_test(data_parallel_ranks_take_the_same_samples),
        cmocka_unit_test(every_layout_validates_to_the_same_loss),
        cmocka_unit_test(training_killed_in_a_validation_resumes),
        cmocka_unit_test(ranks_of_two_hosts_meet_over_the_mesh),
        cmocka_unit_test(what_cannot_be_loaded_is_one_clear_line),
        cmocka_unit_test(video_that_vanished_fails_the_task_by_name),
        cmocka_unit_test(evaluation_answers_every_question_in_order),
        cmocka_unit_test(drawn_answers_are_the_same_again),
        cmocka_unit_test(answers_end_at_their_strings),
        cmocka_unit_test(spliced_evaluation_sees_one_frame),
        cmocka_unit_test(training_on_cuda_loses_what_it_loses_on_the_cpu),
        cmocka_unit_test(what_does_not_fit_is_told_with_what_would),
    };

    return cmocka_run_group_tests(tests, setup_world, teardown_world);
}
