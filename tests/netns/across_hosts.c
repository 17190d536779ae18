/* Jobs over several hosts (network namespaces, lan.h) with keys: a link that goes down and
 * comes back, a host that vanishes and comes back, a bad network. Whatever happens, every
 * task is done once, training goes on within a minute, its samples and weights are those of
 * the run that nobody disturbed, and what comes too late is refused.
 */
#include "common/base/clock.h"
#include "common/base/fs.h"
#include "tests/integration/worker_data.h"
#include "tests/integration/worker_home.h"
#include "tests/netns/lan.h"

#include <dirent.h>
#include <inttypes.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define N_HOSTS 4
#define HEAD 0 /* the coordinator's; the others have an agent of one device each */
#define PORT 7777
#define LOOK_MS 20
#define OUTAGE_MS 20000
#define BLINK_MS 2000
#define DEAF_MS 13000 /* a connection is taken for broken after 10 s of silence */
#define LOST_AFTER_MS "6000"
#define SETTLE_MS 500 /* for what was on its way */
#define TRIES_MAX 5
#define PATIENT_MS "60000" /* the same, of a coordinator that gives nobody up */
#define RESUME_MS 60000    /* training goes on within, after a loss */
#define LATENCY_MS 200     /* one way */
#define LOSS_PER_MILLE 20
#define EXIT_SKIPPED 77
#define STEPS_BETWEEN 4 /* two checkpoints */
#define MANY_TASKS "model.data.shard_size=1"
#define FEW_TASKS "model.data.shard_size=16"

struct across {
    struct home home;
    struct lan *lan;
    pid_t agents[N_HOSTS];
    char dataset[128];
};

static const char *const training[] = {
    "trainer.max_steps=80",
    "trainer.devices=2",
    "model.tensor_model_parallel_size=2",
    "trainer.val_check_interval=1000",
    "exp_manager.checkpoint_callback_params.save_top_k=100",
    NULL};
static const char *const short_training[] = {"trainer.max_steps=2",
                                             "trainer.devices=2",
                                             "model.tensor_model_parallel_size=2",
                                             "model.global_batch_size=4",
                                             "trainer.val_check_interval=1000",
                                             NULL};

/* ---- hosts ---- */

static void log_path(const struct across *across, char out[FS_PATH_MAX], int host)
{
    assert_int_equal(fs_path(out, NULL, "%s/host-%d.log", across->home.folder, host), 0);
}

static pid_t start(struct across *across, int host, char **argv)
{
    char program[FS_PATH_MAX], log[FS_PATH_MAX];
    struct err err;
    pid_t pid;

    log_path(across, log, host);
    assert_int_equal(fs_path(program, &err, "%s/%s", getenv("VNEVA_BIN"), argv[0]), 0);
    argv[0] = program;
    if (lan_start(across->lan, host, log, argv, &pid, &err) < 0)
        fail_msg("%s", err.text);
    return pid;
}

static void start_coordinator(struct across *across, char *lost_after_ms)
{
    char endpoint[64], address[16];
    char *argv[] = {"vneva-coordinator",
                    "--home",
                    across->home.folder,
                    "--listen",
                    endpoint,
                    "--heartbeat-ms",
                    "500",
                    "--lost-after-ms",
                    lost_after_ms,
                    "--backoff-ms",
                    "100",
                    NULL};

    lan_address(address, HEAD);
    snprintf(endpoint, sizeof(endpoint), "tcp://%s:%d", address, PORT);
    across->home.coordinator = start(across, HEAD, argv);
}

