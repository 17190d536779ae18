#include "jobs/dashboard/metrics.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

/* A family under way: its head is written with its first value. */
struct family {
    struct buf *out;
    const char *name, *type, *help;
    bool has_head;
};

/* ---- the format ---- */

static void add_label_value(struct buf *out, const char *text)
{
    for (; text && *text; text++) {
        if (*text == '\\' || *text == '"')
            buf_add_char(out, '\\');
        if (*text == '\n')
            buf_add_str(out, "\\n");
        else
            buf_add_char(out, *text);
    }
}

static void begin_value(struct family *f)
{
    if (!f->has_head)
        buf_printf(f->out, "# HELP %s %s\n# TYPE %s %s\n", f->name, f->help, f->name,
                   f->type);
    f->has_head = true;
    buf_add_str(f->out, f->name);
}

static void end_value(struct family *f, double value)
{
    if (floor(value) == value && fabs(value) < 1e15)
        buf_printf(f->out, " %.0f\n", value);
    else
        buf_printf(f->out, " %.9g\n", value);
}

static void add_plain(struct family *f, double value)
{
    begin_value(f);
    end_value(f, value);
}

static void add_labelled(struct family *f, const char *label, const char *text,
                         double value)
{
    begin_value(f);
    buf_printf(f->out, "{%s=\"", label);
    add_label_value(f->out, text);
    buf_add_str(f->out, "\"}");
    end_value(f, value);
}

/* ---- rows ---- */

static double sum(const struct json *rows, const char *key)
{
    double total = 0;

    for (size_t i = 0; i < json_count(rows); i++)
        total += json_get_double(json_at(rows, i), key, 0);
    return total;
}

/* The number in the row that is about that state. */
static double number_of(const struct json *rows, const char *key, const char *name)
{
    for (size_t i = 0; i < json_count(rows); i++)
        if (strcmp(json_get_text(json_at(rows, i), key), name) == 0)
            return json_get_double(json_at(rows, i), "n", 0);
    return 0;
}

static void add_states(struct buf *out, const struct json *facts)
{
    static const char *const states[] = {"submitted", "queued",   "placed",
                                         "running",   "stopping", "held",
                                         "done",      "failed",   "cancelled"};
    struct family f = {out, "vneva_jobs", "gauge", "Jobs by state.", false};

    for (size_t i = 0; i < sizeof(states) / sizeof(states[0]); i++)
        add_labelled(&f, "state", states[i],
                     number_of(json_get(facts, "states"), "state", states[i]));
}

static void add_tasks(struct buf *out, const struct json *facts)
{
    static const char *const states[] = {"ready", "leased", "quarantined"};
    const struct json *tasks = json_get(facts, "tasks");
    struct family f = {out, "vneva_tasks", "gauge", "Tasks not done, by state.", false};
    struct family done = {out, "vneva_tasks_done_total", "counter", "Tasks done.", false};
    struct family failures = {out, "vneva_task_failures_total", "counter",
                              "Times a task failed.", false};
    struct family lost = {out, "vneva_attempts_lost_total", "counter",
                          "Attempts that were lost.", false};

    for (size_t i = 0; i < sizeof(states) / sizeof(states[0]); i++)
        add_labelled(&f, "state", states[i], number_of(tasks, "state", states[i]));
    add_plain(&done, number_of(tasks, "state", "done"));
    add_plain(&failures, sum(tasks, "n_failures"));
    add_plain(&lost, number_of(json_get(facts, "attempts"), "cause", "lost"));
}

/* ---- workers ---- */

static void add_worker_counts(struct buf *out, const struct json *workers)
{
    struct family n = {out, "vneva_workers", "gauge", "Agents by state.", false};
    struct family all = {out, "vneva_devices", "gauge", "Devices of agents that are up.",
                         false};
    struct family busy = {out, "vneva_devices_busy", "gauge", "Devices with a rank.",
                          false};
    double n_up = 0, n_devices = 0, n_busy = 0;

    for (size_t i = 0; i < json_count(workers); i++) {
        const struct json *row = json_at(workers, i);

        if (strcmp(json_get_text(row, "state"), "up") != 0)
            continue;
        n_up++;
        n_devices += json_get_double(row, "n_devices", 0);
        n_busy += json_get_double(row, "n_busy", 0);
    }
    add_labelled(&n, "state", "up", n_up);
    add_labelled(&n, "state", "lost", (double)json_count(workers) - n_up);
    add_plain(&all, n_devices);
    add_plain(&busy, n_busy);
}

static double seconds_since(int64_t now_ms, const struct json *row, const char *key)
{
    int64_t then_ms = json_get_int(row, key, 0);

    return then_ms <= 0 ? NAN : now_ms > then_ms ? (double)(now_ms - then_ms) / 1000 : 0;
}

static void add_heartbeats(struct buf *out, const struct json *workers, int64_t now_ms)
{
    struct family f = {out, "vneva_worker_heartbeat_age_seconds", "gauge",
                       "Time since an agent that is up was last heard of.", false};

    for (size_t i = 0; i < json_count(workers); i++) {
        const struct json *row = json_at(workers, i);
        double age = seconds_since(now_ms, row, "last_seen_ms");

        if (strcmp(json_get_text(row, "state"), "up") != 0 || isnan(age))
            continue;
        begin_value(&f);
        buf_add_str(out, "{host=\"");
        add_label_value(out, json_get_text(row, "host"));
        buf_add_str(out, "\",agent=\"");
        add_label_value(out, json_get_text(row, "agent"));
        buf_add_str(out, "\"}");
        end_value(&f, age);
    }
}

/* ---- jobs that run ---- */

