/* The node program's loop, and the order of its end:
 *
 *     running  --job ended-------------------> ending, exit status the job's
 *     running  --SIGUSR1, SIGTERM------------> ending, 75
 *     running  --stranded (node 0)-----------> ending, 75
 *     running  --agent ended as asked--------> over
 *     ending   --coordinator, agent ended----> over;  too late: SIGKILL
 *
 * Node 0 ends by telling its coordinator (SHUTDOWN), which tells all agents; the other
 * nodes end when their agent does. With a coordinator elsewhere every node ends its agent,
 * which says so there. */
#include "common/base/clock.h"
#include "common/base/log.h"
#include "slurm/node/node.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#define TICK_MS 200
#define ASK_EVERY_MS 1000
#define ASK_ENDING_MS 100
#define TERM_GRACE_MS 25000 /* below Slurm's KillWait, 30 s by default */
#define DONE_GRACE_MS 10000 /* of ranks that have nothing left to do */
#define END_MS 15000        /* for all to end, beyond the grace */
#define LINGER_MS 5000      /* for this program to see what the ranks have left */
#define RESTARTS_MAX 5      /* of one program that dies */
#define AGENT_WORDS_MAX 24
#define POOL_VARIABLE_MAX 128
#define AGENT_REFUSED 4 /* its exit status */
#define GIVE_UP_S "120" /* agents, when their coordinator says nothing: of this start */
#define GIVE_UP_ELSEWHERE_S "1800"

struct run {
    struct node *node;
    int signal_fd;
    bool is_ending, is_over, is_released; /* released: the coordinator may end */
    int exit;
    int64_t grace_ms; /* what it was given for the end */
    int64_t end_by_ms, ask_ms, stranded_ms;
    int n_agent_starts, n_coordinator_starts;
    bool has_stepped;
    bool *is_lost; /* [n_nodes] */
};

/* ---- the agent ---- */

static void add(const char **argv, int *n, const char *word, const char *value)
{
    argv[(*n)++] = word;
    if (value)
        argv[(*n)++] = value;
}

/* Texts that start_agent's words and variables point to. */
struct agent_texts {
    char program[FS_PATH_MAX], log[FS_PATH_MAX], devices[24], grace[24], idle[24];
    char visible[DEVICES_VISIBLE_MAX + 32], pool[POOL_VARIABLE_MAX];
};

static int fill_texts(struct agent_texts *texts, const struct node *node, struct err *err)
{
    const struct node_options *options = &node->options;

    snprintf(texts->devices, sizeof(texts->devices), "%" PRId64, node->devices.n);
    snprintf(texts->grace, sizeof(texts->grace), "%" PRId64, options->grace_ms / 1000);
    snprintf(texts->idle, sizeof(texts->idle), "%" PRId64, options->idle_ms / 1000);
    snprintf(texts->visible, sizeof(texts->visible), "CUDA_VISIBLE_DEVICES=%s",
             node->devices.visible);
    snprintf(texts->pool, sizeof(texts->pool), "VNEVA_POOL=%s",
             options->pool ? options->pool : "");
    if (fs_path(texts->program, err, "%s/vneva-worker", node->programs) < 0)
        return -1;
    return fs_path(texts->log, err, "%s/logs/agent-%d.log", node->run,
                   node->exchange->node);
}

static int start_agent(struct node *node, struct err *err)
{
    const struct node_options *options = &node->options;
    struct agent_texts texts;
    const char *argv[AGENT_WORDS_MAX], *variables[3] = {NULL, NULL, NULL};
    struct spawn how = {.argv = argv, .variables = variables, PROCESS_HEARS_SIGTERM};
    int n = 0, n_variables = 0;

    if (fill_texts(&texts, node, err) < 0)
        return -1;
    if (node->devices.visible[0])
        variables[n_variables++] = texts.visible;
    if (options->pool)
        variables[n_variables++] = texts.pool;
    add(argv, &n, texts.program, NULL);
    add(argv, &n, "--id", node->agent_id);
    add(argv, &n, "--host", node->host);
    add(argv, &n, "--devices", texts.devices);
    add(argv, &n, "--device-kind", node->devices.are_gpus ? "gpu" : "cpu");
    add(argv, &n, "--grace", texts.grace);
    add(argv, &n, "--give-up", node->is_elsewhere ? GIVE_UP_ELSEWHERE_S : GIVE_UP_S);
    if (options->idle_ms)
        add(argv, &n, "--idle", texts.idle);
    if (options->connect)
        add(argv, &n, "--connect", options->connect);
    else if (!node->agent_key[0]) /* one node alone */
        add(argv, &n, "--connect", node->control);
    if (node->agent_key[0])
        add(argv, &n, "--key", node->agent_key);
    argv[n] = NULL;
    return process_start(&node->agent, how, texts.log, err);
}

/* ---- ending ---- */

static void mark(struct node *node, const char *name, const char *text)
{
    struct err err;

    if (phases_mark(node->phases, name, text, &err) < 0)
        log_warn("%s", err.text);
}

