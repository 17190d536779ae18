/* Pools and their allocations in memory, and the setters that write them down. */
#include "coordinator/pools.h"
#include "coordinator/core.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

/* ---- containers ---- */

static void allocation_free(struct allocation *allocation)
{
    free(allocation->name);
    free(allocation->external);
    free(allocation->reason);
    free(allocation);
}

void pool_free(struct pool *pool)
{
    if (!pool)
        return;
    for (size_t i = 0; i < pool->n_allocations; i++)
        allocation_free(pool->allocations[i]);
    free((void *)pool->allocations);
    free(pool->name);
    free(pool->tag);
    free(pool->manager);
    free(pool->options);
    free(pool->failure);
    free(pool->list_error);
    free(pool->cancel_error);
    free(pool);
}

void pools_fini(struct pools *pools)
{
    for (size_t i = 0; i < pools->count; i++)
        pool_free(pools->items[i]);
    *pools = (struct pools){.count = 0};
}

struct pool *pools_find(const struct pools *pools, const char *name)
{
    for (size_t i = 0; i < pools->count; i++)
        if (strcmp(pools->items[i]->name, name) == 0)
            return pools->items[i];
    return NULL;
}

struct allocation *allocation_find(const struct pool *pool, int64_t id)
{
    size_t low = 0, high = pool->n_allocations;

    while (low < high) {
        size_t middle = (low + high) / 2;

        if (pool->allocations[middle]->id < id)
            low = middle + 1;
        else
            high = middle;
    }
    return low < pool->n_allocations && pool->allocations[low]->id == id
               ? pool->allocations[low]
               : NULL;
}

const char *allocation_label(const struct allocation *allocation)
{
    return *allocation->external ? allocation->external : allocation->name;
}

static struct pool *pool_new(const struct pool_row *row, struct err *err)
{
    struct pool *pool = calloc(1, sizeof(*pool));

    if (pool) {
        *pool = (struct pool){.id = row->id,
                              .name = strdup(row->name),
                              .tag = strdup(row->tag),
                              .manager = strdup(row->manager),
                              .options = strdup(row->options),
                              .state = pool_state_find(row->state),
                              .min_nodes = row->min_nodes,
                              .max_nodes = row->max_nodes,
                              .idle_ms = row->idle_ms,
                              .gpus_per_node = row->gpus_per_node,
                              .created_ms = row->created_ms,
                              .n_devices = row->n_devices,
                              .n_failures = row->n_failures,
                              .retry_ms = row->retry_ms,
                              .failure = strdup(row->failure),
                              .list_error = strdup(""),
                              .cancel_error = strdup("")};
        if (pool->name && pool->tag && pool->manager && pool->options && pool->failure &&
            pool->list_error && pool->cancel_error)
            return pool;
    }
    pool_free(pool);
    err_set(err, ERR_NOMEM, "no memory for a pool");
    return NULL;
}

static struct allocation *
allocation_new(struct pool *pool, const struct allocation_row *row, struct err *err)
{
    struct allocation *allocation = calloc(1, sizeof(*allocation));
    struct allocation **grown =
        realloc((void *)pool->allocations,
                (pool->n_allocations + 1) * sizeof(*pool->allocations));

    if (grown)
        pool->allocations = grown;
    if (allocation)
        *allocation = (struct allocation){.id = row->id,
                                          .state = allocation_state_find(row->state),
                                          .name = strdup(row->name),
                                          .external = strdup(row->allocation),
                                          .reason = strdup(row->reason),
                                          .had_agent = row->had_agent};
    if (allocation && grown && allocation->name && allocation->external &&
        allocation->reason) {
        pool->allocations[pool->n_allocations++] = allocation;
        return allocation;
    }
    if (allocation)
        allocation_free(allocation);
    err_set(err, ERR_NOMEM, "no memory for an allocation");
    return NULL;
}

/* ---- from the store ---- */

struct loading {
    struct core *core;
    struct pool *pool;
    struct err *err;
};

