#include "tests/integration/cluster.h"
#include "common/base/buf.h"
#include "common/base/clock.h"
#include "common/base/fs.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define HEARTBEAT_MS 200
#define LOST_AFTER_MS 3000
#define CALL_TIMEOUT_MS 30000

/* ---- the coordinator's process ---- */

void cluster_init(struct cluster *cluster)
{
    const char *bin = getenv("VNEVA_BIN");
    struct err err = {ERR_NONE, ""};

    memset(cluster, 0, sizeof(*cluster));
    strcpy(cluster->home, "/tmp/vneva-coord-XXXXXX");
    assert_non_null(mkdtemp(cluster->home));
    assert_non_null(bin);
    snprintf(cluster->program, sizeof(cluster->program), "%s/vneva-coordinator", bin);
    snprintf(cluster->endpoint, sizeof(cluster->endpoint), "ipc://%s/coordinator.sock",
             cluster->home);
    cluster->lost_after_ms = LOST_AFTER_MS;
    if (net_client_open(&cluster->client, cluster->endpoint, NULL, &err) < 0)
        fail_msg("%s", err.text);
}

/* In the child: its log goes to a file in the home. */
static void run_coordinator(struct cluster *cluster, const char *fault)
{
    char path[128], beat[16], lost[16];
    char *argv[CLUSTER_OPTIONS_MAX + 16] = {"vneva-coordinator",
                                            "--home",
                                            cluster->home,
                                            "--heartbeat-ms",
                                            beat,
                                            "--lost-after-ms",
                                            lost,
                                            "--backoff-ms",
                                            "20"};
    int fd, n = 9;

    snprintf(path, sizeof(path), "%s/coordinator.log", cluster->home);
    snprintf(beat, sizeof(beat), "%d", HEARTBEAT_MS);
    snprintf(lost, sizeof(lost), "%lld", (long long)cluster->lost_after_ms);
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* a test that fails leaves none behind */
    fd = open(path, O_WRONLY | O_CREAT | O_APPEND, 0600);
    dup2(fd, STDERR_FILENO);
    if (fault)
        setenv("VNEVA_FAULT", fault, 1);
    for (int i = 0; i < cluster->n_options; i++)
        argv[n++] = (char *)(uintptr_t)cluster->options[i];
    execv(cluster->program, argv);
    _exit(127);
}

void cluster_start(struct cluster *cluster, const char *fault)
{
    assert_int_equal(cluster->pid, 0);
    cluster->pid = fork();
    assert_true(cluster->pid >= 0);
    if (cluster->pid == 0)
        run_coordinator(cluster, fault);
}

int cluster_reap(struct cluster *cluster, bool may_wait)
{
    int status;

    if (!cluster->pid || waitpid(cluster->pid, &status, may_wait ? 0 : WNOHANG) <= 0)
        return -1;
    cluster->pid = 0;
    return status;
}

void cluster_kill(struct cluster *cluster, int signal)
{
    assert_true(cluster->pid > 0);
    kill(cluster->pid, signal);
    cluster_reap(cluster, true);
}

void agent_close(struct fake_agent *agent)
{
    for (int i = 0; i < agent->n_pending; i++) {
        wire_fini(agent->pending[i]);
        free(agent->pending[i]);
    }
    agent->n_pending = 0;
    net_client_close(agent->client);
    agent->client = NULL;
}

void cluster_fini(struct cluster *cluster)
{
    if (cluster->pid)
        cluster_kill(cluster, SIGKILL);
    for (int i = 0; i < cluster->n_agents; i++)
        if (cluster->agents[i].client)
            agent_close(&cluster->agents[i]);
    net_client_close(cluster->client);
    fs_remove_tree(cluster->home, NULL);
}

/* ---- agents ---- */

struct fake_agent *cluster_add_agent(struct cluster *cluster, int64_t n_devices,
                                     int64_t n_samples)
{
    struct fake_agent *agent = &cluster->agents[cluster->n_agents];
    struct err err = {ERR_NONE, ""};

    assert_true(cluster->n_agents < CLUSTER_AGENTS_MAX);
    assert_true(n_devices <= AGENT_RANKS_MAX);
    *agent = (struct fake_agent){.n_devices = n_devices, .n_samples = n_samples};
    snprintf(agent->name, sizeof(agent->name), "agent-%d", cluster->n_agents++);
    if (net_client_open(&agent->client, cluster->endpoint, NULL, &err) < 0)
        fail_msg("%s", err.text);
    return agent;
}

