#define _GNU_SOURCE /* mkdtemp */
#include "tests/integration/worker_home.h"

#include "common/base/clock.h"
#include "common/base/fs.h"
#include "tests/integration/worker_data.h"

#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define CALL_MS 1000
#define LOOK_MS 5 /* between two looks at a job */

/* ---- processes ---- */

static pid_t start(const struct home *home, const char *program, char *const *argv)
{
    char path[FS_PATH_MAX], log[FS_PATH_MAX];
    struct err err = {0};
    pid_t pid;
    int fd;

    assert_int_equal(fs_path(path, &err, "%s/%s", getenv("VNEVA_BIN"), program), 0);
    assert_int_equal(fs_path(log, &err, "%s/%s.log", home->folder, program), 0);
    pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL); /* a test that fails leaves none behind */
        fd = open(log, O_WRONLY | O_CREAT | O_APPEND, 0600);
        dup2(fd, STDOUT_FILENO);
        dup2(fd, STDERR_FILENO);
        execv(path, argv);
        _exit(127);
    }
    assert_true(pid > 0);
    return pid;
}

void home_start_coordinator(struct home *home)
{
    char *argv[] = {"vneva-coordinator",
                    "--home",
                    home->folder,
                    "--heartbeat-ms",
                    "100",
                    "--lost-after-ms",
                    "3000",
                    "--backoff-ms",
                    "50",
                    NULL};

    home->coordinator = start(home, "vneva-coordinator", argv);
}

void home_start_agent(struct home *home, int n_devices)
{
    char devices[16];
    char *argv[] = {"vneva-worker", "--connect", home->endpoint,
                    "--devices",    devices,     NULL};

    snprintf(devices, sizeof(devices), "%d", n_devices);
    home->agent = start(home, "vneva-worker", argv);
}

void home_kill(pid_t *pid)
{
    if (*pid <= 0)
        return;
    kill(*pid, SIGKILL);
    waitpid(*pid, NULL, 0);
    *pid = 0;
}

void home_init(struct home *home, int n_devices)
{
    struct err err = {0};

    assert_non_null(getenv("VNEVA_BIN")); /* ctest sets it */
    *home = (struct home){.coordinator = 0};
    strcpy(home->folder, "/tmp/vneva-home-XXXXXX");
    assert_non_null(mkdtemp(home->folder));
    snprintf(home->endpoint, sizeof(home->endpoint), "ipc://%s/coordinator.sock",
             home->folder);
    home_start_coordinator(home);
    home_start_agent(home, n_devices);
    if (net_client_open(&home->client, home->endpoint, NULL, &err) < 0)
        fail_msg("%s", err.text);
}

void home_fini(struct home *home)
{
    home_kill(&home->agent);
    home_kill(&home->coordinator);
    net_client_close(home->client);
    if (!getenv("VNEVA_TEST_KEEP"))
        fs_remove_tree(home->folder, NULL);
}

/* ---- asking ---- */

/* Asks until a coordinator answers; one that is killed on the way is asked again. */
static void call(struct home *home, struct wire *request, struct wire *reply)
{
    int64_t end_ms = clock_mono_ms() + HOME_DEADLINE_MS;
    struct err err = {0};

    while (net_client_call(home->client, request, reply, CALL_MS, &err) < 0) {
        if (err.code != ERR_TIMEOUT || clock_mono_ms() > end_ms)
            fail_msg("%s: %s", msg_type_name(request->type), err.text);
    }
}

int64_t home_submit(struct home *home, const char *kind, const char *spec)
{
    struct wire request = {.type = MSG_SUBMIT}, reply;
    char id[64];
    int64_t job;

    snprintf(id, sizeof(id), "test-%d-%d", (int)getpid(), ++home->n_submitted);
    request.submit = (struct msg_submit){id, kind, "test", spec};
    call(home, &request, &reply);
    assert_int_equal(reply.type, MSG_SUBMITTED);
    job = reply.submitted.job;
    wire_fini(&reply);
    return job;
}

static struct json *rows(struct home *home, const char *view, int64_t job)
{
    struct wire request = {.type = MSG_QUERY, .query = {view, job, 0, 0}}, reply;
    struct json *json = NULL;
    struct err err = {0};

    call(home, &request, &reply);
    assert_int_equal(reply.type, MSG_ROWS);
    if (json_parse(&json, reply.rows.json, strlen(reply.rows.json), &err) < 0)
        fail_msg("%s", err.text);
    wire_fini(&reply);
    return json;
}

