/* attention_fp32.cu - attention of every kind, in fp32 on ordinary units
 *
 * This is what runs in fp32 and for odd head sizes. Scores are never stored: keys pass by in tiles of a
 * warp, as in Dao et al. 2022, "FlashAttention", and the backward pass takes softmax from
 * lse. Formulas: ref_attention.c.
 *
 * A warp owns ROWS_EACH rows (queries, or keys in the pass for dk and dv) and sums over the
 * other side. Lanes are first the other side's rows (scores: dots), then columns of a head
 * (sums: add_rows), LANE_COLUMNS each; heads wider than COLUMNS are cut over the grid's y.
 */
#include "model/backend/cuda/kernels/attention.cuh"

#define N_WARPS 4
#define ROWS_EACH 4
#define ROWS_BLOCK (N_WARPS * ROWS_EACH)
#define LANE_COLUMNS 4
#define COLUMNS (WARP * LANE_COLUMNS)
#define BLOCKS_EACH 4     /* blocks a processor, where keys are shared out to get them */
#define PART_KEYS_MIN 128 /* a part of fewer would not pay for joining them */

namespace
{

/* Rows that lie `stride` apart, n of them. */
template <typename T> struct rows_of {
    const T *at;
    int64_t stride, n;

    __device__ rows_of from(int64_t first) const
    {
        int64_t left = n - first;

        return {at + first * stride, stride, left > 0 ? left : 0};
    }
};

/* s[i] = x row i . y row `lane`, over `k` columns; rows that are not there count as 0.
 * x: this warp's rows; y: the block's tile of WARP rows. Every thread of the block calls. */
template <typename T>
__device__ inline void dots(float (&s)[ROWS_EACH], const rows_of<T> &x,
                            const rows_of<T> &y, int64_t k)
{
    CUDA_SHARED(float, tile, WARP *(WARP + 1)); /* y, one column more against conflicts */
    CUDA_SHARED(float, mine, ROWS_BLOCK *WARP);
    int lane = lane_index(), own = warp_index() * ROWS_EACH * WARP;

#pragma unroll
    for (int i = 0; i < ROWS_EACH; i++)
        s[i] = 0;
    for (int64_t first = 0; first < k; first += WARP) {
        bool has_column = first + lane < k;

        __syncthreads(); /* the last tile is no longer read */
        for (int r = warp_index(); r < WARP; r += N_WARPS)
            tile[r * (WARP + 1) + lane] =
                has_column && r < y.n ? to_float(y.at[r * y.stride + first + lane]) : 0;
#pragma unroll
        for (int i = 0; i < ROWS_EACH; i++)
            mine[own + i * WARP + lane] =
                has_column && i < x.n ? to_float(x.at[i * x.stride + first + lane]) : 0;
        __syncthreads();
        for (int c = 0; c < WARP; c++) {
            float yc = tile[lane * (WARP + 1) + c];

#pragma unroll
            for (int i = 0; i < ROWS_EACH; i++)
                s[i] += mine[own + i * WARP + c] * yc;
        }
    }
}

/* sum[i] += weight (this warp's row i, y row j) times y row j's columns, over the tile. A
 * weight of 0 takes nothing, not even what is not a number. */
template <typename T>
__device__ inline void add_rows(float (&sum)[ROWS_EACH][LANE_COLUMNS],
                                const float (&weight)[ROWS_EACH], const rows_of<T> &y,
                                int64_t first, int64_t k)
{
    CUDA_SHARED(float, weights, ROWS_BLOCK *WARP);
    int lane = lane_index(), own = warp_index() * ROWS_EACH * WARP;
    int n = y.n < WARP ? (int)y.n : WARP;

#pragma unroll
    for (int i = 0; i < ROWS_EACH; i++)
        weights[own + i * WARP + lane] = weight[i];
    __syncwarp();
    for (int j = 0; j < n; j++) {
        float yc[LANE_COLUMNS];

#pragma unroll
        for (int c = 0; c < LANE_COLUMNS; c++) {
            int64_t column = first + c * WARP + lane;

            yc[c] = column < k ? to_float(y.at[j * y.stride + column]) : 0;
        }
#pragma unroll
        for (int i = 0; i < ROWS_EACH; i++) {
            float w = weights[own + i * WARP + j];

            if (w == 0)
                continue;
#pragma unroll
            for (int c = 0; c < LANE_COLUMNS; c++)
                sum[i][c] += w * yc[c];
        }
    }
    __syncwarp(); /* weights may be written again */
}

/* to[column] = sum[.] * factor */
template <typename T>
__device__ inline void put_row(T *to, const float (&sum)[LANE_COLUMNS], float factor,
                               int64_t first, int64_t k)
{
#pragma unroll
    for (int c = 0; c < LANE_COLUMNS; c++) {
        int64_t column = first + c * WARP + lane_index();

        if (column < k)
            put(to + column, sum[c] * factor);
    }
}

/* Where a block is: rows of batch row `row` and head `head` from `first` on. */
struct spot {
    int64_t row, head, first, len;
};

__device__ inline spot spot_of(const struct attention_shape &a, int64_t n_heads,
                               int64_t n_rows)
{
    int64_t tiles = (n_rows + ROWS_BLOCK - 1) / ROWS_BLOCK, pair = blockIdx.x / tiles;
    spot s;

    s.row = pair / n_heads;
    s.head = pair % n_heads;
    s.first = blockIdx.x % tiles * ROWS_BLOCK;
    s.len = a.lens ? a.lens[s.row] : a.tk;
    return s;
}

template <typename T>
__device__ inline rows_of<T> queries_of(const struct attention_shape &a, const T *q,
                                        int64_t row, int64_t head)
{
    return {q + row * a.tq * a.q_stride + head * a.k, a.q_stride, a.tq};
}

/* Rows of o and d_o, which are contiguous. */
template <typename T>
__device__ inline rows_of<T> outputs_of(const struct attention_shape &a, const T *o,
                                        int64_t row, int64_t head)
{
    return {o + (row * a.tq * a.h + head) * a.k, a.h * a.k, a.tq};
}

template <typename T>
__device__ inline rows_of<T> keys_of(const struct attention_shape &a, const T *k,
                                     int64_t row, int64_t kv_head, int64_t n)
{
    return {k + row * a.tk * a.kv_stride + kv_head * a.k, a.kv_stride, n};
}

/* weight[i] = exp(s[i] - max) under the new maximum; sum, max and earlier sums follow. */
__device__ inline void softmax_step(float &weight, float &max, float &sum,
                                    float (&out)[LANE_COLUMNS], bool is_seen)
{
    float s = is_seen ? weight : -INFINITY;
    float larger = fmaxf(max, warp_max(s)), base = larger == -INFINITY ? 0 : larger;
    float shrink = expf(max - base);

    weight = is_seen ? expf(s - base) : 0;
    sum = sum * shrink + warp_sum(weight);
    max = larger;
#pragma unroll
    for (int c = 0; c < LANE_COLUMNS; c++)
        out[c] *= shrink;
}

template <typename T>
__global__ void __launch_bounds__(N_WARPS *WARP, 3)
    attention_fwd(T *o, float *lse, const T *q, const T *k, const T *v,
                  struct attention_shape a, struct key_parts parts)
{
    spot at = spot_of(a, a.h, a.tq);
    int64_t mine = at.first + warp_index() * ROWS_EACH, column = blockIdx.y * COLUMNS;
    int64_t last = at.first + ROWS_BLOCK < a.tq ? at.first + ROWS_BLOCK - 1 : a.tq - 1;
    int64_t n_seen = seen_by(a, at.len, last), kv_head = at.head / (a.h / a.g);
    int64_t begin = blockIdx.z * parts.n_each;
    int64_t end = begin + parts.n_each < n_seen ? begin + parts.n_each : n_seen;
    rows_of<T> keys = keys_of(a, k, at.row, kv_head, n_seen);
    rows_of<T> values = keys_of(a, v, at.row, kv_head, n_seen);
    rows_of<T> queries = queries_of(a, q, at.row, at.head).from(mine);
    float s[ROWS_EACH], max[ROWS_EACH], sum[ROWS_EACH], out[ROWS_EACH][LANE_COLUMNS] = {};

