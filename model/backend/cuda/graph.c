/* graph.c - stretches of operations, recorded as CUDA graphs and repeated
 *
 * A stretch is asked for by name and by what fixes its operations. The first time it runs as
 * it is, so that plans, scratch and NCCL's connections are made (one for each algorithm that
 * a collective's kind and size call for, src/enqueue.cc, ncclPrepareTasks); the second time
 * the stream records it (cudaStreamBeginCapture) and nothing runs until the graph is
 * launched; from then on it is one launch. What cannot be recorded (uploads, downloads,
 * waiting, asking for memory) refuses itself by cuda_graph_refuses; the stretch then runs as
 * it is for good.
 * A graph keeps pointers: those of the caller's memory are part of its key; where the
 * backend's own move, all graphs are dropped and recorded anew.
 * Where other ranks have a part in a stretch, all of them do the same each time: run it,
 * record it, or launch what they have recorded together. Each says what it could do, a number
 * that is greater the more it is, and they do the least; so it need not have come to the
 * same on all of them (one's memory moved, another's recording failed).
 * Source: CUDA C++ Programming Guide, "CUDA Graphs", "Creating a Graph Using Stream Capture";
 * NCCL user guide, "Using NCCL with CUDA Graphs".
 */
#include "model/backend/cuda/cuda.h"

#include <stdlib.h>
#include <string.h>

#define GRAPHS_MAX 128 /* the one used least lately makes room */
#define REFUSALS_MAX 2 /* of one stretch; then it is not tried again */
#define SWITCH_VARIABLE "VNEVA_CUDA_GRAPHS" /* "off": everything runs as it is */

/* What a rank can do with a stretch. */
enum { RUN, RECORD, LAUNCH }; /* and above: recordings, numbered in their order */

struct stretch {
    struct backend_stretch key;
    uint64_t used_at; /* 0: free */
    int n_refusals;
    bool was_run;
    int64_t recording;                /* LAUNCH and above; 0: there is none */
    cudaGraphExec_t exec;             /* NULL: not recorded, or without operations */
    struct nccl_stretch *collectives; /* NULL: none */
    uint64_t n_bytes;                 /* of the device */
};

struct cuda_graphs {
    bool is_off, is_recording;
    uint64_t clock;
    int64_t last_recording; /* its number, of any rank's */
    struct err refusal;     /* of the recording at hand */
    bool has_lost_peers;    /* over it: they cannot be asked any more */
    struct stretch all[GRAPHS_MAX];
};

int cuda_graphs_init(struct cuda *cuda, struct err *err)
{
    const char *choice = getenv(SWITCH_VARIABLE);

    cuda->graphs = calloc(1, sizeof(*cuda->graphs));
    if (!cuda->graphs)
        return err_set(err, ERR_NOMEM, "cannot allocate graphs");
    cuda->graphs->is_off = choice && strcmp(choice, "off") == 0;
    cuda->graphs->last_recording = LAUNCH;
    return 0;
}

static void drop(struct cuda *cuda, struct stretch *stretch)
{
    if (stretch->exec)
        cudaGraphExecDestroy(
            stretch->exec); /* one in flight goes on, see cuGraphExecDestroy */
    cuda_groups_forget(stretch->collectives);
    cuda->base.replay.n_bytes -= stretch->n_bytes;
    stretch->exec = NULL;
    stretch->collectives = NULL;
    stretch->recording = 0;
    stretch->n_bytes = 0;
}

void cuda_graphs_drop(struct cuda *cuda)
{
    for (int i = 0; cuda->graphs && i < GRAPHS_MAX; i++)
        drop(cuda, &cuda->graphs->all[i]);
}

void cuda_graphs_fini(struct cuda *cuda)
{
    cuda_graphs_drop(cuda);
    free(cuda->graphs);
    cuda->graphs = NULL;
}

