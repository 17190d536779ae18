/* nccl_library.h - NCCL's functions, found at run time */
#ifndef VNEVA_MODEL_COMM_NCCL_LIBRARY_H
#define VNEVA_MODEL_COMM_NCCL_LIBRARY_H

#include "common/base/err.h"

#include <nccl.h>

/* name here, name in NCCL */
#define NCCL_FUNCTIONS(X)                                                                \
    X(get_version, ncclGetVersion)                                                       \
    X(get_unique_id, ncclGetUniqueId)                                                    \
    X(init, ncclCommInitRankConfig)                                                      \
    X(async_error, ncclCommGetAsyncError)                                                \
    X(finalize, ncclCommFinalize)                                                        \
    X(destroy, ncclCommDestroy)                                                          \
    X(abort, ncclCommAbort)                                                              \
    X(group_start, ncclGroupStart)                                                       \
    X(group_end, ncclGroupEnd)                                                           \
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

/* The library stays open for the life of the process. ERR_UNSUPPORTED: it is not there, or
 * too old. */
int nccl_load(struct nccl_api *api, struct err *err);

#endif
