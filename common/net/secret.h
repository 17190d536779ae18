/* secret.h - what the ranks of an attempt share and nobody else knows
 *
 * The coordinator keeps one random key in a file of its home and derives from it the secret
 * of every attempt, the same after a restart. It goes to the ranks with RANK_START: over the
 * agent's encrypted connection and the rank's socket pair, never by command line,
 * environment or log.
 * Owns: nothing; secrets are in their structs. Threads: any.
 */
#ifndef VNEVA_COMMON_NET_SECRET_H
#define VNEVA_COMMON_NET_SECRET_H

#include "common/base/err.h"
#include "common/wire/wire.h"

#include <stdint.h>

#define NET_SECRET_BYTES 32

struct net_secret {
    uint8_t bytes[NET_SECRET_BYTES];
};

/* Reads the key in the file at path, which must be private (mode 0600); makes one, durably,
 * when there is none. ERR_DENIED, ERR_FORMAT, ERR_IO. */
int net_secret_open(struct net_secret *out, const char *path, struct err *err);
/* The secret of one attempt of one job: HMAC-SHA-512-256 by the key. */
void net_secret_derive(struct net_secret *out, const struct net_secret *key, int64_t job,
                       int64_t attempt);
/* From a message; ERR_PEER when it holds none. */
int net_secret_take(struct net_secret *out, const struct wire_bytes *bytes,
                    struct err *err);
void net_secret_forget(struct net_secret *secret);

#endif
