/* nccl.cpp - NCCL's stand-in: ranks are threads of one process that meet in a room
 *
 * A library of its own, libnccl.so.2, opened as the real one is. A collective is work of the
 * rank's stream that cannot be done before all ranks have come to it; it is then done for
 * all at once, while their streams stand still. Calls are always still in progress when they
 * return, as those of communicators that do not block may be.
 * Refuses what NCCL refuses (two ranks on a device, communicators that block would hang) and
 * what it would not notice: ranks that do different things, memory that is not the
 * device's, buffers that overlap other than in place. A rank that leaves or aborts while
 * others wait for it is a remote error for them. An abort waits for its communicator's work,
 * within a group of calls at its end: work that another communicator holds up ends the
 * process, for NCCL would hang; so do graphs that have collectives of the communicator.
 * Recorded collectives are numbered with each launch, and meet only those of the same
 * place in the same recording. Unless NCCL_GRAPH_REGISTER is 0 their buffers are registered:
 * none is taken before all ranks record it.
 * Environment: CUDA_HOST_NCCL_VERSION (22809), CUDA_HOST_NCCL_FULL: ranks find no memory.
 * Source: NCCL user guide, API reference, source.
 */
#include "nccl.h"

#include "cuda_host.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#define SHARED extern "C" __attribute__((visibility("default")))

#define ABORT_LOOKS 2000 /* before it is said to hang */

namespace
{

enum kind { ALL_REDUCE, ALL_GATHER, REDUCE_SCATTER, BROADCAST };

struct call {
    enum kind kind;
    ncclDataType_t type;
    ncclRedOp_t op;
    size_t count;
    int root;
    const void *from;
    void *to;
    uint64_t recording = 0, place = 0; /* in it; 0: it was not recorded */
};

/* A collective that some ranks have come to. */
struct meeting {
    std::vector<call> calls;
    std::vector<bool> has_come;
    int n_come = 0, n_gone = 0;
    bool is_done = false;
};

struct room {
    std::mutex lock;
    int n_ranks = 0;
    std::set<int> ranks, devices;
    std::map<uint64_t, meeting> meetings;
    std::map<uint64_t, int>
        registered; /* for the n-th that was recorded, by so many ranks */
    int n_left = 0;
    ncclResult_t wrong = ncclSuccess;
    std::string why;

