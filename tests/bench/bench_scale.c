/* bench_scale [--agents N] [--tasks N] [--work-ms MS]: the coordinator under a large crowd.
 *
 * The real program on this machine; N simulated agents (default 1,000), each with a key and
 * a CURVE connection over TCP of its own, of one device each, work off one batch job of
 * tasks (default 100,000). Every completion is durable (SQLite, synchronous=FULL) before it
 * is answered. Meanwhile a second process runs `vneva status` again and again.
 *
 * With --work-ms 0 (the default) agents answer at once: what is measured is how many
 * completions a second there can be, and a round trip is mostly the queue of the others.
 * With more, a task takes about that long, so that agents / work-ms is the rate offered, and
 * a round trip (TASK_DONE sent to the next TASK_START) is how long a device waits for work.
 *
 * All agents share one ZeroMQ context of one I/O thread, which encrypts for all of them on
 * the same cores as the coordinator: on machines of their own they would cost it nothing.
 */
#include "common/base/clock.h"
#include "common/base/fs.h"
#include "common/base/log.h"
#include "common/base/rng.h"
#include "common/net/keys.h"
#include "common/wire/wire.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <zmq.h>

#define AGENTS_DEFAULT 1000
#define AGENTS_MAX 10000
#define TASKS_DEFAULT 100000
#define TASKS_MAX 10000000
#define HEARTBEAT_MS 1000
#define START_MS 60000
#define EVENTS_MAX 256
#define SWEEP_MS 200 /* all sockets are looked at, however quiet their descriptors */
#define PROBE_EVERY_US 50000
#define PROBES_MAX 100000

struct sim_agent {
    void *socket;
    uint64_t sequence;
    int64_t job, attempt, rank; /* the rank it has; attempt 0: none */
    int64_t task;               /* in work; 0: none */
    int64_t due_ns;             /* when it is done */
    int64_t next_beat_ms;       /* agents beat one after another, not all at once */
    int64_t done_sent_ns;       /* of the last TASK_DONE; 0 before */
    char name[32];
    char result[96];
};

struct sim {
    struct options {
        int64_t n_agents, n_tasks, work_ms;
    } options;
    char home[64], endpoint[KEY_ENDPOINT_BYTES], coordinator[KEY_TEXT_BYTES];
    void *context;
    int epoll;
    struct sim_agent *agents;
    struct buf packed;
    int64_t n_registered, n_done, n_trips, *trips_ns;
    int64_t begun_ns, ended_ns;
    bool is_finished;
};

static void die(const char *what, const struct err *err)
{
    fprintf(stderr, "bench_scale: %s%s%s\n", what, err ? ": " : "", err ? err->text : "");
    exit(1);
}

static void pause_us(long us)
{
    struct timespec time = {us / 1000000, us % 1000000 * 1000};

    nanosleep(&time, NULL);
}

/* ---- what agents say ---- */

static void say(struct sim *sim, struct sim_agent *agent, struct wire *message)
{
    struct err err;

    message->sequence = ++agent->sequence;
    sim->packed.n_bytes = 0;
    if (wire_encode(&sim->packed, message, &err) < 0)
        die("cannot encode", &err);
    if (zmq_send(agent->socket, sim->packed.data, sim->packed.n_bytes, ZMQ_DONTWAIT) < 0)
        die("an agent cannot send", NULL);
}

static void say_register(struct sim *sim, struct sim_agent *agent)
{
    struct wire message = {.type = MSG_REGISTER};

    message.registration.agent = agent->name;
    message.registration.host = agent->name;
    message.registration.pid = getpid();
    message.registration.n_devices = 1;
    message.registration.device_kind = "cpu";
    message.registration.memory_bytes = 1 << 30;
    message.registration.version = "bench";
    message.registration.running = "[]";
    message.registration.pool = message.registration.allocation = "";
    say(sim, agent, &message);
}

static void say_heartbeat(struct sim *sim, struct sim_agent *agent)
{
    struct wire message = {.type = MSG_HEARTBEAT};

    message.heartbeat.agent = agent->name;
    say(sim, agent, &message);
}

static void say_done(struct sim *sim, struct sim_agent *agent)
{
    struct wire message = {.type = MSG_TASK_DONE};

    message.task_done.job = agent->job;
    message.task_done.attempt = agent->attempt;
    message.task_done.task = agent->task;
    message.task_done.result = agent->result;
    agent->task = 0;
    agent->done_sent_ns = clock_mono_ns();
    sim->n_done++;
    say(sim, agent, &message);
}

/* ---- what agents hear ---- */

