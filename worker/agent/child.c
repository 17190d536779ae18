#define _GNU_SOURCE /* pipe2 */
#include "worker/agent/child.h"

#include "common/base/fs.h"
#include "common/base/log.h"
#include "common/base/spawn.h"
#include "common/base/utf8.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define KILLED_MS 10000 /* for a killed rank to end; then it is left behind */

struct child {
    struct child_id id;
    pid_t pid;
    bool has_ended;
    int fd;
    struct child_log *log;
    struct stage_board *stage;
    char *endpoint;
    int64_t kill_at_ms; /* INT64_MAX: not asked to stop */
};

struct child_id child_id(const struct child *child)
{
    return child->id;
}

pid_t child_pid(const struct child *child)
{
    return child->pid;
}

int child_fd(const struct child *child)
{
    return child->fd;
}

struct child_log *child_get_log(struct child *child)
{
    return child->log;
}

const char *child_endpoint(const struct child *child)
{
    return child->endpoint;
}

int child_set_endpoint(struct child *child, const char *endpoint, struct err *err)
{
    char *copy = strdup(endpoint);

    if (!copy)
        return err_set(err, ERR_NOMEM, "out of memory");
    free(child->endpoint);
    child->endpoint = copy;
    return 0;
}

/* ---- spawn ---- */

struct child_pipes {
    int sockets[2]; /* ours, the rank's */
    int log[2];     /* read end, write end */
    int stage;      /* the page's, for the rank */
};

static void pipes_close(struct child_pipes *pipes)
{
    for (int i = 0; i < 2; i++) {
        if (pipes->sockets[i] >= 0)
            close(pipes->sockets[i]);
        if (pipes->log[i] >= 0)
            close(pipes->log[i]);
        pipes->sockets[i] = pipes->log[i] = -1;
    }
    if (pipes->stage >= 0)
        close(pipes->stage);
    pipes->stage = -1;
}

static int pipes_open(struct child_pipes *pipes, struct err *err)
{
    *pipes = (struct child_pipes){{-1, -1}, {-1, -1}, -1};
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pipes->sockets) < 0 ||
        pipe2(pipes->log, O_CLOEXEC) < 0 ||
        fcntl(pipes->log[0], F_SETFL, O_NONBLOCK) < 0) {
        err_set(err, ERR_IO, "cannot make the pipes of a rank: %s", strerror(errno));
        pipes_close(pipes);
        return -1;
    }
    return 0;
}

static int child_spawn(struct child *child, const struct child_config *config,
                       const struct child_pipes *pipes, struct err *err)
{
    char fd[32], stage[32], host[300], address[80], devices[48];
    const char *const argv[] = {config->program, NULL};
    const char *const variables[] = {fd, stage, host, address, devices, NULL};
    const int fds[] = {pipes->sockets[1], pipes->stage};
    struct spawn how = {
        .argv = argv,
        .variables = variables,
        .out_fd = pipes->log[1],
        .err_fd = pipes->log[1],
        .kept_fds = fds,
        .n_kept_fds = 2,
        .ignored_signal = SIGPIPE,
        .has_group = true,
    };

    snprintf(fd, sizeof(fd), "VNEVA_AGENT_FD=%d", pipes->sockets[1]);
    snprintf(stage, sizeof(stage), "VNEVA_STAGE_FD=%d", pipes->stage);
    snprintf(host, sizeof(host), "VNEVA_HOST=%s", config->host);
    snprintf(address, sizeof(address), "VNEVA_ADDRESS=%s", config->address);
    snprintf(devices, sizeof(devices), "VNEVA_DEVICES=%" PRId64, config->n_devices);
    return spawn_start(&child->pid, &how, err);
}

static int child_open_log(struct child *child, struct child_pipes *pipes,
                          const char *folder, struct err *err)
{
    char path[FS_PATH_MAX];

    if (fs_path(path, err, "%s/logs", folder) < 0 || fs_make_dirs(path, 0755, err) < 0 ||
        fs_path(path, err, "%s/logs/attempt-%" PRId64 "-rank-%" PRId64 ".stderr", folder,
                child->id.attempt, child->id.rank) < 0 ||
        child_log_open(&child->log, pipes->log[0], path, err) < 0)
        return -1;
    pipes->log[0] = -1; /* the log's now */
    return 0;
}

