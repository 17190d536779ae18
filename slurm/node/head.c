/* Node 0: starts the coordinator, hands the job in and asks how it is. It speaks to the
 * coordinator over a socket in its own folder on this machine, so that neither the length of
 * the run folder's path nor its file system matters; agents come over TCP with keys. */
#include "common/base/clock.h"
#include "common/base/json.h"
#include "common/base/log.h"
#include "jobs/spec/spec.h"
#include "slurm/node/node.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#define READY_MS 30000 /* until a coordinator answers */
#define READY_ASK_MS 250
#define STEP_MS 20 /* between two looks */
#define ASK_MS 5000
#define SUBMIT_MS 120000 /* for `vneva submit`, which reads what a job names */
#define VARIABLE_MAX (FS_PATH_MAX + 32)
#define REQUEST_BYTES 16
#define ARGUMENTS_MAX 512
#define COORDINATOR_REFUSED 4 /* its exit status: what it needs is in use */
#define LOG_TAIL 300          /* bytes of the log of what did not start */

/* ---- the coordinator ---- */

static int ping(struct node *node, int64_t timeout_ms, struct err *err)
{
    struct wire request = {.type = MSG_PING}, reply = {.type = MSG_NONE};

    if (net_client_call(node->client, &request, &reply, timeout_ms, err) < 0)
        return -1;
    wire_fini(&reply);
    return 0;
}

/* The last line of a log: it says why. */
static void last_line(char out[LOG_TAIL + 1], const struct buf *text)
{
    size_t n = text->n_bytes, from;

    while (n > 0 && text->data[n - 1] == '\n')
        n--;
    for (from = n; from > 0 && text->data[from - 1] != '\n' && n - from < LOG_TAIL;)
        from--;
    memcpy(out, buf_str(text) + from, n - from);
    out[n - from] = '\0';
}

static void log_tail(char out[LOG_TAIL + 1], const char *path)
{
    struct buf text = BUF_INIT;

    out[0] = '\0';
    if (fs_read_file(&text, path, 64u << 20, NULL) == 0)
        last_line(out, &text);
    buf_fini(&text);
}

static int wait_ready(struct node *node, const char *log, struct err *err)
{
    int64_t end_ms = clock_mono_ms() + READY_MS;
    char endpoint[KEY_ENDPOINT_BYTES], tail[LOG_TAIL + 1];
    int status;

    while (clock_mono_ms() < end_ms) {
        if (process_reap(&node->coordinator, &status)) {
            if (status == COORDINATOR_REFUSED && !node->is_head)
                return err_set(err, ERR_STATE,
                               "another start of this run folder is running ('%s' is "
                               "locked): wait for its end or stop it, or take another "
                               "--run-dir",
                               node->home);
            log_tail(tail, log);
            return err_set(err, ERR_PEER,
                           "the coordinator ended with status %d; '%s' ends: %s", status,
                           log, tail);
        }
        /* it answers after it has replaced the endpoint of an earlier start */
        if (ping(node, READY_ASK_MS, err) == 0 &&
            keys_read_endpoint(endpoint, node->home, NULL) == 0)
            return 0;
        poll(NULL, 0, STEP_MS);
    }
    return err_set(err, ERR_TIMEOUT,
                   "the coordinator does not answer after %d s; see '%s'",
                   READY_MS / 1000, log);
}

static int start_coordinator(struct node *node, struct err *err)
{
    char program[FS_PATH_MAX], folder[FS_PATH_MAX], log[FS_PATH_MAX];
    const char *const argv[] = {program,       "--home",   node->home,   "--listen",
                                node->control, "--listen", node->listen, NULL};
    struct spawn how = {.argv = argv, PROCESS_DEAF};

    if (fs_path(program, err, "%s/vneva-coordinator", node->programs) < 0 ||
        fs_path(folder, err, "%s/logs", node->home) < 0 ||
        fs_path(log, err, "%s/coordinator.log", folder) < 0 ||
        fs_make_dirs(node->home, 0700, err) < 0 || fs_make_dirs(folder, 0700, err) < 0)
        return -1;
    if (process_start(&node->coordinator, how, log, err) < 0)
        return -1;
    return wait_ready(node, log, err);
}

