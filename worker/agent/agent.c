/* One loop of named phases:
 *
 *     wait        until something is readable or a timer is due
 *     signals     SIGCHLD only wakes the loop; SIGTERM and SIGINT begin the end
 *     reports     from the ranks: durable ones into the spool, others on, and a piece of
 *                 each rank's standard error
 *     reap        ended ranks: the rest of their messages and log, then RANK_EXIT
 *     timers      grace periods, registration, heartbeat, resends
 *     receive     from the coordinator: start, stop, forward to ranks. Last, for sending
 *                 may swallow the edge that says something came in.
 */
#include "worker/agent/agent.h"

#include "common/base/clock.h"
#include "common/base/fs.h"
#include "common/base/log.h"
#include "common/net/address.h"
#include "worker/agent/child.h"
#include "worker/agent/gpu_memory.h"
#include "worker/agent/link.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/signalfd.h>
#include <unistd.h>

#define AGENT_VERSION "0.1.0"
#define AGENT_ID_BYTES 16
#define IPC_PREFIX "ipc://"
#define AGENT_LOOPBACK "127.0.0.1"
#define AGENT_ID_MAX 200      /* below what a coordinator takes */
#define AGENT_RECEIVE_MAX 256 /* messages of the coordinator handled in one round */
#define AGENT_WAIT_MAX_MS 1000
#define AGENT_REASON_MAX 256

struct agent {
    const struct agent_config *config;
    struct link_config link_config;
    struct link *link;
    char id[AGENT_ID_MAX];
    int signal_fd;
    struct child *children[AGENT_RANKS_MAX];
    int n_children;
    bool is_more;         /* the receive phase left messages for the next round */
    int64_t stop_by_ms;   /* INT64_MAX: nobody asked the agent to end */
    int64_t stop_from_ms; /* when its ranks are stopped without being told so */
    int64_t grace_ms;     /* from then on */
    bool is_leaving;      /* it ends by itself: the coordinator is to know */
    char reason[AGENT_REASON_MAX];
    int64_t heard_ms;      /* when the coordinator last said something */
    int64_t idle_since_ms; /* 0: not known yet */
};

/* ---- ranks ---- */

static struct child *agent_find(const struct agent *agent, struct child_id id)
{
    for (int i = 0; i < agent->n_children; i++) {
        struct child_id it = child_id(agent->children[i]);

        if (it.job == id.job && it.attempt == id.attempt && it.rank == id.rank)
            return agent->children[i];
    }
    return NULL;
}

static void agent_remove(struct agent *agent, int i)
{
    child_destroy(agent->children[i]);
    agent->n_children--;
    agent->children[i] = agent->children[agent->n_children];
}

/* Whether the rank's end is known here and not yet to the coordinator. */
static bool agent_has_exit(const struct agent *agent, struct child_id id)
{
    for (int i = 0; i < link_n_waiting(agent->link); i++) {
        const struct wire *message = link_waiting_at(agent->link, i);

        if (message->type == MSG_RANK_EXIT && message->rank_exit.job == id.job &&
            message->rank_exit.attempt == id.attempt &&
            message->rank_exit.rank == id.rank)
            return true;
    }
    return false;
}

/* RANK_EXIT into the spool. There is room: SPOOL_RESERVED is more than AGENT_RANKS_MAX. */
static void agent_put_exit(struct agent *agent, struct child_id id, int status,
                           const char *reason)
{
    struct wire message = {.type = MSG_RANK_EXIT}, owned;
    struct err err = {0};

    message.rank_exit =
        (struct msg_rank_exit){id.job, id.attempt, id.rank, status, reason};
    if (wire_clone(&owned, &message, &err) < 0 || link_put(agent->link, &owned, &err) < 0)
        log_error("cannot report the end of rank %" PRId64 ": %s", id.rank, err.text);
}

/* Of a socket file the coordinator's network endpoint, which it writes beside it, if it has
 * one: else no other machine has ranks of its jobs. */
