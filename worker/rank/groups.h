/* groups.h - which ranks work together, and how they reach each other
 *
 * An attempt of n ranks is tensor parallel R times data parallel D: rank = data * R +
 * tensor. Ranks of one data number share a model (tensor group); ranks of one tensor
 * number hold the same slice and share gradients (data group).
 * A group on one host meets in shared memory; one over several hosts is a ring over
 * common/net's mesh, encrypted.
 * Owns: communicators and mesh. Threads: one caller.
 */
#ifndef VNEVA_WORKER_RANK_GROUPS_H
#define VNEVA_WORKER_RANK_GROUPS_H

#include "common/base/err.h"
#include "common/base/json.h"
#include "common/wire/wire.h"
#include "model/comm/comm.h"

#include <stdint.h>

#define GROUPS_RANKS_MAX 1024
#define GROUPS_TIMEOUT_MS                                                                \
    600000                   /* without progress in a collective; checkpoints and slow
                                    decodes of another rank fit in */
#define GROUPS_MEET_MS 90000 /* for streams to other hosts: all ranks are ready by then */
#define GROUPS_SLOT_BYTES (1u << 20)

struct layout {
    int n_ranks, rank;
    int n_tensor, tensor_rank;
    int n_data, data_rank;
};

/* Pure. ERR_INVALID when n_ranks is no multiple of tensor_parallel. */
int layout_make(struct layout *out, int64_t n_ranks, int64_t rank,
                int64_t tensor_parallel, struct err *err);
/* The rank with these numbers. */
int layout_rank(const struct layout *layout, int data_rank, int tensor_rank);

struct groups;

/* Begins to listen where peers need it. host: this node's name; address: its address on
 * the network that the nodes share. */
int groups_open(struct groups **out, const struct layout *layout, const char *host,
                const char *address, struct err *err);
/* What RANK_READY says: "HOST" alone, or "HOST ENDPOINT". */
const char *groups_endpoint(const struct groups *groups);
/* endpoints: JSON list of what all ranks said, by rank. unique: names the attempt, the
 * same on all its ranks and on no other's; secret: what ranks of several hosts show each
 * other, of RANK_START. Returns when all groups have met. */
int groups_connect(struct groups *groups, const struct json *endpoints,
                   const char *unique, const struct wire_bytes *secret, struct err *err);
void groups_close(struct groups *groups);

struct comm *groups_tensor(struct groups *groups);
struct comm *groups_data(struct groups *groups);
/* Ranks of the attempt that run on this host, this one included. */
int groups_n_on_host(const struct groups *groups);

#endif
