#include "model/backend/cuda/cuda.h"

#include <stdlib.h>

#define MAJOR_MIN 8 /* compute capability: bf16, the oldest code that is built */

int cuda_check(cudaError_t error, const char *what, struct err *err)
{
    if (error == cudaSuccess)
        return 0;
    return err_set(err, error == cudaErrorMemoryAllocation ? ERR_NOMEM : ERR_IO,
                   "%s on the GPU: %s (CUDA error %d)", what, cudaGetErrorString(error),
                   (int)error);
}

int cuda_launched(const char *what, struct err *err)
{
    return cuda_check(cudaGetLastError(), what, err);
}

int cuda_allow_shared(const void *kernel, size_t n_bytes, struct err *err)
{
    return cuda_check(cudaFuncSetAttribute(kernel,
                                           cudaFuncAttributeMaxDynamicSharedMemorySize,
                                           (int)n_bytes),
                      "giving a kernel shared memory", err);
}

static void cuda_destroy(struct backend *b)
{
    struct cuda *cuda = cuda_of(b);

    if (cuda->stream) {
        cuda_groups_fini(cuda); /* first: only an abort may end a graph in flight */
        cuda_graphs_fini(cuda);
        /* copies may be on their way from the ring */
        cudaStreamSynchronize(cuda->stream);
        cuda_attention_fini(cuda);
        cuda_matmul_fini(cuda);
        cuda_staging_fini(&cuda->staging);
        cuda_ahead_fini(cuda);
        cuda_free(b, cuda->scratch);
        cuda_free(b, cuda->rope_turns);
        cuda_letter_fini(cuda);
        cudaStreamSynchronize(cuda->stream);
        cudaStreamDestroy(cuda->stream);
    }
    free(cuda);
}

static bool cuda_is_fast(const struct backend *b, enum dtype dtype)
{
    (void)b;
    return dtype == DTYPE_F32 || dtype == DTYPE_BF16 || dtype == DTYPE_F16;
}

static void cuda_allow_tf32(struct backend *b, bool is_allowed)
{
    if (cuda_of(b)->is_tf32 != is_allowed)
        cuda_graphs_drop(cuda_of(b));
    cuda_of(b)->is_tf32 = is_allowed;
}

static const struct backend_ops cuda_ops = {
    .name = "cuda",
    .is_host = false,
    .destroy = cuda_destroy,
    .is_fast = cuda_is_fast,
    .allow_tf32 = cuda_allow_tf32,
    .devices = cuda_devices,
    .about = cuda_about,
    .alloc = cuda_alloc,
    .free = cuda_free,
    .memory = cuda_memory,
    .upload = cuda_upload,
    .download = cuda_download,
    .download_begin = cuda_download_begin,
    .download_end = cuda_download_end,
    .copy = cuda_copy,
    .zero = cuda_zero,
    .sync = cuda_sync,
    .ahead_upload = cuda_ahead_upload,
    .ahead_take = cuda_ahead_take,
    .ahead_used = cuda_ahead_used,
    .replay = cuda_replay,
    .matmul = cuda_matmul,
    .bias_bwd = cuda_bias_bwd,
    .layernorm_fwd = cuda_layernorm_fwd,
    .add_layernorm_fwd = cuda_add_layernorm_fwd,
    .layernorm_bwd = cuda_layernorm_bwd,
    .rmsnorm_fwd = cuda_rmsnorm_fwd,
    .add_rmsnorm_fwd = cuda_add_rmsnorm_fwd,
    .rmsnorm_bwd = cuda_rmsnorm_bwd,
    .rope = cuda_rope,
    .attention_fwd = cuda_attention_fwd,
    .attention_bwd = cuda_attention_bwd,
    .act_fwd = cuda_act_fwd,
    .act_bwd = cuda_act_bwd,
    .swiglu_fwd = cuda_swiglu_fwd,
    .swiglu_bwd = cuda_swiglu_bwd,
    .add = cuda_add,
    .scale = cuda_scale,
    .cast = cuda_cast,
    .embed_fwd = cuda_embed_fwd,
    .embed_bwd = cuda_embed_bwd,
    .scatter_rows = cuda_scatter_rows,
    .gather_rows = cuda_gather_rows,
    .patchify = cuda_patchify,
    .xent_max = cuda_xent_max,
    .xent_sum = cuda_xent_sum,
    .xent_bwd = cuda_xent_bwd,
    .xent_total = cuda_xent_total,
    .argmax = cuda_argmax,
    .sample = cuda_sample,
    .sum_squares = cuda_sum_squares,
    .judge = cuda_judge,
    .adamw = cuda_adamw,
};

