#define _GNU_SOURCE /* mkdtemp */
#include "tests/netns/site.h"

#include "common/base/clock.h"
#include "common/net/keys.h"
#include "tests/integration/worker_data.h"

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

#define PORT 7777
#define LOOK_MS 20

/* ---- hosts ---- */

void site_log_path(const struct site *site, char out[FS_PATH_MAX], int host)
{
    assert_int_equal(fs_path(out, NULL, "%s/host-%d.log", site->home.folder, host), 0);
}

pid_t site_start(struct site *site, int host, char **argv)
{
    char program[FS_PATH_MAX], log[FS_PATH_MAX];
    struct err err;
    pid_t pid;

    site_log_path(site, log, host);
    assert_int_equal(fs_path(program, &err, "%s/%s", getenv("VNEVA_BIN"), argv[0]), 0);
    argv[0] = program;
    if (lan_start(site->lan, host, log, argv, &pid, &err) < 0)
        fail_msg("%s", err.text);
    return pid;
}

void site_start_coordinator(struct site *site, char *lost_after_ms)
{
    char endpoint[64], address[16];
    char *argv[] = {"vneva-coordinator",
                    "--home",
                    site->home.folder,
                    "--listen",
                    endpoint,
                    "--heartbeat-ms",
                    "500",
                    "--lost-after-ms",
                    lost_after_ms,
                    "--backoff-ms",
                    "100",
                    NULL};

    lan_address(address, SITE_HEAD);
    snprintf(endpoint, sizeof(endpoint), "tcp://%s:%d", address, PORT);
    site->home.coordinator = site_start(site, SITE_HEAD, argv);
}

/* The file that lets the agent of a host in, and lets it know the coordinator. */
static void make_key(struct site *site, int host)
{
    char path[FS_PATH_MAX], name[16], address[16];
    struct key coordinator, key;
    struct authorized line = {.role = KEY_WORKER};
    struct err err;

    snprintf(name, sizeof(name), "host-%d", host);
    lan_address(address, SITE_HEAD);
    if (keys_init(site->home.folder, &coordinator, NULL, &err) < 0 ||
        key_create(&key, name, KEY_WORKER, &err) < 0 ||
        fs_path(path, &err, "%s/%s.key", site->home.folder, name) < 0)
        fail_msg("%s", err.text);
    snprintf(line.name, sizeof(line.name), "%s", name);
    snprintf(line.public_key, sizeof(line.public_key), "%s", key.public_key);
    snprintf(key.coordinator, sizeof(key.coordinator), "%s", coordinator.public_key);
    snprintf(key.endpoint, sizeof(key.endpoint), "tcp://%s:%d", address, PORT);
    if (key_write(&key, path, &err) < 0 ||
        keys_authorize(site->home.folder, &line, 1, &err) < 0)
        fail_msg("%s", err.text);
}

void site_start_agent(struct site *site, int host)
{
    char path[FS_PATH_MAX], name[16];
    char *argv[] = {"vneva-worker", "--key", path, "--host", name, NULL};

    snprintf(name, sizeof(name), "host-%d", host);
    assert_int_equal(fs_path(path, NULL, "%s/%s.key", site->home.folder, name), 0);
    site->agents[host] = site_start(site, host, argv);
}

void site_set_link(struct site *site, int host, bool is_up)
{
    struct err err;

    if (lan_set_link(site->lan, host, is_up, &err) < 0)
        fail_msg("%s", err.text);
}

/* ---- asking ---- */

void site_wait_for(struct site *site, const char *expected, const char *format, ...)
{
    int64_t end_ms = clock_mono_ms() + HOME_DEADLINE_MS;
    char sql[1024], text[512] = "";
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(sql, sizeof(sql), format, arguments);
    va_end(arguments);
    while (clock_mono_ms() < end_ms) {
        home_ask(&site->home, text, sizeof(text), sql);
        if (strcmp(text, expected) == 0)
            return;
        poll(NULL, 0, LOOK_MS);
    }
    fail_msg("%s: %s, not %s; look at the logs in %s", sql, text, expected,
             site->home.folder);
}

int64_t site_ask_int(struct site *site, const char *format, ...)
{
    char sql[1024], text[64];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(sql, sizeof(sql), format, arguments);
    va_end(arguments);
    home_ask(&site->home, text, sizeof(text), sql);
    return strtoll(text, NULL, 10);
}

