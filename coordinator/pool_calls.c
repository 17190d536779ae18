/* Calls of `vneva-launch` and what becomes of them. The contract (slurm/launch/README.md
 * has it all), a JSON object a line on standard output:
 *
 *     agents MANAGER --nodes 1 --pool POOL --name NAME --connect ENDPOINT --key FILE
 *            [--gpus-per-node G] [OPTIONS ...]            {"allocation": "123"}
 *     list MANAGER --pool POOL      {"allocation", "name", "state": "pending" | "running" |
 *                                    "ended", "reason"} of each
 *     cancel MANAGER ALLOCATION ...
 *
 * Its agent registers with POOL and the allocation's number. Exit status 0, or another and
 * a last line of standard error that says why. Agents are not told to end by themselves
 * (--idle): one that is kept for a gang whose other nodes are still in the queue has nothing
 * to do, and is needed.
 */
#include "common/base/fault.h"
#include "common/base/json.h"
#include "common/base/log.h"
#include "coordinator/core.h"
#include "coordinator/pools.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CANCELS_MAX 64 /* allocations of one call */
#define ABSENT_LISTS 2 /* a list may miss what has only just changed */
#define NUMBER_TEXT_MAX 24

static struct pool *find_pool(const struct core *core, int64_t id)
{
    for (size_t i = 0; i < core->pools.count; i++)
        if (core->pools.items[i]->id == id)
            return core->pools.items[i];
    return NULL;
}

/* ---- starting ---- */

struct words {
    const char *args[LAUNCHER_ARGS_MAX + 1];
    int count;
};

static void add_word(struct words *words, const char *word)
{
    if (words->count < LAUNCHER_ARGS_MAX)
        words->args[words->count++] = word;
}

/* The pool's own words, as it was added with them. */
static void add_options(struct words *words, const struct json *options)
{
    for (size_t i = 0; i < json_count(options); i++) {
        const char *word = json_string(json_at(options, i));

        if (word)
            add_word(words, word);
    }
}

static int call_submit(struct core *core, struct pool *pool,
                       struct allocation *allocation, struct err *err)
{
    struct launcher_call call = {LAUNCHER_SUBMIT, pool->id, allocation->id, 0};
    char gpus[NUMBER_TEXT_MAX], key[FS_PATH_MAX];
    const char *const first[] = {"agents",    pool->manager,
                                 "--nodes",   "1",
                                 "--pool",    pool->name,
                                 "--name",    allocation->name,
                                 "--connect", core->config.endpoint,
                                 "--key",     key};
    struct words words = {.count = 0};
    struct json *options;
    int rc;

    if (!*core->config.endpoint)
        return err_set(err, ERR_STATE, "%s", POOL_NO_ENDPOINT);
    snprintf(gpus, sizeof(gpus), "%" PRId64, pool->gpus_per_node);
    if (pool_key_path(core, pool, key, err) < 0 ||
        json_parse(&options, pool->options, strlen(pool->options), err) < 0)
        return -1;
    for (size_t i = 0; i < sizeof(first) / sizeof(first[0]); i++)
        add_word(&words, first[i]);
    if (pool->gpus_per_node > 0) {
        add_word(&words, "--gpus-per-node");
        add_word(&words, gpus);
    }
    add_options(&words, options);
    (void)fault_hit("pools.submit"); /* only killing makes sense here */
    rc = launcher_start(core->launcher, &call, words.args, core->mono_ms, err);
    json_free(options);
    return rc;
}

/* Its fate is not known until a list begun after now + wait_ms has told. */
static void leave_to_lists(struct core *core, struct allocation *allocation,
                           int64_t wait_ms)
{
    allocation->absent_after_mono_ms = core->mono_ms + wait_ms;
    allocation->n_absent = 0;
}

static void act_submit(struct core *core, struct pool *pool)
{
    for (size_t i = 0; i < pool->n_allocations; i++) {
        struct allocation *allocation = pool->allocations[i];
        struct err err;

        if (allocation->state != ALLOCATION_INTENDED || allocation->is_asked_for)
            continue;
        if (call_submit(core, pool, allocation, &err) == 0) {
            allocation->is_asked_for = true;
            continue;
        }
        if (err.code == ERR_LIMIT)
            return; /* in a later turn */
        pool_failed(core, pool, err.text);
        allocation_change(core, pool, allocation, ALLOCATION_EV_END, err.text);
    }
}

