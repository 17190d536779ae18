/* Checkpoints by model/weights, and Hugging Face folders made into checkpoints: the same
 * numbers, whichever way, and damage by name. */
#include "common/base/fs.h"
#include "model/checkpoint/checkpoint.h"
#include "tests/op/expect.h"
#include "tests/op/tiny.h"
#include "tests/unit/weights_help.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- adopting ---- */

static int adopt(const char *name, const char *from, int64_t step, struct err *err)
{
    struct weights *weights = help_opened(from);
    struct json *meta = json_new(JSON_OBJECT);
    char path[HELP_PATH_MAX];
    int rc;

    EXPECT_OK(json_set(meta, "step", json_new_int(step), err), err);
    help_path(path, name);
    rc = checkpoint_adopt(path, weights, false, meta, NULL, err);
    json_free(meta);
    weights_close(weights);
    return rc;
}

static void adopted(const char *name, const char *golden)
{
    struct err err = {0};

    help_copy("source", golden);
    EXPECT_OK(adopt(name, "source", 3, &err), &err);
}

/* Both have the same parameters to the bit. */
static void expect_equal(const char *a, const char *b)
{
    struct weights *one = help_opened(a), *two = help_opened(b);
    const struct param_table *table = weights_params(one);
    struct err err = {0};

    EXPECT(weights_info(one)->parts == weights_info(two)->parts &&
           table->n_params == weights_params(two)->n_params);
    for (int i = 0; i < table->n_params; i++) {
        size_t n_bytes = tensor_bytes(&table->params[i].value);
        char *x = calloc(1, n_bytes), *y = calloc(1, n_bytes);

        EXPECT(strcmp(table->params[i].name, weights_params(two)->params[i].name) == 0);
        EXPECT_OK(weights_read(one, i, x, &err), &err);
        EXPECT_OK(weights_read(two, i, y, &err), &err);
        EXPECT_MSG(memcmp(x, y, n_bytes) == 0, "%s and %s differ in %s", a, b,
                   table->params[i].name);
        free(x);
        free(y);
    }
    weights_close(one);
    weights_close(two);
}

static void adopted_folders_are_the_same_bits(void)
{
    static const char *const names[] = {"llava",        "llava_shards", "llava_bin",
                                        "llava_siglip", "clip",         "nemotron"};

    for (int i = 0; i < 6; i++) {
        adopted("adopted", names[i]);
        expect_equal("adopted", "source");
    }
}

static void adopted_files_are_links(void)
{
    struct stat a, b;
    char path[HELP_PATH_MAX];
    struct json *meta = NULL;
    struct err err = {0};

    adopted("adopted", "llava");
    help_path(path, "adopted/model.safetensors");
    EXPECT(stat(path, &a) == 0);
    help_path(path, "source/model.safetensors");
    EXPECT(stat(path, &b) == 0);
    EXPECT(a.st_ino == b.st_ino);
    help_path(path, "adopted/preprocessor_config.json");
    EXPECT(fs_exists(path));
    help_path(path, "adopted");
    EXPECT_OK(checkpoint_read_meta(&meta, path, &err), &err);
    EXPECT(json_get_int(meta, "step", -1) == 3);
    json_free(meta);
}

/* ---- into a model ---- */

struct load {
    const char *path;
    struct neva_config config;
    int rc;
    struct err err;
};

static void load_body(struct tiny_rank *rank)
{
    struct load *load = rank->arg;
    struct neva *model = NULL;
    struct err err = {0};
    int rc;

    EXPECT_OK(neva_create_bare(&model, &load->config, rank->backend, rank->tensor, &err),
              &err);
    rc = checkpoint_load(model, load->path, false, &err);
    if (rank->rank == 0) {
        load->rc = rc;
        load->err = err;
    }
    for (int i = 0; i < neva_params(model)->n_params && rc == 0; i++) {
        const struct param *param = &neva_params(model)->params[i];
        struct param_slice s = param_slice(param);
        const float *data = param->value.data;
        int64_t n_wrong = 0;

        for (int64_t outer = 0; outer < s.outer; outer++)
            for (int64_t j = 0; j < s.n_real * s.inner; j++)
                n_wrong +=
                    data[outer * s.local * s.inner + j] !=
                    help_golden(param->name, (outer * s.whole + s.first) * s.inner + j);
        EXPECT_MSG(n_wrong == 0, "%lld elements of %s are wrong", (long long)n_wrong,
                   param->name);
    }
    neva_destroy(model);
}

static struct load load_checkpoint(const char *name, int n_ranks)
{
    static char path[HELP_PATH_MAX];
    struct load load = {.path = path};
    struct weights *weights = help_opened(name);

    help_path(path, name);
    load.config = weights_info(weights)->config;
    weights_close(weights);
    tiny_run("ref", n_ranks, 1, load_body, &load);
    return load;
}

static void adopted_folders_load_as_checkpoints(void)
{
    adopted("adopted", "llava_shards");
    for (int n_ranks = 1; n_ranks <= 3; n_ranks++)
        EXPECT(load_checkpoint("adopted", n_ranks).rc == 0);
    adopted("adopted", "llava_bin");
    EXPECT(load_checkpoint("adopted", 2).rc == 0);
}