/* The file that lets the agent of a host in, and lets it know the coordinator. */
static void make_key(struct across *across, int host)
{
    char path[FS_PATH_MAX], name[16], address[16];
    struct key coordinator, key;
    struct authorized line = {.role = KEY_WORKER};
    struct err err;

    snprintf(name, sizeof(name), "host-%d", host);
    lan_address(address, HEAD);
    if (keys_init(across->home.folder, &coordinator, NULL, &err) < 0 ||
        key_create(&key, name, KEY_WORKER, &err) < 0 ||
        fs_path(path, &err, "%s/%s.key", across->home.folder, name) < 0)
        fail_msg("%s", err.text);
    snprintf(line.name, sizeof(line.name), "%s", name);
    snprintf(line.public_key, sizeof(line.public_key), "%s", key.public_key);
    snprintf(key.coordinator, sizeof(key.coordinator), "%s", coordinator.public_key);
    snprintf(key.endpoint, sizeof(key.endpoint), "tcp://%s:%d", address, PORT);
    if (key_write(&key, path, &err) < 0 ||
        keys_authorize(across->home.folder, &line, 1, &err) < 0)
        fail_msg("%s", err.text);
}

static void start_agent(struct across *across, int host)
{
    char path[FS_PATH_MAX], name[16];
    char *argv[] = {"vneva-worker", "--key", path, "--host", name, NULL};

    snprintf(name, sizeof(name), "host-%d", host);
    assert_int_equal(fs_path(path, NULL, "%s/%s.key", across->home.folder, name), 0);
    across->agents[host] = start(across, host, argv);
}

static void set_link(struct across *across, int host, bool is_up)
{
    struct err err;

    if (lan_set_link(across->lan, host, is_up, &err) < 0)
        fail_msg("%s", err.text);
}

/* ---- asking ---- */

static void wait_for(struct across *across, const char *expected, const char *format, ...)
{
    int64_t end_ms = clock_mono_ms() + HOME_DEADLINE_MS;
    char sql[1024], text[512] = "";
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(sql, sizeof(sql), format, arguments);
    va_end(arguments);
    while (clock_mono_ms() < end_ms) {
        home_ask(&across->home, text, sizeof(text), sql);
        if (strcmp(text, expected) == 0)
            return;
        poll(NULL, 0, LOOK_MS);
    }
    fail_msg("%s: %s, not %s; look at the logs in %s", sql, text, expected,
             across->home.folder);
}

static int64_t ask_int(struct across *across, const char *format, ...)
{
    char sql[1024], text[64];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(sql, sizeof(sql), format, arguments);
    va_end(arguments);
    home_ask(&across->home, text, sizeof(text), sql);
    return strtoll(text, NULL, 10);
}

static void wait_until_agents(struct across *across, const char *n)
{
    wait_for(across, n, "select count(*) from workers where state = 'up'");
}

static void wait_for_step(struct across *across, int64_t job, int64_t step)
{
    wait_for(across, "1",
             "select count(*) from jobs where id = %" PRId64
             " and state = 'running' and done >= %" PRId64,
             job, step);
}

static int host_of(struct across *across, int64_t job, int64_t attempt, int rank)
{
    return (int)ask_int(
        across,
        "select replace(host, 'host-', '') from ranks where job = %" PRId64
        " and attempt = %" PRId64 " and rank = %d",
        job, attempt, rank);
}

/* ---- jobs ---- */

static int64_t submit_training(struct across *across, const char *const *keys)
{
    struct buf spec = BUF_INIT;
    int64_t job;

    data_spec_train(&spec, across->home.folder, across->dataset, keys);
    job = home_submit(&across->home, "pretrain", buf_str(&spec));
    buf_fini(&spec);
    return job;
}

/* Of as many tasks as `shard` says; its dataset is `name`. */
static int64_t submit_prepare(struct across *across, const char *name, const char *shard)
{
    const char *keys[] = {shard, NULL};
    struct buf spec = BUF_INIT;
    char output[128];
    int64_t job;

    snprintf(output, sizeof(output), "%s/%s", across->home.folder, name);
    data_spec_prepare(&spec, across->home.folder, output, keys);
    job = home_submit(&across->home, "prepare", buf_str(&spec));
    buf_fini(&spec);
    return job;
}

/* ---- comparing ---- */

static void expect_same_file(const char *a, const char *b)
{
    struct buf one = BUF_INIT, other = BUF_INIT;
    struct err err;

    if (fs_read_file(&one, a, 1 << 26, &err) < 0 ||
        fs_read_file(&other, b, 1 << 26, &err) < 0)
        fail_msg("%s", err.text);
    assert_true(one.n_bytes > 0);
    if (one.n_bytes != other.n_bytes ||
        memcmp(buf_str(&one), buf_str(&other), one.n_bytes) != 0)
        fail_msg("'%s' and '%s' differ", a, b);
    buf_fini(&one);
    buf_fini(&other);
}