static const char *network_endpoint(const char *endpoint, char out[KEY_ENDPOINT_BYTES])
{
    char home[FS_PATH_MAX], *slash;

    if (strncmp(endpoint, IPC_PREFIX, strlen(IPC_PREFIX)) != 0)
        return endpoint;
    if (fs_path(home, NULL, "%s", endpoint + strlen(IPC_PREFIX)) < 0 ||
        !(slash = strrchr(home, '/')))
        return endpoint;
    *slash = '\0';
    return keys_read_endpoint(out, home, NULL) == 0 ? out : endpoint;
}

/* Asked for every rank that has peers: addresses come and go. Without one, loopback. */
static int agent_find_address(const struct agent *agent,
                              const struct msg_rank_start *start,
                              char out[NET_ADDRESS_BYTES], struct err *err)
{
    const struct agent_config *config = agent->config;
    char network[KEY_ENDPOINT_BYTES];
    int rc = 0;

    snprintf(out, NET_ADDRESS_BYTES, AGENT_LOOPBACK);
    if (start->n_ranks > 1)
        rc = config->address ? net_address_named(out, config->address, err)
                             : net_address_towards(
                                   out, network_endpoint(config->endpoint, network), err);
    if (rc < 0)
        snprintf(out, NET_ADDRESS_BYTES, AGENT_LOOPBACK);
    return rc;
}

static void agent_start_rank(struct agent *agent, const struct msg_rank_start *start)
{
    char address[NET_ADDRESS_BYTES];
    struct child_config config = {agent->config->rank_program, agent->config->host,
                                  address, agent->config->n_devices};
    struct child_id id = {start->job, start->attempt, start->rank};
    struct err err = {0};

    if (agent_find(agent, id) || agent_has_exit(agent, id))
        return; /* the coordinator asks again after its own restart */
    if (agent_find_address(agent, start, address, &err) < 0)
        log_warn("%s: ranks of other hosts will not reach those here", err.text);
    if (agent->n_children == AGENT_RANKS_MAX)
        err_set(&err, ERR_LIMIT, "the agent runs %d ranks already", AGENT_RANKS_MAX);
    else if (child_start(&agent->children[agent->n_children], &config, start, &err) ==
             0) {
        log_info("job %" PRId64 " attempt %" PRId64 " rank %" PRId64 ": process %d",
                 id.job, id.attempt, id.rank,
                 (int)child_pid(agent->children[agent->n_children]));
        agent->n_children++;
        return;
    }
    log_error("cannot start rank %" PRId64 " of job %" PRId64 ": %s", id.rank, id.job,
              err.text);
    agent_put_exit(agent, id, 127, err.text);
}

/* To every rank of the attempt here. One that cannot take it is stuck, and is killed. */
static void agent_forward(struct agent *agent, int64_t job, int64_t attempt,
                          const struct wire *message)
{
    for (int i = 0; i < agent->n_children; i++) {
        struct child *child = agent->children[i];
        struct err err = {0};

        if (child_id(child).job != job || child_id(child).attempt != attempt)
            continue;
        if (child_send(child, message, &err) < 0) {
            log_error("%s", err.text);
            child_stop(child, 0, clock_mono_ms());
        }
    }
}

static void agent_stop_ranks(struct agent *agent, const struct msg_rank_stop *stop)
{
    for (int i = 0; i < agent->n_children; i++) {
        struct child_id id = child_id(agent->children[i]);

        if (id.job == stop->job && id.attempt == stop->attempt &&
            (stop->rank < 0 || id.rank == stop->rank))
            child_stop(agent->children[i], stop->grace_ms, clock_mono_ms());
    }
}

/* While no coordinator is there nothing is said: a registration says it again. */
static void agent_tell_ending(struct agent *agent)
{
    struct wire message = {.type = MSG_AGENT_ENDING}, owned;
    struct err err;

    message.agent_ending = (struct msg_agent_ending){agent->reason, agent->grace_ms};
    if (link_is_registered(agent->link) && wire_clone(&owned, &message, &err) == 0)
        link_report(agent->link, &owned);
}

/* is_told: by the coordinator. Else it is told first and answers with RANK_STOP, so that it
 * knows why ranks end before they do. */