static void send_message(struct fake_agent *agent, struct wire *message)
{
    struct err err;

    net_client_send(agent->client, message, &err); /* what is durable is sent again */
}

static void send_register(struct fake_agent *agent)
{
    struct wire message = {.type = MSG_REGISTER};
    struct buf running = BUF_INIT;
    const char *comma = "";

    buf_add_char(&running, '[');
    for (int i = 0; i < AGENT_RANKS_MAX; i++) {
        const struct fake_rank *rank = &agent->ranks[i];

        if (!rank->is_used)
            continue;
        buf_printf(&running, "%s{\"job\": %lld, \"attempt\": %lld, \"rank\": %lld}",
                   comma, (long long)rank->job, (long long)rank->attempt,
                   (long long)rank->rank);
        comma = ", ";
    }
    buf_add_char(&running, ']');
    message.registration = (struct msg_registration){.agent = agent->name,
                                                     .host = "testhost",
                                                     .pid = getpid(),
                                                     .n_devices = agent->n_devices,
                                                     .device_kind = "cpu",
                                                     .memory_bytes = 1 << 30,
                                                     .version = "test",
                                                     .running = buf_str(&running),
                                                     .pool = agent->pool,
                                                     .allocation = agent->allocation};
    send_message(agent, &message);
    buf_fini(&running);
}

/* Keeps a durable message until its ACK, and sends it. */
static void send_durable(struct fake_agent *agent, const struct wire *message)
{
    struct wire *kept = calloc(1, sizeof(*kept));
    struct err err;

    assert_non_null(kept);
    assert_true(agent->n_pending < AGENT_PENDING_MAX);
    assert_int_equal(wire_clone(kept, message, &err), 0);
    agent->pending[agent->n_pending++] = kept;
    if (agent->is_registered)
        send_message(agent, kept);
}

static void acknowledge(struct fake_agent *agent, int64_t sequence)
{
    for (int i = 0; i < agent->n_pending; i++) {
        struct wire *kept = agent->pending[i];

        if ((int64_t)kept->sequence != sequence)
            continue;
        if (kept->type == MSG_RANK_EXIT)
            for (int r = 0; r < AGENT_RANKS_MAX; r++)
                if (agent->ranks[r].job == kept->rank_exit.job &&
                    agent->ranks[r].attempt == kept->rank_exit.attempt &&
                    agent->ranks[r].rank == kept->rank_exit.rank)
                    agent->ranks[r].is_used = false;
        wire_fini(kept);
        free(kept);
        memmove((void *)&agent->pending[i], (void *)&agent->pending[i + 1],
                (size_t)(--agent->n_pending - i) * sizeof(agent->pending[0]));
        return;
    }
}

static void send_ready(struct fake_agent *agent, const struct fake_rank *rank)
{
    struct wire message = {.type = MSG_RANK_READY};
    char endpoint[32];

    snprintf(endpoint, sizeof(endpoint), "fake-%lld", (long long)rank->rank);
    message.rank_ready = (struct msg_rank_ready){.job = rank->job,
                                                 .attempt = rank->attempt,
                                                 .rank = rank->rank,
                                                 .endpoint = endpoint,
                                                 .pid = 4711};
    send_message(agent, &message);
}

static void on_registered(struct fake_agent *agent)
{
    agent->is_registered = true;
    for (int i = 0; i < agent->n_pending; i++)
        send_message(agent, agent->pending[i]);
    for (int i = 0; i < AGENT_RANKS_MAX; i++)
        if (agent->ranks[i].is_used && agent->ranks[i].is_ready &&
            !agent->ranks[i].is_ended)
            send_ready(agent, &agent->ranks[i]);
}

/* ---- ranks ---- */

