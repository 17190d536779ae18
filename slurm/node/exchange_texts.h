/* exchange_texts.h - the texts of an exchange, by node and key, while it is open
 *
 * What has been put or got once stays where it is until the end: pointers to it are good
 * until texts_fini. Shared by the ways of an exchange; not for others.
 * Owns: copies. Threads: one.
 */
#ifndef VNEVA_SLURM_NODE_EXCHANGE_TEXTS_H
#define VNEVA_SLURM_NODE_EXCHANGE_TEXTS_H

#include "slurm/node/exchange.h"

struct exchange_text {
    struct exchange_text *next;
    int node;
    char key[EXCHANGE_KEY_MAX + 1];
    char value[]; /* NUL terminated */
};

struct exchange_texts {
    struct exchange_text *newest;
};

/* A second text under the same key hides the first. */
int texts_put(struct exchange_texts *texts, int node, const char *key, const char *value,
              struct err *err);
const char *texts_find(const struct exchange_texts *texts, int node,
                       const char *key); /* NULL: none */
void texts_fini(struct exchange_texts *texts);

#endif
