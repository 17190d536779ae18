/* attention_plan.h - from a graph of attention to a plan that runs
 *
 * Owns: a plan and what was made for it, until sdpa_plan_fini.
 * Threads: none; one caller at a time.
 */
#ifndef VNEVA_MODEL_BACKEND_CUDA_ATTENTION_PLAN_H
#define VNEVA_MODEL_BACKEND_CUDA_ATTENTION_PLAN_H

#include "model/backend/cuda/attention_graph.h"

#ifdef __cplusplus
extern "C" {
#endif

/* For a machine with the device: handle. For one without: device, a finalized
 * CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR, and handle NULL. */
struct sdpa_target {
    cudnnHandle_t handle;
    cudnnBackendDescriptor_t device;
};

struct sdpa_plan {
    struct sdpa_parts parts;
    cudnnBackendDescriptor_t
        plan; /* NULL: cuDNN has no way, `why` says the last reason */
    size_t workspace_bytes;
    int64_t engine; /* cuDNN's number of it */
    struct err why;
};

/* The first engine that cuDNN proposes and that makes a plan; one whose sums come in no
 * fixed order only where the key allows it. May take a second: kernels are compiled. */
void sdpa_plan_make(struct sdpa_plan *plan, const struct sdpa_key *key,
                    const struct sdpa_target *target);
void sdpa_plan_fini(struct sdpa_plan *plan);

/* A backward pass whose sums have a fixed order keeps all scores' gradients, 2 bytes each,
 * in its workspace. So that this stays below a limit it is asked for in pieces: some rows
 * of the batch, or some groups of heads of one. */
struct sdpa_piece {
    int64_t b, g;
};

/* What fits into limit_bytes of scores' gradients; {0, 0} when one group does not. */
struct sdpa_piece sdpa_piece_of(const struct sdpa_key *key, size_t limit_bytes);

#ifdef __cplusplus
}
#endif

#endif
