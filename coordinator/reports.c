/* What agents report of their ranks. Fencing: a report counts only under an attempt that
 * has not ended and, of a task, only when the task is leased to that attempt. Whatever is
 * durable is settled by an ACK after the commit, also when it is refused. */
#include "common/base/json.h"
#include "coordinator/core.h"

#include <stdio.h>
#include <string.h>

#define STAGE_WRITTEN_EVERY_MS 1000 /* of one rank, for the ranks view */

static void ack(struct core *core, const struct net_peer *to, const struct wire *message)
{
    struct wire answer = {.type = MSG_ACK, .ack = {(int64_t)message->sequence}};

    core_reply(core, to, message, &answer);
}

static void refuse_stale(struct core *core, const struct net_peer *to,
                         const struct wire *message, int64_t job, int64_t attempt)
{
    struct err why;

    err_set(&why, ERR_STALE, "%s under attempt %lld of job %lld, which is over",
            msg_type_name(message->type), (long long)attempt, (long long)job);
    core_event(core, job, "stale", "%s", why.text);
    core_reply_error(core, to, message, &why);
}

/* The attempt, when it has not ended. */
static struct attempt *find_open(struct core *core, int64_t job_id, int64_t number,
                                 struct job **job)
{
    struct attempt *attempt;

    *job = model_job_find(&core->model, job_id);
    attempt = *job ? job_attempt_find(*job, number) : NULL;
    return attempt && attempt->state != ATTEMPT_ENDED ? attempt : NULL;
}

/* Is the rank one of the attempt's that this agent has? */
static bool has_rank(const struct attempt *attempt, const struct agent *agent,
                     int64_t rank)
{
    return rank >= 0 && rank < attempt->n_ranks &&
           attempt->ranks[rank].state != RANK_GONE &&
           strcmp(attempt->ranks[rank].agent, agent->name) == 0;
}

static bool has_any_rank(const struct attempt *attempt, const struct agent *agent)
{
    for (int64_t r = 0; r < attempt->n_ranks; r++)
        if (strcmp(attempt->ranks[r].agent, agent->name) == 0)
            return true;
    return false;
}

/* ---- ranks ---- */

static void rank_ready(struct core *core, struct agent *agent,
                       const struct net_peer *from, const struct wire *message)
{
    const struct msg_rank_ready *ready = &message->rank_ready;
    struct job *job;
    struct attempt *attempt = find_open(core, ready->job, ready->attempt, &job);
    struct wire stop = {.type = MSG_RANK_STOP};

    if (attempt && has_rank(attempt, agent, ready->rank)) {
        if (attempt_is_live(attempt))
            attempt_rank_ready(core, job, attempt, ready);
        return;
    }
    stop.rank_stop = (struct msg_rank_stop){ready->job, ready->attempt, ready->rank, 0,
                                            "its attempt is over"};
    core_reply(core, from, message, &stop);
}

/* The agent's reason says most; without one the status has to do. */
static void describe_exit(char *text, const struct msg_rank_exit *ended,
                          const struct agent *agent)
{
    long long rank = ended->rank, status = ended->status;

    if (ended->reason[0])
        core_text(text, "rank %lld on %s ended: %s", rank, agent->host, ended->reason);
    else if (status > 128)
        core_text(text, "rank %lld on %s was killed by signal %lld", rank, agent->host,
                  status - 128);
    else if (status == 0)
        core_text(text, "rank %lld on %s ended before its work was done", rank,
                  agent->host);
    else
        core_text(text, "rank %lld on %s ended with status %lld", rank, agent->host,
                  status);
}

