#define _GNU_SOURCE /* nftw, renameat2 */
#include "common/base/fs.h"

#include "common/base/fault.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define FS_BLOCK_BYTES (1 << 16) /* read at once */
#define FS_OPEN_FOLDERS 16       /* file descriptors fs_remove_tree may use */

int fs_path(char *out, struct err *err, const char *format, ...)
{
    va_list args;
    int n;

    va_start(args, format);
    n = vsnprintf(out, FS_PATH_MAX, format, args);
    va_end(args);
    if (n < 0 || n >= FS_PATH_MAX)
        return err_set(err, ERR_LIMIT, "path is longer than %d bytes: '%.60s...'",
                       FS_PATH_MAX - 1, out);
    return 0;
}

int fs_parent(char *out, const char *path, struct err *err)
{
    const char *slash = strrchr(path, '/');

    if (!slash)
        return fs_path(out, err, ".");
    return fs_path(out, err, "%.*s", slash == path ? 1 : (int)(slash - path), path);
}

int fs_make_dirs(const char *path, unsigned mode, struct err *err)
{
    char part[FS_PATH_MAX];

    if (fs_path(part, err, "%s", path) < 0)
        return -1;
    for (char *slash = part + 1;; slash++) {
        if (*slash && *slash != '/')
            continue;
        char kept = *slash;

        *slash = '\0';
        if (mkdir(part, (mode_t)mode) < 0 && errno != EEXIST)
            return err_set(err, ERR_IO, "cannot make folder '%s': %s", part,
                           strerror(errno));
        *slash = kept;
        if (!kept)
            break;
    }
    if (!fs_is_dir(path))
        return err_set(err, ERR_IO, "'%s' exists and is not a folder", path);
    return 0;
}

int fs_read_file(struct buf *out, const char *path, size_t max_bytes, struct err *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    char block[FS_BLOCK_BYTES];
    size_t total = 0;
    ssize_t n;

    if (fd < 0)
        return err_set(err, errno == ENOENT ? ERR_NOT_FOUND : ERR_IO,
                       "cannot open '%s': %s", path, strerror(errno));
    while ((n = read(fd, block, sizeof(block))) > 0) {
        total += (size_t)n;
        if (total > max_bytes) {
            close(fd);
            return err_set(err, ERR_LIMIT, "'%s' is larger than %zu bytes", path,
                           max_bytes);
        }
        buf_add(out, block, (size_t)n);
    }
    if (n < 0)
        err_set(err, ERR_IO, "cannot read '%s': %s", path, strerror(errno));
    close(fd);
    return n < 0 ? -1 : buf_check(out, err);
}

int fs_write_all(int fd, const void *bytes, size_t n_bytes)
{
    for (const char *at = bytes; n_bytes;) {
        ssize_t n = write(fd, at, n_bytes);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -1;
        at += n;
        n_bytes -= (size_t)n;
    }
    return 0;
}

int fs_write_file_atomic(const char *path, const void *bytes, size_t n_bytes,
                         struct err *err)
{
    char temporary[FS_PATH_MAX], folder[FS_PATH_MAX];
    int fd, failed;

    if (fs_path(temporary, err, "%s.tmp-%d", path, (int)getpid()) < 0 ||
        fs_parent(folder, path, err) < 0)
        return -1;
    fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0)
        return err_set(err, ERR_IO, "cannot create '%s': %s", temporary, strerror(errno));
    failed = fs_write_all(fd, bytes, n_bytes) < 0 || fsync(fd) < 0;
    failed |= close(fd) < 0;
    if (failed || rename(temporary, path) < 0) {
        err_set(err, ERR_IO, "cannot write '%s': %s", path, strerror(errno));
        unlink(temporary);
        return -1;
    }
    return fs_sync_dir(folder, err);
}

