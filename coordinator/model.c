#include "coordinator/model.h"

#include <stdlib.h>
#include <string.h>

void text_set(char **text, const char *value)
{
    char *copy = strdup(value);

    if (!copy)
        return;
    free(*text);
    *text = copy;
}

/* Room for one more pointer in a list that grows one by one: lists here are short. */
static int grow(void ***list, size_t count, size_t max, const char *what, struct err *err)
{
    void **grown;

    if (count >= max)
        return err_set(err, ERR_LIMIT, "%zu %s are the most that can be", max, what);
    grown = realloc(*list, (count + 1) * sizeof(*grown));
    if (!grown)
        return err_set(err, ERR_NOMEM, "no memory for more %s", what);
    *list = grown;
    return 0;
}

static void remove_at(void **list, size_t *count, size_t at)
{
    memmove(&list[at], &list[at + 1], (*count - at - 1) * sizeof(*list));
    --*count;
}

/* ---- jobs ---- */

static void attempt_free(struct attempt *attempt)
{
    for (int64_t r = 0; attempt->ranks && r < attempt->n_ranks; r++) {
        free(attempt->ranks[r].agent);
        free(attempt->ranks[r].endpoint);
    }
    free(attempt->ranks);
    free(attempt->reason);
    free(attempt);
}

static void job_free(struct job *job)
{
    for (size_t i = 0; i < job->n_attempts; i++)
        attempt_free(job->attempts[i]);
    free((void *)job->attempts);
    free(job->tasks);
    free(job->name);
    free(job->kind);
    free(job->spec);
    free(job->reason);
    free(job->goal_reason);
    free(job->resume);
    free(job);
}

struct job *model_job_add(struct model *model, int64_t id, const char *name,
                          const char *kind, const char *spec, struct err *err)
{
    struct job *job;

    if (grow((void ***)&model->jobs, model->n_jobs, MODEL_JOBS_MAX, "jobs", err) < 0)
        return NULL;
    job = calloc(1, sizeof(*job));
    if (job) {
        job->id = id;
        job->name = strdup(name);
        job->kind = strdup(kind);
        job->spec = strdup(spec);
        job->reason = strdup("");
        job->goal_reason = strdup("");
        job->resume = strdup("");
    }
    if (!job || !job->name || !job->kind || !job->spec || !job->reason ||
        !job->goal_reason || !job->resume) {
        if (job)
            job_free(job);
        err_set(err, ERR_NOMEM, "no memory for a job");
        return NULL;
    }
    model->jobs[model->n_jobs++] = job;
    return job;
}

struct job *model_job_find(const struct model *model, int64_t id)
{
    size_t low = 0, high = model->n_jobs;

    while (low < high) {
        size_t middle = (low + high) / 2;

        if (model->jobs[middle]->id < id)
            low = middle + 1;
        else
            high = middle;
    }
    return low < model->n_jobs && model->jobs[low]->id == id ? model->jobs[low] : NULL;
}

/* ---- agents ---- */

static void agent_free(struct agent *agent)
{
    free(agent->name);
    free(agent->host);
    free(agent->is_busy);
    free(agent->pool);
    free(agent->allocation);
    free(agent);
}

struct agent *model_agent_add(struct model *model, const char *name, const char *host,
                              int64_t n_devices, struct err *err)
{
    struct agent *agent;

    if (n_devices < 0 || n_devices > MODEL_DEVICES_MAX) {
        err_set(err, ERR_LIMIT, "agent with %lld devices; 0 to %d can be",
                (long long)n_devices, MODEL_DEVICES_MAX);
        return NULL;
    }
    if (grow((void ***)&model->agents, model->n_agents, MODEL_AGENTS_MAX, "agents", err) <
        0)
        return NULL;
    agent = calloc(1, sizeof(*agent));
    if (agent) {
        agent->name = strdup(name);
        agent->host = strdup(host);
        agent->pool = strdup("");
        agent->allocation = strdup("");
        agent->is_busy = calloc((size_t)n_devices + 1, sizeof(bool));
        agent->n_devices = n_devices;
    }
    if (!agent || !agent->name || !agent->host || !agent->is_busy || !agent->pool ||
        !agent->allocation) {
        if (agent)
            agent_free(agent);
        err_set(err, ERR_NOMEM, "no memory for an agent");
        return NULL;
    }
    if (map_put(&model->by_name, agent->name, strlen(agent->name), agent, err) < 0) {
        agent_free(agent);
        return NULL;
    }
    model->agents[model->n_agents++] = agent;
    return agent;
}

static void forget_peer(struct model *model, struct agent *agent)
{
    if (map_find(&model->by_peer, agent->peer.id, agent->peer.n_bytes) == agent)
        map_remove(&model->by_peer, agent->peer.id, agent->peer.n_bytes);
}

int model_agent_set_peer(struct model *model, struct agent *agent,
                         const struct net_peer *peer, struct err *err)
{
    forget_peer(model, agent);
    agent->peer = *peer;
    return map_put(&model->by_peer, agent->peer.id, agent->peer.n_bytes, agent, err);
}

void model_agent_remove(struct model *model, struct agent *agent)
{
    for (size_t i = 0; i < model->n_agents; i++)
        if (model->agents[i] == agent) {
            remove_at((void **)model->agents, &model->n_agents, i);
            forget_peer(model, agent);
            map_remove(&model->by_name, agent->name, strlen(agent->name));
            agent_free(agent);
            return;
        }
}

struct agent *model_agent_find(const struct model *model, const char *name)
{
    return map_find(&model->by_name, name, strlen(name));
}

struct agent *model_agent_of_peer(const struct model *model, const struct net_peer *peer)
{
    struct agent *agent = map_find(&model->by_peer, peer->id, peer->n_bytes);

