#include "worker/rank/carried.h"

#include "common/base/fs.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

struct carried {
    char name[NAME_MAX + 1];
    struct buf bytes;
};

int carried_read(struct carried **out, const char *dataset,
                 const struct dataset_info *data, struct err *err)
{
    struct carried *carried = calloc(1, sizeof(*carried));
    size_t n = strlen(data->tokenizer);
    char path[FS_PATH_MAX];

    if (!carried)
        return err_set(err, ERR_NOMEM, "cannot allocate the tokenizer's files");
    if (n >= sizeof(carried->name) || strchr(data->tokenizer, '/')) {
        err_set(err, ERR_FORMAT, "'%s' names no file of the dataset", data->tokenizer);
        goto fail;
    }
    memcpy(carried->name, data->tokenizer, n + 1);
    if (fs_path(path, err, "%s/%s", dataset, carried->name) < 0 ||
        fs_read_file(&carried->bytes, path, CARRIED_FILE_MAX, err) < 0)
        goto fail;
    *out = carried;
    return 0;
fail:
    carried_free(carried);
    return err_wrap(err, "the tokenizer, which checkpoints carry");
}

void carried_free(struct carried *carried)
{
    if (!carried)
        return;
    buf_fini(&carried->bytes);
    free(carried);
}

static int write_files(void *state, const char *folder, struct err *err)
{
    const struct carried *carried = state;
    char path[FS_PATH_MAX];

    if (fs_path(path, err, "%s/%s", folder, carried->name) < 0)
        return -1;
    return fs_write_file_atomic(path, buf_str(&carried->bytes), carried->bytes.n_bytes,
                                err);
}

int carried_save(const struct carried *carried, struct neva *model, const char *folder,
                 const struct json *meta, struct err *err)
{
    const struct checkpoint_extra extra = {(void *)(uintptr_t)carried, write_files};

    return checkpoint_save_with(model, folder, meta, carried ? &extra : NULL, err);
}