static void rank_exit(struct core *core, struct agent *agent, const struct net_peer *from,
                      const struct wire *message)
{
    const struct msg_rank_exit *ended = &message->rank_exit;
    struct job *job;
    struct attempt *attempt = find_open(core, ended->job, ended->attempt, &job);
    char reason[CORE_TEXT_MAX];

    ack(core, from, message);
    if (!attempt || !has_rank(attempt, agent, ended->rank))
        return; /* sent twice, or of an attempt given up long ago */
    describe_exit(reason, ended, agent);
    if (ended->status == 0 && !attempt_is_live(attempt))
        core_text(reason, "rank %lld on %s ended as it should", (long long)ended->rank,
                  agent->host);
    core_event(core, job->id, "rank", "attempt %lld: %s", (long long)attempt->number,
               reason);
    if (attempt_is_live(attempt)) {
        attempt->is_blamed = ended->status != 0; /* 0: somebody asked it to end */
        attempt->has_bad_input = ended->status == CORE_EXIT_BAD_INPUT;
        attempt_rank_gone(core, job, attempt, ended->rank);
        attempt_stop(core, job, attempt, CAUSE_LOST, CORE_LOST_GRACE_MS, reason);
    } else {
        attempt_rank_gone(core, job, attempt, ended->rank);
    }
}

/* ---- tasks ---- */

/* The task, when a result of it counts; else answers. */
static struct task *find_leased(struct core *core, const struct agent *agent,
                                const struct net_peer *from, const struct wire *message,
                                int64_t job_id, int64_t number, int64_t id,
                                struct job **job, struct attempt **attempt)
{
    struct task *task;

    *attempt = find_open(core, job_id, number, job);
    task = *attempt && has_any_rank(*attempt, agent) ? job_task_find(*job, id) : NULL;
    if (task && task->state == TASK_LEASED && task->attempt == number)
        return task;
    /* The same report once more is no news; anything else comes too late. */
    if (!(task && task->state == TASK_DONE && task->attempt == number &&
          message->type == MSG_TASK_DONE))
        refuse_stale(core, from, message, job_id, number);
    return NULL;
}

static void task_done(struct core *core, struct agent *agent, const struct net_peer *from,
                      const struct wire *message)
{
    const struct msg_task_done *done = &message->task_done;
    struct attempt *attempt;
    struct job *job;
    struct task *task = find_leased(core, agent, from, message, done->job, done->attempt,
                                    done->task, &job, &attempt);

    if (task)
        task_finish(core, job, attempt, task, done->result);
    ack(core, from, message);
}

static void task_failed(struct core *core, struct agent *agent,
                        const struct net_peer *from, const struct wire *message)
{
    const struct msg_task_failed *failed = &message->task_failed;
    struct attempt *attempt;
    struct job *job;
    struct task *task = find_leased(core, agent, from, message, failed->job,
                                    failed->attempt, failed->task, &job, &attempt);

    if (task)
        task_fail(core, job, attempt, task, failed->reason);
    ack(core, from, message);
}

/* ---- stages: not durable, never answered ---- */

static void write_stage(struct core *core, struct rank *rank,
                        const struct msg_rank_stage *stage)
{
    char text[CORE_TEXT_MAX];
    struct stage_row row = {.job = stage->job,
                            .attempt = stage->attempt,
                            .rank = stage->rank,
                            .since_ms = core->wall_ms - stage->for_ms,
                            .limit_ms = stage->limit_ms,
                            .step = stage->step,
                            .memory_bytes = stage->memory_bytes,
                            .seen_ms = core->wall_ms,
                            .stage = text};

    core_text(text, "%s", stage->stage);
    store_stage_put(core->store, &row);
    rank->stage_written_mono_ms = core->mono_ms;
}

/* The rank gets nowhere any more: its attempt is lost as if it had died, and its agent
 * will kill it. */