static void on_rank_start(struct sim *sim, struct sim_agent *agent,
                          const struct msg_rank_start *start)
{
    struct wire message = {.type = MSG_RANK_READY};

    agent->job = start->job;
    agent->attempt = start->attempt;
    agent->rank = start->rank;
    message.rank_ready.job = start->job;
    message.rank_ready.attempt = start->attempt;
    message.rank_ready.rank = start->rank;
    message.rank_ready.endpoint = "sim";
    message.rank_ready.pid = 1;
    say(sim, agent, &message);
}

/* From half to one and a half times --work-ms, so that agents do not move in step. */
static int64_t work_ns(const struct sim *sim, int64_t task)
{
    const struct rng_key key = {.seed = 1, .stream = rng_stream("work")};
    uint64_t ns = (uint64_t)sim->options.work_ms * 1000000;

    return ns ? (int64_t)(ns / 2 + rng_below(key, (uint64_t)task, ns)) : 0;
}

static void on_task_start(struct sim *sim, struct sim_agent *agent,
                          const struct msg_task_start *start)
{
    if (agent->done_sent_ns && sim->n_trips < sim->options.n_tasks + 2)
        sim->trips_ns[sim->n_trips++] = clock_mono_ns() - agent->done_sent_ns;
    agent->task = start->task;
    agent->due_ns = clock_mono_ns() + work_ns(sim, start->task);
    if (strcmp(start->phase, "plan") == 0)
        snprintf(agent->result, sizeof(agent->result), "{\"n_samples\": %lld}",
                 (long long)sim->options.n_tasks);
    else if (strcmp(start->phase, "finish") == 0)
        snprintf(agent->result, sizeof(agent->result),
                 "{\"path\": \"/o\", \"n_samples\": 1, \"n_rejects\": 0, "
                 "\"fingerprint\": \"f\"}");
    else
        snprintf(agent->result, sizeof(agent->result), "{\"first\": %lld}",
                 (long long)start->first);
    if (strcmp(start->phase, "work") == 0 && !sim->begun_ns)
        sim->begun_ns = clock_mono_ns();
    if (strcmp(start->phase, "finish") == 0)
        sim->ended_ns = clock_mono_ns();
    if (sim->options.work_ms == 0)
        say_done(sim, agent);
}

static void on_rank_done(struct sim *sim, struct sim_agent *agent)
{
    struct wire message = {.type = MSG_RANK_EXIT};

    message.rank_exit.job = agent->job;
    message.rank_exit.attempt = agent->attempt;
    message.rank_exit.rank = agent->rank;
    message.rank_exit.reason = "";
    say(sim, agent, &message);
    agent->attempt = 0;
    agent->done_sent_ns = 0;
    if (sim->ended_ns)
        sim->is_finished = true;
}

static void hear(struct sim *sim, struct sim_agent *agent, const struct wire *message)
{
    switch (message->type) {
    case MSG_REGISTERED:
        sim->n_registered++;
        break;
    case MSG_RANK_START:
        on_rank_start(sim, agent, &message->rank_start);
        break;
    case MSG_TASK_START:
        on_task_start(sim, agent, &message->task_start);
        break;
    case MSG_RANK_DONE:
        on_rank_done(sim, agent);
        break;
    case MSG_ACK:
    case MSG_PEERS:
        break;
    case MSG_ERROR:
        die(message->error.text, NULL);
        break;
    case MSG_RANK_STOP:
        die(message->rank_stop.reason, NULL);
        break;
    default:
        fprintf(stderr, "bench_scale: %s came, which nothing here asks for\n",
                msg_type_name(message->type));
        exit(1);
    }
}

static void drain(struct sim *sim, struct sim_agent *agent)
{
    zmq_msg_t frame;
    struct wire message;
    struct err err;

    zmq_msg_init(&frame);
    while (zmq_msg_recv(&frame, agent->socket, ZMQ_DONTWAIT) >= 0) {
        if (wire_decode(&message, zmq_msg_data(&frame), zmq_msg_size(&frame), NULL,
                        &err) < 0)
            die("cannot decode", &err);
        hear(sim, agent, &message);
        wire_fini(&message);
    }
    zmq_msg_close(&frame);
}

/* ---- the loop ---- */

static void sweep(struct sim *sim)
{
    for (int64_t i = 0; i < sim->options.n_agents; i++)
        drain(sim, &sim->agents[i]);
}