    void fail(ncclResult_t result, const std::string &text)
    {
        if (wrong == ncclSuccess) {
            wrong = result;
            why = text;
        }
    }
};

struct seat {
    std::shared_ptr<struct room> room;
    int rank = 0;
    uint64_t n_asked = 0;
    uint64_t recording = 0, n_recorded = 0; /* the newest: after so many, in it so many */
    uint64_t n_registered = 0;
    std::shared_ptr<int> graphs = std::make_shared<int>(); /* as many have it too */
    bool has_left = false; /* read and written with the room's lock */
    int n_polls_left = 0;  /* until a call is taken */
    std::set<cudaStream_t> streams;
    std::atomic<int> n_pending{0}; /* collectives that were asked for and are not done */
};

std::mutex rooms_lock;
std::map<uint64_t, std::shared_ptr<room>> rooms;

size_t item_bytes(ncclDataType_t type)
{
    return type == ncclFloat32 ? sizeof(float) : type == ncclFloat64 ? sizeof(double) : 1;
}

bool is_same(const call &a, const call &b)
{
    return a.kind == b.kind && a.type == b.type && a.op == b.op && a.count == b.count &&
           a.root == b.root && a.recording == b.recording && a.place == b.place;
}

/* The sum or maximum over the ranks of element i, in the order of ranks. */
template <typename T> T combine(const std::vector<call> &calls, size_t i)
{
    T all = ((const T *)calls[0].from)[i];

    for (size_t r = 1; r < calls.size(); r++) {
        T x = ((const T *)calls[r].from)[i];

        all = calls[r].op == ncclMax ? std::fmax(all, x) : all + x;
    }
    return all;
}

template <typename T> void reduce(const std::vector<call> &calls)
{
    size_t n = calls[0].count;
    bool is_whole = calls[0].kind == ALL_REDUCE;
    std::vector<T> sums(is_whole ? n : n * calls.size());

    for (size_t i = 0; i < sums.size(); i++)
        sums[i] = combine<T>(calls, i);
    for (size_t r = 0; r < calls.size(); r++)
        memcpy(calls[r].to, &sums[is_whole ? 0 : r * n], n * sizeof(T));
}

void do_all(const std::vector<call> &calls)
{
    const call &first = calls[0];
    size_t n_ranks = calls.size(), bytes = first.count * item_bytes(first.type);
    std::vector<char> out;

    switch (first.kind) {
    case ALL_REDUCE:
    case REDUCE_SCATTER:
        return first.type == ncclFloat64 ? reduce<double>(calls) : reduce<float>(calls);
    case ALL_GATHER:
        out.resize(bytes * n_ranks);
        for (size_t r = 0; r < n_ranks; r++)
            memcpy(&out[r * bytes], calls[r].from, bytes);
        break;
    case BROADCAST:
        out.resize(bytes);
        memcpy(out.data(), calls[(size_t)first.root].from, bytes);
        break;
    }
    for (const call &c : calls)
        memcpy(c.to, out.data(), out.size());
}

/* What the stream does: cudaErrorNotReady until all have come. */
cudaError_t attend(const std::shared_ptr<seat> &seat, uint64_t number, const call &c)
{
    room &room = *seat->room;
    std::lock_guard<std::mutex> hold(room.lock);
    size_t rank = (size_t)seat->rank;

    if (seat->has_left)
        return cudaSuccess; /* aborted: the kernel ends, its result is nothing */
    if (room.wrong != ncclSuccess)
        return cudaErrorNotReady;
    meeting &m = room.meetings[number];
    if (m.calls.empty()) {
        m.calls.resize((size_t)room.n_ranks);
        m.has_come.resize((size_t)room.n_ranks);
    }
    if (!m.has_come[rank]) {
        m.has_come[rank] = true;
        m.calls[rank] = c;
        m.n_come++;
    }
    for (size_t r = 0; r < m.calls.size(); r++)
        if (m.has_come[r] && !is_same(m.calls[r], c))
            room.fail(ncclInvalidUsage, "ranks do different things");
    if (m.n_come < room.n_ranks && room.n_left > 0)
        room.fail(ncclRemoteError, "a rank has left");
    if (m.n_come < room.n_ranks || room.wrong != ncclSuccess)
        return cudaErrorNotReady;
    if (!m.is_done)
        do_all(m.calls);
    m.is_done = true;
    if (++m.n_gone == room.n_ranks)
        room.meetings.erase(number);
    return cudaSuccess;
}

bool overlap(const void *a, size_t n_a, const void *b, size_t n_b)
{
    return (const char *)a < (const char *)b + n_b &&
           (const char *)b < (const char *)a + n_a;
}

/* from_parts, to_parts: how many counts the buffers hold; in_place: where `from` may lie. */
bool are_buffers(const call &c, size_t from_parts, size_t to_parts, const void *a,
                 const void *b)
{
    size_t bytes = c.count * item_bytes(c.type);

    return cuda_host_is_device(c.from, bytes * from_parts) &&
           cuda_host_is_device(c.to, bytes * to_parts) &&
           (a == b || !overlap(c.from, bytes * from_parts, c.to, bytes * to_parts));
}

} /* namespace */

struct ncclComm {
    std::shared_ptr<seat> mine;
    std::string last;
};

/* The ranks meet in the call. */
static void register_buffers(seat &seat)
{
    const char *text = getenv("NCCL_GRAPH_REGISTER");
    std::lock_guard<std::mutex> hold(seat.room->lock);

    if (!text || strcmp(text, "0") != 0)
        seat.room->registered[++seat.n_registered]++;
}

/* Every rank has asked for as many before the same recording. */
static void note_recorded(seat &seat, call &c)
{
    if (seat.recording != seat.n_asked)
        seat.n_recorded = 0;
    seat.recording = seat.n_asked;
    c.recording = seat.recording;
    c.place = ++seat.n_recorded;
}

