/* runtime.cpp - the CUDA runtime's stand-in: device memory is the host's, and what is asked
 * of a stream (streams.cpp) is done only when somebody waits for it, or asks whether it is
 * done
 *
 * So a missing wait shows as a missing result, and a host array that is changed or freed
 * too early as a wrong one. Stricter than the device where that is lenient: asynchronous
 * copies to it want pinned memory (others would wait in secret), memory is given back only
 * when the stream gets there and is full of NaN at first, a failed kernel breaks the
 * stream for good.
 * Environment: CUDA_HOST_DEVICES (1), CUDA_HOST_MEMORY (bytes; no bound), CUDA_HOST_SHARED
 * (bytes that a block may have; an H100's).
 */
#include "streams.h"

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <mutex>

#define N_PROCESSORS 3 /* few, so that small shapes take every loop over the grid twice */
#define STAND_IN_VERSION 13000            /* CUDA 13.0 */
#define SHARED_UNASKED ((size_t)48 << 10) /* that a kernel may have, of shared memory */
#define GRID_X_MAX 0x7fffffffU
#define GRID_YZ_MAX 65535U

struct cuda_host_pool {
    uint64_t threshold;
};

namespace
{

struct memory {
    std::mutex lock;
    std::map<void *, size_t> device, pinned;
    size_t used = 0, most = 0, taken = 0; /* of the pool; beside it */
};

memory &all_memory()
{
    static memory m;

    return m;
}

thread_local cudaError_t last_error;
thread_local int current_device;

size_t env_number(const char *name, size_t otherwise)
{
    const char *text = getenv(name);

    return text ? (size_t)strtoull(text, nullptr, 10) : otherwise;
}

/* True when [data, data + n) lies in one piece of that kind. */
bool is_within(const std::map<void *, size_t> &pieces, const void *data, size_t n)
{
    auto after = pieces.upper_bound((void *)data);

    if (after == pieces.begin())
        return false;
    --after;
    return (const char *)data + n <= (const char *)after->first + after->second;
}

bool is_device(const void *data, size_t n)
{
    memory &m = all_memory();
    std::lock_guard<std::mutex> hold(m.lock);

    return is_within(m.device, data, n);
}

bool is_pinned(const void *data, size_t n)
{
    memory &m = all_memory();
    std::lock_guard<std::mutex> hold(m.lock);

    return is_within(m.pinned, data, n);
}

} /* namespace */

cudaError_t note(cudaError_t error)
{
    if (error != cudaSuccess)
        last_error = error;
    return error;
}

bool cuda_host_is_device(const void *data, size_t n_bytes)
{
    return is_device(data, n_bytes);
}

thread_local struct cuda_host_counts counts;

struct cuda_host_counts cuda_host_counts(void)
{
    return counts;
}

void cuda_host_count_product(bool is_fused)
{
    (is_fused ? counts.n_fused : counts.n_products)++;
}

/* Kernels that may have more shared memory than others, and how much. */
struct allowances {
    std::mutex lock;
    std::map<const void *, size_t> bytes;
};

static allowances &all_allowances()
{
    static allowances a;

    return a;
}

static size_t shared_allowed(const void *kernel)
{
    allowances &a = all_allowances();
    std::lock_guard<std::mutex> hold(a.lock);
    auto at = a.bytes.find(kernel);

    return at == a.bytes.end() ? SHARED_UNASKED : at->second;
}

cudaError_t cudaFuncSetAttribute(const void *kernel, enum cudaFuncAttribute attr,
                                 int value)
{
    allowances &a = all_allowances();
    std::lock_guard<std::mutex> hold(a.lock);

    if (attr != cudaFuncAttributeMaxDynamicSharedMemorySize || value < 0 ||
        (size_t)value > env_number("CUDA_HOST_SHARED", FIBER_SHARED_MAX))
        return note(cudaErrorInvalidValue);
    a.bytes[kernel] = (size_t)value;
    return cudaSuccess;
}

void cuda_host_launch(cudaStream_t stream, const char *where, dim3 grid, dim3 block,
                      size_t shared_bytes, const void *kernel, std::function<void()> run)
{
    size_t n_blocks = (size_t)grid.x * grid.y * grid.z;
    size_t n_threads = (size_t)block.x * block.y * block.z;

    if (grid.x > GRID_X_MAX || grid.y > GRID_YZ_MAX || grid.z > GRID_YZ_MAX ||
        n_blocks == 0 || n_threads == 0 || n_threads > FIBER_THREADS_MAX ||
        shared_bytes > shared_allowed(kernel)) {
        fprintf(stderr, "%s: cannot launch %zu blocks of %zu threads\n", where, n_blocks,
                n_threads);
        note(cudaErrorInvalidConfiguration);
        return;
    }
    counts.n_kernels++;
    cuda_host_ask(stream, [=] {
        const char *wrong = fiber_run(grid, block, shared_bytes, stream->order, run);

        if (wrong)
            fprintf(stderr, "kernel of %s: %s\n", where, wrong);
        return wrong ? cudaErrorLaunchFailure : cudaSuccess;
    });
}

