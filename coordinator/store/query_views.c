/* The views people ask about. docs/query.md lists them; a test compares it with this. */
#include "coordinator/store/query.h"

#include "common/base/suggest.h"

#include <stdio.h>
#include <string.h>

#define END                                                                              \
    {                                                                                    \
        NULL, NULL, NULL, false, NULL                                                    \
    }
#define ID                                                                               \
    {                                                                                    \
        "id", "integer", "", true, "number of the row; grows"                            \
    }
#define ROW_ID                                                                           \
    {                                                                                    \
        "id", "integer", "", false, "number of the row; grows"                           \
    }
#define JOB                                                                              \
    {                                                                                    \
        "job", "integer", "", true, "its job"                                            \
    }

static const struct query_column jobs[] = {
    ID,
    {"name", "text", "", true, "name, from the specification"},
    {"kind", "text", "", true, "prepare, pretrain, finetune, evaluate, ..."},
    {"state", "text", "", true,
     "submitted, queued, placed, running, stopping, held, done, failed, cancelled"},
    {"state_ms", "integer", "time", false, "since when it is in this state"},
    {"reason", "text", "", true, "what it waits for, or why it ended"},
    {"pool", "text", "", false, "the pool whose nodes it waits for"},
    {"attempt", "integer", "", true, "number of its newest attempt; 0: none yet"},
    {"n_ranks", "integer", "", false, "ranks of an attempt"},
    {"done", "integer", "steps or samples", true, "how far it is"},
    {"total", "integer", "steps or samples", true, "how far it is to go; 0: not known"},
    {"submitted_ms", "integer", "time", true, "when it was handed in"},
    {"started_ms", "integer", "time", false, "when it first ran"},
    {"ended_ms", "integer", "time", false, "when it ended"},
    {"folder", "text", "", false, "its folder"},
    {"spec", "json", "", false, "the specification with all defaults"},
    {"result", "json", "", false, "what it gave"},
    END};

static const struct query_column tasks[] = {
    ID,
    JOB,
    {"phase", "text", "", true, "plan, work, finish"},
    {"first", "integer", "steps or samples", true, "where its range begins"},
    {"count", "integer", "steps or samples", true, "how long its range is"},
    {"state", "text", "", true, "ready, leased, done, quarantined"},
    {"attempt", "integer", "", true, "who holds or held the lease; 0: nobody yet"},
    {"n_failures", "integer", "", true, "how often it failed"},
    {"not_before_ms", "integer", "time", false, "when it may be tried again"},
    {"reason", "text", "", true, "why it failed last"},
    {"result", "json", "", false, "what it gave"},
    END};

static const struct query_column attempts[] = {
    ROW_ID,
    JOB,
    {"attempt", "integer", "", true, "its number within the job, from 1"},
    {"state", "text", "", true, "starting, running, stopping, ended"},
    {"cause", "text", "", true, "done, lost, stopped; empty while it runs"},
    {"reason", "text", "", true, "what it was lost or stopped for"},
    {"n_ranks", "integer", "", true, "ranks of it"},
    {"started_ms", "integer", "time", true, "when its ranks were started"},
    {"ended_ms", "integer", "time", true, "when the last of them was gone"},
    END};

static const struct query_column ranks[] = {
    ROW_ID,
    JOB,
    {"attempt", "integer", "", true, "its attempt"},
    {"rank", "integer", "", true, "its number in the attempt, from 0"},
    {"host", "text", "", true, "where it runs or ran"},
    {"agent", "text", "", false, "the agent that has it"},
    {"device", "integer", "", true, "which device of that host"},
    {"pid", "integer", "", true, "its process"},
    {"state", "text", "", true, "of its attempt"},
    {"stage", "text", "", true, "what it does: loading, decode, forward, all-reduce ..."},
    {"since_ms", "integer", "time", true, "since when it does that"},
    {"limit_ms", "integer", "ms", false,
     "how long it may before it counts as stuck; 0: as long as it likes"},
    {"step", "integer", "steps", true, "the training step it is in"},
    {"memory_bytes", "integer", "bytes", true, "resident memory of its process"},
    {"seen_ms", "integer", "time", false, "when its agent last told"},
    END};