static int load_allocation(void *context, const struct allocation_row *row)
{
    struct loading *loading = context;
    struct core *core = loading->core;
    struct allocation *allocation = allocation_new(loading->pool, row, loading->err);

    if (!allocation)
        return -1;
    if (allocation->state == ALLOCATION_NONE)
        return err_set(loading->err, ERR_FORMAT, "allocation in state '%s'", row->state);
    /* Whoever submitted it may be at it still: only later lists tell that it is not. */
    allocation->is_asked_for = true;
    allocation->absent_after_mono_ms =
        core->mono_ms + (*allocation->external ? 0 : core->config.launch_timeout_ms);
    allocation->needed_mono_ms = allocation->agent_mono_ms = core->mono_ms;
    allocation->draining_mono_ms = core->mono_ms;
    return 0;
}

static int load_pool(void *context, const struct pool_row *row)
{
    struct loading *loading = context;
    struct pool *pool = pool_new(row, loading->err);

    if (!pool || pools_add(&loading->core->pools, pool, loading->err) < 0)
        return -1;
    if (pool->state == POOL_NONE)
        return err_set(loading->err, ERR_FORMAT, "pool in state '%s'", row->state);
    pool->unwanted_mono_ms = loading->core->mono_ms;
    pool->watch_until_mono_ms =
        loading->core->mono_ms + loading->core->config.launch_timeout_ms;
    return 0;
}

int pools_recover(struct core *core, struct err *err)
{
    struct loading loading = {.core = core, .err = err};

    pools_fini(&core->pools);
    if (store_load_pools(core->store, load_pool, &loading, err) < 0)
        return -1;
    for (size_t i = 0; i < core->pools.count; i++) {
        loading.pool = core->pools.items[i];
        if (store_load_allocations(core->store, loading.pool->id, load_allocation,
                                   &loading, err) < 0)
            return -1;
    }
    return 0;
}

/* ---- pools ---- */

/* Two coordinators of one user may have pools of one name: what they ask for must not be
 * taken for each other's. */
static int make_tag(char out[9], struct err *err)
{
    uint32_t number;

    if (getrandom(&number, sizeof(number), 0) != (ssize_t)sizeof(number))
        return err_set(err, ERR_IO, "cannot draw a random number");
    snprintf(out, 9, "%08x", number);
    return 0;
}

struct pool *pool_create(const struct msg_pool_add *m, int64_t id, int64_t n_devices,
                         struct err *err)
{
    char tag[9];
    struct pool_row row = {.id = id,
                           .min_nodes = m->min_nodes,
                           .max_nodes = m->max_nodes,
                           .idle_ms = m->idle_ms,
                           .gpus_per_node = m->gpus_per_node,
                           .n_devices = n_devices,
                           .name = m->name,
                           .tag = tag,
                           .manager = m->manager,
                           .options = m->options,
                           .state = pool_state_name(POOL_ACTIVE),
                           .failure = ""};

    return make_tag(tag, err) < 0 ? NULL : pool_new(&row, err);
}

/* Takes the pool over, also when it fails. */
int pools_add(struct pools *pools, struct pool *pool, struct err *err)
{
    if (pools->count == POOLS_MAX) {
        pool_free(pool);
        return err_set(err, ERR_LIMIT, "%d pools are the most that can be", POOLS_MAX);
    }
    pools->items[pools->count++] = pool;
    pools->n_removing += pool->state == POOL_REMOVING;
    return 0;
}

void pool_change(struct core *core, struct pool *pool, enum pool_event event)
{
    enum pool_state next = pool_state_next(pool->state, event);
    struct err why;

    if (next == POOL_NONE) {
        err_set(&why, ERR_STATE, "pool '%s' is %s, which does not allow '%s'", pool->name,
                pool_state_name(pool->state), pool_event_name(event));
        store_fail(core->store, &why);
        return;
    }
    pool->state = next;
    core->pools.n_removing += next == POOL_REMOVING;
    store_pool_state(core->store, pool->id, pool_state_name(next));
    core_event(core, 0, "pool", "pool %s is %s", pool->name, pool_state_name(next));
}

static void set_failures(struct core *core, struct pool *pool, int64_t n, const char *why)
{
    pool->n_failures = n;
    pool->retry_ms = n ? core->wall_ms + core_backoff_ms(core, n) : 0;
    text_set(&pool->failure, why);
    store_pool_retry(core->store, pool->id, n, pool->retry_ms, pool->failure);
}