static void end_rank(struct fake_agent *agent, struct fake_rank *rank, int64_t status,
                     const char *reason)
{
    struct wire message = {.type = MSG_RANK_EXIT};

    if (rank->is_ended)
        return;
    rank->is_ended = true;
    message.rank_exit =
        (struct msg_rank_exit){rank->job, rank->attempt, rank->rank, status, reason};
    send_durable(agent, &message);
}

static void on_rank_start(struct fake_agent *agent, const struct msg_rank_start *start)
{
    struct fake_rank *rank = NULL;

    for (int i = 0; i < AGENT_RANKS_MAX; i++) {
        struct fake_rank *r = &agent->ranks[i];

        if (r->is_used && r->job == start->job && r->attempt == start->attempt &&
            r->rank == start->rank)
            return; /* sent again */
        if (r->is_used && !r->is_ended)
            assert_int_not_equal(r->device, start->device);
        if (!r->is_used && !rank)
            rank = r;
    }
    assert_non_null(rank);
    *rank = (struct fake_rank){.is_used = true,
                               .is_ready = true,
                               .job = start->job,
                               .attempt = start->attempt,
                               .rank = start->rank,
                               .n_ranks = start->n_ranks,
                               .device = start->device};
    snprintf(rank->kind, sizeof(rank->kind), "%s", start->kind);
    snprintf(rank->resume, sizeof(rank->resume), "%s", start->resume);
    assert_true(start->device >= 0 && start->device < agent->n_devices);
    assert_true(fs_is_dir(start->folder));
    send_ready(agent, rank);
}

static void on_task_start(struct fake_agent *agent, const struct msg_task_start *start)
{
    for (int i = 0; i < AGENT_RANKS_MAX; i++) {
        struct fake_rank *rank = &agent->ranks[i];
        bool is_known = false;

        if (!rank->is_used || rank->is_ended || rank->job != start->job ||
            rank->attempt != start->attempt)
            continue;
        assert_true(rank->has_peers);
        for (int t = 0; t < AGENT_DONE_MAX; t++)
            is_known |= rank->done_tasks[t] == start->task;
        for (int t = 0; t < rank->n_tasks; t++)
            is_known |= rank->tasks[t].id == start->task;
        if (is_known || rank->rank != 0) /* the others would compute along */
            continue;
        assert_true(rank->n_tasks < AGENT_TASKS_MAX);
        struct fake_task *task = &rank->tasks[rank->n_tasks++];

        *task = (struct fake_task){start->task, start->first, start->count, "", false};
        snprintf(task->phase, sizeof(task->phase), "%s", start->phase);
        if (agent->round_trips_ns && agent->sent_ns && rank->rank == 0)
            agent->round_trips_ns[agent->n_done - 1] = clock_mono_ns() - agent->sent_ns;
    }
}

static bool is_training(const struct fake_rank *rank)
{
    return strcmp(rank->kind, "pretrain") == 0 || strcmp(rank->kind, "finetune") == 0;
}

static void write_result(const struct fake_agent *agent, const struct fake_rank *rank,
                         const struct fake_task *task, char *out, size_t n_bytes)
{
    long long end = task->first + task->count;

    if (is_training(rank) && end <= agent->begins_at)
        snprintf(out, n_bytes,
                 "{\"earlier\": {\"path\": \"/ckpt/old/step-%lld\", \"step\": %lld, "
                 "\"consumed_samples\": %lld}}",
                 (long long)agent->begins_at, (long long)agent->begins_at,
                 (long long)agent->begins_at * 8);
    else if (is_training(rank))
        snprintf(out, n_bytes,
                 "{\"checkpoint\": {\"path\": \"/ckpt/%lld/step-%lld\", \"step\": %lld, "
                 "\"consumed_samples\": %lld, \"val_loss\": 0.5}}",
                 (long long)rank->job, end, end, end * 8);
    else if (strcmp(task->phase, "plan") == 0)
        snprintf(out, n_bytes, "{\"n_samples\": %lld}", (long long)agent->n_samples);
    else if (strcmp(task->phase, "finish") == 0)
        snprintf(out, n_bytes,
                 "{\"path\": \"/data/%lld\", \"n_samples\": %lld, \"n_rejects\": 1, "
                 "\"fingerprint\": \"f%lld\"}",
                 (long long)rank->job, (long long)agent->n_samples, (long long)rank->job);
    else
        snprintf(out, n_bytes, "{\"first\": %lld}", (long long)task->first);
}

