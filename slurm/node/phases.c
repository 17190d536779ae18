#include "slurm/node/phases.h"

#include "common/base/clock.h"
#include "common/base/fs.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FOLDER_MODE 0700

struct phases {
    int fd, node;
    char launch[PHASES_NAME_MAX], host[PHASES_HOST_MAX], now[PHASES_NAME_MAX];
    int64_t opened_ms, began_ms; /* monotonic */
    FILE *live;
};

static int open_file(struct phases *phases, const char *run_folder, struct err *err)
{
    char folder[FS_PATH_MAX], path[FS_PATH_MAX], name[32] = "launcher";

    if (phases->node != PHASES_NODE_LAUNCHER)
        snprintf(name, sizeof(name), "node-%d", phases->node);
    if (fs_path(folder, err, "%s/phases", run_folder) < 0 ||
        fs_path(path, err, "%s/%s.jsonl", folder, name) < 0 ||
        fs_make_dirs(folder, FOLDER_MODE, err) < 0)
        return -1;
    phases->fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (phases->fd < 0)
        return err_set(err, ERR_IO, "cannot open '%s': %s", path, strerror(errno));
    return fs_sync_dir(folder, err);
}

int phases_open(struct phases **out, const char *run_folder, const char *launch, int node,
                const char *host, FILE *live, struct err *err)
{
    struct phases *phases = calloc(1, sizeof(*phases));

    if (!phases)
        return err_set(err, ERR_NOMEM, "no memory for the phases of a launch");
    phases->node = node;
    phases->live = live;
    phases->fd = -1;
    phases->opened_ms = clock_mono_ms();
    snprintf(phases->launch, sizeof(phases->launch), "%s", launch);
    snprintf(phases->host, sizeof(phases->host), "%s", host);
    if (open_file(phases, run_folder, err) < 0) {
        phases_close(phases);
        return -1;
    }
    *out = phases;
    return 0;
}

void phases_close(struct phases *phases)
{
    if (!phases)
        return;
    if (phases->fd >= 0)
        close(phases->fd);
    free(phases);
}

/* ---- lines ---- */

static void add_text(struct buf *out, const char *key, const char *text)
{
    buf_printf(out, "\"%s\": ", key);
    json_write_string(out, text, strlen(text));
    buf_add_str(out, ", ");
}

static void start_line(const struct phases *phases, struct buf *out, const char *event)
{
    buf_add_char(out, '{');
    add_text(out, "launch", phases->launch);
    buf_printf(out, "\"node\": %d, ", phases->node);
    add_text(out, "host", phases->host);
    add_text(out, "phase", phases->now);
    add_text(out, "event", event);
    buf_printf(out, "\"at_ms\": %lld", (long long)clock_wall_ms());
}

/* One write, so that a line is there whole or not at all, then synced. */
static int finish_line(const struct phases *phases, struct buf *line, struct err *err)
{
    int rc;

    buf_add_str(line, "}\n");
    rc = buf_check(line, err);
    if (rc == 0 &&
        (write(phases->fd, line->data, line->n_bytes) != (ssize_t)line->n_bytes ||
         fdatasync(phases->fd) < 0))
        rc = err_set(err, ERR_IO, "cannot record phase '%s': %s", phases->now,
                     strerror(errno));
    buf_fini(line);
    return rc;
}

static double since_s(int64_t then_ms)
{
    return (double)(clock_mono_ms() - then_ms) / 1000;
}

static void tell(const struct phases *phases, const char *how, const char *text)
{
    if (phases->live) {
        fprintf(phases->live, "%7.1f s  %-12s %s%s%s\n", since_s(phases->opened_ms),
                phases->now, how, *text ? ": " : "", text);
        fflush(phases->live);
    }
}

int phases_begin(struct phases *phases, const char *name, struct err *err)
{
    struct buf line = BUF_INIT;

    if (phases_end(phases, "", err) < 0)
        return -1;
    snprintf(phases->now, sizeof(phases->now), "%s", name);
    phases->began_ms = clock_mono_ms();
    start_line(phases, &line, "begin");
    tell(phases, "...", "");
    return finish_line(phases, &line, err);
}

static int end_line(struct phases *phases, bool is_ok, const char *text, struct err *err)
{
    struct buf line = BUF_INIT;
    int rc;

    start_line(phases, &line, "end");
    buf_printf(&line, ", \"took_ms\": %lld, \"is_ok\": %s, ",
               (long long)(clock_mono_ms() - phases->began_ms), is_ok ? "true" : "false");
    add_text(&line, "text", text);
    line.n_bytes -= 2; /* the last comma */
    rc = finish_line(phases, &line, err);
    tell(phases, is_ok ? "ok" : "failed", text);
    phases->now[0] = '\0';
    return rc;
}

int phases_end(struct phases *phases, const char *text, struct err *err)
{
    return *phases->now ? end_line(phases, true, text, err) : 0;
}

int phases_fail(struct phases *phases, struct err *why)
{
    char name[PHASES_NAME_MAX];
    double took_s = since_s(phases->began_ms);

    if (!*phases->now)
        return -1;
    memcpy(name, phases->now, sizeof(name));
    end_line(phases, false, why->text, NULL); /* the reason itself matters more */
    return err_wrap(why, "phase '%s' failed after %.1f s", name, took_s);
}

int phases_mark(struct phases *phases, const char *name, const char *text,
                struct err *err)
{
    if (phases_end(phases, "", err) < 0)
        return -1;
    snprintf(phases->now, sizeof(phases->now), "%s", name);
    phases->began_ms = clock_mono_ms();
    return end_line(phases, true, text, err);
}
