/* update.h - what the optimizer's operations work on: all tensors of a model at once
 *
 * A list names every tensor that is trained. Their memory never moves, so a device gets the
 * list once and an update of any number of tensors is a launch or two. Tensors are divided
 * into chunks of UPDATE_CHUNK elements, numbered through the list, so that a device has
 * equal pieces of work however the sizes differ.
 * Owns: an update_list owns its items and their copy in the backend's memory.
 */
#ifndef VNEVA_MODEL_BACKEND_UPDATE_H
#define VNEVA_MODEL_BACKEND_UPDATE_H

#include "common/base/err.h"
#include "model/tensor.h"

#include <stdbool.h>

struct backend;

#define UPDATE_CHUNK 16384 /* elements */

/* One tensor: n elements of each, in the backend's memory, F32 but for `weight`. */
struct update_item {
    float *master, *m, *v, *grad;
    void *weight; /* of the list's type, gets the rounded master; NULL: there is none */
    int64_t n;
    int64_t first_chunk; /* chunks of the items before it: update_list_init fills it in */
    int32_t has_decay;   /* weight decay applies */
    int32_t is_counted;  /* its squares count here; 0: another rank has them */
};

struct update_list {
    struct update_item *items; /* host memory */
    struct update_item
        *device; /* the same in the backend's; NULL where that is the host's */
    int n_items;
    int64_t n_chunks;
    enum dtype dtype; /* of the weights */
};

/* Takes `items`, from malloc, whatever comes of it. */
int update_list_init(struct update_list *list, struct backend *b,
                     struct update_item *items, int n_items, enum dtype dtype,
                     struct err *err);
void update_list_fini(struct update_list *list, struct backend *b);

/* What becomes of the gradients of a global batch. */
struct update_verdict {
    double norm;       /* of all of them, after division; of no use where not finite */
    float scale;       /* that AdamW multiplies them by: division and clipping */
    int32_t is_finite; /* 0: AdamW changes nothing but empties the gradients */
};

#endif
