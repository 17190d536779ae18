/* attention_decode.cu - attention of one query a row, as generation has it
 *
 * Keys and values are read once and little is reckoned: memory is what this waits for. So
 * loads are of 16 bytes, several of them on their way from each lane, a block has all query
 * heads of a group that it can hold, and keys are shared out over as many blocks as keep the
 * processors busy ("flash decoding", Dao et al. 2023), by each row's own length, which only
 * the device knows. What the parts have found is joined by a second kernel, in their order.
 * A key's row lies over LANES lanes; a warp has WARP / LANES keys at once.
 */
#include "model/backend/cuda/kernels/attention.cuh"

namespace
{

#define DECODE_WARPS 4
#define DECODE_AHEAD 4    /* keys and values that a lane loads before it needs them */
#define DECODE_HEADS 4    /* query heads of a block, of those that share keys */
#define BLOCKS_EACH 4     /* blocks a processor that are wanted */
#define PART_KEYS_MIN 64  /* a part of fewer would not pay for joining them */
#define PART_KEYS_UNIT 16 /* parts begin at multiples */

/* What a lane has found for a head: sums of its columns, under a maximum in powers of two. */
struct found {
    float out[PACK], max, sum;
};

/* x takes y in. */
__device__ inline void take_in(found &x, const found &y)
{
    float max = fmaxf(x.max, y.max), base = max == -INFINITY ? 0 : max;
    float fx = exp2f(x.max - base), fy = exp2f(y.max - base);

#pragma unroll
    for (int c = 0; c < PACK; c++)
        x.out[c] = x.out[c] * fx + y.out[c] * fy;
    x.sum = x.sum * fx + y.sum * fy;
    x.max = max;
}

/* The same on all lanes of the warp that have the same columns. */
template <int LANES> __device__ inline void warp_take_in(found &x)
{
#pragma unroll
    for (int with = LANES; with < WARP; with *= 2) {
        found y;

#pragma unroll
        for (int c = 0; c < PACK; c++)
            y.out[c] = __shfl_xor_sync(ALL_LANES, x.out[c], with);
        y.max = __shfl_xor_sync(ALL_LANES, x.max, with);
        y.sum = __shfl_xor_sync(ALL_LANES, x.sum, with);
        take_in(x, y);
    }
}

template <int N, typename T>
__device__ inline void unpack(float (&to)[N], const pack<T, N> &from)
{
#pragma unroll
    for (int i = 0; i < N; i++)
        to[i] = to_float(from.at[i]);
}

/* One head's softmax over keys whose scores are s, -infinity where there is none. */
template <typename T>
__device__ inline void add_keys(found &x, const float (&s)[DECODE_AHEAD],
                                const pack<T, PACK> (&values)[DECODE_AHEAD])
{
    float max = x.max, base, shrink;

#pragma unroll
    for (int u = 0; u < DECODE_AHEAD; u++)
        max = fmaxf(max, s[u]);
    base = max == -INFINITY ? 0 : max;
    shrink = exp2f(x.max - base);
    x.max = max;
    x.sum *= shrink;
#pragma unroll
    for (int c = 0; c < PACK; c++)
        x.out[c] *= shrink;
#pragma unroll
    for (int u = 0; u < DECODE_AHEAD; u++) {
        float weight = exp2f(s[u] - base), value[PACK];

        unpack(value, values[u]);
        x.sum += weight;
#pragma unroll
        for (int c = 0; c < PACK; c++)
            x.out[c] += weight * value[c];
    }
}

/* Keys [begin, end) of one key-value head, for HEADS queries; `column` is this lane's. */
template <int LANES, int HEADS, typename T>
__device__ inline void
look_at_keys(found (&x)[HEADS], const float (&q)[HEADS][PACK], const T *k, const T *v,
             const struct attention_shape &a, int64_t begin, int64_t end, int column)
{
    constexpr int step = DECODE_AHEAD * (WARP / LANES); /* keys of a warp */

    for (int64_t j = begin + warp_index() * step; j < end; j += DECODE_WARPS * step) {
        pack<T, PACK> keys[DECODE_AHEAD] = {}, values[DECODE_AHEAD] = {};
        float s[HEADS][DECODE_AHEAD];

#pragma unroll
        for (int u = 0; u < DECODE_AHEAD; u++) {
            int64_t key = j + u * (WARP / LANES) + lane_index() / LANES;

            if (key < end && column < a.k) {
                keys[u] = *(const pack<T, PACK> *)(k + key * a.kv_stride + column);
                values[u] = *(const pack<T, PACK> *)(v + key * a.kv_stride + column);
            }
        }
#pragma unroll
        for (int u = 0; u < DECODE_AHEAD; u++) {
            bool is_there = j + u * (WARP / LANES) + lane_index() / LANES < end;
            float key[PACK];

            unpack(key, keys[u]);
#pragma unroll
            for (int h = 0; h < HEADS; h++) {
                float dot = 0;

#pragma unroll
                for (int c = 0; c < PACK; c++)
                    dot += q[h][c] * key[c];
#pragma unroll
                for (int with = LANES / 2; with > 0; with /= 2)
                    dot += __shfl_xor_sync(ALL_LANES, dot, with);
                s[h][u] = is_there ? dot : -INFINITY;
            }
        }
#pragma unroll
        for (int h = 0; h < HEADS; h++)
            add_keys(x[h], s[h], values);
    }
}

/* Warps tell each other what they have found; x is all of it then, on every warp. */
template <int LANES> __device__ inline void block_take_in(found &x)
{
    CUDA_SHARED(float, all, DECODE_WARPS *LANES *(PACK + 2));
    float *at = all + lane_index() % LANES;

    warp_take_in<LANES>(x);
    __syncthreads(); /* what another head left is no longer read */
    if (lane_index() < LANES) {
        float *to = at + warp_index() * LANES * (PACK + 2);

#pragma unroll
        for (int c = 0; c < PACK; c++)
            to[c * LANES] = x.out[c];
        to[PACK * LANES] = x.max;
        to[(PACK + 1) * LANES] = x.sum;
    }
    __syncthreads();
    for (int w = 0; w < DECODE_WARPS; w++) {
        const float *from = at + w * LANES * (PACK + 2);
        found y;

#pragma unroll
        for (int c = 0; c < PACK; c++)
            y.out[c] = from[c * LANES];
        y.max = from[PACK * LANES];
        y.sum = from[(PACK + 1) * LANES];
        if (w == 0)
            x = y;
        else
            take_in(x, y);
    }
}

/* Query `stat` of [B,H]: the result, or part blockIdx.y of it. */
template <typename T>
__device__ inline void
put_found(T *o, float *lse, const found &x, const struct attention_shape &a,
          const struct key_parts &parts, int64_t stat, int column, int64_t n_seen)
{
    float sum = x.sum == 0 && n_seen > 0 ? NAN : x.sum, out[PACK];
    float factor = parts.at ? 1 : sum == 0 ? 0 : 1 / sum;

    if (column >= a.k)
        return;
#pragma unroll
    for (int c = 0; c < PACK; c++)
        out[c] = x.out[c] * factor;
    if (parts.at) {
        float *to = parts.at + (blockIdx.y * a.b * a.h + stat) * (a.k + 2);

#pragma unroll
        for (int c = 0; c < PACK; c++)
            to[column + c] = out[c];
        if (column == 0) {
            to[a.k] = x.max * LN_2;
            to[a.k + 1] = x.sum;
        }
        return;
    }
    store<PACK>(o + stat * a.k + column, out);
    if (column == 0)
        lse[stat] = x.max * LN_2 + logf(sum);
}

template <int LANES, int HEADS, typename T>
__global__ void __launch_bounds__(DECODE_WARPS *WARP, 2)
    attention_decode(T *o, float *lse, const T *q, const T *k, const T *v,
                     struct attention_shape a, struct key_parts parts)
{
    int64_t each = a.h / a.g, n_chunks = (each + HEADS - 1) / HEADS;
    int64_t row = blockIdx.x / n_chunks / a.g, kv_head = blockIdx.x / n_chunks % a.g;
    int64_t first = blockIdx.x % n_chunks * HEADS; /* query head of the group */
    int64_t n = a.lens ? a.lens[row] : a.tk;
    int64_t n_each = (n + parts.n_parts - 1) / parts.n_parts, begin, end;
    int column = lane_index() % LANES * PACK;
    float x[HEADS][PACK] = {};
    found all[HEADS];

