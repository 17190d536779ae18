/* Asks for what the sentence of why.c needs. */
#include "common/base/clock.h"
#include "jobs/client/client.h"
#include "jobs/client/format.h"
#include "jobs/client/why.h"

#include <inttypes.h>
#include <stdio.h>

#define RANKS_MAX 4096
#define ALLOCATIONS_MAX 1000
#define WHERE_MAX 128

struct facts {
    struct json *job, *ranks, *workers, *holders, *pools, *allocations;
};

static void facts_fini(struct facts *facts)
{
    json_free(facts->job);
    json_free(facts->ranks);
    json_free(facts->workers);
    json_free(facts->holders);
    json_free(facts->pools);
    json_free(facts->allocations);
}

static int ask_ranks(struct client *client, struct facts *facts, int64_t job,
                     struct err *err)
{
    char where[WHERE_MAX];

    snprintf(where, sizeof(where), "[\"job=%" PRId64 "\",\"state!=ended\"]", job);
    return client_select_rows(client, &facts->ranks, "ranks", where, NULL, "rank",
                              RANKS_MAX, err);
}

/* Jobs with ranks, those with most first. */
static int ask_holders(struct client *client, struct facts *facts, struct err *err)
{
    return client_select_sql(client, &facts->holders,
                             "SELECT job, count(*) AS n FROM ranks WHERE state <> 'ended'"
                             " GROUP BY job ORDER BY n DESC, job",
                             err);
}

/* The pool it waits for, where it waits for one. */
static int ask_pool(struct client *client, struct facts *facts, struct err *err)
{
    const char *pool = json_get_string(json_at(facts->job, 0), "pool");
    char where[WHERE_MAX];

    if (!pool || !*pool)
        return 0;
    snprintf(where, sizeof(where), "[\"name=%s\"]", pool);
    if (client_select_rows(client, &facts->pools, "pools", where, NULL, NULL, 1, err) < 0)
        return -1;
    snprintf(where, sizeof(where), "[\"pool=%s\",\"state!=ended\"]", pool);
    return client_select_rows(client, &facts->allocations, "allocations", where, NULL,
                              NULL, ALLOCATIONS_MAX, err);
}

static int ask(struct client *client, struct facts *facts, int64_t job, struct err *err)
{
    char where[64];

    snprintf(where, sizeof(where), "[\"id=%" PRId64 "\"]", job);
    if (client_select_rows(client, &facts->job, "jobs", where,
                           "id,state,state_ms,reason,pool,n_ranks,done,total", NULL, 1,
                           err) < 0)
        return -1;
    if (json_count(facts->job) == 0)
        return err_set(err, ERR_NOT_FOUND, "no job %" PRId64, job);
    if (ask_ranks(client, facts, job, err) < 0 || ask_pool(client, facts, err) < 0 ||
        client_select_rows(client, &facts->workers, "workers", "[\"state=up\"]", NULL,
                           NULL, RANKS_MAX, err) < 0)
        return -1;
    return ask_holders(client, facts, err);
}

static void write_sentence(struct buf *out, const struct facts *facts)
{
    size_t n_before = out->n_bytes;

    why_write(out, &(struct why_facts){
                       .job = json_at(facts->job, 0),
                       .ranks = facts->ranks,
                       .workers = facts->workers,
                       .holders = facts->holders,
                       .now_ms = clock_wall_ms(),
                       .pool = json_count(facts->pools) ? json_at(facts->pools, 0) : NULL,
                       .allocations = facts->allocations});
    format_clean(out, n_before);
}

int why_ask(struct buf *out, struct client *client, int64_t job, struct err *err)
{
    struct facts facts = {NULL, NULL, NULL, NULL, NULL, NULL};
    int rc = ask(client, &facts, job, err);

    if (rc == 0)
        write_sentence(out, &facts);
    facts_fini(&facts);
    return rc < 0 ? -1 : buf_check(out, err);
}

/* What another object has under a key, or null. */
static struct json *copy_of(const struct json *from, const char *key)
{
    const struct json *value = json_get(from, key);

    return value ? json_clone(value) : json_new(JSON_NULL);
}

static struct json *list_of(struct json **rows)
{
    struct json *list = *rows ? *rows : json_new(JSON_ARRAY);

    *rows = NULL;
    return list;
}

static int fill(struct json *out, struct facts *facts, const char *sentence,
                struct err *err)
{
    const struct json *job = json_at(facts->job, 0), *pool = json_at(facts->pools, 0);

    if (json_set(out, "job", copy_of(job, "id"), err) < 0 ||
        json_set(out, "state", copy_of(job, "state"), err) < 0 ||
        json_set(out, "since_ms", copy_of(job, "state_ms"), err) < 0 ||
        json_set(out, "sentence", json_new_string(sentence), err) < 0 ||
        json_set(out, "reason", copy_of(job, "reason"), err) < 0 ||
        json_set(out, "pool", copy_of(job, "pool"), err) < 0 ||
        json_set(out, "pool_submits", copy_of(pool, "submits"), err) < 0 ||
        json_set(out, "allocations", list_of(&facts->allocations), err) < 0)
        return -1;
    return json_set(out, "ranks", list_of(&facts->ranks), err);
}

int why_ask_json(struct json **out, struct client *client, int64_t job, struct err *err)
{
    struct facts facts = {NULL, NULL, NULL, NULL, NULL, NULL};
    struct buf sentence = BUF_INIT;
    int rc = ask(client, &facts, job, err);

    *out = json_new(JSON_OBJECT);
    if (rc == 0 && !*out)
        rc = err_set(err, ERR_NOMEM, "no memory for an answer");
    if (rc == 0) {
        write_sentence(&sentence, &facts);
        rc = fill(*out, &facts, buf_str(&sentence), err);
    }
    if (rc < 0) {
        json_free(*out);
        *out = NULL;
    }
    buf_fini(&sentence);
    facts_fini(&facts);
    return rc;
}
