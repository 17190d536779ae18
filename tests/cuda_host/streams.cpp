/* streams.cpp - streams and events of the CUDA runtime's stand-in
 *
 * A stream does what was asked of it in its order, but only when somebody waits for it, or
 * asks; what another stream must have done first (cudaStreamWaitEvent) that one then does,
 * and nothing beyond. So of two streams without an event between them one is late as long as
 * it can be. A stream of higher priority may be early instead: it does everything as soon as
 * it is asked, but for what waits for an event, or for other ranks. With both, an event left
 * out shows as wrong numbers.
 * Environment, read when a stream is made: CUDA_HOST_ORDER (forward, reverse, scrambled):
 * the order of threads; CUDA_HOST_STREAMS (late, early): those of higher priority.
 * A stream is used by one thread at a time.
 */
#include "streams.h"

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <memory>
#include <thread>

#define PRIORITY_LEAST 0
#define PRIORITY_GREATEST (-5)

/* Of the last record. */
struct record {
    cudaStream_t stream = nullptr;
    uint64_t after = 0; /* that many things of the stream are done */
    uint64_t n = 0;     /* of the records of the event */
    std::chrono::steady_clock::time_point at;
};

struct cuda_host_event {
    std::shared_ptr<record> last;
    bool is_timed;
};

namespace
{

std::atomic<int64_t> passed_ns; /* see cuda_host_pass */

/* The device's time. */
std::chrono::steady_clock::time_point now()
{
    return std::chrono::steady_clock::now() + std::chrono::nanoseconds(passed_ns);
}

/* A stream does what it may by itself: others are not made to go on for it. */
thread_local bool is_by_itself;

/* Does what was asked until n things are done, or one cannot be done yet. */
cudaError_t run_until(cudaStream_t stream, uint64_t n)
{
    while (stream->n_done < n && stream->broken == cudaSuccess) {
        cudaError_t error = stream->work.front()();

        if (error == cudaErrorNotReady)
            return error;
        stream->work.pop_front();
        stream->broken = error;
        stream->n_done++;
    }
    return stream->broken;
}

cudaError_t wait_until(cudaStream_t stream, uint64_t n)
{
    cudaError_t error;

    if (stream->n_done < n)
        counts.n_waits++;
    while ((error = run_until(stream, n)) == cudaErrorNotReady)
        std::this_thread::sleep_for(std::chrono::microseconds(50));
    return note(error);
}

fiber_order order_of(const char *text)
{
    if (text && strcmp(text, "reverse") == 0)
        return FIBER_REVERSE;
    if (text && strcmp(text, "scrambled") == 0)
        return FIBER_SCRAMBLED;
    return FIBER_FORWARD;
}

} /* namespace */

void cuda_host_pass(double seconds)
{
    passed_ns += (int64_t)(seconds * 1e9);
}

cudaError_t enqueue(cudaStream_t stream, cuda_host_work what)
{
    if (!stream)
        return note(cudaErrorInvalidValue);
    if (stream->broken != cudaSuccess)
        return note(stream->broken);
    stream->work.push_back(std::move(what));
    stream->n_asked++;
    if (stream->is_early) {
        is_by_itself = true;
        run_until(stream, stream->n_asked);
        is_by_itself = false;
    }
    return cudaSuccess;
}

cudaError_t cuda_host_go_on(cudaStream_t stream)
{
    return run_until(stream, stream->n_asked);
}

/* ---- streams ---- */

cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest)
{
    *least = PRIORITY_LEAST;
    *greatest = PRIORITY_GREATEST;
    return cudaSuccess;
}

