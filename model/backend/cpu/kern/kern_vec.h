/* kern_vec.h - vectors of the level this file is compiled for (GCC and Clang extension) */
#ifndef VNEVA_MODEL_BACKEND_CPU_KERN_KERN_VEC_H
#define VNEVA_MODEL_BACKEND_CPU_KERN_KERN_VEC_H

#include <stdint.h>

#if defined(__AVX512F__)
#define WIDTH 16
#elif defined(__AVX__)
#define WIDTH 8
#else
#define WIDTH 4
#endif

/* WIDTH floats at any address, of any object */
typedef float vec
    __attribute__((vector_size(WIDTH * sizeof(float)), aligned(4), __may_alias__));
typedef uint32_t vec_bits __attribute__((vector_size(WIDTH * sizeof(uint32_t))));
typedef uint16_t vec_half
    __attribute__((vector_size(WIDTH * sizeof(uint16_t)), aligned(2), __may_alias__));

#define INLINE static inline __attribute__((always_inline))

INLINE vec vec_load(const float *from)
{
    return *(const vec *)from;
}

/* WIDTH bf16: the upper halves of fp32 */
INLINE vec vec_load_bf16(const uint16_t *from)
{
    return (vec)(__builtin_convertvector(*(const vec_half *)from, vec_bits) << 16);
}

#endif