    for (int i = 0; i < ROWS_EACH; i++) {
        max[i] = -INFINITY;
        sum[i] = 0;
    }
    for (int64_t j = begin; j < end; j += WARP) {
        dots(s, queries, keys.from(j), a.k);
#pragma unroll
        for (int i = 0; i < ROWS_EACH; i++) {
            s[i] *= a.scale;
            softmax_step(s[i], max[i], sum[i], out[i],
                         j + lane_index() < seen_by(a, at.len, mine + i));
        }
        add_rows(out, s, values.from(j), column, a.k);
    }
#pragma unroll
    for (int i = 0; i < ROWS_EACH; i++) {
        int64_t t = mine + i, stat = at_lse(a, at.row, at.head, t);
        bool is_first = column == 0 && lane_index() == 0;

        if (t >= a.tq)
            continue;
        if (parts.at) {
            float *to = parts.at + (blockIdx.z * a.b * a.h * a.tq + stat) * (a.k + 2);

            put_row(to, out[i], 1, column, a.k);
            if (is_first) {
                to[a.k] = max[i];
                to[a.k + 1] = sum[i];
            }
            continue;
        }
        if (sum[i] == 0 && seen_by(a, at.len, t) > 0)
            sum[i] = NAN; /* all keys that it sees have score -infinity; so does ref */
        put_row(o + ((at.row * a.tq + t) * a.h + at.head) * a.k, out[i],
                sum[i] == 0 ? 0 : 1 / sum[i], column, a.k);
        if (is_first)
            lse[stat] = max[i] + logf(sum[i]);
    }
}

/* A block of queries and the keys it sees, for the backward pass. */
template <typename T> struct bwd_side {
    spot at;
    int64_t mine, n_seen; /* this warp's first query; keys that any of the block sees */
    rows_of<T> queries, d_outs, keys, values;
};

template <typename T>
__device__ inline bwd_side<T> bwd_side_of(const struct attention_shape &a, const T *d_o,
                                          const T *q, const T *k, const T *v)
{
    bwd_side<T> s;
    int64_t last, kv_head;

    s.at = spot_of(a, a.h, a.tq);
    s.mine = s.at.first + warp_index() * ROWS_EACH;
    last = s.at.first + ROWS_BLOCK < a.tq ? s.at.first + ROWS_BLOCK - 1 : a.tq - 1;
    kv_head = s.at.head / (a.h / a.g);
    s.n_seen = seen_by(a, s.at.len, last);
    s.keys = keys_of(a, k, s.at.row, kv_head, s.n_seen);
    s.values = keys_of(a, v, s.at.row, kv_head, s.n_seen);
    s.queries = queries_of(a, q, s.at.row, s.at.head).from(s.mine);
    s.d_outs = outputs_of(a, d_o, s.at.row, s.at.head).from(s.mine);
    return s;
}

/* p, dp of this warp's queries and key j + lane; p is 0 where it is not seen. */
template <typename T>
__device__ inline void bwd_scores(float (&p)[ROWS_EACH], float (&dp)[ROWS_EACH],
                                  const bwd_side<T> &s, const struct attention_shape &a,
                                  const float *lse, int64_t j)
{
    dots(p, s.queries, s.keys.from(j), a.k);
    dots(dp, s.d_outs, s.values.from(j), a.k);
#pragma unroll
    for (int i = 0; i < ROWS_EACH; i++) {
        bool is_seen = j + lane_index() < seen_by(a, s.at.len, s.mine + i);

        p[i] =
            is_seen
                ? expf(p[i] * a.scale - lse[at_lse(a, s.at.row, s.at.head, s.mine + i)])
                : 0;
    }
}

/* delta [B,H,Tq] = sum_j p_j dp_j: the same as o . d_o, without o's rounding */
template <typename T>
__global__ void __launch_bounds__(N_WARPS *WARP, 3)
    attention_delta(float *delta, const T *d_o, const T *q, const T *k, const T *v,
                    const float *lse, struct attention_shape a)
{
    bwd_side<T> side = bwd_side_of(a, d_o, q, k, v);
    float p[ROWS_EACH], dp[ROWS_EACH], sum[ROWS_EACH] = {};

    for (int64_t j = 0; j < side.n_seen; j += WARP) {
        bwd_scores(p, dp, side, a, lse, j);
#pragma unroll
        for (int i = 0; i < ROWS_EACH; i++)
            sum[i] += p[i] == 0 ? 0 : p[i] * dp[i];
    }
#pragma unroll
    for (int i = 0; i < ROWS_EACH; i++) {
        float all = warp_sum(sum[i]);

        if (lane_index() == 0 && side.mine + i < a.tq)
            delta[at_lse(a, side.at.row, side.at.head, side.mine + i)] = all;
    }
}

template <typename T>
__global__ void __launch_bounds__(N_WARPS *WARP, 3)
    attention_dq(T *dq, const T *d_o, const T *q, const T *k, const T *v,
                 const float *lse, const float *delta, struct attention_shape a)
{
    bwd_side<T> side = bwd_side_of(a, d_o, q, k, v);
    int64_t column = blockIdx.y * COLUMNS;
    float s[ROWS_EACH], dp[ROWS_EACH], sum[ROWS_EACH][LANE_COLUMNS] = {};

    for (int64_t j = 0; j < side.n_seen; j += WARP) {
        bwd_scores(s, dp, side, a, lse, j);
#pragma unroll
        for (int i = 0; i < ROWS_EACH; i++)
            if (s[i] != 0)
                s[i] *=
                    a.scale *
                    (dp[i] - delta[at_lse(a, side.at.row, side.at.head, side.mine + i)]);
        add_rows(sum, s, side.keys.from(j), column, a.k);
    }
#pragma unroll
    for (int i = 0; i < ROWS_EACH; i++)
        if (side.mine + i < a.tq)
            put_row(dq + (side.at.row * a.tq + side.mine + i) * a.q_stride +
                        side.at.head * a.k,
                    sum[i], 1, column, a.k);
}

template <typename T>
__global__ void __launch_bounds__(N_WARPS *WARP, 3)
    attention_dkv(T *dk, T *dv, const T *d_o, const T *q, const T *k, const T *v,
                  const float *lse, const float *delta, struct attention_shape a)
{
    spot at = spot_of(a, a.g, a.tk);
    int64_t mine = at.first + warp_index() * ROWS_EACH, column = blockIdx.y * COLUMNS;
    rows_of<T> keys = keys_of(a, k, at.row, at.head, at.len).from(mine);
    rows_of<T> values = keys_of(a, v, at.row, at.head, at.len).from(mine);
    int64_t begin = first_seeing(a, at.len, at.first) / WARP * WARP, each = a.h / a.g;
    float p[ROWS_EACH], ds[ROWS_EACH];
    float dk_sum[ROWS_EACH][LANE_COLUMNS] = {}, dv_sum[ROWS_EACH][LANE_COLUMNS] = {};

    if (at.first >= at.len)
        begin = a.tq;
    for (int64_t head = at.head * each; head < (at.head + 1) * each; head++)
        for (int64_t t = begin; t < a.tq; t += WARP) {
            rows_of<T> queries = queries_of(a, q, at.row, head).from(t);
            rows_of<T> d_outs = outputs_of(a, d_o, at.row, head).from(t);
            int64_t n_seen = seen_by(a, at.len, t + lane_index());
            int64_t stat = at_lse(a, at.row, head, t + lane_index());
            float lse_t = n_seen ? lse[stat] : 0, delta_t = n_seen ? delta[stat] : 0;

            dots(p, keys, queries, a.k);
            dots(ds, values, d_outs, a.k);
#pragma unroll
            for (int i = 0; i < ROWS_EACH; i++) {
                p[i] = mine + i < n_seen ? expf(p[i] * a.scale - lse_t) : 0;
                ds[i] = mine + i < n_seen ? a.scale * p[i] * (ds[i] - delta_t) : 0;
            }
            add_rows(dv_sum, p, d_outs, column, a.k);
            add_rows(dk_sum, ds, queries, column, a.k);
        }
    for (int i = 0; i < ROWS_EACH; i++) {
        int64_t to = (at.row * a.tk + mine + i) * a.kv_stride + at.head * a.k;

        if (mine + i >= a.tk)
            continue;
        put_row(dk + to, dk_sum[i], 1, column, a.k);
        put_row(dv + to, dv_sum[i], 1, column, a.k);
    }
}

dim3 attention_grid(const struct attention_shape *a, int64_t n_heads, int64_t n_rows)
{
    return dim3((unsigned)(a->b * n_heads * ceil_div(n_rows, ROWS_BLOCK)),
                (unsigned)ceil_div(a->k, COLUMNS));
}

} /* namespace */

