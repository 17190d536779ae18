/* norm.cu - LayerNorm, RMSNorm and column sums
 *
 * One block walks over whole rows. The backward pass leaves the gradients of weights as one
 * sum a block, which a second kernel adds up in the order of the blocks: the same bits
 * every time. Formulas: ref_norm.c.
 */
#include "model/backend/cuda/kernels/device.cuh"

#define BLOCKS_EACH 2 /* blocks a processor in passes that end in sums over blocks */
#define SUMS_SHARED_MAX 6144 /* columns whose sums (two of them) fit in shared memory */
#define COLUMN_LANES 8       /* rows that a block of column_sums adds side by side */
#define ROWS_EACH_MIN 64     /* rows a block of column_sums adds at least */

namespace
{

/* Of x, or of sum = x + added (NULL: nothing is added). A thread has the same columns in
 * every pass over a row, so it reads of the sum what it wrote itself. */
template <int W, typename T, typename Ta, bool IS_CENTRED>
__global__ void __launch_bounds__(2 * BLOCK, 2)
    norm_fwd(T *y, float *mean, float *rstd, T *sum, const T *x, const Ta *added,
             const T *w, const T *bias, float shift, float eps, int64_t rows, int64_t d)
{
    int64_t first = (int64_t)threadIdx.x * W, step = (int64_t)blockDim.x * W;

    for (int64_t n = blockIdx.x; n < rows; n += gridDim.x) {
        const T *row = added ? sum + n * d : x + n * d;
        float mu = 0, squares = 0, r, v[W], s[W], t[W] = {};

        for (int64_t c = first; added && c < d; c += step) {
            load<W>(v, x + n * d + c);
            load<W>(s, added + n * d + c);
#pragma unroll
            for (int i = 0; i < W; i++)
                v[i] += s[i];
            store<W>(sum + n * d + c, v);
        }
        if (IS_CENTRED) {
            for (int64_t c = first; c < d; c += step) {
                load<W>(v, row + c);
#pragma unroll
                for (int i = 0; i < W; i++)
                    mu += v[i];
            }
            mu = block_sum(mu) / (float)d;
        }
        for (int64_t c = first; c < d; c += step) {
            load<W>(v, row + c);
#pragma unroll
            for (int i = 0; i < W; i++)
                squares += (v[i] - mu) * (v[i] - mu);
        }
        r = 1 / sqrtf(block_sum(squares) / (float)d + eps);
        for (int64_t c = first; c < d; c += step) {
            load<W>(v, row + c);
            load<W>(s, w + c);
            if (IS_CENTRED)
                load<W>(t, bias + c);
#pragma unroll
            for (int i = 0; i < W; i++)
                v[i] = (v[i] - mu) * r * (shift + s[i]) + t[i];
            store<W>(y + n * d + c, v);
        }
        if (threadIdx.x == 0) {
            if (IS_CENTRED)
                mean[n] = mu;
            rstd[n] = r;
        }
    }
}

/* dx = d_residual (NULL: 0) + the gradient; dw_sums, db_sums [gridDim.x, d] = this block's sums (NULL: not wanted). A thread
 * has the same columns in every row, so nobody else touches its sums, in shared memory
 * where they fit. */
template <int W, typename T, bool IS_CENTRED>
__global__ void __launch_bounds__(2 * BLOCK, 2)
    norm_bwd(T *dx, float *dw_sums, float *db_sums, const T *dy, const T *d_residual,
             const T *x, const T *w, const float *mean, const float *rstd, float shift,
             int64_t rows, int64_t d, bool is_shared)
{
    CUDA_DYNAMIC_SHARED(float, shared);
    int64_t first = (int64_t)threadIdx.x * W, step = (int64_t)blockDim.x * W;
    float *dw_out = dw_sums ? dw_sums + blockIdx.x * d : nullptr;
    float *db_out = db_sums ? db_sums + blockIdx.x * d : nullptr;
    float *dw = is_shared && dw_out ? shared : dw_out;
    float *db = is_shared && db_out ? shared + (dw_out ? d : 0) : db_out;

    for (int64_t c = first; c < d; c += step)
        for (int i = 0; i < W; i++) {
            if (dw)
                dw[c + i] = 0;
            if (db)
                db[c + i] = 0;
        }
    for (int64_t n = blockIdx.x; n < rows; n += gridDim.x) {
        float mu = IS_CENTRED ? mean[n] : 0, r = rstd[n], sum_g = 0, sum_gx = 0;
        float v[W], g[W], s[W];

        for (int64_t c = first; c < d; c += step) {
            load<W>(v, x + n * d + c);
            load<W>(g, dy + n * d + c);
            load<W>(s, w + c);
#pragma unroll
            for (int i = 0; i < W; i++) {
                float scaled = g[i] * (shift + s[i]);

                sum_g += scaled;
                sum_gx += scaled * ((v[i] - mu) * r);
            }
        }
        sum_g = IS_CENTRED ? block_sum(sum_g) / (float)d : 0;
        sum_gx = block_sum(sum_gx) / (float)d;
        for (int64_t c = first; c < d; c += step) {
            load<W>(v, x + n * d + c);
            load<W>(g, dy + n * d + c);
            load<W>(s, w + c);
#pragma unroll
            for (int i = 0; i < W; i++) {
                float xhat = (v[i] - mu) * r;

                if (dw)
                    dw[c + i] += g[i] * xhat;
                if (db)
                    db[c + i] += g[i];
                v[i] = r * (g[i] * (shift + s[i]) - (sum_g + xhat * sum_gx));
            }
            if (d_residual) {
                load<W>(g, d_residual + n * d + c);
#pragma unroll
                for (int i = 0; i < W; i++)
                    v[i] += g[i];
            }
            store<W>(dx + n * d + c, v);
        }
    }
    if (!is_shared)
        return;
    for (int64_t c = first; c < d; c += step)
        for (int i = 0; i < W; i++) {
            if (dw)
                dw_out[c + i] = dw[c + i];
            if (db)
                db_out[c + i] = db[c + i];
        }
}

/* out [n] += the rows of sums [n_sums, n], in their order */
__global__ void __launch_bounds__(BLOCK, 3)
    add_sums(float *out, const float *sums, int64_t n_sums, int64_t n)
{
    int64_t step = (int64_t)gridDim.x * blockDim.x;

    for (int64_t c = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; c < n; c += step) {
        float sum = 0;

        for (int64_t i = 0; i < n_sums; i++)
            sum += sums[i * n + c];
        out[c] += sum;
    }
}

/* sums [gridDim.y, n] = column sums of this block's rows_each rows of x [rows, n]; a block
 * is WARP threads wide, W columns each, and COLUMN_LANES deep. */
template <int W, typename T>
__global__ void __launch_bounds__(WARP *COLUMN_LANES, 4)
    column_sums(float *sums, const T *x, int64_t rows, int64_t n, int64_t rows_each)
{
    CUDA_SHARED(float, parts, COLUMN_LANES *WARP *W);
    int64_t c = ((int64_t)blockIdx.x * WARP + threadIdx.x) * W;
    int64_t start = blockIdx.y * rows_each;
    int64_t end = start + rows_each < rows ? start + rows_each : rows;
    float sum[W] = {}, v[W];
    int mine = (int)(threadIdx.y * WARP + threadIdx.x) * W;

    for (int64_t r = start + threadIdx.y; r < end && c < n; r += COLUMN_LANES) {
        load<W>(v, x + r * n + c);
#pragma unroll
        for (int i = 0; i < W; i++)
            sum[i] += v[i];
    }
#pragma unroll
    for (int i = 0; i < W; i++)
        parts[mine + i] = sum[i];
    __syncthreads();
    if (threadIdx.y > 0 || c >= n)
        return;
    for (int i = 0; i < W; i++) {
        for (int lane = 1; lane < COLUMN_LANES; lane++)
            sum[i] += parts[lane * WARP * W + mine + i];
        sums[blockIdx.y * n + c + i] = sum[i];
    }
}

void add_sums_launch(struct cuda *cuda, struct tensor *out, const float *sums,
                     int64_t n_sums, int64_t n)
{
    CUDA_LAUNCH(add_sums, dim3(grid_x(ceil_div(n, BLOCK))), dim3(BLOCK), 0, cuda->stream,
                (float *)out->data, sums, n_sums, n);
}

/* What both norms' slots are asked; fields that one has not are NULL or 0. */
struct norm {
    struct tensor *y, *mean, *rstd, *sum; /* forward */
    struct tensor *dx, *dw, *dbias;       /* backward */
    const struct tensor *added, *dy, *d_residual, *x, *w, *bias, *mean_in, *rstd_in;
    float shift, eps;
};

template <typename T> T *data_of(const struct tensor *x)
{
    return x ? (T *)x->data : nullptr;
}

template <int W, typename T, typename Ta, bool IS_CENTRED>
void fwd_launch(struct cuda *cuda, const struct norm &a, int64_t rows, int64_t d)
{
    auto *kernel = norm_fwd<W, T, Ta, IS_CENTRED>;

    CUDA_LAUNCH(kernel, dim3(grid_x(rows)), dim3(block_for(d, W)), 0, cuda->stream,
                data_of<T>(a.y), data_of<float>(a.mean), data_of<float>(a.rstd),
                data_of<T>(a.sum), data_of<T>(a.x), data_of<Ta>(a.added), data_of<T>(a.w),
                data_of<T>(a.bias), a.shift, a.eps, rows, d);
}

template <bool IS_CENTRED>
int fwd(struct backend *b, const struct norm &a, struct err *err)
{
    struct tensor flat = tensor_flat(a.x);
    int64_t rows = flat.dims[0], d = flat.dims[1];
    bool is_wide = is_aligned(a.y) && is_aligned(a.x) && is_aligned(a.sum) &&
                   is_aligned(a.added) && is_aligned(a.w) && is_aligned(a.bias) &&
                   d % PACK == 0;

    if (rows == 0)
        return 0;
    with_pack(a.x->dtype, is_wide, [&](auto zero, auto width) {
        typedef decltype(zero) T;
        constexpr int W = decltype(width)::value;

        if (a.added && a.added->dtype != a.x->dtype) /* F32 */
            fwd_launch<W, T, float, IS_CENTRED>(cuda_of(b), a, rows, d);
        else
            fwd_launch<W, T, T, IS_CENTRED>(cuda_of(b), a, rows, d);
    });
    return cuda_launched("norm", err);
}

/* Where a backward pass leaves its sums. */
struct bwd_sums {
    float *dw, *db;
    int64_t n_blocks;
    size_t shared_bytes; /* 0: they do not fit */
};

int bwd_sums_take(struct cuda *cuda, struct bwd_sums *out, const struct norm &a,
                  int64_t rows, int64_t d, struct err *err)
{
    int64_t most = (int64_t)cuda->n_processors * BLOCKS_EACH;
    int64_t n_kinds = (a.dw != nullptr) + (a.dbias != nullptr);
    void *scratch;

    *out = bwd_sums{nullptr, nullptr, rows < most ? rows : most, 0};
    if (n_kinds == 0)
        out->n_blocks = rows;
    if (d <= SUMS_SHARED_MAX)
        out->shared_bytes = (size_t)(n_kinds * d) * sizeof(float);
    if (n_kinds == 0)
        return 0;
    if (cuda_scratch(cuda, &scratch,
                     (size_t)(n_kinds * d * out->n_blocks) * sizeof(float), err) < 0)
        return -1;
    out->dw = a.dw ? (float *)scratch : nullptr;
    out->db = a.dbias ? (float *)scratch + (a.dw ? d * out->n_blocks : 0) : nullptr;
    return 0;
}

template <bool IS_CENTRED>
int bwd(struct backend *b, const struct norm &a, struct err *err)
{
    struct cuda *cuda = cuda_of(b);
    struct tensor flat = tensor_flat(a.x);
    int64_t rows = flat.dims[0], d = flat.dims[1];
    bool is_wide = is_aligned(a.dx) && is_aligned(a.dy) && is_aligned(a.d_residual) &&
                   is_aligned(a.x) && is_aligned(a.w) && d % PACK == 0;
    struct bwd_sums sums;

    if (rows == 0)
        return 0;
    if (bwd_sums_take(cuda, &sums, a, rows, d, err) < 0)
        return -1;
    with_pack(a.x->dtype, is_wide, [&](auto zero, auto width) {
        typedef decltype(zero) T;
        constexpr int W = decltype(width)::value;
        auto *kernel = norm_bwd<W, T, IS_CENTRED>;

        CUDA_LAUNCH(kernel, dim3(grid_x(sums.n_blocks)), dim3(block_for(d, W)),
                    sums.shared_bytes, cuda->stream, data_of<T>(a.dx), sums.dw, sums.db,
                    data_of<T>(a.dy), data_of<T>(a.d_residual), data_of<T>(a.x),
                    data_of<T>(a.w), data_of<float>(a.mean_in), data_of<float>(a.rstd_in),
                    a.shift, rows, d, sums.shared_bytes > 0);
    });
    if (a.dw)
        add_sums_launch(cuda, a.dw, sums.dw, sums.n_blocks, d);
    if (a.dbias)
        add_sums_launch(cuda, a.dbias, sums.db, sums.n_blocks, d);
    return cuda_launched("norm", err);
}

} /* namespace */

