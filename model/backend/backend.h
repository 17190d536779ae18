/* backend.h - the one table of operations the model is written against
 *
 * `ref` is plain C and is the specification; `cpu` is oneDNN and OpenMP; `cuda` is a
 * plugin (libvneva_cuda.so) opened at run time. Math lives nowhere else: layers in nn/
 * call only this table and comm.h.
 *
 * Owns: memory handed out by alloc, until free or backend_destroy.
 * Threads: one caller at a time per backend object; several objects may live in one
 * process. Calls are ordered; a device may run behind the caller until sync or download.
 * Types: activations are F32, BF16 or F16, one type per call ("T" below); sums inside
 * every operation are fp32. Parameter gradients are F32 and accumulated (+=). Tables of
 * numbers (positions, rows, lengths, ids, labels) are I32 tensors in the backend's memory
 * as well: they are read when the operation runs, not when it is asked for.
 * Letters: B batch, T tokens, D width, H heads, G key-value heads, K head size,
 * V vocabulary, N rows (any leading dimensions flattened).
 * Errors: shapes and types are checked by the callers in nn/ at creation; an operation
 * fails only for memory or a broken device. Determinism: the same call with the same
 * bits on the same machine and thread count gives the same bits.
 */
#ifndef VNEVA_MODEL_BACKEND_BACKEND_H
#define VNEVA_MODEL_BACKEND_BACKEND_H

#include "common/base/err.h"
#include "model/backend/update.h"
#include "model/tensor.h"

#include <stdbool.h>

enum activation { ACT_NONE, ACT_GELU, ACT_GELU_TANH, ACT_QUICK_GELU, ACT_RELU_SQUARED };

/* What goes into a product, and what is done with it before it is stored. NULL: nothing.
 * With act or slope_at, beta is 0 and there is no residual. */
struct matmul_args {
    bool trans_a;              /* a is [k,m] instead of [m,k] */
    bool trans_b;              /* b is [n,k] instead of [k,n] */
    float beta;                /* 0: c is overwritten; 1: added to (c is then F32 or T) */
    const struct tensor *bias; /* [n] T */
    const struct tensor *residual; /* [m,n] as c, not c: is added; beta is 0 */
    /* forward through an activation: c = act(sum); the sum itself is kept in pre_act. act is
     * taken of the sum or of what was rounded into pre_act, always the same of the two. */
    enum activation act;
    struct tensor *pre_act; /* [m,n] as c, not c */
    /* backward through one: c = sum act'(slope_at), where slope_at is what pre_act kept */
    const struct tensor *slope_at; /* [m,n] as c, not c */
    /* [m] F32 += column sums of a, which is [k,m]: with the gradient of a layer's weights,
     * c = dy^T x, that of its bias */
    struct tensor *bias_grad;
};

struct attention_args {
    int64_t n_heads;    /* H */
    int64_t n_kv_heads; /* G, H % G == 0 */
    bool causal;        /* query t of Tq sees keys up to t + (kv_lens[b] - Tq) */
    float scale;        /* on q k^T, usually 1/sqrt(K) */
    const struct tensor *kv_lens; /* I32 [B]: keys in use of each row, or NULL for all */
    /* Elements from one row to the next of q (and dq), and of k and v (and dk, dv), so
     * that they may be columns of one [B,T,(H+2G)*K] product; 0: contiguous. o, d_o and
     * lse are always contiguous. */
    int64_t q_stride, kv_stride;
    bool one_off; /* a shape that seldom comes again: nothing is prepared for long */
};

enum rope_scaling { ROPE_PLAIN, ROPE_LINEAR, ROPE_LLAMA3 };

/* Pair i of a head's first rot_dims turns by position times rope_frequency(args, i), which
 * model/backend/rope.h defines. */
struct rope_args {
    int64_t rot_dims; /* even */
    float theta;      /* the base, usually 10000 */
    enum rope_scaling scaling;
    float factor;                            /* all but ROPE_PLAIN: above 0 */
    float low_freq_factor, high_freq_factor; /* ROPE_LLAMA3 */
    int64_t original_positions;              /* ROPE_LLAMA3: of the first training */
};

