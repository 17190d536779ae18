#define _GNU_SOURCE /* pipe2 */
#include "coordinator/launcher.h"

#include "common/base/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SAYS "vneva: " /* how its errors begin */

struct child {
    bool is_used, is_late, is_too_much;
    struct launcher_call call;
    pid_t pid; /* and its process group */
    int out_fd, err_fd;
    int64_t end_ms;
    struct buf out, err;
};

struct launcher {
    char *program;
    int64_t timeout_ms;
    struct child children[LAUNCHER_CALLS_MAX];
    struct buf last_out, last_error; /* of the result given last */
};

int launcher_create(struct launcher **out, const char *program, int64_t timeout_ms,
                    struct err *err)
{
    struct launcher *launcher = calloc(1, sizeof(*launcher));

    if (launcher)
        launcher->program = strdup(program);
    if (!launcher || !launcher->program) {
        free(launcher);
        return err_set(err, ERR_NOMEM, "no memory for the launcher");
    }
    launcher->timeout_ms = timeout_ms;
    *out = launcher;
    return 0;
}

static void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

static void child_free(struct child *child)
{
    close_fd(&child->out_fd);
    close_fd(&child->err_fd);
    buf_fini(&child->out);
    buf_fini(&child->err);
    child->is_used = false;
}

void launcher_destroy(struct launcher *launcher)
{
    if (!launcher)
        return;
    for (int i = 0; i < LAUNCHER_CALLS_MAX; i++) {
        struct child *child = &launcher->children[i];

        if (!child->is_used)
            continue;
        spawn_kill(-child->pid, 0); /* init reaps what does not end at once */
        child_free(child);
    }
    buf_fini(&launcher->last_out);
    buf_fini(&launcher->last_error);
    free(launcher->program);
    free(launcher);
}

/* ---- starting ---- */

/* The reading ends into the child's fields, the writing ends into fds. */
static int open_pipes(struct child *child, int *fds, struct err *err)
{
    int out[2] = {-1, -1}, errors[2] = {-1, -1};

    child->out_fd = child->err_fd = fds[0] = fds[1] = -1;
    if (pipe2(out, O_CLOEXEC) < 0 || pipe2(errors, O_CLOEXEC) < 0) {
        err_set(err, ERR_IO, "cannot open a pipe: %s", strerror(errno));
        close_fd(&out[0]);
        close_fd(&out[1]);
        return -1;
    }
    child->out_fd = out[0];
    child->err_fd = errors[0];
    fds[0] = out[1];
    fds[1] = errors[1];
    if (fcntl(child->out_fd, F_SETFL, O_NONBLOCK) < 0 ||
        fcntl(child->err_fd, F_SETFL, O_NONBLOCK) < 0)
        return err_set(err, ERR_IO, "cannot set up a pipe: %s", strerror(errno));
    return 0;
}

static int start(struct child *child, const char *const *argv, struct err *err)
{
    int fds[2];
    int rc = open_pipes(child, fds, err);
    struct spawn how = {
        .argv = argv, .out_fd = fds[0], .err_fd = fds[1], .has_group = true};

    if (rc == 0)
        rc = spawn_start(&child->pid, &how, err);
    close_fd(&fds[0]);
    close_fd(&fds[1]);
    return rc;
}

int launcher_start(struct launcher *launcher, const struct launcher_call *call,
                   const char *const *args, int64_t now_ms, struct err *err)
{
    const char *argv[LAUNCHER_ARGS_MAX + 2] = {launcher->program};
    struct child *child = NULL;
    int n = 0;

    for (int i = 0; i < LAUNCHER_CALLS_MAX && !child; i++)
        if (!launcher->children[i].is_used)
            child = &launcher->children[i];
    for (; args[n] && n < LAUNCHER_ARGS_MAX; n++)
        argv[n + 1] = args[n];
    if (!child || args[n])
        return err_set(err, ERR_LIMIT, "%s",
                       child ? "too many words for the launcher"
                             : "too many calls of the launcher run already");
    *child = (struct child){.is_used = true, .call = *call};
    child->call.started_ms = now_ms;
    child->end_ms = now_ms + launcher->timeout_ms;
    if (start(child, argv, err) == 0)
        return 0;
    child_free(child);
    return -1;
}

/* ---- ending ---- */

