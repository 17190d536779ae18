/* optim.cu - the update of all tensors of a list: squares, verdict, AdamW
 *
 * Each block takes a chunk after another (update.h), whatever tensor it belongs to. The
 * sums of the chunks are added tensor by tensor, those of the tensors by one block: the
 * order depends on the list alone.
 */
#include "model/backend/cuda/kernels/device.cuh"
#include "model/backend/verdict.h"

#define FOUR 4 /* floats at once: 64 bytes a thread on their way, few registers */

namespace
{

__device__ inline bool is_packed(const void *data)
{
    return (uintptr_t)data % 16 == 0; /* NULL is */
}

/* The item that a chunk is of. Items without elements have no chunks: of several that begin
 * with one the last has it. */
__device__ inline const struct update_item *item_of(const struct update_item *items,
                                                    int n_items, int64_t chunk)
{
    int low = 0, high = n_items;

    while (high - low > 1) {
        int middle = low + (high - low) / 2;

        if (items[middle].first_chunk <= chunk)
            low = middle;
        else
            high = middle;
    }
    return items + low;
}

/* The elements of a chunk: n from `first` of its item on. */
struct piece {
    int64_t first;
    int n;
};

__device__ inline struct piece piece_of(const struct update_item *item, int64_t chunk)
{
    struct piece piece;
    int64_t left;

    piece.first = (chunk - item->first_chunk) * UPDATE_CHUNK;
    left = item->n - piece.first;
    piece.n = left < UPDATE_CHUNK ? (int)left : UPDATE_CHUNK;
    return piece;
}

/* ---- squares ---- */

template <int W> __device__ inline double squares_at(const float *x)
{
    double sum = 0;
    float at[W];

    load<W>(at, x);
#pragma unroll
    for (int i = 0; i < W; i++)
        sum += (double)at[i] * at[i];
    return sum;
}

/* parts[chunk] = its sum of squares */
__global__ void __launch_bounds__(BLOCK, 4)
    squares(double *parts, const struct update_item *items, int n_items, int64_t n_chunks)
{
    for (int64_t chunk = blockIdx.x; chunk < n_chunks; chunk += gridDim.x) {
        const struct update_item *item = item_of(items, n_items, chunk);
        struct piece piece = piece_of(item, chunk);
        const float *x = item->grad + piece.first;
        int n = item->is_counted ? piece.n : 0,
            packed = is_packed(x) ? n / PACK * PACK : 0;
        double sum = 0;

        for (int i = (int)threadIdx.x * PACK; i < packed; i += BLOCK * PACK)
            sum += squares_at<PACK>(x + i);
        for (int i = packed + (int)threadIdx.x; i < n; i += BLOCK)
            sum += squares_at<1>(x + i);
        sum = block_sum(sum);
        if (threadIdx.x == 0)
            parts[chunk] = sum;
    }
}

/* squares[i] = sum of the parts of item i */
__global__ void __launch_bounds__(BLOCK, 4)
    add_parts(double *squares, const double *parts, const struct update_item *items,
              int n_items)
{
    for (int i = (int)blockIdx.x; i < n_items; i += (int)gridDim.x) {
        int64_t first = items[i].first_chunk;
        int64_t n = (items[i].n + UPDATE_CHUNK - 1) / UPDATE_CHUNK;
        double sum = 0;

        for (int64_t j = threadIdx.x; j < n; j += BLOCK)
            sum += parts[first + j];
        sum = block_sum(sum);
        if (threadIdx.x == 0)
            squares[i] = sum;
    }
}

/* one block */
__global__ void __launch_bounds__(BLOCK, 4)
    judge(struct update_verdict *verdict, const double *squares, int64_t n,
          double divisor, double clip)
{
    double sum = 0;

    for (int64_t i = threadIdx.x; i < n; i += BLOCK)
        sum += squares[i];
    sum = block_sum(sum);
    if (threadIdx.x == 0)
        *verdict = verdict_of(sum, divisor, clip);
}

/* ---- AdamW ---- */

/* Factors that do not depend on the element, from fp64. */
struct adamw_factors {
    float keep; /* 1 - lr decay */
    float rate; /* lr / (1 - beta1^step) */
    float root; /* 1 / sqrt(1 - beta2^step) */
    float beta1, rest1, beta2, rest2, eps;
};

/* Where a piece lies. */
template <typename T> struct places {
    float *master, *m, *v, *grad;
    T *weight; /* or NULL */
};

template <int W, typename T>
__device__ inline void update(const places<T> &p, int at, float scale, float keep,
                              const struct adamw_factors &a)
{
    float w[W], m[W], v[W], g[W];

    load<W>(w, p.master + at);
    load<W>(m, p.m + at);
    load<W>(v, p.v + at);
    load<W>(g, p.grad + at);
#pragma unroll
    for (int i = 0; i < W; i++) {
        float scaled = g[i] * scale;

        m[i] = a.beta1 * m[i] + a.rest1 * scaled;
        v[i] = a.beta2 * v[i] + a.rest2 * scaled * scaled;
        w[i] = w[i] * keep - a.rate * m[i] / (sqrtf(v[i]) * a.root + a.eps);
        g[i] = 0;
    }
    store<W>(p.master + at, w);
    store<W>(p.m + at, m);
    store<W>(p.v + at, v);
    store<W>(p.grad + at, g);
    if (p.weight)
        store<W>(p.weight + at, w);
}

template <typename T> __device__ inline bool are_packed(const places<T> &p)
{
    return is_packed(p.master) && is_packed(p.m) && is_packed(p.v) && is_packed(p.grad) &&
           is_packed(p.weight);
}

template <typename T>
__global__ void __launch_bounds__(BLOCK, 4)
    adamw(const struct update_item *items, int n_items, int64_t n_chunks,
          const struct update_verdict *verdict, struct adamw_factors a)
{
    float scale = verdict->scale;
    bool is_finite = verdict->is_finite;

    for (int64_t chunk = blockIdx.x; chunk < n_chunks; chunk += gridDim.x) {
        const struct update_item *item = item_of(items, n_items, chunk);
        struct piece piece = piece_of(item, chunk);
        places<T> p = {item->master + piece.first, item->m + piece.first,
                       item->v + piece.first, item->grad + piece.first,
                       item->weight ? (T *)item->weight + piece.first : nullptr};
        float keep = item->has_decay ? a.keep : 1;
        int packed = are_packed(p) ? piece.n / FOUR * FOUR : 0;

        if (!is_finite) {
            for (int i = (int)threadIdx.x; i < piece.n; i += BLOCK)
                p.grad[i] = 0;
            continue;
        }
        for (int i = (int)threadIdx.x * FOUR; i < packed; i += BLOCK * FOUR)
            update<FOUR, T>(p, i, scale, keep, a);
        for (int i = packed + (int)threadIdx.x; i < piece.n; i += BLOCK)
            update<1, T>(p, i, scale, keep, a);
    }
}

struct adamw_factors factors(const struct adamw_args *args)
{
    struct adamw_factors a;