struct adamw_args {
    float lr, beta1, beta2, eps, weight_decay;
    int64_t step; /* from 1, for the bias correction */
};

/* Bytes on the device, or of the host. */
struct backend_memory {
    uint64_t used, peak; /* handed out and taken for its own work: now, the most so far */
    uint64_t free, total; /* of the device, whoever uses it; total 0: not known */
    uint64_t n_allocs;    /* pieces taken so far */
};

/* What a device is and what computes on it, for reports. */
struct backend_about {
    char device[128];      /* its name and compute capability */
    char libraries[448];   /* with the versions that are loaded, and what they refused */
    const char *attention; /* whose code did the last attention; "" before the first */
};

/* What fixes the operations of a stretch of them: sizes, settings, and the places of all
 * memory they work on. Unused words are 0. */
#define BACKEND_FIXED_MAX 12
struct backend_stretch {
    const char *name; /* static: for messages, and part of what is compared */
    uint64_t fixed[BACKEND_FIXED_MAX];
    /* Where ranks exchange between devices in it: they record together and repeat together, or
     * not at all. Asked each time, once more after recording, by all ranks: the least and the
     * greatest of what they say. NULL: nobody else has a part. */
    int (*agree)(void *peers, int64_t mine, int64_t *least, int64_t *greatest,
                 struct err *err);
    void *peers;
};

/* Stretches that are repeated without being asked for piece by piece. */
struct backend_replay {
    uint64_t n_recorded, n_launched, n_refused; /* so far; refused: by any rank */
    uint64_t n_bytes;                           /* that those there are take now */
    struct err refusal;                         /* why the last one was refused */
};

struct backend;
struct sample_args;  /* model/backend/sample.h */
struct comm_devices; /* model/comm/device.h */

struct backend_ops {
    const char *name;
    bool is_host; /* its memory is the host's: callers may read and write it directly */

    void (*destroy)(struct backend *b);
    /* True when matmul in this type runs on units made for it. */
    bool (*is_fast)(const struct backend *b, enum dtype dtype);
    /* Whether products of F32 may round their factors to TF32 (10 bits of mantissa); sums
     * stay fp32. NULL: this backend has no such units and multiplies in fp32. */
    void (*allow_tf32)(struct backend *b, bool is_allowed);
    /* Collectives between devices, for comm_open_devices; theirs go into the order of this
     * backend's calls. NULL: there are none. */
    const struct comm_devices *(*devices)(struct backend *b);
    void (*about)(const struct backend *b,
                  struct backend_about *out); /* NULL: the host */

    /* ---- memory ---- */
    int (*alloc)(struct backend *b, void **out, size_t n_bytes, struct err *err);
    void (*free)(struct backend *b, void *data);
    void (*memory)(struct backend *b, struct backend_memory *out);
    int (*upload)(struct backend *b, void *dst, const void *host, size_t n_bytes,
                  struct err *err);
    int (*download)(struct backend *b, void *host, const void *src, size_t n_bytes,
                    struct err *err); /* waits for what was asked before */
    /* A download in two parts, one at a time (the first forgets an earlier one that was not
     * ended): what is asked between them goes on while the
     * host waits in the second, which it does only for what was asked before the first. The
     * bytes are those of the first; host: there until the second has returned. */
    int (*download_begin)(struct backend *b, void *host, const void *src, size_t n_bytes,
                          struct err *err);
    int (*download_end)(struct backend *b, struct err *err);
    int (*copy)(struct backend *b, void *dst, const void *src, size_t n_bytes,
                struct err *err);
    int (*zero)(struct backend *b, void *dst, size_t n_bytes, struct err *err);
    int (*sync)(struct backend *b, struct err *err);

    /* ---- bytes brought ahead: beside the order of calls. All NULL: memory is the host's ---- */

    /* dst = host, as soon as the calls before the last ahead_used are done; calls that follow
     * do not wait for it. One dst at a time: its first use ends with ahead_used. The array may
     * be changed when this returns. n_bytes 0: only takes what it will need itself. */
    int (*ahead_upload)(struct backend *b, void *dst, const void *host, size_t n_bytes,
                        struct err *err);
    /* Calls from here on see the bytes; before it dst is neither read nor freed. */
    int (*ahead_take)(struct backend *b, struct err *err);
    /* No call from here on reads them. */
    int (*ahead_used)(struct backend *b, struct err *err);

