/* Tickets are numbered upwards; ticket i of the table has slot i of the shared memory.
 *
 *     free > queued > sent > done > free;  sent > queued (its process died over another, or
 *                                          over this one, which a GPU may be to blame for)
 *
 * Nothing runs in the background: every call moves the pool on (pool_pump). Processes
 * hold a few commands each, so they do not stand still between two calls.
 */
#define _GNU_SOURCE /* memfd_create, F_ADD_SEALS */
#include "worker/decode/pool.h"

#include "common/base/clock.h"
#include "worker/decode/cache.h"
#include "worker/decode/process.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define PROCESSES_MAX 64
#define SLOTS_MAX 4096
#define UNREAPED_MAX 64
#define GPU_LOSSES_MAX 3
/* Processes of a pool that may use the GPU: each has a context there, and no GPU has more
 * video decoders (an H100 has 7). */
#define GPU_PROCESSES_MAX 8

enum ticket_state { TICKET_FREE, TICKET_QUEUED, TICKET_SENT, TICKET_DONE };

struct ticket {
    enum ticket_state state;
    int64_t number;
    bool only_probe;
    bool on_cpu; /* a process that may use a GPU was lost over it; err says how */
    struct frame_request request;
    const struct cached_frames *cached; /* held: where the frames are instead of a slot */
    int rc;
    struct media_info info;
    struct err err;
};

struct decode_pool {
    struct decode_pool_config config;
    char *program;
    int memory_fd;   /* -1 */
    uint8_t *memory; /* read only here */
    struct decode_process processes[PROCESSES_MAX];
    pid_t unreaped[UNREAPED_MAX];
    int n_unreaped;
    struct ticket *tickets; /* [n_slots] */
    int64_t last_number;
    struct frame_cache *cache;
    struct decode_counts counts;
    int n_gpu_losses; /* of processes, over videos that the CPU decoded */
};

static size_t pool_memory_bytes(const struct decode_pool *pool)
{
    return (size_t)pool->config.n_slots * pool->config.slot_bytes;
}

static const uint8_t *ticket_slot(const struct decode_pool *pool,
                                  const struct ticket *ticket)
{
    return pool->memory + (size_t)(ticket - pool->tickets) * pool->config.slot_bytes;
}

static size_t ticket_bytes(const struct ticket *ticket, int64_t n_frames)
{
    return (size_t)(n_frames * ticket->request.image_size * ticket->request.image_size *
                    3);
}

/* Sealed: a decoder cannot take the memory away under the parent. */
static int pool_make_memory(struct decode_pool *pool, struct err *err)
{
    size_t n_bytes = pool_memory_bytes(pool);
    int fd = memfd_create("vneva-frames", MFD_CLOEXEC | MFD_ALLOW_SEALING);

    if (fd >= 0) {
        pool->memory_fd = fcntl(fd, F_DUPFD_CLOEXEC, 10);
        close(fd);
    }
    if (pool->memory_fd < 0 || ftruncate(pool->memory_fd, (off_t)n_bytes) < 0 ||
        fcntl(pool->memory_fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) <
            0)
        return err_set(err, ERR_IO, "cannot make %zu bytes of shared memory: %s", n_bytes,
                       strerror(errno));
    pool->memory = mmap(NULL, n_bytes, PROT_READ, MAP_SHARED, pool->memory_fd, 0);
    if (pool->memory == MAP_FAILED) {
        pool->memory = NULL;
        return err_set(err, ERR_IO, "cannot map %zu bytes of shared memory: %s", n_bytes,
                       strerror(errno));
    }
    return 0;
}

static bool pool_uses_gpu(const struct decode_pool *pool)
{
    return pool->config.decode != MEDIA_DECODE_CPU && pool->n_gpu_losses < GPU_LOSSES_MAX;
}

static enum media_decode process_decode(const struct decode_pool *pool,
                                        const struct decode_process *process)
{
    return pool_uses_gpu(pool) && process - pool->processes < GPU_PROCESSES_MAX
               ? pool->config.decode
               : MEDIA_DECODE_CPU;
}

static int pool_start_process(struct decode_pool *pool, struct decode_process *process,
                              struct err *err)
{
    struct decode_setup setup = {.magic = DECODE_MAGIC,
                                 .n_slots = pool->config.n_slots,
                                 .slot_bytes = pool->config.slot_bytes,
                                 .memory_bytes = pool->config.memory_bytes,
                                 .decode = process_decode(pool, process),
                                 .device = pool->config.device,
                                 .limits = pool->config.limits};

    return process_start(process, pool->program, pool->memory_fd, &setup, err);
}

static void pool_reap(struct decode_pool *pool)
{
    for (int i = 0; i < pool->n_unreaped;) {
        pid_t reaped = waitpid(pool->unreaped[i], NULL, WNOHANG);

        if (reaped == 0)
            i++;
        else
            pool->unreaped[i] = pool->unreaped[--pool->n_unreaped];
    }
}