static void report_done(struct fake_agent *agent, struct fake_rank *rank)
{
    struct wire message = {.type = MSG_TASK_DONE};
    char result[512];

    write_result(agent, rank, &rank->tasks[0], result, sizeof(result));
    message.task_done =
        (struct msg_task_done){rank->job, rank->attempt, rank->tasks[0].id, result};
    send_durable(agent, &message);
    agent->n_done++;
    agent->sent_ns = clock_mono_ns();
    rank->done_tasks[rank->n_done++ % AGENT_DONE_MAX] = rank->tasks[0].id;
    memmove(&rank->tasks[0], &rank->tasks[1],
            (size_t)--rank->n_tasks * sizeof(rank->tasks[0]));
}

static void report_failed(struct fake_agent *agent, struct fake_rank *rank)
{
    struct wire message = {.type = MSG_TASK_FAILED};

    message.task_failed = (struct msg_task_failed){rank->job, rank->attempt,
                                                   rank->tasks[0].id, "bad sample"};
    send_durable(agent, &message);
    memmove(&rank->tasks[0], &rank->tasks[1],
            (size_t)--rank->n_tasks * sizeof(rank->tasks[0]));
}

/* Rank 0 answers for all; the others of an attempt only wait. */
static void play_rank(struct fake_agent *agent, struct fake_rank *rank)
{
    while (rank->is_used && !rank->is_ended && rank->rank == 0 && rank->n_tasks > 0) {
        bool is_special = strcmp(rank->tasks[0].phase, "work") == 0 &&
                          rank->tasks[0].first >= agent->keep_from;
        enum script script = is_special ? agent->script : SCRIPT_WORK;

        if (script == SCRIPT_KEEP)
            return;
        if (script == SCRIPT_DIE)
            end_rank(agent, rank, 128 + SIGKILL, "");
        else if (script == SCRIPT_REFUSE)
            end_rank(agent, rank, 2, "bad input");
        else if (script == SCRIPT_FAIL)
            report_failed(agent, rank);
        else
            report_done(agent, rank);
    }
    if (rank->is_used && !rank->is_ended && rank->is_done_told && rank->n_tasks == 0)
        end_rank(agent, rank, 0, "");
}

static void each_rank(struct fake_agent *agent, const struct wire *m)
{
    for (int i = 0; i < AGENT_RANKS_MAX; i++) {
        struct fake_rank *rank = &agent->ranks[i];

        if (!rank->is_used)
            continue;
        if (m->type == MSG_PEERS && rank->job == m->peers.job &&
            rank->attempt == m->peers.attempt)
            rank->has_peers = true;
        if (m->type == MSG_RANK_DONE && rank->job == m->rank_done.job &&
            rank->attempt == m->rank_done.attempt)
            rank->is_done_told = true;
        if (m->type == MSG_RANK_STOP && !agent->ignores_stop &&
            rank->job == m->rank_stop.job && rank->attempt == m->rank_stop.attempt &&
            (m->rank_stop.rank < 0 || rank->rank == m->rank_stop.rank))
            end_rank(agent, rank, 128 + SIGTERM, m->rank_stop.reason);
    }
}