    /* ---- replay ---- */

    /* Runs the operations that `run` asks for. Those of equal stretches must be equal: with
     * the same arguments on the same memory, whatever is in it. Then they may be recorded
     * and repeated without calling run, which so may do nothing else; above all no upload,
     * download, alloc, free or sync: with these nothing is recorded, and run is called
     * each time. It may also be called twice where recording failed, its first operations
     * having had no effect. NULL: run is called. See backend_replay(). */
    int (*replay)(struct backend *b, const struct backend_stretch *stretch,
                  int (*run)(void *context, struct err *err), void *context,
                  struct err *err);

    /* ---- linear algebra ---- */

    /* c [m,n] = op(a) op(b) + bias + residual + beta c, through an activation or back
     * through one: see matmul_args. a, b T; c T or F32. */
    int (*matmul)(struct backend *b, struct tensor *c, const struct tensor *a,
                  const struct tensor *bb, const struct matmul_args *args,
                  struct err *err);

    /* db [n] F32 += column sums of dy [N,n] T */
    int (*bias_bwd)(struct backend *b, struct tensor *db, const struct tensor *dy,
                    struct err *err);

    /* ---- normalisation over the last dimension ---- */

    /* y [N,D] T = (x - mean) * rstd * (shift + w) + bias; mean, rstd [N] F32 are kept.
     * shift: 0, or 1 where weights are stored around zero (LayerNorm1P); added in fp32 */
    int (*layernorm_fwd)(struct backend *b, struct tensor *y, struct tensor *mean,
                         struct tensor *rstd, const struct tensor *x,
                         const struct tensor *w, const struct tensor *bias, float shift,
                         float eps, struct err *err);
    /* The same of sum [N,D] T = x + added, which is kept, after it was rounded; added
     * [N,D] T or F32 */
    int (*add_layernorm_fwd)(struct backend *b, struct tensor *y, struct tensor *mean,
                             struct tensor *rstd, struct tensor *sum,
                             const struct tensor *x, const struct tensor *added,
                             const struct tensor *w, const struct tensor *bias,
                             float shift, float eps, struct err *err);
    /* dx = gradient of x, plus d_residual [N,D] T (NULL: nothing), which may be dx;
     * dw, dbias F32 += (NULL: not wanted) */
    int (*layernorm_bwd)(struct backend *b, struct tensor *dx, struct tensor *dw,
                         struct tensor *dbias, const struct tensor *dy,
                         const struct tensor *d_residual, const struct tensor *x,
                         const struct tensor *w, const struct tensor *mean,
                         const struct tensor *rstd, float shift, struct err *err);
    /* y [N,D] T = x * rstd * w; rstd [N] F32 is kept */
    int (*rmsnorm_fwd)(struct backend *b, struct tensor *y, struct tensor *rstd,
                       const struct tensor *x, const struct tensor *w, float eps,
                       struct err *err);
    int (*add_rmsnorm_fwd)(struct backend *b, struct tensor *y, struct tensor *rstd,
                           struct tensor *sum, const struct tensor *x,
                           const struct tensor *added, const struct tensor *w, float eps,
                           struct err *err);
    int (*rmsnorm_bwd)(struct backend *b, struct tensor *dx, struct tensor *dw,
                       const struct tensor *dy, const struct tensor *d_residual,
                       const struct tensor *x, const struct tensor *w,
                       const struct tensor *rstd, struct err *err);

    /* ---- attention ---- */

    /* In place on x [N, heads, K] T: rotates the first rot_dims of each of the first
     * n_heads heads (queries and keys of a joint [N, H+2G, K] product) by
     * positions[n] * rope_frequency(i), pairs (i, i + rot_dims/2) as Hugging Face's
     * LLaMA has them; inverse for the backward pass. positions I32 [N]. */
    int (*rope)(struct backend *b, struct tensor *x, int64_t n_heads,
                const struct tensor *positions, const struct rope_args *args,
                bool inverse, struct err *err);

