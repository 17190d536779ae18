/* Preflight with a process for every node and each fault planted for real. */
#define _GNU_SOURCE /* unshare, MAP_ANONYMOUS */
#include "common/base/fs.h"
#include "common/base/json_file.h"
#include "common/net/net.h"
#include "slurm/node/preflight.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define N_NODES 2
#define ENOUGH_MS 30000
#define SHORT_MS 3000
#define REPORT_MAX (1u << 20)

struct result {
    int rc;
    struct err err;
};

struct scene {
    char folder[256], run[300], programs[300],
        data[300]; /* the exchange lies in folder */
    struct preflight_ask ask[N_NODES];
    void (*plant)(struct scene *s, int node); /* in the node's process */
    struct result *results;
    struct json *report;
    struct key key; /* of node 1's way to the coordinator */
    char endpoint[64];
    pid_t server; /* that answers there; 0: none */
    FILE *told;   /* of whom does not reach it */
};

static void touch_program(const char *folder, const char *name)
{
    char path[400];
    FILE *file;

    snprintf(path, sizeof(path), "%s/%s", folder, name);
    file = fopen(path, "w");
    fputs("#!/bin/sh\n", file);
    fclose(file);
    assert_int_equal(chmod(path, 0755), 0);
}

static int setup(void **state)
{
    struct scene *s = calloc(1, sizeof(*s));
    const char *tmp = getenv("TMPDIR");
    static const char *const names[] = {"vneva", "vneva-coordinator", "vneva-worker",
                                        "vneva-rank", "vneva-decode"};

    snprintf(s->folder, sizeof(s->folder), "%s/vneva-flight-XXXXXX", tmp ? tmp : "/tmp");
    assert_non_null(mkdtemp(s->folder));
    snprintf(s->run, sizeof(s->run), "%s/run", s->folder);
    snprintf(s->programs, sizeof(s->programs), "%s/bin", s->folder);
    snprintf(s->data, sizeof(s->data), "%s/data", s->folder);
    assert_int_equal(mkdir(s->data, 0700), 0);
    assert_int_equal(mkdir(s->run, 0700), 0);
    assert_int_equal(mkdir(s->programs, 0700), 0);
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        touch_program(s->programs, names[i]);
    for (int node = 0; node < N_NODES; node++)
        s->ask[node] = (struct preflight_ask){.host = node ? "n2" : "n1",
                                              .run_folder = s->run,
                                              .program_folder = s->programs,
                                              .way = "",
                                              .n_devices = 1,
                                              .timeout_ms = ENOUGH_MS,
                                              .need = {.run_bytes = 1 << 20}};
    s->results = mmap(NULL, N_NODES * sizeof(struct result), PROT_READ | PROT_WRITE,
                      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(s->results != MAP_FAILED);
    *state = s;
    return 0;
}

static int teardown(void **state)
{
    struct scene *s = *state;

    if (s->server) {
        kill(s->server, SIGKILL);
        waitpid(s->server, NULL, 0);
    }
    json_free(s->report);
    fs_remove_tree(s->folder, NULL);
    munmap(s->results, N_NODES * sizeof(struct result));
    key_fini(&s->key);
    free(s);
    return 0;
}

/* ---- nodes ---- */

static void be_node(struct scene *s, int node)
{
    struct result *result = &s->results[node];
    struct exchange *exchange;
    struct json *report = NULL;

    setenv("SLURMD_NODENAME", s->ask[node].host, 1);
    if (s->plant)
        s->plant(s, node);
    result->rc =
        exchange_open_files(&exchange, s->folder, "1", node, N_NODES, &result->err);
    if (result->rc == 0) {
        result->rc = preflight_run(&report, exchange, &s->ask[node], &result->err);
        exchange_close(exchange);
    }
    json_free(report);
    _exit(0);
}

/* Runs the nodes; the report that node 0 has left, if it came to that. */
static void fly(struct scene *s)
{
    pid_t pids[N_NODES];
    int status;

    for (int node = 0; node < N_NODES; node++) {
        pids[node] = fork();
        assert_true(pids[node] >= 0);
        if (pids[node] == 0)
            be_node(s, node);
    }
    for (int node = 0; node < N_NODES; node++) {
        assert_int_equal(waitpid(pids[node], &status, 0), pids[node]);
        if (!WIFSIGNALED(status))
            assert_int_equal(status, 0);
    }
    assert_int_equal(
        json_file_find(&s->report, s->run, "preflight.json", REPORT_MAX, NULL), 0);
}

static const struct json *find(const struct scene *s, const char *host, const char *check)
{
    const struct json *faults = json_get(s->report, "faults");

    for (size_t i = 0; i < json_count(faults); i++) {
        const struct json *fault = json_at(faults, i);

        if (strcmp(json_get_string(fault, "host"), host) == 0 &&
            strcmp(json_get_string(fault, "check"), check) == 0)
            return fault;
    }
    return NULL;
}

/* That both nodes stop for it, and the report says so. */
static void expect(struct scene *s, const char *host, const char *check,
                   const char *cause)
{
    const struct json *fault = find(s, host, check);

    for (int node = 0; node < N_NODES; node++) {
        assert_int_equal(s->results[node].rc, -1);
        if (s->results[node].err.code != ERR_STATE)
            fail_msg("node %d: %s", node, s->results[node].err.text);
    }
    if (!fault)
        fail_msg("no fault of %s on %s; %s", check, host, s->results[0].err.text);
    if (!strstr(json_get_string(fault, "cause"), cause))
        fail_msg("%s", json_get_string(fault, "cause"));
}

static struct json *one_path(const char *path)
{
    struct json *paths = json_new(JSON_ARRAY), *one = json_new(JSON_OBJECT);

    assert_int_equal(json_set(one, "key", json_new_string("video_folder"), NULL), 0);
    assert_int_equal(json_set(one, "path", json_new_string(path), NULL), 0);
    assert_int_equal(json_append(paths, one, NULL), 0);
    return paths;
}

/* ---- tests ---- */

static void nodes_that_are_well_may_start(void **state)
{
    struct scene *s = *state;
    struct json *paths = one_path(s->programs);
    const struct json *second;

    s->ask[0].paths = paths;
    fly(s);
    for (int node = 0; node < N_NODES; node++)
        if (s->results[node].rc < 0)
            fail_msg("node %d: %s", node, s->results[node].err.text);
    assert_int_equal(json_count(json_get(s->report, "faults")), 0);
    assert_int_equal(json_count(json_get(s->report, "nodes")), N_NODES);
    second = json_at(json_get(s->report, "nodes"), 1);
    assert_string_equal(json_get_string(second, "host"), "n2");
    assert_true(json_get_int(second, "memory_bytes", 0) > 0);
    assert_int_equal(json_count(json_get(second, "paths")), 1);
    /* one clock: the bounds hold the truth, which is 0 */
    assert_true(json_double(json_at(json_get(second, "clock_ms"), 0), 1) <= 0);
    assert_true(json_double(json_at(json_get(second, "clock_ms"), 1), -1) >= 0);
    json_free(paths);
}

static void plant_version(struct scene *s, int node)
{
    (void)s;
    if (node == 1)
        setenv("VNEVA_FAULT", "preflight.version:fail,preflight.clock:fail", 1);
}

static void another_version_and_another_time_are_told_together(void **state)
{
    struct scene *s = *state;

    s->plant = plant_version;
    fly(s);
    expect(s, "n2", "version", "runs vneva 0.0.0-other, but n1 runs " VNEVA_VERSION);
    expect(s, "n2", "clock", "ahead of that of n1");
    assert_non_null(
        strstr(s->results[1].err.text, "2 faults, the first: n2: version: runs vneva"));
}

/* Another, empty folder under that name on node 1, as one that every node has for itself. */
static void hide(const struct scene *s, int node, const char *folder)
{
    char other[300];

    if (node == 0)
        return;
    snprintf(other, sizeof(other), "%s/other", s->folder);
    mkdir(other, 0700);
    if (unshare(CLONE_NEWNS) < 0 ||
        mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
        mount(other, folder, NULL, MS_BIND, NULL) < 0)
        _exit(1);
}

static void plant_unshared(struct scene *s, int node)
{
    hide(s, node, s->run);
}

static void plant_unmounted(struct scene *s, int node)
{
    hide(s, node, s->data);
}

static bool may_mount(void)
{
    int status;
    pid_t pid = fork();

    if (pid == 0)
        _exit(unshare(CLONE_NEWNS) < 0 ||
              mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0);
    return waitpid(pid, &status, 0) == pid && status == 0;
}

static void a_run_folder_that_is_not_shared_is_found(void **state)
{
    struct scene *s = *state;

    if (!may_mount()) {
        print_message("SKIP: this user may not mount folders\n");
        skip();
    }
    s->plant = plant_unshared;
    fly(s);
    expect(s, "n2", "run folder", "is not shared: what n1 wrote there cannot be read");
    expect(s, "n1", "run folder", "cannot read what n2 wrote");
}

/* The folder is there, and what is to be mounted on it is not. */
static void data_that_are_not_mounted_are_found(void **state)
{
    struct scene *s = *state;
    struct json *paths = one_path(s->data);

    if (!may_mount()) {
        print_message("SKIP: this user may not mount folders\n");
        skip();
    }
    touch_program(s->data, "clip.mp4");
    s->plant = plant_unmounted;
    s->ask[0].paths = paths;
    fly(s);
    expect(s, "n2", "paths", "is empty here: it has 0 entries here and 1 on n1");
    assert_null(find(s, "n1", "paths"));
    json_free(paths);
}

static void what_is_made_where_others_do_not_see_it_is_found(void **state)
{
    struct scene *s = *state;
    struct json *paths;
    char made[340];

    if (!may_mount()) {
        print_message("SKIP: this user may not mount folders\n");
        skip();
    }
    snprintf(made, sizeof(made), "%s/out/of/this", s->data);
    paths = one_path(made);
    assert_int_equal(json_set(json_at(paths, 0), "is_made", json_new_bool(true), NULL),
                     0);
    s->plant = plant_unmounted;
    s->ask[0].paths = paths;
    fly(s);
    expect(s, "n2", "paths", "is not shared: what n1 wrote there cannot be read here");
    assert_null(find(s, "n1", "paths"));
    assert_int_equal(rmdir(s->data), 0); /* nothing is left in it */
    json_free(paths);
}

static void plant_full(struct scene *s, int node)
{
    char full[300];

    if (node == 0)
        return;
    snprintf(full, sizeof(full), "%s/tmp", s->folder);
    mkdir(full, 0700);
    if (unshare(CLONE_NEWNS) < 0 ||
        mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
        mount("none", full, "tmpfs", 0, "size=1m") < 0)
        _exit(1);
    setenv("TMPDIR", full, 1);
}

static void a_disk_that_is_full_is_found(void **state)
{
    struct scene *s = *state;

    if (!may_mount()) {
        print_message("SKIP: this user may not mount folders\n");
        skip();
    }
    s->plant = plant_full;
    for (int node = 0; node < N_NODES; node++)
        s->ask[node].need.tmp_bytes = 2 << 20;
    fly(s);
    expect(s, "n2", "disk", "has 1 MB free, 2 MB are wanted");
    assert_null(find(s, "n1", "disk"));
}

static void a_path_that_is_nowhere_is_found_on_every_node(void **state)
{
    struct scene *s = *state;
    struct json *paths = one_path("/nowhere/videos");

    s->ask[0].paths = paths;
    fly(s);
    expect(s, "n1", "paths", "video_folder: '/nowhere/videos': cannot see it: No such");
    expect(s, "n2", "paths", "video_folder: '/nowhere/videos': cannot see it: No such");
    json_free(paths);
}

static void devices_that_are_not_there_are_found(void **state)
{
    struct scene *s = *state;
    char path[4096];

    snprintf(path, sizeof(path), "%s:%s", s->programs, getenv("PATH"));
    setenv("PATH", path, 1);
    touch_program(s->programs, "nvidia-smi"); /* lists none */
    s->ask[0].n_devices = 100000;
    s->ask[1].wants_gpus = true;
    fly(s);
    expect(s, "n1", "devices", "100000 devices are asked for, but only ");
    expect(s, "n2", "devices", "1 GPUs are asked for, 0 can be seen: nvidia-smi lists");
}

/* A program of this machine with a library renamed within it: its name is a text. */
static void spoil_library(const char *folder, const char *name)
{
    static const char from[] = "libc.so.6", to[] = "libX.so.6";
    struct buf bytes = BUF_INIT;
    char path[400];

    assert_int_equal(fs_read_file(&bytes, "/bin/sh", 64 << 20, NULL), 0);
    for (size_t i = 0; i + sizeof(from) <= bytes.n_bytes; i++)
        if (memcmp(bytes.data + i, from, sizeof(from)) == 0)
            memcpy(bytes.data + i, to, sizeof(to));
    snprintf(path, sizeof(path), "%s/%s", folder, name);
    assert_int_equal(fs_write_file_atomic(path, bytes.data, bytes.n_bytes, NULL), 0);
    assert_int_equal(chmod(path, 0755), 0);
    buf_fini(&bytes);
}

static void programs_that_are_missing_or_do_not_load_are_found(void **state)
{
    struct scene *s = *state;
    char empty[300];

    snprintf(empty, sizeof(empty), "%s/none", s->folder);
    s->ask[0].program_folder = empty;
    spoil_library(s->programs, "vneva-rank");
    fly(s);
    expect(s, "n1", "programs", "vneva-coordinator': No such file");
    expect(s, "n2", "programs", "vneva-rank does not find libX.so.6");
}

static void plant_few_files(struct scene *s, int node)
{
    const struct rlimit limit = {100, 100};

    (void)s;
    if (node == 1)
        setrlimit(RLIMIT_NOFILE, &limit);
}

static void a_limit_of_open_files_is_found(void **state)
{
    struct scene *s = *state;

    s->plant = plant_few_files;
    s->ask[0].need.open_files = 101;
    fly(s);
    expect(s, "n2", "open files", "only 100 files, 101 are wanted");
}

/* A port that nobody listens at. */
static void close_port(struct scene *s)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof(address);
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &n), 0);
    close(fd);
    snprintf(s->endpoint, sizeof(s->endpoint), "tcp://127.0.0.1:%d",
             ntohs(address.sin_port));
}