    a.keep = (float)(1 - (double)args->lr * args->weight_decay);
    a.rate = (float)(args->lr / (1 - pow(args->beta1, (double)args->step)));
    a.root = (float)(1 / sqrt(1 - pow(args->beta2, (double)args->step)));
    a.beta1 = args->beta1;
    a.rest1 = (float)(1 - (double)args->beta1);
    a.beta2 = args->beta2;
    a.rest2 = (float)(1 - (double)args->beta2);
    a.eps = args->eps;
    return a;
}

} /* namespace */

int cuda_sum_squares(struct backend *b, double *out, const struct update_list *list,
                     struct err *err)
{
    struct cuda *cuda = cuda_of(b);
    void *parts;

    if (list->n_items == 0)
        return 0;
    if (cuda_scratch(cuda, &parts, (size_t)list->n_chunks * sizeof(double), err) < 0)
        return -1;
    if (list->n_chunks > 0)
        CUDA_LAUNCH(squares, dim3(grid_x(list->n_chunks)), dim3(BLOCK), 0, cuda->stream,
                    (double *)parts, list->device, list->n_items, list->n_chunks);
    CUDA_LAUNCH(add_parts, dim3(grid_x(list->n_items)), dim3(BLOCK), 0, cuda->stream, out,
                (const double *)parts, list->device, list->n_items);
    return cuda_launched("sums of squares", err);
}

int cuda_judge(struct backend *b, struct update_verdict *verdict, const double *squares,
               int64_t n, double divisor, double clip, struct err *err)
{
    CUDA_LAUNCH(judge, dim3(1), dim3(BLOCK), 0, cuda_of(b)->stream, verdict, squares, n,
                divisor, clip);
    return cuda_launched("norm of the gradient", err);
}

int cuda_adamw(struct backend *b, const struct update_list *list,
               const struct update_verdict *verdict, const struct adamw_args *args,
               struct err *err)
{
    if (list->n_chunks == 0)
        return 0;
    with_type(list->dtype, [&](auto zero) {
        typedef decltype(zero) T;

        CUDA_LAUNCH(adamw<T>, dim3(grid_x(list->n_chunks)), dim3(BLOCK), 0,
                    cuda_of(b)->stream, list->device, list->n_items, list->n_chunks,
                    verdict, factors(args));
    });
    return cuda_launched("AdamW", err);
}