/* Every task is done, and each sample or step is in just one of them. */
static void expect_nothing_lost_or_doubled(struct across *across, int64_t job)
{
    wait_for(across, "0",
             "select count(*) from tasks where job = %" PRId64 " and state != 'done'",
             job);
    assert_int_equal(
        ask_int(across,
                "select count(*) from tasks a, tasks b where a.job = %" PRId64
                " and b.job = a.job and a.phase = 'work' and b.phase = 'work' and"
                " a.id < b.id and a.first < b.first + b.count and"
                " b.first < a.first + a.count",
                job),
        0);
    assert_int_equal(ask_int(across,
                             "select sum(count) from tasks where phase = 'work' and"
                             " job = %" PRId64,
                             job),
                     ask_int(across, "select total from jobs where id = %" PRId64, job));
    assert_int_equal(
        ask_int(across,
                "select count(*) - count(distinct step) from checkpoints where job = "
                "%" PRId64,
                job),
        0);
}

static void expect_same_run(struct across *across, int64_t job, int64_t undisturbed)
{
    char paths[2][256], a[512], b[512];

    expect_nothing_lost_or_doubled(across, job);
    home_last_checkpoint(&across->home, undisturbed, paths[0], sizeof(paths[0]));
    home_last_checkpoint(&across->home, job, paths[1], sizeof(paths[1]));
    for (int r = 0; r < 2; r++) {
        snprintf(a, sizeof(a), "%s/tensors-%04d.safetensors", paths[0], r);
        snprintf(b, sizeof(b), "%s/tensors-%04d.safetensors", paths[1], r);
        expect_same_file(a, b);
    }
    snprintf(a, sizeof(a), "%s/jobs/%" PRId64 "/samples.log", across->home.folder,
             undisturbed);
    snprintf(b, sizeof(b), "%s/jobs/%" PRId64 "/samples.log", across->home.folder, job);
    expect_same_file(a, b);
}

static void expect_same_dataset(struct across *across, int64_t job, int64_t undisturbed)
{
    expect_nothing_lost_or_doubled(across, job);
    wait_for(across, "1",
             "select count(distinct n_samples || ' ' || fingerprint) from datasets where"
             " job in (%" PRId64 ", %" PRId64 ")",
             job, undisturbed);
}

/* From the loss to the first checkpoint of the attempt that goes on. */
static void expect_resumed(struct across *across, int64_t job, int64_t lost_ms)
{
    int64_t took_ms;

    wait_for(across, "1",
             "select count(*) > 0 from events where job = %" PRId64
             " and kind = 'task' and text like '%% is done, attempt 2'",
             job);
    took_ms = ask_int(across,
                      "select min(time_ms) from events where job = %" PRId64
                      " and kind = 'task' and text like '%% is done, attempt 2'",
                      job) -
              lost_ms;
    print_message("training went on %" PRId64 " ms after the loss\n", took_ms);
    assert_in_range(took_ms, 0, RESUME_MS);
}

/* ---- the tests ---- */

static int64_t undisturbed(struct across *across, const char *const *keys)
{
    int64_t job = submit_training(across, keys);

    home_wait_done(&across->home, job);
    assert_int_equal(ask_int(across, "select attempt from jobs where id = %" PRId64, job),
                     1);
    return job;
}

/* Job 1 prepares the dataset of all, job 2 is what the others are compared with. */
static void jobs_use_devices_of_several_hosts(void **state)
{
    struct across *across = *state;

    assert_int_equal(submit_prepare(across, "dataset", MANY_TASKS), 1);
    home_wait_done(&across->home, 1);
    expect_nothing_lost_or_doubled(across, 1);
    assert_true(ask_int(across, "select count(distinct host) from ranks where job = 1") >
                1);
    assert_int_equal(undisturbed(across, training), 2);
    assert_int_equal(
        ask_int(across, "select count(distinct host) from ranks where job = 2"), 2);
    expect_nothing_lost_or_doubled(across, 2);
}