static const struct query_column workers[] = {
    ROW_ID,
    {"agent", "text", "", true, "name of the agent, new at every start"},
    {"host", "text", "", true, "its machine"},
    {"pid", "integer", "", false, "its process"},
    {"state", "text", "", true, "up, lost, gone (it ended as it should)"},
    {"n_devices", "integer", "", true, "devices it has"},
    {"n_busy", "integer", "", true, "devices with a rank on them"},
    {"device_kind", "text", "", true, "cpu, gpu"},
    {"memory_bytes", "integer", "bytes", true,
     "memory of the machine, or of the GPUs in use; 0: not known"},
    {"version", "text", "", false, "of its programs"},
    {"last_seen_ms", "integer", "time", true, "when it was last heard of"},
    {"pool", "text", "", false, "the pool it was started for"},
    {"allocation", "text", "", false, "its node in the cluster manager's list"},
    END};

static const struct query_column pools[] = {
    ROW_ID,
    {"name", "text", "", true, "name of the pool"},
    {"manager", "text", "", false, "who gives it nodes: slurm"},
    {"state", "text", "", true, "active, paused, removing"},
    {"min_nodes", "integer", "nodes", true, "so many stay though nothing is to do"},
    {"max_nodes", "integer", "nodes", true, "so many there are at most"},
    {"idle_ms", "integer", "ms", true, "after so long with nothing to do one ends"},
    {"n_devices", "integer", "", true, "devices of a node; null until one was there"},
    {"n_running", "integer", "nodes", true, "nodes that run"},
    {"n_pending", "integer", "nodes", true, "nodes that are asked for"},
    {"n_ending", "integer", "nodes", false, "nodes that are told to end"},
    {"n_failures", "integer", "", false, "tries that failed since an agent came"},
    {"failure", "text", "", false, "what the last of them died of"},
    {"retry_ms", "integer", "time", false, "when it is tried again"},
    {"submits", "text", "", false, "what it submits now, and why, or why not"},
    {"keeps", "text", "", false, "what it keeps"},
    {"cancels", "text", "", false, "what it cancels, or why nothing"},
    {"ends", "text", "", false, "what it ends, or why nothing"},
    {"options", "json", "", false, "further words for vneva-launch"},
    {"created_ms", "integer", "time", false, "when it was added"},
    END};

static const struct query_column allocations[] = {
    ROW_ID,
    {"pool", "text", "", true, "the pool that asked for it"},
    {"allocation", "text", "", true, "its number in the cluster; null until known"},
    {"state", "text", "", true,
     "intended, pending, running, draining, cancelling, ended"},
    {"reason", "text", "", true, "what it waits for, or why it is in that state"},
    {"host", "text", "", true, "where its agent runs or ran"},
    {"n_devices", "integer", "", false, "devices of that agent"},
    {"n_busy", "integer", "", true, "of them with a rank on them"},
    {"created_ms", "integer", "time", false, "when the pool wanted it"},
    {"submitted_ms", "integer", "time", true, "when it was submitted"},
    {"started_ms", "integer", "time", true, "when it first ran"},
    {"ended_ms", "integer", "time", true, "when it had ended"},
    {"name", "text", "", false, "its own name, by which it is found in the cluster"},
    END};

static const struct query_column checkpoints[] = {
    ROW_ID,
    JOB,
    {"step", "integer", "steps", true, "steps done"},
    {"consumed_samples", "integer", "samples", true, "samples used up to it"},
    {"val_loss", "real", "", true, "validation loss, where there was one"},
    {"is_kept", "boolean", "", true, "whether it is still there"},
    {"created_ms", "integer", "time", true, "when it was registered"},
    {"path", "text", "", true, "its folder"},
    END};

static const struct query_column datasets[] = {
    ROW_ID,
    {"job", "integer", "", true, "the prepare job that made it"},
    {"name", "text", "", true, "that job's name"},
    {"n_samples", "integer", "samples", true, "samples in it"},
    {"n_rejects", "integer", "samples", true, "samples refused"},
    {"fingerprint", "text", "", false, "changes when the samples do"},
    {"created_ms", "integer", "time", true, "when it was finished"},
    {"path", "text", "", true, "its folder"},
    END};

static const struct query_column rejects[] = {
    ROW_ID,
    {"job", "integer", "", true, "the prepare job"},
    {"sample", "text", "", true, "id of the sample, where it has one"},
    {"kind", "text", "", true,
     "what is wrong with it; unreadable: the list itself cannot be read"},
    {"reason", "text", "", true, "the same in words"},
    {"file", "text", "", true, "file of conversations it stands in"},
    {"line", "integer", "", true, "line or entry there"},
    {"dataset", "text", "", false, "folder of the dataset"},
    END};

