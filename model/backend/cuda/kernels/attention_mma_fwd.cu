/* attention_mma_fwd.cu - attention in bf16 and fp16 on matrix units, forward
 *
 * A block owns a tile of queries and lets tiles of keys pass: while scores are multiplied the
 * values are on their way to shared memory, while values are added the next keys are. A warp
 * has 32 queries where registers allow, for then each fragment of keys and values that it
 * loads from shared memory serves two products. Softmax is taken online in powers of two,
 * sums are fp32; weights are rounded to T before they multiply values. Values that are not
 * finite may reach queries of their tile that do not see them.
 */
#include "model/backend/cuda/kernels/attention_tile.cuh"

namespace
{

template <int KD> struct fwd_tiles {
    static constexpr int mt = KD > 128 ? 1 : 2; /* of 16 queries, a warp */
    static constexpr int m = TILE_WARPS * mt * MMA_M;
    static constexpr int n = KD > 128 ? 32 : KD > 96 ? 48 : 64; /* keys */
    static constexpr size_t bytes = (size_t)(m + 2 * n) * tile<KD>::pitch * 2;
};

/* Of this lane's rows: maximum of the scores so far, and its part of the sum of weights. */
template <int MT> struct softmax {
    float max[MT][2], sum[MT][2];
};

/* A score of -infinity where key j of the tile is not seen: by the warp's query i those below
 * diagonal + i are, as far as there are n_seen. */
template <int MT, int N>
__device__ __forceinline__ void mask_scores(float (&s)[MT][N / MMA_N][4], int diagonal,
                                            int n_seen)
{
    int lane = lane_index();

    diagonal = forget(diagonal); /* nothing of this is kept from tile to tile */
#pragma unroll
    for (int m = 0; m < MT; m++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            int end = min(diagonal + m * MMA_M + h * 8 + lane / 4, n_seen) - lane % 4 * 2;

#pragma unroll
            for (int n = 0; n < N / MMA_N; n++)
#pragma unroll
                for (int i = 0; i < 2; i++)
                    if (n * MMA_N + i >= end)
                        s[m][n][h * 2 + i] = -INFINITY;
        }
}

template <int MT> __device__ __forceinline__ void softmax_begin(softmax<MT> &soft)
{
#pragma unroll
    for (int m = 0; m < MT; m++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            soft.max[m][h] = -INFINITY;
            soft.sum[m][h] = 0;
        }
}

/* w = weights of the scores under the new maximum, rounded; out follows. `c`: scale * log2(e) */
template <int KD, int MT, int N, typename T>
__device__ __forceinline__ void
softmax_step(unsigned (&w)[MT][N / MMA_N][2], softmax<MT> &soft,
             const float (&s)[MT][N / MMA_N][4], float (&out)[MT][KD / MMA_N][4], float c)
{
    float base[MT][2]; /* of the exponents */

#pragma unroll
    for (int m = 0; m < MT; m++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            float max = soft.max[m][h], shrink;

#pragma unroll
            for (int n = 0; n < N / MMA_N; n++)
                max = fmaxf(max, fmaxf(s[m][n][h * 2], s[m][n][h * 2 + 1]));
            max = fmaxf(max, __shfl_xor_sync(ALL_LANES, max, 1));
            max = fmaxf(max, __shfl_xor_sync(ALL_LANES, max, 2));
            base[m][h] = max == -INFINITY ? 0 : max * c;
            if (!__any_sync(ALL_LANES, max != soft.max[m][h]))
                continue; /* maxima seldom grow after the first tiles */
            shrink = exp2_fast(fmaf(soft.max[m][h], c, -base[m][h]));
            soft.max[m][h] = max;
            soft.sum[m][h] *= shrink;
#pragma unroll
            for (int n = 0; n < KD / MMA_N; n++)
#pragma unroll
                for (int i = 0; i < 2; i++)
                    out[m][n][h * 2 + i] *= shrink;
        }
#pragma unroll
    for (int m = 0; m < MT; m++)
#pragma unroll
        for (int n = 0; n < N / MMA_N; n++)
#pragma unroll
            for (int h = 0; h < 2; h++) {
                float x = exp2_fast(fmaf(s[m][n][h * 2], c, -base[m][h]));
                float y = exp2_fast(fmaf(s[m][n][h * 2 + 1], c, -base[m][h]));

                soft.sum[m][h] += x + y;
                w[m][n][h] = round_pair(x, y, T{});
            }
}

/* lse of this lane's rows; soft.sum becomes what sums of values are multiplied with. A query
 * that sees keys, all of them with score -infinity, gets NaN, as from ref. */
template <int MT>
__device__ __forceinline__ void softmax_end(softmax<MT> &soft, float *lse,
                                            const struct attention_shape &a, int len,
                                            int first_query, float c)
{
#pragma unroll
    for (int m = 0; m < MT; m++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            int t = first_query + m * MMA_M + h * 8 + lane_index() / 4;
            float sum = soft.sum[m][h], base = soft.max[m][h] * c;

            sum += __shfl_xor_sync(ALL_LANES, sum, 1);
            sum += __shfl_xor_sync(ALL_LANES, sum, 2);
            if (sum == 0 && tile_seen(a, len, t) > 0)
                sum = NAN;
            if (t < a.tq && lane_index() % 4 == 0)
                lse[t] = sum == 0 ? -INFINITY : (base + log2f(sum)) * LN_2;
            soft.sum[m][h] = sum == 0 ? 0 : 1 / sum;
        }
}

template <int KD, typename T>
__global__ void __launch_bounds__(TILE_THREADS, 2)
    attention_mma_rows(T *o, float *lse, const T *q, const T *k, const T *v,
                       struct attention_shape a)
{
    constexpr int MT = fwd_tiles<KD>::mt, M = fwd_tiles<KD>::m, N = fwd_tiles<KD>::n;
    constexpr int pitch = tile<KD>::pitch;
    CUDA_DYNAMIC_SHARED(T, queries);
    T *keys = queries + M * pitch, *values = keys + N * pitch;
    tile_spot at = tile_spot_of(a, a.h, a.tq, M, a.is_causal, (int)blockIdx.x);
    int own = warp_index() * MT * MMA_M, head_size = (int)a.k;
    int n_seen = tile_seen(a, at.len, min(at.first + M, (int)a.tq) - 1);
    int diagonal = tile_diagonal(a, at.len, at.first + own);
    int64_t kv =
        tile_place<KD>((int64_t)at.row * a.tk, a.kv_stride, at.head / (a.h / a.g) * a.k);
    float c = a.scale * LOG2_E, s[MT][N / MMA_N][4], out[MT][KD / MMA_N][4] = {};
    unsigned w[MT][N / MMA_N][2];
    softmax<MT> soft;