/* Tasks that are done, and heartbeats. */
static void follow_time(struct sim *sim, int64_t now_ms)
{
    int64_t now_ns = clock_mono_ns();

    for (int64_t i = 0; i < sim->options.n_agents; i++) {
        struct sim_agent *agent = &sim->agents[i];
        bool is_due = agent->task && sim->options.work_ms > 0 && agent->due_ns <= now_ns;
        bool is_beat = now_ms >= agent->next_beat_ms;

        if (is_due)
            say_done(sim, agent);
        if (is_beat) {
            say_heartbeat(sim, agent);
            agent->next_beat_ms = now_ms + HEARTBEAT_MS;
        }
        if (is_due || is_beat)
            drain(sim, agent); /* sending may have taken the edge of its descriptor */
    }
}

static void turn(struct sim *sim, int64_t *next_sweep_ms)
{
    struct epoll_event events[EVENTS_MAX];
    int n = epoll_wait(sim->epoll, events, EVENTS_MAX, 1);
    int64_t now_ms = clock_mono_ms();

    for (int i = 0; i < n; i++)
        drain(sim, &sim->agents[events[i].data.u64]);
    follow_time(sim, now_ms);
    if (now_ms >= *next_sweep_ms) {
        sweep(sim);
        *next_sweep_ms = now_ms + SWEEP_MS;
    }
}

/* ---- setting up ---- */

static void open_agent(struct sim *sim, int64_t i, const struct key *key)
{
    struct sim_agent *agent = &sim->agents[i];
    struct epoll_event event = {.events = EPOLLIN | EPOLLET, .data.u64 = (uint64_t)i};
    size_t n_bytes = sizeof(int);
    int fd;

    memcpy(agent->name, key->name, sizeof(agent->name));
    agent->next_beat_ms =
        clock_mono_ms() + HEARTBEAT_MS + i * HEARTBEAT_MS / sim->options.n_agents;
    agent->socket = zmq_socket(sim->context, ZMQ_DEALER);
    if (!agent->socket ||
        zmq_setsockopt(agent->socket, ZMQ_ROUTING_ID, agent->name, strlen(agent->name)) <
            0 ||
        zmq_setsockopt(agent->socket, ZMQ_CURVE_SERVERKEY, sim->coordinator,
                       KEY_TEXT_BYTES) < 0 ||
        zmq_setsockopt(agent->socket, ZMQ_CURVE_PUBLICKEY, key->public_key,
                       KEY_TEXT_BYTES) < 0 ||
        zmq_setsockopt(agent->socket, ZMQ_CURVE_SECRETKEY, key->secret, KEY_TEXT_BYTES) <
            0 ||
        zmq_connect(agent->socket, sim->endpoint) < 0 ||
        zmq_getsockopt(agent->socket, ZMQ_FD, &fd, &n_bytes) < 0 ||
        epoll_ctl(sim->epoll, EPOLL_CTL_ADD, fd, &event) < 0)
        die("cannot open an agent's socket", NULL);
    say_register(sim, agent);
}

/* One key for each agent, all authorized in one write. */
static struct key *make_keys(struct sim *sim)
{
    size_t n = (size_t)sim->options.n_agents;
    struct key *keys = calloc(n, sizeof(*keys)), coordinator;
    struct authorized *list = calloc(n, sizeof(*list));
    struct err err;
    char name[KEY_NAME_BYTES];

    if (!keys || !list || keys_init(sim->home, &coordinator, NULL, &err) < 0)
        die("cannot make keys", &err);
    memcpy(sim->coordinator, coordinator.public_key, sizeof(sim->coordinator));
    key_fini(&coordinator);
    for (size_t i = 0; i < n; i++) {
        snprintf(name, sizeof(name), "agent-%zu", i);
        if (key_create(&keys[i], name, KEY_WORKER, &err) < 0)
            die("cannot make keys", &err);
        list[i].role = KEY_WORKER;
        memcpy(list[i].name, keys[i].name, sizeof(list[i].name));
        memcpy(list[i].public_key, keys[i].public_key, sizeof(list[i].public_key));
    }
    if (keys_authorize(sim->home, list, n, &err) < 0)
        die("cannot authorize", &err);
    free(list);
    return keys;
}

static const char *programs(void)
{
    const char *bin = getenv("VNEVA_BIN");

    if (!bin)
        die("VNEVA_BIN is not set to the folder of the programs", NULL);
    return bin;
}