static void agent_begin_end(struct agent *agent, const char *reason, int64_t grace_ms,
                            bool is_told)
{
    int64_t now_ms = clock_mono_ms();

    if (agent->stop_by_ms != INT64_MAX)
        return;
    log_info("ending: %s", reason);
    snprintf(agent->reason, sizeof(agent->reason), "%s", reason);
    agent->grace_ms = grace_ms > 0 ? grace_ms : AGENT_GRACE_MS;
    agent->is_leaving = !is_told;
    agent->stop_from_ms = now_ms;
    if (agent->is_leaving && link_is_registered(agent->link))
        agent->stop_from_ms += AGENT_ENDING_ANSWER_MS;
    agent->stop_by_ms = agent->stop_from_ms + agent->grace_ms + AGENT_LINGER_MS;
    if (agent->is_leaving)
        agent_tell_ending(agent);
}

static void agent_end_ranks(struct agent *agent, int64_t now_ms)
{
    if (now_ms < agent->stop_from_ms)
        return;
    for (int i = 0; i < agent->n_children; i++)
        child_stop(agent->children[i], agent->grace_ms, now_ms);
    agent->stop_from_ms = INT64_MAX;
}

/* Nobody to work for: a machine is not kept for nothing. */
static int agent_check_heard(const struct agent *agent, struct err *err)
{
    int64_t silent_ms = clock_mono_ms() - agent->heard_ms;

    if (agent->config->give_up_ms && silent_ms > agent->config->give_up_ms)
        return err_set(err, ERR_TIMEOUT, "no coordinator answered at %s for %.0f s",
                       agent->config->endpoint, (double)silent_ms / 1000);
    return 0;
}

/* A coordinator has no word for an agent that is well, so it is asked. */
static void agent_ping(struct agent *agent)
{
    struct wire message = {.type = MSG_PING};

    if (agent->config->give_up_ms && clock_mono_ms() - agent->heard_ms > AGENT_PING_MS)
        link_report(agent->link, &message);
}

static void agent_check_idle(struct agent *agent)
{
    int64_t now_ms = clock_mono_ms();

    if (agent->n_children || !agent->idle_since_ms)
        agent->idle_since_ms = now_ms;
    if (agent->config->idle_ms && now_ms - agent->idle_since_ms > agent->config->idle_ms)
        agent_begin_end(agent, "it had nothing to do", agent->config->grace_ms, false);
}

/* ---- phases ---- */

static void agent_handle(struct agent *agent, const struct wire *message)
{
    switch (message->type) {
    case MSG_RANK_START:
        if (agent->stop_by_ms == INT64_MAX)
            agent_start_rank(agent, &message->rank_start);
        break;
    case MSG_PEERS:
        agent_forward(agent, message->peers.job, message->peers.attempt, message);
        break;
    case MSG_TASK_START:
        agent_forward(agent, message->task_start.job, message->task_start.attempt,
                      message);
        break;
    case MSG_RANK_DONE:
        agent_forward(agent, message->rank_done.job, message->rank_done.attempt, message);
        break;
    case MSG_RANK_STOP:
        agent_stop_ranks(agent, &message->rank_stop);
        break;
    case MSG_AGENT_STOP:
        agent_begin_end(agent, message->agent_stop.reason, message->agent_stop.grace_ms,
                        true);
        break;
    case MSG_OK:
    case MSG_PONG:
        break;
    default:
        log_warn("the coordinator sent %s, which is not for agents",
                 msg_type_name(message->type));
    }
}

static void agent_phase_receive(struct agent *agent)
{
    struct wire message;
    struct err err = {0};
    int rc = 0;

    for (int i = 0; i < AGENT_RECEIVE_MAX; i++) {
        rc = link_receive(agent->link, &message, clock_mono_ms(), &err);
        if (rc <= 0)
            break;
        agent->heard_ms = clock_mono_ms();
        agent_handle(agent, &message);
        wire_fini(&message);
    }
    agent->is_more = rc > 0;
    if (rc < 0)
        log_warn("cannot receive from the coordinator: %s", err.text);
}