/* As many parts as keep the processors busy, none of them smaller than PART_KEYS_MIN. */
static int share_keys(struct cuda *cuda, struct key_parts *out,
                      const struct attention_shape *shape, struct err *err)
{
    int64_t rows = shape->b * shape->h * shape->tq;
    int64_t n_blocks = shape->b * shape->h * ceil_div(shape->tq, ROWS_BLOCK);
    int64_t wanted = (int64_t)cuda->n_processors * BLOCKS_EACH / n_blocks;
    int64_t most = ceil_div(shape->tk, PART_KEYS_MIN), n = wanted < most ? wanted : most;
    void *scratch;

    *out = key_parts{nullptr, 1, shape->tk};
    if (n < 2)
        return 0;
    out->n_each = ceil_div(ceil_div(shape->tk, WARP), n) * WARP;
    out->n_parts = ceil_div(shape->tk, out->n_each);
    if (cuda_scratch(cuda, &scratch,
                     (size_t)(out->n_parts * rows * (shape->k + 2)) * sizeof(float),
                     err) < 0)
        return -1;
    out->at = (float *)scratch;
    return 0;
}

int attention_fp32_fwd(struct cuda *cuda, const struct attention_shape *shape,
                       const struct attention_tensors *x, struct err *err)
{
    dim3 grid = attention_grid(shape, shape->h, shape->tq);
    struct key_parts parts;

    if (share_keys(cuda, &parts, shape, err) < 0)
        return -1;
    grid.z = (unsigned)parts.n_parts;
    with_type(x->q->dtype, [&](auto zero) {
        typedef decltype(zero) T;
        T *o = (T *)x->o->data;
        float *lse = (float *)x->lse->data;

        CUDA_LAUNCH(attention_fwd<T>, grid, dim3(N_WARPS * WARP), 0, cuda->stream, o, lse,
                    (const T *)x->q->data, (const T *)x->k->data, (const T *)x->v->data,
                    *shape, parts);
    });
    if (parts.at)
        attention_join(cuda, shape, x, &parts);
    return cuda_launched("attention", err);
}

