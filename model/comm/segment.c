#define _GNU_SOURCE /* flock */
#include "model/comm/segment.h"

#include "common/base/clock.h"
#include "common/base/stage.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define RETRY_MS 2 /* until rank 0 has made the segment */
#define SEGMENT_FOLDER "/dev/shm"
#define SEGMENT_PREFIX "vneva-"
#define STALE_S 60 /* without a living maker for so long: left behind */

void segment_wait(void)
{
    struct timespec time = {.tv_nsec = RETRY_MS * 1000000};

    nanosleep(&time, NULL);
    stage_sign();
}

/* Who makes a segment holds its lock until all have met and its name is gone. */
static void remove_if_stale(const char *segment)
{
    int fd = shm_open(segment, O_RDWR, 0);
    struct stat st;

    if (fd < 0)
        return;
    if (fstat(fd, &st) == 0 && st.st_uid == geteuid() &&
        time(NULL) - st.st_mtime > STALE_S && flock(fd, LOCK_EX | LOCK_NB) == 0)
        shm_unlink(segment);
    close(fd);
}

/* A rank 0 that is killed while others are on their way leaves its segment. */
static void remove_stale(void)
{
    DIR *dir = opendir(SEGMENT_FOLDER);
    const struct dirent *entry;
    char segment[SEGMENT_NAME_MAX];

    while (dir && (entry = readdir(dir)))
        if (strncmp(entry->d_name, SEGMENT_PREFIX, strlen(SEGMENT_PREFIX)) == 0 &&
            (size_t)snprintf(segment, sizeof(segment), "/%s", entry->d_name) <
                sizeof(segment))
            remove_if_stale(segment);
    if (dir)
        closedir(dir);
}

int segment_make(const char *segment, size_t n_bytes, struct err *err)
{
    int fd, failed;

    remove_stale();
    fd = shm_open(segment, O_RDWR | O_CREAT | O_EXCL, 0600);
    if (fd < 0)
        return err_set(err, errno == EEXIST ? ERR_EXISTS : ERR_IO,
                       "cannot make shared memory '%s': %s", segment, strerror(errno));
    (void)flock(fd, LOCK_EX | LOCK_NB); /* fails only if somebody takes it for stale */
    failed = posix_fallocate(fd, 0, (off_t)n_bytes);
    if (failed) {
        err_set(
            err, ERR_NOMEM,
            "cannot reserve %zu bytes of shared memory: %s; make room in " SEGMENT_FOLDER
            " (a container may want a larger --shm-size)",
            n_bytes, strerror(failed));
        close(fd);
        shm_unlink(segment);
        return -1;
    }
    return fd;
}

int segment_find(const char *segment, size_t n_bytes, int64_t timeout_ms, struct err *err)
{
    int64_t deadline_ms = clock_mono_ms() + timeout_ms;

    for (;;) {
        int fd = shm_open(segment, O_RDWR, 0);
        struct stat st;

        if (fd < 0 && errno != ENOENT)
            return err_set(err, ERR_IO, "cannot open shared memory '%s': %s", segment,
                           strerror(errno));
        if (fd >= 0 && fstat(fd, &st) == 0 && (size_t)st.st_size >= n_bytes)
            return fd;
        if (fd >= 0)
            close(fd);
        if (clock_mono_ms() >= deadline_ms)
            return err_set(err, ERR_TIMEOUT,
                           "rank 0 did not come within %lld ms: no shared memory '%s'",
                           (long long)timeout_ms, segment);
        segment_wait();
    }
}
