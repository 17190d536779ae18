/* ahead.c - bytes that come to the device on a stream of their own
 *
 * Two events keep the order: `used` is recorded behind the last call that reads what was
 * brought, and a copy waits for it; `copied` behind the copy, and the calls that read wait
 * for it. Between them the copy has no part in the order of the backend's stream.
 */
#include "model/backend/cuda/cuda.h"

static int open_stream(struct ahead *ahead, struct err *err)
{
    int least, greatest;

    if (ahead->stream)
        return 0;
    if (cuda_check(cudaDeviceGetStreamPriorityRange(&least, &greatest), "asking", err) <
            0 ||
        cuda_check(
            cudaStreamCreateWithPriority(&ahead->stream, cudaStreamNonBlocking, greatest),
            "stream for copies", err) < 0 ||
        cuda_check(cudaEventCreateWithFlags(&ahead->copied, cudaEventDisableTiming),
                   "event", err) < 0 ||
        cuda_check(cudaEventCreateWithFlags(&ahead->used, cudaEventDisableTiming),
                   "event", err) < 0)
        return -1;
    return cuda_staging_init(&ahead->staging, err);
}

void cuda_ahead_fini(struct cuda *cuda)
{
    struct ahead *ahead = &cuda->ahead;

    if (!ahead->stream)
        return;
    cudaStreamSynchronize(ahead->stream);
    cuda_staging_fini(&ahead->staging);
    if (ahead->copied)
        cudaEventDestroy(ahead->copied);
    if (ahead->used)
        cudaEventDestroy(ahead->used);
    cudaStreamDestroy(ahead->stream);
}

int cuda_ahead_upload(struct backend *b, void *dst, const void *host, size_t n_bytes,
                      struct err *err)
{
    struct cuda *cuda = cuda_of(b);
    struct ahead *ahead = &cuda->ahead;

    if (cuda_graph_refuses(cuda, "an upload", err) < 0 || open_stream(ahead, err) < 0)
        return -1;
    if (n_bytes == 0)
        return 0;
    if (cuda_check(cudaStreamWaitEvent(ahead->stream, ahead->used, 0), "event", err) <
            0 ||
        cuda_send(cuda, &ahead->staging, ahead->stream, dst, host, n_bytes, err) < 0)
        return -1;
    return cuda_check(cudaEventRecord(ahead->copied, ahead->stream), "event", err);
}

int cuda_ahead_take(struct backend *b, struct err *err)
{
    struct cuda *cuda = cuda_of(b);

    if (cuda_graph_refuses(cuda, "an upload", err) < 0)
        return -1;
    return cuda_check(cudaStreamWaitEvent(cuda->stream, cuda->ahead.copied, 0), "event",
                      err);
}

int cuda_ahead_used(struct backend *b, struct err *err)
{
    struct cuda *cuda = cuda_of(b);

    if (cuda_graph_refuses(cuda, "an upload", err) < 0)
        return -1;
    return cuda_check(cudaEventRecord(cuda->ahead.used, cuda->stream), "event", err);
}