static pid_t start_coordinator(struct sim *sim)
{
    char program[FS_PATH_MAX], log[FS_PATH_MAX], beat[16];
    pid_t pid = fork();
    int64_t deadline_ms = clock_mono_ms() + START_MS;
    int fd;

    if (pid < 0)
        die("cannot fork", NULL);
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL); /* it does not outlive a benchmark that fails */
        snprintf(program, sizeof(program), "%s/vneva-coordinator", programs());
        snprintf(log, sizeof(log), "%s/coordinator.log", sim->home);
        snprintf(beat, sizeof(beat), "%d", HEARTBEAT_MS);
        fd = open(log, O_WRONLY | O_CREAT | O_APPEND, 0600);
        dup2(fd, STDERR_FILENO);
        execl(program, program, "--home", sim->home, "--listen", "tcp://127.0.0.1:*",
              "--heartbeat-ms", beat, "--lost-after-ms", "60000", (char *)NULL);
        _exit(127);
    }
    while (keys_read_endpoint(sim->endpoint, sim->home, NULL) < 0) {
        if (clock_mono_ms() > deadline_ms || waitpid(pid, NULL, WNOHANG) == pid)
            die("the coordinator does not start", NULL);
        pause_us(1000);
    }
    return pid;
}

/* ---- the client's side ---- */

static int run_client(const char *home, const char *const *words)
{
    char program[FS_PATH_MAX];
    const char *argv[8] = {program};
    int status, n = 1;
    pid_t pid = fork();

    if (pid == 0) {
        snprintf(program, sizeof(program), "%s/vneva", programs());
        while (*words)
            argv[n++] = *words++;
        setenv("VNEVA_HOME", home, 1);
        dup2(open("/dev/null", O_WRONLY), STDOUT_FILENO);
        execv(program, (char *const *)argv);
        _exit(127);
    }
    return waitpid(pid, &status, 0) == pid && WIFEXITED(status) ? WEXITSTATUS(status)
                                                                : -1;
}

/* `vneva status` until the pipe's other end closes; then writes its times into it. */
static pid_t start_probe(const struct sim *sim, int *out_fd, int *stop_fd)
{
    static const char *const words[] = {"status", NULL};
    int stop[2], out[2];
    pid_t pid;

    if (pipe(stop) < 0 || pipe(out) < 0)
        die("no pipes", NULL);
    pid = fork();
    if (pid == 0) {
        int64_t *times = calloc(PROBES_MAX, sizeof(*times)), n = 0;
        char byte;

        close(stop[1]);
        fcntl(stop[0], F_SETFL, O_NONBLOCK);
        while (times && n < PROBES_MAX && read(stop[0], &byte, 1) < 0) {
            int64_t begun_ns = clock_mono_ns();

            if (run_client(sim->home, words) != 0)
                _exit(1);
            times[n++] = clock_mono_ns() - begun_ns;
            pause_us(PROBE_EVERY_US);
        }
        for (int64_t i = 0; i < n; i++)
            if (write(out[1], &times[i], sizeof(times[i])) != sizeof(times[i]))
                _exit(1);
        _exit(0);
    }
    close(stop[0]);
    close(out[1]);
    *out_fd = out[0];
    *stop_fd = stop[1];
    return pid;
}

static void write_text(const struct sim *sim, const char *name, const char *text)
{
    char path[FS_PATH_MAX];
    FILE *file;

    snprintf(path, sizeof(path), "%s/%s", sim->home, name);
    file = fopen(path, "w");
    if (!file || fputs(text, file) < 0 || fclose(file) != 0)
        die("cannot write what the job names", NULL);
}

/* The files that it names are there, as the client asks, and nobody reads them. */
static void submit(const struct sim *sim)
{
    char spec[2048], path[FS_PATH_MAX];
    const char *const words[] = {"submit", path, NULL};

    snprintf(spec, sizeof(spec),
             "kind: prepare\nname: scale\nmodel:\n  encoder_seq_length: 256\n  mm_cfg:\n"
             "    vision_encoder: {patch_dim: 16, crop_size: [64, 64]}\n"
             "  tokenizer: {library: sentencepiece, model: %s/t.model}\n"
             "  data: {data_path: %s/a.jsonl, video_folder: %s, output: %s/out,\n"
             "    num_frames: 4, shard_size: 1}\n",
             sim->home, sim->home, sim->home, sim->home);
    snprintf(path, sizeof(path), "%s/scale.yaml", sim->home);
    write_text(sim, "t.model", "");
    write_text(sim, "a.jsonl", "");
    write_text(sim, "scale.yaml", spec);
    if (run_client(sim->home, words) != 0)
        die("vneva submit failed", NULL);
}

/* ---- figures ---- */

static int compare(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

    return (x > y) - (x < y);
}

static double percentile_ms(int64_t *values_ns, int64_t n, int percent)
{
    int64_t at = (n - 1) * percent / 100;

    if (n == 0)
        return 0;
    qsort(values_ns, (size_t)n, sizeof(*values_ns), compare);
    return (double)values_ns[at] / 1e6;
}

