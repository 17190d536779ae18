/* mma.cuh - the matrix units: products of 16 x 8 x 16 by a warp, and what feeds them
 *
 * A tile of a warp lies in its lanes' registers ("fragments"): lane l has of an accumulator
 * [16,8] rows l / 4 and l / 4 + 8, columns 2 (l % 4) and the next, as c[0..1] and c[2..3]. Two
 * accumulators beside each other, rounded, are the first factor [16,16] of another product:
 * pack of c[0..1], c[2..3] of the one, then of the other.
 * Tiles in shared memory have rows of `pitch` elements, an odd number of 16 bytes, so that
 * 8 rows at the same column lie in 8 different groups of banks: ldmatrix and copies of 16
 * bytes meet no conflicts, and places are constants beside one address, which they would not
 * be in a swizzled tile.
 * Source: PTX ISA, mma.sync, ldmatrix, cp.async (sm_80 and up). On the host:
 * tests/op/fiber_mma.h.
 */
#ifndef VNEVA_MODEL_BACKEND_CUDA_KERNELS_MMA_CUH
#define VNEVA_MODEL_BACKEND_CUDA_KERNELS_MMA_CUH

#include "model/backend/cuda/kernels/device.cuh"

#define MMA_M 16
#define MMA_N 8
#define MMA_K 16

#ifdef __CUDACC__

__device__ __forceinline__ void mma(float (&c)[4], const unsigned (&a)[4], unsigned b0,
                                    unsigned b1, bf16)
{
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, "
        "{%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

__device__ __forceinline__ void mma(float (&c)[4], const unsigned (&a)[4], unsigned b0,
                                    unsigned b1, f16)
{
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, "
        "{%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/* Four matrices of 8 x 8; lane l says where row l % 8 of matrix l / 8 is. */
__device__ __forceinline__ void ldmatrix(unsigned (&to)[4], const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"((unsigned)__cvta_generic_to_shared(row)));
}

__device__ __forceinline__ void ldmatrix_transposed(unsigned (&to)[4], const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"((unsigned)__cvta_generic_to_shared(row)));
}

/* 16 bytes into shared memory, some time before the wait; zeros when not is_there (`from` is
 * not read then). */
__device__ __forceinline__ void copy_async(void *to, const void *from, bool is_there)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(
                     (unsigned)__cvta_generic_to_shared(to)),
                 "l"(__cvta_generic_to_global(from)), "r"(is_there ? 16 : 0)
                 : "memory");
}

/* What was asked since the last commit is a group. */
__device__ __forceinline__ void copy_commit()
{
    asm volatile("cp.async.commit_group;" ::: "memory");
}

/* Until this thread's copies are there, but those of the last N groups. */
template <int N> __device__ __forceinline__ void copy_wait()
{
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

/* Both rounded to nearest even, the first in the lower half. */
__device__ __forceinline__ unsigned round_pair(float first, float second, bf16)
{
    unsigned both;

    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(second), "f"(first));
    return both;
}

__device__ __forceinline__ unsigned round_pair(float first, float second, f16)
{
    unsigned both;

    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(second), "f"(first));
    return both;
}

/* 2^x, to 2 units in the last place; 0 where that is subnormal */
__device__ __forceinline__ float exp2_fast(float x)
{
    float y;

    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/* x, of which the compiler shall not know how it came about: it would keep in registers what
 * is cheap to reckon again, such as a row of addresses instead of one and a step. */
template <typename T> __device__ __forceinline__ const T *forget(const T *x)
{
    asm volatile("" : "+l"(x));
    return x;
}

__device__ __forceinline__ int forget(int x)
{
    asm volatile("" : "+r"(x));
    return x;
}

#else

#define MMA_SITE const char *file = __builtin_FILE(), int line = __builtin_LINE()

inline void mma(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1, bf16,
                MMA_SITE)
{
    fiber_mma<bf16_to_float>(c, a, b0, b1, file, line);
}

inline void mma(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1, f16,
                MMA_SITE)
{
    fiber_mma<f16_to_float>(c, a, b0, b1, file, line);
}

inline void ldmatrix(unsigned (&to)[4], const void *row, MMA_SITE)
{
    fiber_ldmatrix<false>(to, row, file, line);
}

inline void ldmatrix_transposed(unsigned (&to)[4], const void *row, MMA_SITE)
{
    fiber_ldmatrix<true>(to, row, file, line);
}

inline void copy_async(void *to, const void *from, bool is_there, MMA_SITE)
{
    fiber_copy_async(to, is_there ? from : nullptr, file, line);
}

inline void copy_commit()
{
    fiber_copy_commit();
}

template <int N> inline void copy_wait()
{
    fiber_copy_wait(N);
}

template <typename T> inline unsigned round_pair(float first, float second, T)
{
    T x, y;

    put(&x, first);
    put(&y, second);
    return (unsigned)y.bits << 16 | x.bits;
}

inline float exp2_fast(float x)
{
    return exp2f(x);
}

template <typename T> inline T forget(T x)
{
    return x;
}

#endif

/* ---- fragments of tiles in shared memory ---- */

template <int COLUMNS> struct tile {
    static constexpr int pitch = COLUMNS + PACK; /* elements from a row to the next */
    static constexpr int chunks = COLUMNS / PACK;

    static_assert(pitch / PACK % 2 == 1, "8 rows must lie in different banks");
};

/* Where this lane's row is for the fragments below, from a tile's first element:
 * a factor [16 rows, 16 columns] as it lies, and transposed [16 columns, 16 rows];
 * a second factor [16 columns, 16 rows] of which a row is a column. */
__device__ __forceinline__ int lane_place(int pitch)
{
    return lane_index() % 16 * pitch + lane_index() / 16 * 8;
}

__device__ __forceinline__ int lane_place_second(int pitch)
{
    return (lane_index() % 8 + lane_index() / 16 * 8) * pitch + lane_index() / 8 % 2 * 8;
}

#endif
