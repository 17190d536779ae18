#include "model/comm/nccl.h"

#include "common/base/clock.h"

#include <dlfcn.h>
#include <nccl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#ifndef NCCL_LIBRARY /* tests name their stand-in */
#define NCCL_LIBRARY "libnccl.so.2"
#endif
#define NCCL_VERSION_MIN 21800
#define CLOSE_MS 10000 /* for the others to finish too, before it is aborted */
#define POLL_NS 50000
#define MARKS 64 /* collectives on their way that are told apart */

_Static_assert(sizeof(ncclUniqueId) == COMM_DEVICE_TOKEN_BYTES, "a token is an id");

/* ---- the library ---- */

/* name in NCCL, type */
#define NCCL_FUNCTIONS(X)                                                                \
    X(get_version, ncclGetVersion)                                                       \
    X(get_unique_id, ncclGetUniqueId)                                                    \
    X(init, ncclCommInitRankConfig)                                                      \
    X(async_error, ncclCommGetAsyncError)                                                \
    X(finalize, ncclCommFinalize)                                                        \
    X(destroy, ncclCommDestroy)                                                          \
    X(abort, ncclCommAbort)                                                              \
    X(error_string, ncclGetErrorString)                                                  \
    X(last_error, ncclGetLastError)                                                      \
    X(all_reduce, ncclAllReduce)                                                         \
    X(all_gather, ncclAllGather)                                                         \
    X(reduce_scatter, ncclReduceScatter)                                                 \
    X(broadcast, ncclBroadcast)

#define NCCL_FIELD(field, function) __typeof__(function) *(field);
struct nccl_api {
    NCCL_FUNCTIONS(NCCL_FIELD)
};

#define NCCL_NAME(field, function) #function,
static const char *const function_names[] = {NCCL_FUNCTIONS(NCCL_NAME)};
#define N_FUNCTIONS (sizeof(function_names) / sizeof(function_names[0]))

/* The library stays open for the life of the process. */
static int load(struct nccl_api *api, struct err *err)
{
    void *library = dlopen(NCCL_LIBRARY, RTLD_NOW | RTLD_LOCAL), *symbols[N_FUNCTIONS];
    int version = 0;

    if (!library) {
        err_set(err, ERR_UNSUPPORTED, "cannot open NCCL (%s)", dlerror());
        return -1;
    }
    for (size_t i = 0; i < N_FUNCTIONS; i++) {
        symbols[i] = dlsym(library, function_names[i]);
        if (!symbols[i]) {
            err_set(err, ERR_UNSUPPORTED, "%s has no function %s: 2.18 is needed",
                    NCCL_LIBRARY, function_names[i]);
            return -1;
        }
    }
    memcpy(api, symbols, sizeof(*api)); /* ISO C has no cast to a function pointer */
    if (api->get_version(&version) != ncclSuccess || version < NCCL_VERSION_MIN) {
        err_set(err, ERR_UNSUPPORTED, "NCCL is of version %d, %d is needed", version,
                NCCL_VERSION_MIN);
        return -1;
    }
    return 0;
}

int nccl_check_library(struct err *err)
{
    struct nccl_api api = {0};

    return load(&api, err);
}

int nccl_make_token(char token[COMM_DEVICE_TOKEN_BYTES], struct err *err)
{
    struct nccl_api api = {0};
    ncclUniqueId id;
    ncclResult_t result;

    if (load(&api, err) < 0)
        return -1;
    result = api.get_unique_id(&id);
    if (result != ncclSuccess)
        return err_set(err, ERR_IO, "NCCL makes no id: %s", api.error_string(result));
    memcpy(token, &id, sizeof(id));
    return 0;
}

/* ---- a group ---- */

/* A collective on its way: the event is behind it on the stream. */
struct mark {
    cudaEvent_t event;
    uint64_t number;
    const char *what;
};

struct nccl_group {
    struct comm_device base;
    struct nccl_api api;
    ncclComm_t comm; /* NULL: aborted */
    cudaStream_t stream;
    struct comm_device_args args;
    struct mark marks[MARKS];
    unsigned first_mark, n_marks;
    int64_t progress_ns; /* when one was last seen to be done */
};

static struct nccl_group *group_of(struct comm_device *device)
{
    return (struct nccl_group *)device;
}

struct comm_device *nccl_device(struct nccl_group *group)
{
    return &group->base;
}

static void abort_group(struct nccl_group *group)
{
    if (group->comm)
        group->api.abort(group->comm);
    group->comm = NULL;
}

static const char *last_words(const struct nccl_group *group, ncclResult_t result)
{
    const char *text = group->comm ? group->api.last_error(group->comm) : NULL;

    return text && *text ? text : group->api.error_string(result);
}

