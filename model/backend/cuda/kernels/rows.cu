/* rows.cu - rows picked by index, rotary embedding, and pixels laid out as rows */
#include "model/backend/cuda/kernels/device.cuh"

#include "model/backend/rope.h"

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
    const int32_t *to_rows, *from_rows; /* one of them NULL */
    int32_t first;
    int64_t n_from, n;
    size_t row_bytes;
};

template <typename U> void move_launch(struct cuda *cuda, const struct move &m)
{
    int64_t width = (int64_t)(m.row_bytes / sizeof(U));

    CUDA_LAUNCH(move_rows<U>, dim3(grid_x(m.n)), dim3(block_for(width, 1)), 0,
                cuda->stream, (U *)m.to, (const U *)m.from, m.to_rows, m.from_rows,
                m.first, m.n_from, m.n, width);
}

int move_all(struct cuda *cuda, const struct move &m, struct err *err)
{
    if (m.n == 0 || m.row_bytes == 0)
        return 0;
    if (m.row_bytes % sizeof(uint4) == 0 && is_aligned(m.to) && is_aligned(m.from))
        move_launch<uint4>(cuda, m);
    else if (m.row_bytes % sizeof(uint16_t) == 0)
        move_launch<uint16_t>(cuda, m);
    else
        move_launch<uint8_t>(cuda, m);
    return cuda_launched("rows", err);
}

/* ---- gradient of the embedding ---- */

/* dw[id] += every row of dy with that id, in their order. The block of the first of them
 * does it, those of the others nothing. */
struct embed_rows {
    const int32_t *ids;
    int32_t first;
    int64_t n_table, n; /* rows of dw, of dy */
};

/* True where row i of dy is the first with its id, and dw has a row for it. */
__device__ inline bool is_first_of_id(const struct embed_rows &rows, int64_t i)
{
    int64_t row = (int64_t)rows.ids[i] - rows.first;
    int n_before = 0;

    if (rows.ids[i] < 0 || row < 0 || row >= rows.n_table)
        return false;
    for (int64_t j = threadIdx.x; j < i; j += blockDim.x)
        n_before += rows.ids[j] == rows.ids[i];
    return block_sum(n_before) == 0;
}

/* found[w]: lanes of warp w that stand at a row of this id, of the rows from j on. */
__device__ inline void find_rows(unsigned *found, const struct embed_rows &rows,
                                 int32_t id, int64_t j)
{
    bool is_found = j + threadIdx.x < rows.n && rows.ids[j + threadIdx.x] == id;
    unsigned lanes = warp_sum(is_found ? 1U << lane_index() : 0U);

    __syncthreads(); /* the last ones were read */
    if (lane_index() == 0)
        found[warp_index()] = lanes;
    __syncthreads();
}

/* sum += columns [c, c + W) of every row of id, from row i on */
template <int W, typename T>
__device__ inline void add_found(float (&sum)[W], const T *dy,
                                 const struct embed_rows &rows, int64_t i, int64_t c,
                                 int64_t d)
{
    CUDA_SHARED(unsigned, found, WARP);
    float v[W];

    for (int64_t j = i; j < rows.n; j += blockDim.x) {
        find_rows(found, rows, rows.ids[i], j);
        for (int w = 0; c < d && w < (int)blockDim.x / WARP; w++)
            for (unsigned left = found[w]; left; left &= left - 1) {
                int64_t row = j + w * WARP + __ffs((int)left) - 1;

                load<W>(v, dy + row * d + c);
#pragma unroll
                for (int k = 0; k < W; k++)
                    sum[k] += v[k];
            }
    }
}