/* Others reach it at the host they were told, whatever this machine calls itself. */
static int set_endpoint(struct node *node, struct err *err)
{
    const char *host = node->options.address;
    char endpoint[KEY_ENDPOINT_BYTES];
    const char *port;

    /* Slurm's name for a node need not be one that resolves; this machine's own does */
    if (!host && node->environment.launcher != LAUNCHER_SLURM)
        host = node->environment.master;
    if (keys_read_endpoint(endpoint, node->home, err) < 0)
        return -1;
    port = strrchr(endpoint, ':');
    if (!port)
        return err_set(err, ERR_FORMAT, "'%s' is no endpoint", endpoint);
    snprintf(node->listen, sizeof(node->listen), "tcp://*%s", port);
    if (host && *host && node->exchange->n_nodes > 1)
        snprintf(node->key.endpoint, sizeof(node->key.endpoint), "tcp://%s%s", host,
                 port);
    else
        snprintf(node->key.endpoint, sizeof(node->key.endpoint), "%s", endpoint);
    return 0;
}

/* So that one may look from another machine: `vneva status --key RUN/admin.key`. */
static int write_admin_key(const struct node *node, struct err *err)
{
    const char *name = "run-folder";
    char path[FS_PATH_MAX];
    struct authorized line = {.role = KEY_ADMIN};
    struct key key;
    int rc = -1;

    if (fs_path(path, err, "%s/admin.key", node->run) < 0 ||
        fs_remove_tree(path, err) < 0 || key_create(&key, name, KEY_ADMIN, err) < 0)
        return -1;
    snprintf(key.coordinator, sizeof(key.coordinator), "%s", node->key.coordinator);
    snprintf(key.endpoint, sizeof(key.endpoint), "%s", node->key.endpoint);
    snprintf(line.name, sizeof(line.name), "%s", name);
    snprintf(line.public_key, sizeof(line.public_key), "%s", key.public_key);
    keys_revoke(node->home, &name, 1, NULL); /* an earlier start's */
    if (keys_authorize(node->home, &line, 1, err) == 0)
        rc = key_write(&key, path, err);
    key_fini(&key);
    return rc;
}

int head_start(struct node *node, struct err *err)
{
    struct key coordinator;

    snprintf(node->listen, sizeof(node->listen), "tcp://*:*");
    if (fs_path(node->control, err, "ipc://%s/coordinator.sock", node->scratch.path) <
            0 ||
        net_client_open(&node->client, node->control, NULL, err) < 0 ||
        start_coordinator(node, err) < 0 ||
        keys_read_coordinator(&coordinator, node->home, err) < 0)
        return -1;
    snprintf(node->key.coordinator, sizeof(node->key.coordinator), "%s",
             coordinator.public_key);
    key_fini(&coordinator);
    return set_endpoint(node, err) < 0 ? -1 : write_admin_key(node, err);
}

int head_start_again(struct node *node, struct err *err)
{
    return start_coordinator(node, err);
}

int head_shut_down(struct node *node, int64_t grace_ms, int64_t linger_ms,
                   const char *reason, struct err *err)
{
    struct wire request = {.type = MSG_SHUTDOWN,
                           .shutdown = {reason, grace_ms, linger_ms}};
    struct wire reply;

    if (net_client_call(node->client, &request, &reply, ASK_MS, err) < 0)
        return -1;
    wire_fini(&reply);
    return 0;
}

/* ---- the job ---- */

int head_read_spec(struct node *node, struct err *err)
{
    const char *words[ARGUMENTS_MAX];
    struct spec_notes notes;
    struct spec *spec;
    int n = 0;

    for (; node->options.submit[n + 1]; n++) {
        if (n == ARGUMENTS_MAX)
            return err_set(err, ERR_LIMIT, "more than %d overrides", ARGUMENTS_MAX);
        words[n] = node->options.submit[n + 1];
    }
    if (spec_read(&spec, &notes, node->options.submit[0], SPEC_NONE, words, n, err) < 0)
        return -1;
    node->n_spec_devices = spec->trainer.devices;
    preflight_need(&node->need, spec, node->n_spec_devices, devices_count_files() > 0);
    n = preflight_paths(&node->paths, spec, err);
    spec_free(spec);
    spec_notes_fini(&notes);
    return n;
}

