#include "worker/rank/sample_log.h"

#include "common/base/fs.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct sample_log {
    int fd;
    struct buf line;
};

/* The step of a line of n bytes; -1 when it is not whole. */
static int64_t line_step(const char *line, ssize_t n)
{
    char *after;
    int64_t step = n > 0 ? strtoll(line, &after, 10) : -1;

    return n > 0 && line[n - 1] == '\n' && after != line ? step : -1;
}

/* Bytes of the lines of steps below first_step. */
static int kept_bytes(off_t *out, FILE *file, int64_t first_step, bool is_first,
                      struct err *err)
{
    char *line = NULL;
    size_t capacity = 0;
    ssize_t n = getline(&line, &capacity, file);
    int64_t step = n > 0 && line_step(line, n) > 0 ? line_step(line, n) : 0;
    int rc = 0;

    *out = 0;
    if (n <= 0 && is_first)
        step = first_step;
    for (; rc == 0 && step < first_step; step++) {
        if (line_step(line, n) == step)
            *out += n;
        else
            rc = err_set(err, ERR_FORMAT, "the sample log has no line for step %" PRId64,
                         step);
        n = getline(&line, &capacity, file);
    }
    free(line);
    return rc;
}

static int log_cut(struct sample_log *log, const char *path, int64_t first_step,
                   bool is_first, struct err *err)
{
    FILE *file = fopen(path, "re");
    off_t n_bytes = 0;
    int rc = file ? kept_bytes(&n_bytes, file, first_step, is_first, err)
                  : err_set(err, ERR_IO, "%s", strerror(errno));

    if (file)
        (void)fclose(file); /* only read */
    if (rc == 0 &&
        (ftruncate(log->fd, n_bytes) < 0 || lseek(log->fd, n_bytes, SEEK_SET) < 0))
        rc = err_set(err, ERR_IO, "%s", strerror(errno));
    return rc < 0 ? err_wrap(err, "cannot go on with '%s'", path) : 0;
}

int sample_log_open(struct sample_log **out, const char *folder, int64_t first_step,
                    bool is_first, struct err *err)
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
    if (log_cut(log, path, first_step, is_first, err) < 0 || fs_sync_dir(folder, err) < 0)
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

int sample_log_sync(struct sample_log *log, struct err *err)
{
    if (fdatasync(log->fd) < 0)
        return err_set(err, ERR_IO, "cannot sync the sample log: %s", strerror(errno));
    return 0;
}
