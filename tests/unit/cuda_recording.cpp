/* Recording and replay of the CUDA runtime's stand-in: what it does, and that it forbids what
 * CUDA does. */
#include "cuda_runtime.h"

#include <cstdio>
#include <cstring>

static int n_failed;

static void expect(bool holds, const char *what)
{
    if (!holds)
        n_failed++;
    printf("%s %s\n", holds ? "ok  " : "FAIL", what);
}

struct device {
    cudaStream_t stream;
    int *data, *pinned; /* one number each */

    device()
    {
        cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
        cudaMallocAsync((void **)&data, sizeof(int), stream);
        cudaMallocHost((void **)&pinned, sizeof(int));
    }

    ~device()
    {
        cudaFreeAsync(data, stream);
        cudaFreeHost(pinned);
        cudaStreamDestroy(stream);
    }

    cudaError_t copy(bool is_back = false)
    {
        return is_back ? cudaMemcpyAsync(pinned, data, sizeof(int),
                                         cudaMemcpyDeviceToHost, stream)
                       : cudaMemcpyAsync(data, pinned, sizeof(int),
                                         cudaMemcpyHostToDevice, stream);
    }

    int read()
    {
        copy(true);
        cudaStreamSynchronize(stream);
        return *pinned;
    }
};

static void add(int *at, int what)
{
    *at += what;
}

static void what_is_recorded_is_done_only_when_it_is_launched()
{
    device d;
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    size_t n = 0;

    *d.pinned = 5;
    d.copy();
    cudaStreamSynchronize(d.stream);
    expect(cudaStreamBeginCapture(d.stream, cudaStreamCaptureModeThreadLocal) ==
                   cudaSuccess &&
               d.copy() == cudaSuccess,
           "recording begins");
    CUDA_LAUNCH(add, dim3(1), dim3(1), 0, d.stream, d.data, 2);
    expect(cudaStreamEndCapture(d.stream, &graph) == cudaSuccess &&
               cudaGraphGetNodes(graph, nullptr, &n) == cudaSuccess && n == 2,
           "two things are recorded");
    *d.pinned = 0;
    expect(d.read() == 5, "nothing of it was done");
    expect(cudaGraphInstantiateWithFlags(&exec, graph, 0) == cudaSuccess &&
               cudaGraphDestroy(graph) == cudaSuccess,
           "the graph outlives what it was made of");
    *d.pinned = 30; /* host memory is read when the copy is done */
    expect(cudaGraphLaunch(exec, d.stream) == cudaSuccess && d.read() == 32, "launched");
    *d.pinned = 40;
    expect(cudaGraphLaunch(exec, d.stream) == cudaSuccess &&
               cudaGraphExecDestroy(exec) == cudaSuccess && d.read() == 42,
           "launched again, with what lies there now, and gone before it is done");
}

template <typename F> static void spoils(const char *what, F call)
{
    device d;
    cudaGraph_t graph = nullptr;

    cudaStreamBeginCapture(d.stream, cudaStreamCaptureModeThreadLocal);
    expect(call(d) == cudaErrorStreamCaptureUnsupported, what);
    expect(d.copy() == cudaErrorStreamCaptureInvalidated, "nothing is recorded any more");
    expect(cudaStreamEndCapture(d.stream, &graph) == cudaErrorStreamCaptureInvalidated &&
               !graph,
           "there is no graph");
    *d.pinned = 3;
    expect(d.copy() == cudaSuccess && d.read() == 3, "the stream goes on");
    cudaGetLastError();
}

static void what_cuda_forbids_spoils_a_recording()
{
    void *more;
    cudaEvent_t event;

    cudaEventCreateWithFlags(&event, cudaEventDisableTiming);
    spoils("waiting", [](device &d) { return cudaStreamSynchronize(d.stream); });
    spoils("asking", [](device &d) { return cudaStreamQuery(d.stream); });
    spoils("asking for an event", [=](device &) { return cudaEventQuery(event); });
    spoils("waiting for it", [=](device &) { return cudaEventSynchronize(event); });
    spoils("an event", [=](device &d) { return cudaEventRecord(event, d.stream); });
    spoils("memory",
           [&](device &d) { return cudaMallocAsync(&more, sizeof(int), d.stream); });
    spoils("pinned memory", [&](device &) { return cudaMallocHost(&more, sizeof(int)); });
    cudaEventDestroy(event);
}

int main()
{
    what_is_recorded_is_done_only_when_it_is_launched();
    what_cuda_forbids_spoils_a_recording();
    return n_failed != 0;
}
