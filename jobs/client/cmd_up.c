/* vneva up, down: a coordinator and an agent on this machine.
 *
 * The agent holds a lock of the home for as long as it lives: it outlives a coordinator
 * that was killed, and a second agent would give the same devices out once more.
 */
#define _GNU_SOURCE /* flock */
#include "common/base/clock.h"
#include "jobs/client/client.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/wait.h>
#include <unistd.h>

#define START_MS 30000 /* till both answer */
#define STOP_MS 60000  /* till ranks have written what they must */
#define STEP_MS 20     /* between two looks */
#define SILENT_MS 2000 /* without an answer: gone */
#define LOG_TAIL 2000  /* bytes shown of the log of what did not start */
#define LOG_MAX (64u << 20)
#define AGENT_LOCK "agent.lock" /* in the home */

struct child {
    const char *name; /* "coordinator" */
    char log[FS_PATH_MAX];
    pid_t pid;   /* 0: not started here */
    int lock_fd; /* the child keeps it open; -1: none */
};

static int run_ping(struct client *client, struct err *err)
{
    struct wire request = {.type = MSG_PING}, reply = {.type = MSG_NONE};

    if (client_call(client, &request, &reply, err) < 0)
        return -1;
    wire_fini(&reply);
    return 0;
}

/* Agents that are up; -1 with err. */
static int count_agents(struct client *client, struct err *err)
{
    struct json *rows;
    int n = 0;

    if (client_query(client, &rows, "workers", 0, 0, 0, err) < 0)
        return -1;
    for (size_t i = 0; i < json_count(rows); i++) {
        const char *state = json_get_string(json_at(rows, i), "state");

        n += state && strcmp(state, "up") == 0;
    }
    json_free(rows);
    return n;
}

/* An agent keeps the CPU ranks it began with. */
static void warn_of_devices(struct client *client, int64_t n_asked)
{
    struct json *rows;
    struct err err;

    if (client_query(client, &rows, "workers", 0, 0, 0, &err) < 0)
        return;
    for (size_t i = 0; i < json_count(rows); i++) {
        const struct json *row = json_at(rows, i);
        const char *state = json_get_string(row, "state");
        const char *kind = json_get_string(row, "device_kind");
        int64_t n = json_get_int(row, "n_devices", n_asked);

        if (state && strcmp(state, "up") == 0 && kind && strcmp(kind, "cpu") == 0 &&
            n != n_asked)
            fprintf(client->err,
                    "vneva: --devices %" PRId64 " is not taken: its agent has %" PRId64
                    " CPU ranks; `vneva down` first\n",
                    n_asked, n);
    }
    json_free(rows);
}

/* ---- starting ---- */

/* In the child: its own session, its log as output, no input; never returns. */
static void become(const struct child *child, char *const *argv, bool is_detached)
{
    int null = open("/dev/null", O_RDONLY);
    int log = open(child->log, O_WRONLY | O_CREAT | O_APPEND, 0600);
    sigset_t none;

    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    if (is_detached)
        setsid();
    if (null < 0 || log < 0 || dup2(null, 0) < 0 || dup2(log, 1) < 0 || dup2(log, 2) < 0)
        _exit(EXIT_SYSTEM);
    if (child->lock_fd >= 0)
        fcntl(child->lock_fd, F_SETFD, 0);
    execv(argv[0], argv);
    dprintf(2, "cannot run '%s': %s\n", argv[0], strerror(errno));
    _exit(EXIT_SYSTEM);
}

static int start(struct child *child, char *const *argv, bool is_detached,
                 struct err *err)
{
    child->pid = fork();
    if (child->pid < 0) {
        child->pid = 0;
        return err_set(err, ERR_IO, "cannot start the %s: %s", child->name,
                       strerror(errno));
    }
    if (child->pid == 0)
        become(child, argv, is_detached);
    return 0;
}

/* listen: a TCP endpoint to serve beside the home's socket, or NULL. */
static int start_coordinator(struct client *client, struct child *child,
                             const char *listen, bool is_detached, struct err *err)
{
    char program[FS_PATH_MAX], endpoint[FS_PATH_MAX];
    char *argv[] = {program,  "--home", client->home, listen ? "--listen" : NULL,
                    endpoint, NULL};

    if (fs_path(program, err, "%s/vneva-coordinator", client->programs) < 0 ||
        fs_path(endpoint, err, "%s", listen ? listen : "") < 0)
        return -1;
    return start(child, argv, is_detached, err);
}

static int start_agent(struct client *client, struct child *child, int64_t n_devices,
                       bool is_detached, struct err *err)
{
    char program[FS_PATH_MAX], devices[24];
    char *argv[] = {program,      "--connect", client->endpoint, "--home",
                    client->home, "--devices", devices,          NULL};

    snprintf(devices, sizeof(devices), "%lld", (long long)n_devices);
    if (fs_path(program, err, "%s/vneva-worker", client->programs) < 0)
        return -1;
    return start(child, argv, is_detached, err);
}