int cuda_layernorm_fwd(struct backend *b, struct tensor *y, struct tensor *mean,
                       struct tensor *rstd, const struct tensor *x,
                       const struct tensor *w, const struct tensor *bias, float shift,
                       float eps, struct err *err)
{
    return cuda_add_layernorm_fwd(b, y, mean, rstd, nullptr, x, nullptr, w, bias, shift,
                                  eps, err);
}

int cuda_add_layernorm_fwd(struct backend *b, struct tensor *y, struct tensor *mean,
                           struct tensor *rstd, struct tensor *sum,
                           const struct tensor *x, const struct tensor *added,
                           const struct tensor *w, const struct tensor *bias, float shift,
                           float eps, struct err *err)
{
    struct norm a = {};

    a.y = y;
    a.mean = mean;
    a.rstd = rstd;
    a.sum = sum;
    a.x = x;
    a.added = added;
    a.w = w;
    a.bias = bias;
    a.shift = shift;
    a.eps = eps;
    return fwd<true>(b, a, err);
}

int cuda_layernorm_bwd(struct backend *b, struct tensor *dx, struct tensor *dw,
                       struct tensor *dbias, const struct tensor *dy,
                       const struct tensor *d_residual, const struct tensor *x,
                       const struct tensor *w, const struct tensor *mean,
                       const struct tensor *rstd, float shift, struct err *err)
{
    struct norm a = {};

    a.dx = dx;
    a.dw = dw;
    a.dbias = dbias;
    a.dy = dy;
    a.d_residual = d_residual;
    a.x = x;
    a.w = w;
    a.mean_in = mean;
    a.rstd_in = rstd;
    a.shift = shift;
    return bwd<true>(b, a, err);
}

