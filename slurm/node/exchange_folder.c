#define _GNU_SOURCE /* O_DIRECTORY, fdopendir */
#include "slurm/node/exchange_folder.h"

#include "common/base/clock.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define FOLDER_MODE 0700
#define READ_MS 5000              /* till a client must see what the server has */
#define READ_STEP_MS 50           /* between two tries */
#define FILE_BYTES_MAX (8u << 20) /* of one node before one fence */
#define HERE_BYTES_MAX 4096       /* of a file in here/ */
#define OLD_S (24 * 60 * 60)      /* folders of starts older than this are removed */

int exchange_folder_make(char *path, const char *folder, const char *token,
                         struct err *err)
{
    char sub[FS_PATH_MAX];

    if (!*token || strchr(token, '/') || token[0] == '.')
        return err_set(err, ERR_INVALID,
                       "token '%s' of the exchange must be a name for a folder", token);
    if (fs_path(path, err, "%s/exchange/%s", folder, token) < 0 ||
        fs_path(sub, err, "%s/here", path) < 0 ||
        fs_make_dirs(sub, FOLDER_MODE, err) < 0 ||
        fs_path(sub, err, "%s/events", path) < 0)
        return -1;
    return fs_make_dirs(sub, FOLDER_MODE, err);
}

bool exchange_folder_is_met(const char *folder, const char *token)
{
    char path[FS_PATH_MAX];
    const struct dirent *entry;
    bool is_there = false;
    DIR *dir;

    if (fs_path(path, NULL, "%s/exchange", folder) < 0 || !(dir = opendir(path)))
        return false;
    while (!is_there && (entry = readdir(dir)))
        is_there = strcmp(entry->d_name, token) == 0;
    closedir(dir);
    return is_there;
}

void exchange_folder_prune(const char *path)
{
    char parent[FS_PATH_MAX], old[FS_PATH_MAX];
    const char *slash = strrchr(path, '/');
    struct dirent *entry;
    struct stat st;
    DIR *dir;

    if (fs_path(parent, NULL, "%.*s", (int)(slash - path), path) < 0 ||
        !(dir = opendir(parent)))
        return;
    while ((entry = readdir(dir))) {
        if (entry->d_name[0] == '.' || strcmp(entry->d_name, slash + 1) == 0 ||
            fs_path(old, NULL, "%s/%s", parent, entry->d_name) < 0)
            continue;
        if (lstat(old, &st) == 0 && S_ISDIR(st.st_mode) &&
            st.st_mtime < clock_wall_ms() / 1000 - OLD_S)
            fs_remove_tree(old, NULL); /* best effort: it is in nobody's way */
    }
    closedir(dir);
}

/* ---- here/NODE ---- */

static struct json *read_here(const char *path, int node)
{
    struct buf text = BUF_INIT;
    struct json *here = NULL;
    char file[FS_PATH_MAX];

    if (fs_path(file, NULL, "%s/here/%d", path, node) == 0 &&
        fs_read_file(&text, file, HERE_BYTES_MAX, NULL) == 0 &&
        json_parse(&here, buf_str(&text), text.n_bytes, NULL) < 0)
        here = NULL;
    buf_fini(&text);
    return here;
}

static int fail_taken(const char *path, int node, const char *host, struct err *err)
{
    struct json *here = read_here(path, node);
    const char *other = json_get_string(here, "host");

    err_set(
        err, ERR_EXISTS,
        "node %d is on '%s' already (process %lld) in '%s': every node needs a number "
        "of its own, every start a token of its own; this one is on '%s'",
        node, other ? other : "an unknown host", (long long)json_get_int(here, "pid", 0),
        path, host);
    json_free(here);
    return -1;
}