/* The process has ended before it answered: says so with the end of its log. */
static int fail_died(const struct child *child, int status, struct err *err)
{
    struct buf log = BUF_INIT;
    const char *tail = "";

    if (fs_read_file(&log, child->log, LOG_MAX, NULL) == 0)
        tail = buf_str(&log) + (log.n_bytes > LOG_TAIL ? log.n_bytes - LOG_TAIL : 0);
    while (strchr(tail, '\n') && strchr(tail, '\n')[1])
        tail = strchr(tail, '\n') + 1; /* the last line says why */
    if (!*tail)
        tail = "nothing: has its disk any space left?";
    err_set(err, ERR_IO, "the %s ended at once (status %d); '%s' ends with: %.*s",
            child->name, WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status),
            child->log, (int)strcspn(tail, "\n"), tail);
    buf_fini(&log);
    return -1;
}

static int coordinator_answers(struct client *client)
{
    return client_is_served(client) && run_ping(client, NULL) == 0;
}

static int agent_is_there(struct client *client)
{
    return count_agents(client, NULL) > 0;
}

/* Till is_ready says 1; an error when the child ends first or time is up. */
static int wait_started(struct client *client, struct child *child,
                        int (*is_ready)(struct client *client), struct err *err)
{
    int64_t deadline_ms = clock_mono_ms() + START_MS;
    int status;

    while (!is_ready(client)) {
        if (waitpid(child->pid, &status, WNOHANG) == child->pid) {
            child->pid = 0;
            return fail_died(child, status, err);
        }
        if (clock_mono_ms() > deadline_ms)
            return err_set(err, ERR_TIMEOUT, "the %s does not answer; see '%s'",
                           child->name, child->log);
        if (client_pause(STEP_MS))
            return err_set(err, ERR_STATE, "interrupted while the %s starts",
                           child->name);
    }
    return 0;
}

static int prepare_home(struct client *client, struct child *coordinator,
                        struct child *agent, struct err *err)
{
    char logs[FS_PATH_MAX];

    if (fs_path(logs, err, "%s/logs", client->home) < 0 ||
        fs_make_dirs(logs, 0700, err) < 0 ||
        fs_path(coordinator->log, err, "%s/coordinator.log", logs) < 0 ||
        fs_path(agent->log, err, "%s/worker.log", logs) < 0)
        return -1;
    return 0;
}

/* 1: no other agent of this home lives, and the lock is ours. 0: one does. */
static int lock_agent(struct client *client, struct child *agent, struct err *err)
{
    char path[FS_PATH_MAX];

    if (fs_path(path, err, "%s/%s", client->home, AGENT_LOCK) < 0)
        return -1;
    if (agent->lock_fd < 0)
        agent->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (agent->lock_fd < 0)
        return err_set(err, ERR_IO, "cannot open '%s': %s", path, strerror(errno));
    if (flock(agent->lock_fd, LOCK_EX | LOCK_NB) == 0)
        return 1;
    if (errno == EWOULDBLOCK || errno == EINTR)
        return 0;
    return err_set(err, ERR_IO, "cannot lock '%s': %s", path, strerror(errno));
}

/* 1: an agent is to be started. 0: one is there; one that lives and has lost its
 * coordinator is given time to find it again. */
static int needs_agent(struct client *client, struct child *agent, struct err *err)
{
    int64_t deadline_ms = clock_mono_ms() + START_MS;
    int n_agents, is_locked;

    for (;;) {
        n_agents = count_agents(client, err);
        if (n_agents != 0)
            return n_agents < 0 ? -1 : 0;
        is_locked = lock_agent(client, agent, err);
        if (is_locked != 0)
            return is_locked;
        if (clock_mono_ms() > deadline_ms)
            return err_set(err, ERR_TIMEOUT,
                           "an agent of this home runs already (it holds '%s/%s') and "
                           "does not find the coordinator; see '%s', and end it",
                           client->home, AGENT_LOCK, agent->log);
        if (client_pause(STEP_MS))
            return err_set(err, ERR_STATE,
                           "interrupted while the agent looks for the "
                           "coordinator");
    }
}

/* Starts what does not run yet; what was started is in the children's pid. */
static int bring_up(struct client *client, struct child *coordinator, struct child *agent,
                    int64_t n_devices, const char *listen, bool is_detached,
                    struct err *err)
{
    int needs;

    if (prepare_home(client, coordinator, agent, err) < 0)
        return -1;
    if (!coordinator_answers(client)) {
        if (start_coordinator(client, coordinator, listen, is_detached, err) < 0 ||
            wait_started(client, coordinator, coordinator_answers, err) < 0)
            return -1;
    }
    needs = needs_agent(client, agent, err);
    if (needs <= 0)
        return needs;
    if (start_agent(client, agent, n_devices, is_detached, err) < 0)
        return -1;
    return wait_started(client, agent, agent_is_there, err);
}

/* ---- stopping ---- */