int cuda_graph_refuses(struct cuda *cuda, const char *what, struct err *err)
{
    if (!cuda->graphs || !cuda->graphs->is_recording)
        return 0;
    err_set(&cuda->graphs->refusal, ERR_STATE, "%s cannot be recorded", what);
    return err_set(err, ERR_STATE, "%s cannot be recorded", what);
}

/* That of the key; else a free one, or the one used least lately. */
static struct stretch *find(struct cuda *cuda, const struct backend_stretch *key)
{
    struct cuda_graphs *graphs = cuda->graphs;
    struct stretch *oldest = &graphs->all[0];

    for (int i = 0; i < GRAPHS_MAX; i++) {
        struct stretch *s = &graphs->all[i];

        if (s->used_at && strcmp(s->key.name, key->name) == 0 &&
            memcmp(s->key.fixed, key->fixed, sizeof(key->fixed)) == 0)
            return s;
        if (s->used_at < oldest->used_at)
            oldest = s;
    }
    drop(cuda, oldest);
    *oldest = (struct stretch){.key = *key};
    return oldest;
}

/* The graph takes memory of the device beside the pool. Other processes' part in the
 * difference is taken for its own; it is for reports. */
static cudaError_t instantiate(struct cuda *cuda, struct stretch *stretch,
                               cudaGraph_t graph)
{
    size_t before = 0, after = 0, n_total;
    cudaError_t error;

    cudaMemGetInfo(&before, &n_total);
    error = cudaGraphInstantiateWithFlags(&stretch->exec, graph, 0);
    if (error != cudaSuccess) {
        stretch->exec = NULL;
        return error;
    }
    error = cudaGraphUpload(stretch->exec, cuda->stream);
    cudaMemGetInfo(&after, &n_total);
    stretch->n_bytes = before > after ? before - after : 0;
    cuda->base.replay.n_bytes += stretch->n_bytes;
    return error;
}

/* Runs `run` with the stream recording; *graph NULL where that did not come to an end. */
static int record(struct cuda *cuda, cudaGraph_t *graph,
                  struct nccl_stretch **collectives,
                  int (*run)(void *context, struct err *err), void *context,
                  struct err *err)
{
    struct cuda_graphs *graphs = cuda->graphs;
    cudaError_t error;
    int rc;

    err_clear(&graphs->refusal);
    graphs->has_lost_peers = false;
    /* thread-local: other threads of the process may do as they like; in one of its own
     * NCCL takes what is recorded */
    error = cudaStreamBeginCapture(cuda->stream, cudaStreamCaptureModeThreadLocal);
    if (error != cudaSuccess)
        return cuda_check(error, "recording", err);
    graphs->is_recording = true;
    rc = cuda_groups_record_begin(cuda, err);
    if (rc == 0)
        rc = run(context, err);
    graphs->is_recording = false;
    error = cudaStreamEndCapture(cuda->stream, graph);
    if (rc < 0 && *graph) { /* the end of a communicator would wait for it */
        cudaGraphDestroy(*graph);
        *graph = NULL;
    }
    graphs->has_lost_peers = cuda_groups_record_end(cuda, collectives) < 0;
    if (rc == 0 && graphs->refusal.code != ERR_NONE)
        rc = err_set(err, graphs->refusal.code, "%s", graphs->refusal.text);
    if (rc == 0 && error != cudaSuccess)
        rc = cuda_check(error, "recording", err);
    return rc;
}

/* From here on the stretch has a graph; or not, and err says why. Nothing has run. */
static int make(struct cuda *cuda, struct stretch *stretch,
                int (*run)(void *context, struct err *err), void *context,
                struct err *err)
{
    cudaGraph_t graph = NULL;
    size_t n = 0;
    int rc;