static void pool_kill_process(struct decode_pool *pool, struct decode_process *process)
{
    pid_t left = process_kill(process);

    pool_reap(pool);
    if (left && pool->n_unreaped < UNREAPED_MAX)
        pool->unreaped[pool->n_unreaped++] = left;
}

static struct ticket *pool_find(struct decode_pool *pool, int64_t number)
{
    for (int i = 0; i < pool->config.n_slots; i++)
        if (pool->tickets[i].state != TICKET_FREE && pool->tickets[i].number == number)
            return &pool->tickets[i];
    return NULL;
}

static void ticket_fail(struct ticket *ticket, const struct err *err)
{
    ticket->state = TICKET_DONE;
    ticket->rc = -1;
    ticket->err = *err;
}

/* A video over which a process was lost is tried again where no GPU can be the cause. */
static bool ticket_may_try_cpu(const struct decode_pool *pool,
                               const struct ticket *ticket)
{
    return pool->config.decode != MEDIA_DECODE_CPU && !ticket->on_cpu &&
           !ticket->only_probe && ticket->request.media.kind == MEDIA_VIDEO;
}

/* The request a process was at is lost with it, those behind it are queued again. */
static void pool_lose_process(struct decode_pool *pool, struct decode_process *process,
                              const struct err *why)
{
    for (int i = 0; i < process->n_tickets; i++) {
        struct ticket *ticket = pool_find(pool, process->tickets[i]);

        if (i > 0 || ticket_may_try_cpu(pool, ticket)) {
            ticket->state = TICKET_QUEUED;
            if (i == 0) {
                ticket->on_cpu = true;
                ticket->err = *why;
            }
            continue;
        }
        ticket_fail(ticket, why);
        err_wrap(&ticket->err, "'%s'", ticket->request.media.path);
    }
    pool_kill_process(pool, process);
}

static void pool_count(struct decode_pool *pool, const struct ticket *ticket)
{
    struct decode_counts *counts = &pool->counts;

    if (ticket->request.media.kind != MEDIA_VIDEO)
        return;
    if (ticket->on_cpu) {
        pool->n_gpu_losses++;
        snprintf(counts->loss, sizeof(counts->loss), "%s", ticket->err.text);
    }
    if (ticket->info.on_gpu)
        counts->n_on_gpu++;
    else
        counts->n_on_cpu++;
    if (ticket->info.gpu_failed || ticket->on_cpu)
        counts->n_gpu_failed++;
}

static void pool_take_reply(struct decode_pool *pool, const struct decode_reply *reply)
{
    struct ticket *ticket = pool_find(pool, reply->ticket);
    size_t frame_bytes = ticket_bytes(ticket, 1);

    ticket->state = TICKET_DONE;
    ticket->rc = reply->rc < 0 ? -1 : 0;
    ticket->info = reply->info;
    if (ticket->rc == 0 && !ticket->only_probe)
        pool_count(pool, ticket);
    ticket->err = reply->err;
    if (ticket->rc < 0 || ticket->only_probe)
        return;
    if ((uint64_t)reply->info.n_frames > pool->config.slot_bytes / frame_bytes) {
        ticket->rc = err_set(&ticket->err, ERR_PEER, "the decoder broke the protocol");
        return;
    }
    frame_cache_put(pool->cache, &ticket->request, &ticket->info,
                    ticket_slot(pool, ticket),
                    ticket_bytes(ticket, reply->info.n_frames));
}

static void pool_receive(struct decode_pool *pool, struct decode_process *process)
{
    struct decode_reply reply;
    struct err err = {0};
    int got;

    while ((got = process_receive(process, &reply, &err)) > 0)
        pool_take_reply(pool, &reply);
    if (got < 0)
        pool_lose_process(pool, process, &err);
}

static struct ticket *pool_next_queued(struct decode_pool *pool)
{
    struct ticket *next = NULL;

    for (int i = 0; i < pool->config.n_slots; i++) {
        struct ticket *ticket = &pool->tickets[i];

        if (ticket->state == TICKET_QUEUED && (!next || ticket->number < next->number))
            next = ticket;
    }
    return next;
}

/* The process with the fewest commands; NULL when all have enough. */
static struct decode_process *pool_idlest(struct decode_pool *pool)
{
    struct decode_process *best = NULL;

    for (int i = 0; i < pool->config.n_processes; i++) {
        struct decode_process *process = &pool->processes[i];

        if (process->n_tickets < PROCESS_QUEUE_MAX &&
            (!best || process->n_tickets < best->n_tickets))
            best = process;
    }
    return best;
}