int child_start(struct child **out, const struct child_config *config,
                const struct msg_rank_start *start, struct err *err)
{
    struct child *child = calloc(1, sizeof(*child));
    struct wire message = {.type = MSG_RANK_START, .rank_start = *start};
    struct child_pipes pipes = {{-1, -1}, {-1, -1}, -1};

    if (!child)
        return err_set(err, ERR_NOMEM, "cannot allocate a rank");
    child->id = (struct child_id){start->job, start->attempt, start->rank};
    child->fd = -1;
    child->kill_at_ms = INT64_MAX;
    if (pipes_open(&pipes, err) < 0 || stage_make(&child->stage, &pipes.stage, err) < 0 ||
        child_open_log(child, &pipes, start->folder, err) < 0)
        goto fail;
    child->fd = pipes.sockets[0];
    pipes.sockets[0] = -1;
    /* Before the fork: a rank that ends at once must not turn this into an error. */
    if (child_send(child, &message, err) < 0 ||
        child_spawn(child, config, &pipes, err) < 0)
        goto fail;
    pipes_close(&pipes);
    *out = child;
    return 0;
fail:
    pipes_close(&pipes);
    child_destroy(child);
    return -1;
}

void child_destroy(struct child *child)
{
    if (!child)
        return;
    if (child->pid > 0 && !child->has_ended)
        spawn_kill(-child->pid, KILLED_MS);
    if (child->fd >= 0)
        close(child->fd);
    child_log_close(child->log);
    stage_unmake(child->stage);
    free(child->endpoint);
    free(child);
}

/* ---- watching ---- */

void child_stage(const struct child *child, struct stage_now *out)
{
    stage_read(child->stage, out);
    utf8_mend(out->text); /* it goes into a message */
}

int64_t child_memory_bytes(const struct child *child)
{
    char path[64], text[128], *end;
    ssize_t n = -1;
    int fd;

    snprintf(path, sizeof(path), "/proc/%d/statm", (int)child->pid);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        n = read(fd, text, sizeof(text) - 1);
        close(fd);
    }
    if (n <= 0)
        return 0;
    text[n] = '\0';
    (void)strtoll(text, &end, 10); /* all of it; then what is resident */
    return strtoll(end, NULL, 10) * sysconf(_SC_PAGESIZE);
}

/* ---- messages ---- */

int child_send(struct child *child, const struct wire *message, struct err *err)
{
    struct buf bytes = BUF_INIT;
    int rc = wire_encode(&bytes, message, err);

    if (rc == 0 && bytes.n_bytes > CHILD_MESSAGE_MAX)
        rc = err_set(err, ERR_LIMIT, "%s for a rank has %zu bytes, at most %d fit",
                     msg_type_name(message->type), bytes.n_bytes, CHILD_MESSAGE_MAX);
    if (rc == 0 && child->fd >= 0 &&
        send(child->fd, bytes.data, bytes.n_bytes, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
        rc = err_set(err, ERR_PEER, "rank %" PRId64 " does not take %s: %s",
                     child->id.rank, msg_type_name(message->type), strerror(errno));
    buf_fini(&bytes);
    return rc;
}

int child_receive(struct child *child, struct wire *message, struct err *err)
{
    char bytes[CHILD_MESSAGE_MAX];
    ssize_t n;

    if (child->fd < 0)
        return 0;
    n = recv(child->fd, bytes, sizeof(bytes), MSG_DONTWAIT | MSG_TRUNC);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    if (n <= 0) {
        close(child->fd);
        child->fd = -1;
        return 0;
    }
    if ((size_t)n > sizeof(bytes))
        return err_set(err, ERR_LIMIT, "a message of a rank has %zd bytes", n);
    return wire_decode(message, bytes, (size_t)n, NULL, err) < 0 ? -1 : 1;
}

/* ---- the end ---- */

void child_stop(struct child *child, int64_t grace_ms, int64_t now_ms)
{
    int64_t kill_at_ms = now_ms + (grace_ms > 0 ? grace_ms : 0);

    if (child->kill_at_ms == INT64_MAX)
        kill(child->pid, SIGTERM);
    if (kill_at_ms < child->kill_at_ms)
        child->kill_at_ms = kill_at_ms;
}

void child_tick(struct child *child, int64_t now_ms)
{
    if (now_ms < child->kill_at_ms || child->has_ended)
        return;
    log_warn("job %" PRId64 " attempt %" PRId64 " rank %" PRId64 " did not end in time",
             child->id.job, child->id.attempt, child->id.rank);
    kill(-child->pid, SIGKILL);
    child->kill_at_ms = INT64_MAX - 1; /* asked, and killed: no timer any more */
}

int64_t child_next_ms(const struct child *child)
{
    return child->kill_at_ms;
}

bool child_reap(struct child *child, int *status)
{
    if (child->has_ended || !spawn_reap(child->pid, status))
        return false;
    child->has_ended = true;
    kill(-child->pid, SIGKILL); /* its decoders, if any are left */
    return true;
}
