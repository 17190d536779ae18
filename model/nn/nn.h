/* nn.h - norms and linear layers over backend and communicator, whole or split over the ranks
 *
 * Owns: nothing but a host buffer for collectives of device memory. Borrows backend and
 * group. Threads: one. Weights are [out, in] as in Hugging Face's state dicts.
 * Source of the splitting: Shoeybi et al., "Megatron-LM", 2019, section 3.
 */
#ifndef VNEVA_MODEL_NN_NN_H
#define VNEVA_MODEL_NN_NN_H

#include "model/backend/backend.h"
#include "model/comm/comm.h"

struct nn {
    struct backend *backend;
    struct comm *group;  /* tensor-parallel ranks; NULL where weights are whole */
    enum dtype dtype;    /* of activations: "T" below */
    struct tensor *wide; /* F32 room for sums over ranks when T is not F32, or NULL */
    void *staging;       /* host copy of device memory during a collective */
    size_t staging_bytes;
};

void nn_fini(struct nn *nn);

/* True when the layer's weights are split over more than one rank. */
bool nn_is_split(const struct nn *nn);

/* Kinds of norm over the last dimension, D. */
enum nn_norm_kind {
    NN_NORM_RMS,     /* x rstd w */
    NN_NORM_LAYER,   /* (x - mean) rstd w + b */
    NN_NORM_LAYER_1P /* (x - mean) rstd (1 + w) + b: w is stored around zero */
};

struct nn_norm {
    enum nn_norm_kind kind;
    float eps;
};

/* y [N,D] T = norm(x); rstd [N] F32, and mean [N] F32 but for RMS, are kept. b: not read
 * for RMS. */
int nn_norm_fwd(struct nn *nn, const struct nn_norm *norm, struct tensor *y,
                struct tensor *mean, struct tensor *rstd, const struct tensor *x,
                const struct tensor *w, const struct tensor *b, struct err *err);
/* The same of sum [N,D] T = x + added, which is kept; added T or F32 */
int nn_norm_add_fwd(struct nn *nn, const struct nn_norm *norm, struct tensor *y,
                    struct tensor *mean, struct tensor *rstd, struct tensor *sum,
                    const struct tensor *x, const struct tensor *added,
                    const struct tensor *w, const struct tensor *b, struct err *err);
/* dx = gradient of x, plus d_residual (NULL: nothing), which may be dx; dw, db F32 += (NULL
 * or without data: not wanted) */
int nn_norm_bwd(struct nn *nn, const struct nn_norm *norm, struct tensor *dx,
                struct tensor *dw, struct tensor *db, const struct tensor *dy,
                const struct tensor *d_residual, const struct tensor *x,
                const struct tensor *w, const struct tensor *mean,
                const struct tensor *rstd, struct err *err);

/* y [N,out] T = x [N,in] w^T + bias ([out] T or NULL) */
int nn_linear_fwd(struct nn *nn, struct tensor *y, const struct tensor *x,
                  const struct tensor *w, const struct tensor *bias, struct err *err);

/* y [N,out] T = act(x w^T + bias); pre_act [N,out] T keeps what act is taken of (NULL: not
 * wanted) */
int nn_linear_act_fwd(struct nn *nn, struct tensor *y, struct tensor *pre_act,
                      const struct tensor *x, const struct tensor *w,
                      const struct tensor *bias, enum activation act, struct err *err);

/* dx [N,in] T = dy [N,out] w */
int nn_linear_bwd_x(struct nn *nn, struct tensor *dx, const struct tensor *dy,
                    const struct tensor *w, struct err *err);

/* Of a layer whose x is act(pre_act): d_pre_act [N,in] T = dy [N,out] w act'(pre_act) */
int nn_linear_act_bwd_x(struct nn *nn, struct tensor *d_pre_act, const struct tensor *dy,
                        const struct tensor *w, const struct tensor *pre_act,
                        enum activation act, struct err *err);

/* dw [out,in] F32 += dy^T x; db [out] F32 += column sums of dy (NULL or without data: not
 * wanted) */
int nn_linear_bwd_w(struct nn *nn, struct tensor *dw, struct tensor *db,
                    const struct tensor *dy, const struct tensor *x, struct err *err);

/* Row-parallel: y [N,out] T = sum over ranks of x_r [N,in/R] w_r^T, + bias and residual
 * [N,out] T once; residual NULL: nothing, else not y. Identical on every rank. COLLECTIVE
 * when split */
int nn_linear_row_fwd(struct nn *nn, struct tensor *y, const struct tensor *x,
                      const struct tensor *w, const struct tensor *bias,
                      const struct tensor *residual, struct err *err);

/* The same without residual, not rounded: *sum is where it lies, F32, y or nn->wide. Only
 * for what is split. COLLECTIVE */
int nn_linear_row_sum(struct nn *nn, struct tensor *sum, struct tensor *y,
                      const struct tensor *x, const struct tensor *w,
                      const struct tensor *bias, struct err *err);

/* Column-parallel: dx [N,in] T = sum over ranks of dy_r [N,out/R] w_r. COLLECTIVE when
 * split */
int nn_linear_column_bwd_x(struct nn *nn, struct tensor *dx, const struct tensor *dy,
                           const struct tensor *w, struct err *err);

/* x F32, in place: reduction over the ranks, wherever its memory is. COLLECTIVE */
int nn_all_reduce(struct nn *nn, struct comm *group, struct tensor *x, enum comm_op op,
                  struct err *err);

/* The same for double, in the backend's memory. COLLECTIVE */
int nn_all_reduce_f64(struct nn *nn, struct comm *group, double *x, int64_t n,
                      enum comm_op op, struct err *err);

/* Lets the group's device memory be exchanged without the host where that can be: see
 * comm_open_devices. COLLECTIVE */
int nn_open_group(struct backend *b, struct comm *group, struct err *err);

/* x T, in place: sum over the ranks taken in F32. COLLECTIVE */
int nn_sum_ranks(struct nn *nn, struct tensor *x, struct err *err);

/* out [R, bytes of mine] = every rank's `mine`. COLLECTIVE */
int nn_all_gather(struct nn *nn, struct comm *group, struct tensor *out,
                  const struct tensor *mine, struct err *err);

#endif