static int pool_send(struct decode_pool *pool, struct decode_process *process,
                     struct ticket *ticket, struct err *err)
{
    struct decode_command command = {.magic = DECODE_MAGIC,
                                     .slot = (int32_t)(ticket - pool->tickets),
                                     .ticket = ticket->number,
                                     .only_probe = ticket->only_probe,
                                     .on_cpu = ticket->on_cpu || !pool_uses_gpu(pool),
                                     .request = ticket->request};

    if (!process->pid && pool_start_process(pool, process, err) < 0)
        return -1;
    if (process_send(process, &command, clock_mono_ms(), err) < 0)
        return -1;
    ticket->state = TICKET_SENT;
    return 0;
}

static void pool_dispatch(struct decode_pool *pool)
{
    struct ticket *ticket;
    struct decode_process *process;

    while ((ticket = pool_next_queued(pool)) && (process = pool_idlest(pool))) {
        struct err err = {0};

        if (pool_send(pool, process, ticket, &err) == 0)
            continue;
        /* it died between two requests: one new process gets a try */
        pool_receive(pool, process);
        if (process->pid)
            pool_lose_process(pool, process, &err);
        if (pool_send(pool, process, ticket, &err) < 0)
            ticket_fail(ticket, &err);
    }
}

static int64_t process_ms_left(const struct decode_pool *pool,
                               const struct decode_process *process, int64_t now_ms)
{
    int64_t left = process->head_since_ms + pool->config.deadline_ms - now_ms;

    return left < 0 ? 0 : left;
}

static void pool_check_deadlines(struct decode_pool *pool)
{
    int64_t now_ms = clock_mono_ms();

    for (int i = 0; i < pool->config.n_processes; i++) {
        struct decode_process *process = &pool->processes[i];
        struct err err;

        if (!process->n_tickets || process_ms_left(pool, process, now_ms) > 0)
            continue;
        err_set(&err, ERR_TIMEOUT, "decoding took longer than %lld ms and was killed",
                (long long)pool->config.deadline_ms);
        pool_lose_process(pool, process, &err);
    }
}

/* Takes the replies that are there, waiting for one when is_waiting, until the nearest
 * deadline; kills what is over its deadline; sends what is queued. */
static void pool_pump(struct decode_pool *pool, bool is_waiting)
{
    struct pollfd fds[PROCESSES_MAX];
    int64_t now_ms = clock_mono_ms(), wait_ms = is_waiting ? INT32_MAX : 0;
    int n = pool->config.n_processes;

    for (int i = 0; i < n; i++) {
        struct decode_process *process = &pool->processes[i];

        fds[i] = (struct pollfd){process->n_tickets ? process->socket : -1, POLLIN, 0};
        if (process->n_tickets && process_ms_left(pool, process, now_ms) < wait_ms)
            wait_ms = process_ms_left(pool, process, now_ms);
    }
    if (poll(fds, (nfds_t)n, (int)wait_ms) > 0)
        for (int i = 0; i < n; i++)
            if (fds[i].revents)
                pool_receive(pool, &pool->processes[i]);
    pool_check_deadlines(pool);
    pool_dispatch(pool);
}

static int config_check(const struct decode_pool_config *config, struct err *err)
{
    if (config->n_processes < 1 || config->n_processes > PROCESSES_MAX)
        return err_set(err, ERR_INVALID, "%d decoder processes are not from 1 to %d",
                       config->n_processes, PROCESSES_MAX);
    if (config->n_slots < 1 || config->n_slots > SLOTS_MAX || config->slot_bytes == 0 ||
        config->slot_bytes > SIZE_MAX / 2 / (size_t)config->n_slots)
        return err_set(err, ERR_INVALID,
                       "%d slots of %zu bytes for frames are not possible",
                       config->n_slots, config->slot_bytes);
    if (config->deadline_ms < 1)
        return err_set(err, ERR_INVALID, "a deadline of %lld ms is not possible",
                       (long long)config->deadline_ms);
    return 0;
}

static int pool_set_up(struct decode_pool *pool, struct err *err)
{
    pool->program = strdup(pool->config.program);
    pool->tickets = calloc((size_t)pool->config.n_slots, sizeof(*pool->tickets));
    if (!pool->program || !pool->tickets)
        return err_set(err, ERR_NOMEM, "cannot allocate a decode pool");
    if (frame_cache_create(&pool->cache, pool->config.cache_bytes, err) < 0 ||
        pool_make_memory(pool, err) < 0)
        return -1;
    for (int i = 0; i < pool->config.n_processes; i++)
        if (pool_start_process(pool, &pool->processes[i], err) < 0)
            return -1;
    return 0;
}

int decode_pool_create(struct decode_pool **out, const struct decode_pool_config *config,
                       struct err *err)
{
    struct decode_pool *pool;

