#include "model/tools/find.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

static bool holds(const char *folder, const char *name)
{
    char path[FS_PATH_MAX];

    return fs_path(path, NULL, "%s/%s", folder, name) == 0 && fs_exists(path);
}

static bool is_weights(const char *folder)
{
    return holds(folder, "checkpoint.json") || holds(folder, "config.json");
}

/* The step of a finished checkpoint's name, "step-00000030-a1"; -1: it is none. */
static long long step_of(const char *name)
{
    long long step;
    char *end;

    if (strncmp(name, "step-", 5) != 0)
        return -1;
    step = strtoll(name + 5, &end, 10);
    if (strncmp(end, "-a", 2) != 0)
        return -1;
    (void)strtoll(end + 2, &end, 10);
    return *end ? -1 : step; /* ".tmp" is half written */
}

static int find_newest(char *out, const char *folder, struct err *err)
{
    char newest[NAME_MAX + 1] = "";
    DIR *dir = opendir(folder);
    struct dirent *entry;
    long long best = -1;

    if (!dir)
        return err_set(err, ERR_IO, "cannot list '%s': %s", folder, strerror(errno));
    while ((entry = readdir(dir))) {
        long long step = step_of(entry->d_name);

        if (step > best && strlen(entry->d_name) < sizeof(newest)) {
            best = step;
            memcpy(newest, entry->d_name, strlen(entry->d_name) + 1);
        }
    }
    closedir(dir);
    if (best < 0)
        return err_set(err, ERR_NOT_FOUND, "'%s' holds no finished checkpoint", folder);
    return fs_path(out, err, "%s/%s", folder, newest);
}

int find_weights(char *out, const char *path, struct err *err)
{
    char folder[FS_PATH_MAX];

    if (!fs_exists(path))
        return err_set(err, ERR_NOT_FOUND, "there is no folder '%s'", path);
    if (!fs_is_dir(path) || is_weights(path)) /* a file: weights_open knows some */
        return fs_path(out, err, "%s", path);
    if (fs_path(folder, err, "%s/checkpoints", path) < 0)
        return -1;
    if (fs_is_dir(folder))
        return find_newest(out, folder, err);
    return err_set(err, ERR_NOT_FOUND,
                   "'%s' holds no weights: neither checkpoint.json, config.json nor a "
                   "run's checkpoints",
                   path);
}