int exchange_folder_enter(const char *path, int node, const char *host, struct err *err)
{
    struct buf text = BUF_INIT;
    char file[FS_PATH_MAX];
    int fd, rc;

    if (fs_path(file, err, "%s/here/%d", path, node) < 0)
        return -1;
    fd = open(file, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (fd < 0 && errno == EEXIST)
        return fail_taken(path, node, host, err);
    if (fd < 0)
        return err_set(err, ERR_IO, "cannot create '%s': %s", file, strerror(errno));
    buf_add_str(&text, "{\"host\": ");
    json_write_string(&text, host, strlen(host));
    buf_printf(&text, ", \"pid\": %d}\n", (int)getpid());
    rc = buf_check(&text, err);
    if (rc == 0 &&
        (write(fd, text.data, text.n_bytes) != (ssize_t)text.n_bytes || fsync(fd) < 0))
        rc = err_set(err, ERR_IO, "cannot write '%s': %s", file, strerror(errno));
    if (close(fd) < 0 && rc == 0)
        rc = err_set(err, ERR_IO, "cannot close '%s': %s", file, strerror(errno));
    buf_fini(&text);
    return rc;
}

void exchange_folder_host(char *out, const char *path, int node)
{
    struct json *here = read_here(path, node);
    const char *host = json_get_string(here, "host");

    snprintf(out, EXCHANGE_HOST_MAX, "%s", host ? host : "");
    json_free(here);
}

/* ---- texts ---- */

int exchange_folder_write(const char *path, const char *sub, const char *name,
                          const struct json *json, struct err *err)
{
    struct buf text = BUF_INIT;
    char file[FS_PATH_MAX];
    int rc = fs_path(file, err, "%s/%s", path, sub);

    if (rc == 0 && mkdir(file, FOLDER_MODE) < 0 && errno != EEXIST)
        rc = err_set(err, ERR_IO, "cannot make folder '%s': %s", file, strerror(errno));
    json_write(&text, json, 0);
    if (rc == 0)
        rc = buf_check(&text, err);
    if (rc == 0 && text.n_bytes > FILE_BYTES_MAX)
        rc = err_set(err, ERR_LIMIT, "more than %u bytes for one fence", FILE_BYTES_MAX);
    if (rc == 0)
        rc = fs_path(file, err, "%s/%s/%s", path, sub, name);
    if (rc == 0)
        rc = fs_write_file_atomic(file, text.data, text.n_bytes, err);
    buf_fini(&text);
    return rc;
}

int exchange_folder_read(struct json **out, const char *path, const char *sub,
                         const char *name, struct err *err)
{
    const struct timespec step = {0, READ_STEP_MS * 1000000L};
    int64_t deadline_ms = clock_mono_ms() + READ_MS;
    char file[FS_PATH_MAX];

    if (fs_path(file, err, "%s/%s/%s", path, sub, name) < 0)
        return -1;
    for (;;) {
        struct buf text = BUF_INIT;
        int rc = fs_read_file(&text, file, FILE_BYTES_MAX, err);
        bool is_refused = rc < 0;

        if (rc == 0 && json_parse(out, buf_str(&text), text.n_bytes, err) < 0)
            rc = err_wrap(err, "'%s'", file);
        buf_fini(&text);
        if (rc == 0 || !is_refused || clock_mono_ms() >= deadline_ms)
            return rc;
        nanosleep(&step, NULL);
    }
}

/* The number after prefix when name is just both; -1. */
static int number_of(const char *name, const char *prefix, int n)
{
    size_t n_prefix = strlen(prefix);
    char *end;
    long number;

    if (strncmp(name, prefix, n_prefix) != 0 || name[n_prefix] < '0' ||
        name[n_prefix] > '9')
        return -1;
    errno = 0;
    number = strtol(name + n_prefix, &end, 10);
    return errno || *end || number >= n ? -1 : (int)number;
}

int exchange_folder_list(bool *seen, int n, const char *path, const char *sub,
                         const char *prefix, struct err *err)
{
    char folder[FS_PATH_MAX];
    struct dirent *entry;
    int count = 0, i;
    DIR *dir;

    memset(seen, 0, (size_t)n * sizeof(*seen));
    if (fs_path(folder, err, "%s/%s", path, sub) < 0)
        return -1;
    dir = opendir(folder);
    if (!dir && errno == ENOENT && fs_is_dir(path))
        return 0;
    if (!dir)
        return err_set(err, ERR_IO, "cannot open folder '%s': %s", folder,
                       strerror(errno));
    while ((entry = readdir(dir))) {
        i = number_of(entry->d_name, prefix, n);
        if (i < 0 || seen[i])
            continue;
        seen[i] = true;
        count++;
    }
    closedir(dir);
    return count;
}
