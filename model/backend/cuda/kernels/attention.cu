/* attention.cu - which of the own kernels an attention takes */
#include "model/backend/cuda/kernels/attention.cuh"

/* Rows of all of them can be loaded by PACKs, from addresses of 16 bytes. */
static bool is_packed(const struct attention_shape *s, const struct attention_tensors *x)
{
    return s->k % PACK == 0 && s->q_stride % PACK == 0 && s->kv_stride % PACK == 0 &&
           is_aligned(x->q) && is_aligned(x->k) && is_aligned(x->v) && is_aligned(x->o) &&
           is_aligned(x->d_o) && is_aligned(x->dq) && is_aligned(x->dk) &&
           is_aligned(x->dv);
}

/* Matrix units; 'shared': what they take of shared memory, of which GPUs have unlike much. */
static bool is_for_mma(const struct cuda *cuda, const struct attention_shape *s,
                       const struct attention_tensors *x, size_t shared)
{
    return (x->q->dtype == DTYPE_BF16 || x->q->dtype == DTYPE_F16) && s->scale > 0 &&
           s->k <= ATTENTION_MMA_HEAD_MAX && is_packed(s, x) &&
           shared <= cuda->shared_bytes_max;
}

int kernel_attention_fwd(struct cuda *cuda, const struct attention_shape *shape,
                         const struct attention_tensors *x, struct err *err)
{
    if (shape->tq == 1 && shape->k <= ATTENTION_DECODE_HEAD_MAX && is_packed(shape, x))
        return attention_decode_fwd(cuda, shape, x, err);
    if (is_for_mma(cuda, shape, x, attention_mma_fwd_shared(shape->k)))
        return attention_mma_fwd(cuda, shape, x, err);
    return attention_fp32_fwd(cuda, shape, x, err);
}

int kernel_attention_bwd(struct cuda *cuda, const struct attention_shape *shape,
                         const struct attention_tensors *x, struct err *err)
{
    if (is_for_mma(cuda, shape, x, attention_mma_bwd_shared(shape->k)))
        return attention_mma_bwd(cuda, shape, x, err);
    return attention_fp32_bwd(cuda, shape, x, err);
}