    n_each = n_each > PART_KEYS_MIN ? n_each : PART_KEYS_MIN;
    n_each = (n_each + PART_KEYS_UNIT - 1) / PART_KEYS_UNIT * PART_KEYS_UNIT;
    begin = blockIdx.y * n_each;
    end = begin + n_each < n ? begin + n_each : n;
#pragma unroll
    for (int h = 0; h < HEADS; h++) {
        int64_t head = kv_head * each + first + h;

        if (first + h < each && column < a.k)
            load<PACK>(x[h], q + row * a.q_stride + head * a.k + column);
#pragma unroll
        for (int c = 0; c < PACK; c++) {
            x[h][c] *= a.scale * LOG2_E;
            all[h].out[c] = 0;
        }
        all[h].max = -INFINITY;
        all[h].sum = 0;
    }
    k += row * a.tk * a.kv_stride + kv_head * a.k;
    v += row * a.tk * a.kv_stride + kv_head * a.k;
    look_at_keys<LANES>(all, x, k, v, a, begin, end, column);
#pragma unroll
    for (int h = 0; h < HEADS; h++) {
        block_take_in<LANES>(all[h]);
        if (first + h < each && threadIdx.x < LANES)
            put_found(o, lse, all[h], a, parts, row * a.h + kv_head * each + first + h,
                      column, n);
    }
}

/* A warp a query: its parts under their common maximum, in their order. A query that sees
 * keys, all of them with score -infinity, gets NaN, as from ref. */
template <typename T>
__global__ void __launch_bounds__(DECODE_WARPS *WARP, 3)
    join_parts(T *o, float *lse, struct attention_shape a, struct key_parts parts)
{
    int64_t n = a.b * a.h * a.tq, step = (int64_t)gridDim.x * DECODE_WARPS;
    int64_t size = a.k + 2;

    for (int64_t i = (int64_t)blockIdx.x * DECODE_WARPS + warp_index(); i < n;
         i += step) {
        int64_t row = i / (a.h * a.tq), head = i / a.tq % a.h, t = i % a.tq;
        T *to = o + ((row * a.tq + t) * a.h + head) * a.k;
        float max = -INFINITY, sum = 0;

        for (int64_t z = 0; z < parts.n_parts; z++)
            max = fmaxf(max, parts.at[(z * n + i) * size + a.k]);
        for (int64_t z = 0; z < parts.n_parts; z++) {
            const float *from = parts.at + (z * n + i) * size + a.k;

            sum += (from[1] == 0 ? 0 : expf(from[0] - max)) * from[1];
        }
        if (sum == 0 && seen_by(a, a.lens ? a.lens[row] : a.tk, t) > 0)
            sum = NAN;
        for (int64_t c = lane_index(); c < a.k; c += WARP) {
            float value = 0;

            for (int64_t z = 0; z < parts.n_parts; z++) {
                const float *from = parts.at + (z * n + i) * size;

                value += (from[a.k + 1] == 0 ? 0 : expf(from[a.k] - max)) * from[c];
            }
            put(to + c, sum == 0 ? 0 : value / sum);
        }
        if (lane_index() == 0)
            lse[i] = max + logf(sum);
    }
}

/* Calls f with the lanes that a row of k elements lies over, and the heads of a block. */
template <typename F> void with_lanes(int64_t k, int64_t each, F f)
{
    auto with = [&](auto lanes) {
        if (each == 1)
            f(lanes, std::integral_constant<int, 1>{});
        else
            f(lanes, std::integral_constant<int, DECODE_HEADS>{});
    };

    if (k <= 8 * PACK)
        with(std::integral_constant<int, 8>{});
    else if (k <= 16 * PACK)
        with(std::integral_constant<int, 16>{});
    else
        with(std::integral_constant<int, WARP>{});
}

/* As many parts as keep the processors busy, none of them smaller than PART_KEYS_MIN where
 * rows are full. */
int make_parts(struct cuda *cuda, struct key_parts *out,
               const struct attention_shape *shape, int64_t n_blocks, struct err *err)
{
    int64_t wanted = (int64_t)cuda->n_processors * BLOCKS_EACH / n_blocks;
    int64_t most = ceil_div(shape->tk, PART_KEYS_MIN), n = wanted < most ? wanted : most;
    void *scratch;

    *out = key_parts{nullptr, 1, 0};
    if (n < 2)
        return 0;
    if (cuda_scratch(cuda, &scratch,
                     (size_t)(n * shape->b * shape->h * (shape->k + 2)) * sizeof(float),
                     err) < 0)
        return -1;
    *out = key_parts{(float *)scratch, n, 0};
    return 0;
}

} /* namespace */

