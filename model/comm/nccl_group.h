/* nccl_group.h - what the files of NCCL's side share */
#ifndef VNEVA_MODEL_COMM_NCCL_GROUP_H
#define VNEVA_MODEL_COMM_NCCL_GROUP_H

#include "model/comm/nccl.h"
#include "model/comm/nccl_library.h"

#define NCCL_MARKS                                                                       \
    512 /* collectives on their way that are told apart: a step's and more */

/* A collective on its way, a recorded stretch of them, or the wait for those beside: between
 * two events. */
struct nccl_mark {
    cudaEvent_t begin, end;
    uint64_t number; /* of a stretch the last one's */
    size_t n_bytes;
    const char *what;
    struct nccl_stretch *stretch; /* NULL: one collective */
    bool is_counted;              /* the backend's stream stands still meanwhile */
    bool has_begun;               /* as far as somebody has looked */
};

struct nccl_group {
    struct comm_device base;
    struct nccl_api api;
    ncclComm_t comm; /* NULL: aborted */
    struct nccl_set *set;
    struct comm_device_args args;
    struct nccl_mark marks[NCCL_MARKS];
    unsigned first_mark, n_marks;
    bool has_beside;     /* since the last join */
    int64_t progress_ns; /* when one was last seen to begin or end */
    uint64_t last_done;  /* number of the last that was seen to end */
    int64_t total_ns;    /* counted so far */
};

/* ---- nccl_watch.c ---- */

void nccl_abort_all(struct nccl_set *set);
/* ERR_STATE: it was aborted. */
int nccl_check_open(const struct nccl_group *group, struct err *err);
/* Waits until NCCL has taken a call, which it does in the background. */
int nccl_settle(struct nccl_group *group, ncclResult_t result,
                const struct nccl_mark *mark, struct err *err);

/* *out: of the collective that is asked for next. When there are too many on their way the
 * newest share a mark: collectives of a group end in their order, so it is past when the last
 * of them is; its time is not known then. */
int nccl_mark_begin(struct nccl_group *group, struct nccl_mark **out, cudaStream_t stream,
                    struct err *err);
struct nccl_mark *nccl_newest_mark(struct nccl_group *group);
int nccl_mark_end(struct nccl_group *group, struct nccl_mark *mark, cudaStream_t stream,
                  struct err *err);
/* Marks that the streams have passed are forgotten. */
int nccl_drop_done(struct nccl_group *group, struct err *err);

/* ---- nccl_record.c ---- */

/* *out: of the collective that is recorded next. */
int nccl_record_piece(struct nccl_group *group, struct nccl_mark **out, struct err *err);
int nccl_record_piece_end(struct nccl_group *group, struct err *err);
/* -1: a collective that was asked for is not recorded, and counts no more. */
int nccl_record_refuse(const struct nccl_group *group, const char *what, struct err *err);
/* How many of the group a launch has, and how long the device's other work stood still for
 * them: in the last launch whose times were still there to be read. */
int64_t nccl_stretch_count(const struct nccl_stretch *stretch,
                           const struct nccl_group *group);
int64_t nccl_stretch_ns(struct nccl_stretch *stretch, const struct nccl_group *group);
/* A communicator fails while the stream records: it ends with the recording. */
void nccl_record_fail(struct nccl_stretch *recording);

#endif