static void a_closed_port_is_found(void **state)
{
    struct scene *s = *state;

    close_port(s);
    assert_int_equal(key_create(&s->key, "n2", KEY_WORKER, NULL), 0);
    s->ask[0].endpoint = s->endpoint; /* its name in the report */
    s->ask[0].key = &s->key;
    s->ask[1].endpoint = s->endpoint;
    s->ask[1].key = &s->key;
    fly(s);
    expect(s, "n2", "coordinator", "cannot connect: Connection refused");
}

static void plant_death(struct scene *s, int node)
{
    (void)s;
    if (node == 1)
        setenv("VNEVA_FAULT", "preflight.gather:kill", 1);
}

static void a_node_that_dies_in_it_is_named(void **state)
{
    struct scene *s = *state;

    s->plant = plant_death;
    s->ask[0].timeout_ms = SHORT_MS;
    fly(s);
    assert_int_equal(s->results[0].err.code, ERR_TIMEOUT);
    assert_non_null(strstr(s->results[0].err.text, "missing: node 1 (n2)"));
}

/* ---- the way to a coordinator that was started meanwhile ---- */

static void serve(struct net_server *server)
{
    struct net_peer from;
    struct wire message;
    struct err err;

    while (net_server_receive(server, &from, &message, -1, &err) >= 0) {
        struct wire answer = {.type = MSG_PONG, .reply_to = message.sequence};

        if (message.type != MSG_PING)
            continue;
        answer.pong.nonce = message.ping.nonce;
        answer.pong.version = VNEVA_VERSION;
        net_server_send(server, &from, &answer, &err);
        wire_fini(&message);
    }
}