void attention_join(struct cuda *cuda, const struct attention_shape *shape,
                    const struct attention_tensors *x, const struct key_parts *parts)
{
    int64_t n_blocks = ceil_div(shape->b * shape->h * shape->tq, DECODE_WARPS);

    with_type(x->q->dtype, [&](auto zero) {
        typedef decltype(zero) T;

        CUDA_LAUNCH(join_parts<T>, dim3(grid_x(n_blocks)), dim3(DECODE_WARPS * WARP), 0,
                    cuda->stream, (T *)x->o->data, (float *)x->lse->data, *shape, *parts);
    });
}

int attention_decode_fwd(struct cuda *cuda, const struct attention_shape *shape,
                         const struct attention_tensors *x, struct err *err)
{
    int64_t each = shape->h / shape->g;
    int64_t n_blocks = shape->b * shape->g * ceil_div(each, each == 1 ? 1 : DECODE_HEADS);
    struct key_parts parts;

    if (make_parts(cuda, &parts, shape, n_blocks, err) < 0)
        return -1;
    with_type(x->q->dtype, [&](auto zero) {
        with_lanes(shape->k, each, [&](auto lanes, auto heads) {
            typedef decltype(zero) T;
            auto kernel =
                attention_decode<decltype(lanes)::value, decltype(heads)::value, T>;

            CUDA_LAUNCH(kernel, dim3((unsigned)n_blocks, (unsigned)parts.n_parts),
                        dim3(DECODE_WARPS * WARP), 0, cuda->stream, (T *)x->o->data,
                        (float *)x->lse->data, (const T *)x->q->data,
                        (const T *)x->k->data, (const T *)x->v->data, *shape, parts);
        });
    });
    if (parts.at)
        attention_join(cuda, shape, x, &parts);
    return cuda_launched("attention of one query", err);
}
