/* Agents: registered, heard, lost. After a restart of either side the list of ranks that
 * REGISTER carries is compared with what should be. */
#include "common/base/json.h"
#include "coordinator/core.h"
#include "coordinator/roles.h"

#include <stdio.h>
#include <string.h>

#define SEEN_WRITTEN_EVERY_MS 1000 /* last_seen_ms of the workers view */

void core_reply(struct core *core, const struct net_peer *to, const struct wire *request,
                struct wire *answer)
{
    answer->reply_to = request->sequence;
    outbox_add(&core->outbox, to, answer);
}

void core_reply_error(struct core *core, const struct net_peer *to,
                      const struct wire *request, const struct err *why)
{
    struct wire answer = {.type = MSG_ERROR};

    answer.error.code = err_code_name(why->code);
    answer.error.text = why->text;
    core_reply(core, to, request, &answer);
}

void agent_send(struct core *core, const struct agent *agent, const struct wire *message)
{
    outbox_add(&core->outbox, &agent->peer, message);
}

static void write_worker(struct core *core, struct agent *agent, const char *state)
{
    store_worker_state(core->store, agent->name, state, agent->n_busy, core->wall_ms);
    agent->written_mono_ms = core->mono_ms;
}

void agent_set_busy(struct core *core, struct agent *agent, int64_t device, bool is_busy)
{
    if (device < 0 || device >= agent->n_devices || agent->is_busy[device] == is_busy)
        return;
    agent->is_busy[device] = is_busy;
    agent->n_busy += is_busy ? 1 : -1;
    write_worker(core, agent, "up");
}

static void agent_heard(struct core *core, struct agent *agent)
{
    agent->last_seen_mono_ms = core->mono_ms;
    if (core->mono_ms - agent->written_mono_ms >= SEEN_WRITTEN_EVERY_MS)
        write_worker(core, agent, "up");
}

/* ---- registration ---- */

/* Does the agent list this rank as running? */
static bool is_listed(const struct json *running, int64_t job, int64_t attempt,
                      int64_t rank)
{
    for (size_t i = 0; i < json_count(running); i++) {
        const struct json *one = json_at(running, i);

        if (json_get_int(one, "job", -1) == job &&
            json_get_int(one, "attempt", -1) == attempt &&
            json_get_int(one, "rank", -1) == rank)
            return true;
    }
    return false;
}

/* A rank that should be on the agent: is it there? */
static void meet_rank(struct core *core, struct job *job, struct attempt *attempt,
                      int64_t r, struct agent *agent, bool is_there)
{
    struct rank *rank = &attempt->ranks[r];
    char reason[CORE_TEXT_MAX];

    if (is_there) {
        if (rank->state == RANK_AWAITED)
            rank->state = RANK_STARTING; /* until its RANK_READY comes again */
        agent_set_busy(core, agent, rank->device, true);
    } else if (attempt->state == ATTEMPT_STARTING && rank->state != RANK_READY) {
        rank->state = RANK_STARTING; /* RANK_START was lost on its way */
        agent_set_busy(core, agent, rank->device, true);
        attempt_send_start(core, job, attempt, r);
    } else {
        core_text(reason, "rank %lld vanished from %s", (long long)r, agent->host);
        attempt_rank_gone(core, job, attempt, r);
        attempt_stop(core, job, attempt, CAUSE_LOST, CORE_LOST_GRACE_MS, reason);
    }
}

static void meet_ranks(struct core *core, struct agent *agent, const struct json *running)
{
    for (size_t j = 0; j < core->model.n_jobs; j++) {
        struct job *job = core->model.jobs[j];

        for (size_t a = 0; a < job->n_attempts; a++) {
            struct attempt *attempt = job->attempts[a];

            for (int64_t r = 0; r < attempt->n_ranks; r++)
                if (attempt->ranks[r].state != RANK_GONE &&
                    strcmp(attempt->ranks[r].agent, agent->name) == 0)
                    meet_rank(core, job, attempt, r, agent,
                              is_listed(running, job->id, attempt->number, r));
            if (attempt->state == ATTEMPT_STOPPING)
                attempt_ask_again(core, job, attempt);
        }
    }
}

static bool is_wanted(const struct core *core, const struct agent *agent, int64_t job_id,
                      int64_t number, int64_t rank)
{
    const struct job *job = model_job_find(&core->model, job_id);
    const struct attempt *attempt = job ? job_attempt_find(job, number) : NULL;

    return attempt && attempt->state != ATTEMPT_ENDED && rank >= 0 &&
           rank < attempt->n_ranks && attempt->ranks[rank].state != RANK_GONE &&
           strcmp(attempt->ranks[rank].agent, agent->name) == 0;
}

