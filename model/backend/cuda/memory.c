#include "model/backend/cuda/cuda.h"

#include <string.h>

#define STAGING_ALIGN ((size_t)256)
#define STAGING_PIECE_MAX (STAGING_BYTES / 4)
#define MIB (1 << 20)

/* ---- memory handed out: the driver's pool keeps what is given back ---- */

int cuda_alloc(struct backend *b, void **out, size_t n_bytes, struct err *err)
{
    struct cuda *cuda = cuda_of(b);
    size_t n_free = 0, n_total = 0;
    cudaError_t error;

    if (cuda_graph_refuses(cuda, "asking for memory", err) < 0)
        return -1;
    error = cudaMallocAsync(out, n_bytes ? n_bytes : 1, cuda->stream);
    b->memory.n_allocs++;
    if (error != cudaErrorMemoryAllocation)
        return cuda_check(error, "memory", err);
    cudaGetLastError(); /* it is told here; later calls shall not see it */
    cudaMemGetInfo(&n_free, &n_total);
    return err_set(err, ERR_NOMEM,
                   "cannot allocate %zu MiB on GPU %d, %zu of %zu MiB are free: try a "
                   "smaller micro batch or more recomputation",
                   n_bytes / MIB, cuda->device, n_free / MIB, n_total / MIB);
}

void cuda_free(struct backend *b, void *data)
{
    if (data)
        cudaFreeAsync(data, cuda_of(b)->stream);
}

/* Of the pool, which counts by itself. */
void cuda_memory(struct backend *b, struct backend_memory *out)
{
    size_t n_free = 0, n_total = 0;
    cudaMemPool_t pool;

    *out = b->memory;
    if (cudaMemGetInfo(&n_free, &n_total) == cudaSuccess &&
        cudaDeviceGetDefaultMemPool(&pool, cuda_of(b)->device) == cudaSuccess &&
        cudaMemPoolGetAttribute(pool, cudaMemPoolAttrUsedMemCurrent, &out->used) ==
            cudaSuccess)
        cudaMemPoolGetAttribute(pool, cudaMemPoolAttrUsedMemHigh, &out->peak);
    out->used += b->replay.n_bytes; /* they lie beside the pool */
    out->peak += b->replay.n_bytes;
    out->free = n_free;
    out->total = n_total;
    cudaGetLastError(); /* what could not be asked is no error of the next call */
}

int cuda_scratch(struct cuda *cuda, void **out, size_t n_bytes, struct err *err)
{
    if (n_bytes > cuda->scratch_bytes) {
        if (cuda_graph_refuses(cuda, "more scratch", err) < 0)
            return -1;
        cuda_graphs_drop(cuda); /* they have it where it was */
        cuda_free(&cuda->base, cuda->scratch);
        cuda->scratch = NULL;
        cuda->scratch_bytes = 0;
        if (cuda_alloc(&cuda->base, &cuda->scratch, n_bytes, err) < 0)
            return err_wrap(err, "scratch");
        cuda->scratch_bytes = n_bytes;
    }
    *out = cuda->scratch;
    return 0;
}

/* ---- staging ---- */

int cuda_staging_init(struct staging *s, struct err *err)
{
    void *pinned = NULL;

    if (cuda_check(cudaMallocHost(&pinned, STAGING_BYTES), "pinned memory", err) < 0)
        return -1;
    s->pinned = pinned;
    for (int i = 0; i < STAGING_MARKS; i++)
        if (cuda_check(
                cudaEventCreateWithFlags(&s->marks[i].event, cudaEventDisableTiming),
                "event", err) < 0)
            return -1;
    return 0;
}

void cuda_staging_fini(struct staging *s)
{
    for (int i = 0; i < STAGING_MARKS; i++)
        if (s->marks[i].event)
            cudaEventDestroy(s->marks[i].event);
    if (s->pinned)
        cudaFreeHost(s->pinned);
}

static int wait_for_oldest(struct cuda *cuda, struct staging *s, struct err *err)
{
    unsigned at = s->first_mark;

    if (cuda_wait_event(cuda, s->marks[at].event, err) < 0)
        return -1;
    s->tail = s->marks[at].end;
    s->first_mark = (at + 1) % STAGING_MARKS;
    s->n_marks--;
    return 0;
}

/* *at: where n_bytes in one piece are free. */
static int reserve(struct cuda *cuda, struct staging *s, size_t n_bytes, size_t *at,
                   struct err *err)
{
    size_t padded = (n_bytes + STAGING_ALIGN - 1) / STAGING_ALIGN * STAGING_ALIGN;
    size_t left = STAGING_BYTES - s->head % STAGING_BYTES;

    if (padded > left) /* the piece begins anew at the start */
        s->head += left;
    while (s->n_marks == STAGING_MARKS ||
           (s->n_marks && s->head + padded - s->tail > STAGING_BYTES))
        if (wait_for_oldest(cuda, s, err) < 0)
            return -1;
    *at = s->head % STAGING_BYTES;
    s->head += padded;
    return 0;
}

