/* generate.h - answers, token by token, with a key-value cache
 *
 * Greedy: the most probable token; of equals the lowest number. Or drawn: then from seed and
 * the row's own number, so an answer may be had again. A batch gives each row what it would
 * get alone.
 */
#ifndef VNEVA_MODEL_GENERATE_GENERATE_H
#define VNEVA_MODEL_GENERATE_GENERATE_H

#include "model/neva/neva.h"

/* inference.* of NeMo's neva_inference.yaml; see model/backend/sample.h. */
struct generate_draw {
    float temperature; /* 0: the most probable, but with penalty and least length */
    int64_t top_k;     /* 0: all */
    float top_p;       /* 1: all */
    float repetition_penalty; /* of tokens of prompt and answer; 1: none */
    int64_t min_new_tokens;
    uint64_t seed;
    const int32_t
        *streams; /* [B]: a number for each row, of all that are asked with the seed */
};

struct generate_args {
    int64_t max_new_tokens;
    int32_t end_token; /* stops a row; not part of the answer */
    /* Told each token of the answer as it comes, row after row, when it stands in out; NULL:
     * nobody is. 1 ends the row, -1 generation, with err: every rank must then say so at the
     * same token. */
    int (*on_token)(void *state, int64_t row, int32_t token, struct err *err);
    void *state;
    const struct generate_draw *draw; /* NULL: greedy */
};

/* ERR_INVALID names the inference.* key that cannot be. */
int generate_check_draw(const struct generate_draw *draw, struct err *err);

/* batch: prompts (labels are not read), padded as in neva_batch.
 * out [B, max_new_tokens] I32 host, out_lens [B]. COLLECTIVE */
int generate_tokens(struct neva *model, const struct neva_batch *batch,
                    const struct generate_args *args, int32_t *out, int64_t *out_lens,
                    struct err *err);

#endif
