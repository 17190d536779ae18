/* What clients wish of pools. */
#include "common/base/json.h"
#include "coordinator/core.h"
#include "coordinator/pools.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define OPTIONS_MAX (8 << 10) /* bytes of a pool's own words, as JSON */
#define OPTION_WORDS_MAX 128
#define GPUS_MAX 64 /* of a node */
#define MANAGER_MAX 16
#define IDLE_MIN_MS 1000
#define IDLE_MAX_MS (int64_t)(7 * 86400000) /* a week */

static const char letters[] = "abcdefghijklmnopqrstuvwxyz";
static const char name_letters[] = "abcdefghijklmnopqrstuvwxyz0123456789-_";

/* It goes into names of jobs and files. */
static int check_name(const char *name, struct err *err)
{
    size_t n = strlen(name);

    if (n == 0 || n > POOL_NAME_MAX || strspn(name, name_letters) != n ||
        !strchr(letters, name[0]))
        return err_set(err, ERR_INVALID,
                       "a pool's name has 1 to %d of a-z, 0-9, - and _ and begins with a "
                       "letter, not '%s'",
                       POOL_NAME_MAX, name);
    return 0;
}

static int check_options(const char *text, struct err *err)
{
    struct json *options;
    int rc = 0;

    if (strlen(text) > OPTIONS_MAX)
        return err_set(err, ERR_LIMIT, "the pool's options have more than %d bytes",
                       OPTIONS_MAX);
    if (json_parse(&options, text, strlen(text), err) < 0)
        return err_wrap(err, "the pool's options");
    if (json_type(options) != JSON_ARRAY || json_count(options) > OPTION_WORDS_MAX)
        rc = err_set(err, ERR_INVALID,
                     "the pool's options are no list of at most %d words",
                     OPTION_WORDS_MAX);
    for (size_t i = 0; rc == 0 && i < json_count(options); i++)
        if (!json_string(json_at(options, i)))
            rc = err_set(err, ERR_INVALID, "option %zu of the pool is no text", i + 1);
    json_free(options);
    return rc;
}

static int check_add(const struct core *core, const struct msg_pool_add *add,
                     struct err *err)
{
    size_t n_manager = strlen(add->manager);

    if (check_name(add->name, err) < 0)
        return -1;
    if (n_manager == 0 || n_manager > MANAGER_MAX ||
        strspn(add->manager, letters) != n_manager)
        return err_set(err, ERR_INVALID, "'%s' is no cluster manager", add->manager);
    if (add->min_nodes < 0 || add->max_nodes < 1 || add->min_nodes > add->max_nodes ||
        add->max_nodes > POOL_NODES_MAX)
        return err_set(
            err, ERR_INVALID,
            "a pool has MIN-MAX nodes, 0 <= MIN <= MAX and 1 <= MAX <= %d, not "
            "%" PRId64 "-%" PRId64,
            POOL_NODES_MAX, add->min_nodes, add->max_nodes);
    if (add->idle_ms < IDLE_MIN_MS || add->idle_ms > IDLE_MAX_MS)
        return err_set(err, ERR_INVALID,
                       "a node may be idle for 1 s to 7 d, not %" PRId64 " ms",
                       add->idle_ms);
    if (add->gpus_per_node < 0 || add->gpus_per_node > GPUS_MAX)
        return err_set(err, ERR_INVALID, "a node has 0 to %d GPUs, not %" PRId64,
                       GPUS_MAX, add->gpus_per_node);
    if (!*core->config.endpoint)
        return err_set(err, ERR_STATE, "%s", POOL_NO_ENDPOINT);
    return check_options(add->options, err);
}

/* Devices of a node as the pool was added with them: ranks at once, else GPUs; 0: not said. */
static int64_t devices_said(const struct msg_pool_add *add)
{
    int64_t n = add->gpus_per_node;
    struct json *options;

    if (json_parse(&options, add->options, strlen(add->options), NULL) < 0)
        return n;
    for (size_t i = 0; i + 1 < json_count(options); i++) {
        const char *word = json_string(json_at(options, i));

        if (strcmp(word, "--") == 0)
            break; /* the cluster's own follow */
        if (strcmp(word, "--devices") == 0)
            n = strtoll(json_string(json_at(options, i + 1)), NULL, 10);
    }
    json_free(options);
    return n > 0 && n <= MODEL_DEVICES_MAX ? n : 0;
}

static bool is_same(const struct pool *pool, const struct msg_pool_add *add)
{
    return strcmp(pool->manager, add->manager) == 0 &&
           strcmp(pool->options, add->options) == 0 &&
           pool->min_nodes == add->min_nodes && pool->max_nodes == add->max_nodes &&
           pool->idle_ms == add->idle_ms && pool->gpus_per_node == add->gpus_per_node;
}

static int add(struct core *core, const struct wire *message, struct err *err)
{
    const struct msg_pool_add *m = &message->pool_add;
    struct pool *pool = pools_find(&core->pools, m->name);
    struct pool_row row;

    if (check_add(core, m, err) < 0)
        return -1;
    if (pool && pool->state != POOL_REMOVING && is_same(pool, m))
        return 0; /* asked twice */
    if (pool)
        return err_set(err, ERR_EXISTS, "there is a pool '%s'%s", m->name,
                       pool->state == POOL_REMOVING
                           ? ", which is being removed; wait until it is gone"
                           : "; remove it first, or give this one another --name");
    pool = pool_create(m, core->last.pool + 1, devices_said(m), err);
    if (!pool || pool_key_make(core, pool, err) < 0) {
        pool_free(pool);
        return -1;
    }
    if (pools_add(&core->pools, pool, err) < 0)
        return -1;
    core->last.pool++;
    pool->unwanted_mono_ms = core->mono_ms;
    row = (struct pool_row){.id = pool->id,
                            .min_nodes = pool->min_nodes,
                            .max_nodes = pool->max_nodes,
                            .idle_ms = pool->idle_ms,
                            .gpus_per_node = pool->gpus_per_node,
                            .n_devices = pool->n_devices,
                            .created_ms = core->wall_ms,
                            .name = pool->name,
                            .tag = pool->tag,
                            .manager = pool->manager,
                            .options = pool->options,
                            .state = pool_state_name(pool->state)};
    store_pool_insert(core->store, &row);
    core_event(core, 0, "pool", "pool %s of %" PRId64 " to %" PRId64 " nodes is added",
               pool->name, pool->min_nodes, pool->max_nodes);
    return 0;
}

static int change(struct core *core, const char *name, enum pool_event event,
                  struct err *err)
{
    struct pool *pool = pools_find(&core->pools, name);

    if (!pool)
        return err_set(err, ERR_NOT_FOUND, "no pool '%s'; `vneva pool list` lists them",
                       name);
    if (pool_state_next(pool->state, event) == POOL_NONE)
        return err_set(err, ERR_STATE, "pool '%s' is %s", name,
                       pool_state_name(pool->state));
    pool_change(core, pool, event);
    return 0;
}

int pools_request(struct core *core, const struct wire *message, struct err *err)
{
    switch (message->type) {
    case MSG_POOL_ADD:
        return add(core, message, err);
    case MSG_POOL_REMOVE:
        return change(core, message->pool_remove.name, POOL_EV_REMOVE, err);
    case MSG_POOL_PAUSE:
        return change(core, message->pool_pause.name, POOL_EV_PAUSE, err);
    default:
        return change(core, message->pool_resume.name, POOL_EV_RESUME, err);
    }
}
