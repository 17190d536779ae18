#include "model/comm/nccl_group.h"

#include <stdlib.h>
#include <string.h>

#define CLOSE_MS 10000 /* for the others to finish too, before it is aborted */
/* Blocks a communicator may take. Those of two at once fit on a GPU of 80 processors and
 * more, however many are taken by kernels that wait for nobody: so neither keeps the other
 * from beginning. NCCL's usual choice is not above. */
#define BLOCKS_MAX 32

_Static_assert(sizeof(ncclUniqueId) == COMM_DEVICE_TOKEN_BYTES, "a token is an id");

int nccl_check_library(struct err *err)
{
    struct nccl_api api = {0};

    return nccl_load(&api, err);
}

int nccl_make_token(char token[COMM_DEVICE_TOKEN_BYTES], struct err *err)
{
    struct nccl_api api = {0};
    ncclUniqueId id;
    ncclResult_t result;

    if (nccl_load(&api, err) < 0)
        return -1;
    result = api.get_unique_id(&id);
    if (result != ncclSuccess)
        return err_set(err, ERR_IO, "NCCL makes no id: %s", api.error_string(result));
    memcpy(token, &id, sizeof(id));
    return 0;
}

static struct nccl_group *group_of(struct comm_device *device)
{
    return (struct nccl_group *)device;
}

/* ---- the collectives ---- */

/* Before each call: what it is. */
static int begin_call(struct nccl_group *group, struct nccl_mark **mark, const char *what,
                      uint64_t number, size_t n_bytes, cudaStream_t stream,
                      struct err *err)
{
    if (nccl_check_open(group, err) < 0)
        return -1;
    if ((group->set->recording ? nccl_record_piece(group, mark, err)
                               : nccl_mark_begin(group, mark, stream, err)) < 0)
        return -1;
    (*mark)->what = what;
    (*mark)->number = number;
    (*mark)->n_bytes = n_bytes;
    return 0;
}

/* After it: NCCL takes it, and an event tells when it is done. */
static int end_call(struct nccl_group *group, struct nccl_mark *mark, ncclResult_t result,
                    cudaStream_t stream, struct err *err)
{
    if (nccl_settle(group, result, mark, err) < 0)
        return -1;
    return group->set->recording ? nccl_record_piece_end(group, err)
                                 : nccl_mark_end(group, mark, stream, err);
}

static int reduce_on(struct nccl_group *g, uint64_t number, void *x, int64_t n,
                     ncclDataType_t type, enum comm_op op, cudaStream_t stream,
                     struct err *err)
{
    ncclRedOp_t nccl_op = op == COMM_MAX ? ncclMax : ncclSum;
    size_t item = type == ncclFloat64 ? sizeof(double) : sizeof(float);
    struct nccl_mark *mark;

    if (begin_call(g, &mark, "all-reduce", number, (size_t)n * item, stream, err) < 0)
        return -1;
    return end_call(g, mark,
                    g->api.all_reduce(x, x, (size_t)n, type, nccl_op, g->comm, stream),
                    stream, err);
}

static int nccl_all_reduce(struct comm_device *device, uint64_t number, float *x,
                           int64_t n, enum comm_op op, struct err *err)
{
    struct nccl_group *g = group_of(device);

    return reduce_on(g, number, x, n, ncclFloat32, op, g->set->stream, err);
}

static int nccl_all_reduce_f64(struct comm_device *device, uint64_t number, double *x,
                               int64_t n, enum comm_op op, struct err *err)
{
    struct nccl_group *g = group_of(device);

    return reduce_on(g, number, x, n, ncclFloat64, op, g->set->stream, err);
}

static int nccl_all_gather(struct comm_device *device, uint64_t number, void *out,
                           const void *mine, size_t n_bytes, struct err *err)
{
    struct nccl_group *g = group_of(device);
    cudaStream_t stream = g->set->stream;
    struct nccl_mark *mark;

    if (begin_call(g, &mark, "all-gather", number, n_bytes, stream, err) < 0)
        return -1;
    return end_call(g, mark,
                    g->api.all_gather(mine, out, n_bytes, ncclInt8, g->comm, stream),
                    stream, err);
}

