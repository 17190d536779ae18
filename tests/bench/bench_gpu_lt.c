#include "tests/bench/bench_gpu_lt.h"

#include "common/base/clock.h"
#include "common/base/rng.h"
#include "model/backend/half.h"

#include <cublasLt.h>
#include <cuda_runtime_api.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define TRIES_MAX 64
#define TRY_S 0.003 /* each algorithm is timed for about that long */
#define TRY_CALLS_MAX 50
#define WORKSPACE_BYTES ((size_t)64 << 20)
#define ALIGN ((size_t)256)
#define BLOCK ((size_t)1 << 20) /* random numbers, repeated over each matrix */

struct lt {
    cublasLtHandle_t handle;
    cudaStream_t stream;
    void *workspace;
    uint16_t *block; /* pinned */
    struct lt_shape shape;
    char *a, *b, *c;
    size_t a_bytes, b_bytes, c_bytes;
    cublasLtMatmulDesc_t desc;
    cublasLtMatrixLayout_t layout_a, layout_b, layout_c;
    cublasLtMatmulAlgo_t algo;
    int64_t n_run;
};

static int check(cublasStatus_t status, const char *what, struct err *err)
{
    if (status == CUBLAS_STATUS_SUCCESS)
        return 0;
    return err_set(err, ERR_IO, "%s of cuBLASLt: %s", what,
                   cublasLtGetStatusString(status));
}

static int check_cuda(cudaError_t error, const char *what, struct err *err)
{
    if (error == cudaSuccess)
        return 0;
    return err_set(err, ERR_IO, "%s: %s", what, cudaGetErrorString(error));
}

int lt_open(struct lt **out, struct err *err)
{
    struct rng_key key = {1, 2};
    struct lt *lt = calloc(1, sizeof(*lt));

    *out = lt;
    if (!lt)
        return err_set(err, ERR_NOMEM, "cannot allocate what asks cuBLASLt");
    if (check_cuda(cudaStreamCreateWithFlags(&lt->stream, cudaStreamNonBlocking),
                   "stream", err) < 0 ||
        check_cuda(cudaMallocAsync(&lt->workspace, WORKSPACE_BYTES, lt->stream),
                   "workspace", err) < 0 ||
        check_cuda(cudaMallocHost((void **)&lt->block, BLOCK * sizeof(*lt->block)),
                   "pinned memory", err) < 0)
        return -1;
    for (size_t i = 0; i < BLOCK; i++)
        lt->block[i] = bf16_of_float((float)rng_normal(key, i));
    return check(cublasLtCreate(&lt->handle), "opening", err);
}

static void release(struct lt *lt, void *data)
{
    if (data)
        cudaFreeAsync(data, lt->stream);
}

static void shape_fini(struct lt *lt)
{
    release(lt, lt->a);
    release(lt, lt->b);
    release(lt, lt->c);
    lt->a = lt->b = lt->c = NULL;
    if (lt->desc)
        cublasLtMatmulDescDestroy(lt->desc);
    if (lt->layout_a)
        cublasLtMatrixLayoutDestroy(lt->layout_a);
    if (lt->layout_b)
        cublasLtMatrixLayoutDestroy(lt->layout_b);
    if (lt->layout_c)
        cublasLtMatrixLayoutDestroy(lt->layout_c);
    lt->desc = NULL;
    lt->layout_a = lt->layout_b = lt->layout_c = NULL;
}

void lt_close(struct lt *lt)
{
    if (!lt)
        return;
    if (lt->stream) {
        shape_fini(lt);
        release(lt, lt->workspace);
        cudaStreamSynchronize(lt->stream);
        cudaStreamDestroy(lt->stream);
    }
    if (lt->block)
        cudaFreeHost(lt->block);
    if (lt->handle)
        cublasLtDestroy(lt->handle);
    free(lt);
}

/* n_copies matrices of random numbers; 4-byte ones are sums and begin at 0. */
static int matrices(struct lt *lt, char **out, size_t n_bytes, bool is_random,
                    struct err *err)
{
    size_t all = n_bytes * (size_t)lt->shape.n_copies, block = BLOCK * sizeof(*lt->block);
    void *data;

    if (check_cuda(cudaMallocAsync(&data, all, lt->stream), "matrices", err) < 0)
        return -1;
    *out = data;
    if (!is_random)
        return check_cuda(cudaMemsetAsync(data, 0, all, lt->stream), "zeroing", err);
    for (size_t at = 0; at < all; at += block)
        if (check_cuda(cudaMemcpyAsync(*out + at, lt->block,
                                       all - at < block ? all - at : block,
                                       cudaMemcpyHostToDevice, lt->stream),
                       "copy to the device", err) < 0)
            return -1;
    return 0;
}

static cudaDataType_t type_of(enum dtype dtype)
{
    return dtype == DTYPE_BF16  ? CUDA_R_16BF
           : dtype == DTYPE_F16 ? CUDA_R_16F
                                : CUDA_R_32F;
}

/* A row-major matrix, as its transpose, which is column-major. */
static int layout(cublasLtMatrixLayout_t *out, enum dtype dtype, int64_t rows,
                  int64_t columns, struct err *err)
{
    return check(cublasLtMatrixLayoutCreate(out, type_of(dtype), (uint64_t)columns,
                                            (uint64_t)rows, columns),
                 "layout", err);
}

