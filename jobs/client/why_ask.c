/* Asks for what the sentence of why.c needs. */
#include "common/base/clock.h"
#include "jobs/client/client.h"
#include "jobs/client/why.h"

#include <inttypes.h>
#include <stdio.h>

#define RANKS_MAX 4096

struct facts {
    struct json *job, *ranks, *workers, *holders;
};

static int ask_ranks(struct client *client, struct facts *facts, int64_t job,
                     struct err *err)
{
    char where[96];

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

static int ask(struct client *client, struct facts *facts, int64_t job, struct err *err)
{
    char where[64];

    snprintf(where, sizeof(where), "[\"id=%" PRId64 "\"]", job);
    if (client_select_rows(client, &facts->job, "jobs", where,
                           "id,state,state_ms,reason,n_ranks,done,total", NULL, 1,
                           err) < 0)
        return -1;
    if (json_count(facts->job) == 0)
        return err_set(err, ERR_NOT_FOUND, "no job %" PRId64, job);
    if (ask_ranks(client, facts, job, err) < 0 ||
        client_select_rows(client, &facts->workers, "workers", "[\"state=up\"]", NULL,
                           NULL, RANKS_MAX, err) < 0)
        return -1;
    return ask_holders(client, facts, err);
}

int why_ask(struct buf *out, struct client *client, int64_t job, struct err *err)
{
    struct facts facts = {NULL, NULL, NULL, NULL};
    int rc = ask(client, &facts, job, err);

    if (rc == 0)
        why_write(out,
                  &(struct why_facts){json_at(facts.job, 0), facts.ranks, facts.workers,
                                      facts.holders, clock_wall_ms()});
    json_free(facts.job);
    json_free(facts.ranks);
    json_free(facts.workers);
    json_free(facts.holders);
    return rc < 0 ? -1 : buf_check(out, err);
}