/* Ranks of attempts that are over are killed without grace: nobody takes their results. */
static void stop_strays(struct core *core, struct agent *agent,
                        const struct json *running)
{
    for (size_t i = 0; i < json_count(running); i++) {
        const struct json *one = json_at(running, i);
        struct wire stop = {.type = MSG_RANK_STOP};

        stop.rank_stop = (struct msg_rank_stop){
            json_get_int(one, "job", -1), json_get_int(one, "attempt", -1),
            json_get_int(one, "rank", -1), 0, "its attempt is over"};
        if (!is_wanted(core, agent, stop.rank_stop.job, stop.rank_stop.attempt,
                       stop.rank_stop.rank))
            agent_send(core, agent, &stop);
    }
}

static int check_registration(const struct msg_registration *registration,
                              struct json **running, struct err *err)
{
    if (json_parse(running, registration->running, strlen(registration->running), err) <
        0)
        return err_wrap(err, "list of running ranks");
    if (json_type(*running) == JSON_ARRAY)
        return 0;
    json_free(*running);
    return err_set(err, ERR_FORMAT, "the list of running ranks is no list");
}

static void write_registration(struct core *core, const struct agent *agent,
                               const struct msg_registration *r)
{
    struct worker_row row = {.agent = agent->name,
                             .host = r->host,
                             .device_kind = r->device_kind,
                             .version = r->version,
                             .state = "up",
                             .pool = agent->pool,
                             .allocation = agent->allocation,
                             .pid = r->pid,
                             .n_devices = agent->n_devices,
                             .n_busy = agent->n_busy,
                             .memory_bytes = r->memory_bytes,
                             .last_seen_ms = core->wall_ms};

    store_worker_put(core->store, &row);
    core_event(core, 0, "worker", "%s on %s with %lld devices registered", agent->name,
               r->host, (long long)agent->n_devices);
}

static void register_agent(struct core *core, const struct net_peer *from,
                           const struct wire *message)
{
    const struct msg_registration *r = &message->registration;
    struct wire answer = {.type = MSG_REGISTERED};
    char name[ROLES_AGENT_BYTES];
    struct agent *agent;
    struct json *running = NULL;
    struct err err;

    if (roles_agent_name(name, from, r->agent, &err) < 0 ||
        check_registration(r, &running, &err) < 0) {
        core_reply_error(core, from, message, &err);
        return;
    }
    agent = model_agent_find(&core->model, name);
    if (!agent)
        agent = model_agent_add(&core->model, name, r->host, r->n_devices, &err);
    if (!agent || model_agent_set_peer(&core->model, agent, from, &err) < 0) {
        core_reply_error(core, from, message, &err);
        json_free(running);
        return;
    }
    agent->last_seen_mono_ms = agent->written_mono_ms = core->mono_ms;
    text_set(&agent->pool, r->pool);
    text_set(&agent->allocation, r->allocation);
    write_registration(core, agent, r);
    pool_agent_registered(core, agent);
    answer.registered =
        (struct msg_registered){core->config.heartbeat_ms, core->config.lost_after_ms};
    core_reply(core, from, message, &answer);
    meet_ranks(core, agent, running);
    stop_strays(core, agent, running);
    json_free(running);
}

/* ---- the end ---- */

static void lose_rank(struct core *core, struct job *job, struct attempt *attempt,
                      int64_t rank, const char *reason)
{
    attempt_rank_gone(core, job, attempt, rank);
    attempt_stop(core, job, attempt, CAUSE_LOST, CORE_LOST_GRACE_MS, reason);
}

/* Every rank of the agent (NULL: those still awaited) is gone. */
static void lose_ranks(struct core *core, const struct agent *agent, const char *reason)
{
    for (size_t j = 0; j < core->model.n_jobs; j++) {
        struct job *job = core->model.jobs[j];

        for (size_t a = 0; a < job->n_attempts; a++) {
            struct attempt *attempt = job->attempts[a];

            for (int64_t r = 0; r < attempt->n_ranks; r++)
                if (agent ? strcmp(attempt->ranks[r].agent, agent->name) == 0 &&
                                attempt->ranks[r].state != RANK_GONE
                          : attempt->ranks[r].state == RANK_AWAITED)
                    lose_rank(core, job, attempt, r, reason);
        }
    }
}

/* state: "lost", or "gone" when it said so itself. */
static void remove_agent(struct core *core, struct agent *agent, const char *state,
                         const char *reason)
{
    core_event(core, 0, "worker", "%s", reason);
    lose_ranks(core, agent, reason);
    agent->n_busy = 0;
    store_worker_state(core->store, agent->name, state, 0, core->wall_ms);
    model_agent_remove(&core->model, agent);
}

