/* What clients ask for. Every request gets exactly one answer. */
#include "coordinator/core.h"
#include "coordinator/roles.h"

#include <stdio.h>
#include <string.h>

#define REQUEST_ID_MAX 128
#define JOB_NAME_MAX 256
#define JOB_SPEC_MAX (96 << 10) /* bytes: RANK_START is one message to a rank */

static void reply_ok(struct core *core, const struct net_peer *to,
                     const struct wire *request, const char *text)
{
    struct wire answer = {.type = MSG_OK, .ok = {text}};

    core_reply(core, to, request, &answer);
}

/* ---- submit ---- */

static int check_submit(const struct msg_submit *submit, struct err *err)
{
    size_t n_id = strlen(submit->request_id), n_name = strlen(submit->name);

    if (n_id == 0 || n_id > REQUEST_ID_MAX)
        return err_set(err, ERR_INVALID, "a request id has 1 to %d bytes",
                       REQUEST_ID_MAX);
    if (n_name == 0 || n_name > JOB_NAME_MAX)
        return err_set(err, ERR_INVALID, "a job's name has 1 to %d bytes", JOB_NAME_MAX);
    if (strlen(submit->spec) > JOB_SPEC_MAX)
        return err_set(err, ERR_LIMIT, "a spec has at most %d bytes, this one has %zu",
                       JOB_SPEC_MAX, strlen(submit->spec));
    return 0;
}

static int write_job(struct core *core, const struct job *job, const char *request_id,
                     struct err *err)
{
    char folder[FS_PATH_MAX];
    struct job_row row = {.id = job->id,
                          .n_ranks = job->plan.n_ranks,
                          .group_size = job->plan.group_size,
                          .shard_size = job->plan.shard_size,
                          .max_steps = job->plan.max_steps,
                          .checkpoint_steps = job->plan.checkpoint_steps,
                          .n_kept = job->plan.n_kept,
                          .n_samples = job->n_samples,
                          .total = job->total,
                          .submitted_ms = job->submitted_ms,
                          .request_id = request_id,
                          .name = job->name,
                          .kind = job->kind,
                          .spec = job->spec,
                          .state = job_state_name(job->state),
                          .goal = job_goal_name(job->goal),
                          .reason = job->reason,
                          .folder = folder};

    if (fs_path(folder, err, "%s/jobs/%lld", core->config.home, (long long)job->id) < 0)
        return -1;
    store_job_insert(core->store, &row);
    return 0;
}

static int add_job(struct core *core, const struct net_peer *from,
                   const struct msg_submit *submit, int64_t *id, struct err *err)
{
    struct job_plan plan;
    struct job *job;

    if (check_submit(submit, err) < 0 ||
        job_plan_from_spec(&plan, submit->kind, submit->spec, err) < 0)
        return -1;
    job = model_job_add(&core->model, core->last.job + 1, submit->name, submit->kind,
                        submit->spec, err);
    if (!job)
        return -1;
    *id = ++core->last.job;
    job->plan = plan;
    job->state = JOB_SUBMITTED;
    job->goal = GOAL_RUN;
    job->n_samples = -1;
    job->submitted_ms = core->wall_ms;
    job->total = plan.is_training ? plan.max_steps : 0;
    if (write_job(core, job, submit->request_id, err) < 0 ||
        job_make_first_tasks(core, job, err) < 0) {
        store_fail(core->store, err); /* no half job may be committed */
        return -1;
    }
    core_event(core, job->id, "submitted", "job %lld '%s' (%s) submitted%s%s",
               (long long)job->id, job->name, job->kind, from->key_name[0] ? " by " : "",
               from->key_name);
    job_change(core, job, JOB_EV_ACCEPT, "");
    return 0;
}