int cuda_rmsnorm_fwd(struct backend *b, struct tensor *y, struct tensor *rstd,
                     const struct tensor *x, const struct tensor *w, float eps,
                     struct err *err)
{
    return cuda_add_rmsnorm_fwd(b, y, rstd, nullptr, x, nullptr, w, eps, err);
}

int cuda_add_rmsnorm_fwd(struct backend *b, struct tensor *y, struct tensor *rstd,
                         struct tensor *sum, const struct tensor *x,
                         const struct tensor *added, const struct tensor *w, float eps,
                         struct err *err)
{
    struct norm a = {};

    a.y = y;
    a.rstd = rstd;
    a.sum = sum;
    a.x = x;
    a.added = added;
    a.w = w;
    a.eps = eps;
    return fwd<false>(b, a, err);
}

int cuda_rmsnorm_bwd(struct backend *b, struct tensor *dx, struct tensor *dw,
                     const struct tensor *dy, const struct tensor *d_residual,
                     const struct tensor *x, const struct tensor *w,
                     const struct tensor *rstd, struct err *err)
{
    struct norm a = {};

    a.dx = dx;
    a.dw = dw;
    a.dy = dy;
    a.d_residual = d_residual;
    a.x = x;
    a.w = w;
    a.rstd_in = rstd;
    return bwd<false>(b, a, err);
}

