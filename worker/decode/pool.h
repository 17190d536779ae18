/* pool.h - a pool of vneva-decode processes that may be killed at any time
 *
 * Each process decodes one request at a time into its part of a shared memory file; it
 * runs with a deadline per request, an address space limit and a pixel cap. One that
 * hangs or dies is killed, its request reported, a new one started.
 * With decode but MEDIA_DECODE_CPU the processes may use a GPU. A video whose decoder then
 * hangs or dies gets a second deadline, on the CPU; GPU_LOSSES_MAX that were not the video's
 * fault, and what is sent from then on is decoded on the CPU.
 * Owns: its processes and shared memory. Threads: one caller.
 * Bounds: n_slots requests are known at a time (queued, running, or waiting for release).
 */
#ifndef VNEVA_WORKER_DECODE_POOL_H
#define VNEVA_WORKER_DECODE_POOL_H

#include "dataprep/media/media.h"

struct decode_pool_config {
    int n_processes;
    int n_slots;
    size_t slot_bytes;     /* room for one request's frames */
    int64_t deadline_ms;   /* per request */
    uint64_t memory_bytes; /* of one process */
    struct media_limits limits;
    uint64_t cache_bytes; /* frames kept in memory by request, least recently used go
                                first; 0: none */
    const char *program;  /* path of vneva-decode */
    enum media_decode decode;
    int device; /* the GPU, where decode is not _CPU */
};

/* Videos decoded so far, without what the cache gave. */
struct decode_counts {
    int64_t n_on_gpu, n_on_cpu;
    int64_t n_gpu_failed; /* of n_on_cpu: a GPU had tried */
    char
        loss[ERR_TEXT_MAX]; /* how the last process was lost that a GPU is to blame for */
};

struct decode_pool;

int decode_pool_create(struct decode_pool **out, const struct decode_pool_config *config,
                       struct err *err);
void decode_pool_destroy(struct decode_pool *pool); /* kills what runs */
/* Lives as long as the pool. */
struct frame_service decode_pool_service(struct decode_pool *pool);
struct decode_counts decode_pool_counts(const struct decode_pool *pool);

#endif
