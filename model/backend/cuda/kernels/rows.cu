/* rows.cu - rows picked by index, rotary embedding, and pixels laid out as rows
 *
 * Indices are host arrays; they are staged, so that the caller need not wait.
 */
#include "model/backend/cuda/kernels/device.cuh"

#include "model/backend/rope.h"

#include <algorithm>
#include <new>
#include <vector>

namespace
{

/* ---- rows moved as they are, U at a time ---- */

/* to[to_rows ? to_rows[n] : n] = from[from_rows ? from_rows[n] - first : n], rows of `width`
 * U; zero where the source is outside of [0, n_from). Negative indices are outside. */
template <typename U>
__global__ void __launch_bounds__(BLOCK, 3)
    move_rows(U *to, const U *from, const int32_t *to_rows, const int32_t *from_rows,
              int32_t first, int64_t n_from, int64_t n, int64_t width)
{
    for (int64_t i = blockIdx.x; i < n; i += gridDim.x) {
        int64_t target = to_rows ? to_rows[i] : i;
        int64_t source = from_rows ? (int64_t)from_rows[i] - first : i;
        bool is_here =
            (!from_rows || from_rows[i] >= 0) && source >= 0 && source < n_from;

        for (int64_t c = threadIdx.x; c < width; c += blockDim.x)
            to[target * width + c] = is_here ? from[source * width + c] : U{};
    }
}

struct move {
    void *to;
    const void *from;
    const int32_t *to_rows, *from_rows; /* host, or NULL */
    int32_t first;
    int64_t n_from, n;
    size_t row_bytes;
};

template <typename U>
void move_launch(struct cuda *cuda, const struct move &m, const int32_t *to_rows,
                 const int32_t *from_rows)
{
    int64_t width = (int64_t)(m.row_bytes / sizeof(U));

    CUDA_LAUNCH(move_rows<U>, dim3(grid_x(m.n)), dim3(block_for(width, 1)), 0,
                cuda->stream, (U *)m.to, (const U *)m.from, to_rows, from_rows, m.first,
                m.n_from, m.n, width);
}

int move_all(struct cuda *cuda, const struct move &m, struct err *err)
{
    const int32_t *host = m.to_rows ? m.to_rows : m.from_rows, *at;
    const void *staged;
    const int32_t *to_rows, *from_rows;

    if (m.n == 0 || m.row_bytes == 0)
        return 0;
    if (cuda_stage(cuda, &staged, host, (size_t)m.n * sizeof(*host), err) < 0)
        return -1;
    at = (const int32_t *)staged;
    to_rows = m.to_rows ? at : nullptr;
    from_rows = m.to_rows ? nullptr : at;
    if (m.row_bytes % sizeof(uint4) == 0 && is_aligned(m.to) && is_aligned(m.from))
        move_launch<uint4>(cuda, m, to_rows, from_rows);
    else if (m.row_bytes % sizeof(uint16_t) == 0)
        move_launch<uint16_t>(cuda, m, to_rows, from_rows);
    else
        move_launch<uint8_t>(cuda, m, to_rows, from_rows);
    return cuda_launched("rows", err);
}

/* ---- gradient of the embedding ---- */

/* dw[ids[i]] += sum of dy[order[j]], j in [starts[i], starts[i+1]), in their order */
template <int W, typename T>
__global__ void __launch_bounds__(BLOCK, 3)
    embed_bwd(float *dw, const T *dy, const int32_t *ids, const int32_t *starts,
              const int32_t *order, int64_t n_ids, int64_t d)
{
    int64_t first = ((int64_t)blockIdx.y * blockDim.x + threadIdx.x) * W;
    int64_t step = (int64_t)gridDim.y * blockDim.x * W;

    for (int64_t i = blockIdx.x; i < n_ids; i += gridDim.x)
        for (int64_t c = first; c < d; c += step) {
            float *to = dw + (int64_t)ids[i] * d + c;
            float sum[W], v[W];
            int32_t end = starts[i + 1];

            load<W>(sum, to);
#pragma unroll 2 /* more would spill */
            for (int32_t j = starts[i]; j < end; j++) {
                load<W>(v, dy + (int64_t)order[j] * d + c);
#pragma unroll
                for (int k = 0; k < W; k++)
                    sum[k] += v[k];
            }
            store<W>(to, sum);
        }
}

/* The rows of each id that is here, ids ascending, rows in their order: in one array ids
 * [n_ids], starts [n_ids + 1], order [.]. */
struct id_lists {
    std::vector<int32_t> all;
    int64_t n_ids;
};

void lists_make(struct id_lists *out, const int32_t *ids, int64_t n, int32_t first,
                int64_t n_rows)
{
    std::vector<std::pair<int32_t, int32_t>> pairs;
    std::vector<int32_t> starts;

    for (int64_t i = 0; i < n; i++) {
        int64_t id = (int64_t)ids[i] - first;

        if (ids[i] >= 0 && id >= 0 && id < n_rows)
            pairs.emplace_back((int32_t)id, (int32_t)i);
    }
    std::sort(pairs.begin(), pairs.end());
    for (size_t i = 0; i < pairs.size(); i++)
        if (i == 0 || pairs[i].first != pairs[i - 1].first) {
            out->all.push_back(pairs[i].first);
            starts.push_back((int32_t)i);
        }
    out->n_ids = (int64_t)out->all.size();
    starts.push_back((int32_t)pairs.size());
    out->all.insert(out->all.end(), starts.begin(), starts.end());
    for (const auto &pair : pairs)
        out->all.push_back(pair.second);
}

int embed_bwd_launch(struct cuda *cuda, struct tensor *dw, const struct tensor *dy,
                     const struct id_lists &lists, struct err *err)
{
    int64_t d = tensor_flat(dy).dims[1], n_ids = lists.n_ids;
    const void *staged;
    const int32_t *ids, *starts;

    if (cuda_stage(cuda, &staged, lists.all.data(), lists.all.size() * sizeof(int32_t),
                   err) < 0)
        return -1;
    ids = (const int32_t *)staged;
    starts = ids + n_ids;
    with_type(dy->dtype, [&](auto zero) {
        typedef decltype(zero) T;

        with_width(is_aligned(dw) && is_aligned(dy) && d % PACK == 0, [&](auto width) {
            constexpr int W = decltype(width)::value;
            auto *kernel = embed_bwd<W, T>;
            unsigned block = block_for(d, W) < BLOCK ? block_for(d, W) : BLOCK;

            CUDA_LAUNCH(kernel,
                        dim3(grid_x(n_ids), grid_y(ceil_div(d, (int64_t)block * W))),
                        dim3(block), 0, cuda->stream, (float *)dw->data,
                        (const T *)dy->data, ids, starts, starts + n_ids + 1, n_ids, d);
        });
    });
    return cuda_launched("gradient of the embedding", err);
}

/* ---- rotary embedding ---- */

/* One block turns the first n_heads heads of a row. turns[i]: half turns a position. The
 * angle is reduced to a turn in fp64, so that far positions are as exact as near ones. */
template <typename T>
__global__ void __launch_bounds__(BLOCK, 3)
    rope(T *x, const int32_t *positions, const double *turns, double sign, int64_t n,
         int64_t n_heads, int64_t n_heads_all, int64_t head_size, int64_t n_pairs)
{
    for (int64_t row = blockIdx.x; row < n; row += gridDim.x) {
        double position = sign * positions[row];

        for (int64_t i = threadIdx.x; i < n_pairs; i += blockDim.x) {
            double angle = position * turns[i];
            float s, c;

            sincospif((float)(angle - 2 * rint(angle / 2)), &s, &c);
            for (int64_t head = threadIdx.y; head < n_heads; head += blockDim.y) {
                T *at = x + (row * n_heads_all + head) * head_size + i;
                float x0 = to_float(at[0]), x1 = to_float(at[n_pairs]);

                put(at, x0 * c - x1 * s);
                put(at + n_pairs, x1 * c + x0 * s);
            }
        }
    }
}

bool is_same_rope(const struct rope_args &a, const struct rope_args &b)
{
    return a.rot_dims == b.rot_dims && a.theta == b.theta && a.scaling == b.scaling &&
           a.factor == b.factor && a.low_freq_factor == b.low_freq_factor &&
           a.high_freq_factor == b.high_freq_factor &&
           a.original_positions == b.original_positions;
}

/* Keeps the frequencies of the last arguments on the device. */
int rope_prepare(struct cuda *cuda, const struct rope_args *args, struct err *err)
{
    std::vector<double> turns((size_t)args->rot_dims / 2);
    void *data;

    if (cuda->rope_turns && is_same_rope(cuda->rope, *args))
        return 0;
    for (size_t i = 0; i < turns.size(); i++)
        turns[i] = rope_frequency(args, (int64_t)i) / 3.14159265358979323846;
    cuda_free(&cuda->base, cuda->rope_turns);
    cuda->rope_turns = nullptr;
    if (cuda_alloc(&cuda->base, &data, turns.size() * sizeof(double), err) < 0)
        return -1;
    cuda->rope_turns = (double *)data;
    cuda->rope = *args;
    return cuda_upload(&cuda->base, data, turns.data(), turns.size() * sizeof(double),
                       err);
}

/* ---- pixels ---- */

struct colour {
    float mean[3], std[3];
};

/* An index that the compiler does not know would move the array to the stack. */
__device__ inline float pick(const float (&of)[3], int c)
{
    return c == 0 ? of[0] : c == 1 ? of[1] : of[2];
}

/* Column (c, i, j) of patch (f, row, col) is colour c of the pixel i down and j across. */
template <typename T>
__global__ void __launch_bounds__(BLOCK, 3)
    patchify(T *y, const uint8_t *rgb, struct colour colour, int64_t n, int64_t size,
             int64_t patch)
{
    int64_t side = size / patch, columns = 3 * patch * patch;
    int64_t step = (int64_t)gridDim.x * blockDim.x;

    for (int64_t at = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; at < n;
         at += step) {
        int64_t place = at / columns;
        int column = (int)(at % columns), p = (int)patch;
        int c = column / (p * p), i = column / p % p, j = column % p;
        int64_t f = place / (side * side), row = place / side % side, col = place % side;
        int64_t from = ((f * size + row * patch + i) * size + col * patch + j) * 3 + c;

        put(y + at,
            ((float)rgb[from] / 255.0F - pick(colour.mean, c)) / pick(colour.std, c));
    }
}

} /* namespace */

