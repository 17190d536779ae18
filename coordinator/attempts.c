/* Attempts: placed, started, stopped, ended; and what that makes of their job.
 *
 * An attempt that stops keeps its leases until its last rank is gone: a result that is on
 * its way counts. Only then do they go back and may another attempt have them.
 */
#include "common/base/json.h"
#include "coordinator/core.h"
#include "coordinator/scheduler.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STOP_AGAIN_MS 5000 /* between two RANK_STOP, beyond the grace given */

/* ---- sending ---- */

void attempt_send(struct core *core, const struct attempt *attempt,
                  const struct wire *message)
{
    for (int64_t r = 0; r < attempt->n_ranks; r++) {
        const struct rank *rank = &attempt->ranks[r];
        const struct agent *agent = model_agent_find(&core->model, rank->agent);
        bool is_told = rank->state == RANK_GONE || !agent;

        for (int64_t before = 0; before < r && !is_told; before++)
            is_told = attempt->ranks[before].state != RANK_GONE &&
                      strcmp(attempt->ranks[before].agent, rank->agent) == 0;
        if (!is_told)
            agent_send(core, agent, message);
    }
}

void attempt_send_start(struct core *core, struct job *job, struct attempt *attempt,
                        int64_t rank)
{
    const struct agent *agent =
        model_agent_find(&core->model, attempt->ranks[rank].agent);
    struct wire start = {.type = MSG_RANK_START};
    char folder[FS_PATH_MAX];
    struct net_secret secret;
    struct err err;

    if (!agent)
        return;
    if (fs_path(folder, &err, "%s/jobs/%lld", core->config.home, (long long)job->id) < 0)
        return store_fail(core->store, &err);
    start.rank_start = (struct msg_rank_start){.job = job->id,
                                               .attempt = attempt->number,
                                               .rank = rank,
                                               .n_ranks = attempt->n_ranks,
                                               .device = attempt->ranks[rank].device,
                                               .kind = job->kind,
                                               .name = job->name,
                                               .spec = job->spec,
                                               .folder = folder,
                                               .resume = job->resume};
    net_secret_derive(&secret, &core->config.secret, job->id, attempt->number);
    start.rank_start.secret = (struct wire_bytes){secret.bytes, sizeof(secret.bytes)};
    agent_send(core, agent, &start);
    net_secret_forget(&secret);
}

static void send_peers(struct core *core, const struct job *job,
                       const struct attempt *attempt)
{
    struct wire peers = {.type = MSG_PEERS};
    struct buf list = BUF_INIT;
    struct err err;

    buf_add_char(&list, '[');
    for (int64_t r = 0; r < attempt->n_ranks; r++) {
        if (r)
            buf_add_char(&list, ',');
        json_write_string(&list, attempt->ranks[r].endpoint,
                          strlen(attempt->ranks[r].endpoint));
    }
    buf_add_char(&list, ']');
    if (buf_check(&list, &err) < 0)
        store_fail(core->store, &err);
    peers.peers = (struct msg_peers){job->id, attempt->number, buf_str(&list)};
    attempt_send(core, attempt, &peers);
    buf_fini(&list);
}

static void send_end(struct core *core, const struct job *job,
                     const struct attempt *attempt)
{
    struct wire done = {.type = MSG_RANK_DONE, .rank_done = {job->id, attempt->number}};
    struct wire stop = {.type = MSG_RANK_STOP};

    stop.rank_stop = (struct msg_rank_stop){job->id, attempt->number, -1,
                                            attempt->grace_ms, attempt->reason};
    attempt_send(core, attempt, attempt->cause == CAUSE_DONE ? &done : &stop);
}

/* ---- starting ---- */

