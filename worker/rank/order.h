/* order.h - which samples a micro batch holds
 *
 * Position p of the sample order is sample rng_permute(seed, p / n, p % n, n): every epoch
 * is a permutation of its own, fixed by the seed alone. Global step s takes positions
 * [s*G, (s+1)*G); data rank d of D the slice [s*G + d*G/D, ...) of them, micro batch after
 * micro batch. So the samples of a step do not depend on the layout or on what happened
 * before.
 * Pure.
 */
#ifndef VNEVA_WORKER_RANK_ORDER_H
#define VNEVA_WORKER_RANK_ORDER_H

#include <stdint.h>

struct order {
    uint64_t seed;
    int64_t n_samples;
    int64_t micro, global; /* global % (micro * n_data) == 0 */
    int64_t data_rank, n_data;
};

/* Micro batches one data rank works on in a step. */
int64_t order_n_micro(const struct order *order);
/* The sample at a position, any position >= 0. */
int64_t order_sample(const struct order *order, int64_t position);
/* Samples of this data rank's k-th micro batch since step 0: out [micro]. */
void order_train_batch(const struct order *order, int64_t k, int64_t *out);

/* Validation goes through samples 0, 1, ... n-1 in micro batches dealt out to the data
 * ranks in turn. Writes the samples of this rank's k-th, out [micro]; returns how many,
 * 0 at the end. */
int64_t order_valid_batch(const struct order *order, int64_t k, int64_t *out);

#endif