/* The group is of no use any more. */
static int fail(struct nccl_group *group, ncclResult_t result, const char *what,
                uint64_t number, struct err *err)
{
    const struct comm_device_args *args = &group->args;
    bool is_peer = result == ncclRemoteError || result == ncclSystemError;

    err_set(
        err, is_peer ? ERR_PEER : ERR_IO,
        "group '%s', %s number %llu between devices: rank %d of %d lost the others: %s",
        args->name, what, (unsigned long long)number, args->rank, args->n_ranks,
        last_words(group, result));
    abort_group(group);
    return -1;
}

static int fail_late(struct nccl_group *group, int64_t waited_ms, const char *what,
                     uint64_t number, struct err *err)
{
    const struct comm_device_args *args = &group->args;

    err_set(err, ERR_TIMEOUT,
            "group '%s', %s number %llu between devices: rank %d waited %lld ms in vain; "
            "of the other ranks, 0 to %d, one or more did not come",
            args->name, what, (unsigned long long)number, args->rank,
            (long long)waited_ms, args->n_ranks - 1);
    abort_group(group);
    return -1;
}

/* Waits until NCCL has taken a call, which it does in the background. */
static int settle(struct nccl_group *group, ncclResult_t result, const char *what,
                  uint64_t number, struct err *err)
{
    const struct timespec pause = {.tv_nsec = POLL_NS};
    int64_t begun_ns = clock_mono_ns(), waited_ms = 0;

    while (result == ncclInProgress && waited_ms <= group->args.timeout_ms) {
        ncclResult_t asked = group->api.async_error(group->comm, &result);

        if (asked != ncclSuccess)
            result = asked;
        if (result == ncclInProgress)
            nanosleep(&pause, NULL);
        waited_ms = (clock_mono_ns() - begun_ns) / 1000000;
    }
    if (result == ncclInProgress)
        return fail_late(group, waited_ms, what, number, err);
    return result == ncclSuccess ? 0 : fail(group, result, what, number, err);
}

/* Marks that the stream has passed are forgotten. */
static int drop_done(struct nccl_group *group, struct err *err)
{
    while (group->n_marks > 0) {
        struct mark *mark = &group->marks[group->first_mark];
        cudaError_t error = cudaEventQuery(mark->event);

        if (error == cudaErrorNotReady) {
            cudaGetLastError(); /* no error, but kept as one */
            return 0;
        }
        if (error != cudaSuccess)
            return err_set(err, ERR_IO, "group '%s', %s number %llu between devices: %s",
                           group->args.name, mark->what, (unsigned long long)mark->number,
                           cudaGetErrorString(error));
        group->progress_ns = clock_mono_ns();
        group->first_mark = (group->first_mark + 1) % MARKS;
        group->n_marks--;
    }
    return 0;
}

int nccl_watch(struct nccl_group *group, int64_t waiting_since_ns, struct err *err)
{
    const struct mark *mark;
    ncclResult_t result = ncclSuccess, asked;
    int64_t since_ns, waited_ms;

    if (!group->comm)
        return 0; /* it was told; what is left on the stream ends by itself */
    if (drop_done(group, err) < 0)
        return -1;
    if (group->n_marks == 0)
        return 0;
    mark = &group->marks[group->first_mark];
    asked = group->api.async_error(group->comm, &result);
    if (asked != ncclSuccess)
        result = asked;
    if (result != ncclSuccess && result != ncclInProgress)
        return fail(group, result, mark->what, mark->number, err);
    since_ns =
        group->progress_ns > waiting_since_ns ? group->progress_ns : waiting_since_ns;
    waited_ms = (clock_mono_ns() - since_ns) / 1000000;
    if (waited_ms > group->args.timeout_ms)
        return fail_late(group, waited_ms, mark->what, mark->number, err);
    return 0;
}

bool nccl_begin_wait(struct nccl_group *group)
{
    if (group->n_marks == 0 || !group->base.slot)
        return false;
    group->args.note_wait(group->args.group, true);
    return true;
}

void nccl_end_wait(struct nccl_group *group)
{
    group->args.note_wait(group->args.group, false);
}

/* After each call: NCCL takes it, and an event tells when it is done. When there are too
 * many on their way the newest share a mark, the last of them. */
static int asked(struct nccl_group *group, ncclResult_t result, const char *what,
                 uint64_t number, struct err *err)
{
    struct mark *mark;

    if (settle(group, result, what, number, err) < 0 || drop_done(group, err) < 0)
        return -1;
    if (group->n_marks < MARKS)
        group->n_marks++;
    mark = &group->marks[(group->first_mark + group->n_marks - 1) % MARKS];
    mark->number = number;
    mark->what = what;
    if (cudaEventRecord(mark->event, group->stream) != cudaSuccess)
        return err_set(err, ERR_IO, "event behind a collective");
    return 0;
}

