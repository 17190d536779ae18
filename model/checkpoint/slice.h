/* slice.h - what a checkpoint says about each tensor: its place in the whole
 *
 * Written as the tensor's note: "axis=0 first=31 whole=61,16 xxh64=0123456789abcdef";
 * axis -1: the tensor is the whole.
 */
#ifndef VNEVA_MODEL_CHECKPOINT_SLICE_H
#define VNEVA_MODEL_CHECKPOINT_SLICE_H

#include "model/checkpoint/safetensors.h"

struct slice_note {
    int axis;
    int64_t first;
    int n_dims;
    int64_t whole[TENSOR_DIMS_MAX];
    uint64_t hash;
};

/* Without the hash, which safetensors_write appends. */
void slice_note_print(char *out, size_t n_bytes, const struct slice_note *note);

/* Refuses what is not exactly such a note, or does not fit the tensor it goes with. */
int slice_note_read(struct slice_note *out, const struct safetensor *tensor,
                    struct err *err);

#endif