static int nccl_reduce_scatter(struct comm_device *device, uint64_t number, float *out,
                               const float *x, int64_t n, struct err *err)
{
    struct nccl_group *g = group_of(device);
    cudaStream_t stream = g->set->stream;
    struct nccl_mark *mark;

    if (begin_call(g, &mark, "reduce-scatter", number, (size_t)n * sizeof(*x), stream,
                   err) < 0)
        return -1;
    return end_call(
        g, mark,
        g->api.reduce_scatter(x, out, (size_t)n, ncclFloat32, ncclSum, g->comm, stream),
        stream, err);
}

static int nccl_broadcast(struct comm_device *device, uint64_t number, void *bytes,
                          size_t n_bytes, int root, struct err *err)
{
    struct nccl_group *g = group_of(device);
    cudaStream_t stream = g->set->stream;
    struct nccl_mark *mark;

    if (begin_call(g, &mark, "broadcast", number, n_bytes, stream, err) < 0)
        return -1;
    return end_call(
        g, mark, g->api.broadcast(bytes, bytes, n_bytes, ncclInt8, root, g->comm, stream),
        stream, err);
}

/* Work of `to` that is asked for from here on comes behind what `from` was asked so far. */
static int order(const struct nccl_group *group, cudaStream_t from, cudaStream_t to,
                 cudaEvent_t event, struct err *err)
{
    if (cudaEventRecord(event, from) == cudaSuccess &&
        cudaStreamWaitEvent(to, event, 0) == cudaSuccess)
        return 0;
    return err_set(err, ERR_IO, "group '%s': cannot put two streams in order",
                   group->args.name);
}

static int nccl_all_reduce_beside(struct comm_device *device, uint64_t number, float *x,
                                  int64_t n, enum comm_op op, struct err *err)
{
    struct nccl_group *g = group_of(device);
    struct nccl_set *set = g->set;

    if (set->recording)
        return nccl_record_refuse(g, "what goes on beside", err);
    if (nccl_check_open(g, err) < 0 ||
        order(g, set->stream, set->beside, set->asked, err) < 0)
        return -1;
    g->has_beside = true;
    return reduce_on(g, number, x, n, ncclFloat32, op, set->beside, err);
}

/* A mark too: for so long the backend's work stands still. */
static int nccl_join(struct comm_device *device, struct err *err)
{
    struct nccl_group *g = group_of(device);
    struct nccl_set *set = g->set;
    struct nccl_mark *mark;
    uint64_t number = g->last_done;
    size_t n_bytes = 0;

    if (!g->has_beside)
        return 0;
    if (set->recording) /* not refused as a collective is: nobody has counted it */
        return err_set(err, ERR_STATE,
                       "group '%s': no recording of a wait for what goes on beside",
                       g->args.name);
    if (g->n_marks > 0) { /* the newest is what is waited for */
        mark = nccl_newest_mark(g);
        number = mark->number;
        n_bytes = mark->n_bytes;
    }
    if (begin_call(g, &mark, "wait for all-reduce", number, n_bytes, set->stream, err) <
            0 ||
        order(g, set->beside, set->stream, set->done, err) < 0)
        return -1;
    g->has_beside = false;
    return nccl_mark_end(g, mark, set->stream, err);
}

static int64_t nccl_take_ns(struct comm_device *device)
{
    struct nccl_group *g = group_of(device);
    struct err why; /* who waits for the device is told */
    int64_t ns;

    (void)nccl_drop_done(g, &why);
    ns = g->total_ns;
    g->total_ns = 0;
    return ns;
}

/* ---- begin and end ---- */

static bool is_idle(cudaStream_t stream)
{
    if (!stream || cudaStreamQuery(stream) == cudaSuccess)
        return true;
    cudaGetLastError();
    return false;
}

/* Lets the others finish for a while. */
static void close_comm(struct nccl_group *group)
{
    const struct nccl_mark mark = {.what = "end", .has_begun = true};

    if (!group->comm)
        return;
    group->args.timeout_ms = CLOSE_MS;
    if (nccl_settle(group, group->api.finalize(group->comm), &mark, NULL) == 0)
        group->api.destroy(group->comm);
    group->comm = NULL;
}

static void free_group(struct nccl_group *group)
{
    for (int i = 0; i < NCCL_MARKS; i++) {
        if (group->marks[i].begin)
            cudaEventDestroy(group->marks[i].begin);
        if (group->marks[i].end)
            cudaEventDestroy(group->marks[i].end);
    }
    free(group);
}