    return agent && net_peer_is_same(&agent->peer, peer) ? agent : NULL;
}

void model_fini(struct model *model)
{
    for (size_t i = 0; i < model->n_jobs; i++)
        job_free(model->jobs[i]);
    for (size_t i = 0; i < model->n_agents; i++)
        agent_free(model->agents[i]);
    free((void *)model->jobs);
    free((void *)model->agents);
    map_fini(&model->by_name);
    map_fini(&model->by_peer);
    memset(model, 0, sizeof(*model));
}

/* ---- attempts ---- */

struct attempt *job_attempt_add(struct job *job, int64_t id, int64_t number,
                                int64_t n_ranks, struct err *err)
{
    struct attempt *attempt;

    if (grow((void ***)&job->attempts, job->n_attempts,
             (size_t)MODEL_AGENTS_MAX * MODEL_DEVICES_MAX, "attempts", err) < 0)
        return NULL;
    attempt = calloc(1, sizeof(*attempt));
    if (attempt) {
        attempt->id = id;
        attempt->number = number;
        attempt->n_ranks = n_ranks;
        attempt->ranks = calloc((size_t)n_ranks, sizeof(*attempt->ranks));
        attempt->reason = strdup("");
    }
    if (!attempt || !attempt->ranks || !attempt->reason) {
        if (attempt)
            attempt_free(attempt);
        err_set(err, ERR_NOMEM, "no memory for an attempt of %lld ranks",
                (long long)n_ranks);
        return NULL;
    }
    job->attempts[job->n_attempts++] = attempt;
    return attempt;
}

struct attempt *job_attempt_find(const struct job *job, int64_t number)
{
    size_t low = 0, high = job->n_attempts;

    while (low < high) {
        size_t middle = (low + high) / 2;

        if (job->attempts[middle]->number < number)
            low = middle + 1;
        else
            high = middle;
    }
    return low < job->n_attempts && job->attempts[low]->number == number
               ? job->attempts[low]
               : NULL;
}

bool attempt_is_live(const struct attempt *attempt)
{
    return attempt->state == ATTEMPT_STARTING || attempt->state == ATTEMPT_RUNNING;
}

bool attempt_is_on(const struct attempt *attempt, const struct agent *agent)
{
    for (int64_t r = 0; r < attempt->n_ranks; r++)
        if (attempt->ranks[r].state != RANK_GONE &&
            strcmp(attempt->ranks[r].agent, agent->name) == 0)
            return true;
    return false;
}

bool attempt_has_all(const struct attempt *attempt, enum rank_state state)
{
    for (int64_t r = 0; r < attempt->n_ranks; r++)
        if (attempt->ranks[r].state != state)
            return false;
    return true;
}

size_t job_count_open(const struct job *job)
{
    size_t n = 0;

    for (size_t i = 0; i < job->n_attempts; i++)
        n += job->attempts[i]->state != ATTEMPT_ENDED;
    return n;
}

size_t job_count_live(const struct job *job)
{
    size_t n = 0;

    for (size_t i = 0; i < job->n_attempts; i++)
        n += attempt_is_live(job->attempts[i]);
    return n;
}

size_t job_count_idle(const struct job *job)
{
    size_t n = 0;

    for (size_t i = 0; i < job->n_attempts; i++)
        n += attempt_is_live(job->attempts[i]) && !job->attempts[i]->n_leases;
    return n;
}

void model_sweep(struct model *model)
{
    for (size_t j = model->n_jobs; j-- > 0;) {
        struct job *job = model->jobs[j];

        for (size_t i = job->n_attempts; i-- > 0;)
            if (job->attempts[i]->state == ATTEMPT_ENDED) {
                attempt_free(job->attempts[i]);
                remove_at((void **)job->attempts, &job->n_attempts, i);
            }
        if (!job->n_attempts && job_state_is_ended(job->state)) {
            job_free(job);
            remove_at((void **)model->jobs, &model->n_jobs, j);
        }
    }
}

/* ---- tasks ---- */

int job_task_insert(struct job *job, size_t at, const struct task *task, struct err *err)
{
    if (job->n_tasks == job->task_capacity) {
        size_t capacity = job->task_capacity ? 2 * job->task_capacity : 16;
        struct task *tasks = realloc(job->tasks, capacity * sizeof(*tasks));

        if (!tasks)
            return err_set(err, ERR_NOMEM, "no memory for %zu tasks", capacity);
        job->tasks = tasks;
        job->task_capacity = capacity;
    }
    memmove(&job->tasks[at + 1], &job->tasks[at],
            (job->n_tasks - at) * sizeof(*job->tasks));
    job->tasks[at] = *task;
    job->n_tasks++;
    job->n_in_state[task->state]++;
    if (at < job->first_open)
        job->first_open = at;
    return 0;
}

/* Ids mostly follow the order of the list, so the place is guessed first. */
struct task *job_task_find(struct job *job, int64_t id)
{
    int64_t guess = job->n_tasks ? id - job->tasks[0].id : 0;

    if (guess >= 0 && guess < (int64_t)job->n_tasks && job->tasks[guess].id == id)
        return &job->tasks[guess];
    for (size_t i = 0; i < job->n_tasks; i++)
        if (job->tasks[i].id == id)
            return &job->tasks[i];
    return NULL;
}

struct task *job_task_next(struct job *job, int64_t now_ms)
{
    while (job->first_open < job->n_tasks &&
           job->tasks[job->first_open].state != TASK_READY)
        job->first_open++;
    for (size_t i = job->first_open; i < job->n_tasks; i++) {
        struct task *task = &job->tasks[i];

        if (task->state == TASK_READY && task->not_before_ms <= now_ms)
            return task;
        if (task->state == TASK_READY && job->plan.is_training)
            break;
    }
    return NULL;
}
