#include "jobs/client/job_summary.h"

#include "jobs/spec/spec.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define PART_MAX 64

static int64_t count_restarts(const struct json *attempts)
{
    int64_t n = 0;

    for (size_t i = 0; i + 1 < json_count(attempts); i++) {
        const char *cause = json_get_string(json_at(attempts, i), "cause");

        n += cause && strcmp(cause, "lost") == 0;
    }
    return n;
}

/* Every window of log_every_n_steps steps weighs the same; of a window done again after a
 * restart the store keeps the last. */
static int add_training(struct json *summary, const struct json *metrics, struct err *err)
{
    double step_ms = 0, wait_ms = 0, samples = 0, tokens = 0;
    int64_t n = 0;

    for (size_t i = 0; i < json_count(metrics); i++) {
        const struct json *m = json_get(json_at(metrics, i), "json");
        double ms = json_get_double(m, "step_ms", 0);

        if (json_get_int(json_at(metrics, i), "rank", -1) != 0 || ms <= 0)
            continue;
        n++;
        step_ms += ms;
        wait_ms += json_get_double(m, "wait_ms", 0);
        samples += json_get_double(m, "samples_per_s", 0) * ms;
        tokens += json_get_double(m, "tokens_per_s", 0) * ms;
    }
    if (!n)
        return 0;
    if (json_set(summary, "step_ms", json_new_double(step_ms / (double)n), err) < 0 ||
        json_set(summary, "samples_per_s", json_new_double(samples / step_ms), err) < 0 ||
        json_set(summary, "tokens_per_s", json_new_double(tokens / step_ms), err) < 0)
        return -1;
    return json_set(summary, "data_wait_share", json_new_double(wait_ms / step_ms), err);
}

static int make_summary(struct client *client, const struct json *row, struct json **out,
                        struct err *err)
{
    enum spec_kind kind = spec_kind_find(json_get_string(row, "kind"));
    struct json *metrics = NULL;
    int rc;

    *out = json_new(JSON_OBJECT);
    if (!spec_kind_is_training(kind))
        return 0;
    if (client_query_all(client, &metrics, "metrics", json_get_int(row, "id", 0), 0,
                         err) < 0)
        return -1;
    rc = add_training(*out, metrics, err);
    json_free(metrics);
    return rc;
}

/* A process that is not known yet is null and never 0, which means something else to
 * kill(1). */
static int hide_unknown_processes(struct json *ranks, struct err *err)
{
    for (size_t i = 0; i < json_count(ranks); i++) {
        struct json *rank = json_at(ranks, i);

        if (json_get_int(rank, "pid", 0) < 1 &&
            json_set(rank, "pid", json_new(JSON_NULL), err) < 0)
            return -1;
    }
    return 0;
}

int job_summary_add(struct client *client, struct json *row, const struct json *attempts,
                    struct err *err)
{
    struct json *summary = NULL;

    if (hide_unknown_processes(json_get(row, "ranks"), err) < 0 ||
        json_set(row, "restarts", json_new_int(count_restarts(attempts)), err) < 0)
        return -1;
    if (make_summary(client, row, &summary, err) < 0) {
        json_free(summary);
        return -1;
    }
    return json_set(row, "summary", summary, err);
}

static const struct json *step_into(const struct json *json, const char *part)
{
    char *end;
    size_t i;

    if (json_type(json) != JSON_ARRAY)
        return json_get(json, part);
    i = strtoul(part, &end, 10);
    return *part && !*end ? json_at(json, i) : NULL;
}

int job_summary_print(FILE *out, const struct json *row, const char *path,
                      struct err *err)
{
    const struct json *at = row;
    struct buf text = BUF_INIT;
    char part[PART_MAX];

    for (const char *p = path; *p;) {
        size_t n = strcspn(p, ".");

        snprintf(part, sizeof(part), "%.*s", (int)n, p);
        at = n < sizeof(part) ? step_into(at, part) : NULL;
        if (!at)
            return err_set(err, ERR_NOT_FOUND,
                           "no field '%s' in '%s'; `vneva show JOB --json` shows all",
                           part, path);
        p += n + (p[n] == '.');
    }
    if (json_string(at))
        buf_add_str(&text, json_string(at));
    else
        json_write(&text, at, 0);
    fprintf(out, "%s\n", buf_str(&text));
    buf_fini(&text);
    return 0;
}