/* The ranks as the row holds them; recover.c reads them back. */
static void list_ranks(const struct attempt *attempt, struct buf *json)
{
    buf_add_char(json, '[');
    for (int64_t r = 0; r < attempt->n_ranks; r++) {
        const struct rank *rank = &attempt->ranks[r];

        buf_printf(
            json, "%s{\"rank\": %lld, \"device\": %lld, \"pid\": %lld, \"agent\": ",
            r ? ", " : "", (long long)r, (long long)rank->device, (long long)rank->pid);
        json_write_string(json, rank->agent, strlen(rank->agent));
        buf_add_char(json, '}');
    }
    buf_add_char(json, ']');
}

/* Remembers where each rank is. */
static int fill_ranks(struct core *core, struct attempt *attempt,
                      const struct sched_place *places, struct err *err)
{
    for (int64_t r = 0; r < attempt->n_ranks; r++) {
        struct agent *agent = core->model.agents[places[r].node];
        struct rank *rank = &attempt->ranks[r];

        rank->state = RANK_STARTING;
        rank->device = places[r].device;
        rank->agent = strdup(agent->name);
        if (!rank->agent)
            return err_set(err, ERR_NOMEM, "no memory for an attempt");
        agent_set_busy(core, agent, rank->device, true);
    }
    return 0;
}

static int write_start(struct core *core, struct job *job, struct attempt *attempt,
                       struct err *err)
{
    struct buf ranks = BUF_INIT;
    struct attempt_row row = {.id = attempt->id,
                              .job = job->id,
                              .number = attempt->number,
                              .n_ranks = attempt->n_ranks,
                              .started_ms = core->wall_ms,
                              .state = attempt_state_name(attempt->state),
                              .cause = attempt_cause_name(attempt->cause),
                              .reason = attempt->reason};
    int rc;

    list_ranks(attempt, &ranks);
    row.ranks = buf_str(&ranks);
    rc = buf_check(&ranks, err);
    store_attempt_insert(core->store, &row);
    store_job_attempt(core->store, job->id, attempt->number);
    core_event(core, job->id, "attempt", "attempt %lld starts with %lld ranks",
               (long long)attempt->number, (long long)attempt->n_ranks);
    buf_fini(&ranks);
    return rc;
}

static int start(struct core *core, struct job *job, const struct sched_place *places,
                 struct err *err)
{
    struct attempt *attempt;

    if (core_make_job_folder(core, job->id, err) < 0)
        return -1;
    attempt = job_attempt_add(job, core->last.attempt + 1, job->last_attempt + 1,
                              job->plan.n_ranks, err);
    if (!attempt)
        return -1;
    core->last.attempt++;
    job->last_attempt++;
    attempt->state = ATTEMPT_STARTING;
    if (job->plan.is_training)
        job->done = job->n_done; /* what an attempt before did beyond is done again */
    job->is_progress_new = true;
    if (fill_ranks(core, attempt, places, err) < 0 ||
        write_start(core, job, attempt, err) < 0) {
        store_fail(core->store, err); /* no half attempt may be committed */
        return -1;
    }
    if (job->state == JOB_QUEUED)
        job_change(core, job, JOB_EV_PLACE, "");
    for (int64_t r = 0; r < attempt->n_ranks; r++)
        attempt_send_start(core, job, attempt, r);
    return 0;
}

/* Where people find the processes. */
static void write_ranks(struct core *core, const struct attempt *attempt)
{
    struct buf ranks = BUF_INIT;
    struct err err;

    list_ranks(attempt, &ranks);
    if (buf_check(&ranks, &err) < 0)
        store_fail(core->store, &err);
    store_attempt_ranks(core->store, attempt->id, buf_str(&ranks));
    buf_fini(&ranks);
}

void attempt_rank_ready(struct core *core, struct job *job, struct attempt *attempt,
                        const struct msg_rank_ready *ready)
{
    struct rank *rank = &attempt->ranks[ready->rank];

    rank->state = RANK_READY;
    rank->pid = ready->pid;
    text_set(&rank->endpoint, ready->endpoint);
    if (!attempt_has_all(attempt, RANK_READY))
        return;
    write_ranks(core, attempt);
    if (attempt->state == ATTEMPT_STARTING) {
        attempt_change(core, job, attempt, ATTEMPT_EV_READY);
        if (job->state == JOB_PLACED)
            job_change(core, job, JOB_EV_READY, "");
    }
    send_peers(core, job, attempt); /* again when an agent has come back */
    attempt_lease_again(core, job, attempt);
}