/* Takes in what is there. */
static void read_all(int fd, struct buf *into, size_t max_bytes, bool *is_too_much)
{
    char bytes[4096];
    ssize_t n;

    while (fd >= 0 && (n = read(fd, bytes, sizeof(bytes))) > 0) {
        if (into->n_bytes + (size_t)n > max_bytes)
            *is_too_much = true;
        else
            buf_add(into, bytes, (size_t)n);
    }
}

/* The last line that says anything. */
static void add_last_line(struct buf *out, const struct buf *text)
{
    const char *at = buf_str(text);
    size_t end = text->n_bytes, first;

    while (end > 0 && (at[end - 1] == '\n' || at[end - 1] == ' '))
        end--;
    for (first = end; first > 0 && at[first - 1] != '\n'; first--)
        ;
    if (end - first > strlen(SAYS) && memcmp(at + first, SAYS, strlen(SAYS)) == 0)
        first += strlen(SAYS);
    buf_add(out, at + first, end - first);
}

static void describe(struct launcher *launcher, struct child *child, int status)
{
    struct buf *error = &launcher->last_error;

    if (child->is_late)
        buf_printf(error, "%s gave no answer within %lld ms", launcher->program,
                   (long long)launcher->timeout_ms);
    else if (child->is_too_much)
        buf_printf(error, "%s wrote more than %d bytes", launcher->program,
                   LAUNCHER_OUTPUT_MAX);
    else
        add_last_line(error, &child->err);
    if (!error->n_bytes && status > 128)
        buf_printf(error, "%s was killed by signal %d", launcher->program, status - 128);
    if (!error->n_bytes)
        buf_printf(error, "%s ended with status %d", launcher->program, status);
}

static void give_result(struct launcher *launcher, struct child *child, int status,
                        struct launcher_result *out)
{
    buf_reset(&launcher->last_error);
    buf_fini(&launcher->last_out);
    launcher->last_out = child->out;
    child->out = (struct buf)BUF_INIT;
    *out = (struct launcher_result){.call = child->call, .is_late = child->is_late};
    out->is_ok = status == 0 && !child->is_late && !child->is_too_much &&
                 !launcher->last_out.failed;
    if (!out->is_ok)
        describe(launcher, child, status);
    out->out = buf_str(&launcher->last_out);
    out->error = buf_str(&launcher->last_error);
    child_free(child);
}

/* True when it has ended. What it wrote last is in the pipe by then. */
static bool step(struct child *child, int64_t now_ms, int *status)
{
    bool has_ended = spawn_reap(child->pid, status);

    read_all(child->out_fd, &child->out, LAUNCHER_OUTPUT_MAX, &child->is_too_much);
    read_all(child->err_fd, &child->err, LAUNCHER_ERRORS_MAX, &child->is_too_much);
    if (!has_ended && !child->is_late &&
        (now_ms >= child->end_ms || child->is_too_much)) {
        child->is_late = now_ms >= child->end_ms;
        kill(-child->pid, SIGKILL);
    }
    return has_ended;
}

bool launcher_poll(struct launcher *launcher, struct launcher_result *out, int64_t now_ms)
{
    for (int i = 0; i < LAUNCHER_CALLS_MAX; i++) {
        struct child *child = &launcher->children[i];
        int status;

        if (child->is_used && step(child, now_ms, &status)) {
            give_result(launcher, child, status, out);
            return true;
        }
    }
    return false;
}

int launcher_count(const struct launcher *launcher, int64_t pool, enum launcher_verb verb)
{
    int n = 0;

    for (int i = 0; i < LAUNCHER_CALLS_MAX; i++)
        n += launcher->children[i].is_used && launcher->children[i].call.pool == pool &&
             launcher->children[i].call.verb == verb;
    return n;
}

bool launcher_is_submitting(const struct launcher *launcher, int64_t allocation)
{
    for (int i = 0; i < LAUNCHER_CALLS_MAX; i++)
        if (launcher->children[i].is_used &&
            launcher->children[i].call.verb == LAUNCHER_SUBMIT &&
            launcher->children[i].call.allocation == allocation)
            return true;
    return false;
}

int launcher_count_all(const struct launcher *launcher)
{
    int n = 0;

    for (int i = 0; i < LAUNCHER_CALLS_MAX; i++)
        n += launcher->children[i].is_used;
    return n;
}
