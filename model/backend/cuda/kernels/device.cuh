/* device.cuh - what all kernels share: types, loads, sums over a block, launches
 *
 * Kernels are compiled by nvcc, and for the host by a header that stands in for the CUDA
 * runtime and runs them on fibers (tests/cuda_host); the four CUDA_ macros below are where
 * the two differ. Block sizes are multiples of a warp; every thread of a block reaches
 * every barrier. __launch_bounds__ names the blocks that shall fit a processor, so that ptxas
 * takes the registers it wants: left to itself it spills to fit more.
 * Rounding: arithmetic is fp32, a result is rounded once, to nearest even.
 */
#ifndef VNEVA_MODEL_BACKEND_CUDA_KERNELS_DEVICE_CUH
#define VNEVA_MODEL_BACKEND_CUDA_KERNELS_DEVICE_CUH

#include "model/backend/cuda/cuda.h"

#include <cuda_runtime.h>
#include <math.h>
#include <type_traits>

#ifdef __CUDACC__
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#define CUDA_LAUNCH(kernel, grid, block, shared, stream, ...)                            \
    kernel<<<grid, block, shared, stream>>>(__VA_ARGS__)
#define CUDA_SHARED(type, name, count) __shared__ type name[count]
#define CUDA_DYNAMIC_SHARED(type, name)                                                  \
    extern __shared__ float4 dynamic_shared[];                                           \
    type *name = (type *)dynamic_shared
#else
extern "C" {
#include "model/backend/half.h"
}
#endif

#define WARP 32
#define ALL_LANES 0xffffffffU
#define BLOCK 256        /* threads, where nothing speaks for another number */
#define PACK 8           /* elements that a thread loads at once where alignment allows */
#define GRID_Y_MAX 65535 /* blocks; more rows are looped over */
#define GRID_X_MAX 1048576 /* blocks; far more than run at once */

/* ---- element types ---- */

struct bf16 {
    uint16_t bits;
};

struct f16 {
    uint16_t bits;
};

__device__ inline float to_float(float x)
{
    return x;
}

__device__ inline float to_float(bf16 x)
{
#ifdef __CUDACC__
    return __uint_as_float((unsigned)x.bits << 16);
#else
    return bf16_to_float(x.bits);
#endif
}

__device__ inline float to_float(f16 x)
{
#ifdef __CUDACC__
    return __half2float(__ushort_as_half(x.bits));
#else
    return f16_to_float(x.bits);
#endif
}

__device__ inline void put(float *to, float x)
{
    *to = x;
}

__device__ inline void put(bf16 *to, float x)
{
#ifdef __CUDACC__
    to->bits = __bfloat16_as_ushort(__float2bfloat16_rn(x));
#else
    to->bits = bf16_of_float(x);
#endif
}

__device__ inline void put(f16 *to, float x)
{
#ifdef __CUDACC__
    to->bits = __half_as_ushort(__float2half_rn(x));
#else
    to->bits = f16_of_float(x);
#endif
}

/* ---- W elements at once: 1, or PACK from an address that is a multiple of 16 bytes ---- */

template <typename T, int W>
struct alignas(sizeof(T) * W < 16 ? sizeof(T) * W : 16) pack {
    T at[W];
};

template <int W, typename T> __device__ inline void load(float (&to)[W], const T *from)
{
    pack<T, W> p = *(const pack<T, W> *)from;

#pragma unroll
    for (int i = 0; i < W; i++)
        to[i] = to_float(p.at[i]);
}

template <int W, typename T> __device__ inline void store(T *to, const float (&from)[W])
{
    pack<T, W> p;

#pragma unroll
    for (int i = 0; i < W; i++)
        put(&p.at[i], from[i]);
    *(pack<T, W> *)to = p;
}

/* ---- over a warp and a block: the same on every thread, always in the same order ---- */

template <typename T> __device__ inline T warp_sum(T x)
{
    for (int with = WARP / 2; with > 0; with /= 2)
        x += __shfl_xor_sync(ALL_LANES, x, with);
    return x;
}

