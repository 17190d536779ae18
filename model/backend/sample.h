/* sample.h - drawing the next token, what is the same for every backend
 *
 * Pure; also compiled for the device. A token is drawn from softmax(z) over those that the
 * filters keep as argmax(z + noise), with noise of Gumbel's distribution from a generator that
 * counts (Philox4x32-10): so a draw depends on seed, stream, step and the row's logits, not on
 * what else is in the batch, on ranks or on threads. Noise has 23 bits: what is less likely
 * than 1e-7 is drawn a little less often than it should be.
 * Source: Salmon et al. 2011, "Parallel Random Numbers: As Easy as 1, 2, 3"; Gumbel 1954;
 * NeMo's text_generation_utils.py (order of penalty, temperature, top_k, top_p); Keskar et
 * al. 2019, "CTRL" (repetition penalty).
 */
#ifndef VNEVA_MODEL_BACKEND_SAMPLE_H
#define VNEVA_MODEL_BACKEND_SAMPLE_H

#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifdef __CUDACC__
#define SAMPLE_WHERE __host__ __device__
#else
#define SAMPLE_WHERE
#endif

struct sample_args {
    int64_t n_real; /* columns; those behind are padding */
    int64_t top_k;  /* so many of the largest logits; 0: all */
    uint64_t seed;
    float temperature; /* 0: the most probable, without noise and filters */
    float top_p;       /* (0, 1]: the fewest, from the largest on, that make up so much */
    float repetition_penalty; /* of tokens that were there before; 1: none */
    int32_t end_token;        /* not before min_tokens; -1: there is none */
    int32_t min_tokens;
};
/* Without padding: whoever compares settings compares these. */
#define SAMPLE_ARGS_BYTES (offsetof(struct sample_args, min_tokens) + sizeof(int32_t))

SAMPLE_WHERE static inline void sample_philox(uint32_t c[4], uint64_t key)
{
    uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);

    for (int round = 0; round < 10; round++) {
        uint64_t a = (uint64_t)0xD2511F53U * c[0], b = (uint64_t)0xCD9E8D57U * c[2];

        c[0] = (uint32_t)(b >> 32) ^ c[1] ^ k0;
        c[2] = (uint32_t)(a >> 32) ^ c[3] ^ k1;
        c[1] = (uint32_t)b;
        c[3] = (uint32_t)a;
        k0 += 0x9E3779B9U;
        k1 += 0xBB67AE85U;
    }
}

/* For column i of a row, at its step-th token. */
SAMPLE_WHERE static inline float sample_noise(const struct sample_args *args, int64_t i,
                                              int32_t stream, int32_t step)
{
    uint32_t c[4] = {(uint32_t)(i >> 2), (uint32_t)step, (uint32_t)stream, 0};
    uint32_t bits;
    float u;

    sample_philox(c, args->seed);
    /* no index that only the run knows: c shall be registers */
    bits = i & 2 ? (i & 1 ? c[3] : c[2]) : (i & 1 ? c[1] : c[0]);
    u = ((float)(bits >> 9) + 0.5F) * 0x1p-23F; /* neither 0 nor 1 */
    return -logf(-logf(u));
}

/* The logit that counts. */
SAMPLE_WHERE static inline float sample_logit(const struct sample_args *args, float x,
                                              int64_t i, bool was_seen, int32_t step)
{
    if (i == args->end_token && step < args->min_tokens)
        return -INFINITY;
    if (was_seen)
        x = x > 0 ? x / args->repetition_penalty : x * args->repetition_penalty;
    return args->temperature > 0 ? x / args->temperature : x;
}

/* Whole numbers in the order of the floats they stand for. */
SAMPLE_WHERE static inline uint32_t sample_key(float x)
{
    uint32_t bits;

    memcpy(&bits, &x, sizeof(bits));
    return bits >> 31 ? ~bits : bits | 0x80000000U;
}

/* Words of I32 with a bit for each of n tokens. */
static inline int64_t sample_words(int64_t n)
{
    return (n + 31) / 32;
}

SAMPLE_WHERE static inline bool sample_was_seen(const uint32_t *words, int64_t i)
{
    return words && (words[i / 32] >> (i % 32) & 1);
}

/* The logits of a row that count, in place; the largest, NaN where there is one. */
static inline float sample_row(const struct sample_args *args, float *z,
                               const uint32_t *seen, int32_t step)
{
    float largest = -INFINITY;

    for (int64_t i = 0; i < args->n_real; i++) {
        z[i] = sample_logit(args, z[i], i, sample_was_seen(seen, i), step);
        if (z[i] > largest || z[i] != z[i])
            largest = z[i];
    }
    return largest;
}

#endif