/* The request of this run folder, made when there is none: the same one again is the same
 * job. */
static int read_request(const struct node *node, struct buf *out, struct err *err)
{
    unsigned char random[REQUEST_BYTES];
    char path[FS_PATH_MAX];

    if (fs_path(path, err, "%s/request", node->run) < 0)
        return -1;
    if (fs_exists(path))
        return fs_read_file(out, path, 4 * REQUEST_BYTES, err);
    if (getrandom(random, sizeof(random), 0) != (ssize_t)sizeof(random))
        return err_set(err, ERR_IO, "no random numbers to be had: %s", strerror(errno));
    for (int i = 0; i < REQUEST_BYTES; i++)
        buf_printf(out, "%02x", random[i]);
    if (buf_check(out, err) < 0)
        return -1;
    return fs_write_file_atomic(path, out->data, out->n_bytes, err);
}

/* What a client of this node's coordinator needs to know. The home too: a launcher need not
 * hand the user's HOME on (srun --export=NONE). */
struct client_variables {
    char endpoint[VARIABLE_MAX], key[VARIABLE_MAX], home[VARIABLE_MAX];
    const char *list[4];
};

static void client_variables(struct client_variables *out, const struct node *node)
{
    snprintf(out->endpoint, sizeof(out->endpoint), "VNEVA_ENDPOINT=%s", node->control);
    snprintf(out->key, sizeof(out->key), "VNEVA_KEY=%s", node->key_path);
    snprintf(out->home, sizeof(out->home), "VNEVA_HOME=%s", node->home);
    out->list[0] = out->endpoint;
    out->list[1] = out->key;
    out->list[2] = out->home;
    out->list[3] = NULL;
}

static int run_submit(const struct node *node, const char *request,
                      struct spawn_said *said, struct err *err)
{
    char program[FS_PATH_MAX];
    const char *argv[ARGUMENTS_MAX + 8];
    struct client_variables variables;
    struct spawn how = {
        .argv = argv, .variables = variables.list, .err_fd = -1, PROCESS_DEAF};
    int n = 0;

    if (fs_path(program, err, "%s/vneva", node->programs) < 0)
        return -1;
    client_variables(&variables, node);
    argv[n++] = program;
    argv[n++] = "submit";
    argv[n++] = "--quiet";
    argv[n++] = "--request-id";
    argv[n++] = request;
    for (const char *const *word = node->options.submit; *word; word++)
        argv[n++] = *word; /* head_read_spec has counted them */
    argv[n] = NULL;
    return spawn_run(said, &how, SUBMIT_MS, err);
}

/* Why it was not accepted; all that was said is for whoever reads this program's log. */
static int submit_ended(const struct spawn_said *said, struct err *err)
{
    char why[LOG_TAIL + 1];

    fputs(buf_str(&said->errors), stderr);
    if (said->status == 0)
        return 0;
    last_line(why, &said->errors);
    return err_set(err, said->status == NODE_USAGE ? ERR_INVALID : ERR_STATE,
                   "the job was not accepted (`vneva submit`: status %d): %s",
                   said->status, *why ? why : "it says nothing");
}

static void note_job(struct node *node, const struct head_job *job)
{
    if (!job->has_ended)
        return;
    node->has_job_ended = true;
    node->job_exit = strcmp(job->state, "done") == 0 ? NODE_DONE : NODE_JOB_FAILED;
}

int head_submit(struct node *node, struct err *err)
{
    struct buf request = BUF_INIT;
    struct spawn_said said = {.status = 0};
    struct head_job job;
    int rc = read_request(node, &request, err);

    if (rc == 0)
        rc = run_submit(node, buf_str(&request), &said, err);
    if (said.is_late)
        rc = err_set(
            err, ERR_TIMEOUT,
            "`vneva submit` did not end within %d s and was killed: does the file "
            "system with the job's files answer? the same start again is safe",
            SUBMIT_MS / 1000);
    if (rc == 0)
        rc = submit_ended(&said, err);
    if (rc == 0)
        node->job = strtoll(buf_str(&said.out), NULL, 10);
    buf_fini(&request);
    spawn_said_fini(&said);
    if (rc < 0 || head_ask_job(node, &job, err) < 0)
        return -1;
    note_job(node, &job);
    if (job.has_ended)
        log_info("job %" PRId64 " of this run folder has ended already: it is %s%s%s; "
                 "another job needs another --run-dir",
                 node->job, job.state, job.reason[0] ? ": " : "", job.reason);
    else
        log_info("job %" PRId64 " is %s, %" PRId64 " done", node->job, job.state,
                 job.done);
    return 0;
}

