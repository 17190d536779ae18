/* Checkpoints that are damaged, incomplete or of another model are refused by name; a
 * process killed at any point of saving leaves the old one or the new one. */
#include "common/base/fs.h"
#include "model/checkpoint/checkpoint.h"
#include "model/checkpoint/safetensors.h"
#include "tests/op/expect.h"
#include "tests/op/tiny.h"

#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static char folder[64]; /* of this run */

/* ---- safetensors files by hand ---- */

static void write_raw(const char *path, const char *header, uint64_t length,
                      size_t n_data)
{
    FILE *file = fopen(path, "wb");

    EXPECT(file != NULL);
    fwrite(&length, sizeof(length), 1, file);
    fwrite(header, 1, strlen(header), file);
    for (size_t i = 0; i < n_data; i++)
        fputc((int)i, file);
    fclose(file);
}

static void expect_bad(const char *header, uint64_t length, size_t n_data,
                       const char *says)
{
    struct safetensors file;
    struct err err = {0};
    char path[128];

    snprintf(path, sizeof(path), "%s/raw.safetensors", folder);
    write_raw(path, header, length, n_data);
    EXPECT_MSG(safetensors_open(&file, path, &err) < 0, "opened: %s", header);
    EXPECT_MSG(strstr(err.text, says), "'%s' should say '%s'", err.text, says);
}

#define A "\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}"

static void files_that_are_not_safetensors_are_refused(void)
{
    static const struct {
        const char *header;
        size_t n_data;
        const char *says;
    } cases[] = {
        {"{" A "}", 7, "outside the file"},
        {"{" A "}", 9, "behind its last tensor"},
        {"{" A ",\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}", 8,
         "overlaps"},
        {"{" A ",\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[12,16]}}", 16,
         "overlaps another or leaves a gap"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,8]}}", 8,
         "size of its shape"},
        {"{\"a\":{\"dtype\":\"F31\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8, "dtype"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[-2],\"data_offsets\":[0,8]}}", 8, "shape"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4611686018427387904,4],"
         "\"data_offsets\":[0,0]}}",
         0, "shape"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8,0]}}", 8,
         "outside"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2]}}", 8, "outside"},
        {"{\"a\":7}", 8, "shape"},
        {"[1]", 0, "no JSON object"},
        {"{" A, 8, "header of"},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        expect_bad(cases[i].header, strlen(cases[i].header), cases[i].n_data,
                   cases[i].says);
    expect_bad("{}", 3, 0, "header of 3 bytes in a file of 10");
    expect_bad("{}", UINT64_MAX, 0, "header of 18446744073709551615 bytes");
    expect_bad("{}", ((uint64_t)100 << 20) + 1, 0, "header of");
}

static void a_file_by_hand_is_read(void)
{
    static const char header[] =
        "{\"__metadata__\":{\"b\":\"note\"},"
        "\"b\":{\"dtype\":\"BF16\",\"shape\":[2,1],\"data_offsets\":[8,12]}," A "} ";
    struct safetensors file;
    struct err err = {0};
    char path[128];

    snprintf(path, sizeof(path), "%s/raw.safetensors", folder);
    write_raw(path, header, strlen(header), 12);
    if (!EXPECT_OK(safetensors_open(&file, path, &err), &err))
        return;
    EXPECT(file.n_tensors == 2);
    EXPECT(strcmp(file.tensors[0].name, "a") == 0 && !file.tensors[0].note[0]);
    EXPECT(file.tensors[1].tensor.dtype == DTYPE_BF16 &&
           file.tensors[1].tensor.n_dims == 2);
    EXPECT(strcmp(file.tensors[1].note, "note") == 0);
    EXPECT(((unsigned char *)file.tensors[1].tensor.data)[3] == 11);
    safetensors_close(&file);
}

/* ---- checkpoints ---- */

struct task {
    struct neva_config config;
    char path[128];
    bool is_save;
    int step; /* saved, or found */
    int rc;
    struct err err;
    float *values; /* after loading */
};

