/* hash.h - checksums of files and settings
 *
 * hash64 is XXH64 (source: the xxHash specification, version 0.1.1): for finding damage
 * and for cache keys, not against an attacker.
 */
#ifndef VNEVA_COMMON_BASE_HASH_H
#define VNEVA_COMMON_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

uint64_t hash64(const void *bytes, size_t n_bytes, uint64_t seed);

#endif