static const struct query_column metrics[] = {
    ROW_ID,
    JOB,
    {"step", "integer", "steps", true, "steps done"},
    {"rank", "integer", "", false, "who measured; 0 for all together"},
    {"time_ms", "integer", "time", false, "when it was told"},
    {"loss", "real", "", true, "mean over the label tokens since the row before"},
    {"val_loss", "real", "", true, "validation loss, at steps that have one"},
    {"lr", "real", "", true, "learning rate"},
    {"grad_norm", "real", "", true, "norm of the gradient before clipping"},
    {"loss_scale", "real", "", false, "factor of the loss, with trainer.precision 16"},
    {"skipped_steps", "integer", "", false,
     "steps of the run whose gradients overflowed"},
    {"step_ms", "real", "ms", true, "time of a step"},
    {"wait_ms", "real", "ms", true, "of it, waiting for data (the slowest rank)"},
    {"comm_ms", "real", "ms", true, "of it, in collectives (the rank least in them)"},
    {"samples_per_s", "real", "samples/s", true, "samples a second"},
    {"tokens_per_s", "real", "tokens/s", false, "tokens a second"},
    {"tflops", "real", "Tflop/s", false, "computed a second, all ranks together"},
    {"json", "json", "", false, "all that was told"},
    END};

static const struct query_column events[] = {
    ROW_ID,
    {"time_ms", "integer", "time", true, "when"},
    {"job", "integer", "", true, "of which job; 0: of none"},
    {"kind", "text", "", true,
     "state, attempt, task, rank, checkpoint, dataset, worker, pool, ..."},
    {"text", "text", "", true, "what happened"},
    END};

static const struct query_column views[] = {
    ROW_ID,
    {"view", "text", "", true, "name of a view"},
    {"column", "text", "", true, "name of one of its columns"},
    {"type", "text", "", true, "integer, real, text, boolean, json"},
    {"unit", "text", "", true, "of its numbers; time: ms since 1970"},
    {"meaning", "text", "", true, "what it says"},
    END};

#define METRIC(name) " json_extract(json, '$." name "') AS " name ","

