/* attention.h - one attention, as own kernels (kernels/attention.cu) and cuDNN
 * (attention_cudnn.c) are asked for it; attention.c chooses
 */
#ifndef VNEVA_MODEL_BACKEND_CUDA_ATTENTION_H
#define VNEVA_MODEL_BACKEND_CUDA_ATTENTION_H

#include "model/backend/cuda/cuda.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Letters as in backend.h; strides in elements; lens on the device, or NULL for all. */
struct attention_shape {
    int64_t b, tq, tk, h, g, k;
    int64_t q_stride, kv_stride;
    const int32_t *lens;
    float scale;
    bool is_causal;
    bool one_off;
};

struct attention_tensors {
    struct tensor *o, *lse;               /* written by fwd, read by bwd */
    struct tensor *dq, *dk, *dv;          /* bwd */
    const struct tensor *d_o, *q, *k, *v; /* d_o: bwd */
};

/* Every case. */
int kernel_attention_fwd(struct cuda *cuda, const struct attention_shape *shape,
                         const struct attention_tensors *x, struct err *err);
int kernel_attention_bwd(struct cuda *cuda, const struct attention_shape *shape,
                         const struct attention_tensors *x, struct err *err);

/* attention_cudnn.c, built where cuDNN is. *is_done: false when it does not do this case. */
int sdpa_init(struct cuda *cuda, struct err *err);
void sdpa_fini(struct cuda *cuda);
void sdpa_about(const struct cuda *cuda, char *out, size_t n_bytes);
int sdpa_run(struct cuda *cuda, bool *is_done, const struct attention_shape *shape,
             const struct attention_tensors *x, bool is_bwd, struct err *err);

#ifdef __cplusplus
}
#endif

#endif
