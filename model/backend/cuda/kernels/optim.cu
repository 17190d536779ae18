/* optim.cu - AdamW over fp32 master weights, and the sum of squares */
#include "model/backend/cuda/kernels/device.cuh"

#define SUM_BLOCKS_EACH 4 /* blocks a processor */

namespace
{

/* Factors that do not depend on the element, from fp64. */
struct adamw_factors {
    float keep; /* 1 - lr decay */
    float rate; /* lr / (1 - beta1^step) */
    float root; /* 1 / sqrt(1 - beta2^step) */
    float beta1, rest1, beta2, rest2, eps, grad_scale;
};

template <int W, typename T>
__global__ void __launch_bounds__(BLOCK, 3)
    adamw(float *master, T *weight, float *m, float *v, const float *grad,
          struct adamw_factors a, int64_t n)
{
    int64_t step = (int64_t)gridDim.x * blockDim.x * W;

    for (int64_t at = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) * W; at < n;
         at += step) {
        float w[W], mi[W], vi[W], g[W];

        load<W>(w, master + at);
        load<W>(mi, m + at);
        load<W>(vi, v + at);
        load<W>(g, grad + at);
#pragma unroll
        for (int i = 0; i < W; i++) {
            float scaled = g[i] * a.grad_scale;

            mi[i] = a.beta1 * mi[i] + a.rest1 * scaled;
            vi[i] = a.beta2 * vi[i] + a.rest2 * scaled * scaled;
            w[i] = w[i] * a.keep - a.rate * mi[i] / (sqrtf(vi[i]) * a.root + a.eps);
        }
        store<W>(master + at, w);
        store<W>(m + at, mi);
        store<W>(v + at, vi);
        if (weight)
            store<W>(weight + at, w);
    }
}

/* parts[block] = its sum of squares */
__global__ void __launch_bounds__(BLOCK, 3)
    squares(double *parts, const float *x, int64_t n)
{
    int64_t step = (int64_t)gridDim.x * blockDim.x;
    double sum = 0;

    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += step)
        sum += (double)x[i] * x[i];
    sum = block_sum(sum);
    if (threadIdx.x == 0)
        parts[blockIdx.x] = sum;
}

/* parts[n] = sum of parts[0, n); one block */
__global__ void __launch_bounds__(BLOCK, 3) add_squares(double *parts, int64_t n)
{
    double sum = 0;

    for (int64_t i = threadIdx.x; i < n; i += blockDim.x)
        sum += parts[i];
    sum = block_sum(sum);
    if (threadIdx.x == 0)
        parts[n] = sum;
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
    a.grad_scale = args->grad_scale;
    return a;
}

} /* namespace */

int cuda_sum_squares(struct backend *b, double *out, const struct tensor *x,
                     struct err *err)
{
    struct cuda *cuda = cuda_of(b);
    int64_t n = tensor_count(x), n_blocks = ceil_div(n, BLOCK);
    int64_t most = (int64_t)cuda->n_processors * SUM_BLOCKS_EACH;
    void *scratch;
    double *parts;

    *out = 0;
    if (n == 0)
        return 0;
    n_blocks = n_blocks < most ? n_blocks : most;
    if (cuda_scratch(cuda, &scratch, (size_t)(n_blocks + 1) * sizeof(double), err) < 0)
        return -1;
    parts = (double *)scratch;
    CUDA_LAUNCH(squares, dim3((unsigned)n_blocks), dim3(BLOCK), 0, cuda->stream, parts,
                (const float *)x->data, n);
    CUDA_LAUNCH(add_squares, dim3(1), dim3(BLOCK), 0, cuda->stream, parts, n_blocks);
    if (cuda_launched("sum of squares", err) < 0 ||
        cuda_download(b, cuda->sum_host, parts + n_blocks, sizeof(double), err) < 0)
        return -1;
    *out = *cuda->sum_host;
    return 0;
}

int cuda_adamw(struct backend *b, struct tensor *master, struct tensor *weight,
               struct tensor *m, struct tensor *v, const struct tensor *grad,
               const struct adamw_args *args, struct err *err)
{
    int64_t n = tensor_count(master);
    bool is_wide = is_aligned(master) && is_aligned(weight) && is_aligned(m) &&
                   is_aligned(v) && is_aligned(grad) && n % PACK == 0;

    if (n == 0)
        return 0;
    with_type(weight ? weight->dtype : DTYPE_F32, [&](auto zero) {
        typedef decltype(zero) T;

        with_width(is_wide, [&](auto width) {
            constexpr int W = decltype(width)::value;
            auto *kernel = adamw<W, T>;

            CUDA_LAUNCH(kernel, dim3(grid_x(ceil_div(n, (int64_t)BLOCK * W))),
                        dim3(BLOCK), 0, cuda_of(b)->stream, (float *)master->data,
                        weight ? (T *)weight->data : nullptr, (float *)m->data,
                        (float *)v->data, (const float *)grad->data, factors(args), n);
        });
    });
    return cuda_launched("AdamW", err);
}
