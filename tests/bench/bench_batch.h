/* bench_batch.h - what the models of benchmarks see: random frames and tokens */
#ifndef VNEVA_TESTS_BENCH_BENCH_BATCH_H
#define VNEVA_TESTS_BENCH_BENCH_BATCH_H

#include "model/neva/neva.h"

void *must_alloc(size_t n_bytes); /* zeros; aborts when there is no memory */

/* n_rows rows of n_tokens, each of n_frames frames, text, and n_labels tokens of an answer;
 * owns its memory. */
struct neva_batch batch_make(const struct neva_config *config, int64_t n_rows,
                             int64_t n_tokens, int64_t n_frames, int64_t n_labels);
void batch_free(const struct neva_batch *batch);

#endif
