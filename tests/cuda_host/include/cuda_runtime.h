/* cuda_runtime.h - what a kernel needs of CUDA C++, on fibers (tests/op/fiber.h) */
#ifndef CUDA_HOST_RUNTIME_H
#define CUDA_HOST_RUNTIME_H

#include "cuda_runtime_api.h"
#include "tests/op/fiber.h"
#include "tests/op/fiber_mma.h"

#include <cmath>
#include <tuple>

#define __global__
#define __device__
#define __host__
#define __restrict__ __restrict
#define __launch_bounds__(...)
#define __forceinline__ inline

typedef fiber_dim dim3;

struct alignas(16) uint4 {
    unsigned x, y, z, w;
};

#define threadIdx (fiber_here().thread)
#define blockIdx (fiber_here().block)
#define blockDim (fiber_here().block_dim)
#define gridDim (fiber_here().grid_dim)

#define __syncthreads() fiber_barrier(__FILE__, __LINE__)
#define __syncwarp() ((void)fiber_meet_warp(0xffffffffU, 0, __FILE__, __LINE__))
#define __shfl_sync(mask, value, from)                                                   \
    fiber_shuffle(mask, value, from, __FILE__, __LINE__)
#define __shfl_xor_sync(mask, value, with)                                               \
    fiber_shuffle(mask, value, fiber_lane() ^ (with), __FILE__, __LINE__)
#define __shfl_down_sync(mask, value, by)                                                \
    fiber_shuffle(mask, value,                                                           \
                  fiber_lane() + (by) < FIBER_WARP ? fiber_lane() + (by) : fiber_lane(), \
                  __FILE__, __LINE__)
#define __any_sync(mask, holds) fiber_any(mask, (holds) != 0, __FILE__, __LINE__)
#define atomicAdd(at, value) fiber_atomic_add(at, value)

static inline int __ffs(int x)
{
    return __builtin_ffs(x);
}

static inline int min(int x, int y)
{
    return x < y ? x : y;
}

static inline int max(int x, int y)
{
    return x > y ? x : y;
}

static inline void sincospif(float x, float *s, float *c)
{
    *s = (float)sin((double)x * 3.14159265358979323846);
    *c = (float)cos((double)x * 3.14159265358979323846);
}

/* A launch: arguments are copied now, the kernel runs when the stream gets there. */
void cuda_host_launch(cudaStream_t stream, const char *where, dim3 grid, dim3 block,
                      size_t shared_bytes, const void *kernel, std::function<void()> run);

template <typename... P, typename... A>
void cuda_host_call(cudaStream_t stream, const char *where, dim3 grid, dim3 block,
                    size_t shared_bytes, void (*kernel)(P...), A... args)
{
    std::tuple<P...> copy(args...);

    cuda_host_launch(stream, where, grid, block, shared_bytes, (const void *)kernel,
                     [kernel, copy] { std::apply(kernel, copy); });
}

#define CUDA_HOST_TEXT_OF(x) #x
#define CUDA_HOST_TEXT(x) CUDA_HOST_TEXT_OF(x)
#define CUDA_LAUNCH(kernel, grid, block, shared, stream, ...)                            \
    cuda_host_call(stream, __FILE__ ":" CUDA_HOST_TEXT(__LINE__), grid, block, shared,   \
                   kernel, __VA_ARGS__)
#define CUDA_SHARED(type, name, count)                                                   \
    type *name = (type *)fiber_static_shared(__FILE__, __LINE__, sizeof(type) * (count))
#define CUDA_DYNAMIC_SHARED(type, name) type *name = (type *)fiber_dynamic_shared()

#endif
