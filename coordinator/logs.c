/* Log files: <home>/jobs/N/logs/rank-R.attempt-A.log, as the ranks wrote them. */
#include "coordinator/core.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define EVENTS_A_CHUNK 1000
#define LOG_CUT "\n(the log is cut here: it has reached its limit)\n"

int core_make_job_folder(const struct core *core, int64_t job, struct err *err)
{
    char path[FS_PATH_MAX];

    if (fs_path(path, err, "%s/jobs/%lld/logs", core->config.home, (long long)job) < 0)
        return -1;
    return fs_make_dirs(path, 0700, err);
}

static int log_path(const struct core *core, char *out, int64_t job, int64_t attempt,
                    int64_t rank, struct err *err)
{
    return fs_path(out, err, "%s/jobs/%lld/logs/rank-%lld.attempt-%lld.log",
                   core->config.home, (long long)job, (long long)rank,
                   (long long)attempt);
}

static int write_bounded(int fd, const struct wire_bytes *data)
{
    struct stat st;
    size_t n_bytes = data->n_bytes;
    size_t room;

    if (fstat(fd, &st) < 0)
        return -1;
    if (st.st_size >= LOG_FILE_MAX)
        return 0;
    room = LOG_FILE_MAX - (size_t)st.st_size;
    if (n_bytes < room)
        return write(fd, data->data, n_bytes) == (ssize_t)n_bytes ? 0 : -1;
    if (write(fd, data->data, room) != (ssize_t)room)
        return -1;
    return write(fd, LOG_CUT, strlen(LOG_CUT)) < 0 ? -1 : 0;
}

int log_append(const struct core *core, const struct msg_log *log, struct err *err)
{
    char path[FS_PATH_MAX];
    int fd, rc = 0;

    if (log_path(core, path, log->job, log->attempt, log->rank, err) < 0)
        return -1;
    fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (fd < 0)
        return err_set(err, ERR_IO, "cannot open '%s': %s", path, strerror(errno));
    if (write_bounded(fd, &log->data) < 0)
        rc = err_set(err, ERR_IO, "cannot write '%s': %s", path, strerror(errno));
    close(fd);
    return rc;
}

/* A negative offset counts from the end of the file. */
static int64_t offset_in(int fd, int64_t offset)
{
    struct stat st;

    if (offset >= 0)
        return offset;
    return fstat(fd, &st) == 0 && st.st_size > -offset ? st.st_size + offset : 0;
}

/* Bytes of the file from *offset, which becomes that of the first byte read; a file that
 * is not there has none. */
static int read_piece(const char *path, int64_t *offset, int64_t max_bytes,
                      struct buf *data, struct err *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    char *block;
    ssize_t n;

    if (fd < 0) {
        *offset = *offset < 0 ? 0 : *offset;
        return errno == ENOENT
                   ? 0
                   : err_set(err, ERR_IO, "cannot open '%s': %s", path, strerror(errno));
    }
    *offset = offset_in(fd, *offset);
    block = malloc((size_t)max_bytes);
    n = block ? pread(fd, block, (size_t)max_bytes, (off_t)*offset) : -1;
    if (n > 0)
        buf_add(data, block, (size_t)n);
    if (n < 0)
        err_set(err, ERR_IO, "cannot read '%s': %s", path, strerror(errno));
    free(block);
    close(fd);
    return n < 0 ? -1 : buf_check(data, err);
}

/* Events of the job as text; offsets are event ids. */
static int read_events(const struct core *core, const struct msg_logs *request,
                       bool is_over, struct buf *data, struct msg_log_chunk *chunk,
                       struct err *err)
{
    if (store_events_text(core->store, data, request->job, request->offset,
                          EVENTS_A_CHUNK, &chunk->next, err) < 0)
        return -1;
    chunk->is_end = is_over && !data->n_bytes;
    return 0;
}

/* Of the attempt asked for; of the next one when that has ended and is read to its end. */
static int read_rank(const struct core *core, const struct msg_logs *request,
                     int64_t last, bool is_over, struct buf *data,
                     struct msg_log_chunk *chunk, struct err *err)
{
    /* Without an attempt from the first byte of the newest one, or from its end. */
    int64_t offset = request->attempt || request->offset < 0 ? request->offset : 0;
    int64_t max_bytes = request->max_bytes;
    char path[FS_PATH_MAX], state[16];

    if (max_bytes <= 0 || max_bytes > LOG_CHUNK_MAX)
        max_bytes = LOG_CHUNK_MAX;
    for (;; chunk->attempt++, offset = 0) {
        bool has_next = chunk->attempt < last;

        if (log_path(core, path, request->job, chunk->attempt, request->rank, err) < 0 ||
            read_piece(path, &offset, max_bytes, data, err) < 0)
            return -1;
        chunk->next = offset + (int64_t)data->n_bytes;
        chunk->is_end = is_over && !has_next && !data->n_bytes;
        if (data->n_bytes || !has_next)
            return 0;
        if (store_find_attempt_state(core->store, request->job, chunk->attempt, state,
                                     err) < 0)
            return -1;
        if (strcmp(state, attempt_state_name(ATTEMPT_ENDED)) != 0)
            return 0;
    }
}

int log_read(const struct core *core, const struct msg_logs *request, struct buf *data,
             struct wire *answer, struct err *err)
{
    struct msg_log_chunk *chunk = &answer->log_chunk;
    int64_t last;
    char state[16];
    bool is_over;
    int rc;

    answer->type = MSG_LOG_CHUNK;
    if (store_find_job(core->store, request->job, state, &last, err) < 0)
        return -1;
    if (request->rank < -1 || request->attempt < 0 || request->attempt > last ||
        request->offset < (request->rank < 0 ? 0 : -LOG_FILE_MAX))
        return err_set(err, ERR_INVALID, "no log of rank %lld, attempt %lld, offset %lld",
                       (long long)request->rank, (long long)request->attempt,
                       (long long)request->offset);
    /* A job leaves the model when it and its attempts have ended. */
    is_over = job_state_is_ended(job_state_find(state)) &&
              !model_job_find(&core->model, request->job);
    chunk->attempt = request->attempt ? request->attempt : last;
    rc = request->rank < 0 ? read_events(core, request, is_over, data, chunk, err)
                           : read_rank(core, request, last, is_over, data, chunk, err);
    chunk->data = (struct wire_bytes){buf_str(data), data->n_bytes};
    return rc;
}