static int send(struct cuda *cuda, struct staging *s, cudaStream_t stream, void *dst,
                const void *host, size_t n_bytes, struct err *err)
{
    size_t at;
    unsigned mark;

    if (reserve(cuda, s, n_bytes, &at, err) < 0)
        return -1;
    memcpy(s->pinned + at, host, n_bytes);
    mark = (s->first_mark + s->n_marks) % STAGING_MARKS;
    if (cuda_check(
            cudaMemcpyAsync(dst, s->pinned + at, n_bytes, cudaMemcpyHostToDevice, stream),
            "copy to the device", err) < 0 ||
        cuda_check(cudaEventRecord(s->marks[mark].event, stream), "event", err) < 0)
        return -1;
    s->marks[mark].end = s->head;
    s->n_marks++;
    return 0;
}

int cuda_send(struct cuda *cuda, struct staging *s, cudaStream_t stream, void *dst,
              const void *host, size_t n_bytes, struct err *err)
{
    if (cuda_graph_refuses(cuda, "an upload", err) < 0)
        return -1;
    for (size_t at = 0; at < n_bytes; at += STAGING_PIECE_MAX) {
        size_t n = n_bytes - at < STAGING_PIECE_MAX ? n_bytes - at : STAGING_PIECE_MAX;

        if (send(cuda, s, stream, (char *)dst + at, (const char *)host + at, n, err) < 0)
            return -1;
    }
    return 0;
}

int cuda_upload(struct backend *b, void *dst, const void *host, size_t n_bytes,
                struct err *err)
{
    struct cuda *cuda = cuda_of(b);

    return cuda_send(cuda, &cuda->staging, cuda->stream, dst, host, n_bytes, err);
}

int cuda_download(struct backend *b, void *host, const void *src, size_t n_bytes,
                  struct err *err)
{
    struct cuda *cuda = cuda_of(b);

    if (cuda_graph_refuses(cuda, "a download", err) < 0)
        return -1;
    /* The wait comes first: a copy to memory that is not pinned waits by itself for what the
     * stream was asked before, and looks at no communicator meanwhile ("API synchronization
     * behavior"). */
    if (n_bytes && (cuda_wait(cuda, err) < 0 ||
                    cuda_check(cudaMemcpyAsync(host, src, n_bytes, cudaMemcpyDeviceToHost,
                                               cuda->stream),
                               "copy from the device", err) < 0))
        return -1;
    return cuda_sync(b, err);
}

/* ---- a download in two parts ---- */

int cuda_letter_init(struct cuda *cuda, struct err *err)
{
    return cuda_check(
        cudaEventCreateWithFlags(&cuda->letter.event, cudaEventDisableTiming), "event",
        err);
}

void cuda_letter_fini(struct cuda *cuda)
{
    if (cuda->letter.event)
        cudaEventDestroy(cuda->letter.event);
    if (cuda->letter.pinned)
        cudaFreeHost(cuda->letter.pinned);
}

/* Pinned memory of at least n_bytes: a copy to other memory would wait. */
static int letter_reserve(struct cuda *cuda, size_t n_bytes, struct err *err)
{
    struct letter *letter = &cuda->letter;

    if (n_bytes <= letter->pinned_bytes)
        return 0;
    if (letter->pinned) { /* an earlier one, forgotten, may be on its way there */
        if (cuda_wait_event(cuda, letter->event, err) < 0)
            return -1;
        cudaFreeHost(letter->pinned);
    }
    letter->pinned = NULL;
    letter->pinned_bytes = 0;
    if (cuda_check(cudaMallocHost(&letter->pinned, n_bytes), "pinned memory", err) < 0)
        return -1;
    letter->pinned_bytes = n_bytes;
    return 0;
}

int cuda_download_begin(struct backend *b, void *host, const void *src, size_t n_bytes,
                        struct err *err)
{
    struct cuda *cuda = cuda_of(b);
    struct letter *letter = &cuda->letter;

    if (cuda_graph_refuses(cuda, "a download", err) < 0 ||
        letter_reserve(cuda, n_bytes, err) < 0)
        return -1;
    letter->to = host;
    letter->n_bytes = n_bytes;
    if (n_bytes && cuda_check(cudaMemcpyAsync(letter->pinned, src, n_bytes,
                                              cudaMemcpyDeviceToHost, cuda->stream),
                              "copy from the device", err) < 0)
        return -1;
    return cuda_check(cudaEventRecord(letter->event, cuda->stream), "event", err);
}

int cuda_download_end(struct backend *b, struct err *err)
{
    struct letter *letter = &cuda_of(b)->letter;

    if (cuda_wait_event(cuda_of(b), letter->event, err) < 0)
        return -1;
    if (letter->n_bytes)
        memcpy(letter->to, letter->pinned, letter->n_bytes);
    return 0;
}

int cuda_copy(struct backend *b, void *dst, const void *src, size_t n_bytes,
              struct err *err)
{
    if (!n_bytes || dst == src)
        return 0;
    return cuda_check(
        cudaMemcpyAsync(dst, src, n_bytes, cudaMemcpyDeviceToDevice, cuda_of(b)->stream),
        "copy on the device", err);
}

int cuda_zero(struct backend *b, void *dst, size_t n_bytes, struct err *err)
{
    if (!n_bytes)
        return 0;
    return cuda_check(cudaMemsetAsync(dst, 0, n_bytes, cuda_of(b)->stream), "zeroing",
                      err);
}

int cuda_sync(struct backend *b, struct err *err)
{
    if (cuda_graph_refuses(cuda_of(b), "waiting for the device", err) < 0)
        return -1;
    return cuda_wait(cuda_of(b), err);
}
