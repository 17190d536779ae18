/* nccl.h - NCCL's side of comm_device: one communicator of a group, on one stream
 *
 * Part of the CUDA plugin; the only file pair that knows NCCL, whose library (2.18 and up)
 * is opened at run time. Communicators do not block: the host is never caught inside NCCL,
 * and a peer that is gone shows as an error, or as no progress for timeout_ms; then the
 * communicator is aborted, which frees the stream.
 * Owns: communicator and events; borrows the stream. Threads: one, with the device current.
 * Source: NCCL user guide, "Fault Tolerance" and "Communicator Creation and Management".
 */
#ifndef VNEVA_MODEL_COMM_NCCL_H
#define VNEVA_MODEL_COMM_NCCL_H

#include "model/comm/device.h"

#include <cuda_runtime_api.h>

struct nccl_group;

/* ERR_UNSUPPORTED: no library, or one too old. */
int nccl_check_library(struct err *err);
int nccl_make_token(char token[COMM_DEVICE_TOKEN_BYTES], struct err *err);
int nccl_open(struct nccl_group **out, const struct comm_device_args *args,
              cudaStream_t stream, struct err *err);

/* Waits a while for the other ranks to end too, unless work is left: then it is aborted. */
void nccl_close(struct nccl_group *group);

struct comm_device *nccl_device(struct nccl_group *group);

/* While somebody waits for the stream since waiting_since_ns (clock_mono_ns): -1 once a
 * collective has failed or made no progress for too long; then it is aborted, and the text
 * names group, collective, number, ranks, and how long. */
int nccl_watch(struct nccl_group *group, int64_t waiting_since_ns, struct err *err);

/* The host begins to wait; false: no collective of this group is on its way. */
bool nccl_begin_wait(struct nccl_group *group);
void nccl_end_wait(struct nccl_group *group);

#endif