static bool is_list_due(const struct core *core, const struct pool *pool)
{
    bool is_open = false;

    for (size_t i = 0; i < pool->n_allocations; i++)
        is_open |= pool->allocations[i]->is_asked_for;
    return (is_open || *pool->list_error || core->mono_ms < pool->watch_until_mono_ms) &&
           (!pool->listed_mono_ms ||
            core->mono_ms - pool->listed_mono_ms >= core->config.pool_poll_ms) &&
           launcher_count(core->launcher, pool->id, LAUNCHER_LIST) == 0;
}

static void act_list(struct core *core, struct pool *pool)
{
    struct launcher_call call = {LAUNCHER_LIST, pool->id, 0, 0};
    const char *const args[] = {"list", pool->manager, "--pool", pool->name, NULL};
    struct err err;

    if (!is_list_due(core, pool))
        return;
    if (launcher_start(core->launcher, &call, args, core->mono_ms, &err) == 0)
        pool->listed_mono_ms = core->mono_ms;
    else if (err.code != ERR_LIMIT)
        log_error("pool %s: %s", pool->name, err.text);
}

static void act_cancel(struct core *core, struct pool *pool)
{
    struct launcher_call call = {LAUNCHER_CANCEL, pool->id, 0, 0};
    struct allocation *told[CANCELS_MAX];
    struct words words = {.count = 0};
    size_t n = 0;
    struct err err;

    if (launcher_count(core->launcher, pool->id, LAUNCHER_CANCEL) > 0)
        return;
    add_word(&words, "cancel");
    add_word(&words, pool->manager);
    for (size_t i = 0; i < pool->n_allocations && n < CANCELS_MAX; i++) {
        struct allocation *allocation = pool->allocations[i];

        if (allocation->state != ALLOCATION_CANCELLING || !*allocation->external ||
            (allocation->told_mono_ms &&
             core->mono_ms - allocation->told_mono_ms < POOL_ASK_AGAIN_MS))
            continue;
        told[n++] = allocation;
        add_word(&words, allocation->external);
    }
    for (size_t i = 0; i < pool->n_strays; i++)
        add_word(&words, pool->strays[i]);
    if (words.count == 2 ||
        launcher_start(core->launcher, &call, words.args, core->mono_ms, &err) < 0)
        return;
    for (size_t i = 0; i < n; i++)
        told[i]->told_mono_ms = core->mono_ms;
}

void pools_act(struct core *core)
{
    for (size_t i = 0; i < core->pools.count; i++) {
        if (!core->is_ending) {
            act_submit(core, core->pools.items[i]);
            act_list(core, core->pools.items[i]);
        }
        act_cancel(core, core->pools.items[i]);
    }
}

/* ---- results ---- */

/* The allocation's number in the answer: a text, or a whole number. */
static int read_number(char *out, size_t n_bytes, const struct json *row)
{
    const struct json *value = json_get(row, "allocation");
    const char *text = json_string(value);
    int n = -1;

    if (text)
        n = snprintf(out, n_bytes, "%s", text);
    else if (json_type(value) == JSON_INT)
        n = snprintf(out, n_bytes, "%" PRId64, json_int(value, 0));
    return n > 0 && (size_t)n < n_bytes ? 0 : -1;
}

/* Calls each with every line's object. */
static int each_line(const char *text,
                     int (*each)(void *state, const struct json *row, struct err *err),
                     void *state, struct err *err)
{
    for (int line = 1; *text; line++) {
        size_t n = strcspn(text, "\n");
        struct json *row = NULL;
        int rc = 0;

        if (n > 0 && json_parse(&row, text, n, err) < 0)
            return err_wrap(err, "line %d of its answer", line);
        if (n > 0)
            rc = each(state, row, err);
        json_free(row);
        if (rc < 0)
            return -1;
        text += n + (text[n] == '\n');
    }
    return 0;
}

static int take_number(void *state, const struct json *row, struct err *err)
{
    if (read_number(state, POOL_EXTERNAL_MAX, row) < 0)
        return err_set(err, ERR_FORMAT, "its answer names no allocation");
    return 0;
}

