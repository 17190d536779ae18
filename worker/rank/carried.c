#include "worker/rank/carried.h"

#include "common/base/fs.h"
#include "dataprep/text/tokenizer.h"

#include <stdlib.h>
#include <string.h>

struct carried_file {
    char *name;
    struct buf bytes;
};

struct carried {
    struct carried_file files[TOKENIZER_FILES_MAX];
    int n_files;
};

static int keep_file(void *state, const char *name, const struct buf *bytes,
                     struct err *err)
{
    struct carried *carried = state;
    struct carried_file *file = &carried->files[carried->n_files++];

    file->name = strdup(name);
    if (!file->name)
        return err_set(err, ERR_NOMEM, "cannot allocate the tokenizer's files");
    buf_add(&file->bytes, bytes->data, bytes->n_bytes);
    return buf_check(&file->bytes, err);
}

int carried_read(struct carried **out, const char *dataset,
                 const struct dataset_info *data, struct err *err)
{
    struct carried *carried = calloc(1, sizeof(*carried));
    char path[FS_PATH_MAX];

    if (!carried)
        return err_set(err, ERR_NOMEM, "cannot allocate the tokenizer's files");
    if (fs_path(path, err, "%s/%s", dataset, data->tokenizer) < 0 ||
        tokenizer_each_file(path, carried, keep_file, err) < 0) {
        carried_free(carried);
        return err_wrap(err, "the tokenizer, which checkpoints carry");
    }
    *out = carried;
    return 0;
}

void carried_free(struct carried *carried)
{
    if (!carried)
        return;
    for (int i = 0; i < carried->n_files; i++) {
        free(carried->files[i].name);
        buf_fini(&carried->files[i].bytes);
    }
    free(carried);
}

static int write_files(void *state, const char *folder, struct err *err)
{
    const struct carried *carried = state;

    for (int i = 0; i < carried->n_files; i++) {
        const struct carried_file *file = &carried->files[i];
        char path[FS_PATH_MAX];

        if (fs_path(path, err, "%s/%s", folder, file->name) < 0 ||
            fs_write_file_atomic(path, buf_str(&file->bytes), file->bytes.n_bytes, err) <
                0)
            return -1;
    }
    return 0;
}

int carried_save(const struct carried *carried, struct neva *model, const char *folder,
                 const struct json *meta, struct err *err)
{
    const struct checkpoint_extra extra = {(void *)(uintptr_t)carried, write_files};

    return checkpoint_save_with(model, folder, meta, carried ? &extra : NULL, err);
}
