/* ref.h - the reference backend: the specification of every operation, in plain C
 *
 * Slow and without dependencies. Every element is read as fp32 whatever its type, sums
 * are taken in double, the result is rounded once. Each tensor may have its own type.
 * The functions are the slots of struct backend_ops; backend.h says what they do.
 */
#ifndef VNEVA_MODEL_BACKEND_REF_REF_H
#define VNEVA_MODEL_BACKEND_REF_REF_H

#include "model/backend/backend.h"
#include "model/backend/half.h"

static inline float ref_get(const struct tensor *x, int64_t i)
{
    switch (x->dtype) {
    case DTYPE_F32:
        return ((const float *)x->data)[i];
    case DTYPE_BF16:
        return bf16_to_float(((const uint16_t *)x->data)[i]);
    case DTYPE_F16:
        return f16_to_float(((const uint16_t *)x->data)[i]);
    case DTYPE_I32:
        return (float)((const int32_t *)x->data)[i];
    case DTYPE_U8:
        return (float)((const uint8_t *)x->data)[i];
    }
    return 0;
}

/* y[i] = value, rounded to y's type, which is a floating-point type */
static inline void ref_put(const struct tensor *y, int64_t i, double value)
{
    if (y->dtype == DTYPE_F32)
        ((float *)y->data)[i] = (float)value;
    else if (y->dtype == DTYPE_BF16)
        ((uint16_t *)y->data)[i] = bf16_of_float((float)value);
    else
        ((uint16_t *)y->data)[i] = f16_of_float((float)value);
}

/* An activation's value and its derivative. */
double ref_act_value(enum activation act, double x);
double ref_act_slope(enum activation act, double x);

int ref_matmul(struct backend *b, struct tensor *c, const struct tensor *a,
               const struct tensor *bb, const struct matmul_args *args, struct err *err);
int ref_bias_bwd(struct backend *b, struct tensor *db, const struct tensor *dy,
                 struct err *err);

int ref_layernorm_fwd(struct backend *b, struct tensor *y, struct tensor *mean,
                      struct tensor *rstd, const struct tensor *x, const struct tensor *w,
                      const struct tensor *bias, float shift, float eps, struct err *err);
int ref_add_layernorm_fwd(struct backend *b, struct tensor *y, struct tensor *mean,
                          struct tensor *rstd, struct tensor *sum, const struct tensor *x,
                          const struct tensor *added, const struct tensor *w,
                          const struct tensor *bias, float shift, float eps,
                          struct err *err);
int ref_layernorm_bwd(struct backend *b, struct tensor *dx, struct tensor *dw,
                      struct tensor *dbias, const struct tensor *dy,
                      const struct tensor *d_residual, const struct tensor *x,
                      const struct tensor *w, const struct tensor *mean,
                      const struct tensor *rstd, float shift, struct err *err);
int ref_rmsnorm_fwd(struct backend *b, struct tensor *y, struct tensor *rstd,
                    const struct tensor *x, const struct tensor *w, float eps,
                    struct err *err);
int ref_add_rmsnorm_fwd(struct backend *b, struct tensor *y, struct tensor *rstd,
                        struct tensor *sum, const struct tensor *x,
                        const struct tensor *added, const struct tensor *w, float eps,
                        struct err *err);
int ref_rmsnorm_bwd(struct backend *b, struct tensor *dx, struct tensor *dw,
                    const struct tensor *dy, const struct tensor *d_residual,
                    const struct tensor *x, const struct tensor *w,
                    const struct tensor *rstd, struct err *err);

int ref_rope(struct backend *b, struct tensor *x, int64_t n_heads,
             const struct tensor *positions, const struct rope_args *args, bool inverse,
             struct err *err);
int ref_attention_fwd(struct backend *b, struct tensor *o, struct tensor *lse,
                      const struct tensor *q, const struct tensor *k,
                      const struct tensor *v, const struct attention_args *args,
                      struct err *err);
int ref_attention_bwd(struct backend *b, struct tensor *dq, struct tensor *dk,
                      struct tensor *dv, const struct tensor *d_o, const struct tensor *q,
                      const struct tensor *k, const struct tensor *v,
                      const struct tensor *o, const struct tensor *lse,
                      const struct attention_args *args, struct err *err);

int ref_act_fwd(struct backend *b, struct tensor *y, const struct tensor *x,
                enum activation act, struct err *err);
int ref_act_bwd(struct backend *b, struct tensor *dx, const struct tensor *dy,
                const struct tensor *x, enum activation act, struct err *err);
int ref_swiglu_fwd(struct backend *b, struct tensor *y, const struct tensor *x,
                   struct err *err);
int ref_swiglu_bwd(struct backend *b, struct tensor *dx, const struct tensor *dy,
                   const struct tensor *x, struct err *err);
int ref_add(struct backend *b, struct tensor *y, const struct tensor *a,
            const struct tensor *bb, float s, struct err *err);
int ref_scale(struct backend *b, struct tensor *x, float s, struct err *err);
int ref_cast(struct backend *b, struct tensor *y, const struct tensor *x,
             struct err *err);

int ref_embed_fwd(struct backend *b, struct tensor *y, const struct tensor *w,
                  const struct tensor *ids, int32_t first, struct err *err);
int ref_embed_bwd(struct backend *b, struct tensor *dw, const struct tensor *dy,
                  const struct tensor *ids, int32_t first, struct err *err);
int ref_scatter_rows(struct backend *b, struct tensor *y, const struct tensor *x,
                     const struct tensor *rows, struct err *err);
int ref_gather_rows(struct backend *b, struct tensor *y, const struct tensor *x,
                    const struct tensor *rows, struct err *err);
int ref_patchify(struct backend *b, struct tensor *y, const struct tensor *pixels,
                 int64_t patch, const float mean[3], const float std[3], struct err *err);

int ref_xent_max(struct backend *b, struct tensor *max, const struct tensor *logits,
                 int64_t n_real, struct err *err);
int ref_xent_sum(struct backend *b, struct tensor *sum, struct tensor *target,
                 const struct tensor *logits, const struct tensor *max,
                 const struct tensor *labels, int32_t first, int64_t n_real,
                 struct err *err);
int ref_xent_bwd(struct backend *b, struct tensor *logits, const struct tensor *max,
                 const struct tensor *sum, const struct tensor *labels, int32_t first,
                 int64_t n_real, struct err *err);
int ref_xent_total(struct backend *b, double *total, const struct tensor *max,
                   const struct tensor *sum, const struct tensor *target,
                   const struct tensor *labels, struct err *err);
int ref_argmax(struct backend *b, struct tensor *value, struct tensor *index,
               const struct tensor *logits, int64_t n_real, struct err *err);
int ref_sample(struct backend *b, struct tensor *value, struct tensor *tokens,
               struct tensor *logits, struct tensor *seen, const struct tensor *streams,
               const struct tensor *steps, const struct sample_args *args,
               struct err *err);

int ref_sum_squares(struct backend *b, double *squares, const struct update_list *list,
                    struct err *err);
int ref_judge(struct backend *b, struct update_verdict *verdict, const double *squares,
              int64_t n, double divisor, double clip, struct err *err);
int ref_adamw(struct backend *b, const struct update_list *list,
              const struct update_verdict *verdict, const struct adamw_args *args,
              struct err *err);

#endif