const char *cudaGetErrorString(cudaError_t error)
{
    switch (error) {
    case cudaSuccess:
        return "no error";
    case cudaErrorInvalidValue:
        return "invalid argument";
    case cudaErrorMemoryAllocation:
        return "out of memory";
    case cudaErrorInvalidConfiguration:
        return "invalid configuration argument";
    case cudaErrorInsufficientDriver:
        return "CUDA driver version is insufficient for CUDA runtime version";
    case cudaErrorNoDevice:
        return "no CUDA-capable device is detected";
    case cudaErrorInvalidDevice:
        return "invalid device ordinal";
    case cudaErrorInvalidResourceHandle:
        return "invalid resource handle";
    case cudaErrorNotReady:
        return "device not ready";
    case cudaErrorIllegalAddress:
        return "an illegal memory access was encountered";
    case cudaErrorIllegalState:
        return "the operation cannot be performed in the present state";
    case cudaErrorLaunchFailure:
        return "unspecified launch failure";
    case cudaErrorStreamCaptureUnsupported:
        return "operation not permitted when stream is capturing";
    case cudaErrorStreamCaptureInvalidated:
        return "operation failed due to a previous error during capture";
    case cudaErrorStreamCaptureWrongThread:
        return "attempt to terminate a thread-local capture sequence from another thread";
    }
    return "unrecognized error code";
}

cudaError_t cudaGetLastError(void)
{
    cudaError_t error = last_error;

    last_error = cudaSuccess;
    return error;
}

/* ---- devices ---- */

cudaError_t cudaDriverGetVersion(int *version)
{
    *version = STAND_IN_VERSION;
    return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int *version)
{
    *version = STAND_IN_VERSION;
    return cudaSuccess;
}

cudaError_t cudaGetDeviceCount(int *n)
{
    *n = (int)env_number("CUDA_HOST_DEVICES", 1);
    return *n > 0 ? cudaSuccess : note(cudaErrorNoDevice);
}

cudaError_t cudaSetDevice(int device)
{
    int n;

    if (cudaGetDeviceCount(&n) != cudaSuccess || device < 0 || device >= n)
        return note(cudaErrorInvalidDevice);
    current_device = device;
    return cudaSuccess;
}

int cuda_host_device(void)
{
    return current_device;
}

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *properties, int device)
{
    *properties = {};
    snprintf(properties->name, sizeof(properties->name), "host stand-in");
    memcpy(properties->uuid.bytes, &device, sizeof(device));
    return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr attr, int device)
{
    (void)device;
    *value = attr == cudaDevAttrMultiProcessorCount      ? N_PROCESSORS
             : attr == cudaDevAttrComputeCapabilityMajor ? 9
             : attr == cudaDevAttrMaxSharedMemoryPerBlockOptin
                 ? (int)env_number("CUDA_HOST_SHARED", FIBER_SHARED_MAX)
                 : 1;
    return cudaSuccess;
}

cudaError_t cudaDeviceGetDefaultMemPool(cudaMemPool_t *pool, int device)
{
    static cuda_host_pool only;

    (void)device;
    *pool = &only;
    return cudaSuccess;
}

cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t pool, enum cudaMemPoolAttr attr,
                                    void *value)
{
    memory &m = all_memory();
    std::lock_guard<std::mutex> hold(m.lock);

    if (attr == cudaMemPoolAttrReleaseThreshold)
        pool->threshold = *(uint64_t *)value;
    else if (attr == cudaMemPoolAttrUsedMemHigh && *(uint64_t *)value == 0)
        m.most = m.used;
    else
        return note(cudaErrorInvalidValue);
    return cudaSuccess;
}

cudaError_t cudaMemPoolGetAttribute(cudaMemPool_t pool, enum cudaMemPoolAttr attr,
                                    void *value)
{
    memory &m = all_memory();
    std::lock_guard<std::mutex> hold(m.lock);

    if (attr == cudaMemPoolAttrReleaseThreshold)
        *(uint64_t *)value = pool->threshold;
    else
        *(uint64_t *)value = attr == cudaMemPoolAttrUsedMemHigh ? m.most : m.used;
    return cudaSuccess;
}

/* ---- memory ---- */

cudaError_t cudaMemGetInfo(size_t *n_free, size_t *n_total)
{
    memory &m = all_memory();
    std::lock_guard<std::mutex> hold(m.lock);

    *n_total = env_number("CUDA_HOST_MEMORY", SIZE_MAX / 2);
    *n_free = *n_total - m.used - m.taken;
    return cudaSuccess;
}

