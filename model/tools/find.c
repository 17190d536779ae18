#include "model/tools/find.h"

#include "model/checkpoint/checkpoint.h"

static bool holds(const char *folder, const char *name)
{
    char path[FS_PATH_MAX];

    return fs_path(path, NULL, "%s/%s", folder, name) == 0 && fs_exists(path);
}

static bool is_weights(const char *folder)
{
    return holds(folder, "checkpoint.json") || holds(folder, "config.json");
}

int find_weights(char *out, const char *path, struct err *err)
{
    char folder[FS_PATH_MAX];
    int found;

    if (fs_must_exist(path, err) < 0)
        return -1;
    if (!fs_is_dir(path) || is_weights(path)) /* a file: weights_open knows some */
        return fs_path(out, err, "%s", path);
    if (fs_path(folder, err, "%s/checkpoints", path) < 0)
        return -1;
    if (!fs_is_dir(folder))
        return err_set(err, ERR_NOT_FOUND,
                       "'%s' holds no weights: neither checkpoint.json, config.json nor "
                       "a run's checkpoints",
                       path);
    found = checkpoint_find_newest(out, folder, err);
    if (found == 0)
        return err_set(err, ERR_NOT_FOUND, "'%s' holds no finished checkpoint", folder);
    return found < 0 ? -1 : 0;
}