/* *device: the GPU that the rank of this number takes; where there are more ranks than GPUs
 * they share them. ERR_UNSUPPORTED where there is no GPU for this code, so that `auto` goes on
 * to the next backend. */
static int find_device(int *number, struct err *err)
{
    int n = 0, major = 0, has_pools = 0, device;
    cudaError_t error = cudaGetDeviceCount(&n);

    if (error != cudaSuccess || n < 1) {
        cudaGetLastError();
        return err_set(err, ERR_UNSUPPORTED,
                       "no GPU is there (%s): use backend 'cpu', or look at nvidia-smi",
                       error != cudaSuccess ? cudaGetErrorString(error)
                                            : "none was found");
    }
    if (*number < 0)
        return err_set(err, ERR_INVALID, "number of the GPU is %d, must not be negative",
                       *number);
    device = *number %= n;
    if (cuda_check(cudaSetDevice(device), "opening", err) < 0 ||
        cuda_check(
            cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device),
            "asking", err) < 0 ||
        cuda_check(
            cudaDeviceGetAttribute(&has_pools, cudaDevAttrMemoryPoolsSupported, device),
            "asking", err) < 0)
        return -1;
    if (major < MAJOR_MIN || !has_pools)
        return err_set(err, ERR_UNSUPPORTED,
                       "GPU %d has compute capability %d.x%s: 8.0 (Ampere) and memory "
                       "pools are the least; use backend 'cpu'",
                       device, major, has_pools ? "" : " and no memory pools");
    return 0;
}

/* Memory that is given back stays in the pool: the next step asks for it again. The most in
 * use is counted from here. */
static int keep_memory(int device, struct err *err)
{
    cudaMemPool_t pool;
    uint64_t all = UINT64_MAX, none = 0;

    if (cuda_check(cudaDeviceGetDefaultMemPool(&pool, device), "memory pool", err) < 0)
        return -1;
    if (cuda_check(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrUsedMemHigh, &none),
                   "memory pool", err) < 0)
        return -1;
    return cuda_check(
        cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &all),
        "memory pool", err);
}

static int open_device(struct cuda *cuda, struct err *err)
{
    int shared = 0;

    if (find_device(&cuda->device, err) < 0 || keep_memory(cuda->device, err) < 0 ||
        cuda_check(cudaDeviceGetAttribute(&cuda->n_processors,
                                          cudaDevAttrMultiProcessorCount, cuda->device),
                   "asking", err) < 0 ||
        cuda_check(cudaDeviceGetAttribute(
                       &shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, cuda->device),
                   "asking", err) < 0 ||
        cuda_check(cudaStreamCreateWithFlags(&cuda->stream, cudaStreamNonBlocking),
                   "stream", err) < 0)
        return -1;
    cuda->shared_bytes_max = (size_t)shared;
    if (cuda_letter_init(cuda, err) < 0 || cuda_staging_init(&cuda->staging, err) < 0 ||
        cuda_graphs_init(cuda, err) < 0)
        return -1;
    if (cuda_matmul_init(cuda, err) < 0)
        return -1;
    return cuda_attention_init(cuda, err);
}

/* What plugin.c looks for. */
__attribute__((visibility("default"))) int
vneva_backend_cuda_create(struct backend **out, int device, struct err *err);

int vneva_backend_cuda_create(struct backend **out, int device, struct err *err)
{
    struct cuda *cuda = calloc(1, sizeof(*cuda));

    if (!cuda)
        return err_set(err, ERR_NOMEM, "cannot allocate backend 'cuda'");
    cuda->base.ops = &cuda_ops;
    cuda->device = device;
    if (open_device(cuda, err) < 0) {
        cuda_destroy(&cuda->base);
        return -1;
    }
    *out = &cuda->base;
    return 0;
}