    /* o [B,Tq,H*K] T = softmax(scale q k^T, masked) v;  lse [B,H,Tq] F32 is kept.
     * q [B,Tq,H*K], k and v [B,Tk,G*K]. Rows of k, v past kv_lens[b] are not read. A query
     * that sees no key gives o = 0, lse = -infinity, and no gradients. */
    int (*attention_fwd)(struct backend *b, struct tensor *o, struct tensor *lse,
                         const struct tensor *q, const struct tensor *k,
                         const struct tensor *v, const struct attention_args *args,
                         struct err *err);
    /* dq, dk, dv = (overwritten); dk and dv are 0 past kv_lens[b] */
    int (*attention_bwd)(struct backend *b, struct tensor *dq, struct tensor *dk,
                         struct tensor *dv, const struct tensor *d_o,
                         const struct tensor *q, const struct tensor *k,
                         const struct tensor *v, const struct tensor *o,
                         const struct tensor *lse, const struct attention_args *args,
                         struct err *err);

    /* ---- pointwise ---- */

    int (*act_fwd)(struct backend *b, struct tensor *y, const struct tensor *x,
                   enum activation act, struct err *err);
    int (*act_bwd)(struct backend *b, struct tensor *dx, const struct tensor *dy,
                   const struct tensor *x, enum activation act, struct err *err);
    /* y [N,F] = silu(x[:, :F]) * x[:, F:]; x [N,2F] */
    int (*swiglu_fwd)(struct backend *b, struct tensor *y, const struct tensor *x,
                      struct err *err);
    int (*swiglu_bwd)(struct backend *b, struct tensor *dx, const struct tensor *dy,
                      const struct tensor *x, struct err *err);
    /* y = a + s * bb, elementwise; y may be a, or bb of its type and size. bb T or F32; it
     * may repeat: its count divides a's */
    int (*add)(struct backend *b, struct tensor *y, const struct tensor *a,
               const struct tensor *bb, float s, struct err *err);
    int (*scale)(struct backend *b, struct tensor *x, float s, struct err *err);
    int (*cast)(struct backend *b, struct tensor *y, const struct tensor *x,
                struct err *err);

    /* ---- rows: ids and rows are I32 ---- */

    /* y [N,D] T: row ids[n] - first of w [rows,D]; zero where outside (another rank has
     * it, or ids[n] < 0) */
    int (*embed_fwd)(struct backend *b, struct tensor *y, const struct tensor *w,
                     const struct tensor *ids, int32_t first, struct err *err);
    /* dw F32 += , each row of dy to that of its id, in their order */
    int (*embed_bwd)(struct backend *b, struct tensor *dw, const struct tensor *dy,
                     const struct tensor *ids, int32_t first, struct err *err);
    /* y[rows[i]] = x[i] for i < n; rows [n], distinct; the other rows untouched */
    int (*scatter_rows)(struct backend *b, struct tensor *y, const struct tensor *x,
                        const struct tensor *rows, struct err *err);
    /* y[i] = x[rows[i]]; rows [n] */
    int (*gather_rows)(struct backend *b, struct tensor *y, const struct tensor *x,
                       const struct tensor *rows, struct err *err);

    /* y [F*P, 3*p*p] T from pixels [F,S,S,3] U8 (RGB, rows from the top), columns in the
     * order of CLIP's convolution weight [D,3,p,p]: (pixel/255 - mean[c]) / std[c] */
    int (*patchify)(struct backend *b, struct tensor *y, const struct tensor *pixels,
                    int64_t patch, const float mean[3], const float std[3],
                    struct err *err);

