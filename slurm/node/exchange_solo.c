/* One node alone: nobody to wait for. */
#include "slurm/node/exchange_texts.h"

#include <stdlib.h>

struct solo {
    struct exchange exchange; /* first */
    struct exchange_texts texts;
};

static int solo_put(struct exchange *exchange, const char *key, const char *value,
                    struct err *err)
{
    struct solo *solo = (struct solo *)exchange;

    return texts_put(&solo->texts, 0, key, value, err);
}

static int solo_fence(struct exchange *exchange, int64_t timeout_ms, struct err *err)
{
    (void)exchange;
    (void)timeout_ms;
    (void)err;
    return 0;
}

static int solo_get(struct exchange *exchange, int node, const char *key,
                    const char **value, struct err *err)
{
    struct solo *solo = (struct solo *)exchange;

    *value = texts_find(&solo->texts, node, key);
    if (*value)
        return 0;
    return err_set(err, ERR_NOT_FOUND, "this node has put no '%s'", key);
}

static int solo_poll_lost(struct exchange *exchange)
{
    (void)exchange;
    return -1;
}

static void solo_close(struct exchange *exchange)
{
    struct solo *solo = (struct solo *)exchange;

    texts_fini(&solo->texts);
    free(solo);
}

static const struct exchange_ops solo_ops = {
    .name = "solo",
    .put = solo_put,
    .fence = solo_fence,
    .get = solo_get,
    .poll_lost = solo_poll_lost,
    .close = solo_close,
};

int exchange_open_solo(struct exchange **out, struct err *err)
{
    struct solo *solo = calloc(1, sizeof(*solo));

    if (!solo)
        return err_set(err, ERR_NOMEM, "no memory for an exchange");
    solo->exchange = (struct exchange){.ops = &solo_ops, .n_nodes = 1, .n_local = 1};
    *out = &solo->exchange;
    return 0;
}