static void task_body(struct tiny_rank *rank)
{
    struct task *task = rank->arg;
    struct neva *model = NULL;
    struct json *meta = json_new(JSON_OBJECT);
    struct err err = {0};
    int rc;

    EXPECT_OK(neva_create(&model, &task->config, rank->backend, rank->tensor, &err),
              &err);
    EXPECT_OK(json_set(meta, "step", json_new_int(task->step), &err), &err);
    if (task->is_save)
        rc = checkpoint_save(model, task->path, meta, &err);
    else
        rc = checkpoint_load(model, task->path, true, &err);
    if (rc == 0 && !task->is_save && task->values)
        tiny_collect(model, TINY_VALUE, task->values);
    if (rank->rank == 0) {
        task->rc = rc;
        task->err = err;
    }
    json_free(meta);
    neva_destroy(model);
}

static struct task run_task(const struct neva_config *config, const char *name,
                            int n_ranks, bool is_save, int step)
{
    struct task task = {.config = *config, .is_save = is_save, .step = step};

    snprintf(task.path, sizeof(task.path), "%s/%s", folder, name);
    tiny_run("ref", n_ranks, 1, task_body, &task);
    return task;
}

static void expect_refused(const struct neva_config *config, const char *name,
                           const char *says)
{
    struct task task = run_task(config, name, 1, false, 0);

    EXPECT_MSG(task.rc < 0, "%s was loaded", name);
    EXPECT_MSG(strstr(task.err.text, says), "'%s' should name '%s'", task.err.text, says);
}

static void flip(const char *name, long at, int from)
{
    char path[128];
    FILE *file;
    int byte;

    snprintf(path, sizeof(path), "%s/%s", folder, name);
    file = fopen(path, "r+b");
    EXPECT(file != NULL);
    fseek(file, at, from);
    byte = fgetc(file);
    fseek(file, at, from);
    fputc(byte ^ 4, file);
    fclose(file);
}

static void damage_is_named(void)
{
    struct neva_config config = tiny_config();
    char path[128];

    EXPECT(run_task(&config, "damaged", 2, true, 1).rc == 0);
    EXPECT(run_task(&config, "damaged", 1, false, 1).rc == 0);
    flip("damaged/tensors-0001.safetensors", -2, SEEK_END);
    expect_refused(&config, "damaged", "lm_head.weight' is damaged");
    flip("damaged/tensors-0001.safetensors", -2, SEEK_END);
    flip("damaged/tensors-0000.safetensors", 40, SEEK_SET);
    expect_refused(&config, "damaged", "tensors-0000.safetensors");
    flip("damaged/tensors-0000.safetensors", 40, SEEK_SET);
    EXPECT(run_task(&config, "damaged", 1, false, 1).rc == 0);
    snprintf(path, sizeof(path), "%s/damaged/tensors-0001.safetensors", folder);
    EXPECT(truncate(path, 5000) == 0);
    expect_refused(&config, "damaged", "tensors-0001.safetensors' has 5000 bytes");
    EXPECT(unlink(path) == 0);
    expect_refused(&config, "damaged", "tensors-0001.safetensors' is missing");
    snprintf(path, sizeof(path), "%s/damaged/checkpoint.json", folder);
    EXPECT(unlink(path) == 0);
    expect_refused(&config, "damaged", "no complete checkpoint");
    expect_refused(&config, "nowhere", "no complete checkpoint");
}

static void tensors_of_another_model_are_named(void)
{
    struct neva_config small = tiny_config(), large = tiny_config();

    small.projector = NEVA_PROJECTOR_LINEAR;
    EXPECT(run_task(&small, "small", 1, true, 1).rc == 0);
    EXPECT(run_task(&large, "large", 1, true, 1).rc == 0);
    expect_refused(&large, "small", "linear_2.weight' is missing");
    expect_refused(&small, "large", "does not belong to this model");
    large.llm.vocab++;
    expect_refused(&large, "large", "embed_tokens.weight' has not the shape");
}