static void submitted(struct core *core, struct pool *pool,
                      const struct launcher_result *result)
{
    struct allocation *allocation = allocation_find(pool, result->call.allocation);
    char external[POOL_EXTERNAL_MAX] = "", text[CORE_TEXT_MAX];
    struct err err;

    (void)fault_hit("pools.submitted");
    if (!allocation || allocation->state != ALLOCATION_INTENDED)
        return; /* a list was faster */
    if (!result->is_ok)
        err_set(&err, ERR_PEER, "%s", result->error);
    else if (each_line(result->out, take_number, external, &err) == 0 && !*external)
        err_set(&err, ERR_FORMAT, "its answer names no allocation");
    if (*external) {
        text_set(&allocation->external, external);
        leave_to_lists(core, allocation, 0);
        allocation_change(core, pool, allocation, ALLOCATION_EV_PEND, "submitted");
        if (core->is_ending)
            allocation_change(core, pool, allocation, ALLOCATION_EV_CANCEL, "shutdown");
        return;
    }
    /* It may have been submitted all the same: lists tell, in a while. */
    core_text(text, "submission failed: %s", err.text);
    pool_failed(core, pool, text);
    text_set(&allocation->reason, text);
    allocation_write(core, allocation);
    leave_to_lists(core, allocation,
                   result->is_late ? core->config.launch_timeout_ms : 0);
}

/* ---- lists ---- */

struct listing {
    struct core *core;
    struct pool *pool;
    bool *is_there; /* [n_allocations] */
};

static void listed_pending(struct core *core, struct pool *pool,
                           struct allocation *allocation, const char *reason)
{
    if (allocation->state == ALLOCATION_INTENDED ||
        allocation->state == ALLOCATION_RUNNING) {
        allocation_change(core, pool, allocation, ALLOCATION_EV_PEND, reason);
    } else if (allocation->state == ALLOCATION_PENDING &&
               strcmp(allocation->reason, reason) != 0) {
        text_set(&allocation->reason, reason);
        allocation_write(core, allocation);
    }
}

static void ended(struct core *core, struct pool *pool, struct allocation *allocation,
                  const char *reason)
{
    char text[CORE_TEXT_MAX];

    core_text(text,
              "allocation %s ended before its agent registered%s%s; why: `vneva launch "
              "status %s/pools/%s/%s`",
              allocation_label(allocation), *reason ? ": " : "", reason,
              core->config.home, pool->name, allocation->name);
    if (!allocation->had_agent && (allocation->state == ALLOCATION_PENDING ||
                                   allocation->state == ALLOCATION_RUNNING))
        pool_failed(core, pool, text);
    if (allocation->state == ALLOCATION_DRAINING ||
        allocation->state == ALLOCATION_CANCELLING ||
        (allocation->state == ALLOCATION_INTENDED &&
         strcmp(allocation->reason, POOL_INTENDED) != 0))
        core_text(text, "%s", allocation->reason); /* why it was to end says more */
    else if (allocation->state == ALLOCATION_INTENDED)
        core_text(text, "it never came into the cluster's list");
    else
        core_text(text, "%s", *reason ? reason : "it vanished from the cluster's list");
    if (allocation->state == ALLOCATION_INTENDED)
        pool->watch_until_mono_ms = core->mono_ms + core->config.launch_timeout_ms;
    allocation_change(core, pool, allocation, ALLOCATION_EV_END, text);
}

static void listed(struct core *core, struct pool *pool, struct allocation *allocation,
                   const struct json *row)
{
    const char *state = json_get_string(row, "state");
    const char *given = json_get_string(row, "reason");
    char reason[CORE_TEXT_MAX];

    core_text(reason, "%s", given ? given : "");
    if (!state)
        return;
    if (strcmp(state, "ended") == 0)
        ended(core, pool, allocation, reason);
    else if (strcmp(state, "pending") == 0)
        listed_pending(core, pool, allocation, reason);
    else if (strcmp(state, "running") == 0 && (allocation->state == ALLOCATION_INTENDED ||
                                               allocation->state == ALLOCATION_PENDING))
        allocation_change(core, pool, allocation, ALLOCATION_EV_RUN, "");
}

/* By its number, or, when that is not known yet, by the name it was to have. */
static bool is_it(const struct allocation *allocation, const char *external,
                  const char *name)
{
    return *allocation->external ? strcmp(allocation->external, external) == 0
                                 : name && strcmp(allocation->name, name) == 0;
}

/* What bears our tag, lives and is none of those that we know: it was submitted after all
 * when we had given it up. */