/* Shorter than the agent is given up for. */
static void link_that_blinks_costs_no_attempt(void **state)
{
    struct across *across = *state;
    int64_t job = submit_training(across, training);

    wait_for_step(across, job, 2);
    set_link(across, host_of(across, job, 1, 1), false);
    poll(NULL, 0, BLINK_MS);
    set_link(across, host_of(across, job, 1, 1), true);
    home_wait_done(&across->home, job);
    assert_int_equal(ask_int(across, "select attempt from jobs where id = %" PRId64, job),
                     1);
    expect_same_run(across, job, 2);
}

static void set_deaf(struct across *across, bool is_deaf)
{
    for (int host = HEAD + 1; host < N_HOSTS; host++)
        lan_set_wire(across->lan, host, true, !is_deaf);
}

/* A batch job in the middle of its tasks when all agents have become deaf: whoever reports
 * a task then does not hear of the next. Tried again with one that was done too soon. */
static int64_t prepare_while_deaf(struct across *across)
{
    for (int i = 0; i < TRIES_MAX; i++) {
        char name[16];
        int64_t job;

        snprintf(name, sizeof(name), "deaf-%d", i);
        job = submit_prepare(across, name, MANY_TASKS);
        wait_for(across, "1",
                 "select count(*) > 0 from tasks where job = %" PRId64
                 " and phase = 'work' and state = 'done'",
                 job);
        set_deaf(across, true);
        poll(NULL, 0, SETTLE_MS);
        if (ask_int(across, "select state = 'running' from jobs where id = %" PRId64,
                    job))
            return job;
        set_deaf(across, false);
        home_wait_done(&across->home, job);
    }
    fail_msg("no batch job lasts long enough");
    return 0;
}

/* What the coordinator said on a connection that broke did not arrive, and nobody was given
 * up: the agent has to ask for it. */
static void lease_lost_with_its_connection_is_given_again(void **state)
{
    struct across *across = *state;
    int64_t job;

    home_kill(&across->home.coordinator);
    start_coordinator(across, PATIENT_MS);
    wait_until_agents(across, "3");
    job = prepare_while_deaf(across);
    poll(NULL, 0, DEAF_MS);
    set_deaf(across, false);
    home_wait_done(&across->home, job);
    expect_same_dataset(across, job, 1);
    assert_int_equal(ask_int(across,
                             "select count(*) from attempts where cause = 'lost' and job"
                             " = %" PRId64,
                             job),
                     0);
    home_kill(&across->home.coordinator);
    start_coordinator(across, LOST_AFTER_MS);
    wait_until_agents(across, "3");
}

/* One of two hosts that train, and the one that prepares, lose their link for 20 s: the
 * other host takes the batch job over, and training has to wait for its second host. */
static void link_that_comes_back_after_20_s_loses_nothing(void **state)
{
    struct across *across = *state;
    int64_t job = submit_training(across, training), batch, lost_ms;
    int training_host, batch_host;

    wait_for_step(across, job, STEPS_BETWEEN + 1);
    batch = submit_prepare(across, "again", MANY_TASKS);
    wait_for(across, "1",
             "select count(*) > 0 from tasks where job = %" PRId64
             " and phase = 'work' and state = 'done'",
             batch);
    training_host = host_of(across, job, 1, 1);
    batch_host = host_of(across, batch, 1, 0);
    assert_int_not_equal(training_host, batch_host);
    lost_ms = clock_wall_ms();
    set_link(across, training_host, false);
    set_link(across, batch_host, false);
    poll(NULL, 0, OUTAGE_MS);
    set_link(across, training_host, true);
    set_link(across, batch_host, true);
    home_wait_done(&across->home, job);
    home_wait_done(&across->home, batch);
    expect_resumed(across, job, lost_ms);
    expect_same_run(across, job, 2);
    expect_same_dataset(across, batch, 1);
    wait_until_agents(across, "3");
}

