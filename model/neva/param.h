/* param.h - the one table of parameters
 *
 * Name (Hugging Face's), whole shape, shard axis, initialisation, decay and group of every
 * tensor of the model: allocation, sharding, freezing, optimizer state, checkpoints,
 * import and export all walk this table.
 *
 * A sharded axis of length n over R ranks: rank r holds [r*c, min(n, (r+1)*c)),
 * c = ceil(n/R); local memory has c entries, those past n are padding and stay zero.
 * Heads are sharded by whole heads: the axis then counts in units of `unit` entries.
 */
#ifndef VNEVA_MODEL_NEVA_PARAM_H
#define VNEVA_MODEL_NEVA_PARAM_H

#include "common/base/err.h"
#include "model/tensor.h"

#include <stdbool.h>

enum param_group { PARAM_VISION, PARAM_PROJECTOR, PARAM_LLM, PARAM_GROUP_COUNT };
enum param_init { INIT_NORMAL, INIT_ZERO, INIT_ONE };

#define PARAM_NAME_MAX 128

struct param {
    char name[PARAM_NAME_MAX]; /* as in LlavaForConditionalGeneration's state dict */
    enum param_group group;
    int n_dims;
    int64_t dims[TENSOR_DIMS_MAX]; /* of the whole tensor */
    int shard_axis;                /* -1: replicated on every tensor-parallel rank */
    int64_t unit;                  /* entries that stay together on that axis */
    int64_t local_dims[TENSOR_DIMS_MAX]; /* of this rank's slice, with padding */
    int64_t first, n_real;               /* its place on the axis, without padding */
    enum param_init init;
    float init_std;
    bool decay;      /* weight decay applies (matrices; not norms and biases) */
    bool is_trained; /* not frozen */
    bool is_joined;  /* directly behind the one before: together one matrix (q, k, v) */

    struct tensor value;  /* compute type */
    struct tensor master; /* F32; the same memory as value when that is F32; without data
                             when frozen in another type */
    struct tensor grad;   /* F32, trained ones only; without data before the first step */
    struct tensor m, v;   /* F32, likewise before the first optimizer step */
};

struct param_table {
    struct param *params;
    int n_params;
};

/* A parameter seen as [outer, axis, inner], axis the sharded one (or the first): this rank
 * has entries [first, first + n_real) of `whole`, in memory for `local` of them. */
struct param_slice {
    int64_t outer, inner;
    int64_t whole, local;
    int64_t first, n_real;
};
struct param_slice param_slice(const struct param *param);

struct param *param_find(const struct param_table *table, const char *name);

#endif
