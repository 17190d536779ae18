/* graphs.cpp - recording and replay of the CUDA runtime's stand-in
 *
 * While a stream is recorded, what is asked of it is kept and not done. Replay does it in its
 * order with the arguments of then; memory, the host's as well, is read as it is now. What
 * CUDA forbids the thread that records, it is forbidden here, and spoils the recording. Said
 * no to besides, though CUDA has ways for it: memory asked for or given back inside a
 * recording, events that are the recording's own, and other streams or graphs drawn into it.
 */
#include "streams.h"

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <thread>

#define GRAPH_BYTES ((size_t)64 << 10) /* that an executable graph takes of the device */
#define END_LOOKS 2000                 /* before what is in flight is said to hang */

struct cuda_host_graph {
    std::vector<cuda_host_maker> nodes;
};

namespace
{

thread_local cudaStream_t recorded_here;

} /* namespace */

bool is_forbidden()
{
    if (!recorded_here)
        return false;
    recorded_here->is_spoilt = true;
    note(cudaErrorStreamCaptureUnsupported);
    return true;
}

bool cuda_host_is_recorded(cudaStream_t stream)
{
    return stream && stream->recording;
}

cudaError_t cuda_host_ask_made(cudaStream_t stream, cuda_host_maker make)
{
    if (cuda_host_is_recorded(stream)) {
        if (stream->is_spoilt)
            return note(cudaErrorStreamCaptureInvalidated);
        stream->recording->nodes.push_back(std::move(make));
        return cudaSuccess;
    }
    counts.n_asked++;
    return enqueue(stream, make());
}

cudaError_t cuda_host_ask(cudaStream_t stream, cuda_host_work what)
{
    return cuda_host_ask_made(stream, [what] { return what; });
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, enum cudaStreamCaptureMode mode)
{
    if (!stream || stream->recording || recorded_here)
        return note(cudaErrorIllegalState);
    if (mode != cudaStreamCaptureModeThreadLocal) /* other threads may do as they like */
        return note(cudaErrorInvalidValue);
    stream->recording = new cuda_host_graph;
    stream->is_spoilt = false;
    recorded_here = stream;
    return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph)
{
    cuda_host_graph *recording = stream->recording;

    *graph = nullptr;
    if (!recording)
        return note(cudaErrorIllegalState);
    if (recorded_here != stream)
        return note(cudaErrorStreamCaptureWrongThread);
    stream->recording = nullptr;
    recorded_here = nullptr;
    if (stream->is_spoilt) {
        delete recording;
        return note(cudaErrorStreamCaptureInvalidated);
    }
    *graph = recording;
    return cudaSuccess;
}

cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t *nodes, size_t *n)
{
    if (nodes)
        return note(cudaErrorInvalidValue); /* only their number is known */
    *n = graph->nodes.size();
    return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph)
{
    delete graph;
    return cudaSuccess;
}

struct cuda_host_graph_exec {
    std::vector<cuda_host_maker> nodes;
    std::shared_ptr<int> in_flight = std::make_shared<int>(); /* as many have it too */
    cudaStream_t stream = nullptr;
};

cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t *exec, cudaGraph_t graph,
                                          unsigned long long flags)
{
    if (flags)
        return note(cudaErrorInvalidValue);
    if (!take_memory(GRAPH_BYTES))
        return note(cudaErrorMemoryAllocation);
    *exec = new cuda_host_graph_exec{graph->nodes};
    return cudaSuccess;
}

/* What is on its way goes on; but where it waits for ever it is never freed. */
static void check_flight(cudaGraphExec_t exec)
{
    for (int i = 0; exec->in_flight.use_count() > 1; i++) {
        if (cuda_host_go_on(exec->stream) != cudaErrorNotReady)
            return;
        if (i == END_LOOKS) {
            fprintf(stderr, "a graph in flight waits for what does not come\n");
            std::abort();
        }
        std::this_thread::sleep_for(std::chrono::microseconds(50));
    }
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec)
{
    if (is_forbidden())
        return cudaErrorStreamCaptureUnsupported;
    check_flight(exec);
    give_memory(GRAPH_BYTES);
    delete exec;
    return cudaSuccess;
}

cudaError_t cudaGraphUpload(cudaGraphExec_t exec, cudaStream_t stream)
{
    (void)exec;
    return is_forbidden() || !stream ? note(cudaErrorInvalidValue) : cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream)
{
    if (is_forbidden())
        return cudaErrorStreamCaptureUnsupported;
    counts.n_graphs++;
    exec->stream = stream;
    for (const auto &node : exec->nodes) {
        cudaError_t error = enqueue(stream, node());

        if (error != cudaSuccess)
            return error;
    }
    return enqueue(stream, [in_flight = exec->in_flight] { return cudaSuccess; });
}
