/* Real ranks under a scripted agent: train, validate, go on, on CPU and GPU. */
#define _GNU_SOURCE /* mkdtemp */
#include "common/base/fs.h"
#include "common/base/json.h"
#include "model/checkpoint/checkpoint.h"
#include "tests/integration/worker_data.h"
#include "tests/integration/worker_world.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

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

static void resumed_training_equals_the_one_left_alone(void **state)
{
    const struct world *world = *state;
    char whole[256], half[256], rest[256], a[128], b[128];
    struct gang gang;

    world_train(world, "whole", world_two_tensor, NULL, whole);
    world_start_training(&gang, world, "halves", 2, 1, "", NULL, world_two_tensor);
    world_do_steps(&gang, 0, 4, half);
    gang_lease(&gang, "work", 4, 4, "{}");
    gang_signal(&gang, 1, SIGKILL);
    gang_fini(&gang);
    world_start_training(&gang, world, "halves", 2, 2, half, NULL, world_two_tensor);
    world_do_steps(&gang, 4, 4, rest);
    world_do_steps(&gang, 8, 4, rest);
    gang_finish(&gang);
    gang_fini(&gang);
    world_expect_same_file(whole, rest, "tensors-0000.safetensors");
    world_expect_same_file(whole, rest, "tensors-0001.safetensors");
    world_folder(a, world, "whole");
    world_folder(b, world, "halves");
    world_expect_same_file(a, b, "samples.log");
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

    world_start_training(&gang, world, "scaled", 2, 1, "", NULL, more);
    for (int64_t first = 0; first < 12; first += 4)
        world_do_steps(&gang, first, 4, whole);
    gang_finish(&gang);
    assert_non_null(strstr(buf_str(&gang.metrics), "\"loss_scale\": 131072"));
    assert_non_null(strstr(buf_str(&gang.metrics), "\"loss_scale\": 65536"));
    assert_non_null(strstr(buf_str(&gang.metrics), "\"skipped_steps\": 2"));
    gang_fini(&gang);
    world_start_training(&gang, world, "scaled-halves", 2, 1, "", NULL, more);
    world_do_steps(&gang, 0, 4, half);
    gang_finish(&gang);
    gang_fini(&gang);
    world_start_training(&gang, world, "scaled-halves", 2, 2, half, NULL, more);
    world_do_steps(&gang, 4, 4, rest);
    world_do_steps(&gang, 8, 4, rest);
    gang_finish(&gang);
    gang_fini(&gang);
    world_expect_same_file(whole, rest, "tensors-0000.safetensors");
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

    world_start_training(&gang, world, "term", 2, 1, "", NULL, world_two_tensor);
    gang_lease(&gang, "work", 0, 12, "{}");
    gang_wait_step(&gang, 2);
    gang_signal(&gang, 1, SIGTERM); /* one rank alone: the other agrees */
    assert_int_equal(gang_answer(&gang, &result), 1);
    gang_wait_end(&gang);
    assert_int_equal(gang.statuses[0], 0);
    assert_int_equal(gang.statuses[1], 0);
    gang_fini(&gang);
    json = world_parse(buf_str(&result));
    step = json_get_int(json_get(json, "checkpoint"), "step", -1);
    snprintf(path, sizeof(path), "%s",
             json_get_string(json_get(json, "checkpoint"), "path"));
    assert_in_range(step, 2, 12);
    json_free(json);
    buf_fini(&result);
    if (step == 12)
        return; /* it was done before the signal came */
    world_start_training(&gang, world, "term", 2, 2, path, NULL, world_two_tensor);
    world_do_steps(&gang, step, 12 - step, rest);
    gang_finish(&gang);
    gang_fini(&gang);
    world_train(world, "term-whole", world_two_tensor, NULL, whole);
    world_expect_same_file(whole, rest, "tensors-0000.safetensors");
}

static void data_parallel_ranks_take_the_same_samples(void **state)
{
    const struct world *world = *state;
    char path[256], a[128], b[128];

    world_train(world, "tensor", world_two_tensor, NULL, path);
    world_train(world, "data", world_two_data, NULL, path);
    world_folder(a, world, "tensor");
    world_folder(b, world, "data");
    world_expect_same_file(a, b, "samples.log");
}

