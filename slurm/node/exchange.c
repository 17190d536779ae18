/* What all ways of the exchange have in common: bounds are checked here, once. */
#include "slurm/node/exchange.h"

#include "common/base/utf8.h"

#include <string.h>

/* Values end up in JSON and in messages. */
static int check_text(const char *key, const char *value, struct err *err)
{
    const unsigned char *at = (const unsigned char *)value;
    size_t n_left = strlen(value);

    if (n_left > EXCHANGE_VALUE_MAX)
        return err_set(err, ERR_LIMIT,
                       "exchange value of '%s' has %zu bytes, more than %d", key, n_left,
                       EXCHANGE_VALUE_MAX);
    while (n_left) {
        size_t n = utf8_length(at, n_left);

        if (n == 0)
            return err_set(err, ERR_INVALID, "exchange value of '%s' is not UTF-8", key);
        at += n;
        n_left -= n;
    }
    return 0;
}

static int check_key(const char *key, struct err *err)
{
    size_t n_bytes = strlen(key);

    if (n_bytes == 0 || n_bytes > EXCHANGE_KEY_MAX)
        return err_set(err, ERR_LIMIT, "exchange key '%.80s' must have 1 to %d bytes",
                       key, EXCHANGE_KEY_MAX);
    return 0;
}

int exchange_put(struct exchange *exchange, const char *key, const char *value,
                 struct err *err)
{
    if (check_key(key, err) < 0 || check_text(key, value, err) < 0)
        return -1;
    return exchange->ops->put(exchange, key, value, err);
}

int exchange_fence(struct exchange *exchange, int64_t timeout_ms, struct err *err)
{
    return exchange->ops->fence(exchange, timeout_ms, err);
}

int exchange_get(struct exchange *exchange, int node, const char *key, const char **value,
                 struct err *err)
{
    if (check_key(key, err) < 0)
        return -1;
    if (node < 0 || node >= exchange->n_nodes)
        return err_set(err, ERR_INVALID, "no node %d among the %d of this exchange", node,
                       exchange->n_nodes);
    return exchange->ops->get(exchange, node, key, value, err);
}

int exchange_poll_lost(struct exchange *exchange)
{
    return exchange->ops->poll_lost(exchange);
}

void exchange_close(struct exchange *exchange)
{
    if (exchange)
        exchange->ops->close(exchange);
}