/* How far checkpoints of an attempt have come in the folder, registered or not. */
static int64_t newest_in_folder(struct across *across, int64_t job, const char *attempt)
{
    char path[FS_PATH_MAX], *end;
    int64_t newest = 0;
    struct dirent *entry;
    DIR *folder;

    assert_int_equal(
        fs_path(path, NULL, "%s/jobs/%" PRId64 "/checkpoints", across->home.folder, job),
        0);
    folder = opendir(path);
    while (folder && (entry = readdir(folder))) {
        int64_t step = strncmp(entry->d_name, "step-", 5) == 0
                           ? strtoll(entry->d_name + 5, &end, 10)
                           : 0;

        if (step > newest && strcmp(end, attempt) == 0)
            newest = step;
    }
    if (folder)
        closedir(folder);
    return newest;
}

/* The agent of rank 0's host no longer hears its ranks, which go on until two checkpoints
 * more are written; then all of the host stands still. So it holds reports that come late. */
static void freeze_with_reports(struct across *across, int64_t job, int host)
{
    int64_t end_ms = clock_mono_ms() + HOME_DEADLINE_MS, registered;

    assert_int_equal(kill(across->agents[host], SIGSTOP), 0);
    registered = newest_in_folder(across, job, "-a1");
    while (newest_in_folder(across, job, "-a1") < registered + 2 * STEPS_BETWEEN) {
        assert_true(clock_mono_ms() < end_ms);
        poll(NULL, 0, 1);
    }
    lan_set_wire(across->lan, host, false, false);
    assert_true(lan_signal(across->lan, host, SIGSTOP) >= 2);
}

/* Until the agent alone is left there: it has killed the ranks nobody wants. */
static void wait_until_idle(struct across *across, int host)
{
    int64_t end_ms = clock_mono_ms() + HOME_DEADLINE_MS;

    while (lan_signal(across->lan, host, 0) != 1) {
        assert_true(clock_mono_ms() < end_ms);
        poll(NULL, 0, LOOK_MS);
    }
}

static void host_that_vanishes_is_replaced_and_not_obeyed_when_it_is_back(void **state)
{
    struct across *across = *state;
    int64_t job = submit_training(across, training), lost_ms;
    int host;

    wait_for_step(across, job, STEPS_BETWEEN + 1);
    host = host_of(across, job, 1, 0);
    freeze_with_reports(across, job, host);
    lost_ms = clock_wall_ms();
    expect_resumed(across, job, lost_ms);
    assert_int_not_equal(host_of(across, job, 2, 0), host);
    assert_int_not_equal(host_of(across, job, 2, 1), host);
    lan_signal(across->lan, host, SIGCONT);
    lan_set_wire(across->lan, host, true, true);
    home_wait_done(&across->home, job);
    wait_for(across, "1",
             "select count(*) > 0 from events where kind = 'stale' and job = %" PRId64,
             job);
    wait_until_agents(across, "3");
    wait_until_idle(across, host);
    expect_same_run(across, job, 2);
}

static pid_t start_head_agent(struct across *across, char *address)
{
    char *argv[] = {"vneva-worker", "--home", across->home.folder,
                    "--host",       "host-0", address ? "--address" : NULL,
                    address,        NULL};

    return start(across, HEAD, argv);
}

/* An agent beside the coordinator reaches it by a socket file, and its ranks have to be
 * reached by those of other hosts all the same. */
static void ranks_beside_the_coordinator_are_reached_from_other_hosts(void **state)
{
    struct across *across = *state;
    char reason[1024];
    int64_t job;
    pid_t agent;

    for (int host = HEAD + 2; host < N_HOSTS; host++)
        home_kill(&across->agents[host]);
    agent = start_head_agent(across, "lo");
    wait_until_agents(across, "2");
    job = submit_training(across, short_training);
    home_wait_failed(&across->home, job, reason, sizeof(reason));
    if (!strstr(reason, "ranks on host 'host-0' listen at 'tcp://127.0.0.1:") ||
        !strstr(reason, "start the agent of the former with --address"))
        fail_msg("%s", reason);
    home_kill(&agent);
    wait_until_agents(across, "1");
    agent = start_head_agent(across, NULL);
    wait_until_agents(across, "2");
    undisturbed(across, short_training);
    home_kill(&agent);
    for (int host = HEAD + 2; host < N_HOSTS; host++)
        start_agent(across, host);
    wait_until_agents(across, "3");
}