static void begin_end(struct run *run, int64_t grace_ms, int status, const char *reason)
{
    struct node *node = run->node;
    struct err err;

    if (run->is_ending)
        return;
    log_info("ending: %s", reason);
    mark(node, "ending", reason);
    run->is_ending = true;
    run->exit = status;
    run->grace_ms = grace_ms;
    run->end_by_ms = clock_mono_ms() + grace_ms + END_MS;
    process_kill(&node->wait);
    if (!node->is_head || node->coordinator == 0) {
        process_signal(node->agent, SIGTERM);
    } else if (head_shut_down(node, grace_ms, node->job ? LINGER_MS : 0, reason, &err) <
               0) {
        log_warn("the coordinator does not hear: %s", err.text);
        process_signal(node->agent, SIGTERM);
        process_signal(node->coordinator, SIGINT);
    }
}

static void end_by_signal(struct run *run, int signal)
{
    struct node *node = run->node;
    int64_t grace_ms = node->options.grace_ms;
    int status = node->job && !node->has_job_ended ? NODE_CHECKPOINTED : NODE_DONE;

    if (signal == SIGUSR1 && !node->is_head && !node->is_elsewhere)
        return; /* node 0 ends all */
    if (signal != SIGUSR1 && grace_ms > TERM_GRACE_MS)
        grace_ms = TERM_GRACE_MS;
    node->leaves_alone = signal != SIGUSR1 || node->is_elsewhere;
    begin_end(run, grace_ms, node->is_head || node->is_elsewhere ? status : NODE_DONE,
              signal == SIGUSR1 ? "the time is nearly over (SIGUSR1)"
                                : strsignal(signal));
}

/* ---- phases of the loop ---- */

static void phase_wait(struct run *run)
{
    struct pollfd fd = {.fd = run->signal_fd, .events = POLLIN};

    poll(&fd, 1, run->is_ending ? ASK_ENDING_MS : TICK_MS);
}

static void phase_signals(struct run *run)
{
    struct signalfd_siginfo info;

    while (read(run->signal_fd, &info, sizeof(info)) == (ssize_t)sizeof(info))
        if (info.ssi_signo != SIGCHLD)
            end_by_signal(run, (int)info.ssi_signo);
}

static int restart_agent(struct run *run, int status, struct err *err)
{
    if (++run->n_agent_starts > RESTARTS_MAX)
        return err_set(err, ERR_PEER,
                       "the agent ended %d times, the last with status %d; "
                       "see '%s/logs/agent-%d.log'",
                       run->n_agent_starts, status, run->node->run,
                       run->node->exchange->node);
    log_warn("the agent ended with status %d: starting it again", status);
    return start_agent(run->node, err);
}

static int agent_ended(struct run *run, int status, struct err *err)
{
    struct node *node = run->node;

    if (run->is_ending)
        return 0;
    if (status == NODE_NOBODY)
        return err_set(err, ERR_TIMEOUT, "the agent found no coordinator any more");
    if (status == AGENT_REFUSED)
        return err_set(
            err, ERR_DENIED,
            "the coordinator takes no agents with this key ('%s/logs/agent-%d.log' "
            "has its words): it has to be of role worker",
            node->run, node->exchange->node);
    if (status != 0)
        return restart_agent(run, status, err);
    if (node->is_head) /* somebody has sent SHUTDOWN: the coordinator will end too */
        return 0;
    run->is_over = true;
    run->exit = node->is_elsewhere && node->job && !node->has_job_ended
                    ? NODE_CHECKPOINTED
                    : NODE_DONE;
    return 0;
}

static int coordinator_ended(struct run *run, int status, struct err *err)
{
    if (run->is_ending) { /* an agent that it did not reach hears it from here */
        process_signal(run->node->agent, SIGTERM);
        return 0;
    }
    if (status == 0) { /* told so by a client; its agents were too */
        begin_end(run, DONE_GRACE_MS,
                  run->node->job && !run->node->has_job_ended ? NODE_CHECKPOINTED
                                                              : NODE_DONE,
                  "the coordinator was told to end");
        return 0;
    }
    if (++run->n_coordinator_starts > RESTARTS_MAX)
        return err_set(err, ERR_PEER,
                       "the coordinator ended %d times, the last with "
                       "status %d; see '%s/logs/coordinator.log'",
                       run->n_coordinator_starts, status, run->node->home);
    log_warn("the coordinator ended with status %d: starting it again", status);
    return head_start_again(run->node, err);
}

static int phase_reap(struct run *run, struct err *err)
{
    struct node *node = run->node;
    int status;

    if (process_reap(&node->agent, &status) && agent_ended(run, status, err) < 0)
        return -1;
    if (process_reap(&node->coordinator, &status) &&
        coordinator_ended(run, status, err) < 0)
        return -1;
    process_reap(&node->wait, &status); /* the job's end is seen below */
    if (run->is_ending && node->agent == 0 && node->coordinator == 0)
        run->is_over = true;
    return 0;
}

