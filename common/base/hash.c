#include "common/base/hash.h"

#include <string.h>

static const uint64_t p1 = 0x9E3779B185EBCA87u, p2 = 0xC2B2AE3D27D4EB4Fu,
                      p3 = 0x165667B19E3779F9u, p4 = 0x85EBCA77C2B2AE63u,
                      p5 = 0x27D4EB2F165667C5u;

static uint64_t rotl(uint64_t x, int bits)
{
    return x << bits | x >> (64 - bits);
}

static uint64_t load64(const unsigned char *p)
{
    uint64_t x;

    memcpy(&x, p, sizeof(x));
    return x; /* little endian hosts only, checked in CMakeLists.txt */
}

static uint32_t load32(const unsigned char *p)
{
    uint32_t x;

    memcpy(&x, p, sizeof(x));
    return x;
}

static uint64_t lane(uint64_t acc, uint64_t word)
{
    return rotl(acc + word * p2, 31) * p1;
}

static uint64_t merge(uint64_t hash, uint64_t acc)
{
    return (hash ^ lane(0, acc)) * p1 + p4;
}

uint64_t hash64(const void *bytes, size_t n_bytes, uint64_t seed)
{
    const unsigned char *p = bytes, *end = p + n_bytes;
    uint64_t hash = seed + p5;

    if (n_bytes >= 32) {
        uint64_t a = seed + p1 + p2, b = seed + p2, c = seed, d = seed - p1;

        for (; end - p >= 32; p += 32) {
            a = lane(a, load64(p));
            b = lane(b, load64(p + 8));
            c = lane(c, load64(p + 16));
            d = lane(d, load64(p + 24));
        }
        hash = rotl(a, 1) + rotl(b, 7) + rotl(c, 12) + rotl(d, 18);
        hash = merge(merge(merge(merge(hash, a), b), c), d);
    }
    hash += n_bytes;
    for (; end - p >= 8; p += 8)
        hash = rotl(hash ^ lane(0, load64(p)), 27) * p1 + p4;
    if (end - p >= 4) {
        hash = rotl(hash ^ load32(p) * p1, 23) * p2 + p3;
        p += 4;
    }
    for (; p < end; p++)
        hash = rotl(hash ^ *p * p5, 11) * p1;
    hash = (hash ^ hash >> 33) * p2;
    hash = (hash ^ hash >> 29) * p3;
    return hash ^ hash >> 32;
}
