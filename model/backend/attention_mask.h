/* attention_mask.h - which keys a query sees, for all host backends
 *
 * Row b has len = kv_lens[b] keys (all Tk of them without kv_lens). The queries are the
 * last Tq positions of it, so query t stands at position t + len - Tq. A query that sees
 * no key gives o = 0, lse = -infinity and no gradients.
 */
#ifndef VNEVA_MODEL_BACKEND_ATTENTION_MASK_H
#define VNEVA_MODEL_BACKEND_ATTENTION_MASK_H

#include "model/backend/backend.h"

/* Keys of row b that may be read, of n_keys there is room for. */
static inline int64_t attention_len(const struct attention_args *args, int64_t b,
                                    int64_t n_keys)
{
    return args->kv_lens ? ((const int32_t *)args->kv_lens->data)[b] : n_keys;
}

/* Keys [0, result) are seen by query t of n_queries in a row with `len` keys. */
static inline int64_t attention_visible(const struct attention_args *args, int64_t len,
                                        int64_t n_queries, int64_t t)
{
    int64_t last = t + len - n_queries + 1;

    if (!args->causal || last > len)
        return len;
    return last > 0 ? last : 0;
}

#endif