void home_ask(struct home *home, char *out, size_t n_bytes, const char *sql)
{
    struct wire reply = {.type = MSG_NONE}, request = {.type = MSG_SELECT};
    struct buf text = BUF_INIT;
    const struct json *cell;
    struct json *table = NULL;
    struct err err = {0};

    request.select = (struct msg_select){
        .sql = sql, .view = "", .where = "[]", .columns = "", .sort = ""};
    call(home, &request, &reply);
    assert_int_equal(reply.type, MSG_TABLE);
    if (json_parse(&table, reply.table.json, strlen(reply.table.json), &err) < 0)
        fail_msg("%s", err.text);
    cell = json_at(json_at(json_get(table, "rows"), 0), 0);
    if (json_string(cell))
        buf_add_str(&text, json_string(cell));
    else if (cell)
        json_write(&text, cell, 0);
    snprintf(out, n_bytes, "%s", buf_str(&text));
    buf_fini(&text);
    json_free(table);
    wire_fini(&reply);
}

static struct json *last_row(struct home *home, const char *view, int64_t job)
{
    struct json *all = rows(home, view, job), *row = NULL;

    if (json_count(all))
        row = json_clone(json_at(all, json_count(all) - 1));
    json_free(all);
    return row;
}

struct json *home_job(struct home *home, int64_t job)
{
    return last_row(home, "job", job);
}

struct json *home_attempt(struct home *home, int64_t job)
{
    return last_row(home, "attempts", job);
}

/* Waits until the job has ended. */
static void wait_for_end(struct home *home, int64_t job, char state[32], char *reason,
                         size_t n_bytes)
{
    int64_t end_ms = clock_mono_ms() + HOME_DEADLINE_MS;

    do {
        struct json *row = home_job(home, job);
        const char *why = json_get_string(row, "reason");

        snprintf(state, 32, "%s", json_get_string(row, "state"));
        snprintf(reason, n_bytes, "%s", why ? why : "");
        json_free(row);
        if (strcmp(state, "done") == 0)
            return;
        poll(NULL, 0, LOOK_MS);
    } while (strcmp(state, "failed") != 0 && strcmp(state, "cancelled") != 0 &&
             clock_mono_ms() < end_ms);
}

void home_wait_done(struct home *home, int64_t job)
{
    char state[32], reason[ERR_TEXT_MAX];

    wait_for_end(home, job, state, reason, sizeof(reason));
    if (strcmp(state, "done") != 0)
        fail_msg("job %lld is %s: %s", (long long)job, state, reason);
}

void home_wait_failed(struct home *home, int64_t job, char *out, size_t n_bytes)
{
    char state[32];

    wait_for_end(home, job, state, out, n_bytes);
    if (strcmp(state, "failed") != 0)
        fail_msg("job %lld is %s and should have failed: %s", (long long)job, state, out);
}

void home_expect_failed(struct home *home, int64_t job, const char *says)
{
    char reason[1024];

    home_wait_failed(home, job, reason, sizeof(reason));
    if (!strstr(reason, says))
        fail_msg("'%s' does not say '%s'", reason, says);
}

void home_last_checkpoint(struct home *home, int64_t job, char *out, size_t n_bytes)
{
    struct json *row = last_row(home, "checkpoints", job);

    assert_non_null(row);
    snprintf(out, n_bytes, "%s", json_get_string(row, "path"));
    json_free(row);
}

void home_prepare(struct home *home, const char *const *keys, char *out, size_t n_bytes)
{
    struct buf spec = BUF_INIT;

    data_make(home->folder);
    snprintf(out, n_bytes, "%s/dataset", home->folder);
    data_spec_prepare(&spec, home->folder, out, keys);
    home_wait_done(home, home_submit(home, "prepare", buf_str(&spec)));
    buf_fini(&spec);
}

int64_t home_submit_training(struct home *home, const char *dataset,
                             const char *const *keys)
{
    struct buf spec = BUF_INIT;
    int64_t job;

    data_spec_train(&spec, home->folder, dataset, keys);
    job = home_submit(home, "pretrain", buf_str(&spec));
    buf_fini(&spec);
    return job;
}

/* ---- comparing ---- */

void home_expect_same_file(const char *a, const char *b)
{
    struct buf one = BUF_INIT, other = BUF_INIT;
    struct err err = {0};

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

void home_expect_same_run(struct home *home, int64_t job, int64_t other)
{
    char paths[2][256], a[512], b[512];

    home_last_checkpoint(home, job, paths[0], sizeof(paths[0]));
    home_last_checkpoint(home, other, paths[1], sizeof(paths[1]));
    for (int r = 0; r < 2; r++) {
        snprintf(a, sizeof(a), "%s/tensors-%04d.safetensors", paths[0], r);
        snprintf(b, sizeof(b), "%s/tensors-%04d.safetensors", paths[1], r);
        home_expect_same_file(a, b);
    }
    snprintf(a, sizeof(a), "%s/jobs/%lld/samples.log", home->folder, (long long)job);
    snprintf(b, sizeof(b), "%s/jobs/%lld/samples.log", home->folder, (long long)other);
    home_expect_same_file(a, b);
}
