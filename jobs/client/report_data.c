#define _XOPEN_SOURCE 700 /* realpath */
#include "jobs/client/report.h"

#include "common/base/json_file.h"

#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define SMOOTH_POINTS 40 /* of the curve: the running mean forgets in a 40th of it */

/* ---- curves ---- */

static double **columns_of(struct report_curves *c, size_t i)
{
    double **columns[] = {&c->step, &c->loss,    &c->smooth_loss, &c->val_loss,
                          &c->lr,   &c->wait_ms, &c->step_ms,     &c->samples_per_s};

    return i < sizeof(columns) / sizeof(columns[0]) ? columns[i] : NULL;
}

static int alloc_curves(struct report_curves *c, size_t n, struct err *err)
{
    for (size_t i = 0; columns_of(c, i); i++) {
        *columns_of(c, i) = calloc(n + 1, sizeof(double));
        if (!*columns_of(c, i))
            return err_set(err, ERR_NOMEM, "out of memory in curves");
    }
    return 0;
}

static int by_step(const void *a, const void *b)
{
    int64_t x = json_get_int(*(const struct json *const *)a, "step", 0);
    int64_t y = json_get_int(*(const struct json *const *)b, "step", 0);

    return x < y ? -1 : x > y;
}

static void fill_point(struct report_curves *c, const struct json *row)
{
    const struct json *m = json_get(row, "json");
    size_t i = c->n++;

    c->step[i] = (double)json_get_int(row, "step", 0);
    c->loss[i] = json_get_double(m, "loss", NAN);
    c->val_loss[i] = json_get_double(m, "val_loss", NAN);
    c->lr[i] = json_get_double(m, "lr", NAN);
    c->wait_ms[i] = json_get_double(m, "wait_ms", NAN);
    c->step_ms[i] = json_get_double(m, "step_ms", NAN);
    c->samples_per_s[i] = json_get_double(m, "samples_per_s", NAN);
    c->n_on_gpu += json_get_int(m, "videos_on_gpu", 0);
    c->n_on_cpu += json_get_int(m, "videos_on_cpu", 0);
}

/* A running mean, corrected for its beginning as Adam does it. */
static void smooth(struct report_curves *c)
{
    double keep = c->n > SMOOTH_POINTS ? 1 - (double)SMOOTH_POINTS / (double)c->n : 0;
    double mean = 0, weight = 0;

    for (size_t i = 0; i < c->n; i++) {
        if (isfinite(c->loss[i])) {
            mean = keep * mean + (1 - keep) * c->loss[i];
            weight = keep * weight + (1 - keep);
        }
        c->smooth_loss[i] = weight > 0 ? mean / weight : NAN;
    }
}

/* Rank 0 reports for all; steps done again after a restart are there once. */
static int fill_curves(struct report_curves *c, const struct json *rows, struct err *err)
{
    size_t n = json_count(rows), n_kept = 0;
    const struct json **sorted = calloc(n + 1, sizeof(*sorted));

    if (!sorted || alloc_curves(c, n, err) < 0) {
        free(sorted);
        return err_set(err, ERR_NOMEM, "out of memory in curves");
    }
    for (size_t i = 0; i < n; i++)
        if (json_get_int(json_at(rows, i), "rank", 0) == 0)
            sorted[n_kept++] = json_at(rows, i);
    qsort(sorted, n_kept, sizeof(*sorted), by_step);
    for (size_t i = 0; i < n_kept; i++)
        fill_point(c, sorted[i]);
    free(sorted);
    smooth(c);
    return 0;
}

/* The number in text after `before`, or -1. */
static int64_t number_after(const char *text, const char *before)
{
    const char *at = text ? strstr(text, before) : NULL;

    return at ? strtoll(at + strlen(before), NULL, 10) : -1;
}

/* Events come in order: an attempt after the first goes on from the last checkpoint that
 * was registered before it started. */
static int fill_restarts(struct report_curves *c, const struct json *events,
                         struct err *err)
{
    int64_t step = 0;

