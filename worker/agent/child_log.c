#include "worker/agent/child_log.h"

#include "common/base/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct child_log {
    int pipe_fd, file_fd;
    int64_t file_bytes;
    int64_t window_start_ms, window_bytes; /* handed on in this second */
    int64_t left_out_bytes;
    char line[CHILD_LOG_LINE_MAX]; /* the one being read, cut when longer */
    size_t line_bytes;
    char last_error[CHILD_LOG_LINE_MAX];
};

int child_log_open(struct child_log **out, int pipe_fd, const char *path, struct err *err)
{
    struct child_log *log = calloc(1, sizeof(*log));

    if (!log) {
        close(pipe_fd);
        return err_set(err, ERR_NOMEM, "cannot allocate the log of a rank");
    }
    log->pipe_fd = pipe_fd;
    log->file_fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (log->file_fd < 0) {
        err_set(err, ERR_IO, "cannot open log '%s': %s", path, strerror(errno));
        child_log_close(log);
        return -1;
    }
    log->file_bytes = lseek(log->file_fd, 0, SEEK_END);
    *out = log;
    return 0;
}

void child_log_close(struct child_log *log)
{
    if (!log)
        return;
    if (log->pipe_fd >= 0)
        close(log->pipe_fd);
    if (log->file_fd >= 0)
        close(log->file_fd);
    free(log);
}

int child_log_fd(const struct child_log *log)
{
    return log->pipe_fd;
}

const char *child_log_last_error(const struct child_log *log)
{
    return log->last_error;
}

/* A reason goes over the wire, where only clean text is allowed: other bytes become '?'. */
static void copy_clean(char *out, const char *text)
{
    size_t i;

    for (i = 0; text[i] && i < CHILD_LOG_LINE_MAX - 1; i++)
        out[i] = (text[i] >= 0x20 && text[i] < 0x7f) ? text[i] : '?';
    out[i] = '\0';
}

/* "TIME error SPEAKER: text" as common/base/log.h writes it; or there is no rank. */
static void log_watch_line(struct child_log *log)
{
    const char *level = strchr(log->line, ' ');
    const char *text;

    if (strncmp(log->line, SPAWN_CANNOT, strlen(SPAWN_CANNOT)) == 0)
        copy_clean(log->last_error, log->line);
    if (!level || strncmp(level, " error ", 7) != 0)
        return;
    text = strstr(level + 7, ": ");
    copy_clean(log->last_error, text ? text + 2 : level + 7);
}

static void log_watch(struct child_log *log, const char *bytes, size_t n_bytes)
{
    for (size_t i = 0; i < n_bytes; i++) {
        if (bytes[i] != '\n') {
            if (log->line_bytes < sizeof(log->line) - 1)
                log->line[log->line_bytes++] = bytes[i];
            continue;
        }
        log->line[log->line_bytes] = '\0';
        log_watch_line(log);
        log->line_bytes = 0;
    }
}

static void log_keep(struct child_log *log, const char *bytes, size_t n_bytes)
{
    if (log->file_bytes + (int64_t)n_bytes > CHILD_LOG_FILE_MAX)
        return;
    /* A full disk must not stop the agent; the coordinator has the pieces. */
    if (write(log->file_fd, bytes, n_bytes) > 0)
        log->file_bytes += (int64_t)n_bytes;
}

static void log_hand_on(struct child_log *log, struct buf *piece, const char *bytes,
                        size_t n_bytes, int64_t now_ms)
{
    if (now_ms - log->window_start_ms >= 1000) {
        log->window_start_ms = now_ms;
        log->window_bytes = 0;
    }
    if (log->window_bytes + (int64_t)n_bytes > CHILD_LOG_RATE_BYTES) {
        log->left_out_bytes += (int64_t)n_bytes;
        return;
    }
    if (log->left_out_bytes)
        buf_printf(piece,
                   "[%" PRId64 " bytes left out here; the rank's log file has them]\n",
                   log->left_out_bytes);
    log->left_out_bytes = 0;
    log->window_bytes += (int64_t)n_bytes;
    buf_add(piece, bytes, n_bytes);
}

bool child_log_read(struct child_log *log, struct buf *piece, int64_t now_ms)
{
    char bytes[CHILD_LOG_PIECE_MAX];
    ssize_t n;

    if (log->pipe_fd < 0)
        return false;
    n = read(log->pipe_fd, bytes, sizeof(bytes));
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return false;
    if (n <= 0) {
        close(log->pipe_fd);
        log->pipe_fd = -1;
        return false;
    }
    log_keep(log, bytes, (size_t)n);
    log_watch(log, bytes, (size_t)n);
    log_hand_on(log, piece, bytes, (size_t)n, now_ms);
    return true;
}
