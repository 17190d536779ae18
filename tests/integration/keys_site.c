#include "tests/integration/keys_site.h"

#include "common/base/clock.h"
#include "common/base/fs.h"
#include "common/base/json.h"

#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define LOOK_MS 10

/* ---- processes ---- */

static pid_t start(const char *log, const char *const *argv)
{
    char program[FS_PATH_MAX];
    pid_t pid;

    assert_int_equal(fs_path(program, NULL, "%s/%s", getenv("VNEVA_BIN"), argv[0]), 0);
    pid = fork();
    if (pid == 0) {
        int fd = open(log, O_WRONLY | O_CREAT | O_APPEND, 0600);

        prctl(PR_SET_PDEATHSIG, SIGKILL); /* a test that fails leaves none behind */
        dup2(fd, STDOUT_FILENO);
        dup2(fd, STDERR_FILENO);
        execv(program, (char *const *)argv);
        _exit(127);
    }
    assert_true(pid > 0);
    return pid;
}

void site_end(pid_t *pid)
{
    if (*pid <= 0)
        return;
    kill(*pid, SIGTERM);
    waitpid(*pid, NULL, 0);
    *pid = 0;
}

static void log_path(const struct site *site, const char *name, char out[128])
{
    snprintf(out, 128, "%s/%s.log", site->home, name);
}

/* The first time at any port, later at the one it had. */
void site_start_coordinator(struct site *site)
{
    const char *argv[] = {"vneva-coordinator",
                          "--home",
                          site->home,
                          "--listen",
                          site->endpoint[0] ? site->endpoint : "tcp://127.0.0.1:*",
                          "--heartbeat-ms",
                          "100",
                          "--lost-after-ms",
                          "3000",
                          NULL};
    int64_t deadline_ms = clock_mono_ms() + SITE_DEADLINE_MS;
    struct wire request = {.type = MSG_PING}, reply;
    char log[128];

    log_path(site, "coordinator", log);
    site->coordinator = start(log, argv);
    while (net_client_call(site->local, &request, &reply, LOOK_MS, NULL) < 0) {
        assert_true(clock_mono_ms() < deadline_ms);
        assert_int_equal(waitpid(site->coordinator, NULL, WNOHANG), 0);
    }
    wire_fini(&reply);
    assert_int_equal(keys_read_endpoint(site->endpoint, site->home, NULL), 0);
}

void site_start_worker(struct site *site, const char *key_file)
{
    const char *argv[] = {"vneva-worker", "--key", key_file, "--devices", "1", NULL};
    char log[128];

    log_path(site, "worker", log);
    site->worker = start(log, argv);
}

void site_init(struct site *site)
{
    char ipc[96];
    struct err err = {ERR_NONE, ""};

    memset(site, 0, sizeof(*site));
    strcpy(site->home, "/tmp/vneva-site-XXXXXX");
    assert_non_null(mkdtemp(site->home));
    snprintf(ipc, sizeof(ipc), "ipc://%s/coordinator.sock", site->home);
    if (net_client_open(&site->local, ipc, NULL, &err) < 0)
        fail_msg("%s", err.text);
}

void site_fini(struct site *site)
{
    site_end(&site->worker);
    site_end(&site->coordinator);
    net_client_close(site->local);
    if (!getenv("VNEVA_TEST_KEEP"))
        fs_remove_tree(site->home, NULL);
}

/* ---- keys and questions ---- */

struct key site_make_key(const struct site *site, const char *name, enum key_role role)
{
    struct key key, coordinator;

    assert_int_equal(keys_read_coordinator(&coordinator, site->home, NULL), 0);
    assert_int_equal(key_create(&key, name, role, NULL), 0);
    assert_int_equal(
        key_set_coordinator(&key, coordinator.public_key, site->endpoint, NULL), 0);
    return key;
}

void site_authorize(const struct site *site, const struct key *key)
{
    struct authorized one = key_authorized(key);
    struct err err = {ERR_NONE, ""};

    if (keys_authorize(site->home, &one, 1, &err) < 0)
        fail_msg("%s", err.text);
}

struct net_client *site_open_client(const struct key *key)
{
    struct net_client *client;
    struct err err = {ERR_NONE, ""};

    if (net_client_open(&client, NULL, key, &err) < 0)
        fail_msg("%s", err.text);
    return client;
}

/* How many rows of a view hold text, as JSON. */
int site_count_rows(struct site *site, const char *view, const char *text)
{
    struct wire request = {.type = MSG_QUERY, .query = {view, 0, 0, 0}}, reply;
    struct err err = {ERR_NONE, ""};
    struct json *rows = NULL;
    int n = 0;

    if (net_client_call(site->local, &request, &reply, SITE_DEADLINE_MS, &err) < 0)
        fail_msg("%s", err.text);
    assert_int_equal(json_parse(&rows, reply.rows.json, strlen(reply.rows.json), NULL),
                     0);
    for (size_t i = 0; i < json_count(rows); i++) {
        struct buf row = BUF_INIT;

        json_write(&row, json_at(rows, i), 0);
        n += strstr(buf_str(&row), text) != NULL;
        buf_fini(&row);
    }
    json_free(rows);
    wire_fini(&reply);
    return n;
}

void site_wait_row(struct site *site, const char *view, const char *text)
{
    int64_t deadline_ms = clock_mono_ms() + SITE_DEADLINE_MS;

    while (!site_count_rows(site, view, text)) {
        if (clock_mono_ms() >= deadline_ms)
            fail_msg("no row of %s with %s", view, text);
        poll(NULL, 0, LOOK_MS);
    }
}

int site_count_in_log(const struct site *site, const char *name, const char *text)
{
    struct buf log = BUF_INIT;
    char path[128];
    int n = 0;

    log_path(site, name, path);
    if (fs_read_file(&log, path, 16 << 20, NULL) == 0)
        for (const char *at = buf_str(&log); (at = strstr(at, text)); at++)
            n++;
    buf_fini(&log);
    return n;
}

void site_wait_log(const struct site *site, const char *name, const char *text)
{
    int64_t deadline_ms = clock_mono_ms() + SITE_DEADLINE_MS;

    while (!site_count_in_log(site, name, text)) {
        if (clock_mono_ms() >= deadline_ms)
            fail_msg("the log of the %s does not say '%s'", name, text);
        poll(NULL, 0, LOOK_MS);
    }
}
