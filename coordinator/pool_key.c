/* The key that a pool's agents connect with: a worker's, as long as there is the pool. */
#include "common/net/keys.h"
#include "coordinator/core.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define PREFIX "pool-"

_Static_assert(sizeof(PREFIX) + POOL_NAME_MAX <= KEY_NAME_BYTES,
               "a key's name is longer");

static void make_name(char out[KEY_NAME_BYTES], const struct pool *pool)
{
    snprintf(out, KEY_NAME_BYTES, PREFIX "%s", pool->name);
}

int pool_key_path(const struct core *core, const struct pool *pool, char *out,
                  struct err *err)
{
    return fs_path(out, err, "%s/keys/" PREFIX "%s.key", core->config.home, pool->name);
}

/* A new pair, that leads to this coordinator. */
static int make(struct key *key, const struct core *core, const struct pool *pool,
                const char *path, struct err *err)
{
    char name[KEY_NAME_BYTES];
    struct key coordinator;

    make_name(name, pool);
    if (keys_init(core->config.home, &coordinator, NULL, err) < 0 ||
        key_create(key, name, KEY_WORKER, err) < 0)
        return -1;
    memcpy(key->coordinator, coordinator.public_key, sizeof(key->coordinator));
    key_fini(&coordinator);
    memcpy(key->endpoint, core->config.endpoint, sizeof(key->endpoint));
    return key_write(key, path, err);
}

/* Beside the list of who may connect: a pool that could not be stored left it, and it is
 * taken again. */
int pool_key_make(const struct core *core, const struct pool *pool, struct err *err)
{
    struct authorized who = {.role = KEY_WORKER};
    char path[FS_PATH_MAX];
    struct key key;
    int rc;

    if (pool_key_path(core, pool, path, err) < 0)
        return -1;
    rc = fs_exists(path) ? key_read(&key, path, err) : make(&key, core, pool, path, err);
    if (rc == 0) {
        memcpy(who.name, key.name, sizeof(who.name));
        memcpy(who.public_key, key.public_key, sizeof(who.public_key));
        rc = keys_authorize(core->config.home, &who, 1, err);
        key_fini(&key);
    }
    return rc < 0 ? err_wrap(err, "key of pool '%s'", pool->name) : 0;
}

void pool_key_remove(struct core *core, const struct pool *pool)
{
    char path[FS_PATH_MAX], name[KEY_NAME_BYTES];
    const char *names[] = {name};
    struct err err;

    make_name(name, pool);
    if (keys_revoke(core->config.home, names, 1, &err) < 0 && err.code != ERR_NOT_FOUND)
        core_event(core, 0, "pool", "the key of pool %s stays: %s", pool->name, err.text);
    if (pool_key_path(core, pool, path, &err) == 0)
        (void)unlink(path);
}