static void agent_receive(struct fake_agent *agent, const struct wire *m)
{
    switch (m->type) {
    case MSG_REGISTERED:
        on_registered(agent);
        break;
    case MSG_UNKNOWN_AGENT:
        if (agent->is_registered || m->reply_to) {
            agent->is_registered = false;
            agent->next_beat_ms = 0;
        }
        break;
    case MSG_ACK:
        acknowledge(agent, m->ack.acked);
        break;
    case MSG_RANK_START:
        on_rank_start(agent, &m->rank_start);
        break;
    case MSG_TASK_START:
        on_task_start(agent, &m->task_start);
        break;
    case MSG_RANK_STOP:
        agent->last_stop_grace_ms = m->rank_stop.grace_ms;
        each_rank(agent, m);
        break;
    case MSG_PEERS:
    case MSG_RANK_DONE:
        each_rank(agent, m);
        break;
    case MSG_AGENT_STOP:
        agent->is_stopped = true;
        for (int i = 0; i < AGENT_RANKS_MAX; i++)
            if (agent->ranks[i].is_used)
                end_rank(agent, &agent->ranks[i], 128 + SIGTERM, "agent stops");
        break;
    case MSG_ERROR:
        snprintf(agent->last_error, sizeof(agent->last_error), "%s", m->error.code);
        break;
    default:
        fail_msg("agent got %s", msg_type_name(m->type));
    }
}

static void agent_step(struct fake_agent *agent)
{
    int64_t now_ms = clock_mono_ms();
    struct wire message;
    struct err err;

    if (agent->is_silent || !agent->client)
        return;
    if (now_ms >= agent->next_beat_ms) {
        struct wire beat = {.type = MSG_HEARTBEAT, .heartbeat = {agent->name}};

        if (agent->is_registered)
            send_message(agent, &beat);
        else
            send_register(agent);
        agent->next_beat_ms = now_ms + HEARTBEAT_MS;
    }
    while (net_client_receive(agent->client, &message, 0, &err) > 0) {
        agent_receive(agent, &message);
        wire_fini(&message);
    }
    for (int i = 0; i < AGENT_RANKS_MAX; i++)
        play_rank(agent, &agent->ranks[i]);
}

void cluster_step(struct cluster *cluster, int64_t wait_ms)
{
    for (int i = 0; i < cluster->n_agents; i++)
        agent_step(&cluster->agents[i]);
    if (wait_ms)
        poll(NULL, 0, (int)wait_ms); /* gives the processor away; no rule waits */
}

bool cluster_wait(struct cluster *cluster, bool (*holds)(struct cluster *, void *),
                  void *context)
{
    int64_t deadline_ms = clock_mono_ms() + CLUSTER_DEADLINE_MS;

    while (!holds(cluster, context)) {
        if (clock_mono_ms() >= deadline_ms)
            return false;
        cluster_step(cluster, 1);
    }
    return true;
}

/* ---- the test's own client ---- */

int cluster_call(struct cluster *cluster, struct wire *request, struct wire *reply,
                 struct err *err)
{
    int64_t deadline_ms = clock_mono_ms() + CALL_TIMEOUT_MS;

    if (net_client_send(cluster->client, request, err) < 0)
        return -1;
    while (clock_mono_ms() < deadline_ms) {
        int rc = net_client_receive(cluster->client, reply, 1, err);

        if (rc < 0)
            return -1;
        if (rc > 0 && reply->reply_to == request->sequence) {
            if (reply->type != MSG_ERROR)
                return 0;
            err_set(err, ERR_PEER, "%s: %s", reply->error.code, reply->error.text);
            wire_fini(reply);
            return -1;
        }
        if (rc > 0)
            wire_fini(reply);
        cluster_step(cluster, 0);
    }
    return err_set(err, ERR_TIMEOUT, "no answer");
}

int64_t cluster_submit(struct cluster *cluster, const char *request_id, const char *kind,
                       const char *spec)
{
    struct wire request = {.type = MSG_SUBMIT}, reply = {.type = MSG_NONE};
    struct err err = {ERR_NONE, ""};
    int64_t job;

    request.submit = (struct msg_submit){request_id, kind, "test", spec};
    if (cluster_call(cluster, &request, &reply, &err) < 0)
        fail_msg("submit: %s", err.text);
    assert_int_equal(reply.type, MSG_SUBMITTED);
    job = reply.submitted.job;
    wire_fini(&reply);
    return job;
}

void cluster_wait_end(struct cluster *cluster)
{
    int64_t deadline_ms = clock_mono_ms() + CLUSTER_DEADLINE_MS;

    while (cluster_reap(cluster, false) < 0) {
        assert_true(clock_mono_ms() < deadline_ms);
        cluster_step(cluster, 1);
    }
}

