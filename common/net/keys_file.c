#define _DEFAULT_SOURCE /* explicit_bzero */
#include "common/net/keys_file.h"
#include "common/base/fs.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static int check_private(const char *path, const struct stat *st, struct err *err)
{
    if (!S_ISREG(st->st_mode))
        return err_set(err, ERR_DENIED, "'%s' is not a plain file", path);
    if (st->st_uid != geteuid())
        return err_set(err, ERR_DENIED,
                       "'%s' is not yours: it belongs to user %ld and you are %ld", path,
                       (long)st->st_uid, (long)geteuid());
    if (st->st_mode & (S_IRWXG | S_IRWXO))
        return err_set(err, ERR_DENIED,
                       "'%s' is open to others (mode %03o); make it yours alone with "
                       "chmod 600",
                       path, (unsigned)(st->st_mode & 0777));
    return 0;
}

int keys_file_open(const char *path, struct stat *st, struct err *err)
{
    /* O_NONBLOCK: a fifo must not hold us up */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);

    if (fd < 0 && errno == ELOOP)
        return err_set(err, ERR_DENIED,
                       "'%s' is a symbolic link, which is not followed to a key", path);
    if (fd < 0)
        return err_set(err, errno == ENOENT ? ERR_NOT_FOUND : ERR_IO,
                       "cannot open '%s': %s", path, strerror(errno));
    if (fstat(fd, st) < 0)
        err_set(err, ERR_IO, "cannot look at '%s': %s", path, strerror(errno));
    else if (check_private(path, st, err) == 0)
        return fd;
    close(fd);
    return -1;
}

int keys_file_read(const char *path, char *out, size_t capacity, size_t *n_bytes,
                   struct err *err)
{
    struct stat st;
    int fd = keys_file_open(path, &st, err);
    ssize_t n = 0;

    if (fd < 0)
        return -1;
    *n_bytes = 0;
    while (*n_bytes < capacity && (n = read(fd, out + *n_bytes, capacity - *n_bytes)) > 0)
        *n_bytes += (size_t)n;
    close(fd);
    if (n < 0 || *n_bytes == capacity) {
        explicit_bzero(out, capacity);
        return n < 0 ? err_set(err, ERR_IO, "cannot read '%s': %s", path, strerror(errno))
                     : err_set(err, ERR_LIMIT, "'%s' has more than %zu bytes", path,
                               capacity - 1);
    }
    out[*n_bytes] = '\0';
    if (strlen(out) == *n_bytes)
        return 0;
    explicit_bzero(out, capacity);
    return err_set(err, ERR_FORMAT, "'%s' is no text: it holds a NUL", path);
}

/* ---- writing ---- */

/* A synced file; one that a process left there when it was killed is replaced. */
static int write_temporary(const char *temporary, const char *text, size_t n_bytes,
                           struct err *err)
{
    bool has_failed;
    int fd;

    (void)unlink(temporary);
    fd = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return err_set(err, ERR_IO, "cannot create '%s': %s", temporary, strerror(errno));
    has_failed = fs_write_all(fd, text, n_bytes) < 0 || fsync(fd) < 0;
    has_failed |= close(fd) < 0;
    if (!has_failed)
        return 0;
    err_set(err, ERR_IO, "cannot write '%s': %s", temporary, strerror(errno));
    unlink(temporary);
    return -1;
}

/* link(2), unlike rename(2), replaces nothing; some file systems do not have it. */
static int move_to_new(const char *temporary, const char *path)
{
    int failed;

    if (link(temporary, path) == 0) {
        unlink(temporary);
        return 0;
    }
    failed = errno;
    if ((failed == EPERM || failed == EOPNOTSUPP || failed == ENOSYS) &&
        !fs_exists(path) && rename(temporary, path) == 0)
        return 0;
    unlink(temporary);
    errno = failed;
    return -1;
}

int keys_file_create(const char *path, const char *text, size_t n_bytes, struct err *err)
{
    char temporary[FS_PATH_MAX], folder[FS_PATH_MAX];

    if (fs_parent(folder, path, err) < 0 ||
        fs_path(temporary, err, "%s.tmp-%d", path, (int)getpid()) < 0 ||
        write_temporary(temporary, text, n_bytes, err) < 0)
        return -1;
    if (move_to_new(temporary, path) == 0)
        return fs_sync_dir(folder, err);
    if (errno == EEXIST)
        return err_set(err, ERR_EXISTS, "'%s' exists already", path);
    return err_set(err, ERR_IO, "cannot write '%s': %s", path, strerror(errno));
}

/* Who calls this holds a lock, so that one name of a temporary file is enough. */
int keys_file_replace(const char *path, const char *text, size_t n_bytes, struct err *err)
{
    char temporary[FS_PATH_MAX], folder[FS_PATH_MAX];

    if (fs_parent(folder, path, err) < 0 || fs_path(temporary, err, "%s.tmp", path) < 0 ||
        write_temporary(temporary, text, n_bytes, err) < 0)
        return -1;
    if (rename(temporary, path) == 0)
        return fs_sync_dir(folder, err);
    err_set(err, ERR_IO, "cannot write '%s': %s", path, strerror(errno));
    unlink(temporary);
    return -1;
}
