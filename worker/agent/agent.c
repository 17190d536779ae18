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
#include "common/base/log.h"
#include "worker/agent/gpu_memory.h"
#include "worker/agent/link.h"
#include "worker/agent/ranks.h"

#include <errno.h>
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
    struct ranks ranks;
    bool is_more;         /* the receive phase left messages for the next round */
    int64_t stop_by_ms;   /* INT64_MAX: nobody asked the agent to end */
    int64_t stop_from_ms; /* when its ranks are stopped without being told so */
    int64_t grace_ms;     /* from then on */
    bool is_leaving;      /* it ends by itself: the coordinator is to know */
    char reason[AGENT_REASON_MAX];
    int64_t heard_ms;      /* when the coordinator last said something */
    int64_t idle_since_ms; /* 0: not known yet */
};

/* ---- its end ---- */

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
    ranks_stop_all(&agent->ranks, agent->grace_ms, now_ms);
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

    if (agent->ranks.n_children || !agent->idle_since_ms)
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
            ranks_start(&agent->ranks, &message->rank_start);
        break;
    case MSG_PEERS:
        ranks_forward(&agent->ranks, message->peers.job, message->peers.attempt, message);
        break;
    case MSG_TASK_START:
        ranks_forward(&agent->ranks, message->task_start.job, message->task_start.attempt,
                      message);
        break;
    case MSG_RANK_DONE:
        ranks_forward(&agent->ranks, message->rank_done.job, message->rank_done.attempt,
                      message);
        break;
    case MSG_RANK_STOP:
        ranks_stop(&agent->ranks, &message->rank_stop);
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

static void agent_phase_timers(struct agent *agent)
{
    int64_t now_ms = clock_mono_ms();

    agent_check_idle(agent);
    agent_end_ranks(agent, now_ms);
    ranks_tick(&agent->ranks, now_ms);
    link_tick(agent->link, now_ms);
}

static int agent_wait_ms(const struct agent *agent)
{
    int64_t now_ms = clock_mono_ms();
    int64_t due_ms = link_next_ms(agent->link, now_ms);
    int64_t ranks_due_ms = ranks_next_ms(&agent->ranks);

    if (agent->stop_from_ms < due_ms)
        due_ms = agent->stop_from_ms;
    if (ranks_due_ms < due_ms)
        due_ms = ranks_due_ms;
    if (due_ms <= now_ms || agent->is_more)
        return 0;
    return due_ms - now_ms > AGENT_WAIT_MAX_MS ? AGENT_WAIT_MAX_MS
                                               : (int)(due_ms - now_ms);
}

static int agent_phase_wait(struct agent *agent, struct err *err)
{
    struct pollfd fds[2 + 2 * AGENT_RANKS_MAX] = {
        {.fd = agent->signal_fd, .events = POLLIN},
        {.fd = link_fd(agent->link), .events = POLLIN},
    };
    nfds_t n = 2 + (nfds_t)ranks_poll(&agent->ranks, &fds[2]);

    if (poll(fds, n, agent_wait_ms(agent)) < 0 && errno != EINTR)
        return err_set(err, ERR_IO, "cannot poll: %s", strerror(errno));
    return 0;
}

/* ---- life ---- */

static void agent_list_running(void *state, struct buf *out)
{
    const struct agent *agent = state;

    ranks_list(&agent->ranks, out);
}

static void agent_on_registered(void *state)
{
    struct agent *agent = state;

    agent->heard_ms = clock_mono_ms();
    if (agent->is_leaving)
        agent_tell_ending(agent);
    ranks_tell_ready(&agent->ranks);
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

static void agent_on_heartbeat(void *state)
{
    struct agent *agent = state;

    agent_ping(agent);
    ranks_tell_stages(&agent->ranks);
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
    agent->ranks = (struct ranks){.config = config, .link = agent->link};
    *out = agent;
    return 0;
}

void agent_destroy(struct agent *agent)
{
    if (!agent)
        return;
    ranks_fini(&agent->ranks);
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
           (agent->ranks.n_children == 0 &&
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
        ranks_take_reports(&agent->ranks);
        ranks_reap(&agent->ranks);
        agent_phase_timers(agent);
        agent_phase_receive(agent);
    }
    agent_say_gone(agent);
    return 0;
}