/* c^T = op(b)^T op(a)^T, column-major: cuBLASLt's A is our b. */
static int describe(struct lt *lt, struct err *err)
{
    const struct lt_shape *s = &lt->shape;
    cublasOperation_t op_a = s->trans_b ? CUBLAS_OP_T : CUBLAS_OP_N;
    cublasOperation_t op_b = s->trans_a ? CUBLAS_OP_T : CUBLAS_OP_N;

    if (check(cublasLtMatmulDescCreate(&lt->desc, CUBLAS_COMPUTE_32F, CUDA_R_32F),
              "description", err) < 0 ||
        check(cublasLtMatmulDescSetAttribute(lt->desc, CUBLASLT_MATMUL_DESC_TRANSA, &op_a,
                                             sizeof(op_a)),
              "description", err) < 0 ||
        check(cublasLtMatmulDescSetAttribute(lt->desc, CUBLASLT_MATMUL_DESC_TRANSB, &op_b,
                                             sizeof(op_b)),
              "description", err) < 0)
        return -1;
    if (layout(&lt->layout_a, s->type, s->trans_a ? s->k : s->m, s->trans_a ? s->m : s->k,
               err) < 0 ||
        layout(&lt->layout_b, s->type, s->trans_b ? s->n : s->k, s->trans_b ? s->k : s->n,
               err) < 0)
        return -1;
    return layout(&lt->layout_c, s->c_type, s->m, s->n, err);
}

static int suggestions(struct lt *lt, cublasLtMatmulHeuristicResult_t *all, int *n,
                       struct err *err)
{
    cublasLtMatmulPreference_t preference;
    uint64_t workspace = WORKSPACE_BYTES;
    int rc = -1;

    if (check(cublasLtMatmulPreferenceCreate(&preference), "preference", err) < 0)
        return -1;
    if (check(cublasLtMatmulPreferenceSetAttribute(
                  preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace,
                  sizeof(workspace)),
              "preference", err) == 0)
        rc = check(cublasLtMatmulAlgoGetHeuristic(
                       lt->handle, lt->desc, lt->layout_b, lt->layout_a, lt->layout_c,
                       lt->layout_c, preference, TRIES_MAX, all, n),
                   "suggestions", err);
    cublasLtMatmulPreferenceDestroy(preference);
    return rc;
}

int lt_run(void *arg, int64_t n, struct err *err)
{
    struct lt *lt = arg;
    float alpha = 1, beta = lt->shape.adds ? 1 : 0;

    for (int64_t i = 0; i < n; i++) {
        size_t copy = (size_t)(lt->n_run++ % lt->shape.n_copies);
        void *c = lt->c + copy * lt->c_bytes;

        if (check(cublasLtMatmul(lt->handle, lt->desc, &alpha, lt->b + copy * lt->b_bytes,
                                 lt->layout_b, lt->a + copy * lt->a_bytes, lt->layout_a,
                                 &beta, c, lt->layout_c, c, lt->layout_c, &lt->algo,
                                 lt->workspace, WORKSPACE_BYTES, lt->stream),
                  "product", err) < 0)
            return -1;
    }
    return check_cuda(cudaStreamSynchronize(lt->stream), "product", err);
}

/* Seconds of one product by lt->algo; infinity: it refuses. */
static double try_algo(struct lt *lt)
{
    int64_t n, start_ns;
    struct err err = {0};
    double once;

    if (lt_run(lt, 1, &err) < 0)
        return INFINITY;
    start_ns = clock_mono_ns();
    if (lt_run(lt, 1, &err) < 0)
        return INFINITY;
    once = (double)(clock_mono_ns() - start_ns) * 1e-9;
    n = (int64_t)fmin(fmax(TRY_S / fmax(once, 1e-9), 1), TRY_CALLS_MAX);
    start_ns = clock_mono_ns();
    if (lt_run(lt, n, &err) < 0)
        return INFINITY;
    return (double)(clock_mono_ns() - start_ns) * 1e-9 / (double)n;
}

static int choose(struct lt *lt, int *n_tried, struct err *err)
{
    cublasLtMatmulHeuristicResult_t all[TRIES_MAX];
    double best = INFINITY;
    int n = 0, at = -1;

    *n_tried = 0;
    if (suggestions(lt, all, &n, err) < 0)
        return -1;
    for (int i = 0; i < n; i++) {
        double seconds;

        if (all[i].state != CUBLAS_STATUS_SUCCESS)
            continue;
        lt->algo = all[i].algo;
        seconds = try_algo(lt);
        ++*n_tried;
        if (seconds < best) {
            best = seconds;
            at = i;
        }
    }
    if (at < 0)
        return err_set(err, ERR_UNSUPPORTED, "cuBLASLt has no algorithm that works");
    lt->algo = all[at].algo;
    return 0;
}

/* Every copy is aligned as one that is allocated. */
static size_t matrix_bytes(int64_t n, enum dtype dtype)
{
    return ((size_t)n * dtype_bytes(dtype) + ALIGN - 1) / ALIGN * ALIGN;
}

int lt_prepare(struct lt *lt, const struct lt_shape *shape, int *n_tried, struct err *err)
{
    shape_fini(lt);
    lt->shape = *shape;
    lt->a_bytes = matrix_bytes(shape->m * shape->k, shape->type);
    lt->b_bytes = matrix_bytes(shape->k * shape->n, shape->type);
    lt->c_bytes = matrix_bytes(shape->m * shape->n, shape->c_type);
    if (describe(lt, err) < 0 || matrices(lt, &lt->a, lt->a_bytes, true, err) < 0 ||
        matrices(lt, &lt->b, lt->b_bytes, true, err) < 0 ||
        matrices(lt, &lt->c, lt->c_bytes, false, err) < 0)
        return -1;
    return choose(lt, n_tried, err);
}