/* A question that shared its turn with a commit made to fail is asked again. */
struct json *cluster_rows(struct cluster *cluster, const char *view, int64_t job)
{
    struct wire request = {.type = MSG_QUERY}, reply = {.type = MSG_NONE};
    struct err err = {ERR_NONE, ""};
    struct json *rows = NULL;

    request.query = (struct msg_query){view, job, 0, 0};
    while (cluster_call(cluster, &request, &reply, &err) < 0)
        if (!strstr(err.text, "fault point"))
            fail_msg("query %s: %s", view, err.text);
    assert_int_equal(reply.type, MSG_ROWS);
    if (json_parse(&rows, reply.rows.json, strlen(reply.rows.json), &err) < 0)
        fail_msg("query %s: %s", view, err.text);
    wire_fini(&reply);
    return rows;
}

void cluster_job_text(struct cluster *cluster, int64_t job, const char *key, char *out,
                      size_t n_bytes)
{
    struct json *rows = cluster_rows(cluster, "job", job);
    const char *text = json_get_string(json_at(rows, 0), key);

    snprintf(out, n_bytes, "%s", text ? text : "");
    json_free(rows);
}

void cluster_wait_job(struct cluster *cluster, int64_t job, const char *state)
{
    int64_t deadline_ms = clock_mono_ms() + CLUSTER_DEADLINE_MS;
    char now[32], reason[512];

    for (;;) {
        cluster_job_text(cluster, job, "state", now, sizeof(now));
        if (strcmp(now, state) == 0)
            return;
        if (clock_mono_ms() >= deadline_ms)
            break;
        for (int i = 0; i < 10; i++)
            cluster_step(cluster, 1);
    }
    cluster_job_text(cluster, job, "reason", reason, sizeof(reason));
    fail_msg("job %lld is %s, not %s: %s", (long long)job, now, state, reason);
}

/* ---- specs ---- */

void spec_prepare(char *out, size_t n_bytes, int64_t shard_size)
{
    snprintf(
        out, n_bytes,
        "{\"kind\": \"prepare\", \"name\": \"test\", \"model\": {\"encoder_seq_length\": "
        "256, \"mm_cfg\": {\"vision_encoder\": {\"patch_dim\": 16, \"crop_size\": "
        "[64, 64]}}, \"tokenizer\": "
        "{\"library\": \"sentencepiece\", \"model\": \"t.model\"}, \"data\": "
        "{\"data_path\": \"a.jsonl\", \"video_folder\": \"v\", \"output\": \"out\", "
        "\"num_frames\": 4, "
        "\"shard_size\": %lld}}}",
        (long long)shard_size);
}

void spec_train(char *out, size_t n_bytes, int64_t max_steps, int64_t checkpoint_steps,
                int64_t n_ranks)
{
    snprintf(
        out, n_bytes,
        "{\"kind\": \"pretrain\", \"name\": \"test\", \"trainer\": {\"devices\": %lld, "
        "\"num_nodes\": 1, \"max_steps\": %lld, \"precision\": \"32\"}, \"exp_manager\": "
        "{\"checkpoint_callback_params\": {\"every_n_train_steps\": %lld, "
        "\"save_top_k\": 2}}, \"model\": {\"tensor_model_parallel_size\": %lld, "
        "\"micro_batch_size\": 4, \"global_batch_size\": 8, \"encoder_seq_length\": 256, "
        "\"num_layers\": 2, \"hidden_size\": 64, \"ffn_hidden_size\": 128, "
        "\"num_attention_heads\": 4, \"mm_cfg\": {\"vision_encoder\": {\"patch_dim\": "
        "16, "
        "\"crop_size\": [64, 64], \"hidden_size\": 64, \"ffn_hidden_size\": 128, "
        "\"num_layers\": 2, \"num_attention_heads\": 4}}, \"tokenizer\": {\"library\": "
        "\"sentencepiece\", \"model\": \"t.model\"}, \"data\": {\"data_path\": \"d\", "
        "\"num_frames\": 4}, \"optim\": {\"lr\": 0.001}}}",
        (long long)n_ranks, (long long)max_steps, (long long)checkpoint_steps,
        (long long)n_ranks);
}