static void phase_lost(struct run *run)
{
    struct node *node = run->node;
    int i = exchange_poll_lost(node->exchange);
    char text[64];

    if (i < 0 || run->is_lost[i] || run->is_ending)
        return;
    run->is_lost[i] = true;
    node->leaves_alone = true;
    snprintf(text, sizeof(text), "node %d", i);
    mark(node, "lost", text);
    log_warn("%s is gone", text);
    if (i == node->exchange->node)
        begin_end(run, TERM_GRACE_MS, NODE_CHECKPOINTED, "the launcher is gone");
    else if (node->is_head)
        wireup_revoke_node(node, i);
    else if (i == 0 && !node->is_elsewhere)
        begin_end(run, DONE_GRACE_MS, NODE_NOBODY, "node 0 is gone");
}

/* The job lacks devices of nodes that will not come back in this allocation. */
static void check_stranded(struct run *run, const struct head_job *job)
{
    struct node *node = run->node;
    int64_t now_ms = clock_mono_ms();
    char reason[320];

    if (!node->is_head || !job->is_waiting || job->n_agents >= node->exchange->n_nodes)
        run->stranded_ms = now_ms;
    else if (now_ms - run->stranded_ms > node->options.stranded_ms) {
        snprintf(reason, sizeof(reason),
                 "%" PRId64 " of %d nodes are left and the job %s", job->n_agents,
                 node->exchange->n_nodes, job->reason);
        node->leaves_alone = true;
        begin_end(run, DONE_GRACE_MS, NODE_CHECKPOINTED, reason);
    }
}

/* The coordinator stays until the last that was done is written down here. */
static void release(struct run *run, const struct head_job *job)
{
    struct err err;

    if (!run->is_ending || run->is_released || !run->node->is_head || !job->is_at_rest)
        return;
    run->is_released = true;
    if (head_shut_down(run->node, run->grace_ms, 0, "all have ended", &err) < 0)
        log_warn("the coordinator does not hear: %s", err.text);
}

static void phase_job(struct run *run)
{
    struct node *node = run->node;
    int64_t now_ms = clock_mono_ms();
    struct head_job job;
    struct err err;

    if (!node->client || !node->job || now_ms < run->ask_ms ||
        (node->is_head && node->coordinator == 0))
        return;
    run->ask_ms = now_ms + (run->is_ending ? ASK_ENDING_MS : ASK_EVERY_MS);
    if (head_ask_job(node, &job, &err) < 0) {
        if (!run->is_ending)
            log_warn("cannot ask for the job: %s", err.text);
        return;
    }
    if (job.done > 0 && !run->has_stepped && strcmp(job.state, "queued") != 0) {
        mark(node, "working", "");
        run->has_stepped = true;
    }
    if (job.has_ended)
        begin_end(run, DONE_GRACE_MS, node->job_exit, job.state);
    if (job.has_ended)
        run->exit = node->job_exit; /* also when it was being stopped */
    check_stranded(run, &job);
    release(run, &job);
}

static void phase_deadline(struct run *run)
{
    struct node *node = run->node;

    if (!run->is_ending || clock_mono_ms() < run->end_by_ms)
        return;
    log_warn("not all processes ended in time");
    process_kill(&node->agent);
    process_kill(&node->coordinator);
    run->is_over = true;
}

/* ---- all of it ---- */

/* The signals that supervise() takes from a descriptor. */
static sigset_t signals_taken(void)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGUSR1);
    return set;
}

static int run_open(struct run *run, struct node *node, struct err *err)
{
    sigset_t set = signals_taken();

    *run = (struct run){.node = node, .stranded_ms = clock_mono_ms()};
    run->signal_fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    if (run->signal_fd < 0)
        return err_set(err, ERR_IO, "cannot open a signalfd: %s", strerror(errno));
    run->is_lost = calloc((size_t)node->exchange->n_nodes, sizeof(*run->is_lost));
    return run->is_lost ? 0 : err_set(err, ERR_NOMEM, "no memory for a list of nodes");
}

static int start_all(struct node *node, struct err *err)
{
    if (start_agent(node, err) < 0)
        return -1;
    if (node->exchange->node == 0 && node->job && head_start_wait(node, err) < 0)
        return -1;
    return 0;
}

int supervise(struct node *node, struct err *err)
{
    struct head_job job;
    struct err ignored;
    struct run run;
    int rc = run_open(&run, node, err);

    if (rc == 0)
        rc = start_all(node, err);
    while (rc == 0 && !run.is_over) {
        phase_wait(&run);
        phase_signals(&run);
        rc = phase_reap(&run, err);
        phase_lost(&run);
        phase_job(&run);
        phase_deadline(&run);
    }
    if (node->is_elsewhere && node->client && node->job) /* what the agent's end did */
        (void)head_ask_job(node, &job, &ignored);
    if (node->has_job_ended && run.exit == NODE_CHECKPOINTED)
        run.exit = node->job_exit;
    free(run.is_lost);
    if (run.signal_fd >= 0)
        close(run.signal_fd);
    return rc < 0 ? -1 : run.exit;
}

void node_block_signals(void)
{
    sigset_t set = signals_taken();

    sigprocmask(SIG_BLOCK, &set, NULL);
    (void)signal(SIGPIPE, SIG_IGN);
}