static void agent_phase_signals(struct agent *agent)
{
    struct signalfd_siginfo info;

    while (read(agent->signal_fd, &info, sizeof(info)) == (ssize_t)sizeof(info))
        if (info.ssi_signo != SIGCHLD)
            agent_begin_end(agent, strsignal((int)info.ssi_signo),
                            agent->config->grace_ms, false);
}

/* One message of a rank. It may only speak for itself. */
static void agent_take_report(struct agent *agent, struct child *child,
                              struct wire *message)
{
    struct err err = {0};
    int rc = 0;

    switch (message->type) {
    case MSG_RANK_READY:
        rc = child_set_endpoint(child, message->rank_ready.endpoint, &err);
        link_report(agent->link, message);
        break;
    case MSG_PROGRESS:
        link_report(agent->link, message);
        break;
    case MSG_TASK_DONE:
    case MSG_TASK_FAILED:
        rc = link_put(agent->link, message, &err);
        break;
    default:
        rc = err_set(&err, ERR_PEER, "a rank sent %s", msg_type_name(message->type));
        wire_fini(message);
    }
    if (rc < 0)
        log_error("rank %" PRId64 ": %s", child_id(child).rank, err.text);
}

/* All that is there, unless the spool is full: then the rank waits. */
static void agent_read_reports(struct agent *agent, struct child *child)
{
    struct wire message;
    struct err err = {0};
    int rc;

    while (!link_is_full(agent->link) &&
           (rc = child_receive(child, &message, &err)) != 0) {
        if (rc > 0) {
            agent_take_report(agent, child, &message);
            continue;
        }
        log_error("rank %" PRId64 ": %s", child_id(child).rank, err.text);
        child_stop(child, 0, clock_mono_ms());
    }
}

static bool agent_read_log(struct agent *agent, struct child *child)
{
    struct buf piece = BUF_INIT;
    struct child_id id = child_id(child);
    bool is_more = child_log_read(child_get_log(child), &piece, clock_mono_ms());

    if (piece.n_bytes) {
        struct wire message = {.type = MSG_LOG}, owned;
        struct err err = {0};

        message.log =
            (struct msg_log){id.job, id.attempt, id.rank, {piece.data, piece.n_bytes}};
        if (wire_clone(&owned, &message, &err) == 0)
            link_report(agent->link, &owned);
    }
    buf_fini(&piece);
    return is_more;
}

static void agent_phase_reports(struct agent *agent)
{
    for (int i = 0; i < agent->n_children; i++) {
        agent_read_reports(agent, agent->children[i]);
        agent_read_log(agent, agent->children[i]);
    }
}

static void agent_phase_reap(struct agent *agent)
{
    for (int i = agent->n_children - 1; i >= 0; i--) {
        struct child *child = agent->children[i];
        char reason[CHILD_LOG_LINE_MAX];
        int status;

        if (!child_reap(child, &status))
            continue;
        agent_read_reports(agent, child);
        while (agent_read_log(agent, child))
            ;
        snprintf(reason, sizeof(reason), "%s",
                 child_log_last_error(child_get_log(child)));
        if (!reason[0] && status > 128)
            snprintf(reason, sizeof(reason), "killed by signal %d (%s)", status - 128,
                     strsignal(status - 128));
        log_info("job %" PRId64 " attempt %" PRId64 " rank %" PRId64 " ended: %d%s%s",
                 child_id(child).job, child_id(child).attempt, child_id(child).rank,
                 status, reason[0] ? ", " : "", reason);
        agent_put_exit(agent, child_id(child), status, reason);
        agent_remove(agent, i);
    }
}

static void agent_phase_timers(struct agent *agent)
{
    int64_t now_ms = clock_mono_ms();

    agent_check_idle(agent);
    agent_end_ranks(agent, now_ms);
    for (int i = 0; i < agent->n_children; i++)
        child_tick(agent->children[i], now_ms);
    link_tick(agent->link, now_ms);
}

