/* nccl.h - NCCL's side of comm_device: the communicators of one device
 *
 * Part of the CUDA plugin; with nccl_library.h the only files that know NCCL, whose library
 * (2.22 and up) is opened at run time. Communicators do not block: a peer that is gone shows as
 * an error, or as no progress for timeout_ms. From 2.26 on NCCL takes each call in a thread of
 * its own (src/group.cc) and the host is never caught inside; before, ranks meet inside the
 * call when a communicator's collectives take a way for the first time.
 * Then all communicators of the device are aborted, together: the work of one may wait for
 * another's, by the events between the streams, and an abort waits for its work.
 *
 *     stream   what the backend is asked, and collectives in that order
 *     beside   collectives that go on beside it:  asked --event--> beside --event--> join
 *
 * Collectives of the first may be recorded with whatever else the stream is asked
 * (cudaStreamBeginCapture); all ranks record, and launch, the same (user guide, "Using NCCL
 * with CUDA Graphs"), of one group: it is said there that CUDA was seen to hang where one thread
 * launches graphs of several communicators. A communicator's end waits for the graphs that
 * have some of its.
 *
 * Owns: communicators, events, the stream beside; borrows the backend's. Threads: one, with
 * the device current.
 * Source: NCCL user guide, "Fault Tolerance", "Communicator Creation and Management", "Using
 * multiple NCCL communicators concurrently".
 */
#ifndef VNEVA_MODEL_COMM_NCCL_H
#define VNEVA_MODEL_COMM_NCCL_H

#include "model/comm/device.h"

#include <cuda_runtime_api.h>

#define NCCL_GROUPS_MAX 8 /* of ranks, with one communicator each */

struct nccl_group;
struct nccl_stretch; /* collectives that were recorded together */

struct nccl_set { /* zeroed, but for the stream and what follows it */
    cudaStream_t stream;
    /* Destroys all graphs that have collectives, before communicators end. */
    void (*forget_graphs)(void *state);
    void *state;
    cudaStream_t beside;
    cudaEvent_t asked, done; /* of what was asked before, and of what went on beside */
    struct nccl_group *groups[NCCL_GROUPS_MAX];
    int n;
    struct nccl_stretch *recording;    /* NULL: collectives are done */
    const struct nccl_group *recorded; /* the one that may be; NULL: whose comes first */
};

/* ERR_UNSUPPORTED: no library, or one too old. */
int nccl_check_library(struct err *err);
int nccl_make_token(char token[COMM_DEVICE_TOKEN_BYTES], struct err *err);
/* One more communicator. */
int nccl_open(struct nccl_set *set, struct comm_device **out,
              const struct comm_device_args *args, struct err *err);

/* Waits a while for the other ranks to end too, unless work is left: then it is aborted. */
void nccl_close(struct nccl_set *set);

/* While somebody waits for the device since waiting_since_ns (clock_mono_ns): -1 once a
 * collective has failed or made no progress for too long; then all are aborted, and the text
 * names group, collective, number, ranks, and how long. */
int nccl_watch(struct nccl_set *set, int64_t waiting_since_ns, struct err *err);

/* The host begins to wait, for this group; NULL: no collective is on its way. */
struct nccl_group *nccl_begin_wait(struct nccl_set *set);
void nccl_end_wait(struct nccl_group *group);

/* ---- recording (nccl_record.c) ---- */

/* Collectives that are asked for from here on become part of what the stream records; those
 * beside are refused. After cudaStreamBeginCapture. */
int nccl_record_begin(struct nccl_set *set, struct err *err);
/* No more; after cudaStreamEndCapture. *out: what was recorded, for its launches; NULL where
 * there was no collective. -1: a communicator failed meanwhile, as the collective said, and
 * all are aborted. */
int nccl_record_end(struct nccl_set *set, struct nccl_stretch **out);
/* Before and after each launch: the collectives are numbered and watched, as one. */
int nccl_launch_begin(struct nccl_stretch *stretch, struct err *err);
int nccl_launch_end(struct nccl_stretch *stretch, struct err *err);
/* When its graph goes; NULL is fine. */
void nccl_stretch_free(struct nccl_stretch *stretch);

#endif
