/* half.h - bf16 and fp16 as 16 bits, and back; to nearest, ties to even
 *
 * Without branches, so that loops over them vectorise. NaN stays NaN, overflow becomes
 * infinity, subnormals are kept.
 * Source: IEEE 754-2019 (binary16, roundTiesToEven); bf16 is the upper half of binary32.
 */
#ifndef VNEVA_MODEL_BACKEND_HALF_H
#define VNEVA_MODEL_BACKEND_HALF_H

#include <stdint.h>
#include <string.h>

static inline uint32_t float_bits(float x)
{
    uint32_t bits;

    memcpy(&bits, &x, sizeof(bits));
    return bits;
}

static inline float float_of_bits(uint32_t bits)
{
    float x;

    memcpy(&x, &bits, sizeof(x));
    return x;
}

static inline float bf16_to_float(uint16_t h)
{
    return float_of_bits((uint32_t)h << 16);
}

static inline uint16_t bf16_of_float(float x)
{
    uint32_t bits = float_bits(x);
    /* adds just under half a unit, and the unit's parity: ties go to even */
    uint32_t rounded = bits + 0x7fffU + ((bits >> 16) & 1U);
    uint32_t quiet_nan = bits | 0x400000U;

    return (uint16_t)(((bits & 0x7fffffffU) > 0x7f800000U ? quiet_nan : rounded) >> 16);
}

static inline float f16_to_float(uint16_t h)
{
    uint32_t magnitude = (uint32_t)(h & 0x7fffU) << 13;
    /* the exponents' biases differ by 127 - 15; the product also normalises subnormals */
    uint32_t bits = float_bits(float_of_bits(magnitude) * 0x1p112F);
    uint32_t special = magnitude | 0x7f800000U; /* infinity, NaN */

    bits = magnitude >= 0x0f800000U ? special : bits;
    return float_of_bits(bits | (uint32_t)(h & 0x8000U) << 16);
}

static inline uint16_t f16_of_float(float x)
{
    uint32_t bits = float_bits(x) & 0x7fffffffU;
    uint32_t sign = (float_bits(x) >> 16) & 0x8000U;
    /* below 2^-14: the unit of 0.5 is 2^-24, that of fp16's subnormals */
    uint32_t small = float_bits(float_of_bits(bits) + 0.5F) - 0x3f000000U;
    uint32_t normal = ((bits + 0xfffU + ((bits >> 13) & 1U)) >> 13) - (112U << 10);
    uint32_t large = bits > 0x7f800000U ? 0x7e00U : 0x7c00U;
    uint32_t half = bits < 0x38800000U ? small : normal;

    return (uint16_t)(sign | (bits >= 0x47800000U ? large : half));
}

#endif