static int agent_wait_ms(const struct agent *agent)
{
    int64_t now_ms = clock_mono_ms();
    int64_t due_ms = link_next_ms(agent->link, now_ms);

    if (agent->stop_from_ms < due_ms)
        due_ms = agent->stop_from_ms;
    for (int i = 0; i < agent->n_children; i++)
        if (child_next_ms(agent->children[i]) < due_ms)
            due_ms = child_next_ms(agent->children[i]);
    if (due_ms <= now_ms || agent->is_more)
        return 0;
    return due_ms - now_ms > AGENT_WAIT_MAX_MS ? AGENT_WAIT_MAX_MS
                                               : (int)(due_ms - now_ms);
}

static int agent_phase_wait(struct agent *agent, struct err *err)
{
    struct pollfd fds[2 + 2 * AGENT_RANKS_MAX];
    nfds_t n = 0;
    bool is_full = link_is_full(agent->link);

    fds[n++] = (struct pollfd){.fd = agent->signal_fd, .events = POLLIN};
    fds[n++] = (struct pollfd){.fd = link_fd(agent->link), .events = POLLIN};
    for (int i = 0; i < agent->n_children; i++) {
        fds[n++] = (struct pollfd){.fd = is_full ? -1 : child_fd(agent->children[i]),
                                   .events = POLLIN};
        fds[n++] = (struct pollfd){.fd = child_log_fd(child_get_log(agent->children[i])),
                                   .events = POLLIN};
    }
    if (poll(fds, n, agent_wait_ms(agent)) < 0 && errno != EINTR)
        return err_set(err, ERR_IO, "cannot poll: %s", strerror(errno));
    return 0;
}

/* ---- life ---- */

static void list_rank(struct buf *out, struct child_id id)
{
    buf_printf(out,
               "%s{\"job\":%" PRId64 ",\"attempt\":%" PRId64 ",\"rank\":%" PRId64 "}",
               out->n_bytes > 1 ? "," : "", id.job, id.attempt, id.rank);
}

/* What runs, and what has ended without the coordinator knowing. */
static void agent_list_running(void *state, struct buf *out)
{
    const struct agent *agent = state;

    buf_add_char(out, '[');
    for (int i = 0; i < agent->n_children; i++)
        list_rank(out, child_id(agent->children[i]));
    for (int i = 0; i < link_n_waiting(agent->link); i++) {
        const struct wire *message = link_waiting_at(agent->link, i);

        if (message->type == MSG_RANK_EXIT)
            list_rank(out, (struct child_id){message->rank_exit.job,
                                             message->rank_exit.attempt,
                                             message->rank_exit.rank});
    }
    buf_add_char(out, ']');
}

/* RANK_READY is not durable: a coordinator that died on it is told again. */
static void agent_on_registered(void *state)
{
    struct agent *agent = state;

    agent->heard_ms = clock_mono_ms();
    if (agent->is_leaving)
        agent_tell_ending(agent);
    for (int i = 0; i < agent->n_children; i++) {
        struct child_id id = child_id(agent->children[i]);
        const char *endpoint = child_endpoint(agent->children[i]);
        struct wire message = {.type = MSG_RANK_READY};

        if (!endpoint)
            continue;
        message.rank_ready = (struct msg_rank_ready){
            id.job, id.attempt, id.rank, endpoint, child_pid(agent->children[i])};
        link_report(agent->link, &message);
    }
}

static int agent_make_id(struct agent *agent, struct err *err)
{
    unsigned char random[AGENT_ID_BYTES];

    if (agent->config->id && strlen(agent->config->id) >= AGENT_ID_MAX)
        return err_set(err, ERR_LIMIT, "an agent's name has at most %d bytes",
                       AGENT_ID_MAX - 1);
    if (agent->config->id) {
        snprintf(agent->id, sizeof(agent->id), "%s", agent->config->id);
        return 0;
    }
    if (getrandom(random, sizeof(random), 0) != (ssize_t)sizeof(random))
        return err_set(err, ERR_IO, "cannot draw the agent's number: %s",
                       strerror(errno));
    for (int i = 0; i < AGENT_ID_BYTES; i++)
        snprintf(agent->id + 2 * i, 3, "%02x", random[i]);
    return 0;
}

