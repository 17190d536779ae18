#include "model/checkpoint/checkpoint.h"

#include "common/base/fs.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

int checkpoint_path(char *out, const char *run, int64_t step, int64_t attempt,
                    struct err *err)
{
    return fs_path(out, err, "%s/checkpoints/step-%08" PRId64 "-a%" PRId64, run, step,
                   attempt);
}

int64_t checkpoint_name_step(const char *name, bool with_unfinished)
{
    long long step;
    char *end;

    if (strncmp(name, "step-", 5) != 0)
        return -1;
    step = strtoll(name + 5, &end, 10);
    if (end == name + 5 || strncmp(end, "-a", 2) != 0 || step < 0)
        return -1;
    name = end + 2;
    (void)strtoll(name, &end, 10);
    if (end == name || (*end && !with_unfinished))
        return -1;
    return step;
}

int checkpoint_find_newest(char *out, const char *folder, struct err *err)
{
    DIR *dir = opendir(folder);
    struct dirent *entry;
    int64_t newest = -1;
    int rc = 0;

    if (!dir)
        return errno == ENOENT || errno == ENOTDIR
                   ? 0
                   : err_set(err, ERR_IO, "cannot list '%s': %s", folder,
                             strerror(errno));
    while (rc == 0 && (entry = readdir(dir))) {
        int64_t step = checkpoint_name_step(entry->d_name, false);

        if (step <= newest)
            continue;
        newest = step;
        rc = fs_path(out, err, "%s/%s", folder, entry->d_name);
    }
    closedir(dir);
    return rc < 0 ? -1 : newest >= 0;
}