static void meta_says_whether_a_checkpoint_is_complete(void)
{
    struct neva_config config = tiny_config();
    struct json *meta = NULL;
    struct err err = {0};
    char path[128];

    EXPECT(run_task(&config, "meta", 1, true, 77).rc == 0);
    snprintf(path, sizeof(path), "%s/meta", folder);
    if (EXPECT_OK(checkpoint_read_meta(&meta, path, &err), &err))
        EXPECT(json_get_int(meta, "step", -1) == 77);
    json_free(meta);
    snprintf(path, sizeof(path), "%s/meta/tensors-0000.safetensors", folder);
    EXPECT(truncate(path, 100) == 0);
    snprintf(path, sizeof(path), "%s/meta", folder);
    EXPECT(checkpoint_read_meta(&meta, path, &err) < 0 && err.code == ERR_FORMAT);
}

/* ---- killed while saving ---- */

/* In a process of its own, since fault points are read once. */
static int save_in_child(const struct neva_config *config, int step, const char *fault)
{
    pid_t child = fork();
    int status = 0;

    if (child == 0) {
        struct task task;

        if (fault)
            setenv("VNEVA_FAULT", fault, 1);
        task = run_task(config, "killed", 2, true, step);
        _exit(task.rc == 0 ? 0 : 1);
    }
    waitpid(child, &status, 0);
    return status;
}

static void expect_complete(const struct neva_config *before,
                            const struct neva_config *after, int step, const char *fault)
{
    struct json *meta = NULL;
    struct err err = {0};
    struct task task;
    char path[128];
    int64_t found;

    snprintf(path, sizeof(path), "%s/killed", folder);
    if (!EXPECT_OK(checkpoint_read_meta(&meta, path, &err), &err))
        return;
    found = json_get_int(meta, "step", -1);
    json_free(meta);
    EXPECT_MSG(found == step || found == step + 1, "%s: step %lld", fault,
               (long long)found);
    task = run_task(found == step ? before : after, "killed", 1, false, 0);
    EXPECT_MSG(task.rc == 0, "%s: %s", fault, task.err.text);
}

/* Must run first: no fault point may have been passed in this process. */
static void killed_while_saving_leaves_the_old_or_the_new(void)
{
    static const char *const faults[] = {
        "checkpoint.tensors:kill@1", "checkpoint.tensors:kill@40",
        "checkpoint.json:kill@1",    "checkpoint.rename:kill@1",
        "fs.put_dir:kill@1",         "checkpoint.tensors:fail@17",
        "checkpoint.json:fail@1",    "checkpoint.rename:fail@1",
        "fs.put_dir:fail@1",
    };
    struct neva_config before = tiny_config(), after = tiny_config();
    char temporary[128];

    snprintf(temporary, sizeof(temporary), "%s/killed.tmp", folder);
    after.seed++;
    for (size_t i = 0; i < sizeof(faults) / sizeof(faults[0]); i++) {
        int status;

        EXPECT(save_in_child(&before, 10, NULL) == 0);
        status = save_in_child(&after, 11, faults[i]);
        EXPECT_MSG(status != 0, "%s: nothing happened", faults[i]);
        if (WIFEXITED(status) && strstr(faults[i], "tensors")) /* as on a full disk */
            EXPECT_MSG(!fs_exists(temporary), "%s: '%s' is left", faults[i], temporary);
        expect_complete(&before, &after, 10, faults[i]);
    }
    EXPECT(save_in_child(&after, 11, NULL) ==
           0); /* what was left behind is no hindrance */
}

int main(void)
{
    struct err err = {0};

    snprintf(folder, sizeof(folder), "/tmp/vneva-test-XXXXXX");
    EXPECT(mkdtemp(folder) != NULL);
    EXPECT_RUN(killed_while_saving_leaves_the_old_or_the_new);
    EXPECT_RUN(files_that_are_not_safetensors_are_refused);
    EXPECT_RUN(a_file_by_hand_is_read);
    EXPECT_RUN(damage_is_named);
    EXPECT_RUN(tensors_of_another_model_are_named);
    EXPECT_RUN(meta_says_whether_a_checkpoint_is_complete);
    EXPECT_OK(fs_remove_tree(folder, &err), &err);
    return expect_end();
}