const struct query_view query_views[] = {
    {"jobs", "one row a job",
     "SELECT id, name, kind, state, coalesce(state_ms, submitted_ms) AS state_ms, reason,"
     " pool, attempt, n_ranks, done, total, submitted_ms, started_ms, ended_ms, folder, "
     "spec,"
     " result FROM main.jobs",
     jobs},
    {"tasks", "one row a range of samples or steps that is leased as a whole",
     "SELECT id, job, phase, first, count, state, attempt, n_failures,"
     " nullif(not_before_ms, 0) AS not_before_ms, reason, result FROM main.tasks",
     tasks},
    {"attempts", "one row a gang of ranks that was started together",
     "SELECT id, job, attempt, state, cause, reason, n_ranks, started_ms, ended_ms"
     " FROM main.attempts",
     attempts},
    {"ranks", "one row a rank of every attempt, with what it was last known to do",
     "SELECT a.id * 65536 + json_extract(r.value, '$.rank') AS id, a.job AS job,"
     " a.attempt AS attempt, json_extract(r.value, '$.rank') AS rank, w.host AS host,"
     " json_extract(r.value, '$.agent') AS agent,"
     " json_extract(r.value, '$.device') AS device,"
     " nullif(json_extract(r.value, '$.pid'), 0) AS pid, a.state AS state,"
     " s.stage AS stage, s.since_ms AS since_ms, s.limit_ms AS limit_ms,"
     " s.step AS step, nullif(s.memory_bytes, 0) AS memory_bytes, s.seen_ms AS seen_ms"
     " FROM main.attempts a JOIN json_each(a.ranks) r"
     " LEFT JOIN main.workers w ON w.agent = json_extract(r.value, '$.agent')"
     " LEFT JOIN main.rank_stages s ON s.job = a.job AND s.attempt = a.attempt"
     " AND s.rank = json_extract(r.value, '$.rank')",
     ranks},
    {"workers", "one row an agent, the thousand newest",
     "SELECT id, agent, host, pid, state, n_devices, n_busy, device_kind, memory_bytes,"
     " version, last_seen_ms, pool, allocation FROM main.workers",
     workers},
    {"pools", "one row a pool of nodes",
     "SELECT p.id AS id, p.name AS name, manager, p.state AS state, min_nodes, max_nodes,"
     " idle_ms, nullif(n_devices, 0) AS n_devices,"
     " count(a.id) FILTER (WHERE a.state = 'running') AS n_running,"
     " count(a.id) FILTER (WHERE a.state IN ('intended', 'pending')) AS n_pending,"
     " count(a.id) FILTER (WHERE a.state IN ('draining', 'cancelling')) AS n_ending,"
     " n_failures, nullif(failure, '') AS failure, nullif(retry_ms, 0) AS retry_ms,"
     " submits, keeps, cancels, ends, options, p.created_ms AS created_ms"
     " FROM main.pools p LEFT JOIN main.allocations a ON a.pool = p.id AND"
     " a.state <> 'ended' GROUP BY p.id",
     pools},
    {"allocations", "one row a node that a pool has asked for, the newest ten thousand",
     "SELECT a.id AS id, a.pool_name AS pool, nullif(a.allocation, '') AS allocation,"
     " a.state AS state, a.reason AS reason, w.host AS host, w.n_devices AS n_devices,"
     " w.n_busy AS n_busy, a.created_ms AS created_ms, a.submitted_ms AS submitted_ms,"
     " a.started_ms AS started_ms, a.ended_ms AS ended_ms, a.name AS name"
     " FROM main.allocations a LEFT JOIN main.workers w ON w.id ="
     " (SELECT max(id) FROM main.workers WHERE pool = a.pool_name AND"
     " allocation = a.allocation)",
     allocations},
    {"checkpoints", "one row a registered checkpoint",
     "SELECT id, job, step, consumed_samples, val_loss, is_kept, created_ms, path"
     " FROM main.checkpoints",
     checkpoints},
    {"datasets", "one row a prepared dataset",
     "SELECT id, job, name, n_samples, n_rejects, fingerprint, created_ms, path"
     " FROM main.datasets",
     datasets},
    {"rejects",
     "one row a sample that was refused, read from the dataset's rejects.jsonl", NULL,
     rejects},
    {"metrics", "one row a step that was reported, the million newest",
     "SELECT id, job, step, rank, ms AS time_ms," METRIC("loss") METRIC("val_loss")
         METRIC("lr") METRIC("grad_norm") METRIC("loss_scale") METRIC("skipped_steps")
             METRIC("step_ms") METRIC("wait_ms") METRIC("comm_ms") METRIC("samples_per_s")
                 METRIC("tokens_per_s") METRIC("tflops") " json FROM main.metrics",
     metrics},
    {"events", "one row a thing that happened, the million newest",
     "SELECT id, ms AS time_ms, job, kind, text FROM main.events", events},
    {"views", "one row a column of every view", NULL, views},
    {NULL, NULL, NULL, NULL},
};

const struct query_view *query_find_view(const char *name, struct err *err)
{
    struct suggest known = {.word = name};

    for (const struct query_view *v = query_views; v->name; v++) {
        if (strcmp(name, v->name) == 0)
            return v;
        suggest_offer(&known, v->name);
    }
    if (known.near)
        err_set(err, ERR_INVALID, "no view '%s'; did you mean '%s'?", name, known.near);
    else
        err_set(err, ERR_INVALID,
                "no view '%s'; there are jobs, tasks, attempts, ranks, workers, pools, "
                "allocations, checkpoints, datasets, rejects, metrics, events, views",
                name);
    return NULL;
}

/* Whether `column` is `name` and a unit: "_ms", "_bytes". */
static bool is_without_unit(const char *name, const char *column)
{
    size_t n = strlen(name);

    return n > 0 && strncmp(column, name, n) == 0 &&
           (strcmp(column + n, "_ms") == 0 || strcmp(column + n, "_bytes") == 0);
}

const struct query_column *query_find_column(const struct query_view *view,
                                             const char *name, struct err *err)
{
    struct suggest known = {.word = name};

    for (const struct query_column *c = view->columns; c->name; c++)
        if (strcmp(c->name, name) == 0)
            return c;
    for (const struct query_column *c = view->columns; c->name; c++) {
        if (is_without_unit(name, c->name))
            return c;
        suggest_offer(&known, c->name);
    }
    if (known.near)
        err_set(err, ERR_INVALID, "view %s has no column '%s'; did you mean '%s'?",
                view->name, name, known.near);
    else
        err_set(err, ERR_INVALID,
                "view %s has no column '%s'; `vneva query views where view=%s` lists "
                "them",
                view->name, name, view->name);
    return NULL;
}
