#include "worker/rank/pump.h"
#include "common/base/stage.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#define PUMP_DONE_REMEMBERED 64 /* leases told apart from ones sent again */

struct pump {
    int fd, signal_fd;
    struct wire start;
    struct wire peers; /* MSG_NONE: not here yet */
    struct wire tasks[PUMP_TASKS_MAX];
    int n_tasks; /* tasks[0] is the present one when has_task */
    bool has_task;
    bool is_last; /* RANK_DONE came */
    bool is_stopping;
    int64_t done[PUMP_DONE_REMEMBERED]; /* a ring of fulfilled leases */
    int64_t n_done;
    uint64_t sequence;
};

/* ---- in ---- */

/* 1: a message, 0: nothing there. */
static int pump_read(struct pump *pump, struct wire *message, struct err *err)
{
    char bytes[PUMP_MESSAGE_MAX];
    ssize_t n = recv(pump->fd, bytes, sizeof(bytes), MSG_DONTWAIT | MSG_TRUNC);

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    if (n <= 0)
        return err_set(err, ERR_PEER, "the agent is gone");
    if ((size_t)n > sizeof(bytes))
        return err_set(err, ERR_LIMIT, "a message of the agent has %zd bytes", n);
    if (wire_decode(message, bytes, (size_t)n, NULL, err) < 0)
        return err_wrap(err, "cannot read a message of the agent");
    return 1;
}

/* After a restart of the coordinator a lease may come a second time. */
static bool pump_knows_task(const struct pump *pump, int64_t task)
{
    for (int i = 0; i < pump->n_tasks; i++)
        if (pump->tasks[i].task_start.task == task)
            return true;
    for (int64_t i = 0; i < pump->n_done && i < PUMP_DONE_REMEMBERED; i++)
        if (pump->done[i] == task)
            return true;
    return false;
}

/* Takes the message over. */
static int pump_take(struct pump *pump, struct wire *message, struct err *err)
{
    int rc = 0;

    switch (message->type) {
    case MSG_PEERS:
        if (pump->peers.type == MSG_NONE) {
            pump->peers = *message;
            return 0;
        }
        break;
    case MSG_TASK_START:
        if (pump_knows_task(pump, message->task_start.task))
            break;
        if (pump->n_tasks == PUMP_TASKS_MAX) {
            rc = err_set(err, ERR_LIMIT, "%d leases wait already", PUMP_TASKS_MAX);
            break;
        }
        pump->tasks[pump->n_tasks++] = *message;
        return 0;
    case MSG_RANK_DONE:
        pump->is_last = true;
        break;
    default:
        rc = err_set(err, ERR_PEER, "the agent sent %s", msg_type_name(message->type));
    }
    wire_fini(message);
    return rc;
}

int pump_poll(struct pump *pump, struct err *err)
{
    struct signalfd_siginfo info;
    struct wire message;
    int rc;

    if (read(pump->signal_fd, &info, sizeof(info)) > 0)
        pump->is_stopping = true;
    while ((rc = pump_read(pump, &message, err)) > 0)
        if (pump_take(pump, &message, err) < 0)
            return -1;
    return rc;
}

static int pump_wait(struct pump *pump, struct err *err)
{
    struct pollfd fds[] = {{.fd = pump->fd, .events = POLLIN},
                           {.fd = pump->signal_fd, .events = POLLIN}};

    if (stage_poll(fds, 2, -1) < 0 && errno != EINTR)
        return err_set(err, ERR_IO, "cannot poll: %s", strerror(errno));
    return pump_poll(pump, err);
}

bool pump_is_stopping(const struct pump *pump)
{
    return pump->is_stopping;
}

void pump_set_stopping(struct pump *pump)
{
    pump->is_stopping = true;
}

const struct msg_rank_start *pump_start(const struct pump *pump)
{
    return &pump->start.rank_start;
}

/* ---- out ---- */

static int pump_send(struct pump *pump, struct wire *message, struct err *err)
{
    struct buf bytes = BUF_INIT;
    int rc = -1;

    message->sequence = ++pump->sequence;
    if (wire_encode(&bytes, message, err) < 0)
        goto out;
    if (bytes.n_bytes > PUMP_MESSAGE_MAX) {
        err_set(err, ERR_LIMIT, "%s has %zu bytes, at most %d fit",
                msg_type_name(message->type), bytes.n_bytes, PUMP_MESSAGE_MAX);
        goto out;
    }
    if (send(pump->fd, bytes.data, bytes.n_bytes, MSG_NOSIGNAL) < 0) {
        err_set(err, ERR_PEER, "cannot send %s to the agent: %s",
                msg_type_name(message->type), strerror(errno));
        goto out;
    }
    rc = 0;
out:
    buf_fini(&bytes);
    return rc;
}

int pump_progress(struct pump *pump, const char *stage, int64_t step, int64_t done,
                  int64_t total, const struct json *metrics, struct err *err)
{
    const struct msg_rank_start *start = pump_start(pump);
    struct wire message = {.type = MSG_PROGRESS};
    struct buf text = BUF_INIT;
    int rc;

    if (metrics)
        json_write(&text, metrics, 0);
    message.progress = (struct msg_progress){
        .job = start->job,
        .attempt = start->attempt,
        .rank = start->rank,
        .task = pump->has_task ? pump->tasks[0].task_start.task : 0,
        .stage = stage,
        .step = step,
        .done = done,
        .total = total,
        .metrics = metrics ? buf_str(&text) : "{}",
    };
    rc = pump_send(pump, &message, err);
    buf_fini(&text);
    return rc;
}

