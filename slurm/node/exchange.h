/* exchange.h - how the nodes of one allocation tell each other short texts
 *
 * Every node puts texts under keys, all meet at a fence, and from then on every node can
 * get what any other put before that fence. Like PMI, with three ways to do it: PMIx, files
 * in a folder that all nodes share, and nothing at all for one node alone.
 * Owns: its copies of what was put and got.
 * Threads: one.
 * Bounds: a key has at most EXCHANGE_KEY_MAX bytes, a value EXCHANGE_VALUE_MAX.
 * Errors: ERR_TIMEOUT names the nodes that did not come to the fence, ERR_PEER one that is
 * known to be gone, ERR_UNSUPPORTED what is missing for this way (library, server).
 */
#ifndef VNEVA_SLURM_NODE_EXCHANGE_H
#define VNEVA_SLURM_NODE_EXCHANGE_H

#include "common/base/err.h"

#include <stdbool.h>
#include <stdint.h>

#define EXCHANGE_KEY_MAX 64
#define EXCHANGE_VALUE_MAX 16384
#define EXCHANGE_NODES_MAX 4096
#define EXCHANGE_VERSION_MAX 32

struct exchange;

/* One way to exchange; implementations embed struct exchange first (exchange_pmix.c,
 * exchange_files.c, exchange_solo.c). */
struct exchange_ops {
    const char *name; /* "pmix", "files", "solo" */
    int (*put)(struct exchange *exchange, const char *key, const char *value,
               struct err *err);
    int (*fence)(struct exchange *exchange, int64_t timeout_ms, struct err *err);
    int (*get)(struct exchange *exchange, int node, const char *key, const char **value,
               struct err *err);
    /* A node that is known to be gone, or -1; does not wait. */
    int (*poll_lost)(struct exchange *exchange);
    void (*close)(struct exchange *exchange);
};

struct exchange {
    const struct exchange_ops *ops;
    int node, n_nodes;  /* this one, of all */
    int local, n_local; /* this one's place among the node programs of its host */
    char version[EXCHANGE_VERSION_MAX]; /* of the library it is by: "4.2.2"; "": none */
};

/* Under the PMIx server that started this process. ERR_UNSUPPORTED when there is none; and of
 * a fence, when another node found none and waits where exchange_open_files of that folder
 * and token does (both borrowed until close; NULL: not looked for). */
int exchange_open_pmix(struct exchange **out, const char *folder, const char *token,
                       struct err *err);
/* Through files below folder/exchange/TOKEN; token: the same on all nodes, fresh for every
 * start of the allocation (a Slurm job id and its restart count, say). */
int exchange_open_files(struct exchange **out, const char *folder, const char *token,
                        int node, int n_nodes, struct err *err);
int exchange_open_solo(struct exchange **out, struct err *err);

/* Visible to the others after the next fence. */
int exchange_put(struct exchange *exchange, const char *key, const char *value,
                 struct err *err);
/* COLLECTIVE: returns when all nodes are there. */
int exchange_fence(struct exchange *exchange, int64_t timeout_ms, struct err *err);
/* value: borrowed, until close. ERR_NOT_FOUND when that node did not put it. */
int exchange_get(struct exchange *exchange, int node, const char *key, const char **value,
                 struct err *err);
/* A node that is known to be gone, each once; -1: none. This node's own number says that its
 * launcher is gone. */
int exchange_poll_lost(struct exchange *exchange);
void exchange_close(struct exchange *exchange); /* NULL is fine */

#endif