int attention_fp32_bwd(struct cuda *cuda, const struct attention_shape *shape,
                       const struct attention_tensors *x, struct err *err)
{
    int64_t n = shape->b * shape->h * shape->tq;
    dim3 queries((unsigned)(shape->b * shape->h * ceil_div(shape->tq, ROWS_BLOCK)));
    void *scratch;

    if (cuda_scratch(cuda, &scratch, (size_t)n * sizeof(float), err) < 0)
        return -1;
    with_type(x->q->dtype, [&](auto zero) {
        typedef decltype(zero) T;
        const T *d_o = (const T *)x->d_o->data, *q = (const T *)x->q->data;
        const T *k = (const T *)x->k->data, *v = (const T *)x->v->data;
        const float *lse = (const float *)x->lse->data;
        float *delta = (float *)scratch;

        CUDA_LAUNCH(attention_delta<T>, queries, dim3(N_WARPS * WARP), 0, cuda->stream,
                    delta, d_o, q, k, v, lse, *shape);
        queries.y = (unsigned)ceil_div(shape->k, COLUMNS);
        CUDA_LAUNCH(attention_dq<T>, queries, dim3(N_WARPS * WARP), 0, cuda->stream,
                    (T *)x->dq->data, d_o, q, k, v, lse, delta, *shape);
        CUDA_LAUNCH(attention_dkv<T>, attention_grid(shape, shape->g, shape->tk),
                    dim3(N_WARPS * WARP), 0, cuda->stream, (T *)x->dk->data,
                    (T *)x->dv->data, d_o, q, k, v, lse, delta, *shape);
    });
    return cuda_launched("gradient of attention", err);
}
