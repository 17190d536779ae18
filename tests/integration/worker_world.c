#define _GNU_SOURCE /* mkdtemp */
#include "tests/integration/worker_world.h"

#include "common/base/fs.h"
#include "tests/integration/worker_data.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

const char *const world_one[] = {"trainer.devices=1",
                                 "model.tensor_model_parallel_size=1", NULL};
const char *const world_two_tensor[] = {"trainer.devices=2",
                                        "model.tensor_model_parallel_size=2", NULL};
const char *const world_two_data[] = {"trainer.devices=2",
                                      "model.tensor_model_parallel_size=1", NULL};

struct json *world_parse(const char *text)
{
    struct json *json = NULL;
    struct err err = {0};

    if (json_parse(&json, text, strlen(text), &err) < 0)
        fail_msg("%s in '%s'", err.text, text);
    return json;
}

void world_read_file(struct buf *out, const char *path)
{
    struct err err = {0};

    if (fs_read_file(out, path, 1 << 26, &err) < 0)
        fail_msg("%s", err.text);
}

void world_folder(char out[128], const struct world *world, const char *name)
{
    snprintf(out, 128, "%s/%s", world->folder, name);
}

/* ---- prepare ---- */

/* Runs the leases of a prepare job; the result of the last. */
struct json *world_prepare(const struct world *world, const char *output,
                           const char *const *more)
{
    struct buf spec = BUF_INIT, result = BUF_INIT;
    struct json *plan, *json;
    struct gang gang;
    char job[128];
    int64_t n;

    world_folder(job, world, "prepare-job");
    data_spec_prepare(&spec, world->folder, output, more);
    gang_start(&gang, job, "prepare", buf_str(&spec), 1, 1, "", NULL);
    gang_do(&gang, "plan", 0, 0, "{}", &result);
    plan = world_parse(buf_str(&result));
    n = json_get_int(plan, "n_samples", -1);
    json_free(plan);
    for (int64_t first = 0; first < n; first += 20) {
        buf_reset(&result);
        gang_do(&gang, "work", first, n - first < 20 ? n - first : 20, "{}", &result);
    }
    buf_reset(&result);
    gang_do(&gang, "finish", 0, n, "{}", &result);
    gang_finish(&gang);
    json = world_parse(buf_str(&result));
    gang_fini(&gang);
    buf_fini(&spec);
    buf_fini(&result);
    return json;
}

int world_setup(void **state)
{
    struct world *world = calloc(1, sizeof(*world));
    struct json *result;

    strcpy(world->folder, "/tmp/vneva-rank-XXXXXX");
    if (!mkdtemp(world->folder))
        return -1;
    world_folder(world->dataset, world, "dataset");
    data_make(world->folder);
    result = world_prepare(world, world->dataset, NULL);
    assert_int_equal(json_get_int(result, "n_samples", 0), DATA_QUESTIONS);
    assert_int_equal(json_get_int(result, "n_rejects", -1), 0);
    assert_string_equal(json_get_string(result, "path"), world->dataset);
    assert_int_equal(strlen(json_get_string(result, "fingerprint")), 16);
    json_free(result);
    *state = world;
    return 0;
}

int world_teardown(void **state)
{
    struct world *world = *state;

    if (!getenv("VNEVA_TEST_KEEP"))
        fs_remove_tree(world->folder, NULL);
    free(world);
    return 0;
}

void world_start_training(struct gang *gang, const struct world *world, const char *job,
                          int n_ranks, int64_t attempt, const char *resume,
                          const char *const *hosts, const char *const *more)
{
    struct buf spec = BUF_INIT;
    char folder[128];

    world_folder(folder, world, job);
    data_spec_train(&spec, world->folder, world->dataset, more);
    gang_start(gang, folder, "pretrain", buf_str(&spec), n_ranks, attempt, resume, hosts);
    buf_fini(&spec);
}

/* One lease of steps; the path of the checkpoint it ends with (copied into path). */
void world_do_steps(struct gang *gang, int64_t first, int64_t count, char path[256])
{
    struct buf result = BUF_INIT;
    struct json *json, *checkpoint;

    gang_do(gang, "work", first, count, "{}", &result);
    json = world_parse(buf_str(&result));
    checkpoint = json_get(json, "checkpoint");
    assert_int_equal(json_get_int(checkpoint, "step", -1), first + count);
    assert_int_equal(json_get_int(checkpoint, "consumed_samples", -1),
                     (first + count) * 8);
    snprintf(path, 256, "%s", json_get_string(checkpoint, "path"));
    json_free(json);
    buf_fini(&result);
}

bool world_is_same_file(const char *folder_a, const char *folder_b, const char *name)
{
    struct buf a = BUF_INIT, b = BUF_INIT;
    char path[512];
    bool is_same;

    snprintf(path, sizeof(path), "%s/%s", folder_a, name);
    world_read_file(&a, path);
    snprintf(path, sizeof(path), "%s/%s", folder_b, name);
    world_read_file(&b, path);
    assert_true(a.n_bytes > 0);
    is_same = a.n_bytes == b.n_bytes && memcmp(a.data, b.data, a.n_bytes) == 0;
    buf_fini(&a);
    buf_fini(&b);
    return is_same;
}

void world_expect_same_file(const char *folder_a, const char *folder_b, const char *name)
{
    if (!world_is_same_file(folder_a, folder_b, name))
        fail_msg("'%s' and '%s' have another %s", folder_a, folder_b, name);
}

/* Twelve steps in three leases of one attempt. */
void world_train(const struct world *world, const char *job, const char *const *more,
                 const char *const *hosts, char path[256])
{
    struct gang gang;

    world_start_training(&gang, world, job, 2, 1, "", hosts, more);
    for (int64_t first = 0; first < 12; first += 4)
        world_do_steps(&gang, first, 4, path);
    gang_finish(&gang);
    assert_non_null(strstr(buf_str(&gang.metrics), "\"loss\""));
    assert_non_null(strstr(buf_str(&gang.metrics), "\"val_loss\""));
    assert_non_null(strstr(buf_str(&gang.metrics), "\"videos_on_cpu\""));
    gang_fini(&gang);
}