static int submit(struct core *core, const struct net_peer *from,
                  const struct wire *message, struct err *err)
{
    struct wire answer = {.type = MSG_SUBMITTED};
    int64_t job;

    if (store_find_request(core->store, message->submit.request_id, &job, err) < 0)
        return -1;
    answer.submitted.is_new = job == 0;
    if (!job && add_job(core, from, &message->submit, &job, err) < 0)
        return -1;
    answer.submitted.job = job;
    core_reply(core, from, message, &answer);
    return 0;
}

/* ---- wishes ---- */

/* The job, when it has not ended; else says why not. */
static struct job *find_open_job(struct core *core, int64_t id, struct err *err)
{
    struct job *job = model_job_find(&core->model, id);
    int64_t attempt;
    char state[16];

    if (job && !job_state_is_ended(job->state))
        return job;
    if (store_find_job(core->store, id, state, &attempt, err) == 0)
        err_set(err, ERR_STATE, "job %lld is %s", (long long)id, state);
    return NULL;
}

static int cancel(struct core *core, const struct msg_cancel *wish, struct err *err)
{
    struct job *job = find_open_job(core, wish->job, err);
    char reason[CORE_TEXT_MAX];

    if (!job)
        return -1;
    core_text(reason, "%s", wish->reason[0] ? wish->reason : "cancelled");
    if (job->goal != GOAL_CANCEL)
        job_stop(core, job, GOAL_CANCEL, CORE_GRACE_MS, reason);
    return 0;
}

static int hold(struct core *core, int64_t id, struct err *err)
{
    struct job *job = find_open_job(core, id, err);

    if (!job)
        return -1;
    if (job->goal != GOAL_RUN)
        return err_set(err, ERR_STATE, "job %lld is %s, to %s", (long long)id,
                       job_state_name(job->state), job_goal_name(job->goal));
    job_stop(core, job, GOAL_HOLD, CORE_GRACE_MS, "held");
    return 0;
}

static int release(struct core *core, int64_t id, struct err *err)
{
    struct job *job = find_open_job(core, id, err);

    if (!job)
        return -1;
    if (job->goal != GOAL_HOLD)
        return err_set(err, ERR_STATE, "job %lld is not held", (long long)id);
    job->goal = GOAL_RUN;
    text_set(&job->goal_reason, "");
    if (job->state == JOB_HELD)
        job_change(core, job, JOB_EV_RELEASE, "");
    else /* still stopping: it will go on */
        job_write_state(core, job, "");
    return 0;
}

/* Everything stops; jobs go back to the queue and go on at the next start. */
static void shut_down(struct core *core, const struct msg_shutdown *shutdown)
{
    int64_t grace_ms = core_grace_ms(shutdown->grace_ms);
    struct wire stop = {.type = MSG_AGENT_STOP,
                        .agent_stop = {shutdown->reason, grace_ms}};

    core->ending_linger_ms = shutdown->linger_ms;
    if (core->is_ending && grace_ms >= core->ending_grace_ms)
        return; /* all have been told */
    core->is_ending = true;
    core->ending_grace_ms = grace_ms;
    core_event(core, 0, "shutdown", "shutdown: %s", shutdown->reason);
    for (size_t j = 0; j < core->model.n_jobs; j++)
        for (size_t a = 0; a < core->model.jobs[j]->n_attempts; a++)
            attempt_stop(core, core->model.jobs[j], core->model.jobs[j]->attempts[a],
                         CAUSE_STOPPED, grace_ms, "shutdown");
    for (size_t i = 0; i < core->model.n_agents; i++)
        agent_send(core, core->model.agents[i], &stop);
    pools_shut_down(core);
}

/* ---- questions ---- */

static int query(struct core *core, const struct net_peer *from,
                 const struct wire *message, struct err *err)
{
    const struct msg_query *q = &message->query;
    struct wire answer = {.type = MSG_ROWS};
    struct buf json = BUF_INIT;
    int rc = store_view(core->store, &json, q->view, q->job, q->since, q->limit, err);

    if (rc == 0 && json.n_bytes > WIRE_MESSAGE_MAX / 2)
        rc = err_set(err, ERR_LIMIT, "%zu bytes of rows; ask for fewer with a limit",
                     json.n_bytes);
    answer.rows.json = buf_str(&json);
    if (rc == 0)
        core_reply(core, from, message, &answer);
    buf_fini(&json);
    return rc;
}

