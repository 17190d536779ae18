/* Jobs over several hosts (network namespaces, lan.h) with keys: a link that goes down and
 * comes back, a host that vanishes and comes back, a bad network. Whatever happens, every
 * task is done once, training goes on within a minute, its samples and weights are those of
 * the run that nobody disturbed, and what comes too late is refused.
 */
#define _GNU_SOURCE /* memmem, mkdtemp */
#include "common/base/clock.h"
#include "common/net/secret.h"
#include "tests/netns/site.h"

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

#define LOOK_MS 20
#define OUTAGE_MS 20000
#define BLINK_MS 2000
#define CUT_OFF_MS 9000
#define DEAF_MS 13000 /* a connection is taken for broken after 10 s of silence */
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

/* From the loss to the first checkpoint of the attempt that goes on. */
static void expect_resumed(struct site *site, int64_t job, int64_t lost_ms)
{
    int64_t took_ms;

    site_wait_for(site, "1",
                  "select count(*) > 0 from events where job = %" PRId64
                  " and kind = 'task' and text like '%% is done, attempt 2'",
                  job);
    took_ms = site_ask_int(site,
                           "select min(time_ms) from events where job = %" PRId64
                           " and kind = 'task' and text like '%% is done, attempt 2'",
                           job) -
              lost_ms;
    print_message("training went on %" PRId64 " ms after the loss\n", took_ms);
    assert_in_range(took_ms, 0, RESUME_MS);
}

static int64_t undisturbed(struct site *site, const char *const *keys)
{
    int64_t job = site_submit_training(site, keys);

    home_wait_done(&site->home, job);
    assert_int_equal(
        site_ask_int(site, "select attempt from jobs where id = %" PRId64, job), 1);
    return job;
}

/* Job 1 prepares the dataset of all, job 2 is what the others are compared with. */
static void jobs_use_devices_of_several_hosts(void **state)
{
    struct site *site = *state;

    assert_int_equal(site_submit_prepare(site, "dataset", MANY_TASKS), 1);
    home_wait_done(&site->home, 1);
    site_expect_each_once(site, 1);
    assert_true(
        site_ask_int(site, "select count(distinct host) from ranks where job = 1") > 1);
    assert_int_equal(undisturbed(site, training), 2);
    assert_int_equal(
        site_ask_int(site, "select count(distinct host) from ranks where job = 2"), 2);
    site_expect_each_once(site, 2);
}

static bool holds(const struct buf *bytes, const void *what, size_t n_bytes)
{
    return !n_bytes || (bytes->n_bytes >= n_bytes &&
                        memmem(bytes->data, bytes->n_bytes, what, n_bytes));
}

/* has: what does stand in the file, so that it is the right one. */
static void expect_not_in(const char *path, const struct net_secret *secret,
                          const char *has)
{
    char hex[2 * NET_SECRET_BYTES + 1];
    struct buf bytes = BUF_INIT;
    struct err err;

    for (size_t i = 0; i < NET_SECRET_BYTES; i++)
        snprintf(hex + 2 * i, 3, "%02x", secret->bytes[i]);
    if (fs_read_file(&bytes, path, 1 << 28, &err) < 0)
        fail_msg("%s", err.text);
    if (!holds(&bytes, has, strlen(has)))
        fail_msg("'%s' does not hold '%s'", path, has);
    if (holds(&bytes, secret->bytes, NET_SECRET_BYTES) ||
        holds(&bytes, hex, 2 * NET_SECRET_BYTES))
        fail_msg("'%s' holds the secret of an attempt", path);
    buf_fini(&bytes);
}

