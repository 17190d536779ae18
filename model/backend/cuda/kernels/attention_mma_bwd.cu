/* attention_mma_bwd.cu - attention in bf16 and fp16 on matrix units, backward
 *
 * Two kernels, each of which takes scores afresh: one owns tiles of queries and sums dq over
 * keys, one owns tiles of keys and sums dk and dv over queries and the query heads of a
 * group. That is 7 products where FlashAttention-2 has 5, and no atomics, no sums in memory.
 * Both let the other side pass through two places in shared memory: one is worked on while
 * the other is filled. The second takes scores transposed, [keys, queries], so that weights
 * lie in registers as the products behind want them.
 * p, ds are rounded to T before they multiply; ds without the scale, which comes last.
 */
#include "model/backend/cuda/kernels/attention_tile.cuh"

namespace
{

#define STATS_UNIT 64 /* queries of a (row, head) are counted in these */

/* Of a query: log2(e) * lse, or infinity where no key is seen, so that weights are 0; and
 * o . d_o. */
struct stats {
    float lse2, delta;
};

struct alignas(16) two_stats {
    stats at[2];
};

/* stats [B*H, n_padded]; `lanes` of a warp, a power of two, share a row of o and d_o. */
template <typename T>
__global__ void __launch_bounds__(BLOCK, 4)
    attention_stats(struct stats *to, const T *o, const T *d_o, const float *lse,
                    struct attention_shape a, int64_t n_padded, int lanes)
{
    int64_t n = a.b * n_padded * a.h, n_each = BLOCK / lanes;
    int column = (int)threadIdx.x % lanes * PACK;

