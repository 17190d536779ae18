/* rng.h - counter-based random numbers: a value depends on its key and index alone
 *
 * Nothing is carried from call to call, so any process can draw the i-th number of any
 * stream at any time: this is what exact resume rests on.
 * Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011
 * (Philox 4x32 with 10 rounds).
 */
#ifndef VNEVA_COMMON_BASE_RNG_H
#define VNEVA_COMMON_BASE_RNG_H

#include <stdint.h>

/* A stream: which run, and what for (step, sample, layer...). */
struct rng_key {
    uint64_t seed;
    uint64_t stream;
};

uint64_t rng_u64(struct rng_key key, uint64_t index);

/* Uniform in [0, n), n > 0, without bias worth measuring (64-bit multiply-high). */
uint64_t rng_below(struct rng_key key, uint64_t index, uint64_t n);

/* Uniform in [0, 1), 53 bits. */
double rng_uniform(struct rng_key key, uint64_t index);

/* Standard normal (Box-Muller on two uniforms). */
double rng_normal(struct rng_key key, uint64_t index);

/* A stream number from a name, so that streams need no registry: FNV-1a 64. */
uint64_t rng_stream(const char *name);

/* Position `i` of the permutation of [0, n) that (seed, epoch) fixes: every value once,
 * computed without storing the permutation (a Feistel network walked until it lands
 * inside [0, n)). */
uint64_t rng_permute(uint64_t seed, uint64_t epoch, uint64_t i, uint64_t n);

#endif