static void lose_stuck(struct core *core, struct job *job, struct attempt *attempt,
                       const struct agent *agent, const struct msg_rank_stage *stage)
{
    char reason[CORE_TEXT_MAX];

    core_text(reason,
              "rank %lld on %s is stuck: it has been in %s for %lld s (limit %lld s)",
              (long long)stage->rank, agent->host, stage->stage,
              (long long)stage->for_ms / 1000, (long long)stage->limit_ms / 1000);
    core_event(core, job->id, "stuck", "attempt %lld: %s", (long long)attempt->number,
               reason);
    attempt->is_blamed = true;
    attempt_stop(core, job, attempt, CAUSE_LOST, CORE_LOST_GRACE_MS, reason);
}

static void rank_stage(struct core *core, struct agent *agent,
                       const struct msg_rank_stage *stage)
{
    struct job *job;
    struct attempt *attempt = find_open(core, stage->job, stage->attempt, &job);
    struct rank *rank;
    bool is_stuck = stage->limit_ms > 0 && stage->for_ms > stage->limit_ms;

    if (!attempt || !has_rank(attempt, agent, stage->rank) || stage->for_ms < 0)
        return;
    rank = &attempt->ranks[stage->rank];
    is_stuck &= attempt_is_live(attempt);
    if (is_stuck || core->mono_ms - rank->stage_written_mono_ms >= STAGE_WRITTEN_EVERY_MS)
        write_stage(core, rank, stage);
    if (is_stuck)
        lose_stuck(core, job, attempt, agent, stage);
}

/* ---- progress and logs: not durable, never answered ---- */

static void store_metrics(struct core *core, const struct msg_progress *progress)
{
    struct json *metrics;
    struct err err;

    if (progress->step < 0 ||
        json_parse(&metrics, progress->metrics, strlen(progress->metrics), &err) < 0)
        return;
    if (json_type(metrics) == JSON_OBJECT && json_count(metrics) > 0)
        store_metric_put(core->store, progress->job, progress->step, progress->rank,
                         progress->metrics, core->wall_ms);
    json_free(metrics);
}

static void progress(struct core *core, struct agent *agent,
                     const struct msg_progress *progress)
{
    struct job *job;
    struct attempt *attempt = find_open(core, progress->job, progress->attempt, &job);

    if (!attempt || !has_rank(attempt, agent, progress->rank) ||
        job_state_is_ended(job->state))
        return;
    store_metrics(core, progress);
    if (progress->rank != 0 || progress->done < 0)
        return;
    attempt->progress = progress->done;
    if (job->plan.is_training || job->n_samples < 0) {
        job->done = progress->done > job->n_done ? progress->done : job->n_done;
        job->total = job->plan.is_training ? job->plan.max_steps : progress->total;
    }
    job->is_progress_new = true;
}

static void log_piece(struct core *core, struct agent *agent, const struct msg_log *piece)
{
    struct job *job;
    struct attempt *attempt = find_open(core, piece->job, piece->attempt, &job);
    struct err err;

    if (!attempt || piece->rank < 0 || piece->rank >= attempt->n_ranks ||
        strcmp(attempt->ranks[piece->rank].agent, agent->name) != 0)
        return; /* also of one that has ended: its last words come later */
    if (log_append(core, piece, &err) < 0)
        core_event(core, piece->job, "log", "a piece of a log is lost: %s", err.text);
}

void report_receive(struct core *core, struct agent *agent, const struct net_peer *from,
                    const struct wire *message)
{
    switch (message->type) {
    case MSG_RANK_READY:
        rank_ready(core, agent, from, message);
        break;
    case MSG_RANK_EXIT:
        rank_exit(core, agent, from, message);
        break;
    case MSG_TASK_DONE:
        task_done(core, agent, from, message);
        break;
    case MSG_TASK_FAILED:
        task_failed(core, agent, from, message);
        break;
    case MSG_PROGRESS:
        progress(core, agent, &message->progress);
        break;
    case MSG_RANK_STAGE:
        rank_stage(core, agent, &message->rank_stage);
        break;
    case MSG_LOG:
        log_piece(core, agent, &message->log);
        break;
    default: /* core_receive gives nothing else */
        break;
    }
}