/* ---- stopping ---- */

/* The last rank is gone. */
static void end(struct core *core, struct job *job, struct attempt *attempt)
{
    bool is_lost = attempt->cause == CAUSE_LOST && !job_state_is_ended(job->state);

    attempt_return_leases(core, job, attempt, attempt->is_blamed);
    attempt_change(core, job, attempt, ATTEMPT_EV_END);
    if (is_lost) {
        job->n_fruitless++;
        job->n_bad_inputs = attempt->has_bad_input ? job->n_bad_inputs + 1 : 0;
        job->not_before_ms = core->wall_ms + core_backoff_ms(core, job->n_fruitless);
        store_job_retry(core->store, job->id, job->n_fruitless, job->not_before_ms);
    }
    if (is_lost && job->goal == GOAL_RUN &&
        (job->n_fruitless >= CORE_FRUITLESS_MAX ||
         job->n_bad_inputs >= CORE_BAD_INPUTS_MAX)) {
        char reason[CORE_TEXT_MAX];

        core_text(reason, "%lld attempts without progress; the last: %s",
                  (long long)job->n_fruitless, attempt->reason);
        job_stop(core, job, GOAL_FAIL, CORE_LOST_GRACE_MS, reason);
    }
    job_settle(core, job);
}

void attempt_stop(struct core *core, struct job *job, struct attempt *attempt,
                  enum attempt_cause cause, int64_t grace_ms, const char *reason)
{
    if (!attempt_is_live(attempt))
        return;
    attempt->cause = cause;
    attempt->grace_ms = grace_ms;
    attempt->stop_again_mono_ms = core->mono_ms + grace_ms + STOP_AGAIN_MS;
    text_set(&attempt->reason, reason);
    attempt_change(core, job, attempt, ATTEMPT_EV_STOP);
    send_end(core, job, attempt);
    if (attempt_has_all(attempt, RANK_GONE))
        end(core, job, attempt);
    else
        job_settle(core, job);
}

void attempt_ask_again(struct core *core, struct job *job, struct attempt *attempt)
{
    struct wire stop = {.type = MSG_RANK_STOP};

    if (attempt->cause == CAUSE_DONE) /* its ranks had their time to end by themselves */
        attempt->grace_ms = CORE_LOST_GRACE_MS;
    attempt->stop_again_mono_ms = core->mono_ms + attempt->grace_ms + STOP_AGAIN_MS;
    stop.rank_stop = (struct msg_rank_stop){job->id, attempt->number, -1,
                                            attempt->grace_ms, attempt->reason};
    attempt_send(core, attempt, &stop);
}

void attempt_rank_gone(struct core *core, struct job *job, struct attempt *attempt,
                       int64_t rank)
{
    struct rank *r = &attempt->ranks[rank];
    struct agent *agent = model_agent_find(&core->model, r->agent);

    if (r->state == RANK_GONE)
        return;
    if (agent)
        agent_set_busy(core, agent, r->device, false);
    r->state = RANK_GONE;
    if (attempt->state == ATTEMPT_STOPPING && attempt_has_all(attempt, RANK_GONE))
        end(core, job, attempt);
}

/* ---- the job ---- */

static enum job_event event_of_goal(enum job_goal goal)
{
    static const enum job_event events[GOAL_COUNT] = {
        [GOAL_RUN] = JOB_EV_RETRY,
        [GOAL_HOLD] = JOB_EV_HOLD,
        [GOAL_CANCEL] = JOB_EV_CANCEL,
        [GOAL_FAIL] = JOB_EV_FAIL,
    };

    return events[goal];
}