    if (config_check(config, err) < 0)
        return -1;
    pool = calloc(1, sizeof(*pool));
    if (!pool)
        return err_set(err, ERR_NOMEM, "cannot allocate a decode pool");
    pool->config = *config;
    pool->memory_fd = -1;
    for (int i = 0; i < PROCESSES_MAX; i++)
        pool->processes[i].socket = -1;
    if (pool_set_up(pool, err) < 0) {
        decode_pool_destroy(pool);
        return err_wrap(err, "cannot start the decoders");
    }
    *out = pool;
    return 0;
}

void decode_pool_destroy(struct decode_pool *pool)
{
    if (!pool)
        return;
    for (int i = 0; i < pool->config.n_processes; i++)
        pool_kill_process(pool, &pool->processes[i]);
    if (pool->memory)
        munmap(pool->memory, pool_memory_bytes(pool));
    if (pool->memory_fd >= 0)
        close(pool->memory_fd);
    frame_cache_destroy(pool->cache);
    free(pool->tickets);
    free(pool->program);
    free(pool);
}

/* What can be said without opening the file. */
static int request_check(const struct decode_pool *pool,
                         const struct frame_request *request, bool only_probe,
                         struct err *err)
{
    int64_t n = request->splice != MEDIA_SPLICE_NONE ? 1 : request->num_frames;
    int64_t size = request->image_size;

    if (size < 1 || size > 1 << 14)
        return err_set(err, ERR_INVALID, "image_size %lld is not possible",
                       (long long)size);
    if (!only_probe && n > (int64_t)(pool->config.slot_bytes / (size_t)(size * size * 3)))
        return err_set(err, ERR_LIMIT,
                       "%lld frames of %lld x %lld do not fit in a slot of %zu bytes",
                       (long long)n, (long long)size, (long long)size,
                       pool->config.slot_bytes);
    return 0;
}

static struct ticket *pool_free_ticket(struct decode_pool *pool)
{
    for (int i = 0; i < pool->config.n_slots; i++)
        if (pool->tickets[i].state == TICKET_FREE)
            return &pool->tickets[i];
    return NULL;
}

static int pool_submit(void *state, const struct frame_request *request, bool only_probe,
                       int64_t *number, struct err *err)
{
    struct decode_pool *pool = state;
    struct ticket *ticket = pool_free_ticket(pool);
    const struct cached_frames *cached;

    if (request_check(pool, request, only_probe, err) < 0)
        return -1;
    if (!ticket)
        return err_set(err, ERR_LIMIT, "all %d slots for frames are in use",
                       pool->config.n_slots);
    *ticket = (struct ticket){.state = TICKET_QUEUED,
                              .number = ++pool->last_number,
                              .only_probe = only_probe,
                              .request = *request};
    cached = only_probe ? NULL : frame_cache_hold(pool->cache, request);
    if (cached) {
        ticket->cached = cached;
        ticket->info = cached->info;
        ticket->state = TICKET_DONE;
    }
    *number = ticket->number;
    pool_pump(pool, false);
    return 0;
}

static int pool_wait(void *state, int64_t number, const uint8_t **frames,
                     struct media_info *info, struct err *err)
{
    struct decode_pool *pool = state;
    struct ticket *ticket = pool_find(pool, number);

    if (!ticket)
        return err_set(err, ERR_STATE, "no request has the ticket %lld",
                       (long long)number);
    pool_pump(pool, false);
    while (ticket->state != TICKET_DONE)
        pool_pump(pool, true);
    if (info)
        *info = ticket->info;
    if (ticket->rc < 0) {
        if (err)
            *err = ticket->err;
        return -1;
    }
    if (frames && ticket->only_probe)
        *frames = NULL;
    else if (frames)
        *frames = ticket->cached ? ticket->cached->frames : ticket_slot(pool, ticket);
    return 0;
}

/* A ticket that a process still works on keeps its slot until the process is done with
 * it, so that nothing is written into a slot that has a new owner. */
static void pool_release(void *state, int64_t number)
{
    struct decode_pool *pool = state;
    struct ticket *ticket = pool_find(pool, number);

    if (!ticket)
        return;
    while (ticket->state == TICKET_SENT)
        pool_pump(pool, true);
    if (ticket->cached)
        frame_cache_release(pool->cache, ticket->cached);
    ticket->cached = NULL;
    ticket->state = TICKET_FREE;
}

static bool pool_is_ready(void *state, int64_t number)
{
    struct ticket *ticket = pool_find(state, number);

    pool_pump(state, false);
    return ticket && ticket->state == TICKET_DONE;
}

struct frame_service decode_pool_service(struct decode_pool *pool)
{
    return (struct frame_service){.state = pool,
                                  .submit = pool_submit,
                                  .wait = pool_wait,
                                  .release = pool_release,
                                  .is_ready = pool_is_ready};
}

struct decode_counts decode_pool_counts(const struct decode_pool *pool)
{
    return pool->counts;
}