__device__ inline float warp_max(float x)
{
    for (int with = WARP / 2; with > 0; with /= 2)
        x = fmaxf(x, __shfl_xor_sync(ALL_LANES, x, with));
    return x;
}

__device__ inline int lane_index()
{
    return (int)threadIdx.x % WARP;
}

__device__ inline int warp_index()
{
    return (int)threadIdx.x / WARP;
}

template <typename T> __device__ inline T block_sum(T x)
{
    CUDA_SHARED(T, parts, WARP);
    T sum = 0;

    x = warp_sum(x);
    if (lane_index() == 0)
        parts[warp_index()] = x;
    __syncthreads();
    for (int i = 0; i < (int)blockDim.x / WARP; i++)
        sum += parts[i];
    __syncthreads(); /* parts may be written again */
    return sum;
}

__device__ inline float block_max(float x)
{
    CUDA_SHARED(float, parts, WARP);
    float max = -INFINITY;

    x = warp_max(x);
    if (lane_index() == 0)
        parts[warp_index()] = x;
    __syncthreads();
    for (int i = 0; i < (int)blockDim.x / WARP; i++)
        max = fmaxf(max, parts[i]);
    __syncthreads();
    return max;
}

/* Of two candidates the larger value, of equals the lower index. */
__device__ inline void take_better(float *value, int *at, float other, int other_at)
{
    if (other > *value || (other == *value && other_at < *at)) {
        *value = other;
        *at = other_at;
    }
}

/* The best of the block's candidates, for thread 0. */
__device__ inline void block_best(float *best, int *at)
{
    CUDA_SHARED(float, values, WARP);
    CUDA_SHARED(int, places, WARP);

    for (int with = WARP / 2; with > 0; with /= 2) {
        float other = __shfl_xor_sync(ALL_LANES, *best, with);
        int other_at = __shfl_xor_sync(ALL_LANES, *at, with);

        take_better(best, at, other, other_at);
    }
    if (lane_index() == 0) {
        values[warp_index()] = *best;
        places[warp_index()] = *at;
    }
    __syncthreads();
    if (threadIdx.x == 0)
        for (int i = 1; i < (int)blockDim.x / WARP; i++)
            take_better(best, at, values[i], places[i]);
    __syncthreads(); /* they may be written again */
}

/* ---- launching ---- */

/* Calls f with a zero of the C++ type of dtype. */
template <typename F> void with_type(enum dtype dtype, F f)
{
    if (dtype == DTYPE_BF16)
        f(bf16{});
    else if (dtype == DTYPE_F16)
        f(f16{});
    else
        f(0.0F);
}

/* Calls f with the number of elements to load at once. */
template <typename F> void with_width(bool is_wide, F f)
{
    if (is_wide)
        f(std::integral_constant<int, PACK>{});
    else
        f(std::integral_constant<int, 1>{});
}

/* Both: f(zero, width). */
template <typename F> void with_pack(enum dtype dtype, bool is_wide, F f)
{
    with_type(dtype, [&](auto zero) {
        with_width(is_wide, [&](auto width) { f(zero, width); });
    });
}

inline bool is_aligned(const void *data)
{
    return (uintptr_t)data % 16 == 0; /* NULL is */
}

inline bool is_aligned(const struct tensor *x)
{
    return !x || is_aligned(x->data);
}

inline int64_t ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

inline unsigned grid_x(int64_t n_blocks)
{
    return (unsigned)(n_blocks < GRID_X_MAX ? n_blocks : GRID_X_MAX);
}

inline unsigned grid_y(int64_t n_blocks)
{
    return (unsigned)(n_blocks < GRID_Y_MAX ? n_blocks : GRID_Y_MAX);
}

/* Threads of a block that walks over n elements, `width` a thread at once. */
inline unsigned block_for(int64_t n, int width)
{
    int64_t wanted = ceil_div(ceil_div(n, width), WARP) * WARP;

    return (unsigned)(wanted > 2 * BLOCK ? 2 * BLOCK : wanted);
}

#endif