/* Why the job waits again: what its last attempt died of. */
static void retry_reason(const struct core *core, const struct job *job, char *text)
{
    const struct attempt *last = NULL;
    int64_t wait_ms = job->not_before_ms - core->wall_ms;

    for (size_t i = 0; i < job->n_attempts; i++)
        if (job->attempts[i]->cause == CAUSE_LOST)
            last = job->attempts[i];
    text[0] = '\0';
    if (last)
        core_text(text, "attempt %lld was lost: %s; next try in %.1f s",
                  (long long)last->number, last->reason,
                  wait_ms > 0 ? (double)wait_ms / 1000 : 0.0);
}

void job_settle(struct core *core, struct job *job)
{
    char reason[CORE_TEXT_MAX];

    if (job_state_is_ended(job->state))
        return;
    if (!job_count_live(job) && (job->state == JOB_PLACED || job->state == JOB_RUNNING))
        job_change(core, job, JOB_EV_STOP, job->goal_reason);
    if (job_count_open(job) || job->state != JOB_STOPPING)
        return;
    retry_reason(core, job, reason);
    job_change(core, job, event_of_goal(job->goal),
               job->goal == GOAL_RUN ? reason : job->goal_reason);
}

void job_stop(struct core *core, struct job *job, enum job_goal goal, int64_t grace_ms,
              const char *reason)
{
    job->goal = goal;
    text_set(&job->goal_reason, reason);
    if (job->state == JOB_QUEUED || job->state == JOB_HELD) {
        job_change(core, job, event_of_goal(goal), reason);
        return;
    }
    job_write_state(core, job, reason);
    text_set(&job->reason, reason);
    core_event(core, job->id, "goal", "job %lld is to be stopped (%s): %s",
               (long long)job->id, job_goal_name(goal), reason);
    for (size_t i = 0; i < job->n_attempts; i++)
        attempt_stop(core, job, job->attempts[i], CAUSE_STOPPED, grace_ms, reason);
    job_settle(core, job);
}

void job_finish(struct core *core, struct job *job)
{
    job->done = job->total = job->plan.is_training ? job->plan.max_steps : job->n_samples;
    store_job_progress(core->store, job->id, job->done, job->total);
    job->is_progress_new = false;
    job_change(core, job, JOB_EV_FINISH, "");
    for (size_t i = 0; i < job->n_attempts; i++)
        attempt_stop(core, job, job->attempts[i], CAUSE_DONE, CORE_GRACE_MS,
                     "the job is done");
}

/* ---- deciding ---- */

/* Attempts the job could begin now. A batch job may have several. */
static int64_t count_wanted(struct core *core, struct job *job)
{
    bool is_running = job->state == JOB_PLACED || job->state == JOB_RUNNING;
    int64_t n_ready;

    if (job->goal != GOAL_RUN || job->not_before_ms > core->wall_ms ||
        (job->state != JOB_QUEUED && (!is_running || job->plan.is_training)) ||
        !job_task_next(job, core->wall_ms))
        return 0;
    if (job->plan.is_training)
        return 1;
    n_ready = (int64_t)(job->n_in_state[TASK_READY] - job_count_idle(job));
    return n_ready > 0 ? n_ready : 0;
}

/* What the scheduler is given and says. */
struct placing {
    struct sched_job *jobs;
    struct sched_node *nodes;
    struct awaited *awaited; /* [those of nodes that are not there] */
    int64_t n_jobs, n_agents, n_nodes;
    int64_t n_wanted; /* attempts in all */
    const struct sched_plan *plan;
};

static void explain_wait(struct core *core, const struct placing *placing, int64_t i)
{
    struct job *job = core->model.jobs[i];
    const char *reason = placing->plan->reasons[i], *pool = "";
    struct buf more = BUF_INIT;
    char text[CORE_TEXT_MAX];

    if (pools_explain(core, placing->plan, i, placing->n_agents, placing->awaited, &more,
                      &pool)) {
        core_text(text, "%s", buf_str(&more));
        reason = text;
    }
    if (job->state == JOB_QUEUED && *reason && strcmp(job->reason, reason) != 0)
        job_set_reason(core, job, reason, pool);
    buf_fini(&more);
}