/* An agent joins, a dataset is made and two ranks train, all of it in bad weather. */
static void slow_and_lossy_network_loses_nothing(void **state)
{
    struct across *across = *state;
    int64_t fair = undisturbed(across, short_training), fair_batch, batch, job;
    int64_t n_lost = lan_n_lost(across->lan);

    fair_batch = submit_prepare(across, "fair", FEW_TASKS);
    home_wait_done(&across->home, fair_batch);
    home_kill(&across->agents[1]);
    wait_until_agents(across, "2");
    lan_set_weather(across->lan, LATENCY_MS, LOSS_PER_MILLE);
    start_agent(across, 1);
    wait_until_agents(across, "3");
    job = submit_training(across, short_training);
    batch = submit_prepare(across, "slow", FEW_TASKS);
    home_wait_done(&across->home, batch);
    home_wait_done(&across->home, job);
    lan_set_weather(across->lan, 0, 0);
    n_lost = lan_n_lost(across->lan) - n_lost;
    print_message("%" PRId64 " frames were lost\n", n_lost);
    assert_true(n_lost > 0);
    expect_same_dataset(across, batch, fair_batch);
    expect_same_run(across, job, fair);
    assert_int_equal(ask_int(across,
                             "select count(*) from events where kind = 'stale' and job = "
                             "%" PRId64,
                             job),
                     0);
}

/* ---- the network ---- */

static struct across the_hosts; /* of all tests, one after another */

static int set_up(void **state)
{
    struct across *across = &the_hosts;
    struct home *home = &across->home;
    struct err err;

    strcpy(home->folder, "/tmp/vneva-hosts-XXXXXX");
    assert_non_null(mkdtemp(home->folder));
    snprintf(home->endpoint, sizeof(home->endpoint), "ipc://%s/coordinator.sock",
             home->folder);
    snprintf(across->dataset, sizeof(across->dataset), "%s/dataset", home->folder);
    data_make(home->folder);
    for (int host = HEAD + 1; host < N_HOSTS; host++)
        make_key(across, host);
    start_coordinator(across, LOST_AFTER_MS);
    if (net_client_open(&home->client, home->endpoint, NULL, &err) < 0)
        fail_msg("%s", err.text);
    for (int host = HEAD + 1; host < N_HOSTS; host++)
        start_agent(across, host);
    wait_until_agents(across, "3");
    *state = across;
    return 0;
}

static int tear_down(void **state)
{
    struct across *across = *state;

    for (int host = 0; host < N_HOSTS; host++)
        lan_signal(across->lan, host, SIGKILL);
    while (waitpid(-1, NULL, 0) > 0)
        ;
    net_client_close(across->home.client);
    if (!getenv("VNEVA_TEST_KEEP"))
        fs_remove_tree(across->home.folder, NULL);
    return 0;
}

int main(void)
{
    struct err err;
    int rc;
#define TEST(name) cmocka_unit_test(name)
    const struct CMUnitTest tests[] = {
        TEST(jobs_use_devices_of_several_hosts),
        TEST(ranks_beside_the_coordinator_are_reached_from_other_hosts),
        TEST(link_that_blinks_costs_no_attempt),
        TEST(lease_lost_with_its_connection_is_given_again),
        TEST(link_that_comes_back_after_20_s_loses_nothing),
        TEST(host_that_vanishes_is_replaced_and_not_obeyed_when_it_is_back),
        TEST(slow_and_lossy_network_loses_nothing),
    };

    if (lan_create(&the_hosts.lan, N_HOSTS, &err) < 0) {
        fprintf(stderr, "across_hosts: not run: %s\n", err.text);
        return err.code == ERR_DENIED ? EXIT_SKIPPED : 1;
    }
    rc = cmocka_run_group_tests_name("across_hosts", tests, set_up, tear_down);
    lan_destroy(the_hosts.lan);
    return rc;
}
