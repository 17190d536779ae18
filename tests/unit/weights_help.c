#include "tests/unit/weights_help.h"

#include "common/base/fs.h"
#include "common/base/rng.h"
#include "tests/op/expect.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>

static char *run_folder(void)
{
    static char folder[64];

    return folder;
}

void help_begin(void)
{
    snprintf(run_folder(), 64, "/tmp/vneva-test-XXXXXX");
    EXPECT(mkdtemp(run_folder()) != NULL);
}

void help_end(void)
{
    struct err err = {0};

    EXPECT_OK(fs_remove_tree(run_folder(), &err), &err);
}

void help_path(char *path, const char *name)
{
    snprintf(path, HELP_PATH_MAX, "%s/%s", run_folder(), name);
}

void help_copy(const char *name, const char *golden)
{
    char from[HELP_PATH_MAX], to[HELP_PATH_MAX];
    struct err err = {0};
    struct dirent *entry;
    DIR *folder;

    snprintf(from, sizeof(from), "%s/tests/golden/weights/%s", getenv("VNEVA_SOURCE"),
             golden);
    help_path(to, name);
    EXPECT_OK(fs_remove_tree(to, &err), &err);
    EXPECT_OK(fs_make_dirs(to, 0777, &err), &err);
    folder = opendir(from);
    EXPECT_MSG(folder != NULL, "no folder %s", from);
    while (folder && (entry = readdir(folder)) != NULL) {
        char source[1024], target[1024];

        if (entry->d_name[0] == '.')
            continue;
        snprintf(source, sizeof(source), "%s/%s", from, entry->d_name);
        snprintf(target, sizeof(target), "%s/%s", to, entry->d_name);
        EXPECT_OK(fs_copy_file(target, source, &err), &err);
    }
    if (folder)
        closedir(folder);
}

void help_write(const char *name, const void *bytes, size_t n_bytes)
{
    char path[HELP_PATH_MAX];
    FILE *file;

    help_path(path, name);
    file = fopen(path, "wb");
    if (!EXPECT_MSG(file != NULL, "cannot write %s", path))
        return;
    EXPECT(fwrite(bytes, 1, n_bytes, file) == n_bytes);
    fclose(file);
}

void help_read(struct buf *out, const char *name)
{
    char path[HELP_PATH_MAX];
    struct err err = {0};

    buf_reset(out);
    help_path(path, name);
    EXPECT_OK(fs_read_file(out, path, (size_t)1 << 24, &err), &err);
}

void help_flip(const char *name, long at, int whence, int mask)
{
    char path[HELP_PATH_MAX];
    FILE *file;
    int byte;

    help_path(path, name);
    file = fopen(path, "r+b");
    if (!EXPECT_MSG(file != NULL, "cannot open %s", path))
        return;
    EXPECT(fseek(file, at, whence) == 0);
    byte = fgetc(file);
    EXPECT(fseek(file, at, whence) == 0);
    fputc(byte ^ mask, file);
    fclose(file);
}

float help_golden(const char *param_name, int64_t i)
{
    uint64_t mixed = (rng_stream(param_name) + 2654435761U * (uint64_t)i) >> 16;

    return (float)((int64_t)(mixed % 255) - 127) / 64;
}

static int fill(void *state, int i, void *out, struct err *err)
{
    const struct safetensor *tensors = state;

    (void)err;
    memcpy(out, tensors[i].tensor.data, tensor_bytes(&tensors[i].tensor));
    return 0;
}

void help_rewrite(const char *name, help_edit edit)
{
    static struct safetensor tensors[HELP_TENSORS_MAX];
    struct safetensors_source source = {tensors, fill};
    struct safetensors file;
    char path[HELP_PATH_MAX], other[HELP_PATH_MAX + 8];
    struct err err = {0};
    uint64_t hash, n_bytes;
    int n;

    help_path(path, name);
    snprintf(other, sizeof(other), "%s.new", path);
    if (!EXPECT_OK(safetensors_open(&file, path, &err), &err))
        return;
    memcpy(tensors, file.tensors, (size_t)file.n_tensors * sizeof(*tensors));
    n = edit(tensors, file.n_tensors);
    for (int i = 0; i < n; i++)
        tensors[i].note[0] = '\0';
    EXPECT_OK(safetensors_write(other, tensors, n, &source, &hash, &n_bytes, &err), &err);
    safetensors_close(&file);
    EXPECT(rename(other, path) == 0);
}

int help_find(const struct safetensor *tensors, int n, const char *name)
{
    for (int i = 0; i < n; i++)
        if (strcmp(tensors[i].name, name) == 0)
            return i;
    EXPECT_MSG(false, "no tensor %s", name);
    return 0;
}

void help_refused(const char *name, const char *says, const char *and_says)
{
    struct weights *weights = NULL;
    struct err err = {0};
    char path[HELP_PATH_MAX];

    help_path(path, name);
    if (!EXPECT_MSG(weights_open(&weights, path, &err) < 0, "%s was opened", name)) {
        weights_close(weights);
        return;
    }
    EXPECT_MSG(strstr(err.text, says), "'%s' should say '%s'", err.text, says);
    if (and_says)
        EXPECT_MSG(strstr(err.text, and_says), "'%s' should say '%s'", err.text,
                   and_says);
}

struct weights *help_opened(const char *name)
{
    struct weights *weights = NULL;
    struct err err = {0};
    char path[HELP_PATH_MAX];

    help_path(path, name);
    EXPECT_OK(weights_open(&weights, path, &err), &err);
    return weights;
}