/* Takes the plan over: starts, and why the others wait. */
static void apply_plan(struct core *core, const struct placing *placing)
{
    const struct sched_plan *plan = placing->plan;
    struct err err;

    for (int64_t i = 0; i < plan->n_starts; i++) {
        struct job *job = core->model.jobs[plan->starts[i].job];

        if (job->goal == GOAL_RUN && !plan->starts[i].n_awaited &&
            start(core, job, plan->starts[i].ranks, &err) < 0) {
            err_wrap(&err, "cannot start an attempt");
            job_stop(core, job, GOAL_FAIL, CORE_LOST_GRACE_MS, err.text);
        }
    }
    for (int64_t i = 0; i < plan->n_jobs; i++)
        if (core->model.jobs[i]->state == JOB_QUEUED && plan->reasons[i][0])
            explain_wait(core, placing, i);
}

/* The snapshot the scheduler sees. */
static int look(struct core *core, struct placing *placing)
{
    size_t n_jobs = core->model.n_jobs, n_agents = core->model.n_agents;
    size_t n_awaited = pools_count_nodes(core);

    placing->jobs = calloc(n_jobs + 1, sizeof(*placing->jobs));
    placing->nodes = calloc(n_agents + n_awaited + 1, sizeof(*placing->nodes));
    placing->awaited = calloc(n_awaited + 1, sizeof(*placing->awaited));
    if (!placing->jobs || !placing->nodes || !placing->awaited)
        return -1;
    for (size_t i = 0; i < n_jobs; i++) {
        struct job *job = core->model.jobs[i];

        placing->jobs[i] = (struct sched_job){job->plan.n_ranks, job->plan.group_size,
                                              count_wanted(core, job)};
        placing->n_wanted += placing->jobs[i].n_wanted;
    }
    for (size_t i = 0; i < n_agents; i++) {
        const struct agent *agent = core->model.agents[i];

        placing->nodes[i] = (struct sched_node){
            agent->is_ending || agent->is_leaving ? 0 : agent->n_devices, agent->is_busy,
            SCHED_HERE};
    }
    placing->n_jobs = (int64_t)n_jobs;
    placing->n_agents = (int64_t)n_agents;
    placing->n_nodes =
        placing->n_agents +
        (int64_t)pools_nodes(core, &placing->nodes[n_agents], placing->awaited);
    return 0;
}

/* What waits is placed as far as it can be; pools learn what it counts on. */
static int plan_and_apply(struct core *core, struct placing *placing, struct err *err)
{
    struct sched_plan plan;

    if (scheduler_plan(&plan, placing->nodes, placing->n_nodes, placing->jobs,
                       placing->n_jobs, err) < 0)
        return -1;
    placing->plan = &plan;
    pools_take(core, &plan, placing->n_agents, placing->awaited);
    apply_plan(core, placing);
    scheduler_plan_fini(&plan);
    placing->plan = NULL;
    return 0;
}

static void place(struct core *core)
{
    struct placing placing = {0};
    struct err err = {ERR_NOMEM, "no memory to plan"};

    pools_meet_agents(core);
    if (look(core, &placing) < 0 ||
        (placing.n_wanted > 0 && plan_and_apply(core, &placing, &err) < 0))
        store_fail(core->store, &err);
    free(placing.jobs);
    free(placing.nodes);
    free(placing.awaited);
}

void core_decide(struct core *core)
{
    for (size_t i = 0; i < core->model.n_jobs; i++) {
        struct job *job = core->model.jobs[i];

        for (size_t a = 0; a < job->n_attempts; a++)
            attempt_lease(core, job, job->attempts[a]);
        if (job->is_progress_new) {
            job_sum_progress(job);
            store_job_progress(core->store, job->id, job->done, job->total);
            job->is_progress_new = false;
        }
    }
    if (!core->is_ending)
        place(core);
    pools_decide(core);
}
