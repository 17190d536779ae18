/* generate.h - answers, token by token, with a key-value cache
 *
 * Greedy: the most probable token; of equals the lowest number. A batch gives each row
 * what it would get alone.
 */
#ifndef VNEVA_MODEL_GENERATE_GENERATE_H
#define VNEVA_MODEL_GENERATE_GENERATE_H

#include "model/neva/neva.h"

struct generate_args {
    int64_t max_new_tokens;
    int32_t end_token; /* stops a row; not part of the answer */
    /* Told each token of the answer as it comes, row after row; NULL: nobody is. -1 ends
     * generation with err: every rank must then say so at the same token. */
    int (*on_token)(void *state, int64_t row, int32_t token, struct err *err);
    void *state;
};

/* batch: prompts (labels are not read), padded as in neva_batch.
 * out [B, max_new_tokens] I32 host, out_lens [B]. COLLECTIVE */
int generate_greedy(struct neva *model, const struct neva_batch *batch,
                    const struct generate_args *args, int32_t *out, int64_t *out_lens,
                    struct err *err);

#endif
