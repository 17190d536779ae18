/* cuda_host.h - what the stand-ins of tests/cuda_host share */
#ifndef VNEVA_TESTS_CUDA_HOST_CUDA_HOST_H
#define VNEVA_TESTS_CUDA_HOST_CUDA_HOST_H

#include "cuda_runtime_api.h"

#include <functional>

#define CUDA_HOST_SHARED                                                                 \
    __attribute__((visibility("default"))) /* libnccl.so.2 calls it */

using cuda_host_work = std::function<cudaError_t()>;
using cuda_host_maker = std::function<cuda_host_work()>;

/* Work that the stream does when somebody waits for it, or asks. cudaErrorNotReady: it
 * cannot be done yet, and what is behind it waits. */
CUDA_HOST_SHARED cudaError_t cuda_host_ask(cudaStream_t stream, cuda_host_work what);
/* Likewise, made when the stream is asked; recorded work by each launch. */
CUDA_HOST_SHARED cudaError_t cuda_host_ask_made(cudaStream_t stream,
                                                cuda_host_maker make);
CUDA_HOST_SHARED bool cuda_host_is_recorded(cudaStream_t stream);

/* Does of it what can be done; cudaErrorNotReady: not all. */
CUDA_HOST_SHARED cudaError_t cuda_host_go_on(cudaStream_t stream);

/* True when [data, data + n_bytes) is device memory that was handed out. */
CUDA_HOST_SHARED bool cuda_host_is_device(const void *data, size_t n_bytes);

/* The device works for so many seconds more than the host: for events. */
CUDA_HOST_SHARED void cuda_host_pass(double seconds);

/* For counts.h. */
CUDA_HOST_SHARED void cuda_host_count_product(bool is_fused);

/* Of the thread that calls. */
CUDA_HOST_SHARED int cuda_host_device(void);

#endif