void site_wait_until_agents(struct site *site, const char *n)
{
    site_wait_for(site, n, "select count(*) from workers where state = 'up'");
}

void site_wait_for_step(struct site *site, int64_t job, int64_t step)
{
    site_wait_for(site, "1",
                  "select count(*) from jobs where id = %" PRId64
                  " and state = 'running' and done >= %" PRId64,
                  job, step);
}

int site_host_of(struct site *site, int64_t job, int64_t attempt, int rank)
{
    return (int)site_ask_int(
        site,
        "select replace(host, 'host-', '') from ranks where job = %" PRId64
        " and attempt = %" PRId64 " and rank = %d",
        job, attempt, rank);
}

/* ---- jobs ---- */

int64_t site_submit_training(struct site *site, const char *const *keys)
{
    return home_submit_training(&site->home, site->dataset, keys);
}

/* Of as many tasks as `shard` says; its dataset is `name`. */
int64_t site_submit_prepare(struct site *site, const char *name, const char *shard)
{
    const char *keys[] = {shard, NULL};
    struct buf spec = BUF_INIT;
    char output[128];
    int64_t job;

    snprintf(output, sizeof(output), "%s/%s", site->home.folder, name);
    data_spec_prepare(&spec, site->home.folder, output, keys);
    job = home_submit(&site->home, "prepare", buf_str(&spec));
    buf_fini(&spec);
    return job;
}

/* ---- comparing ---- */

/* Every task is done, and each sample or step is in just one of them. */
void site_expect_each_once(struct site *site, int64_t job)
{
    site_wait_for(
        site, "0",
        "select count(*) from tasks where job = %" PRId64 " and state != 'done'", job);
    assert_int_equal(
        site_ask_int(site,
                     "select count(*) from tasks a, tasks b where a.job = %" PRId64
                     " and b.job = a.job and a.phase = 'work' and b.phase = 'work' and"
                     " a.id < b.id and a.first < b.first + b.count and"
                     " b.first < a.first + a.count",
                     job),
        0);
    assert_int_equal(
        site_ask_int(site,
                     "select sum(count) from tasks where phase = 'work' and"
                     " job = %" PRId64,
                     job),
        site_ask_int(site, "select total from jobs where id = %" PRId64, job));
    assert_int_equal(
        site_ask_int(
            site,
            "select count(*) - count(distinct step) from checkpoints where job = "
            "%" PRId64,
            job),
        0);
}

void site_expect_same_run(struct site *site, int64_t job, int64_t undisturbed)
{
    site_expect_each_once(site, job);
    home_expect_same_run(&site->home, job, undisturbed);
}

void site_expect_same_dataset(struct site *site, int64_t job, int64_t undisturbed)
{
    site_expect_each_once(site, job);
    site_wait_for(
        site, "1",
        "select count(distinct n_samples || ' ' || fingerprint) from datasets where"
        " job in (%" PRId64 ", %" PRId64 ")",
        job, undisturbed);
}

/* ---- all of it ---- */

void site_init(struct site *site)
{
    struct home *home = &site->home;
    struct err err;

    strcpy(home->folder, "/tmp/vneva-hosts-XXXXXX");
    assert_non_null(mkdtemp(home->folder));
    snprintf(home->endpoint, sizeof(home->endpoint), "ipc://%s/coordinator.sock",
             home->folder);
    snprintf(site->dataset, sizeof(site->dataset), "%s/dataset", home->folder);
    data_make(home->folder);
    for (int host = SITE_HEAD + 1; host < SITE_HOSTS; host++)
        make_key(site, host);
    site_start_coordinator(site, SITE_LOST_AFTER_MS);
    if (net_client_open(&home->client, home->endpoint, NULL, &err) < 0)
        fail_msg("%s", err.text);
    for (int host = SITE_HEAD + 1; host < SITE_HOSTS; host++)
        site_start_agent(site, host);
    site_wait_until_agents(site, "3");
}

void site_fini(struct site *site)
{
    for (int host = 0; host < SITE_HOSTS; host++)
        lan_signal(site->lan, host, SIGKILL);
    while (waitpid(-1, NULL, 0) > 0)
        ;
    net_client_close(site->home.client);
    if (!getenv("VNEVA_TEST_KEEP"))
        fs_remove_tree(site->home.folder, NULL);
}