/* The rest of one open file into another; names the file at fault. */
static int copy_bytes(int out, const char *to, int in, const char *from, struct err *err)
{
    char block[FS_BLOCK_BYTES];
    ssize_t n;

    while ((n = read(in, block, sizeof(block))) != 0) {
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_set(err, ERR_IO, "cannot read '%s': %s", from, strerror(errno));
        if (fs_write_all(out, block, (size_t)n) < 0)
            return err_set(err, ERR_IO, "cannot write '%s': %s", to, strerror(errno));
    }
    if (fsync(out) < 0)
        return err_set(err, ERR_IO, "cannot sync '%s': %s", to, strerror(errno));
    return 0;
}

int fs_copy_file(const char *to, const char *from, struct err *err)
{
    int in = open(from, O_RDONLY | O_CLOEXEC), out, rc;

    if (in < 0)
        return err_set(err, errno == ENOENT ? ERR_NOT_FOUND : ERR_IO,
                       "cannot open '%s': %s", from, strerror(errno));
    out = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (out < 0) {
        err_set(err, ERR_IO, "cannot create '%s': %s", to, strerror(errno));
        close(in);
        return -1;
    }
    rc = copy_bytes(out, to, in, from, err);
    close(in);
    if (close(out) < 0 && rc == 0)
        rc = err_set(err, ERR_IO, "cannot close '%s': %s", to, strerror(errno));
    return rc;
}

int fs_sync_dir(const char *path, struct err *err)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int rc = 0;

    if (fd < 0)
        return err_set(err, ERR_IO, "cannot open folder '%s': %s", path, strerror(errno));
    if (fsync(fd) < 0)
        rc = err_set(err, ERR_IO, "cannot sync folder '%s': %s", path, strerror(errno));
    close(fd);
    return rc;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

int fs_remove_tree(const char *path, struct err *err)
{
    if (nftw(path, remove_one, FS_OPEN_FOLDERS, FTW_DEPTH | FTW_PHYS) != 0 &&
        errno != ENOENT)
        return err_set(err, ERR_IO, "cannot remove '%s': %s", path, strerror(errno));
    return 0;
}

int fs_put_dir(const char *from, const char *to, struct err *err)
{
    char parent[FS_PATH_MAX];

    if (fs_exists(to)) {
        if (renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_EXCHANGE) < 0)
            return err_set(err, ERR_IO, "cannot replace '%s': %s", to, strerror(errno));
    } else if (rename(from, to) < 0) {
        return err_set(err, ERR_IO, "cannot rename '%s' to '%s': %s", from, to,
                       strerror(errno));
    }
    if (fault_hit("fs.put_dir"))
        return err_set(err, ERR_IO, "fault point fs.put_dir");
    if (fs_parent(parent, to, err) < 0 || fs_sync_dir(parent, err) < 0)
        return -1;
    return fs_remove_tree(from, err); /* the one that was replaced */
}

int fs_program_folder(char *out, struct err *err)
{
    ssize_t n = readlink("/proc/self/exe", out, FS_PATH_MAX - 1);
    char *slash;

    if (n < 0)
        return err_set(err, ERR_IO, "cannot read /proc/self/exe: %s", strerror(errno));
    out[n] = '\0';
    slash = strrchr(out, '/');
    if (slash)
        *slash = '\0';
    return 0;
}

bool fs_ends(const char *path, const char *with)
{
    size_t n = strlen(path), n_with = strlen(with);

    return n >= n_with && strcmp(path + n - n_with, with) == 0;
}

bool fs_exists(const char *path)
{
    return access(path, F_OK) == 0;
}

int fs_must_exist(const char *path, struct err *err)
{
    if (fs_exists(path))
        return 0;
    if (errno == ENOENT)
        return err_set(err, ERR_NOT_FOUND, "'%s' is not there", path);
    return err_set(err, ERR_NOT_FOUND, "'%s' cannot be reached: %s", path,
                   strerror(errno));
}

bool fs_is_dir(const char *path)
{
    struct stat st;

    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

int fs_free_bytes(uint64_t *out, const char *path, struct err *err)
{
    struct statvfs st;

    if (statvfs(path, &st) < 0)
        return err_set(err, ERR_IO, "cannot ask for free space of '%s': %s", path,
                       strerror(errno));
    *out = (uint64_t)st.f_bavail * st.f_frsize;
    return 0;
}