static int ask_shutdown(struct client *client, const char *reason, struct err *err)
{
    struct wire request = {.type = MSG_SHUTDOWN}, reply = {.type = MSG_NONE};

    request.shutdown.reason = reason;
    if (client_call(client, &request, &reply, err) < 0)
        return -1;
    wire_fini(&reply);
    return 0;
}

/* Over a network nothing tells but that it is silent. */
static bool is_gone(struct client *client)
{
    struct wire request = {.type = MSG_PING}, reply = {.type = MSG_NONE};

    if (!client_is_served(client))
        return true;
    if (!client->key_path[0] || !client->net)
        return false;
    if (net_client_call(client->net, &request, &reply, SILENT_MS, NULL) < 0)
        return true;
    wire_fini(&reply);
    return false;
}

static int wait_gone(struct client *client, struct err *err)
{
    int64_t deadline_ms = clock_mono_ms() + STOP_MS;

    while (!is_gone(client)) {
        if (clock_mono_ms() > deadline_ms)
            return err_set(err, ERR_TIMEOUT, "the coordinator still answers after %d s",
                           STOP_MS / 1000);
        if (client_pause(STEP_MS))
            return err_set(err, ERR_STATE, "interrupted; it goes on stopping");
    }
    return 0;
}

int cmd_down(struct client *client, const struct args *args)
{
    struct err err;

    (void)args;
    client_catch_interrupt();
    if (!client_is_served(client)) {
        fprintf(client->out, "nothing runs at '%s'\n", client->home);
        return EXIT_DONE;
    }
    if (ask_shutdown(client, "vneva down", &err) < 0 || wait_gone(client, &err) < 0)
        return client_fail(client, &err);
    fprintf(client->out, "stopped\n");
    return EXIT_DONE;
}

/* With --foreground: till Ctrl-C or till one of the two ends. */
static int stay(struct client *client, struct child *coordinator, struct child *agent)
{
    struct err err;
    int status = 0;
    pid_t ended = 0;

    while (!client_pause(client->poll_ms)) {
        ended = waitpid(-1, &status, WNOHANG);
        if (ended > 0)
            break;
    }
    if (ended > 0)
        fprintf(client->err, "vneva: the %s ended with status %d; stopping the other\n",
                ended == coordinator->pid ? coordinator->name : agent->name,
                WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
    if (client_is_served(client) &&
        (ask_shutdown(client, "vneva up ended", &err) < 0 || wait_gone(client, &err) < 0))
        return client_fail(client, &err);
    return ended > 0 && status ? EXIT_SYSTEM : EXIT_DONE;
}

/* A coordinator that runs already keeps the endpoints it has. */
static int check_listen(struct client *client, const char *listen, struct err *err)
{
    char endpoint[KEY_ENDPOINT_BYTES];

    if (!listen || !client_is_served(client) ||
        keys_read_endpoint(endpoint, client->home, NULL) == 0)
        return 0;
    return err_set(err, ERR_STATE,
                   "a coordinator runs already, and listens on no network; stop it with "
                   "`vneva down` first");
}

static void print_endpoint(struct client *client)
{
    char endpoint[KEY_ENDPOINT_BYTES];

    if (keys_read_endpoint(endpoint, client->home, NULL) == 0)
        fprintf(client->out,
                "listening at %s; `vneva keys add NAME --role ROLE` lets others in\n",
                endpoint);
}

int cmd_up(struct client *client, const struct args *args)
{
    struct child coordinator = {.name = "coordinator", .lock_fd = -1};
    struct child agent = {.name = "worker", .lock_fd = -1};
    bool is_detached = !args_has(args, "foreground");
    const char *listen = args_value(args, "listen");
    int64_t n_devices;
    struct err err;

    if (client_use_home(client, &err) < 0 || check_listen(client, listen, &err) < 0 ||
        args_int(args, "devices", 1, 64, 2, &n_devices, &err) < 0)
        return client_fail(client, &err);
    client_catch_interrupt();
    if (bring_up(client, &coordinator, &agent, n_devices, listen, is_detached, &err) <
        0) {
        if (coordinator.pid > 0) /* leave nothing half started */
            kill(coordinator.pid, SIGTERM);
        if (agent.pid > 0)
            kill(agent.pid, SIGTERM);
        client_fail(client, &err);
        return EXIT_SYSTEM;
    }
    if (!coordinator.pid && !agent.pid) {
        fprintf(client->out, "runs already, home '%s'\n", client->home);
        if (args_has(args, "devices"))
            warn_of_devices(client, n_devices);
        return EXIT_DONE;
    }
    fprintf(client->out, "up: %s%s%s, home '%s'\n", coordinator.pid ? "coordinator" : "",
            coordinator.pid && agent.pid ? " and " : "", agent.pid ? "an agent" : "",
            client->home);
    if (agent.pid)
        fprintf(client->out, "%lld CPU rank%s at once; logs in '%s/logs'\n",
                (long long)n_devices, n_devices == 1 ? "" : "s", client->home);
    print_endpoint(client);
    fflush(client->out);
    return is_detached ? EXIT_DONE : stay(client, &coordinator, &agent);
}
