/* attention_tile.cuh - attention on matrix units: tiles, products of them, and masks
 *
 * Kernels of FlashAttention-2 (Dao 2023) on mma.sync. A block is 4 warps; a warp owns rows
 * (queries, or keys for dk and dv) and never tells another what it has found. Heads of K
 * elements run in tiles of KD columns, the next of 64, 80, 96, 128 and 256; columns past K
 * are zeros.
 */
#ifndef VNEVA_MODEL_BACKEND_CUDA_KERNELS_ATTENTION_TILE_CUH
#define VNEVA_MODEL_BACKEND_CUDA_KERNELS_ATTENTION_TILE_CUH

#include "model/backend/cuda/kernels/attention.cuh"
#include "model/backend/cuda/kernels/mma.cuh"

#define TILE_WARPS 4
#define TILE_THREADS (TILE_WARPS * WARP)
#define TILE_ALL_KEYS (1 << 30) /* more than there are */

/* ---- on the device ---- */

/* What a block works on: batch row, head, first row of its tile, keys of the batch row. */
struct tile_spot {
    int row, head, first, len;
};

/* Tiles of `size` rows, n rows in all; the last tile first where that has most to do. */
__device__ __forceinline__ tile_spot tile_spot_of(const struct attention_shape &a,
                                                  int64_t n_heads, int64_t n, int size,
                                                  bool is_last_first, int block)
{
    int n_tiles = (int)((n + size - 1) / size), pair = block / n_tiles;
    int i = block - pair * n_tiles;
    tile_spot s;

    s.row = pair / (int)n_heads;
    s.head = pair % (int)n_heads;
    s.first = (is_last_first ? n_tiles - 1 - i : i) * size;
    s.len = (int)(a.lens ? a.lens[s.row] : a.tk);
    return s;
}

/* Query first + i sees keys below the result + i, as far as there are any. */
__device__ __forceinline__ int tile_diagonal(const struct attention_shape &a, int len,
                                             int first)
{
    return a.is_causal ? first + len - (int)a.tq + 1 : TILE_ALL_KEYS;
}

/* Keys seen by query t (< tq): seen_by in 32 bits, of which registers are half as many. */
__device__ __forceinline__ int tile_seen(const struct attention_shape &a, int len, int t)
{
    return max(min(tile_diagonal(a, len, t), len), 0);
}

/* How a block's threads share a tile of KD columns: each has a column of PACK elements, and
 * every step-th row. */
template <int KD> struct tile_share {
    static constexpr int lanes = tile<KD>::chunks <= 8    ? 8
                                 : tile<KD>::chunks <= 16 ? 16
                                                          : 32; /* a row */
    static constexpr int step = TILE_THREADS / lanes;

    static __device__ __forceinline__ int row()
    {
        return (int)threadIdx.x / lanes;
    }

    static __device__ __forceinline__ int column()
    {
        return (int)threadIdx.x % lanes * PACK;
    }
};

/* This thread's first element of rows from `row` on, columns from `column` on. */
template <int KD>
__device__ __forceinline__ int64_t tile_place(int64_t row, int64_t stride, int64_t column)
{
    return (row + tile_share<KD>::row()) * stride + column + tile_share<KD>::column();
}

/* Asks for ROWS rows: those from `from` on, of which there are n, k columns each; the tile's
 * other rows and columns become zeros. `from`: this thread's first element. */
template <int ROWS, int KD, typename T>
__device__ __forceinline__ void tile_load(T *to, const T *from, int64_t stride, int n,
                                          int k)
{
    typedef tile_share<KD> share;
    int column = share::column();

    n = column < k ? n - share::row() : 0;
    to += share::row() * tile<KD>::pitch + column;
    if (share::lanes != tile<KD>::chunks && column >= KD)
        return;
#pragma unroll
    for (int row = 0; row < ROWS; row += share::step) {
        copy_async(to + row * tile<KD>::pitch, from, row < n);
        from = forget(from + share::step * stride);
    }
}