    drop(cuda, stretch); /* what only some ranks have */
    rc = record(cuda, &graph, &stretch->collectives, run, context, err);
    if (rc == 0)
        rc = cuda_check(cudaGraphGetNodes(graph, NULL, &n), "graph", err);
    if (rc == 0 && n > 0)
        rc = cuda_check(instantiate(cuda, stretch, graph), "graph", err);
    if (graph)
        cudaGraphDestroy(graph);
    if (rc == 0)
        return 0;
    drop(cuda, stretch);
    cudaGetLastError(); /* it is told here; later calls shall not see it */
    return -1;
}

static int launch(struct cuda *cuda, struct stretch *stretch, struct err *err)
{
    if (!stretch->exec)
        return 0;
    cuda->base.replay.n_launched++;
    if (cuda_groups_launch_begin(stretch->collectives, err) < 0 ||
        cuda_check(cudaGraphLaunch(stretch->exec, cuda->stream), stretch->key.name, err) <
            0)
        return -1;
    return cuda_groups_launch_end(stretch->collectives, err);
}

/* ---- what all ranks do ---- */

static int ask_peers(const struct backend_stretch *key, int64_t mine, int64_t *least,
                     int64_t *greatest, struct err *err)
{
    *least = *greatest = mine;
    return key->agree ? key->agree(key->peers, mine, least, greatest, err) : 0;
}

/* *way: RUN, RECORD, or LAUNCH, where all have the same recording. */
static int choose(const struct cuda_graphs *graphs, const struct stretch *stretch,
                  const struct backend_stretch *key, int *way, struct err *err)
{
    int64_t mine = stretch->recording, least, greatest;

    if (graphs->is_off)
        mine = RUN;
    else if (mine == 0 && stretch->was_run && stretch->n_refusals < REFUSALS_MAX)
        mine = RECORD;
    if (ask_peers(key, mine, &least, &greatest, err) < 0)
        return -1;
    *way = least >= LAUNCH && least == greatest ? LAUNCH : least == RUN ? RUN : RECORD;
    return 0;
}

/* 1: recorded by all; 0: not, and nothing has run; -1: the ranks have lost each other. */
static int make_together(struct cuda *cuda, struct stretch *stretch,
                         const struct backend_stretch *key,
                         int (*run)(void *context, struct err *err), void *context,
                         struct err *err)
{
    struct cuda_graphs *graphs = cuda->graphs;
    struct backend_replay *replay = &cuda->base.replay;
    struct err why = {0};
    int rc = make(cuda, stretch, run, context, &why);
    int64_t least, greatest;

    if (graphs->has_lost_peers)
        return err_set(err, why.code, "%s", why.text);
    if (ask_peers(key, rc < 0 ? 0 : graphs->last_recording + 1, &least, &greatest, err) <
        0)
        return -1;
    if (greatest > 0)
        graphs->last_recording = greatest;
    if (least > 0) {
        stretch->recording = greatest;
        replay->n_recorded++;
        return 1;
    }
    drop(cuda, stretch);
    stretch->n_refusals++;
    replay->n_refused++;
    replay->refusal = why;
    if (rc == 0)
        err_set(&replay->refusal, ERR_STATE, "another rank could not record it");
    err_wrap(&replay->refusal, "%s", key->name);
    return 0;
}

int cuda_replay(struct backend *b, const struct backend_stretch *key,
                int (*run)(void *context, struct err *err), void *context,
                struct err *err)
{
    struct cuda *cuda = cuda_of(b);
    struct cuda_graphs *graphs = cuda->graphs;
    struct stretch *stretch;
    int way, rc;

    if (graphs->is_recording)
        return run(context, err);
    stretch = find(cuda, key);
    stretch->used_at = ++graphs->clock;
    if (choose(graphs, stretch, key, &way, err) < 0)
        return -1;
    if (way == RECORD) {
        rc = make_together(cuda, stretch, key, run, context, err);
        if (rc < 0)
            return -1;
        way = rc ? LAUNCH : RUN;
    }
    stretch->was_run = true;
    return way == LAUNCH ? launch(cuda, stretch, err) : run(context, err);
}
