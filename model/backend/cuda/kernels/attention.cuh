/* attention.cuh - what the kernels for attention share, and which of them there are
 *
 * Letters as in backend.h; formulas: ref_attention.c. Each sum has one owner and one order,
 * so there are no atomics and the bits are always the same.
 */
#ifndef VNEVA_MODEL_BACKEND_CUDA_KERNELS_ATTENTION_CUH
#define VNEVA_MODEL_BACKEND_CUDA_KERNELS_ATTENTION_CUH

#include "model/backend/cuda/attention.h"
#include "model/backend/cuda/kernels/device.cuh"

#define LOG2_E 1.4426950408889634F
#define LN_2 0.6931471805599453F

/* ---- on the device ---- */

/* Keys seen by query t of a row with len keys: attention_mask.h. */
__device__ inline int64_t seen_by(const struct attention_shape &a, int64_t len, int64_t t)
{
    int64_t last = t + len - a.tq + 1;

    if (t >= a.tq)
        return 0;
    if (!a.is_causal || last > len)
        return len;
    return last > 0 ? last : 0;
}

/* First query that sees key j. */
__device__ inline int64_t first_seeing(const struct attention_shape &a, int64_t len,
                                       int64_t j)
{
    int64_t t = a.is_causal ? j - len + a.tq : 0;

    return t > 0 ? t : 0;
}

__device__ inline int64_t at_lse(const struct attention_shape &a, int64_t row,
                                 int64_t head, int64_t t)
{
    return (row * a.h + head) * a.tq + t;
}

/* Where few blocks would run, keys are shared out: each part leaves per query what it has
 * found, and attention_join makes one of them. */
struct key_parts {
    float
        *at; /* [n_parts, B*H*Tq, K + 2]: sums of values, maximum, sum; NULL: one part */
    int64_t n_parts, n_each; /* n_each: keys of a part, where the host says it */
};

/* ---- on the host ---- */

/* attention_decode.cu: one query a row, in every type; heads of up to
 * ATTENTION_DECODE_HEAD_MAX elements in PACKs, rows aligned to 16 bytes */
#define ATTENTION_DECODE_HEAD_MAX 256
int attention_decode_fwd(struct cuda *cuda, const struct attention_shape *shape,
                         const struct attention_tensors *x, struct err *err);
/* o and lse of the parts, in their order. */
void attention_join(struct cuda *cuda, const struct attention_shape *shape,
                    const struct attention_tensors *x, const struct key_parts *parts);

/* attention_mma_fwd.cu, attention_mma_bwd.cu: bf16 and fp16 on matrix units, heads of up to
 * ATTENTION_MMA_HEAD_MAX elements in PACKs, rows aligned to 16 bytes, scale above 0 */
#define ATTENTION_MMA_HEAD_MAX 256
int attention_mma_fwd(struct cuda *cuda, const struct attention_shape *shape,
                      const struct attention_tensors *x, struct err *err);
int attention_mma_bwd(struct cuda *cuda, const struct attention_shape *shape,
                      const struct attention_tensors *x, struct err *err);
/* Bytes of shared memory that a block of theirs takes. */
size_t attention_mma_fwd_shared(int64_t k);
size_t attention_mma_bwd_shared(int64_t k);

/* attention_fp32.cu: every case */
int attention_fp32_fwd(struct cuda *cuda, const struct attention_shape *shape,
                       const struct attention_tensors *x, struct err *err);
int attention_fp32_bwd(struct cuda *cuda, const struct attention_shape *shape,
                       const struct attention_tensors *x, struct err *err);

#endif