template <int W, typename T>
__global__ void __launch_bounds__(BLOCK, 3)
    embed_bwd(float *dw, const T *dy, struct embed_rows rows, int64_t d)
{
    int64_t step = (int64_t)gridDim.y * blockDim.x * W;

    for (int64_t i = blockIdx.x; i < rows.n; i += gridDim.x) {
        if (!is_first_of_id(rows, i))
            continue;
        for (int64_t at = (int64_t)blockIdx.y * blockDim.x * W; at < d; at += step) {
            int64_t c = at + (int64_t)threadIdx.x * W;
            float *to = dw + ((int64_t)rows.ids[i] - rows.first) * d + c;
            float sum[W] = {};

            if (c < d)
                load<W>(sum, to);
            add_found<W>(sum, dy, rows, i, c, d);
            if (c < d)
                store<W>(to, sum);
        }
    }
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
    if (cuda_graph_refuses(cuda, "another rotation", err) < 0)
        return -1;
    cuda_graphs_drop(cuda);
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
                   const struct tensor *ids, int32_t first, struct err *err)
{
    struct tensor flat = tensor_flat(y);
    struct move m = {y->data, w->data,    nullptr,      (const int32_t *)ids->data,
                     first,   w->dims[0], flat.dims[0], (size_t)flat.dims[1]};

    m.row_bytes *= dtype_bytes(y->dtype);
    return move_all(cuda_of(b), m, err);
}

int cuda_embed_bwd(struct backend *b, struct tensor *dw, const struct tensor *dy,
                   const struct tensor *ids, int32_t first, struct err *err)
{
    int64_t n = tensor_flat(dy).dims[0], d = tensor_flat(dy).dims[1];
    struct embed_rows rows = {(const int32_t *)ids->data, first, dw->dims[0], n};

    if (n == 0 || d == 0)
        return 0;
    with_type(dy->dtype, [&](auto zero) {
        typedef decltype(zero) T;

        with_width(is_aligned(dw) && is_aligned(dy) && d % PACK == 0, [&](auto width) {
            constexpr int W = decltype(width)::value;
            auto *kernel = embed_bwd<W, T>;
            unsigned block = block_for(d, W) < BLOCK ? block_for(d, W) : BLOCK;

            CUDA_LAUNCH(kernel, dim3(grid_x(n), grid_y(ceil_div(d, (int64_t)block * W))),
                        dim3(block), 0, cuda_of(b)->stream, (float *)dw->data,
                        (const T *)dy->data, rows, d);
        });
    });
    return cuda_launched("gradient of the embedding", err);
}

int cuda_scatter_rows(struct backend *b, struct tensor *y, const struct tensor *x,
                      const struct tensor *rows, struct err *err)
{
    size_t row_bytes = (size_t)tensor_flat(x).dims[1] * dtype_bytes(x->dtype);
    int64_t n = rows->dims[0];
    struct move m = {y->data, x->data,  (const int32_t *)rows->data, nullptr, 0, n,
                     n,       row_bytes};

    return move_all(cuda_of(b), m, err);
}

int cuda_gather_rows(struct backend *b, struct tensor *y, const struct tensor *x,
                     const struct tensor *rows, struct err *err)
{
    struct tensor flat = tensor_flat(x);
    size_t row_bytes = (size_t)flat.dims[1] * dtype_bytes(x->dtype);
    struct move m = {y->data, x->data,      nullptr,       (const int32_t *)rows->data,
                     0,       flat.dims[0], rows->dims[0], row_bytes};

    return move_all(cuda_of(b), m, err);
}

int cuda_rope(struct backend *b, struct tensor *x, int64_t n_heads,
              const struct tensor *positions, const struct rope_args *args, bool inverse,
              struct err *err)
{
    struct cuda *cuda = cuda_of(b);
    int64_t head_size = x->dims[x->n_dims - 1], n_heads_all = x->dims[x->n_dims - 2];
    int64_t n = tensor_count(x) / (n_heads_all * head_size), n_pairs = args->rot_dims / 2;
    unsigned width = (unsigned)(n_pairs < BLOCK ? ceil_div(n_pairs, WARP) * WARP : BLOCK);

    if (n == 0 || n_heads == 0 || n_pairs == 0)
        return 0;
    if (rope_prepare(cuda, args, err) < 0)
        return -1;
    with_type(x->dtype, [&](auto zero) {
        typedef decltype(zero) T;

        CUDA_LAUNCH(rope<T>, dim3(grid_x(n)), dim3(width, BLOCK / width), 0, cuda->stream,
                    (T *)x->data, (const int32_t *)positions->data, cuda->rope_turns,
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