/* Job 2 is over; its ranks and agents, coordinator and database had the secret. */
static void secret_of_an_attempt_is_written_nowhere(void **state)
{
    struct site *site = *state;
    struct net_secret key, secret;
    char path[FS_PATH_MAX];
    struct err err;
    int64_t job;

    snprintf(path, sizeof(path), "%s/keys/attempts.key", site->home.folder);
    if (net_secret_open(&key, path, &err) < 0)
        fail_msg("%s", err.text);
    net_secret_derive(&secret, &key, 2, 1);
    for (int host = 0; host < SITE_HOSTS; host++) {
        site_log_path(site, path, host);
        expect_not_in(path, &secret, " info ");
    }
    for (int rank = 0; rank < 2; rank++) {
        snprintf(path, sizeof(path), "%s/jobs/2/logs/attempt-1-rank-%d.stderr",
                 site->home.folder, rank);
        expect_not_in(path, &secret, rank == 0 ? "step 80" : "");
    }
    snprintf(path, sizeof(path), "%s/coordinator.db-wal", site->home.folder);
    expect_not_in(path, &secret, "");
    job = site_submit_training(site, training);
    site_wait_for_step(site, job, 1);
    net_secret_derive(&secret, &key, job, 1);
    for (int rank = 0; rank < 2; rank++) {
        snprintf(path, sizeof(path), "/proc/%d/environ",
                 (int)site_ask_int(
                     site, "select pid from ranks where job = %" PRId64 " and rank = %d",
                     job, rank));
        expect_not_in(path, &secret, "VNEVA_ADDRESS=10.77.0.");
    }
    home_wait_done(&site->home, job);
}

/* Another coordinator at the same place, that gives agents up after that silence. */
static void restart_coordinator(struct site *site, char *lost_after_ms)
{
    home_kill(&site->home.coordinator);
    site_start_coordinator(site, lost_after_ms);
    site_wait_until_agents(site, "3");
}

/* Nobody is given up, and the streams between ranks go on where they were. */
static void link_that_blinks_costs_no_attempt(void **state)
{
    struct site *site = *state;
    int64_t job;
    int host;

    restart_coordinator(site, PATIENT_MS);
    job = site_submit_training(site, training);
    site_wait_for_step(site, job, 2);
    host = site_host_of(site, job, 1, 1);
    site_set_link(site, host, false);
    poll(NULL, 0, BLINK_MS);
    site_set_link(site, host, true);
    home_wait_done(&site->home, job);
    assert_int_equal(
        site_ask_int(site, "select attempt from jobs where id = %" PRId64, job), 1);
    site_expect_same_run(site, job, 2);
    restart_coordinator(site, SITE_LOST_AFTER_MS);
}

static void set_deaf(struct site *site, bool is_deaf)
{
    for (int host = SITE_HEAD + 1; host < SITE_HOSTS; host++)
        lan_set_wire(site->lan, host, true, !is_deaf);
}

/* A batch job in the middle of its tasks when all agents have become deaf: whoever reports
 * a task then does not hear of the next. Tried again with one that was done too soon. */
static int64_t prepare_while_deaf(struct site *site)
{
    for (int i = 0; i < TRIES_MAX; i++) {
        char name[16];
        int64_t job;

        snprintf(name, sizeof(name), "deaf-%d", i);
        job = site_submit_prepare(site, name, MANY_TASKS);
        site_wait_for(site, "1",
                      "select count(*) > 0 from tasks where job = %" PRId64
                      " and phase = 'work' and state = 'done'",
                      job);
        set_deaf(site, true);
        poll(NULL, 0, SETTLE_MS);
        if (site_ask_int(site, "select state = 'running' from jobs where id = %" PRId64,
                         job))
            return job;
        set_deaf(site, false);
        home_wait_done(&site->home, job);
    }
    fail_msg("no batch job lasts long enough");
    return 0;
}

/* What the coordinator said on a connection that broke did not arrive, and nobody was given
 * up: the agent has to ask for it. */
static void lease_lost_with_its_connection_is_given_again(void **state)
{
    struct site *site = *state;
    int64_t job;

    restart_coordinator(site, PATIENT_MS);
    job = prepare_while_deaf(site);
    poll(NULL, 0, DEAF_MS);
    set_deaf(site, false);
    home_wait_done(&site->home, job);
    site_expect_same_dataset(site, job, 1);
    assert_int_equal(
        site_ask_int(site,
                     "select count(*) from attempts where cause = 'lost' and job"
                     " = %" PRId64,
                     job),
        0);
    restart_coordinator(site, SITE_LOST_AFTER_MS);
}

/* One of two hosts that train, and the one that prepares, lose their link for 20 s: the
 * other host takes the batch job over, and training has to wait for its second host. */