static ncclResult_t ask(ncclComm_t comm, call c, bool is_fine, cudaStream_t stream)
{
    std::shared_ptr<seat> seat = comm->mine;
    std::shared_ptr<int> graph; /* kept by what is recorded */

    if (!is_fine || (c.kind != ALL_GATHER && c.kind != BROADCAST &&
                     c.type != ncclFloat32 && c.type != ncclFloat64))
        return ncclInvalidArgument;
    seat->streams.insert(stream);
    if (cuda_host_is_recorded(stream)) {
        note_recorded(*seat, c);
        register_buffers(*seat);
        graph = seat->graphs;
    }
    if (cuda_host_ask_made(stream, [seat, graph, c] {
            uint64_t number = seat->n_asked++;

            seat->n_pending++;
            return [seat, number, c] {
                cudaError_t error = attend(seat, number, c);

                seat->n_pending -= error == cudaSuccess;
                return error;
            };
        }) != cudaSuccess)
        return ncclSystemError;
    seat->n_polls_left = 2;
    return ncclInProgress;
}

static void leave(ncclComm_t comm)
{
    std::lock_guard<std::mutex> hold(comm->mine->room->lock);

    comm->mine->room->n_left += !comm->mine->has_left;
    comm->mine->has_left = true;
}

SHARED ncclResult_t ncclGetVersion(int *version)
{
    const char *text = getenv("CUDA_HOST_NCCL_VERSION");

    *version = text ? atoi(text) : 22809;
    return ncclSuccess;
}

SHARED ncclResult_t ncclGetUniqueId(ncclUniqueId *id)
{
    static uint64_t last;
    std::lock_guard<std::mutex> hold(rooms_lock);

    memset(id, 0x5a, sizeof(*id));
    last++;
    memcpy(id->internal, &last, sizeof(last));
    rooms[last] = std::make_shared<room>();
    return ncclSuccess;
}

SHARED ncclResult_t ncclCommInitRankConfig(ncclComm_t *comm, int n_ranks, ncclUniqueId id,
                                           int rank, ncclConfig_t *config)
{
    std::lock_guard<std::mutex> hold_rooms(rooms_lock);
    uint64_t key;

    memcpy(&key, id.internal, sizeof(key));
    if (config->size != sizeof(*config) || config->magic != 0xcafebeef ||
        config->blocking != 0 || config->maxCTAs < 1 || n_ranks < 2 || rank < 0 ||
        rank >= n_ranks || rooms.find(key) == rooms.end())
        return ncclInvalidArgument;
    std::shared_ptr<room> room = rooms[key];
    std::lock_guard<std::mutex> hold(room->lock);

    if (room->n_ranks != 0 && room->n_ranks != n_ranks)
        room->fail(ncclInvalidUsage, "ranks disagree about how many they are");
    room->n_ranks = n_ranks;
    if (!room->ranks.insert(rank).second)
        room->fail(ncclInvalidUsage, "two ranks have the same number");
    if (getenv("CUDA_HOST_NCCL_FULL"))
        room->fail(ncclUnhandledCudaError, "Cuda failure 2 'out of memory'");
    if (!room->devices.insert(cuda_host_device()).second)
        room->fail(ncclInvalidUsage, "Duplicate GPU detected");
    *comm = new ncclComm{std::make_shared<seat>(), ""};
    (*comm)->mine->room = room;
    (*comm)->mine->rank = rank;
    return ncclInProgress;
}

SHARED ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t *result)
{
    room &room = *comm->mine->room;
    std::lock_guard<std::mutex> hold(room.lock);

    *result = room.wrong;
    if (*result == ncclSuccess &&
        ((int)room.ranks.size() < room.n_ranks || comm->mine->n_polls_left > 0 ||
         (comm->mine->n_registered > 0 &&
          room.registered[comm->mine->n_registered] < room.n_ranks))) {
        comm->mine->n_polls_left -= comm->mine->n_polls_left > 0;
        *result = ncclInProgress;
    }
    return ncclSuccess;
}

SHARED ncclResult_t ncclCommFinalize(ncclComm_t comm)
{
    leave(comm);
    comm->mine->n_polls_left = 2;
    return ncclInProgress;
}