static void note_stray(struct pool *pool, const struct json *row, const char *external,
                       const char *name)
{
    const char *state = json_get_string(row, "state");
    char prefix[POOL_UNIQUE_MAX];
    int n = snprintf(prefix, sizeof(prefix), "%s-", pool->tag);

    if (!name || !state || strncmp(name, prefix, (size_t)n) != 0 ||
        strcmp(state, "ended") == 0 || pool->n_strays == POOL_STRAYS_MAX)
        return;
    snprintf(pool->strays[pool->n_strays++], POOL_EXTERNAL_MAX, "%s", external);
}

static int take_row(void *state, const struct json *row, struct err *err)
{
    struct listing *listing = state;
    struct pool *pool = listing->pool;
    const char *name = json_get_string(row, "name");
    char external[POOL_EXTERNAL_MAX];

    if (read_number(external, sizeof(external), row) < 0)
        return err_set(err, ERR_FORMAT, "a row names no allocation");
    for (size_t i = 0; i < pool->n_allocations; i++) {
        struct allocation *allocation = pool->allocations[i];

        if (!is_it(allocation, external, name))
            continue;
        listing->is_there[i] = true;
        if (!*allocation->external) {
            text_set(&allocation->external, external);
            allocation_write(listing->core, allocation);
        }
        if (allocation->state != ALLOCATION_ENDED)
            listed(listing->core, pool, allocation, row);
        return 0;
    }
    note_stray(pool, row, external, name);
    return 0;
}

/* Those that this list should have had. An agent that reports is better evidence. */
static void judge_absent(struct core *core, struct pool *pool,
                         const struct launcher_result *result, const bool *is_there)
{
    for (size_t i = 0; i < pool->n_allocations; i++) {
        struct allocation *allocation = pool->allocations[i];

        if (is_there[i] || !allocation->is_asked_for ||
            launcher_is_submitting(core->launcher, allocation->id) ||
            result->call.started_ms < allocation->absent_after_mono_ms ||
            (allocation->n_agents && allocation->state == ALLOCATION_RUNNING) ||
            allocation->state == ALLOCATION_ENDED) {
            allocation->n_absent = 0;
            continue;
        }
        if (++allocation->n_absent >= ABSENT_LISTS)
            ended(core, pool, allocation, "");
    }
}

static void list_failed(struct core *core, struct pool *pool, const char *why)
{
    char text[CORE_TEXT_MAX];

    core_text(text, "%s", why);
    if (strcmp(pool->list_error, text) != 0)
        core_event(core, 0, "pool", "pool %s cannot be listed: %s", pool->name, text);
    text_set(&pool->list_error, text);
}

static int take_list(struct core *core, struct pool *pool,
                     const struct launcher_result *result, struct err *err)
{
    struct listing listing = {core, pool, calloc(pool->n_allocations + 1, sizeof(bool))};
    int rc = 0;

    if (!listing.is_there)
        return err_set(err, ERR_NOMEM, "no memory for a list");
    if (!result->is_ok)
        rc = err_set(err, ERR_PEER, "%s", result->error);
    else
        rc = each_line(result->out, take_row, &listing, err);
    if (rc == 0)
        judge_absent(core, pool, result, listing.is_there);
    free(listing.is_there);
    return rc;
}

static void list_ended(struct core *core, struct pool *pool,
                       const struct launcher_result *result)
{
    struct err err;

    pool->n_strays = 0;
    if (take_list(core, pool, result, &err) < 0)
        list_failed(core, pool, err.text);
    else
        text_set(&pool->list_error, "");
}

static void cancelled(struct core *core, struct pool *pool,
                      const struct launcher_result *result)
{
    char text[CORE_TEXT_MAX] = "";

    pool->n_strays = 0; /* told now, or found again */
    if (!result->is_ok)
        core_text(text, "%s", result->error);
    if (*text && strcmp(pool->cancel_error, text) != 0)
        core_event(core, 0, "pool", "pool %s cannot cancel: %s", pool->name, text);
    text_set(&pool->cancel_error, text);
}

void pools_poll(struct core *core)
{
    struct launcher_result result;

    while (launcher_poll(core->launcher, &result, core->mono_ms)) {
        struct pool *pool = find_pool(core, result.call.pool);

        if (!pool)
            continue;
        if (result.call.verb == LAUNCHER_SUBMIT)
            submitted(core, pool, &result);
        else if (result.call.verb == LAUNCHER_LIST)
            list_ended(core, pool, &result);
        else
            cancelled(core, pool, &result);
    }
}