int cuda_embed_fwd(struct backend *b, struct tensor *y, const struct tensor *w,
                   const int32_t *ids, int32_t first, struct err *err)
{
    struct tensor flat = tensor_flat(y);
    struct move m = {y->data, w->data,    nullptr,      ids,
                     first,   w->dims[0], flat.dims[0], (size_t)flat.dims[1]};

    m.row_bytes *= dtype_bytes(y->dtype);
    return move_all(cuda_of(b), m, err);
}

int cuda_embed_bwd(struct backend *b, struct tensor *dw, const struct tensor *dy,
                   const int32_t *ids, int32_t first, struct err *err)
{
    struct id_lists lists = {};

    try {
        lists_make(&lists, ids, tensor_flat(dy).dims[0], first, dw->dims[0]);
    } catch (const std::bad_alloc &) {
        return err_set(err, ERR_NOMEM, "cannot allocate the order of token numbers");
    }
    return lists.n_ids ? embed_bwd_launch(cuda_of(b), dw, dy, lists, err) : 0;
}

int cuda_scatter_rows(struct backend *b, struct tensor *y, const struct tensor *x,
                      const int32_t *rows, int64_t n, struct err *err)
{
    size_t row_bytes = (size_t)tensor_flat(x).dims[1] * dtype_bytes(x->dtype);
    struct move m = {y->data, x->data, rows, nullptr, 0, n, n, row_bytes};

    return move_all(cuda_of(b), m, err);
}

