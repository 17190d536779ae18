/* attention_graph.h - attention as cuDNN is asked for it: a graph of small operations
 *
 * cuDNN has kernels for whole attentions. Which one is wanted it reads off a graph of
 * products, elementwise operations and reductions, which must be exactly those that it
 * knows; none is carried out by itself. Tensors are named by uids; those that are
 * "virtual" never exist.
 *
 * Owns: what is made goes into `parts`, to be destroyed with them.
 * Threads: none; one caller at a time.
 * Source: the graphs that NVIDIA's cudnn-frontend 1.14 builds for scaled dot product
 * attention and its gradient, and "cuDNN Backend API" for the descriptors.
 */
#ifndef VNEVA_MODEL_BACKEND_CUDA_ATTENTION_GRAPH_H
#define VNEVA_MODEL_BACKEND_CUDA_ATTENTION_GRAPH_H

#include "model/backend/cuda/attention_parts.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What tells one graph from another; letters as in backend.h, strides in elements. Compared
 * as memory: no padding. */
struct sdpa_key {
    int64_t b, tq, tk, h, g, k;
    int64_t q_stride, kv_stride, o_stride;
    int32_t is_bf16, is_bwd; /* else fp16, forward */
    int32_t is_causal;
    int32_t has_lens; /* queries and keys of each row come in UID_Q_LENS, UID_KV_LENS;
                           * a causal mask then ends at the last of both */
    int32_t
        is_any_order; /* dq is summed in fp32 as blocks of keys come: faster, and other
                           * bits every time */
    int32_t zero;     /* fills up to 8 bytes */
};

/* Tensors that are bound to memory when a plan runs. */
enum sdpa_uid {
    UID_Q = 1, /* [B,H,Tq,K] */
    UID_K,     /* [B,G,Tk,K], which a graph sees as [B,G,K,Tk] */
    UID_V,     /* likewise in the backward pass */
    UID_O,
    UID_LSE, /* [B,H,Tq,1] F32 */
    UID_DO,
    UID_DQ,
    UID_DK,
    UID_DV,
    UID_Q_LENS,  /* [B] I32 */
    UID_KV_LENS, /* [B] I32 */
    UID_SCALE,   /* numbers, given by value */
    UID_MASK,    /* minus infinity */
    UID_ONE,
    UID_DOT,    /* scratch of a backward pass: sums of do * o, [B,H,Tq,1] F32 */
    UID_DQ_SUM, /* with is_any_order: [B,H,Tq,K] F32 */
    UID_END
};

/* The graph, finalized; handle NULL: for a device that is described elsewhere. */
cudnnBackendDescriptor_t sdpa_graph(struct sdpa_parts *parts, const struct sdpa_key *key,
                                    cudnnHandle_t handle, struct err *err);

#ifdef __cplusplus
}
#endif

#endif