static void link_that_comes_back_after_20_s_loses_nothing(void **state)
{
    struct site *site = *state;
    int64_t job = site_submit_training(site, training), batch, lost_ms;
    int training_host, batch_host;

    site_wait_for_step(site, job, STEPS_BETWEEN + 1);
    batch = site_submit_prepare(site, "again", MANY_TASKS);
    site_wait_for(site, "1",
                  "select count(*) > 0 from tasks where job = %" PRId64
                  " and phase = 'work' and state = 'done'",
                  batch);
    training_host = site_host_of(site, job, 1, 1);
    batch_host = site_host_of(site, batch, 1, 0);
    assert_int_not_equal(training_host, batch_host);
    lost_ms = clock_wall_ms();
    site_set_link(site, training_host, false);
    site_set_link(site, batch_host, false);
    poll(NULL, 0, OUTAGE_MS);
    site_set_link(site, training_host, true);
    site_set_link(site, batch_host, true);
    home_wait_done(&site->home, job);
    home_wait_done(&site->home, batch);
    expect_resumed(site, job, lost_ms);
    site_expect_same_run(site, job, 2);
    site_expect_same_dataset(site, batch, 1);
    site_wait_until_agents(site, "3");
}

/* All agents are silent for the coordinator, and their ranks go on without it as far as
 * their leases allow: what they did counts for nothing, and is done again to the same end. */
static void coordinator_that_is_cut_off_obeys_no_late_report(void **state)
{
    struct site *site = *state;
    int64_t job = site_submit_training(site, training), lost_ms;

    site_wait_for_step(site, job, STEPS_BETWEEN + 1);
    lost_ms = clock_wall_ms();
    site_set_link(site, SITE_HEAD, false);
    poll(NULL, 0, CUT_OFF_MS);
    site_set_link(site, SITE_HEAD, true);
    home_wait_done(&site->home, job);
    expect_resumed(site, job, lost_ms);
    assert_true(site_ask_int(site,
                             "select count(*) from events where kind = 'stale' and job = "
                             "%" PRId64,
                             job) > 0);
    site_expect_same_run(site, job, 2);
    site_wait_until_agents(site, "3");
}

