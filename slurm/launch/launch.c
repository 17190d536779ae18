#include "slurm/launch/launch.h"

#include "common/base/fs.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static enum launch_exit exit_of(enum err_code code)
{
    switch (code) {
    case ERR_TIMEOUT:
        return EXIT_NOBODY;
    case ERR_STATE:
    case ERR_DENIED:
        return EXIT_REFUSED;
    case ERR_INVALID:
    case ERR_FORMAT:
    case ERR_NOT_FOUND:
    case ERR_EXISTS:
    case ERR_LIMIT:
        return EXIT_USAGE;
    default:
        return EXIT_SYSTEM;
    }
}

int launch_fail(const struct err *err)
{
    fflush(stdout);
    fprintf(stderr, "vneva: %s\n", err->text);
    return exit_of(err->code);
}

void launch_stamp(char *out)
{
    time_t now = time(NULL);
    struct tm utc;

    gmtime_r(&now, &utc);
    strftime(out, LAUNCH_STAMP_MAX, "%Y%m%dT%H%M%SZ", &utc);
}

void launch_plain_name(char *out, const char *name)
{
    snprintf(out, LAUNCH_NAME_MAX, "%s", name);
    for (char *c = out; *c; c++)
        if (!isalnum((unsigned char)*c) && !strchr("._-", *c))
            *c = '-';
}

int launch_absolute(char *out, const char *path, struct err *err)
{
    char folder[FS_PATH_MAX];

    if (*path == '/')
        return fs_path(out, err, "%s", path);
    if (!getcwd(folder, sizeof(folder)))
        return err_set(err, ERR_IO, "cannot tell the current folder: %s",
                       strerror(errno));
    return fs_path(out, err, "%s/%s", folder, path);
}
