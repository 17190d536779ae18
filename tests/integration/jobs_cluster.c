#include "tests/integration/jobs_cluster.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

int jobs_set_up(void **state)
{
    struct cluster *cluster = calloc(1, sizeof(*cluster));

    if (!cluster)
        return -1;
    cluster_init(cluster);
    cluster_start(cluster, NULL);
    *state = cluster;
    return 0;
}

int jobs_tear_down(void **state)
{
    cluster_fini(*state);
    free(*state);
    return 0;
}

int64_t job_int(struct cluster *cluster, int64_t job, const char *key)
{
    struct json *rows = cluster_rows(cluster, "job", job);
    int64_t value = json_get_int(json_at(rows, 0), key, -1);

    json_free(rows);
    return value;
}

int64_t submit_prepare(struct cluster *cluster, const char *request_id,
                       int64_t shard_size)
{
    char spec[1024];

    spec_prepare(spec, sizeof(spec), shard_size);
    return cluster_submit(cluster, request_id, "prepare", spec);
}

int64_t submit_train(struct cluster *cluster, const char *request_id, int64_t max_steps,
                     int64_t checkpoint_steps, int64_t n_ranks)
{
    char spec[2048];

    spec_train(spec, sizeof(spec), max_steps, checkpoint_steps, n_ranks);
    return cluster_submit(cluster, request_id, "pretrain", spec);
}

/* Sends a request; returns its error's text or "" for an answer. */
const char *ask(struct cluster *cluster, struct wire *request, struct err *err)
{
    struct wire reply;

    err_clear(err);
    if (cluster_call(cluster, request, &reply, err) == 0)
        wire_fini(&reply);
    return err->text;
}

bool has_kept_task(struct cluster *cluster, void *context)
{
    (void)context;
    for (int a = 0; a < cluster->n_agents; a++)
        for (int i = 0; i < AGENT_RANKS_MAX; i++) {
            const struct fake_rank *rank = &cluster->agents[a].ranks[i];

            if (rank->is_used && !rank->is_ended && rank->n_tasks > 0 &&
                strcmp(rank->tasks[0].phase, "work") == 0 &&
                rank->tasks[0].first >= cluster->agents[a].keep_from)
                return true;
        }
    return false;
}

/* A training job of 40 steps that has its first 20 done and sits on the rest. */
int64_t start_and_keep(struct cluster *cluster, struct fake_agent **agent)
{
    int64_t job = submit_train(cluster, "kept", 40, 10, 2);

    *agent = cluster_add_agent(cluster, 2, 0);
    (*agent)->script = SCRIPT_KEEP;
    (*agent)->keep_from = 20;
    assert_true(cluster_wait(cluster, has_kept_task, NULL));
    return job;
}

static bool has_task(struct cluster *cluster, void *context)
{
    const struct fake_agent *agent = context;

    (void)cluster;
    return agent->ranks[0].is_used && agent->ranks[0].n_tasks > 0;
}

int64_t start_training(struct cluster *cluster, const char *name,
                       struct fake_agent **agent)
{
    struct wire request = {.type = MSG_SUBMIT}, reply = {.type = MSG_NONE};
    struct err err = {ERR_NONE, ""};
    char spec[2048];
    int64_t job;

    *agent = cluster_add_agent(cluster, 2, 0);
    (*agent)->script = SCRIPT_KEEP;
    spec_train(spec, sizeof(spec), 40, 10, 2);
    request.submit = (struct msg_submit){"training", "pretrain", name, spec};
    if (cluster_call(cluster, &request, &reply, &err) < 0)
        fail_msg("%s", err.text);
    job = reply.submitted.job;
    wire_fini(&reply);
    assert_true(cluster_wait(cluster, has_task, *agent));
    return job;
}

static bool has_metrics(struct cluster *cluster, void *context)
{
    struct json *rows = cluster_rows(cluster, "metrics", *(int64_t *)context);
    bool has_both = json_count(rows) == 2;

    json_free(rows);
    return has_both;
}

void tell_two_steps(struct cluster *cluster, struct fake_agent *agent, int64_t job)
{
    struct wire progress = {.type = MSG_PROGRESS};

    progress.progress = (struct msg_progress){
        .job = job, .attempt = 1, .stage = "training", .total = 40, .done = 2};
    for (int64_t step = 1; step <= 2; step++) {
        progress.progress.step = step;
        progress.progress.metrics =
            step == 1 ? "{\"loss\": 4.5, \"step_ms\": 100}"
                      : "{\"loss\": 3.25, \"step_ms\": 100, \"comm_ms\": 30, \"wait_ms\":"
                        " 20, \"samples_per_s\": 64}";
        assert_int_equal(net_client_send(agent->client, &progress, NULL), 0);
    }
    assert_true(cluster_wait(cluster, has_metrics, &job));
}

bool rank_has_died(struct cluster *cluster, void *context)
{
    (void)cluster;
    return ((struct fake_agent *)context)->n_pending == 0 &&
           ((struct fake_agent *)context)->ranks[0].is_ended;
}