/* A process that answers PING at s->endpoint to the keys of its home. */
static void start_server(struct scene *s, struct key *worker)
{
    struct key coordinator;
    struct authorized one = {.role = KEY_WORKER};
    int ready[2];
    char home[300];

    snprintf(home, sizeof(home), "%s/home", s->folder);
    assert_int_equal(keys_init(home, &coordinator, NULL, NULL), 0);
    assert_int_equal(key_create(worker, "n1", KEY_WORKER, NULL), 0);
    memcpy(worker->coordinator, coordinator.public_key, sizeof(worker->coordinator));
    snprintf(one.name, sizeof(one.name), "n1");
    memcpy(one.public_key, worker->public_key, sizeof(one.public_key));
    assert_int_equal(keys_authorize(home, &one, 1, NULL), 0);
    key_fini(&coordinator);
    assert_int_equal(pipe(ready), 0);
    s->server = fork();
    assert_true(s->server >= 0);
    if (s->server == 0) {
        struct net_server *server;
        char socket[340];
        struct err err;
        int null = open("/dev/null", O_WRONLY);

        snprintf(socket, sizeof(socket), "ipc://%s/c.sock", home);
        dup2(null, 2); /* it logs those whom it does not know */
        if (net_server_open(&server, socket, &err) < 0 ||
            net_server_listen(server, "tcp://127.0.0.1:*", home, &err) < 0)
            _exit(1);
        dprintf(ready[1], "%s", net_server_endpoint(server));
        close(ready[1]);
        serve(server);
        _exit(0);
    }
    close(ready[1]);
    memset(s->endpoint, 0, sizeof(s->endpoint));
    assert_true(read(ready[0], s->endpoint, sizeof(s->endpoint) - 1) > 0);
    close(ready[0]);
}

