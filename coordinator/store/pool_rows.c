/* Rows of pools and of what they have asked their clusters for. */
#include "coordinator/store/store_internal.h"

void store_pool_insert(struct store *store, const struct pool_row *row)
{
    store_write(store, ST_POOL_INSERT,
                VALUES(INT(row->id), TEXT(row->name), TEXT(row->tag), TEXT(row->manager),
                       TEXT(row->options), TEXT(row->state), INT(row->min_nodes),
                       INT(row->max_nodes), INT(row->idle_ms), INT(row->gpus_per_node),
                       INT(row->n_devices), INT(row->created_ms)));
}

void store_pool_state(struct store *store, int64_t id, const char *state)
{
    store_write(store, ST_POOL_STATE, VALUES(INT(id), TEXT(state)));
}

void store_pool_retry(struct store *store, int64_t id, int64_t n_failures,
                      int64_t retry_ms, const char *failure)
{
    store_write(store, ST_POOL_RETRY,
                VALUES(INT(id), INT(n_failures), INT(retry_ms), TEXT(failure)));
}

void store_pool_devices(struct store *store, int64_t id, int64_t n_devices)
{
    store_write(store, ST_POOL_DEVICES, VALUES(INT(id), INT(n_devices)));
}

void store_pool_why(struct store *store, int64_t id, const char *const why[4])
{
    store_write(store, ST_POOL_WHY,
                VALUES(INT(id), TEXT(why[0]), TEXT(why[1]), TEXT(why[2]), TEXT(why[3])));
}

void store_pool_delete(struct store *store, int64_t id)
{
    store_write(store, ST_POOL_DELETE, VALUES(INT(id)));
}

void store_allocation_insert(struct store *store, const struct allocation_row *row)
{
    store_write(store, ST_ALLOCATION_INSERT,
                VALUES(INT(row->id), INT(row->pool), TEXT(row->pool_name),
                       TEXT(row->name), TEXT(row->state), TEXT(row->reason),
                       INT(row->now_ms)));
    store_write(store, ST_ALLOCATIONS_FORGET, VALUES(INT(STORE_ALLOCATIONS_MAX)));
}

void store_allocation_state(struct store *store, const struct allocation_row *row)
{
    store_write(store, ST_ALLOCATION_STATE,
                VALUES(INT(row->id), TEXT(row->state), TEXT(row->reason),
                       TEXT(row->allocation), INT(row->had_agent), INT(row->now_ms)));
}

int store_load_pools(struct store *store, int (*each)(void *, const struct pool_row *),
                     void *context, struct err *err)
{
    sqlite3_stmt *st = store_read(store, ST_POOLS_LOAD, NULL, 0);
    struct pool_row r;
    int rc;

    while ((rc = store_next(store, st, err)) > 0) {
        READ_INTS(st, &r.id, &r.min_nodes, &r.max_nodes, &r.idle_ms, &r.gpus_per_node,
                  &r.n_devices, &r.n_failures, &r.retry_ms, &r.created_ms);
        READ_TEXTS(st, 9, &r.name, &r.tag, &r.manager, &r.options, &r.state, &r.failure);
        if (each(context, &r) < 0) {
            sqlite3_reset(st);
            return err_set(err, ERR_FORMAT, "pool '%s' cannot be loaded", r.name);
        }
    }
    return rc;
}

int store_load_allocations(struct store *store, int64_t pool,
                           int (*each)(void *, const struct allocation_row *),
                           void *context, struct err *err)
{
    sqlite3_stmt *st = store_read(store, ST_ALLOCATIONS_LOAD, VALUES(INT(pool)));
    struct allocation_row r = {0};
    int64_t had_agent;
    int rc;

    while ((rc = store_next(store, st, err)) > 0) {
        READ_INTS(st, &r.id, &r.pool, &had_agent);
        r.had_agent = had_agent != 0;
        READ_TEXTS(st, 3, &r.name, &r.allocation, &r.state, &r.reason);
        if (each(context, &r) < 0) {
            sqlite3_reset(st);
            return err_set(err, ERR_FORMAT, "allocation %lld cannot be loaded",
                           (long long)r.id);
        }
    }
    return rc;
}