bool take_memory(size_t n_bytes)
{
    memory &m = all_memory();
    std::lock_guard<std::mutex> hold(m.lock);

    if (n_bytes > env_number("CUDA_HOST_MEMORY", SIZE_MAX / 2) - m.used - m.taken)
        return false;
    m.taken += n_bytes;
    return true;
}

void give_memory(size_t n_bytes)
{
    memory &m = all_memory();
    std::lock_guard<std::mutex> hold(m.lock);

    m.taken -= n_bytes;
}

cudaError_t cudaMallocAsync(void **out, size_t n_bytes, cudaStream_t stream)
{
    memory &m = all_memory();
    std::lock_guard<std::mutex> hold(m.lock);
    void *data = nullptr;

    if (is_forbidden())
        return cudaErrorStreamCaptureUnsupported;
    if (!stream)
        return note(cudaErrorInvalidValue);
    if (n_bytes > env_number("CUDA_HOST_MEMORY", SIZE_MAX / 2) - m.used - m.taken ||
        posix_memalign(&data, 512, n_bytes) != 0)
        return note(cudaErrorMemoryAllocation);
    memset(data, 0xff, n_bytes);
    m.device[data] = n_bytes;
    m.used += n_bytes;
    m.most = m.used > m.most ? m.used : m.most;
    *out = data;
    return cudaSuccess;
}

/* What comes later on the stream may have the memory at once, so it counts as free; it goes
 * when the stream gets there. */
cudaError_t cudaFreeAsync(void *data, cudaStream_t stream)
{
    memory &m = all_memory();
    cudaError_t error;

    if (is_forbidden())
        return cudaErrorStreamCaptureUnsupported;
    if (!data)
        return cudaSuccess;
    error = cuda_host_ask(stream, [=] {
        memory &m = all_memory();
        std::lock_guard<std::mutex> hold(m.lock);

        if (m.device.erase(data) == 0)
            return cudaErrorInvalidValue;
        free(data);
        return cudaSuccess;
    });
    if (error == cudaSuccess) {
        std::lock_guard<std::mutex> hold(m.lock);
        auto at = m.device.find(data);

        m.used -= at == m.device.end() ? 0 : at->second;
    }
    return error;
}

cudaError_t cudaMallocHost(void **out, size_t n_bytes)
{
    memory &m = all_memory();
    std::lock_guard<std::mutex> hold(m.lock);

    if (is_forbidden())
        return cudaErrorStreamCaptureUnsupported;
    counts.n_waits++;
    *out = malloc(n_bytes);
    if (!*out)
        return note(cudaErrorMemoryAllocation);
    m.pinned[*out] = n_bytes;
    return cudaSuccess;
}

cudaError_t cudaFreeHost(void *data)
{
    memory &m = all_memory();
    std::lock_guard<std::mutex> hold(m.lock);

    if (is_forbidden())
        return cudaErrorStreamCaptureUnsupported;
    counts.n_waits++;
    m.pinned.erase(data);
    free(data);
    return cudaSuccess;
}

/* A copy that waits in secret for other ranks may wait for ever. */
static cudaError_t wait_in_secret(cudaStream_t stream)
{
    cudaError_t error = cuda_host_go_on(stream);

    counts.n_waits++;
    if (error == cudaErrorNotReady) {
        fprintf(stderr, "a copy to memory that is not pinned waits for other ranks\n");
        std::abort();
    }
    return note(error);
}

cudaError_t cudaMemcpyAsync(void *dst, const void *src, size_t n_bytes,
                            enum cudaMemcpyKind kind, cudaStream_t stream)
{
    bool from_device = kind != cudaMemcpyHostToDevice;
    bool to_device = kind != cudaMemcpyDeviceToHost;
    cudaError_t error;

    if (from_device ? !is_device(src, n_bytes) : !is_pinned(src, n_bytes))
        return note(cudaErrorInvalidValue);
    if (is_device(dst, n_bytes) != to_device)
        return note(cudaErrorInvalidValue);
    error = cuda_host_ask(stream, [=] {
        memmove(dst, src, n_bytes);
        return cudaSuccess;
    });
    if (error != cudaSuccess || to_device || is_pinned(dst, n_bytes))
        return error;
    return cuda_host_is_recorded(stream) ? cudaSuccess : wait_in_secret(stream);
}

cudaError_t cudaMemsetAsync(void *dst, int value, size_t n_bytes, cudaStream_t stream)
{
    if (!is_device(dst, n_bytes))
        return note(cudaErrorInvalidValue);
    return cuda_host_ask(stream, [=] {
        memset(dst, value, n_bytes);
        return cudaSuccess;
    });
}