/* Its ranks end with it. That is nobody's fault: what they had leased goes back as it was,
 * and their jobs go on elsewhere. */
static void agent_ending(struct core *core, struct agent *agent,
                         const struct msg_agent_ending *ending)
{
    char reason[CORE_TEXT_MAX];

    core_text(reason, "the agent on %s ends: %s", agent->host, ending->reason);
    core_event(core, 0, "worker", "%s", reason);
    agent->is_ending = true;
    for (size_t j = 0; j < core->model.n_jobs; j++) {
        struct job *job = core->model.jobs[j];

        for (size_t a = 0; a < job->n_attempts; a++)
            if (attempt_is_on(job->attempts[a], agent))
                attempt_stop(core, job, job->attempts[a], CAUSE_STOPPED,
                             core_grace_ms(ending->grace_ms), reason);
    }
}

static void agent_gone(struct core *core, struct agent *agent,
                       const struct msg_agent_gone *gone)
{
    char reason[CORE_TEXT_MAX];

    core_text(reason, "the agent on %s has ended: %s", agent->host, gone->reason);
    remove_agent(core, agent, "gone", reason);
}

/* ---- what comes in ---- */

void agents_receive(struct core *core, const struct net_peer *from,
                    const struct wire *message)
{
    struct wire unknown = {.type = MSG_UNKNOWN_AGENT, .unknown_agent = {""}};
    char name[ROLES_AGENT_BYTES];
    struct agent *agent = NULL;
    struct err err;

    if (message->type == MSG_REGISTER) {
        register_agent(core, from, message);
        return;
    }
    if (message->type == MSG_HEARTBEAT) {
        unknown.unknown_agent.agent = message->heartbeat.agent;
        if (roles_agent_name(name, from, message->heartbeat.agent, NULL) == 0)
            agent = model_agent_find(&core->model, name);
        if (agent && model_agent_set_peer(&core->model, agent, from, &err) < 0)
            agent = NULL; /* it registers again */
    } else {
        agent = model_agent_of_peer(&core->model, from);
    }
    if (!agent) {
        core_reply(core, from, message, &unknown);
        return;
    }
    agent_heard(core, agent);
    if (message->type == MSG_AGENT_ENDING)
        agent_ending(core, agent, &message->agent_ending);
    else if (message->type == MSG_AGENT_GONE)
        agent_gone(core, agent, &message->agent_gone);
    else if (message->type != MSG_HEARTBEAT)
        report_receive(core, agent, from, message);
}

/* ---- time ---- */

static void lose_agent(struct core *core, struct agent *agent)
{
    char reason[CORE_TEXT_MAX];

    core_text(reason, "agent %s on %s was silent for %lld ms", agent->name, agent->host,
              (long long)(core->mono_ms - agent->last_seen_mono_ms));
    remove_agent(core, agent, "lost", reason);
}

void agents_check_keys(struct core *core, const struct net_server *server)
{
    for (size_t i = core->model.n_agents; i-- > 0;) {
        struct agent *agent = core->model.agents[i];
        struct wire unknown = {.type = MSG_UNKNOWN_AGENT, .unknown_agent = {agent->name}};
        char reason[CORE_TEXT_MAX];

        agent->peer.role = net_server_role(server, &agent->peer);
        if (roles_check(&agent->peer, MSG_HEARTBEAT, NULL) == 0)
            continue;
        core_text(reason, "key '%s' of agent %s on %s was revoked", agent->peer.key_name,
                  agent->name, agent->host);
        agent_send(core, agent, &unknown); /* it tries again, and its log says refused */
        remove_agent(core, agent, "lost", reason);
    }
}

void core_timers(struct core *core)
{
    for (size_t i = core->model.n_agents; i-- > 0;)
        if (core->mono_ms - core->model.agents[i]->last_seen_mono_ms >
            core->config.lost_after_ms)
            lose_agent(core, core->model.agents[i]);
    if (core->mono_ms - core->recovered_mono_ms > core->config.lost_after_ms)
        lose_ranks(core, NULL, "its agent did not come back after a restart");
    for (size_t j = 0; j < core->model.n_jobs; j++) {
        struct job *job = core->model.jobs[j];

        for (size_t a = 0; a < job->n_attempts; a++)
            if (job->attempts[a]->state == ATTEMPT_STOPPING &&
                core->mono_ms >= job->attempts[a]->stop_again_mono_ms)
                attempt_ask_again(core, job, job->attempts[a]);
    }
}