    c->restarts = calloc(json_count(events) + 1, sizeof(*c->restarts));
    if (!c->restarts)
        return err_set(err, ERR_NOMEM, "out of memory in curves");
    for (size_t i = 0; i < json_count(events); i++) {
        const char *kind = json_get_string(json_at(events, i), "kind");
        const char *text = json_get_string(json_at(events, i), "text");

        if (!kind || !text)
            continue;
        if (strcmp(kind, "checkpoint") == 0 && number_after(text, "step ") >= 0)
            step = number_after(text, "step ");
        if (strcmp(kind, "attempt") == 0 && strstr(text, " starts") &&
            number_after(text, "attempt ") > 1)
            c->restarts[c->n_restarts++] = (double)step;
    }
    return 0;
}

static int gather_curves(struct report_curves *c, struct client *client, int64_t job,
                         struct err *err)
{
    struct json *metrics = NULL, *events = NULL;
    int rc = -1;

    c->job = job;
    if (client_query_all(client, &metrics, "metrics", job, 0, err) == 0 &&
        client_query_all(client, &events, "events", job, 0, err) == 0 &&
        fill_curves(c, metrics, err) == 0 && fill_restarts(c, events, err) == 0)
        rc = 0;
    json_free(metrics);
    json_free(events);
    return rc;
}

/* ---- the run a checkpoint came from ---- */

static bool is_in(const char *path, const char *folder)
{
    size_t n = strlen(folder);

    while (n > 1 && folder[n - 1] == '/')
        n--;
    return strncmp(path, folder, n) == 0 && (path[n] == '/' || path[n] == '\0');
}

/* The job that registered the checkpoint at path, or one in that folder; 0: none. */
static int find_training(struct client *client, const char *path, int64_t *job,
                         struct err *err)
{
    char plain[PATH_MAX];
    struct json *rows;

    *job = 0;
    if (!path)
        return 0;
    if (realpath(path, plain)) /* without links and ".." */
        path = plain;
    if (client_query_all(client, &rows, "checkpoints", 0, 0, err) < 0)
        return -1;
    for (size_t i = 0; i < json_count(rows); i++) {
        const char *at = json_get_string(json_at(rows, i), "path");

        if (at && (is_in(at, path) || is_in(path, at)))
            *job = json_get_int(json_at(rows, i), "job", 0);
    }
    json_free(rows);
    return 0;
}

/* Jobs whose curves belong to the page: this one, or the one it evaluates. */
static int curves_job(struct report *r, struct client *client, int64_t *job,
                      struct err *err)
{
    const char *kind = json_get_string(r->job, "kind");
    const struct json *spec = json_get(r->job, "spec");

    *job = json_get_int(r->job, "id", 0);
    if (!kind || strcmp(kind, "evaluate") != 0)
        return 0;
    return find_training(client, json_get_string(spec, "neva_model_file"), job, err);
}

int report_gather(struct report *out, struct client *client, int64_t job, struct err *err)
{
    int64_t training;

    memset(out, 0, sizeof(*out));
    if (fs_path(out->folder, err, "%s/jobs/%lld", client->home, (long long)job) == 0 &&
        client_get_job(client, &out->job, job, err) == 0 &&
        client_query_all(client, &out->attempts, "attempts", job, 0, err) == 0 &&
        json_file_find(&out->table, out->folder, "table.json", REPORT_JSON_MAX, err) ==
            0 &&
        json_file_find(&out->examples, out->folder, "examples/examples.json",
                       REPORT_JSON_MAX, err) == 0 &&
        curves_job(out, client, &training, err) == 0 &&
        (training == 0 || gather_curves(&out->curves, client, training, err) == 0))
        return 0;
    report_fini(out);
    return -1;
}

void report_fini(struct report *report)
{
    json_free(report->job);
    json_free(report->attempts);
    json_free(report->table);
    json_free(report->examples);
    for (size_t i = 0; columns_of(&report->curves, i); i++)
        free(*columns_of(&report->curves, i));
    free(report->curves.restarts);
    memset(report, 0, sizeof(*report));
}