void nccl_close(struct nccl_set *set)
{
    for (int i = 0; i < set->n; i++)
        if (set->groups[i]->base.slot)
            *set->groups[i]->base.slot = NULL;
    for (int i = 0; i < set->n; i++)
        set->groups[i]->base.slot = NULL;
    if (!is_idle(set->stream) || !is_idle(set->beside))
        nccl_abort_all(set);
    set->forget_graphs(set->state);
    for (int i = set->n - 1; i >= 0; i--)
        close_comm(set->groups[i]);
    if (set->beside) {
        cudaStreamSynchronize(set->beside);
        cudaStreamDestroy(set->beside);
    }
    while (set->n > 0)
        free_group(set->groups[--set->n]);
    if (set->asked)
        cudaEventDestroy(set->asked);
    if (set->done)
        cudaEventDestroy(set->done);
    *set = (struct nccl_set){
        .stream = set->stream, .forget_graphs = set->forget_graphs, .state = set->state};
}

static const struct comm_device_ops nccl_ops = {
    .all_reduce = nccl_all_reduce,
    .all_reduce_f64 = nccl_all_reduce_f64,
    .all_gather = nccl_all_gather,
    .reduce_scatter = nccl_reduce_scatter,
    .broadcast = nccl_broadcast,
    .all_reduce_beside = nccl_all_reduce_beside,
    .join = nccl_join,
    .take_ns = nccl_take_ns,
};

/* The stream beside comes first where both have blocks that could begin: the others lose
 * little, and the ranks meet sooner. */
static int open_beside(struct nccl_set *set, struct err *err)
{
    int least, greatest;

    if (set->beside)
        return 0;
    if (cudaDeviceGetStreamPriorityRange(&least, &greatest) != cudaSuccess ||
        cudaStreamCreateWithPriority(&set->beside, cudaStreamNonBlocking, greatest) !=
            cudaSuccess ||
        cudaEventCreateWithFlags(&set->asked, cudaEventDisableTiming) != cudaSuccess ||
        cudaEventCreateWithFlags(&set->done, cudaEventDisableTiming) != cudaSuccess)
        return err_set(err, ERR_IO, "cannot make a stream for collectives");
    return 0;
}

static int make_events(struct nccl_group *group, struct err *err)
{
    for (int i = 0; i < NCCL_MARKS; i++)
        if (cudaEventCreateWithFlags(&group->marks[i].begin, cudaEventDefault) !=
                cudaSuccess ||
            cudaEventCreateWithFlags(&group->marks[i].end, cudaEventDefault) !=
                cudaSuccess)
            return err_set(err, ERR_IO, "cannot make events for group '%s'",
                           group->args.name);
    return 0;
}

static int meet(struct nccl_group *group, struct err *err)
{
    const struct nccl_mark mark = {.what = "meeting", .has_begun = true};
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    ncclUniqueId id;
    ncclResult_t result;

    config.blocking = 0;
    config.maxCTAs = BLOCKS_MAX;
    memcpy(&id, group->args.token, sizeof(id));
    result =
        group->api.init(&group->comm, group->args.n_ranks, id, group->args.rank, &config);
    if (!group->comm)
        return err_set(err, ERR_IO, "NCCL: %s", group->api.error_string(result));
    return nccl_settle(group, result, &mark, err);
}

int nccl_open(struct nccl_set *set, struct comm_device **out,
              const struct comm_device_args *args, struct err *err)
{
    struct nccl_group *group;

    if (set->n == NCCL_GROUPS_MAX)
        return err_set(err, ERR_LIMIT, "more than %d groups of ranks", NCCL_GROUPS_MAX);
    group = calloc(1, sizeof(*group));
    if (!group)
        return err_set(err, ERR_NOMEM, "cannot allocate group '%s'", args->name);
    group->base.ops = &nccl_ops;
    group->args = *args;
    group->set = set;
    if (nccl_load(&group->api, err) < 0 || open_beside(set, err) < 0 ||
        make_events(group, err) < 0) {
        free_group(group);
        return -1;
    }
    set->groups[set->n++] = group; /* from here on it is aborted with the others */
    if (meet(group, err) < 0) {
        set->n--;
        free_group(group);
        return -1;
    }
    *out = &group->base;
    return 0;
}
