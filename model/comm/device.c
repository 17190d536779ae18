#include "model/comm/device.h"

#include "common/base/clock.h"
#include "common/base/log.h"
#include "model/comm/internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NAME_RANK_MAX 48 /* of one rank that is missing, in a text */

/* ---- opening ---- */

struct hello {
    char id[COMM_DEVICE_ID_BYTES];
    char is_able;
};

struct token {
    char is_there;
    char bytes[COMM_DEVICE_TOKEN_BYTES];
};

/* True when each rank has a device of its own; else the log says why not, on rank 0. */
static bool can_open(const struct comm *comm, const struct hello *all)
{
    for (int i = 0; i < comm->size; i++) {
        if (!all[i].is_able)
            return false;
        for (int j = 0; j < i; j++)
            if (memcmp(all[i].id, all[j].id, sizeof(all[i].id)) == 0) {
                if (comm->rank == 0)
                    log_info("group '%s': ranks %d and %d share a device: exchanged "
                             "through the host",
                             comm->name, j, i);
                return false;
            }
    }
    return true;
}

/* 1: all ranks are able, 0: not all. */
static int say_hello(struct comm *comm, const struct comm_devices *devices,
                     struct err *err)
{
    struct hello *all = calloc((size_t)comm->size, sizeof(*all));
    struct hello *mine = all ? &all[comm->rank] : NULL;
    struct err why = {0};
    int rc;

    if (!all)
        return err_set(err, ERR_NOMEM, "cannot allocate a list of %d ranks", comm->size);
    if (devices) {
        mine->is_able = devices->identify(devices->state, mine->id, &why) == 0;
        if (!mine->is_able)
            log_warn("group '%s' is exchanged through the host: %s", comm->name,
                     why.text);
    }
    rc = comm_all_gather(comm, all, mine, sizeof(*mine), err);
    if (rc == 0)
        rc = can_open(comm, all);
    free(all);
    return rc;
}

static int share_token(struct comm *comm, const struct comm_devices *devices,
                       char out[COMM_DEVICE_TOKEN_BYTES], struct err *err)
{
    struct token token = {0};
    struct err why = {0};

    if (comm->rank == 0)
        token.is_there = devices->make_token(devices->state, token.bytes, &why) == 0;
    if (comm_broadcast(comm, &token, sizeof(token), 0, err) < 0)
        return -1;
    memcpy(out, token.bytes, sizeof(token.bytes));
    if (token.is_there)
        return 0;
    if (comm->rank > 0)
        return err_set(err, ERR_PEER, "rank 0 could not begin");
    return err_set(err, why.code, "%s", why.text);
}

static void note_wait(void *group, bool begins)
{
    struct comm *comm = group;

    if (begins)
        comm->before = stage_begin("exchange between devices", comm->name, STAGE_WAITING);
    else
        stage_end(comm->before);
}

static int name_missing(void *group, uint64_t number, char *out, size_t n_bytes)
{
    struct comm *comm = group;
    size_t used = 0;

    if (!comm->ops->read_number)
        return -1;
    out[0] = '\0';
    for (int rank = 0; rank < comm->size && used + NAME_RANK_MAX < n_bytes; rank++) {
        int64_t theirs = comm->ops->read_number(comm, rank);
        const char *comma = used ? ", " : "";

        if (rank == comm->rank || theirs >= (int64_t)number)
            continue;
        used += (size_t)(theirs < 0 ? snprintf(out + used, n_bytes - used,
                                               "%srank %d (gone)", comma, rank)
                                    : snprintf(out + used, n_bytes - used,
                                               "%srank %d (at number %lld)", comma, rank,
                                               (long long)theirs));
    }
    return 0;
}

static void post(struct comm *comm)
{
    if (comm->ops->post_number)
        comm->ops->post_number(comm, comm->device_number);
}

static uint64_t count(void *group, int64_t n_more)
{
    struct comm *comm = group;

    comm->device_number += (uint64_t)n_more;
    post(comm);
    return comm->device_number;
}