static void ranks_of_two_hosts_meet_over_the_mesh(void **state)
{
    static const char *const hosts[] = {"one", "two"};
    const struct world *world = *state;
    char shared[256], meshed[256];

    world_train(world, "one-host", world_two_tensor, NULL, shared);
    world_train(world, "two-hosts", world_two_tensor, hosts, meshed);
    world_expect_same_file(shared, meshed, "tensors-0000.safetensors");
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

    world_start_training(&gang, world, job, n_ranks, 1, "", NULL, more);
    world_do_steps(&gang, 0, 2, path);
    gang_finish(&gang);
    read_metric(&gang, "val_loss", &loss, 1);
    gang_fini(&gang);
    return loss;
}

static void every_layout_validates_to_the_same_loss(void **state)
{
    const struct world *world = *state;
    double loss = validation_loss(world, "valid-one", 1, world_one);

    assert_float_equal(validation_loss(world, "valid-data", 2, world_two_data) / loss, 1,
                       SAME);
    assert_float_equal(validation_loss(world, "valid-tensor", 2, world_two_tensor) / loss,
                       1, SAME);
}

/* Validations are after steps 6 and 12, checkpoints every four. */
static void training_killed_in_a_validation_resumes(void **state)
{
    const struct world *world = *state;
    char whole[256], half[256], rest[256];
    double want[2], got[2];
    struct gang gang;

    world_start_training(&gang, world, "valid-whole", 1, 1, "", NULL, world_one);
    for (int64_t first = 0; first < 12; first += 4)
        world_do_steps(&gang, first, 4, whole);
    gang_finish(&gang);
    read_metric(&gang, "val_loss", want, 2);
    gang_fini(&gang);
    setenv("VNEVA_FAULT", "rank0.evaluation:kill@1", 1);
    world_start_training(&gang, world, "valid-killed", 1, 1, "", NULL, world_one);
    unsetenv("VNEVA_FAULT");
    world_do_steps(&gang, 0, 4, half);
    gang_lease(&gang, "work", 4, 4, "{}");
    gang_wait_end(&gang);
    assert_int_not_equal(gang.statuses[0], 0);
    gang_fini(&gang);
    world_start_training(&gang, world, "valid-killed", 1, 2, half, NULL, world_one);
    world_do_steps(&gang, 4, 4, rest);
    world_do_steps(&gang, 8, 4, rest);
    gang_finish(&gang);
    read_metric(&gang, "val_loss", got, 2);
    gang_fini(&gang);
    world_expect_same_file(whole, rest, "tensors-0000.safetensors");
    assert_true(got[0] == want[0] && got[1] == want[1]);
}

static void expect_failure(const struct world *world, const char *job, const char *resume,
                           const char *const *more, const char *reason)
{
    struct gang gang;

    world_start_training(&gang, world, job, 1, 9, resume, NULL, more);
    gang_wait_end(&gang);
    assert_int_equal(gang.statuses[0], 2); /* bad input */
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
    world_train(world, "to-damage", world_two_tensor, NULL, path);
    expect_failure(world, "seed", path, other_seed, "model.seed was 1234");
    snprintf(file, sizeof(file), "%s/tensors-0000.safetensors", path);
    assert_int_equal(fs_write_file_atomic(file, "damage", 6, &err), 0);
    expect_failure(world, "damaged", path, world_one, "tensors-0000");
}

static void video_that_vanished_fails_the_task_by_name(void **state)
{
    const struct world *world = *state;
    struct buf result = BUF_INIT, saved = BUF_INIT;
    struct gang gang;
    char clip[256];
    struct err err = {0};

    snprintf(clip, sizeof(clip), "%s/clips/clip_00003.mp4", world->folder);
    world_read_file(&saved, clip);
    assert_int_equal(fs_remove_tree(clip, &err), 0);
    world_start_training(&gang, world, "vanished", 2, 1, "", NULL, world_two_data);
    gang_lease(&gang, "work", 0, 12, "{}");
    assert_int_equal(gang_answer(&gang, &result), 0);
    assert_non_null(strstr(buf_str(&result), "clip_00003.mp4"));
    gang_fini(&gang);
    assert_int_equal(fs_write_file_atomic(clip, saved.data, saved.n_bytes, &err), 0);
    buf_fini(&result);
    buf_fini(&saved);
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

    world_start_training(&gang, world, job, 2, 1, "", NULL, more);
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
    world_start_training(&gang, world, "too-large", 1, 1, "", NULL, more);
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
        cmocka_unit_test(training_on_cuda_loses_what_it_loses_on_the_cpu),
        cmocka_unit_test(what_does_not_fit_is_told_with_what_would),
    };

    return cmocka_run_group_tests(tests, world_setup, world_teardown);
}