    softmax_begin(soft);
    if (n_seen > 0) {
        tile_load<M, KD>(
            queries,
            q + tile_place<KD>(at.row * a.tq + at.first, a.q_stride, at.head * a.k),
            a.q_stride, (int)a.tq - at.first, head_size);
        tile_load<N, KD>(keys, k + kv, a.kv_stride, n_seen, head_size);
        copy_commit();
    }
    for (int j = 0; j < n_seen; j += N) {
        bool is_seen = j < diagonal + MT * MMA_M - 1; /* by the warp's last query */

        copy_wait<0>();
        __syncthreads(); /* keys are there; the values before are no longer read */
        tile_load<N, KD>(values, v + kv, a.kv_stride, n_seen - j, head_size);
        copy_commit();
        if (is_seen)
            tile_scores<KD, MT, N>(s, queries + own * pitch, keys);
        copy_wait<0>();
        __syncthreads(); /* values are there; keys are no longer read */
        kv += N * a.kv_stride;
        if (j + N < n_seen)
            tile_load<N, KD>(keys, k + kv, a.kv_stride, n_seen - j - N, head_size);
        copy_commit();
        if (!is_seen)
            continue;
        if (j + N > min(diagonal, n_seen))
            mask_scores<MT, N>(s, diagonal - j, n_seen - j);
        softmax_step<KD, MT, N, T>(w, soft, s, out, c);
        __syncwarp(); /* else the compiler mixes what is before and behind, and spills */
        tile_add<KD, MT, N>(out, w, values, pitch);
    }
    at = tile_spot_of(a, a.h, a.tq, M, a.is_causal, forget((int)blockIdx.x));
    at.first += own;
    softmax_end(soft, lse + at_lse(a, at.row, at.head, 0), a, at.len, at.first, c);
    tile_store<KD, MT>(o + ((at.row * a.tq + at.first) * a.h + at.head) * a.k, a.h * a.k,
                       (int)a.tq - at.first, head_size, out, soft.sum,
                       queries + own * pitch);
}

} /* namespace */

size_t attention_mma_fwd_shared(int64_t k)
{
    size_t bytes = 0;

    with_head(k, [&](auto head) { bytes = fwd_tiles<decltype(head)::value>::bytes; });
    return bytes;
}

int attention_mma_fwd(struct cuda *cuda, const struct attention_shape *shape,
                      const struct attention_tensors *x, struct err *err)
{
    int rc = -1;

    with_half(x->q->dtype, [&](auto zero) {
        with_head(shape->k, [&](auto head) {
            typedef decltype(zero) T;
            typedef fwd_tiles<decltype(head)::value> tiles;
            auto kernel = attention_mma_rows<decltype(head)::value, T>;
            int64_t n_blocks = shape->b * shape->h * ceil_div(shape->tq, tiles::m);

            rc = cuda_allow_shared((const void *)kernel, tiles::bytes, err);
            if (rc == 0)
                CUDA_LAUNCH(kernel, dim3((unsigned)n_blocks), dim3(TILE_THREADS),
                            tiles::bytes, cuda->stream, (T *)x->o->data,
                            (float *)x->lse->data, (const T *)x->q->data,
                            (const T *)x->k->data, (const T *)x->v->data, *shape);
        });
    });
    return rc < 0 ? -1 : cuda_launched("attention", err);
}