static double peak_mb(pid_t pid)
{
    char path[64], line[256];
    long kb = 0;
    FILE *file;

    snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
    file = fopen(path, "r");
    while (file && fgets(line, sizeof(line), file))
        if (strncmp(line, "VmHWM:", 6) == 0)
            kb = strtol(line + 6, NULL, 10);
    if (file)
        fclose(file);
    return (double)kb / 1024;
}

static void report(struct sim *sim, double mb, int64_t *probes_ns, int64_t n_probes)
{
    double seconds = (double)(sim->ended_ns - sim->begun_ns) / 1e9;
    double p50 = percentile_ms(sim->trips_ns, sim->n_trips, 50);
    double p99 = percentile_ms(sim->trips_ns, sim->n_trips, 99);

    printf("%8s %8s %8s %9s %11s %9s %9s %11s %7s %7s\n", "agents", "tasks", "work ms",
           "seconds", "durable/s", "lease p50", "lease p99", "status p99", "probes",
           "MB");
    printf("%8lld %8lld %8lld %9.2f %11.0f %9.2f %9.2f %11.2f %7lld %7.0f\n",
           (long long)sim->options.n_agents, (long long)sim->options.n_tasks,
           (long long)sim->options.work_ms, seconds,
           (double)sim->options.n_tasks / seconds, p50, p99,
           percentile_ms(probes_ns, n_probes, 99), (long long)n_probes, mb);
}

static void run(struct sim *sim)
{
    int64_t next_sweep_ms = 0, *probes_ns;
    int64_t n_probes = 0;
    int out_fd, stop_fd, status;
    pid_t coordinator, probe;
    struct key *keys = make_keys(sim);

    coordinator = start_coordinator(sim);
    probe = start_probe(sim, &out_fd, &stop_fd);
    sim->context = zmq_ctx_new();
    zmq_ctx_set(sim->context, ZMQ_MAX_SOCKETS, (int)sim->options.n_agents + 16);
    for (int64_t i = 0; i < sim->options.n_agents; i++)
        open_agent(sim, i, &keys[i]);
    while (sim->n_registered < sim->options.n_agents)
        turn(sim, &next_sweep_ms);
    submit(sim);
    while (!sim->is_finished)
        turn(sim, &next_sweep_ms);
    close(stop_fd);
    probes_ns = calloc(PROBES_MAX, sizeof(*probes_ns));
    while (probes_ns && n_probes < PROBES_MAX &&
           read(out_fd, &probes_ns[n_probes], sizeof(*probes_ns)) == sizeof(*probes_ns))
        n_probes++;
    if (waitpid(probe, &status, 0) != probe || status != 0)
        die("vneva status failed while the job ran", NULL);
    report(sim, peak_mb(coordinator), probes_ns, n_probes);
    kill(coordinator, SIGKILL);
    waitpid(coordinator, &status, 0);
    free(probes_ns);
    free(keys);
}

static int64_t number(const char *text, int64_t min, int64_t max)
{
    char *end;
    long long value = strtoll(text, &end, 10);

    if (*end || value < min || value > max) {
        fprintf(stderr, "usage: bench_scale [--agents N] [--tasks N] [--work-ms MS]\n");
        exit(2);
    }
    return value;
}

int main(int argc, char **argv)
{
    struct sim sim = {.options = {AGENTS_DEFAULT, TASKS_DEFAULT, 0}, .packed = BUF_INIT};
    struct rlimit files;

    for (int i = 1; i < argc; i += 2) {
        const char *value = i + 1 < argc ? argv[i + 1] : "";

        if (strcmp(argv[i], "--agents") == 0)
            sim.options.n_agents = number(value, 1, AGENTS_MAX);
        else if (strcmp(argv[i], "--tasks") == 0)
            sim.options.n_tasks = number(value, 1, TASKS_MAX);
        else if (strcmp(argv[i], "--work-ms") == 0)
            sim.options.work_ms = number(value, 0, 60000);
        else
            number("?", 0, 0);
    }
    log_init("bench_scale", LOG_WARN);
    programs(); /* before anything starts */
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    strcpy(sim.home, "/tmp/vneva-scale-XXXXXX");
    if (!mkdtemp(sim.home))
        die("no temporary folder", NULL);
    sim.epoll = epoll_create1(0);
    sim.agents = calloc((size_t)sim.options.n_agents, sizeof(*sim.agents));
    sim.trips_ns = calloc((size_t)sim.options.n_tasks + 2, sizeof(*sim.trips_ns));
    if (sim.epoll < 0 || !sim.agents || !sim.trips_ns)
        die("no memory", NULL);
    run(&sim);
    fs_remove_tree(sim.home, NULL);
    return 0;
}