/* How far checkpoints of an attempt have come in the folder, registered or not. */
static int64_t newest_in_folder(struct site *site, int64_t job, const char *attempt)
{
    char path[FS_PATH_MAX], *end;
    int64_t newest = 0;
    struct dirent *entry;
    DIR *folder;

    assert_int_equal(
        fs_path(path, NULL, "%s/jobs/%" PRId64 "/checkpoints", site->home.folder, job),
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
static void freeze_with_reports(struct site *site, int64_t job, int host)
{
    int64_t end_ms = clock_mono_ms() + HOME_DEADLINE_MS, registered;

    assert_int_equal(kill(site->agents[host], SIGSTOP), 0);
    registered = newest_in_folder(site, job, "-a1");
    while (newest_in_folder(site, job, "-a1") < registered + 2 * STEPS_BETWEEN) {
        assert_true(clock_mono_ms() < end_ms);
        poll(NULL, 0, 1);
    }
    lan_set_wire(site->lan, host, false, false);
    assert_true(lan_signal(site->lan, host, SIGSTOP) >= 2);
}

/* Until the agent alone is left there: it has killed the ranks nobody wants. */
static void wait_until_idle(struct site *site, int host)
{
    int64_t end_ms = clock_mono_ms() + HOME_DEADLINE_MS;

    while (lan_signal(site->lan, host, 0) != 1) {
        assert_true(clock_mono_ms() < end_ms);
        poll(NULL, 0, LOOK_MS);
    }
}

static void host_that_vanishes_is_replaced_and_not_obeyed_when_it_is_back(void **state)
{
    struct site *site = *state;
    int64_t job = site_submit_training(site, training), lost_ms;
    int host;

    site_wait_for_step(site, job, STEPS_BETWEEN + 1);
    host = site_host_of(site, job, 1, 0);
    freeze_with_reports(site, job, host);
    lost_ms = clock_wall_ms();
    expect_resumed(site, job, lost_ms);
    assert_int_not_equal(site_host_of(site, job, 2, 0), host);
    assert_int_not_equal(site_host_of(site, job, 2, 1), host);
    lan_signal(site->lan, host, SIGCONT);
    lan_set_wire(site->lan, host, true, true);
    home_wait_done(&site->home, job);
    site_wait_for(
        site, "1",
        "select count(*) > 0 from events where kind = 'stale' and job = %" PRId64, job);
    site_wait_until_agents(site, "3");
    wait_until_idle(site, host);
    site_expect_same_run(site, job, 2);
}

static pid_t start_head_agent(struct site *site, char *address)
{
    char *argv[] = {"vneva-worker", "--home", site->home.folder,
                    "--host",       "host-0", address ? "--address" : NULL,
                    address,        NULL};

    return site_start(site, SITE_HEAD, argv);
}

/* An agent beside the coordinator reaches it by a socket file, and its ranks have to be
 * reached by those of other hosts all the same. */
static void ranks_beside_the_coordinator_are_reached_from_other_hosts(void **state)
{
    struct site *site = *state;
    char reason[1024];
    int64_t job;
    pid_t agent;

    for (int host = SITE_HEAD + 2; host < SITE_HOSTS; host++)
        home_kill(&site->agents[host]);
    agent = start_head_agent(site, "lo");
    site_wait_until_agents(site, "2");
    job = site_submit_training(site, short_training);
    home_wait_failed(&site->home, job, reason, sizeof(reason));
    if (!strstr(reason, "ranks on host 'host-0' listen at 'tcp://127.0.0.1:") ||
        !strstr(reason, "start the agent of the former with --address"))
        fail_msg("%s", reason);
    home_kill(&agent);
    site_wait_until_agents(site, "1");
    agent = start_head_agent(site, NULL);
    site_wait_until_agents(site, "2");
    undisturbed(site, short_training);
    home_kill(&agent);
    for (int host = SITE_HEAD + 2; host < SITE_HOSTS; host++)
        site_start_agent(site, host);
    site_wait_until_agents(site, "3");
}

/* An agent joins, a dataset is made and two ranks train, all of it in bad weather. */
static void slow_and_lossy_network_loses_nothing(void **state)
{
    struct site *site = *state;
    int64_t fair = undisturbed(site, short_training), fair_batch, batch, job;
    int64_t n_lost = lan_n_lost(site->lan);

    fair_batch = site_submit_prepare(site, "fair", FEW_TASKS);
    home_wait_done(&site->home, fair_batch);
    home_kill(&site->agents[1]);
    site_wait_until_agents(site, "2");
    lan_set_weather(site->lan, LATENCY_MS, LOSS_PER_MILLE);
    site_start_agent(site, 1);
    site_wait_until_agents(site, "3");
    job = site_submit_training(site, short_training);
    batch = site_submit_prepare(site, "slow", FEW_TASKS);
    home_wait_done(&site->home, batch);
    home_wait_done(&site->home, job);
    lan_set_weather(site->lan, 0, 0);
    n_lost = lan_n_lost(site->lan) - n_lost;
    print_message("%" PRId64 " frames were lost\n", n_lost);
    assert_true(n_lost > 0);
    site_expect_same_dataset(site, batch, fair_batch);
    site_expect_same_run(site, job, fair);
    assert_int_equal(
        site_ask_int(site,
                     "select count(*) from events where kind = 'stale' and job = "
                     "%" PRId64,
                     job),
        0);
}

/* ---- the network ---- */

static struct site the_site; /* of all tests, one after another */

static int set_up(void **state)
{
    *state = &the_site;
    site_init(&the_site);
    return 0;
}

static int tear_down(void **state)
{
    site_fini(*state);
    return 0;
}

int main(void)
{
    struct err err;
    int rc;
#define TEST(name) cmocka_unit_test(name)
    const struct CMUnitTest tests[] = {
        TEST(jobs_use_devices_of_several_hosts),
        TEST(secret_of_an_attempt_is_written_nowhere),
        TEST(ranks_beside_the_coordinator_are_reached_from_other_hosts),
        TEST(link_that_blinks_costs_no_attempt),
        TEST(lease_lost_with_its_connection_is_given_again),
        TEST(link_that_comes_back_after_20_s_loses_nothing),
        TEST(coordinator_that_is_cut_off_obeys_no_late_report),
        TEST(host_that_vanishes_is_replaced_and_not_obeyed_when_it_is_back),
        TEST(slow_and_lossy_network_loses_nothing),
    };

    if (lan_create(&the_site.lan, SITE_HOSTS, &err) < 0) {
        fprintf(stderr, "across_hosts: not run: %s\n", err.text);
        return err.code == ERR_DENIED ? EXIT_SKIPPED : 1;
    }
    rc = cmocka_run_group_tests_name("across_hosts", tests, set_up, tear_down);
    lan_destroy(the_site.lan);
    return rc;
}