    for (int64_t i = blockIdx.x * n_each; i < n; i += gridDim.x * n_each) {
        int64_t at = i + (int)threadIdx.x / lanes, head = at % a.h;
        int64_t t = at / a.h % n_padded, row = at / a.h / n_padded;
        bool is_there = at < n && t < a.tq;
        float sum = 0, x[PACK], dx[PACK];

        if (is_there && column < a.k) {
            int64_t from = ((row * a.tq + t) * a.h + head) * a.k + column;

            load<PACK>(x, o + from);
            load<PACK>(dx, d_o + from);
#pragma unroll
            for (int c = 0; c < PACK; c++)
                sum += x[c] * dx[c];
        }
        for (int with = lanes / 2; with > 0; with /= 2)
            sum += __shfl_xor_sync(ALL_LANES, sum, with);
        if (at < n && column == 0) {
            float l = is_there ? lse[at_lse(a, row, head, t)] : -INFINITY;

            to[(row * a.h + head) * n_padded + t] =
                l == -INFINITY ? stats{INFINITY, 0} : stats{l * LOG2_E, sum};
        }
    }
}

/* p and p (dp - delta), rounded, of two scores beside each other */
template <typename T>
__device__ __forceinline__ void weigh(unsigned &p, unsigned &ds, const float *s,
                                      const float *dp, float c, const stats &x,
                                      const stats &y)
{
    float px = exp2_fast(fmaf(s[0], c, -x.lse2)), py = exp2_fast(fmaf(s[1], c, -y.lse2));

    p = round_pair(px, py, T{});
    ds = round_pair(px * (dp[0] - x.delta), py * (dp[1] - y.delta), T{});
}

/* ---- dq ---- */

template <int KD> struct dq_tiles {
    static constexpr int mt = KD > 128 ? 1 : 2; /* of 16 queries, a warp */
    static constexpr int m = TILE_WARPS * mt * MMA_M;
    static constexpr int n = KD > 128 ? 16 : 32; /* keys */
    static constexpr size_t bytes = (size_t)(2 * m + 4 * n) * tile<KD>::pitch * 2;
};

/* Scores of -infinity where query i of the warp does not see the tile's key, which it does
 * below diagonal + i and below n. */
template <int MT, int N>
__device__ __forceinline__ void mask_rows(float (&s)[MT][N / MMA_N][4], int diagonal,
                                          int n_seen)
{
    int lane = lane_index();

#pragma unroll
    for (int m = 0; m < MT; m++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            int end = min(diagonal + m * MMA_M + i / 2 * 8 + lane / 4, n_seen);

#pragma unroll
            for (int n = 0; n < N / MMA_N; n++)
                if (n * MMA_N + lane % 4 * 2 + i % 2 >= end)
                    s[m][n][i] = -INFINITY;
        }
}

template <int KD, typename T>
__global__ void __launch_bounds__(TILE_THREADS, 2)
    attention_mma_dq(T *dq, const T *d_o, const T *q, const T *k, const T *v,
                     const struct stats *stat, struct attention_shape a, int64_t n_padded)
{
    constexpr int MT = dq_tiles<KD>::mt, M = dq_tiles<KD>::m, N = dq_tiles<KD>::n;
    constexpr int pitch = tile<KD>::pitch, stage = 2 * N * pitch;
    CUDA_DYNAMIC_SHARED(T, queries);
    T *d_outs = queries + M * pitch, *keys = d_outs + M * pitch;
    tile_spot at = tile_spot_of(a, a.h, a.tq, M, a.is_causal, (int)blockIdx.x);
    int own = warp_index() * MT * MMA_M, head_size = (int)a.k, lane = lane_index();
    int n_seen = tile_seen(a, at.len, min(at.first + M, (int)a.tq) - 1);
    int diagonal = tile_diagonal(a, at.len, at.first + own);
    int64_t kv =
        tile_place<KD>((int64_t)at.row * a.tk, a.kv_stride, at.head / (a.h / a.g) * a.k);
    float c = a.scale * LOG2_E, s[MT][N / MMA_N][4], dp[MT][N / MMA_N][4];
    float sum[MT][KD / MMA_N][4] = {}, factor[MT][2];
    stats mine[MT][2];
    int turn = 0;

#pragma unroll
    for (int m = 0; m < MT; m++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            int t = at.first + own + m * MMA_M + h * 8 + lane / 4;

            mine[m][h] = t < a.tq ? stat[(at.row * a.h + at.head) * n_padded + t]
                                  : stats{INFINITY, 0};
        }
    if (n_seen > 0) {
        int64_t first = at.row * a.tq + at.first;

        tile_load<M, KD>(queries, q + tile_place<KD>(first, a.q_stride, at.head * a.k),
                         a.q_stride, (int)a.tq - at.first, head_size);
        tile_load<M, KD>(d_outs, d_o + tile_place<KD>(first, a.h * a.k, at.head * a.k),
                         a.h * a.k, (int)a.tq - at.first, head_size);
        tile_load<N, KD>(keys, k + kv, a.kv_stride, n_seen, head_size);
        tile_load<N, KD>(keys + N * pitch, v + kv, a.kv_stride, n_seen, head_size);
        copy_commit();
    }
    for (int j = 0; j < n_seen; j += N, turn ^= 1) {
        const T *k_now = keys + turn * stage;
        unsigned w[MT][N / MMA_N][2], p;

        copy_wait<0>();
        __syncthreads(); /* this tile is there; the one before is no longer read */
        kv += N * a.kv_stride;
        if (j + N < n_seen) {
            T *k_next = keys + (turn ^ 1) * stage;

            tile_load<N, KD>(k_next, k + kv, a.kv_stride, n_seen - j - N, head_size);
            tile_load<N, KD>(k_next + N * pitch, v + kv, a.kv_stride, n_seen - j - N,
                             head_size);
        }
        copy_commit();
        if (j >= diagonal + MT * MMA_M - 1)
            continue; /* none of it is seen by this warp */
        tile_scores<KD, MT, N>(s, queries + own * pitch, k_now);
        if (j + N > min(diagonal, n_seen))
            mask_rows<MT, N>(s, diagonal - j, n_seen - j);
        tile_scores<KD, MT, N>(dp, d_outs + own * pitch, k_now + N * pitch);
#pragma unroll
        for (int m = 0; m < MT; m++)
#pragma unroll
            for (int n = 0; n < N / MMA_N; n++)
#pragma unroll
                for (int h = 0; h < 2; h++)
                    weigh<T>(p, w[m][n][h], &s[m][n][h * 2], &dp[m][n][h * 2], c,
                             mine[m][h], mine[m][h]);
        tile_add<KD, MT, N>(sum, w, k_now, pitch);
    }
#pragma unroll
    for (int m = 0; m < MT; m++)
        factor[m][0] = factor[m][1] = a.scale;
    at = tile_spot_of(a, a.h, a.tq, M, a.is_causal, forget((int)blockIdx.x));
    at.first += own;
    tile_store<KD, MT>(dq + (at.row * a.tq + at.first) * a.q_stride + at.head * a.k,
                       a.q_stride, (int)a.tq - at.first, head_size, sum, factor,
                       queries + own * pitch);
}

/* ---- dk, dv ---- */

template <int KD> struct dkv_tiles {
    static constexpr int m = KD > 128 ? 16 : KD > 96 ? 32 : 64; /* queries at a time */
    static constexpr int n = TILE_WARPS * MMA_M;                /* keys */
    static constexpr int columns =
        KD > 128 ? 128 : KD; /* of sums; more are other blocks' */
    static constexpr size_t bytes =
        (size_t)(2 * n + 4 * m) * tile<KD>::pitch * 2 + (size_t)2 * m * sizeof(stats);
};

/* Scores [keys, queries] of -infinity where they are not seen: by query i those below
 * diagonal + i are, of the warp's keys, and those below n. */
template <int N>
__device__ __forceinline__ void mask_columns(float (&s)[1][N / MMA_N][4], int diagonal,
                                             int n_seen)
{
    int lane = lane_index();

#pragma unroll
    for (int n = 0; n < N / MMA_N; n++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            if (i / 2 * 8 + lane / 4 >=
                min(diagonal + n * MMA_N + lane % 4 * 2 + i % 2, n_seen))
                s[0][n][i] = -INFINITY;
}

/* Queries of a head and what belongs to them, on their way to shared memory. */
template <int KD, typename T>
__device__ __forceinline__ void
load_queries(T *to, const T *q, const T *d_o, const struct stats *stat,
             const struct attention_shape &a, int64_t n_padded, int row, int head, int t)
{
    constexpr int M = dkv_tiles<KD>::m, pitch = tile<KD>::pitch;
    constexpr int n_each = 16 / (int)sizeof(stats);
    int64_t first = row * a.tq + t;
    stats *stat_to = (stats *)(to + 2 * M * pitch);

    tile_load<M, KD>(to, q + tile_place<KD>(first, a.q_stride, head * a.k), a.q_stride,
                     (int)a.tq - t, (int)a.k);
    tile_load<M, KD>(to + M * pitch, d_o + tile_place<KD>(first, a.h * a.k, head * a.k),
                     a.h * a.k, (int)a.tq - t, (int)a.k);
    if ((int)threadIdx.x < M / n_each)
        copy_async(stat_to + threadIdx.x * n_each,
                   stat + (row * a.h + head) * n_padded + t + threadIdx.x * n_each, true);
}

template <int KD, typename T>
__global__ void __launch_bounds__(TILE_THREADS, 2)
    attention_mma_dkv(T *dk, T *dv, const T *d_o, const T *q, const T *k, const T *v,
                      const struct stats *stat, struct attention_shape a,
                      int64_t n_padded)
{
    constexpr int M = dkv_tiles<KD>::m, N = dkv_tiles<KD>::n;
    constexpr int columns = dkv_tiles<KD>::columns, pitch = tile<KD>::pitch;
    constexpr int stage = 2 * M * pitch + M * (int)(sizeof(stats) / sizeof(T));
    CUDA_DYNAMIC_SHARED(T, keys);
    T *values = keys + N * pitch, *queries = values + N * pitch;
    tile_spot at = tile_spot_of(a, a.g, a.tk, N, false, (int)blockIdx.x);
    int own = warp_index() * MMA_M, each = (int)(a.h / a.g);
    int mine = at.first + own, column = (int)blockIdx.y * columns;
    int begin = (int)first_seeing(a, at.len, at.first) / M * M, t = begin;
    int head = at.head * each, turn = 0, n_steps = 0;
    float c = a.scale * LOG2_E, s[1][M / MMA_N][4], dp[1][M / MMA_N][4];
    float dk_sum[1][columns / MMA_N][4] = {}, dv_sum[1][columns / MMA_N][4] = {};

    if (at.first < at.len && begin < a.tq) {
        int64_t kv =
            tile_place<KD>((int64_t)at.row * a.tk + at.first, a.kv_stride, at.head * a.k);

        n_steps = ((int)a.tq - begin + M - 1) / M * each;
        tile_load<N, KD>(keys, k + kv, a.kv_stride, at.len - at.first, (int)a.k);
        tile_load<N, KD>(values, v + kv, a.kv_stride, at.len - at.first, (int)a.k);
        load_queries<KD>(queries, q, d_o, stat, a, n_padded, at.row, head, t);
        copy_commit();
    }
    for (int step = 0; step < n_steps; step++, turn ^= 1) {
        const T *q_now = queries + turn * stage, *d_now = q_now + M * pitch;
        const stats *stat_now = (const stats *)(d_now + M * pitch);
        int diagonal = tile_diagonal(a, at.len, t);
        unsigned p[1][M / MMA_N][2], ds[1][M / MMA_N][2];

        copy_wait<0>();
        __syncthreads(); /* these queries are there; those before are no longer read */
        t += M;
        if (t >= a.tq) {
            t = begin;
            head++;
        }
        if (step + 1 < n_steps)
            load_queries<KD>(queries + (turn ^ 1) * stage, q, d_o, stat, a, n_padded,
                             at.row, head, t);
        copy_commit();
        if (mine >= diagonal + M - 1)
            continue; /* none of these sees this warp's keys */
        tile_scores<KD, 1, M>(s, keys + own * pitch, q_now);
        if (mine + MMA_M > min(diagonal, at.len))
            mask_columns<M>(s, diagonal - mine, at.len - mine);
        tile_scores<KD, 1, M>(dp, values + own * pitch, d_now);
#pragma unroll
        for (int n = 0; n < M / MMA_N; n++) {
            two_stats two =
                *(const two_stats *)(stat_now + n * MMA_N + lane_index() % 4 * 2);

#pragma unroll
            for (int h = 0; h < 2; h++)
                weigh<T>(p[0][n][h], ds[0][n][h], &s[0][n][h * 2], &dp[0][n][h * 2], c,
                         two.at[0], two.at[1]);
        }
        tile_add<columns, 1, M>(dv_sum, p, d_now + column, pitch);
        tile_add<columns, 1, M>(dk_sum, ds, q_now + column, pitch);
    }
    {
        const float one[1][2] = {{1, 1}}, scale[1][2] = {{a.scale, a.scale}};
        int64_t to = (at.row * a.tk + mine) * a.kv_stride + at.head * a.k + column;

        tile_store<columns, 1>(dk + to, a.kv_stride, (int)a.tk - mine, (int)a.k - column,
                               dk_sum, scale, keys + own * pitch);
        tile_store<columns, 1>(dv + to, a.kv_stride, (int)a.tk - mine, (int)a.k - column,
                               dv_sum, one, values + own * pitch);
    }
}

/* ---- on the host ---- */

template <typename T>
void launch_stats(struct cuda *cuda, const struct attention_shape *shape,
                  const struct attention_tensors *x, struct stats *stat, int64_t n_padded)
{
    int lanes = 1;

    while (lanes * PACK < shape->k)
        lanes *= 2;
    CUDA_LAUNCH(attention_stats<T>,
                dim3(grid_x(ceil_div(shape->b * n_padded * shape->h, BLOCK / lanes))),
                dim3(BLOCK), 0, cuda->stream, stat, (const T *)x->o->data,
                (const T *)x->d_o->data, (const float *)x->lse->data, *shape, n_padded,
                lanes);
}

template <int KD, typename T>
int launch_bwd(struct cuda *cuda, const struct attention_shape *shape,
               const struct attention_tensors *x, const struct stats *stat,
               int64_t n_padded, struct err *err)
{
    const T *d_o = (const T *)x->d_o->data, *q = (const T *)x->q->data;
    const T *k = (const T *)x->k->data, *v = (const T *)x->v->data;
    dim3 queries((unsigned)(shape->b * shape->h * ceil_div(shape->tq, dq_tiles<KD>::m)));
    dim3 keys((unsigned)(shape->b * shape->g * ceil_div(shape->tk, dkv_tiles<KD>::n)),
              KD / dkv_tiles<KD>::columns);

    if (cuda_allow_shared((const void *)attention_mma_dq<KD, T>, dq_tiles<KD>::bytes,
                          err) < 0 ||
        cuda_allow_shared((const void *)attention_mma_dkv<KD, T>, dkv_tiles<KD>::bytes,
                          err) < 0)
        return -1;
    CUDA_LAUNCH((attention_mma_dq<KD, T>), queries, dim3(TILE_THREADS),
                dq_tiles<KD>::bytes, cuda->stream, (T *)x->dq->data, d_o, q, k, v, stat,
                *shape, n_padded);
    if (shape->tk > 0)
        CUDA_LAUNCH((attention_mma_dkv<KD, T>), keys, dim3(TILE_THREADS),
                    dkv_tiles<KD>::bytes, cuda->stream, (T *)x->dk->data,
                    (T *)x->dv->data, d_o, q, k, v, stat, *shape, n_padded);
    return 0;
}

} /* namespace */

size_t attention_mma_bwd_shared(int64_t k)
{
    size_t bytes = 0;

    with_head(k, [&](auto head) {
        constexpr int KD = decltype(head)::value;

        bytes = dq_tiles<KD>::bytes > dkv_tiles<KD>::bytes ? dq_tiles<KD>::bytes
                                                           : dkv_tiles<KD>::bytes;
    });
    return bytes;
}

int attention_mma_bwd(struct cuda *cuda, const struct attention_shape *shape,
                      const struct attention_tensors *x, struct err *err)
{
    int64_t n_padded = ceil_div(shape->tq, STATS_UNIT) * STATS_UNIT;
    size_t n = (size_t)(shape->b * shape->h * n_padded);
    void *scratch;
    int rc = -1;

    if (cuda_scratch(cuda, &scratch, n * sizeof(struct stats), err) < 0)
        return -1;
    with_half(x->q->dtype, [&](auto zero) {
        with_head(shape->k, [&](auto head) {
            typedef decltype(zero) T;
            struct stats *stat = (struct stats *)scratch;

            launch_stats<T>(cuda, shape, x, stat, n_padded);
            rc =
                launch_bwd<decltype(head)::value, T>(cuda, shape, x, stat, n_padded, err);
        });
    });
    return rc < 0 ? -1 : cuda_launched("gradient of attention", err);
}