static void be_reaching(struct scene *s, int node, const struct key *key)
{
    struct result *result = &s->results[node];
    struct exchange *exchange;

    setenv("SLURMD_NODENAME", s->ask[node].host, 1);
    result->rc =
        exchange_open_files(&exchange, s->folder, "2", node, N_NODES, &result->err);
    if (result->rc == 0) {
        result->rc = preflight_reach(exchange, s->ask[node].host, s->endpoint, key,
                                     SHORT_MS, s->told, &result->err);
        exchange_close(exchange);
    }
    fflush(s->told);
    _exit(0);
}

static void reach(struct scene *s, const struct key *first, const struct key *second)
{
    for (int node = 0; node < N_NODES; node++)
        if (fork() == 0)
            be_reaching(s, node, node ? second : first);
    for (int node = 0; node < N_NODES; node++)
        assert_true(waitpid(-1, NULL, 0) > 0);
}

static void a_key_that_is_not_known_is_found(void **state)
{
    struct scene *s = *state;
    struct key known, unknown;
    char told[1024] = "";

    s->told = tmpfile();
    assert_non_null(s->told);
    start_server(s, &known);
    reach(s, &known, &known);
    for (int node = 0; node < N_NODES; node++)
        if (s->results[node].rc < 0)
            fail_msg("%s", s->results[node].err.text);
    assert_int_equal(key_create(&unknown, "n2", KEY_WORKER, NULL), 0);
    memcpy(unknown.coordinator, known.coordinator, sizeof(unknown.coordinator));
    reach(s, &known, &unknown);
    for (int node = 0; node < N_NODES; node++) {
        assert_int_equal(s->results[node].err.code, ERR_STATE);
        assert_non_null(strstr(s->results[node].err.text, "1 of 2 nodes do not reach"));
        /* how soon the client is told of the refusal is not ours to say */
        if (!strstr(s->results[node].err.text, "; n2: refused at 'tcp://") &&
            !strstr(s->results[node].err.text, "; n2: it accepts connections but "))
            fail_msg("%s", s->results[node].err.text);
    }
    rewind(s->told);
    assert_true(fread(told, 1, sizeof(told) - 1, s->told) > 0);
    fclose(s->told);
    if (strncmp(told, "preflight: fault: n2: coordinator: does not reach tcp://", 56) !=
            0 ||
        !strstr(told, "mend it: let this node look up"))
        fail_msg("%s", told);
    key_fini(&known);
    key_fini(&unknown);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(nodes_that_are_well_may_start),
        TEST(another_version_and_another_time_are_told_together),
        TEST(a_run_folder_that_is_not_shared_is_found),
        TEST(data_that_are_not_mounted_are_found),
        TEST(what_is_made_where_others_do_not_see_it_is_found),
        TEST(a_disk_that_is_full_is_found),
        TEST(a_path_that_is_nowhere_is_found_on_every_node),
        TEST(devices_that_are_not_there_are_found),
        TEST(programs_that_are_missing_or_do_not_load_are_found),
        TEST(a_limit_of_open_files_is_found),
        TEST(a_closed_port_is_found),
        TEST(a_node_that_dies_in_it_is_named),
        TEST(a_key_that_is_not_known_is_found),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