static int logs(struct core *core, const struct net_peer *from,
                const struct wire *message, struct err *err)
{
    struct wire answer = {.type = MSG_LOG_CHUNK};
    struct buf data = BUF_INIT;
    int rc = log_read(core, &message->logs, &data, &answer, err);

    if (rc == 0)
        core_reply(core, from, message, &answer);
    buf_fini(&data);
    return rc;
}

static void pong(struct core *core, const struct net_peer *from,
                 const struct wire *message)
{
    struct wire answer = {.type = MSG_PONG, .pong = {message->ping.nonce, VNEVA_VERSION}};

    core_reply(core, from, message, &answer);
}

/* 1: answered already, 0: OK is the answer, -1: the error is. */
static int handle(struct core *core, const struct net_peer *from,
                  const struct wire *message, struct err *err)
{
    switch (message->type) {
    case MSG_SUBMIT:
        return submit(core, from, message, err) < 0 ? -1 : 1;
    case MSG_QUERY:
        return query(core, from, message, err) < 0 ? -1 : 1;
    case MSG_SELECT: /* answered later, by the loop */
        return queries_ask(core->queries, from, message, err) < 0 ? -1 : 1;
    case MSG_LOGS:
        return logs(core, from, message, err) < 0 ? -1 : 1;
    case MSG_PING:
        pong(core, from, message);
        return 1;
    case MSG_CANCEL:
        return cancel(core, &message->cancel, err);
    case MSG_HOLD:
        return hold(core, message->hold.job, err);
    case MSG_RELEASE:
        return release(core, message->release.job, err);
    case MSG_SHUTDOWN:
        shut_down(core, &message->shutdown);
        return 0;
    case MSG_POOL_ADD:
    case MSG_POOL_REMOVE:
    case MSG_POOL_PAUSE:
    case MSG_POOL_RESUME:
        return pools_request(core, message, err);
    default: /* roles_check lets nothing else through */
        return err_set(err, ERR_INVALID, "%s is not for a coordinator",
                       msg_type_name(message->type));
    }
}

/* Whose wish it was that was granted; the user's own, over ipc, needs no line. */
static void note_who(struct core *core, const struct net_peer *from,
                     const struct wire *message)
{
    int64_t job = 0;

    if (message->type == MSG_CANCEL)
        job = message->cancel.job;
    else if (message->type == MSG_HOLD)
        job = message->hold.job;
    else if (message->type == MSG_RELEASE)
        job = message->release.job;
    if (from->key_name[0])
        core_event(core, job, "key", "%s by '%s'", msg_type_name(message->type),
                   from->key_name);
}

void clients_receive(struct core *core, const struct net_peer *from,
                     const struct wire *message)
{
    struct err err;
    int rc = handle(core, from, message, &err);

    if (rc == 0) {
        note_who(core, from, message);
        reply_ok(core, from, message, "");
    } else if (rc < 0) {
        core_reply_error(core, from, message, &err);
    }
}

void core_receive(struct core *core, const struct net_peer *from,
                  const struct wire *message)
{
    struct err err;

    if (roles_check(from, message->type, &err) < 0) {
        core_reply_error(core, from, message, &err);
        return;
    }
    switch (message->type) {
    case MSG_REGISTER:
    case MSG_HEARTBEAT:
    case MSG_RANK_READY:
    case MSG_RANK_EXIT:
    case MSG_TASK_DONE:
    case MSG_TASK_FAILED:
    case MSG_PROGRESS:
    case MSG_RANK_STAGE:
    case MSG_LOG:
    case MSG_AGENT_ENDING:
    case MSG_AGENT_GONE:
        agents_receive(core, from, message);
        break;
    default:
        clients_receive(core, from, message);
        break;
    }
}