static void damage_after_adoption_is_named(void)
{
    struct load load;
    char path[HELP_PATH_MAX];

    adopted("adopted", "llava_bin_shards");
    help_flip("adopted/pytorch_model-00001-of-00003.bin", 20000, SEEK_SET, 4);
    load = load_checkpoint("adopted", 2);
    EXPECT(load.rc < 0);
    EXPECT_MSG(strstr(load.err.text, "is damaged: checksum differs, in '") &&
                   strstr(load.err.text, "pytorch_model-00001-of-00003.bin"),
               "%s", load.err.text);
    adopted("adopted", "llava");
    help_flip("adopted/model.safetensors", -2, SEEK_END, 4);
    load = load_checkpoint("adopted", 1);
    EXPECT_MSG(load.rc < 0 && strstr(load.err.text, "tensor 'vision_tower") &&
                   strstr(load.err.text, "is damaged"),
               "%s", load.err.text);
    /* a header that is still read: a letter of "pt" in its metadata */
    adopted("adopted", "llava");
    help_flip("adopted/model.safetensors", 35, SEEK_SET, 1);
    help_refused("adopted", "is damaged: its header has not the checksum",
                 "model.safetensors'");
    adopted("adopted", "llava");
    help_path(path, "adopted/model.safetensors");
    EXPECT(truncate(path, 60000) == 0);
    help_refused("adopted", "model.safetensors' has 60000 bytes, not 67528", NULL);
    EXPECT(unlink(path) == 0);
    help_refused("adopted", "model.safetensors' is missing", NULL);
}

static void only_folders_of_whole_models_are_adopted(void)
{
    struct err err = {0};

    adopted("adopted", "llama");
    EXPECT(adopt("again", "adopted", 1, &err) < 0 && strstr(err.text, "already"));
    help_copy("projector", "projector");
    EXPECT(adopt("again", "projector", 1, &err) < 0 && strstr(err.text, "alone"));
}

/* ---- killed while adopting ---- */

/* Must run first: fault points are read once a process. */
static void killed_while_adopting_leaves_the_old_or_the_new(void)
{
    static const char *const faults[] = {
        "checkpoint.tensors:kill@2", "checkpoint.tensors:fail@1",
        "checkpoint.json:kill@1",    "checkpoint.json:fail@1",
        "checkpoint.rename:kill@1",  "checkpoint.rename:fail@1",
    };

    help_copy("source", "llava_shards");
    for (int i = 0; i < 6; i++) {
        pid_t child = fork();
        int status = 0;

        if (child == 0) {
            struct err err = {0};

            _exit(adopt("killed", "source", 1, &err) < 0 ? 1 : 0);
        }
        waitpid(child, &status, 0);
        EXPECT(status == 0);
        child = fork();
        if (child == 0) {
            struct err err = {0};

            setenv("VNEVA_FAULT", faults[i], 1);
            _exit(adopt("killed", "source", 2, &err) < 0 ? 1 : 0);
        }
        waitpid(child, &status, 0);
        EXPECT_MSG(status != 0, "%s: nothing happened", faults[i]);
        expect_equal("killed", "source");
    }
}

/* ---- our own checkpoints ---- */

static void save_body(struct tiny_rank *rank)
{
    struct load *load = rank->arg;
    struct neva *model = NULL;
    struct err err = {0};

    EXPECT_OK(neva_create(&model, &load->config, rank->backend, rank->tensor, &err),
              &err);
    EXPECT_OK(checkpoint_save(model, load->path, NULL, &err), &err);
    neva_destroy(model);
}

static void save(const char *name, const struct neva_config *config, int n_ranks)
{
    char path[HELP_PATH_MAX];
    struct load load = {.path = path, .config = *config};

    help_path(path, name);
    tiny_run("ref", n_ranks, 1, save_body, &load);
}

static void checkpoints_say_what_they_are_and_read_whole(void)
{
    for (enum tiny_decoder decoder = 0; decoder < TINY_DECODER_COUNT; decoder++) {
        struct neva_config config = tiny_decoder_config(decoder);
        const struct weights_info *info;
        struct weights *weights;

        save("one", &config, 1);
        save("four", &config, 4);
        expect_equal("one", "four");
        weights = help_opened("four");
        info = weights_info(weights);
        EXPECT(info->parts == WEIGHTS_ALL && info->dtype == DTYPE_F32 &&
               info->n_params == neva_n_params(&config) &&
               info->config.llm.mlp == config.llm.mlp &&
               info->config.llm.norm.kind == config.llm.norm.kind &&
               info->config.vision.mean[1] == config.vision.mean[1] &&
               info->config.max_tokens == config.max_tokens);
        weights_close(weights);
    }
}

static void older_checkpoints_still_resume(void)
{
    struct neva_config config = tiny_config();
    char path[HELP_PATH_MAX];
    struct neva *model = NULL;
    struct backend *backend = NULL;
    struct comm *solo = NULL;
    struct err err = {0};

    save("old", &config, 2);
    help_path(path, "old/config.json");
    EXPECT(unlink(path) == 0);
    help_refused("old", "has no config.json", "older vneva");
    help_path(path, "old");
    EXPECT_OK(backend_create(&backend, "ref", 0, 1, &err), &err);
    EXPECT_OK(comm_create_solo(&solo, "tensor", &err), &err);
    EXPECT_OK(neva_create_bare(&model, &config, backend, solo, &err), &err);
    EXPECT_OK(checkpoint_load(model, path, true, &err), &err);
    neva_destroy(model);
    comm_destroy(solo);
    backend_destroy(backend);
}

int main(void)
{
    help_begin();
    EXPECT_RUN(killed_while_adopting_leaves_the_old_or_the_new);
    EXPECT_RUN(adopted_folders_are_the_same_bits);
    EXPECT_RUN(adopted_files_are_links);
    EXPECT_RUN(adopted_folders_load_as_checkpoints);
    EXPECT_RUN(damage_after_adoption_is_named);
    EXPECT_RUN(only_folders_of_whole_models_are_adopted);
    EXPECT_RUN(checkpoints_say_what_they_are_and_read_whole);
    EXPECT_RUN(older_checkpoints_still_resume);
    help_end();
    return expect_end();
}
