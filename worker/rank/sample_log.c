#include "worker/rank/sample_log.h"

#include "common/base/fs.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SAMPLE_LOG_MAX ((size_t)1 << 30)

struct sample_log {
    int fd;
    struct buf line;
};

/* Bytes of the first first_step lines of text. */
static int kept_bytes(size_t *out, const char *text, size_t n_bytes, int64_t first_step,
                      struct err *err)
{
    const char *at = text, *end = text + n_bytes;

    for (int64_t step = 0; step < first_step; step++) {
        const char *newline = memchr(at, '\n', (size_t)(end - at));
        char *after;

        if (!newline || strtoll(at, &after, 10) != step || after == at)
            return err_set(err, ERR_FORMAT,
                           "the sample log has no line for step %" PRId64, step);
        at = newline + 1;
    }
    *out = (size_t)(at - text);
    return 0;
}

static int log_cut(struct sample_log *log, const char *path, int64_t first_step,
                   struct err *err)
{
    struct buf text = BUF_INIT;
    size_t n_bytes = 0;
    int rc = fs_read_file(&text, path, SAMPLE_LOG_MAX, err);

    if (rc == 0)
        rc = kept_bytes(&n_bytes, buf_str(&text), text.n_bytes, first_step, err);
    if (rc == 0 && (ftruncate(log->fd, (off_t)n_bytes) < 0 ||
                    lseek(log->fd, (off_t)n_bytes, SEEK_SET) < 0))
        rc = err_set(err, ERR_IO, "%s", strerror(errno));
    buf_fini(&text);
    return rc < 0 ? err_wrap(err, "cannot go on with '%s'", path) : 0;
}

int sample_log_open(struct sample_log **out, const char *folder, int64_t first_step,
                    struct err *err)
{
    struct sample_log *log = calloc(1, sizeof(*log));
    char path[FS_PATH_MAX];

    if (!log)
        return err_set(err, ERR_NOMEM, "cannot allocate the sample log");
    log->fd = -1;
    if (fs_path(path, err, "%s/samples.log", folder) < 0)
        goto fail;
    log->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (log->fd < 0) {
        err_set(err, ERR_IO, "cannot open '%s': %s", path, strerror(errno));
        goto fail;
    }
    if (log_cut(log, path, first_step, err) < 0)
        goto fail;
    *out = log;
    return 0;
fail:
    sample_log_close(log);
    return -1;
}

void sample_log_close(struct sample_log *log)
{
    if (!log)
        return;
    if (log->fd >= 0)
        close(log->fd);
    buf_fini(&log->line);
    free(log);
}

int sample_log_add(struct sample_log *log, const struct order *order, int64_t step,
                   struct err *err)
{
    buf_reset(&log->line);
    buf_printf(&log->line, "%" PRId64, step);
    for (int64_t i = 0; i < order->global; i++)
        buf_printf(&log->line, " %" PRId64,
                   order_sample(order, step * order->global + i));
    buf_add_char(&log->line, '\n');
    if (buf_check(&log->line, err) < 0)
        return -1;
    /* One write a line: a killed rank leaves whole lines. */
    if (write(log->fd, log->line.data, log->line.n_bytes) != (ssize_t)log->line.n_bytes)
        return err_set(err, ERR_IO, "cannot write the sample log: %s", strerror(errno));
    return 0;
}