int cuda_gather_rows(struct backend *b, struct tensor *y, const struct tensor *x,
                     const int32_t *rows, int64_t n, struct err *err)
{
    struct tensor flat = tensor_flat(x);
    size_t row_bytes = (size_t)flat.dims[1] * dtype_bytes(x->dtype);
    struct move m = {y->data, x->data, nullptr, rows, 0, flat.dims[0], n, row_bytes};

    return move_all(cuda_of(b), m, err);
}

int cuda_rope(struct backend *b, struct tensor *x, int64_t n_heads,
              const int32_t *positions, const struct rope_args *args, bool inverse,
              struct err *err)
{
    struct cuda *cuda = cuda_of(b);
    int64_t head_size = x->dims[x->n_dims - 1], n_heads_all = x->dims[x->n_dims - 2];
    int64_t n = tensor_count(x) / (n_heads_all * head_size), n_pairs = args->rot_dims / 2;
    unsigned width = (unsigned)(n_pairs < BLOCK ? ceil_div(n_pairs, WARP) * WARP : BLOCK);
    const void *staged;

    if (n == 0 || n_heads == 0 || n_pairs == 0)
        return 0;
    if (rope_prepare(cuda, args, err) < 0 ||
        cuda_stage(cuda, &staged, positions, (size_t)n * sizeof(*positions), err) < 0)
        return -1;
    with_type(x->dtype, [&](auto zero) {
        typedef decltype(zero) T;

        CUDA_LAUNCH(rope<T>, dim3(grid_x(n)), dim3(width, BLOCK / width), 0, cuda->stream,
                    (T *)x->data, (const int32_t *)staged, cuda->rope_turns,
                    inverse ? -1.0 : 1.0, n, n_heads, n_heads_all, head_size, n_pairs);
    });
    return cuda_launched("rotary embedding", err);
}

int cuda_patchify(struct backend *b, struct tensor *y, const struct tensor *pixels,
                  int64_t patch, const float mean[3], const float std[3], struct err *err)
{
    int64_t size = pixels->dims[1], side = size / patch;
    int64_t n = pixels->dims[0] * side * side * 3 * patch * patch;
    struct colour colour;

    if (n == 0)
        return 0;
    for (int i = 0; i < 3; i++) {
        colour.mean[i] = mean[i];
        colour.std[i] = std[i];
    }
    with_type(y->dtype, [&](auto zero) {
        typedef decltype(zero) T;

        CUDA_LAUNCH(patchify<T>, dim3(grid_x(ceil_div(n, BLOCK))), dim3(BLOCK), 0,
                    cuda_of(b)->stream, (T *)y->data, (const uint8_t *)pixels->data,
                    colour, n, size, patch);
    });
    return cuda_launched("patches", err);
}