static void check_graphs(ncclComm_t comm)
{
    if (comm->mine->graphs.use_count() == 1)
        return;
    fprintf(stderr, "a communicator's end waits for %ld recorded collectives\n",
            comm->mine->graphs.use_count() - 1);
    std::abort();
}

SHARED ncclResult_t ncclCommDestroy(ncclComm_t comm)
{
    if (!comm->mine->has_left)
        return ncclInvalidUsage;
    check_graphs(comm);
    delete comm;
    return ncclSuccess;
}

static thread_local int group_depth;
static thread_local std::vector<ncclComm_t> aborted;

/* Flags are set; what is left of their work must end by that. */
static void reclaim(void)
{
    for (ncclComm_t comm : aborted) {
        for (int i = 0; i < ABORT_LOOKS && comm->mine->n_pending > 0; i++) {
            for (cudaStream_t stream : comm->mine->streams)
                cuda_host_go_on(stream);
            std::this_thread::sleep_for(std::chrono::microseconds(50));
        }
        if (comm->mine->n_pending > 0) {
            fprintf(stderr, "an abort waits for work that cannot begin\n");
            std::abort();
        }
        check_graphs(comm);
        delete comm;
    }
    aborted.clear();
}

SHARED ncclResult_t ncclGroupStart(void)
{
    group_depth++;
    return ncclSuccess;
}

SHARED ncclResult_t ncclGroupEnd(void)
{
    if (--group_depth == 0)
        reclaim();
    return ncclSuccess;
}

SHARED ncclResult_t ncclCommAbort(ncclComm_t comm)
{
    leave(comm);
    aborted.push_back(comm);
    if (group_depth == 0)
        reclaim();
    return ncclSuccess;
}

SHARED const char *ncclGetErrorString(ncclResult_t result)
{
    return result == ncclInvalidArgument ? "invalid argument"
           : result == ncclInvalidUsage  ? "invalid usage"
           : result == ncclRemoteError
               ? "remote process exited or there was a network error"
           : result == ncclSystemError ? "unhandled system error"
           : result == ncclInProgress  ? "NCCL operation in progress"
                                       : "no error";
}

SHARED const char *ncclGetLastError(ncclComm_t comm)
{
    std::lock_guard<std::mutex> hold(comm->mine->room->lock);

    comm->last = comm->mine->room->why;
    return comm->last.c_str();
}

SHARED ncclResult_t ncclAllReduce(const void *from, void *to, size_t count,
                                  ncclDataType_t type, ncclRedOp_t op, ncclComm_t comm,
                                  cudaStream_t stream)
{
    call c = {ALL_REDUCE, type, op, count, 0, from, to};

    return ask(comm, c, are_buffers(c, 1, 1, from, to), stream);
}

SHARED ncclResult_t ncclAllGather(const void *from, void *to, size_t count,
                                  ncclDataType_t type, ncclComm_t comm,
                                  cudaStream_t stream)
{
    call c = {ALL_GATHER, type, ncclSum, count, 0, from, to};
    size_t n = (size_t)comm->mine->room->n_ranks;
    char *place = (char *)to + (size_t)comm->mine->rank * count * item_bytes(type);

    return ask(comm, c, are_buffers(c, 1, n, from, place), stream);
}

SHARED ncclResult_t ncclReduceScatter(const void *from, void *to, size_t count,
                                      ncclDataType_t type, ncclRedOp_t op,
                                      ncclComm_t comm, cudaStream_t stream)
{
    call c = {REDUCE_SCATTER, type, op, count, 0, from, to};
    size_t n = (size_t)comm->mine->room->n_ranks;
    const char *place =
        (const char *)from + (size_t)comm->mine->rank * count * item_bytes(type);

    return ask(comm, c, are_buffers(c, n, 1, place, to), stream);
}

SHARED ncclResult_t ncclBroadcast(const void *from, void *to, size_t count,
                                  ncclDataType_t type, int root, ncclComm_t comm,
                                  cudaStream_t stream)
{
    call c = {BROADCAST, type, ncclSum, count, root, from, to};

    return ask(comm, c,
               root >= 0 && root < comm->mine->room->n_ranks &&
                   are_buffers(c, 1, 1, from, to),
               stream);
}