int pump_meet(struct pump *pump, const char *endpoint, struct json **endpoints,
              struct err *err)
{
    const struct msg_rank_start *start = pump_start(pump);
    struct wire message = {.type = MSG_RANK_READY};
    const char *text;

    message.rank_ready = (struct msg_rank_ready){start->job, start->attempt, start->rank,
                                                 endpoint, getpid()};
    if (pump_send(pump, &message, err) < 0)
        return -1;
    while (pump->peers.type == MSG_NONE) {
        if (pump->is_stopping || pump->is_last)
            return 0;
        if (pump_wait(pump, err) < 0)
            return -1;
    }
    text = pump->peers.peers.endpoints;
    if (json_parse(endpoints, text, strlen(text), err) < 0)
        return err_wrap(err, "cannot read the list of peers");
    if (json_count(*endpoints) != (size_t)start->n_ranks) {
        err_set(err, ERR_PEER, "the list of peers has %zu entries for %" PRId64 " ranks",
                json_count(*endpoints), start->n_ranks);
        json_free(*endpoints);
        return -1;
    }
    return 1;
}

/* ---- leases ---- */

int pump_next_task(struct pump *pump, const struct msg_task_start **task, struct err *err)
{
    if (pump_poll(pump, err) < 0)
        return -1;
    while (!pump->is_stopping) {
        if (pump->n_tasks) {
            pump->has_task = true;
            *task = &pump->tasks[0].task_start;
            return 1;
        }
        if (pump->is_last)
            return 0;
        if (pump_wait(pump, err) < 0)
            return -1;
    }
    return 0;
}

static void pump_forget_task(struct pump *pump, bool is_done)
{
    if (is_done)
        pump->done[pump->n_done++ % PUMP_DONE_REMEMBERED] =
            pump->tasks[0].task_start.task;
    wire_fini(&pump->tasks[0]);
    pump->n_tasks--;
    memmove(&pump->tasks[0], &pump->tasks[1],
            (size_t)pump->n_tasks * sizeof(pump->tasks[0]));
    pump->has_task = false;
}

int pump_task_done(struct pump *pump, const char *result, struct err *err)
{
    const struct msg_rank_start *start = pump_start(pump);
    struct wire message = {.type = MSG_TASK_DONE};
    int rc = 0;

    message.task_done = (struct msg_task_done){start->job, start->attempt,
                                               pump->tasks[0].task_start.task, result};
    if (start->rank == 0)
        rc = pump_send(pump, &message, err);
    pump_forget_task(pump, true);
    return rc;
}

int pump_task_failed(struct pump *pump, const char *reason, struct err *err)
{
    const struct msg_rank_start *start = pump_start(pump);
    struct wire message = {.type = MSG_TASK_FAILED};
    int rc;

    message.task_failed = (struct msg_task_failed){
        start->job, start->attempt, pump->tasks[0].task_start.task, reason};
    rc = pump_send(pump, &message, err);
    pump_forget_task(pump, false);
    return rc;
}

/* ---- life ---- */

static int pump_open_signals(struct pump *pump, struct err *err)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
        return err_set(err, ERR_IO, "cannot block SIGTERM: %s", strerror(errno));
    pump->signal_fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    if (pump->signal_fd < 0)
        return err_set(err, ERR_IO, "cannot open a signalfd: %s", strerror(errno));
    return 0;
}

static int pump_wait_start(struct pump *pump, struct err *err)
{
    struct pollfd fds = {.fd = pump->fd, .events = POLLIN};
    int rc;

    while ((rc = pump_read(pump, &pump->start, err)) == 0)
        if (poll(&fds, 1, -1) < 0 && errno != EINTR)
            return err_set(err, ERR_IO, "cannot poll: %s", strerror(errno));
    if (rc < 0)
        return -1;
    if (pump->start.type != MSG_RANK_START)
        return err_set(err, ERR_PEER, "the agent began with %s instead of RANK_START",
                       msg_type_name(pump->start.type));
    return 0;
}

int pump_open(struct pump **out, int fd, struct err *err)
{
    struct pump *pump = calloc(1, sizeof(*pump));

    if (!pump) {
        close(fd);
        return err_set(err, ERR_NOMEM, "cannot allocate the message pump");
    }
    pump->fd = fd;
    pump->signal_fd = -1;
    if (pump_open_signals(pump, err) < 0 || pump_wait_start(pump, err) < 0) {
        pump_close(pump);
        return -1;
    }
    *out = pump;
    return 0;
}

void pump_close(struct pump *pump)
{
    if (!pump)
        return;
    for (int i = 0; i < pump->n_tasks; i++)
        wire_fini(&pump->tasks[i]);
    if (pump->start.type != MSG_NONE)
        wire_fini(&pump->start);
    if (pump->peers.type != MSG_NONE)
        wire_fini(&pump->peers);
    if (pump->signal_fd >= 0)
        close(pump->signal_fd);
    close(pump->fd);
    free(pump);
}
