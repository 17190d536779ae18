/* streams.h - what runtime.cpp and streams.cpp share */
#ifndef VNEVA_TESTS_CUDA_HOST_STREAMS_H
#define VNEVA_TESTS_CUDA_HOST_STREAMS_H

#include "counts.h"
#include "cuda_host.h"
#include "cuda_runtime.h"

#include <deque>
#include <vector>

struct cuda_host_stream {
    std::deque<cuda_host_work> work;
    fiber_order order;
    bool is_early; /* does what it may at once */
    cudaError_t broken = cudaSuccess;
    uint64_t n_asked = 0, n_done = 0;
    cudaGraph_t recording = nullptr; /* what is asked goes here instead */
    bool is_spoilt = false;          /* ...and is of no use any more */
};

/* Of this thread. */
extern thread_local struct cuda_host_counts counts;

/* Keeps an error for cudaGetLastError. */
cudaError_t note(cudaError_t error);

/* Work goes to the stream, recorded or not. */
cudaError_t enqueue(cudaStream_t stream, cuda_host_work what);

/* True, and the recording spoilt, where the thread that calls records: for calls that it must
 * not make then. They return cudaErrorStreamCaptureUnsupported. */
bool is_forbidden();

/* Memory of the device that is nobody's tensor. */
bool take_memory(size_t n_bytes);
void give_memory(size_t n_bytes);

#endif
