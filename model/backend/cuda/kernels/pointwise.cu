/* pointwise.cu - activations, SwiGLU, sums, casts: one pass over memory each
 *
 * Everything is y[r,c] = f(a[r,c], b[c]) over rows and columns; where b is as large as a
 * there is one row. The grid's x walks over columns, y over rows.
 */
#include "model/backend/cuda/kernels/device.cuh"

#define SQRT_1_2 0.70710678118654752F
#define SQRT_2_PI 0.79788456080286536F
#define RSQRT_2PI 0.39894228040143268F

namespace
{

__device__ inline float sigmoid(float x)
{
    return 1 / (1 + expf(-x));
}

__device__ inline float act_value(int act, float x)
{
    switch (act) {
    case ACT_GELU:
        return x * 0.5F * erfcf(-x * SQRT_1_2);
    case ACT_GELU_TANH:
        return 0.5F * x * (1 + tanhf(SQRT_2_PI * (x + 0.044715F * x * x * x)));
    case ACT_QUICK_GELU:
        return x * sigmoid(1.702F * x);
    case ACT_RELU_SQUARED:
        return x > 0 ? x * x : 0 * x; /* 0 x: NaN gets through */
    default:
        return x;
    }
}

__device__ inline float act_slope(int act, float x)
{
    float s;

    switch (act) {
    case ACT_GELU: /* Phi(x) + x phi(x) */
        return 0.5F * erfcf(-x * SQRT_1_2) + x * RSQRT_2PI * expf(-0.5F * x * x);
    case ACT_GELU_TANH:
        s = tanhf(SQRT_2_PI * (x + 0.044715F * x * x * x));
        return 0.5F * (1 + s) +
               0.5F * x * (1 - s * s) * SQRT_2_PI * (1 + 3 * 0.044715F * x * x);
    case ACT_QUICK_GELU:
        s = sigmoid(1.702F * x);
        return s + 1.702F * x * s * (1 - s);
    case ACT_RELU_SQUARED:
        return x > 0 ? 2 * x : 0 * x;
    default:
        return 1;
    }
}

struct act_of {
    int act;

    __device__ float operator()(float x, float) const
    {
        return act_value(act, x);
    }
};

struct act_slope_of { /* dy, x */
    int act;

    __device__ float operator()(float dy, float x) const
    {
        return dy * act_slope(act, x);
    }
};

struct add_of {
    float s;

    __device__ float operator()(float a, float b) const
    {
        return a + s * b;
    }
};

struct scale_of {
    float s;

    __device__ float operator()(float x, float) const
    {
        return s * x;
    }
};

struct same_of {
    __device__ float operator()(float x, float) const
    {
        return x;
    }
};

/* W elements from column c on. b NULL: f does not look at it. */
template <int W, typename F, typename Ty, typename Ta, typename Tb>
__device__ inline void map_some(F f, Ty *y, const Ta *a, const Tb *b)
{
    float u[W], v[W] = {};

    load<W>(u, a);
    if (b)
        load<W>(v, b);
#pragma unroll
    for (int i = 0; i < W; i++)
        u[i] = f(u[i], v[i]);
    store<W>(y, u);
}

template <int W, typename F, typename Ty, typename Ta, typename Tb>
__global__ void __launch_bounds__(BLOCK, 3)
    map(F f, Ty *y, const Ta *a, const Tb *b, int64_t rows, int64_t columns)
{
    int64_t first = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) * W;
    int64_t step = (int64_t)gridDim.x * blockDim.x * W;

    for (int64_t r = blockIdx.y; r < rows; r += gridDim.y)
        for (int64_t c = first; c < columns; c += step) {
            int64_t at = r * columns + c;

            if (c + W <= columns) {
                map_some<W>(f, y + at, a + at, b ? b + c : nullptr);
                continue;
            }
            for (int64_t i = 0; i < columns - c; i++)
                map_some<1>(f, y + at + i, a + at + i, b ? b + c + i : nullptr);
        }
}