int cuda_bias_bwd(struct backend *b, struct tensor *db, const struct tensor *dy,
                  struct err *err)
{
    struct cuda *cuda = cuda_of(b);
    struct tensor flat = tensor_flat(dy);
    int64_t rows = flat.dims[0], n = flat.dims[1];
    bool is_wide = is_aligned(dy) && n % PACK == 0;
    int64_t tiles = ceil_div(n, (int64_t)WARP * (is_wide ? PACK : 1));
    int64_t parts = ceil_div((int64_t)cuda->n_processors * BLOCKS_EACH, tiles);
    int64_t rows_each = ceil_div(rows, parts);
    void *sums;

    if (rows == 0)
        return 0;
    rows_each = rows_each < ROWS_EACH_MIN ? ROWS_EACH_MIN : rows_each;
    parts = ceil_div(rows, rows_each);
    if (cuda_scratch(cuda, &sums, (size_t)(parts * n) * sizeof(float), err) < 0)
        return -1;
    with_pack(dy->dtype, is_wide, [&](auto zero, auto width) {
        typedef decltype(zero) T;
        constexpr int W = decltype(width)::value;
        auto *kernel = column_sums<W, T>;

        CUDA_LAUNCH(kernel, dim3((unsigned)tiles, (unsigned)parts),
                    dim3(WARP, COLUMN_LANES), 0, cuda->stream, (float *)sums,
                    data_of<T>(dy), rows, n, rows_each);
    });
    add_sums_launch(cuda, db, (const float *)sums, parts, n);
    return cuda_launched("gradient of a bias", err);
}
