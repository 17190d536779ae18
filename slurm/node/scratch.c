#define _GNU_SOURCE /* mkdtemp, flock */
#include "slurm/node/scratch.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define TMPDIR_MAX 60
#define PREFIX "vneva-node-"
#define LOCK "lock"
#define MAKING "lock.making"

/* A file in the folder, locked; -1 when somebody else has it, or there is none. */
static int lock_file(const char *folder, const char *name, int flags)
{
    char path[FS_PATH_MAX];
    int fd;

    if (fs_path(path, NULL, "%s/%s", folder, name) < 0)
        return -1;
    fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | flags, 0600);
    if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) < 0) {
        close(fd);
        return -1;
    }
    return fd;
}

/* The lock of a folder of one's own. It gets its name when it is held: others may look for it
 * at any moment, and one that nobody holds says that the folder is nobody's. */
static int make_lock(const char *folder)
{
    char making[FS_PATH_MAX], path[FS_PATH_MAX];
    int fd = lock_file(folder, MAKING, O_CREAT | O_EXCL);

    if (fd < 0)
        return -1;
    if (fs_path(making, NULL, "%s/" MAKING, folder) == 0 &&
        fs_path(path, NULL, "%s/" LOCK, folder) == 0 && rename(making, path) == 0)
        return fd;
    close(fd);
    return -1;
}

static void remove_left(const char *folder)
{
    struct stat status;
    int lock;

    if (lstat(folder, &status) < 0 || !S_ISDIR(status.st_mode) ||
        status.st_uid != getuid())
        return;
    lock = lock_file(folder, LOCK, 0);
    if (lock < 0) /* in use, or being made */
        return;
    fs_remove_tree(folder, NULL);
    close(lock);
}

static void remove_all_left(const char *parent)
{
    DIR *folder = opendir(parent);
    const struct dirent *entry;
    char path[FS_PATH_MAX];

    if (!folder)
        return;
    while ((entry = readdir(folder)) != NULL)
        if (strncmp(entry->d_name, PREFIX, strlen(PREFIX)) == 0 &&
            fs_path(path, NULL, "%s/%s", parent, entry->d_name) == 0)
            remove_left(path);
    closedir(folder);
}

int scratch_open(struct scratch *out, struct err *err)
{
    const char *tmp = getenv("TMPDIR");

    if (!tmp || !*tmp || strlen(tmp) > TMPDIR_MAX)
        tmp = "/tmp";
    remove_all_left(tmp);
    out->lock = -1;
    if (fs_path(out->path, err, "%s/" PREFIX "XXXXXX", tmp) < 0)
        return -1;
    if (!mkdtemp(out->path)) {
        err_set(err, ERR_IO, "cannot make a folder like '%s': %s", out->path,
                strerror(errno));
        out->path[0] = '\0';
        return -1;
    }
    out->lock = make_lock(out->path);
    if (out->lock < 0)
        return err_set(err, ERR_IO, "cannot lock '%s': %s", out->path, strerror(errno));
    return 0;
}

void scratch_close(struct scratch *scratch)
{
    if (!scratch->path[0])
        return;
    fs_remove_tree(scratch->path, NULL);
    if (scratch->lock >= 0)
        close(scratch->lock);
    scratch->path[0] = '\0';
}
