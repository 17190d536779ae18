/* group.c - collectives between devices, and how the host waits when there are some
 *
 * A collective whose peer is gone never ends, and cudaStreamSynchronize would never return.
 * So while communicators are open the host polls, and looks at them between: at those on
 * the backend's stream and at those beside it.
 */
#include "model/backend/cuda/cuda.h"

#include "common/base/clock.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#ifdef VNEVA_HAVE_NCCL
#include "model/comm/nccl.h"

#define POLL_FAST_NS 2000000 /* for so long without a pause: most waits are short */
#define POLL_NS 50000

static int identify(void *state, char id[COMM_DEVICE_ID_BYTES], struct err *err)
{
    const struct cuda *cuda = state;
    struct cudaDeviceProp properties;

    if (nccl_check_library(err) < 0 ||
        cuda_check(cudaGetDeviceProperties(&properties, cuda->device), "asking", err) < 0)
        return -1;
    memcpy(id, properties.uuid.bytes, COMM_DEVICE_ID_BYTES);
    return 0;
}

static int make_token(void *state, char token[COMM_DEVICE_TOKEN_BYTES], struct err *err)
{
    (void)state;
    return nccl_make_token(token, err);
}

static void forget_graphs(void *state)
{
    cuda_graphs_drop(state);
}

static int open_group(void *state, struct comm_device **out,
                      const struct comm_device_args *args, struct err *err)
{
    struct cuda *cuda = state;

    if (!cuda->nccl) {
        cuda->nccl = calloc(1, sizeof(*cuda->nccl));
        if (!cuda->nccl)
            return err_set(err, ERR_NOMEM, "cannot allocate a set of groups");
        cuda->nccl->stream = cuda->stream;
        cuda->nccl->forget_graphs = forget_graphs;
        cuda->nccl->state = cuda;
    }
    if (cuda_check(cudaSetDevice(cuda->device), "opening", err) < 0)
        return -1;
    return nccl_open(cuda->nccl, out, args, err);
}

const struct comm_devices *cuda_devices(struct backend *b)
{
    struct cuda *cuda = cuda_of(b);

    cuda->devices = (struct comm_devices){cuda, identify, make_token, open_group};
    return &cuda->devices;
}

void cuda_groups_fini(struct cuda *cuda)
{
    if (cuda->nccl)
        nccl_close(cuda->nccl);
    free(cuda->nccl);
    cuda->nccl = NULL;
}

int cuda_groups_record_begin(struct cuda *cuda, struct err *err)
{
    return cuda->nccl ? nccl_record_begin(cuda->nccl, err) : 0;
}

int cuda_groups_record_end(struct cuda *cuda, struct nccl_stretch **out)
{
    *out = NULL;
    return cuda->nccl ? nccl_record_end(cuda->nccl, out) : 0;
}

int cuda_groups_launch_begin(struct nccl_stretch *stretch, struct err *err)
{
    return stretch ? nccl_launch_begin(stretch, err) : 0;
}

int cuda_groups_launch_end(struct nccl_stretch *stretch, struct err *err)
{
    return stretch ? nccl_launch_end(stretch, err) : 0;
}

void cuda_groups_forget(struct nccl_stretch *stretch)
{
    nccl_stretch_free(stretch);
}

/* event NULL: the whole stream */
static int poll_for(struct cuda *cuda, cudaEvent_t event, struct err *err)
{
    const struct timespec pause = {.tv_nsec = POLL_NS};
    int64_t begun_ns = clock_mono_ns();

    for (;;) {
        cudaError_t error = event ? cudaEventQuery(event) : cudaStreamQuery(cuda->stream);

        if (error != cudaErrorNotReady)
            return cuda_check(error, "work on the device", err);
        cudaGetLastError(); /* no error, but kept as one */
        if (nccl_watch(cuda->nccl, begun_ns, err) < 0)
            return -1;
        if (clock_mono_ns() - begun_ns > POLL_FAST_NS)
            nanosleep(&pause, NULL);
    }
}

static int poll_until(struct cuda *cuda, cudaEvent_t event, struct err *err)
{
    struct nccl_group *group = nccl_begin_wait(cuda->nccl);
    int rc = poll_for(cuda, event, err);

    if (group)
        nccl_end_wait(group);
    return rc;
}
#else
const struct comm_devices *cuda_devices(struct backend *b)
{
    (void)b;
    return NULL;
}

void cuda_groups_fini(struct cuda *cuda)
{
    (void)cuda;
}

int cuda_groups_record_begin(struct cuda *cuda, struct err *err)
{
    (void)cuda;
    (void)err;
    return 0;
}

int cuda_groups_record_end(struct cuda *cuda, struct nccl_stretch **out)
{
    (void)cuda;
    *out = NULL;
    return 0;
}

int cuda_groups_launch_begin(struct nccl_stretch *stretch, struct err *err)
{
    (void)stretch;
    (void)err;
    return 0;
}

int cuda_groups_launch_end(struct nccl_stretch *stretch, struct err *err)
{
    (void)stretch;
    (void)err;
    return 0;
}

void cuda_groups_forget(struct nccl_stretch *stretch)
{
    (void)stretch;
}

static int poll_until(struct cuda *cuda, cudaEvent_t event, struct err *err)
{
    (void)cuda;
    (void)event;
    return err_set(err, ERR_UNSUPPORTED, "built without NCCL");
}
#endif

int cuda_wait(struct cuda *cuda, struct err *err)
{
    if (cuda->nccl)
        return poll_until(cuda, NULL, err);
    return cuda_check(cudaStreamSynchronize(cuda->stream), "work on the device", err);
}

int cuda_wait_event(struct cuda *cuda, cudaEvent_t event, struct err *err)
{
    if (cuda->nccl)
        return poll_until(cuda, event, err);
    return cuda_check(cudaEventSynchronize(event), "work on the device", err);
}