    /* ---- vocabulary-parallel cross entropy; logits [N,V/R] T, labels I32 [N], -1 masked;
     * first: this rank's first vocabulary entry; n_real: its entries that are no padding.
     * The caller reduces max, then sum and target over the ranks. ---- */
    int (*xent_max)(struct backend *b, struct tensor *max, const struct tensor *logits,
                    int64_t n_real, struct err *err); /* max [N] F32 */
    /* sum [N] F32 = sum exp(logit - max); target [N] F32 = logit of the label, 0 elsewhere */
    int (*xent_sum)(struct backend *b, struct tensor *sum, struct tensor *target,
                    const struct tensor *logits, const struct tensor *max,
                    const struct tensor *labels, int32_t first, int64_t n_real,
                    struct err *err);
    /* in place: logits become d loss_sum / d logits (0 in masked rows and padding) */
    int (*xent_bwd)(struct backend *b, struct tensor *logits, const struct tensor *max,
                    const struct tensor *sum, const struct tensor *labels, int32_t first,
                    int64_t n_real, struct err *err);
    /* *total (double, in the backend's memory) += the sum over the rows of log(sum) + max -
     * target, taken in double in a fixed order; a row whose label is -1 does not count */
    int (*xent_total)(struct backend *b, double *total, const struct tensor *max,
                      const struct tensor *sum, const struct tensor *target,
                      const struct tensor *labels, struct err *err);
    /* value [N] F32, index [N] I32 of the largest of the first n_real; the first wins.
     * n_real 0: -infinity and -1 */
    int (*argmax)(struct backend *b, struct tensor *value, struct tensor *index,
                  const struct tensor *logits, int64_t n_real, struct err *err);
    /* tokens [N] I32: a column of each row of logits [N,V] F32, drawn as sample.h says;
     * value [N] F32: the largest logit that counts (NaN where there is one). logits: its memory is
     * used. seen [N, sample_words(n_real)] I32: a bit for each token that the row has had,
     * that of the drawn one is set; without data: there is no penalty. streams, steps [N] I32:
     * which row it is, of all there ever are, and how many tokens it has drawn */
    int (*sample)(struct backend *b, struct tensor *value, struct tensor *tokens,
                  struct tensor *logits, struct tensor *seen,
                  const struct tensor *streams, const struct tensor *steps,
                  const struct sample_args *args, struct err *err);

    /* ---- optimizer: all tensors of a list at once; squares (double) and verdict are in the
     * backend's memory, so that nobody waits for them between ---- */

    /* squares[i] = sum of squares of item i's gradient, in a fixed order in double; 0 where
     * it is not counted */
    int (*sum_squares)(struct backend *b, double *squares, const struct update_list *list,
                       struct err *err);
    /* *verdict = verdict_of(sum of squares[0..n), divisor, clip): see verdict.h */
    int (*judge)(struct backend *b, struct update_verdict *verdict, const double *squares,
                 int64_t n, double divisor, double clip, struct err *err);
    /* AdamW (Loshchilov & Hutter 2019, as torch.optim.AdamW): of each item master, m and v
     * are updated in place from scale times the gradient, weight gets the rounded master;
     * unless the verdict says that they are not finite. Gradients become 0. */
    int (*adamw)(struct backend *b, const struct update_list *list,
                 const struct update_verdict *verdict, const struct adamw_args *args,
                 struct err *err);
};

/* Backends embed this first. */
struct backend {
    const struct backend_ops *ops;
    struct backend_memory memory; /* what it counts itself; ask by ops->memory */
    struct backend_replay replay; /* for reading */
};

/* name: "ref", "cpu", "cuda", or "auto" (cuda when plugin and GPU are there, else cpu when
 * built with oneDNN, else ref). device: GPU number, beyond the last they begin anew, so that
 * ranks share them; n_threads: CPU threads (0: all).
 * ERR_UNSUPPORTED says what is missing. */
int backend_create(struct backend **out, const char *name, int device, int n_threads,
                   struct err *err);
/* "auto", and why it is not the GPU: why->code is 0 where it is. */
int backend_create_auto(struct backend **out, int device, int n_threads, struct err *why,
                        struct err *err);
void backend_destroy(struct backend *b); /* NULL is fine */

/* True when matmul in this type runs on units made for it (bf16 on AMX or AVX512-BF16). */
bool backend_is_fast(const struct backend *b, enum dtype dtype);

/* trainer.precision tf32; without units for it nothing changes. */
void backend_allow_tf32(struct backend *b, bool is_allowed);

/* ops->replay where there is one; says in the log, once, that something cannot be
 * recorded. */
int backend_replay(struct backend *b, const struct backend_stretch *stretch,
                   int (*run)(void *context, struct err *err), void *context,
                   struct err *err);

/* A tensor in new memory of the backend, zeroed. */
int backend_tensor(struct backend *b, struct tensor *out, enum dtype dtype, int n_dims,
                   const int64_t *dims, struct err *err);

#endif