dim3 map_grid(int64_t rows, int64_t columns, int width)
{
    return dim3(grid_x(ceil_div(columns, (int64_t)BLOCK * width)), grid_y(rows));
}

/* y [rows,columns] Ty = f(a [rows,columns] Ta, b [columns] Tb or NULL) */
template <typename Ty, typename Ta, typename Tb, typename F>
int map_launch(struct cuda *cuda, F f, struct tensor *y, const struct tensor *a,
               const struct tensor *b, int64_t rows, int64_t columns, const char *what,
               struct err *err)
{
    bool is_wide = is_aligned(y) && is_aligned(a) && is_aligned(b) &&
                   (rows == 1 || columns % PACK == 0) && columns >= PACK;

    if (rows * columns == 0)
        return 0;
    with_width(is_wide, [&](auto width) {
        constexpr int W = decltype(width)::value;
        auto *kernel = map<W, F, Ty, Ta, Tb>;

        CUDA_LAUNCH(kernel, map_grid(rows, columns, W), dim3(BLOCK), 0, cuda->stream, f,
                    (Ty *)y->data, (const Ta *)a->data,
                    b ? (const Tb *)b->data : (const Tb *)nullptr, rows, columns);
    });
    return cuda_launched(what, err);
}

/* y T = f(a T, b T) elementwise; b NULL or as large as a */
template <typename F>
int map_same(struct backend *b, F f, struct tensor *y, const struct tensor *a,
             const struct tensor *other, const char *what, struct err *err)
{
    int rc = 0;

    with_type(a->dtype, [&](auto zero) {
        typedef decltype(zero) T;

        rc = map_launch<T, T, T>(cuda_of(b), f, y, a, other, 1, tensor_count(a), what,
                                 err);
    });
    return rc;
}

/* ---- SwiGLU: gate and value are the halves of a row ---- */

template <int W, typename T>
__global__ void __launch_bounds__(BLOCK, 3)
    swiglu_fwd(T *y, const T *x, int64_t rows, int64_t width)
{
    int64_t first = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) * W;
    int64_t step = (int64_t)gridDim.x * blockDim.x * W;

    for (int64_t r = blockIdx.y; r < rows; r += gridDim.y)
        for (int64_t c = first; c < width; c += step) {
            float gate[W], value[W];

            load<W>(gate, x + r * 2 * width + c);
            load<W>(value, x + r * 2 * width + width + c);
#pragma unroll
            for (int i = 0; i < W; i++)
                value[i] *= gate[i] * sigmoid(gate[i]);
            store<W>(y + r * width + c, value);
        }
}

template <int W, typename T>
__global__ void __launch_bounds__(BLOCK, 3)
    swiglu_bwd(T *dx, const T *dy, const T *x, int64_t rows, int64_t width)
{
    int64_t first = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) * W;
    int64_t step = (int64_t)gridDim.x * blockDim.x * W;

    for (int64_t r = blockIdx.y; r < rows; r += gridDim.y)
        for (int64_t c = first; c < width; c += step) {
            int64_t at_gate = r * 2 * width + c, at_value = at_gate + width;
            float gate[W], value[W], g[W];

            load<W>(gate, x + at_gate);
            load<W>(value, x + at_value);
            load<W>(g, dy + r * width + c);
#pragma unroll
            for (int i = 0; i < W; i++) {
                float s = sigmoid(gate[i]), u = g[i] * s;

                g[i] = u * gate[i];
                gate[i] = u * value[i] * (1 + gate[i] * (1 - s));
            }
            store<W>(dx + at_gate, gate);
            store<W>(dx + at_value, g);
        }
}

} /* namespace */

int cuda_act_fwd(struct backend *b, struct tensor *y, const struct tensor *x,
                 enum activation act, struct err *err)
{
    return map_same(b, act_of{act}, y, x, nullptr, "activation", err);
}

int cuda_act_bwd(struct backend *b, struct tensor *dx, const struct tensor *dy,
                 const struct tensor *x, enum activation act, struct err *err)
{
    return map_same(b, act_slope_of{act}, dx, dy, x, "activation", err);
}