/* Either all ranks have it, or none. */
static int open_together(struct comm *comm, const struct comm_devices *devices,
                         struct err *err)
{
    struct comm_device_args args = {.rank = comm->rank,
                                    .n_ranks = comm->size,
                                    .timeout_ms = comm->timeout_ms,
                                    .note_wait = note_wait,
                                    .note_sign = stage_sign,
                                    .name_missing = name_missing,
                                    .count = count,
                                    .group = comm};
    struct comm_device *device = NULL;
    double has_failed;
    int rc;

    snprintf(args.name, sizeof(args.name), "%s", comm->name);
    if (share_token(comm, devices, args.token, err) < 0)
        return -1;
    rc = devices->open(devices->state, &device, &args, err);
    has_failed = rc < 0;
    if (rc == 0)
        rc = comm_all_reduce_f64(comm, &has_failed, 1, COMM_MAX, err);
    else
        (void)comm_all_reduce_f64(comm, &has_failed, 1, COMM_MAX, NULL);
    if (rc == 0 && has_failed > 0)
        rc = err_set(err, ERR_PEER, "another rank could not open it");
    if (rc < 0)
        return -1;
    comm->device = device;
    device->slot = &comm->device;
    return 0;
}

int comm_open_devices(struct comm *comm, const struct comm_devices *devices,
                      struct err *err)
{
    int rc;

    if (comm->size == 1 || comm->device)
        return 0;
    rc = say_hello(comm, devices, err);
    if (rc > 0)
        rc = open_together(comm, devices, err);
    return rc < 0 ? err_wrap(err, "collectives of group '%s' between devices", comm->name)
                  : 0;
}

bool comm_has_device(const struct comm *comm)
{
    return comm->device;
}

/* ---- the collectives ---- */

/* Numbers a call, and lets the others see how far this rank is. */
static uint64_t begin(struct comm *comm, const char *what)
{
    comm->device_number++;
    post(comm);
    comm->before = stage_begin(what, comm->name, STAGE_FREE);
    comm->begun_ns = clock_mono_ns();
    return comm->device_number;
}

static int end(struct comm *comm, int rc)
{
    comm->total_ns += clock_mono_ns() - comm->begun_ns;
    stage_end(comm->before);
    return rc;
}

int comm_device_all_reduce(struct comm *comm, float *x, int64_t n, enum comm_op op,
                           struct err *err)
{
    struct comm_device *d = comm->device;
    uint64_t number = begin(comm, "all-reduce");

    return end(comm, d->ops->all_reduce(d, number, x, n, op, err));
}

int comm_device_all_reduce_f64(struct comm *comm, double *x, int64_t n, enum comm_op op,
                               struct err *err)
{
    struct comm_device *d = comm->device;
    uint64_t number = begin(comm, "all-reduce");

    return end(comm, d->ops->all_reduce_f64(d, number, x, n, op, err));
}

int comm_device_all_gather(struct comm *comm, void *out, const void *mine, size_t n_bytes,
                           struct err *err)
{
    struct comm_device *d = comm->device;
    uint64_t number = begin(comm, "all-gather");

    return end(comm, d->ops->all_gather(d, number, out, mine, n_bytes, err));
}

int comm_device_reduce_scatter(struct comm *comm, float *out, const float *x, int64_t n,
                               struct err *err)
{
    struct comm_device *d = comm->device;
    uint64_t number = begin(comm, "reduce-scatter");

    return end(comm, d->ops->reduce_scatter(d, number, out, x, n, err));
}

int comm_device_broadcast(struct comm *comm, void *bytes, size_t n_bytes, int root,
                          struct err *err)
{
    struct comm_device *d = comm->device;
    uint64_t number = begin(comm, "broadcast");

    return end(comm, d->ops->broadcast(d, number, bytes, n_bytes, root, err));
}

int comm_device_all_reduce_beside(struct comm *comm, float *x, int64_t n, enum comm_op op,
                                  struct err *err)
{
    struct comm_device *d = comm->device;
    uint64_t number = begin(comm, "all-reduce");

    return end(comm, d->ops->all_reduce_beside(d, number, x, n, op, err));
}

int comm_device_join(struct comm *comm, struct err *err)
{
    return comm->device->ops->join(comm->device, err);
}
