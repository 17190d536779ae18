/* streams.h - what runtime.cpp and streams.cpp share */
#ifndef VNEVA_TESTS_CUDA_HOST_STREAMS_H
#define VNEVA_TESTS_CUDA_HOST_STREAMS_H

#include "cuda_host.h"
#include "cuda_runtime.h"

#include <deque>

struct cuda_host_stream {
    std::deque<std::function<cudaError_t()>> work;
    fiber_order order;
    bool is_early; /* does what it may at once */
    cudaError_t broken = cudaSuccess;
    uint64_t n_asked = 0, n_done = 0;
};

/* Keeps an error for cudaGetLastError. */
cudaError_t note(cudaError_t error);

#endif