cudaError_t cudaStreamCreateWithPriority(cudaStream_t *out, unsigned flags, int priority)
{
    const char *text = getenv("CUDA_HOST_STREAMS");
    bool is_early = text && strcmp(text, "early") == 0;

    if (is_forbidden())
        return cudaErrorStreamCaptureUnsupported;
    if (flags != cudaStreamNonBlocking) /* the others would wait for stream 0 */
        return note(cudaErrorInvalidValue);
    *out = new cuda_host_stream{};
    (*out)->order = order_of(getenv("CUDA_HOST_ORDER"));
    (*out)->is_early = is_early && priority < PRIORITY_LEAST;
    return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *out, unsigned flags)
{
    return cudaStreamCreateWithPriority(out, flags, PRIORITY_LEAST);
}

cudaError_t cudaStreamDestroy(cudaStream_t stream)
{
    cudaError_t error = cudaStreamSynchronize(stream);

    delete stream;
    return error;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream)
{
    if (is_forbidden())
        return cudaErrorStreamCaptureUnsupported;
    return wait_until(stream, stream->n_asked);
}

cudaError_t cudaStreamQuery(cudaStream_t stream)
{
    bool is_done = stream->n_done == stream->n_asked;
    cudaError_t error;

    if (is_forbidden())
        return cudaErrorStreamCaptureUnsupported;
    error = run_until(stream, stream->n_asked);
    if (error == cudaSuccess && !is_done)
        counts.n_waits++;
    return note(error);
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags)
{
    const record last = *event->last; /* later records do not count */

    if (is_forbidden())
        return cudaErrorStreamCaptureUnsupported;
    if (flags)
        return note(cudaErrorInvalidValue);
    if (!last.stream)
        return cudaSuccess;
    return cuda_host_ask(stream, [last] {
        if (is_by_itself && last.stream->n_done < last.after)
            return last.stream->broken == cudaSuccess ? cudaErrorNotReady
                                                      : last.stream->broken;
        return run_until(last.stream, last.after);
    });
}

/* ---- events ---- */

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *out, unsigned flags)
{
    *out = new cuda_host_event{std::make_shared<record>(),
                               (flags & cudaEventDisableTiming) == 0};
    return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t event)
{
    delete event;
    return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream)
{
    std::shared_ptr<record> last = event->last;
    uint64_t n = last->n + 1;

    if (is_forbidden())
        return cudaErrorStreamCaptureUnsupported;
    if (!stream)
        return note(cudaErrorInvalidValue);
    last->stream = stream;
    last->after = stream->n_asked + 1;
    last->n = n;
    return cuda_host_ask(stream, [last, n] {
        if (last->n == n)
            last->at = now();
        return cudaSuccess;
    });
}

/* An event that others know too, recorded anew by each launch. */
cudaError_t cudaEventRecordWithFlags(cudaEvent_t event, cudaStream_t stream,
                                     unsigned flags)
{
    std::shared_ptr<record> last = event->last;

    if (flags != cudaEventRecordExternal || !cuda_host_is_recorded(stream))
        return note(cudaErrorInvalidValue); /* ours are for recordings only */
    return cuda_host_ask(stream, [last, stream] {
        last->stream = stream;
        last->after = stream->n_done + 1;
        last->n++;
        last->at = now();
        return cudaSuccess;
    });
}

cudaError_t cudaEventSynchronize(cudaEvent_t event)
{
    if (is_forbidden())
        return cudaErrorStreamCaptureUnsupported;
    return event->last->stream ? wait_until(event->last->stream, event->last->after)
                               : cudaSuccess;
}

cudaError_t cudaEventQuery(cudaEvent_t event)
{
    if (is_forbidden())
        return cudaErrorStreamCaptureUnsupported;
    return event->last->stream ? note(run_until(event->last->stream, event->last->after))
                               : cudaSuccess;
}

cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t from, cudaEvent_t to)
{
    for (const cuda_host_event *event : {from, to}) {
        const record &last = *event->last;

        if (!event->is_timed || !last.stream)
            return note(cudaErrorInvalidResourceHandle);
        if (last.stream->n_done < last.after)
            return note(cudaErrorNotReady);
    }
    *ms = std::chrono::duration<float, std::milli>(to->last->at - from->last->at).count();
    return cudaSuccess;
}