static int check_open(const struct nccl_group *group, struct err *err)
{
    if (group->comm)
        return 0;
    return err_set(err, ERR_STATE, "group '%s' was given up after an earlier error",
                   group->args.name);
}

/* ---- the collectives ---- */

static int nccl_all_reduce(struct comm_device *device, uint64_t number, float *x,
                           int64_t n, enum comm_op op, struct err *err)
{
    struct nccl_group *g = group_of(device);

    if (check_open(g, err) < 0)
        return -1;
    return asked(g,
                 g->api.all_reduce(x, x, (size_t)n, ncclFloat32,
                                   op == COMM_MAX ? ncclMax : ncclSum, g->comm,
                                   g->stream),
                 "all-reduce", number, err);
}

static int nccl_all_gather(struct comm_device *device, uint64_t number, void *out,
                           const void *mine, size_t n_bytes, struct err *err)
{
    struct nccl_group *g = group_of(device);

    if (check_open(g, err) < 0)
        return -1;
    return asked(g, g->api.all_gather(mine, out, n_bytes, ncclInt8, g->comm, g->stream),
                 "all-gather", number, err);
}

static int nccl_reduce_scatter(struct comm_device *device, uint64_t number, float *out,
                               const float *x, int64_t n, struct err *err)
{
    struct nccl_group *g = group_of(device);

    if (check_open(g, err) < 0)
        return -1;
    return asked(g,
                 g->api.reduce_scatter(x, out, (size_t)n, ncclFloat32, ncclSum, g->comm,
                                       g->stream),
                 "reduce-scatter", number, err);
}

static int nccl_broadcast(struct comm_device *device, uint64_t number, void *bytes,
                          size_t n_bytes, int root, struct err *err)
{
    struct nccl_group *g = group_of(device);

    if (check_open(g, err) < 0)
        return -1;
    return asked(
        g, g->api.broadcast(bytes, bytes, n_bytes, ncclInt8, root, g->comm, g->stream),
        "broadcast", number, err);
}

/* ---- begin and end ---- */

/* Lets the others finish for a while; a communicator with work left is aborted. */
static void close_comm(struct nccl_group *group)
{
    if (!group->comm)
        return;
    group->args.timeout_ms = CLOSE_MS;
    if (cudaStreamQuery(group->stream) != cudaSuccess) {
        cudaGetLastError();
        abort_group(group);
        return;
    }
    if (settle(group, group->api.finalize(group->comm), "end", 0, NULL) == 0)
        group->api.destroy(group->comm);
}

void nccl_close(struct nccl_group *group)
{
    if (group->base.slot)
        *group->base.slot = NULL;
    close_comm(group);
    for (int i = 0; i < MARKS; i++)
        if (group->marks[i].event)
            cudaEventDestroy(group->marks[i].event);
    free(group);
}

static const struct comm_device_ops nccl_ops = {
    .all_reduce = nccl_all_reduce,
    .all_gather = nccl_all_gather,
    .reduce_scatter = nccl_reduce_scatter,
    .broadcast = nccl_broadcast,
};

static int meet(struct nccl_group *group, struct err *err)
{
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    ncclUniqueId id;
    ncclResult_t result;

    config.blocking = 0;
    memcpy(&id, group->args.token, sizeof(id));
    result =
        group->api.init(&group->comm, group->args.n_ranks, id, group->args.rank, &config);
    if (!group->comm)
        return err_set(err, ERR_IO, "NCCL: %s", group->api.error_string(result));
    return settle(group, result, "meeting", 0, err);
}

int nccl_open(struct nccl_group **out, const struct comm_device_args *args,
              cudaStream_t stream, struct err *err)
{
    struct nccl_group *group = calloc(1, sizeof(*group));

    if (!group)
        return err_set(err, ERR_NOMEM, "cannot allocate group '%s'", args->name);
    group->base.ops = &nccl_ops;
    group->args = *args;
    group->stream = stream;
    for (int i = 0; i < MARKS; i++)
        if (cudaEventCreateWithFlags(&group->marks[i].event, cudaEventDisableTiming) !=
            cudaSuccess) {
            err_set(err, ERR_IO, "cannot make events for group '%s'", args->name);
            goto fail;
        }
    if (load(&group->api, err) < 0 || meet(group, err) < 0)
        goto fail;
    *out = group;
    return 0;
fail:
    nccl_close(group);
    return -1;
}