int head_start_wait(struct node *node, struct err *err)
{
    char program[FS_PATH_MAX], job[24];
    const char *const argv[] = {program, "wait", job, NULL};
    struct client_variables variables;
    struct spawn how = {.argv = argv, .variables = variables.list, PROCESS_DEAF};

    if (fs_path(program, err, "%s/vneva", node->programs) < 0)
        return -1;
    client_variables(&variables, node);
    snprintf(job, sizeof(job), "%" PRId64, node->job);
    return process_start(&node->wait, how, NULL, err);
}

/* ---- how it is ---- */

static int query(struct node *node, const char *view, int64_t job, struct json **rows,
                 struct err *err)
{
    struct wire request = {.type = MSG_QUERY, .query = {view, job, 0, 0}}, reply;
    int rc;

    if (net_client_call(node->client, &request, &reply, ASK_MS, err) < 0)
        return -1;
    rc = json_parse(rows, reply.rows.json, strlen(reply.rows.json), err);
    wire_fini(&reply);
    return rc;
}

static int count_agents(struct node *node, int64_t *out, struct err *err)
{
    struct json *rows;

    if (query(node, "workers", 0, &rows, err) < 0)
        return -1;
    *out = 0;
    for (size_t i = 0; i < json_count(rows); i++) {
        const char *state = json_get_string(json_at(rows, i), "state");

        *out += state && strcmp(state, "up") == 0;
    }
    json_free(rows);
    return 0;
}

/* Tasks done and the newest checkpoint's step: both durable. */
static int write_progress(const struct node *node, const struct json *row,
                          struct err *err)
{
    const struct json *checkpoints = json_get(row, "checkpoints");
    size_t n = json_count(checkpoints);
    int64_t step = n ? json_get_int(json_at(checkpoints, n - 1), "step", -1) : -1;
    struct buf line = BUF_INIT, old = BUF_INIT;
    char path[FS_PATH_MAX];
    int rc = fs_path(path, err, "%s/progress", node->run);

    buf_printf(&line,
               "job %" PRId64 ": %" PRId64 " tasks done, checkpoint of step %" PRId64
               "\n",
               node->job, json_get_int(json_get(row, "tasks"), "done", 0), step);
    if (rc == 0 && (fs_read_file(&old, path, 4096, NULL) < 0 ||
                    strcmp(buf_str(&old), buf_str(&line)) != 0))
        rc = fs_write_file_atomic(path, line.data, line.n_bytes, err);
    buf_fini(&line);
    buf_fini(&old);
    return rc;
}

int head_ask_job(struct node *node, struct head_job *out, struct err *err)
{
    struct json *rows;
    const struct json *row;
    const char *state, *reason;
    int rc = 0;

    memset(out, 0, sizeof(*out));
    if (query(node, "job", node->job, &rows, err) < 0)
        return -1;
    row = json_at(rows, 0);
    state = json_get_string(row, "state");
    reason = json_get_string(row, "reason");
    snprintf(out->state, sizeof(out->state), "%s", state ? state : "?");
    snprintf(out->reason, sizeof(out->reason), "%s", reason ? reason : "");
    out->done = json_get_int(row, "done", 0);
    out->has_ended = strcmp(out->state, "done") == 0 ||
                     strcmp(out->state, "failed") == 0 ||
                     strcmp(out->state, "cancelled") == 0;
    out->is_waiting = strcmp(out->state, "queued") == 0;
    out->is_at_rest =
        out->has_ended || out->is_waiting || strcmp(out->state, "held") == 0;
    if (node->exchange->node == 0)
        rc = write_progress(node, row, err);
    if (rc == 0 && out->is_waiting)
        rc = count_agents(node, &out->n_agents, err);
    json_free(rows);
    note_job(node, out);
    return rc;
}
