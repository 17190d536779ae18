#define _GNU_SOURCE /* O_DIRECTORY */
#include "slurm/node/probe.h"

#include "common/base/clock.h"
#include "common/base/fs.h"
#include "common/base/hash.h"
#include "slurm/node/process.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define SEEN_MS 5000 /* till a client must see what another has written */
#define SEEN_STEP_MS 50
#define FOLDER_MODE 0700
#define NONCE_BYTES_MAX 256
#define PRINT_BYTES 65536
#define NUMBERS_MAX 96 /* bytes of those before the text */

struct look {
    struct probe *probes;
    int n;
};

static void fail(struct probe *probe, const char *what)
{
    snprintf(probe->why, sizeof(probe->why), "%s: %s", what, strerror(errno));
}

static void look_folder(struct probe *probe)
{
    const struct dirent *entry;
    DIR *dir;

    probe->n_bytes = -1;
    errno = 0;
    dir = opendir(probe->path);
    while (dir && probe->n_entries <= PROBE_ENTRIES_MAX && (entry = readdir(dir))) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        probe->n_entries++;
        /* a sum: file systems list names in any order */
        probe->print += hash64(entry->d_name, strlen(entry->d_name), 0);
    }
    if (errno)
        fail(probe, "cannot list it");
    if (dir)
        closedir(dir);
    if (probe->n_entries > PROBE_ENTRIES_MAX)
        probe->print = 0;
}

/* Of up to PRINT_BYTES at that place. */
static int print_at(struct probe *probe, int fd, int64_t at)
{
    char bytes[PRINT_BYTES];
    ssize_t n = pread(fd, bytes, sizeof(bytes), at);

    if (n < 0)
        return -1;
    probe->print = hash64(bytes, (size_t)n, probe->print);
    return 0;
}

/* Sizes as NFS tells them to whoever opens a file: those of stat may be a minute old. */
static void look_file(struct probe *probe)
{
    int fd = open(probe->path, O_RDONLY | O_CLOEXEC);
    struct stat st;

    probe->n_entries = -1;
    if (fd < 0 || fstat(fd, &st) < 0 || print_at(probe, fd, 0) < 0 ||
        (st.st_size > PRINT_BYTES && print_at(probe, fd, st.st_size - PRINT_BYTES) < 0))
        fail(probe, "cannot read it");
    else
        probe->n_bytes = st.st_size;
    if (fd >= 0)
        close(fd);
}

static void look_read(struct probe *probe)
{
    struct stat st;

    if (stat(probe->path, &st) < 0)
        fail(probe, "cannot see it");
    else if (S_ISDIR(st.st_mode))
        look_folder(probe);
    else
        look_file(probe);
}

static void look_make(struct probe *probe)
{
    char path[FS_PATH_MAX], *slash;
    struct stat st;

    snprintf(path, sizeof(path), "%s", probe->path);
    while (access(path, F_OK) < 0 && errno == ENOENT && (slash = strrchr(path, '/')))
        slash[slash == path] = '\0';
    if (access(path, W_OK) < 0)
        fail(probe, "cannot write there");
    slash = strrchr(path, '/');
    if (slash && stat(path, &st) == 0 && !S_ISDIR(st.st_mode))
        slash[slash == path] = '\0';
    probe->n_bytes = (int64_t)strlen(path);
}

static void look_write(struct probe *probe)
{
    char folder[FS_PATH_MAX];
    char *slash;
    struct err err;

    snprintf(folder, sizeof(folder), "%s", probe->path);
    slash = strrchr(folder, '/');
    if (slash)
        *slash = '\0';
    if ((slash && fs_make_dirs(folder, FOLDER_MODE, &err) < 0) ||
        fs_write_file_atomic(probe->path, probe->text, strlen(probe->text), &err) < 0)
        snprintf(probe->why, sizeof(probe->why), "%s", err.text);
}

static void look_equals(struct probe *probe)
{
    const struct timespec step = {0, SEEN_STEP_MS * 1000000L};
    int64_t deadline_ms = clock_mono_ms() + SEEN_MS;
    struct buf text = BUF_INIT;
    struct err err;

    while (fs_read_file(&text, probe->path, NONCE_BYTES_MAX, &err) < 0) {
        if (clock_mono_ms() >= deadline_ms) {
            snprintf(probe->why, sizeof(probe->why), "%s", err.text);
            break;
        }
        nanosleep(&step, NULL);
    }
    if (!*probe->why && strcmp(buf_str(&text), probe->text) != 0)
        snprintf(probe->why, sizeof(probe->why), "it holds something else");
    buf_fini(&text);
}

static void look_one(struct probe *probe)
{
    switch (probe->kind) {
    case PROBE_READ:
        look_read(probe);
        break;
    case PROBE_MAKE:
        look_make(probe);
        break;
    case PROBE_WRITE:
        look_write(probe);
        break;
    case PROBE_EQUALS:
        look_equals(probe);
        break;
    }
}

/* In the child: "NUMBER BYTES ENTRIES PRINT WHY" and a NUL for each. */
static void look_all(void *state)
{
    const struct look *look = state;

    for (int i = 0; i < look->n; i++) {
        struct probe *probe = &look->probes[i];
        char line[PROBE_TEXT_MAX + NUMBERS_MAX];
        int n;

        look_one(probe);
        n = snprintf(line, sizeof(line), "%d %" PRId64 " %" PRId64 " %" PRIu64 " %s", i,
                     probe->n_bytes, probe->n_entries, probe->print, probe->why);
        if (write(STDOUT_FILENO, line, (size_t)n + 1) != n + 1)
            return;
    }
}

int probe_all(struct probe *probes, int n, int64_t timeout_ms, struct err *err)
{
    static const char *const argv[] = {"a look at files", NULL};
    struct look look = {probes, n};
    struct spawn how = {.argv = argv,
                        .err_fd = STDERR_FILENO,
                        .work = look_all,
                        .state = &look,
                        PROCESS_DEAF};
    struct spawn_said said;
    int i = 0, rc;

    for (int k = 0; k < n; k++)
        probes[k].why[0] = '\0';
    rc = spawn_run(&said, &how, timeout_ms, err);
    if (said.is_late)
        rc = 0;
    for (const char *at = said.out.data, *end = at + said.out.n_bytes;
         rc == 0 && i < n && at < end; at += strlen(at) + 1, i++) {
        char *why;

        strtol(at, &why, 10);
        probes[i].n_bytes = strtoll(why, &why, 10);
        probes[i].n_entries = strtoll(why, &why, 10);
        probes[i].print = strtoull(why, &why, 10);
        snprintf(probes[i].why, sizeof(probes[i].why), "%s", *why ? why + 1 : "");
    }
    for (int k = i; k < n; k++)
        snprintf(probes[k].why, sizeof(probes[k].why),
                 k == i ? "it does not answer within %.1f s"
                        : "not looked at: one before it took all of %.1f s",
                 (double)timeout_ms / 1000);
    spawn_said_fini(&said);
    return rc;
}