/* s [16 * MT rows of x, N rows of y] = x y^T over KD columns; both in shared memory */
template <int KD, int MT, int N, typename T>
__device__ __forceinline__ void tile_scores(float (&s)[MT][N / MMA_N][4], const T *x,
                                            const T *y)
{
    constexpr int pitch = tile<KD>::pitch;
    const T *x_at = x + lane_place(pitch), *y_at = y + lane_place_second(pitch);

#pragma unroll
    for (int m = 0; m < MT; m++)
#pragma unroll
        for (int n = 0; n < N / MMA_N; n++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                s[m][n][i] = 0;
#pragma unroll
    for (int c = 0; c < KD; c += MMA_K) {
        unsigned a[MT][4];

#pragma unroll
        for (int m = 0; m < MT; m++)
            ldmatrix(a[m], x_at + m * MMA_M * pitch + c);
#pragma unroll
        for (int n = 0; n < N; n += 2 * MMA_N) {
            unsigned b[4];

            ldmatrix(b, y_at + n * pitch + c);
#pragma unroll
            for (int m = 0; m < MT; m++) {
                mma(s[m][n / MMA_N], a[m], b[0], b[1], T{});
                mma(s[m][n / MMA_N + 1], a[m], b[2], b[3], T{});
            }
        }
    }
}

/* sum [16 * MT, COLUMNS] += w [16 * MT, N] y [N rows, COLUMNS]; w is rounded to T, y in
 * shared memory in rows of `pitch` */
template <int COLUMNS, int MT, int N, typename T>
__device__ __forceinline__ void tile_add(float (&sum)[MT][COLUMNS / MMA_N][4],
                                         const unsigned (&w)[MT][N / MMA_N][2],
                                         const T *y, int pitch)
{
    const T *y_at = y + lane_place(pitch);

#pragma unroll
    for (int j = 0; j < N; j += MMA_K) {
        unsigned a[MT][4];

#pragma unroll
        for (int m = 0; m < MT; m++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                a[m][i] = w[m][j / MMA_N + i / 2][i % 2];
#pragma unroll
        for (int c = 0; c < COLUMNS; c += 2 * MMA_N) {
            unsigned b[4];

            ldmatrix_transposed(b, y_at + j * pitch + c);
#pragma unroll
            for (int m = 0; m < MT; m++) {
                mma(sum[m][c / MMA_N], a[m], b[0], b[1], T{});
                mma(sum[m][c / MMA_N + 1], a[m], b[2], b[3], T{});
            }
        }
    }
}

/* Rows of `to`, n of them, k columns = sum * factor[row half]; by way of `room`, rows in
 * shared memory that only this warp uses now. */
template <int COLUMNS, int MT, typename T>
__device__ __forceinline__ void tile_store(T *to, int64_t stride, int n, int k,
                                           const float (&sum)[MT][COLUMNS / MMA_N][4],
                                           const float (&factor)[MT][2], T *room)
{
    constexpr int pitch = tile<COLUMNS>::pitch, chunks = tile<COLUMNS>::chunks;
    int lane = lane_index();

    __syncwarp(); /* other lanes have read what lay there */
#pragma unroll
    for (int m = 0; m < MT; m++)
#pragma unroll
        for (int c = 0; c < COLUMNS / MMA_N; c++)
#pragma unroll
            for (int h = 0; h < 2; h++)
                *(unsigned *)(room + (m * MMA_M + h * 8 + lane / 4) * pitch + c * MMA_N +
                              lane % 4 * 2) =
                    round_pair(sum[m][c][h * 2] * factor[m][h],
                               sum[m][c][h * 2 + 1] * factor[m][h], T{});
    __syncwarp();
    for (int i = lane; i < MT * MMA_M * chunks; i += WARP) {
        int row = i / chunks, column = i % chunks * PACK;

        if (row < n && column < k)
            *(uint4 *)(to + row * stride + column) =
                *(const uint4 *)(room + row * pitch + column);
    }
}

/* ---- on the host ---- */

/* Calls f with the KD that heads of k elements run in. */
template <typename F> void with_head(int64_t k, F f)
{
    if (k <= 64)
        f(std::integral_constant<int, 64>{});
    else if (k <= 80)
        f(std::integral_constant<int, 80>{});
    else if (k <= 96)
        f(std::integral_constant<int, 96>{});
    else if (k <= 128)
        f(std::integral_constant<int, 128>{});
    else
        f(std::integral_constant<int, ATTENTION_MMA_HEAD_MAX>{});
}

/* Calls f with a zero of the C++ type of dtype, which has 16 bits. */
template <typename F> void with_half(enum dtype dtype, F f)
{
    if (dtype == DTYPE_BF16)
        f(bf16{});
    else
        f(f16{});
}

#endif