static void add_job_value(struct family *f, const struct json *row, const char *part,
                          double value)
{
    if (isnan(value))
        return;
    begin_value(f);
    buf_printf(f->out, "{job=\"%" PRId64 "\"", json_get_int(row, "job", 0));
    if (part)
        buf_printf(f->out, ",part=\"%s\"", part);
    buf_add_char(f->out, '}');
    end_value(f, value);
}

static void add_job_infos(struct buf *out, const struct json *jobs)
{
    struct family f = {out, "vneva_job_info", "gauge", "1; names a job that runs.",
                       false};

    for (size_t i = 0; i < json_count(jobs); i++) {
        const struct json *row = json_at(jobs, i);

        begin_value(&f);
        buf_printf(out, "{job=\"%" PRId64 "\",name=\"", json_get_int(row, "job", 0));
        add_label_value(out, json_get_text(row, "name"));
        buf_add_str(out, "\",kind=\"");
        add_label_value(out, json_get_text(row, "kind"));
        buf_add_str(out, "\"}");
        end_value(&f, 1);
    }
}

struct job_number { /* a family with a value of every row's column */
    const char *name, *help, *key;
    double scale; /* to the base unit */
};

static void add_numbers(struct buf *out, const struct json *rows,
                        const struct job_number *numbers)
{
    for (const struct job_number *n = numbers; n->name; n++) {
        struct family f = {out, n->name, "gauge", n->help, false};

        for (size_t i = 0; i < json_count(rows); i++)
            add_job_value(&f, json_at(rows, i), NULL,
                          n->scale * json_get_double(json_at(rows, i), n->key, NAN));
    }
}

static const struct job_number job_numbers[] = {
    {"vneva_job_done", "Steps or samples done.", "done", 1},
    {"vneva_job_target", "Steps or samples to be done; 0: not known.", "total", 1},
    {NULL, NULL, NULL, 0}};

static const struct job_number step_numbers[] = {
    {"vneva_job_step", "Training steps done.", "step", 1},
    {"vneva_job_loss", "Training loss, in nats a token.", "loss", 1},
    {"vneva_job_validation_loss", "Validation loss, in nats a token.", "val_loss", 1},
    {"vneva_job_learning_rate", "Learning rate.", "lr", 1},
    {"vneva_job_gradient_norm", "Norm of the gradient before clipping.", "grad_norm", 1},
    {"vneva_job_samples_per_second", "Samples a second.", "samples_per_s", 1},
    {"vneva_job_tokens_per_second", "Tokens a second.", "tokens_per_s", 1},
    {"vneva_job_flops_per_second", "Floating point operations a second.", "tflops", 1e12},
    {"vneva_job_step_seconds", "Time of a training step.", "step_ms", 1e-3},
    {NULL, NULL, NULL, 0}};

static const struct job_number rank_numbers[] = {
    {"vneva_job_ranks", "Ranks that run.", "n", 1},
    {"vneva_job_memory_bytes", "Resident memory of all ranks.", "memory_bytes", 1},
    {NULL, NULL, NULL, 0}};

/* Of a step: what is neither communication nor waiting is computing. */
static void add_step_parts(struct buf *out, const struct json *steps)
{
    struct family f = {out, "vneva_job_step_part_seconds", "gauge",
                       "Time of a training step, in parts.", false};

    for (size_t i = 0; i < json_count(steps); i++) {
        const struct json *row = json_at(steps, i);
        double all = json_get_double(row, "step_ms", NAN) / 1000;
        double data = json_get_double(row, "wait_ms", 0) / 1000;
        double communication = json_get_double(row, "comm_ms", 0) / 1000;

        if (isnan(all))
            continue;
        add_job_value(&f, row, "compute", fmax(all - data - communication, 0));
        add_job_value(&f, row, "communication", communication);
        add_job_value(&f, row, "data", data);
    }
}

static void add_ages(struct buf *out, const struct json *rows, int64_t now_ms,
                     const char *name, const char *help, const char *key)
{
    struct family f = {out, name, "gauge", help, false};

    for (size_t i = 0; i < json_count(rows); i++)
        add_job_value(&f, json_at(rows, i), NULL,
                      seconds_since(now_ms, json_at(rows, i), key));
}

static void add_jobs(struct buf *out, const struct json *facts, int64_t now_ms)
{
    const struct json *jobs = json_get(facts, "jobs"), *steps = json_get(facts, "steps");
    const struct json *ranks = json_get(facts, "ranks");

    add_job_infos(out, jobs);
    add_numbers(out, jobs, job_numbers);
    add_numbers(out, steps, step_numbers);
    add_step_parts(out, steps);
    add_ages(out, steps, now_ms, "vneva_job_metrics_age_seconds",
             "Time since a step was last reported.", "time_ms");
    add_numbers(out, ranks, rank_numbers);
    add_ages(out, ranks, now_ms, "vneva_job_stage_age_seconds",
             "Time the rank that moved least has been in one stage.", "since_ms");
    add_ages(out, json_get(facts, "checkpoints"), now_ms,
             "vneva_job_checkpoint_age_seconds", "Time since the newest checkpoint.",
             "created_ms");
}

void metrics_write(struct buf *out, const struct json *facts, int64_t now_ms)
{
    struct family up = {out, "vneva_up", "gauge", "Whether the coordinator answers.",
                        false};
    struct family build = {out, "vneva_build_info", "gauge",
                           "1; says which version the dashboard is.", false};

    add_plain(&up, facts ? 1 : 0);
    add_labelled(&build, "version", VNEVA_VERSION, 1);
    if (!facts)
        return;
    add_states(out, facts);
    add_tasks(out, facts);
    add_worker_counts(out, json_get(facts, "workers"));
    add_heartbeats(out, json_get(facts, "workers"), now_ms);
    add_jobs(out, facts, now_ms);
}
