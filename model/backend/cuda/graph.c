/* graph.c - stretches of operations, recorded as CUDA graphs and repeated
 *
 * A stretch is asked for by name and by what fixes its operations. The first time it runs as
 * it is, so that plans and scratch are made; the second time the stream
 * records it (cudaStreamBeginCapture) and nothing runs until the graph is launched; from then
 * on it is one launch. What cannot be recorded (uploads, downloads, waiting, asking for
 * memory) refuses itself by cuda_graph_refuses; the stretch then runs as it is for good.
 * A graph keeps pointers: those of the caller's memory are part of its key; where the
 * backend's own move, all graphs are dropped and recorded anew.
 * Source: CUDA C++ Programming Guide, "CUDA Graphs", "Creating a Graph Using Stream Capture".
 */
#include "model/backend/cuda/cuda.h"

#include <stdlib.h>
#include <string.h>

#define GRAPHS_MAX 128 /* the one used least lately makes room */
#define REFUSALS_MAX 2 /* of one stretch; then it is not tried again */
#define SWITCH_VARIABLE "VNEVA_CUDA_GRAPHS" /* "off": everything runs as it is */

struct stretch {
    struct backend_stretch key;
    uint64_t used_at; /* 0: free */
    int n_refusals;
    bool was_run;
    cudaGraphExec_t exec; /* NULL: not recorded */
    uint64_t n_bytes;     /* of the device */
};

struct cuda_graphs {
    bool is_off, is_recording;
    uint64_t clock;
    struct err refusal; /* of the recording at hand */
    struct stretch all[GRAPHS_MAX];
};

int cuda_graphs_init(struct cuda *cuda, struct err *err)
{
    const char *choice = getenv(SWITCH_VARIABLE);

    cuda->graphs = calloc(1, sizeof(*cuda->graphs));
    if (!cuda->graphs)
        return err_set(err, ERR_NOMEM, "cannot allocate graphs");
    cuda->graphs->is_off = choice && strcmp(choice, "off") == 0;
    return 0;
}

static void drop(struct cuda *cuda, struct stretch *stretch)
{
    if (!stretch->exec)
        return;
    cudaGraphExecDestroy(stretch->exec); /* one in flight goes on (cuGraphExecDestroy) */
    cuda->base.replay.n_bytes -= stretch->n_bytes;
    stretch->exec = NULL;
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

bool cuda_is_recording(const struct cuda *cuda)
{
    return cuda->graphs && cuda->graphs->is_recording;
}

int cuda_graph_refuses(struct cuda *cuda, const char *what, struct err *err)
{
    if (!cuda_is_recording(cuda))
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
                  int (*run)(void *context, struct err *err), void *context,
                  struct err *err)
{
    struct cuda_graphs *graphs = cuda->graphs;
    cudaError_t error;
    int rc;

    *graph = NULL;
    err_clear(&graphs->refusal);
    /* thread-local: other threads of the process (NCCL's) may do as they like */
    error = cudaStreamBeginCapture(cuda->stream, cudaStreamCaptureModeThreadLocal);
    if (error != cudaSuccess)
        return cuda_check(error, "recording", err);
    graphs->is_recording = true;
    rc = run(context, err);
    graphs->is_recording = false;
    error = cudaStreamEndCapture(cuda->stream, graph);
    if (rc == 0 && graphs->refusal.code != ERR_NONE)
        rc = err_set(err, graphs->refusal.code, "%s", graphs->refusal.text);
    if (rc == 0 && error != cudaSuccess)
        rc = cuda_check(error, "recording", err);
    return rc;
}

/* From here on the stretch is a graph; or not, and err says why. Nothing has run. */
static int make(struct cuda *cuda, struct stretch *stretch,
                int (*run)(void *context, struct err *err), void *context,
                struct err *err)
{
    cudaGraph_t graph = NULL;
    size_t n = 0;
    int rc = record(cuda, &graph, run, context, err);

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
    cuda->base.replay.n_launched++;
    return cuda_check(cudaGraphLaunch(stretch->exec, cuda->stream), stretch->key.name,
                      err);
}

int cuda_replay(struct backend *b, const struct backend_stretch *key,
                int (*run)(void *context, struct err *err), void *context,
                struct err *err)
{
    struct cuda *cuda = cuda_of(b);
    struct cuda_graphs *graphs = cuda->graphs;
    struct backend_replay *replay = &b->replay;
    struct stretch *stretch;
    struct err why = {0};

    if (graphs->is_off || graphs->is_recording)
        return run(context, err);
    stretch = find(cuda, key);
    stretch->used_at = ++graphs->clock;
    if (stretch->exec)
        return launch(cuda, stretch, err);
    if (!stretch->was_run || stretch->n_refusals == REFUSALS_MAX) {
        stretch->was_run = true;
        return run(context, err);
    }
    if (make(cuda, stretch, run, context, &why) == 0) {
        replay->n_recorded++;
        return stretch->exec ? launch(cuda, stretch, err) : 0;
    }
    stretch->n_refusals++;
    replay->n_refused++;
    replay->refusal = why;
    err_wrap(&replay->refusal, "%s", key->name);
    return run(context, err);
}