void pool_failed(struct core *core, struct pool *pool, const char *why)
{
    char text[CORE_TEXT_MAX];

    core_text(text, "%s", why);
    core_event(core, 0, "pool", "pool %s: %s", pool->name, text);
    set_failures(core, pool, pool->n_failures + 1, text);
}

void pool_write_why(struct core *core, struct pool *pool, const struct pool_plan *plan)
{
    const char *texts[POOL_WHY_COUNT];

    if (memcmp(pool->why, plan->why, sizeof(pool->why)) == 0)
        return;
    memcpy(pool->why, plan->why, sizeof(pool->why));
    for (int i = 0; i < POOL_WHY_COUNT; i++)
        texts[i] = pool->why[i];
    store_pool_why(core->store, pool->id, texts);
}

void pool_worked(struct core *core, struct pool *pool, int64_t n_devices)
{
    if (pool->n_failures)
        set_failures(core, pool, 0, "");
    if (pool->n_devices == n_devices || n_devices < 1)
        return;
    pool->n_devices = n_devices;
    store_pool_devices(core->store, pool->id, n_devices);
}

/* ---- allocations ---- */

struct allocation *allocation_create(struct core *core, struct pool *pool,
                                     struct err *err)
{
    char name[POOL_UNIQUE_MAX];
    struct allocation *allocation;
    struct allocation_row row = {.id = core->last.allocation + 1,
                                 .pool = pool->id,
                                 .now_ms = core->wall_ms,
                                 .pool_name = pool->name,
                                 .name = name,
                                 .allocation = "",
                                 .state = allocation_state_name(ALLOCATION_INTENDED),
                                 .reason = POOL_INTENDED};

    snprintf(name, sizeof(name), "%s-%lld", pool->tag, (long long)row.id);
    allocation = allocation_new(pool, &row, err);
    if (!allocation)
        return NULL;
    core->last.allocation++;
    allocation->needed_mono_ms = allocation->agent_mono_ms = core->mono_ms;
    store_allocation_insert(core->store, &row);
    return allocation;
}

void allocation_write(struct core *core, const struct allocation *allocation)
{
    struct allocation_row row = {.id = allocation->id,
                                 .had_agent = allocation->had_agent,
                                 .now_ms = core->wall_ms,
                                 .allocation = allocation->external,
                                 .state = allocation_state_name(allocation->state),
                                 .reason = allocation->reason};

    store_allocation_state(core->store, &row);
}

void allocation_change(struct core *core, struct pool *pool,
                       struct allocation *allocation, enum allocation_event event,
                       const char *reason)
{
    enum allocation_state next = allocation_state_next(allocation->state, event);
    char text[CORE_TEXT_MAX];
    struct err why;

    if (next == ALLOCATION_NONE) {
        err_set(&why, ERR_STATE, "allocation %lld is %s, which does not allow '%s'",
                (long long)allocation->id, allocation_state_name(allocation->state),
                allocation_event_name(event));
        store_fail(core->store, &why);
        return;
    }
    core_text(text, "%s", reason);
    allocation->state = next;
    text_set(&allocation->reason, text);
    allocation_write(core, allocation);
    core_event(core, 0, "pool", "pool %s: allocation %s is %s%s%s", pool->name,
               allocation_label(allocation), allocation_state_name(next),
               *text ? ": " : "", text);
}

static void sweep_allocations(struct pool *pool)
{
    size_t n = 0;

    for (size_t i = 0; i < pool->n_allocations; i++) {
        if (pool->allocations[i]->state == ALLOCATION_ENDED)
            allocation_free(pool->allocations[i]);
        else
            pool->allocations[n++] = pool->allocations[i];
    }
    pool->n_allocations = n;
}

void pools_sweep(struct core *core)
{
    struct pools *pools = &core->pools;
    size_t n = 0;

    for (size_t i = 0; i < pools->count; i++) {
        struct pool *pool = pools->items[i];

        sweep_allocations(pool);
        if (pool->state != POOL_REMOVING || pool->n_allocations) {
            pools->items[n++] = pool;
            continue;
        }
        pool_key_remove(core, pool);
        store_pool_delete(core->store, pool->id);
        core_event(core, 0, "pool", "pool %s is removed", pool->name);
        pools->n_removing--;
        pool_free(pool);
    }
    pools->count = n;
}
