#include "common/base/rng.h"

#include <math.h>

#define PHILOX_ROUNDS 10
#define FEISTEL_ROUNDS 6

static uint64_t philox(struct rng_key key, uint64_t index)
{
    uint32_t c0 = (uint32_t)index, c1 = (uint32_t)(index >> 32);
    uint32_t c2 = (uint32_t)key.stream, c3 = (uint32_t)(key.stream >> 32);
    uint32_t k0 = (uint32_t)key.seed, k1 = (uint32_t)(key.seed >> 32);

    for (int round = 0; round < PHILOX_ROUNDS; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0;
        uint64_t p1 = (uint64_t)0xCD9E8D57u * c2;

        c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)p1;
        c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)p0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return (uint64_t)c1 << 32 | c0;
}

uint64_t rng_u64(struct rng_key key, uint64_t index)
{
    return philox(key, index);
}

uint64_t rng_below(struct rng_key key, uint64_t index, uint64_t n)
{
    return (uint64_t)(((unsigned __int128)philox(key, index) * n) >> 64);
}

double rng_uniform(struct rng_key key, uint64_t index)
{
    return (double)(philox(key, index) >> 11) * 0x1.0p-53;
}

double rng_normal(struct rng_key key, uint64_t index)
{
    double u1 = 1.0 - rng_uniform(key, 2 * index); /* (0, 1]: log is finite */
    double u2 = rng_uniform(key, 2 * index + 1);

    return sqrt(-2.0 * log(u1)) * cos(6.283185307179586 * u2);
}

uint64_t rng_stream(const char *name)
{
    uint64_t hash = 0xcbf29ce484222325u;

    for (; *name; name++)
        hash = (hash ^ (unsigned char)*name) * 0x100000001b3u;
    return hash;
}

uint64_t rng_permute(uint64_t seed, uint64_t epoch, uint64_t i, uint64_t n)
{
    struct rng_key key = {seed, rng_stream("order") ^ (epoch * 0x9E3779B97F4A7C15u)};
    unsigned half_bits = 1;
    uint64_t mask;

    while (half_bits < 32 && (n - 1) >> (2 * half_bits))
        half_bits++;
    mask = ((uint64_t)1 << half_bits) - 1;
    do { /* the network permutes [0, 4^half_bits) >= n, so the walk comes back inside */
        uint64_t left = i >> half_bits, right = i & mask;

        for (uint64_t round = 0; round < FEISTEL_ROUNDS; round++) {
            uint64_t next = left ^ (philox(key, round << 32 | right) & mask);

            left = right;
            right = next;
        }
        i = left << half_bits | right;
    } while (i >= n);
    return i;
}