/* What every rank is doing, since when: what is stuck cannot say so itself. */
static void agent_on_heartbeat(void *state)
{
    struct agent *agent = state;

    agent_ping(agent);
    for (int i = 0; i < agent->n_children; i++) {
        const struct child *child = agent->children[i];
        struct child_id id = child_id(child);
        struct wire message = {.type = MSG_RANK_STAGE}, owned;
        struct stage_now stage;
        struct err err;

        child_stage(child, &stage);
        message.rank_stage = (struct msg_rank_stage){
            .job = id.job,
            .attempt = id.attempt,
            .rank = id.rank,
            .stage = stage.text,
            .for_ms = (clock_mono_ns() - stage.since_ns) / 1000000,
            .limit_ms = stage.limit_ms,
            .step = stage.step,
            .memory_bytes = child_memory_bytes(child),
        };
        if (wire_clone(&owned, &message, &err) == 0)
            link_report(agent->link, &owned);
    }
}

static int agent_open_signals(struct agent *agent, struct err *err)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    agent->signal_fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    if (agent->signal_fd < 0)
        return err_set(err, ERR_IO, "cannot open a signalfd: %s", strerror(errno));
    return 0;
}

int agent_create(struct agent **out, const struct agent_config *config, struct err *err)
{
    struct agent *agent = calloc(1, sizeof(*agent));

    if (!agent)
        return err_set(err, ERR_NOMEM, "cannot allocate the agent");
    agent->config = config;
    agent->signal_fd = -1;
    agent->stop_by_ms = agent->stop_from_ms = INT64_MAX;
    agent->heard_ms = clock_mono_ms();
    agent->link_config = (struct link_config){
        .endpoint = config->endpoint,
        .key = config->key,
        .agent = agent->id,
        .host = config->host,
        .device_kind = config->device_kind,
        .version = AGENT_VERSION,
        .pool = config->pool ? config->pool : "",
        .allocation = config->allocation ? config->allocation : "",
        .n_devices = config->n_devices,
        .memory_bytes = strcmp(config->device_kind, "gpu") == 0
                            ? gpu_memory_bytes(config->n_devices)
                            : (int64_t)sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGESIZE),
        .state = agent,
        .list_running = agent_list_running,
        .on_registered = agent_on_registered,
        .on_heartbeat = agent_on_heartbeat,
    };
    if (agent_make_id(agent, err) < 0 || agent_open_signals(agent, err) < 0 ||
        link_open(&agent->link, &agent->link_config, err) < 0) {
        agent_destroy(agent);
        return -1;
    }
    *out = agent;
    return 0;
}

void agent_destroy(struct agent *agent)
{
    if (!agent)
        return;
    while (agent->n_children)
        agent_remove(agent, agent->n_children - 1);
    link_close(agent->link);
    if (agent->signal_fd >= 0)
        close(agent->signal_fd);
    free(agent);
}

static bool agent_is_over(const struct agent *agent)
{
    if (agent->stop_by_ms == INT64_MAX)
        return false;
    return clock_mono_ms() >= agent->stop_by_ms ||
           (agent->n_children == 0 &&
            (link_n_waiting(agent->link) == 0 || !link_is_registered(agent->link)));
}

static void agent_say_gone(struct agent *agent)
{
    struct wire message = {.type = MSG_AGENT_GONE, .agent_gone = {agent->reason}}, owned;
    struct err err;

    if (link_is_registered(agent->link) && wire_clone(&owned, &message, &err) == 0)
        link_report(agent->link, &owned);
}

int agent_run(struct agent *agent, struct err *err)
{
    while (!agent_is_over(agent)) {
        if (agent_phase_wait(agent, err) < 0 || agent_check_heard(agent, err) < 0 ||
            link_check_refused(agent->link, err) < 0)
            return -1;
        agent_phase_signals(agent);
        agent_phase_reports(agent);
        agent_phase_reap(agent);
        agent_phase_timers(agent);
        agent_phase_receive(agent);
    }
    agent_say_gone(agent);
    return 0;
}