int cuda_swiglu_fwd(struct backend *b, struct tensor *y, const struct tensor *x,
                    struct err *err)
{
    struct tensor flat = tensor_flat(y);
    int64_t rows = flat.dims[0], width = flat.dims[1];
    bool is_wide = is_aligned(y) && is_aligned(x) && width % PACK == 0;

    if (rows * width == 0)
        return 0;
    with_pack(x->dtype, is_wide, [&](auto zero, auto w) {
        typedef decltype(zero) T;
        constexpr int W = decltype(w)::value;
        auto *kernel = swiglu_fwd<W, T>;

        CUDA_LAUNCH(kernel, map_grid(rows, width, W), dim3(BLOCK), 0, cuda_of(b)->stream,
                    (T *)y->data, (const T *)x->data, rows, width);
    });
    return cuda_launched("SwiGLU", err);
}

int cuda_swiglu_bwd(struct backend *b, struct tensor *dx, const struct tensor *dy,
                    const struct tensor *x, struct err *err)
{
    struct tensor flat = tensor_flat(dy);
    int64_t rows = flat.dims[0], width = flat.dims[1];
    bool is_wide = is_aligned(dx) && is_aligned(dy) && is_aligned(x) && width % PACK == 0;

    if (rows * width == 0)
        return 0;
    with_pack(x->dtype, is_wide, [&](auto zero, auto w) {
        typedef decltype(zero) T;
        constexpr int W = decltype(w)::value;
        auto *kernel = swiglu_bwd<W, T>;

        CUDA_LAUNCH(kernel, map_grid(rows, width, W), dim3(BLOCK), 0, cuda_of(b)->stream,
                    (T *)dx->data, (const T *)dy->data, (const T *)x->data, rows, width);
    });
    return cuda_launched("SwiGLU", err);
}

int cuda_add(struct backend *b, struct tensor *y, const struct tensor *a,
             const struct tensor *bb, float s, struct err *err)
{
    int64_t n = tensor_count(a), period = tensor_count(bb);
    int rc = 0;

    if (n == 0)
        return 0;
    with_type(a->dtype, [&](auto zero) {
        typedef decltype(zero) T;

        rc = bb->dtype == a->dtype
                 ? map_launch<T, T, T>(cuda_of(b), add_of{s}, y, a, bb, n / period,
                                       period, "sum", err)
                 : map_launch<T, T, float>(cuda_of(b), add_of{s}, y, a, bb, n / period,
                                           period, "sum", err);
    });
    return rc;
}

int cuda_add_bias(struct cuda *cuda, struct tensor *y, const struct tensor *bias,
                  struct err *err)
{
    int64_t n = tensor_count(y), columns = tensor_count(bias);
    int rc = 0;

    if (y->dtype == bias->dtype)
        return cuda_add(&cuda->base, y, y, bias, 1, err);
    if (n == 0)
        return 0;
    with_type(bias->dtype, [&](auto zero) {
        typedef decltype(zero) T;

        rc = map_launch<float, float, T>(cuda, add_of{1}, y, y, bias, n / columns,
                                         columns, "bias", err);
    });
    return rc;
}

int cuda_scale(struct backend *b, struct tensor *x, float s, struct err *err)
{
    return map_same(b, scale_of{s}, x, x, nullptr, "scaling", err);
}

int cuda_cast(struct backend *b, struct tensor *y, const struct tensor *x,
              struct err *err)
{
    int rc = 0;

    if (y->dtype == x->dtype)
        return cuda_copy(b, y->data, x->data, tensor_bytes(x), err);
    with_type(x->dtype, [&](auto from) {
        with_type(y->dtype, [&](auto to) {
            typedef decltype(from) Tx;
            typedef decltype(to) Ty;

            rc = map_launch<Ty, Tx, Tx>(cuda_of(b), same_of{}, y, x, nullptr, 1,
                                        tensor_count(x), "cast", err);
        });
    });
    return rc;
}
