/* cuda.h - inside of backend `cuda`: one device, one stream, everything in order on it
 *
 * Owns: the stream, device memory handed out and its own scratch, a pinned ring through
 * which host data go. The caller runs ahead of the device; it waits only in download,
 * download_end and sync, and when the ring is full.
 * Threads: one caller at a time; the thread that calls must have the device current (a
 * process uses one device).
 * Functions named cuda_* that are slots of struct backend_ops do what backend.h says.
 */
#ifndef VNEVA_MODEL_BACKEND_CUDA_CUDA_H
#define VNEVA_MODEL_BACKEND_CUDA_CUDA_H

#ifdef __cplusplus
extern "C" {
#endif

#include "model/backend/backend.h"
#include "model/comm/device.h"

#include <cuda_runtime_api.h>

/* Host data on their way to the device. Bytes [tail, head) of an endless sequence are on
 * their way; byte i lies at i % STAGING_BYTES. */
#define STAGING_BYTES ((size_t)16 << 20)
#define STAGING_MARKS 64 /* how many pieces are told apart */

struct staging {
    char *pinned;
    uint64_t head, tail;
    struct {
        cudaEvent_t event; /* recorded behind the copy that ends at `end` */
        uint64_t end;
    } marks[STAGING_MARKS];
    unsigned first_mark, n_marks;
};

/* A download that has begun. */
struct letter {
    void *pinned; /* it comes here, and goes on to `to` when it is there */
    size_t pinned_bytes;
    cudaEvent_t event; /* behind the copy */
    void *to;
    size_t n_bytes;
};

/* What comes to the device beside the stream:  copied --event--> take, used --event--> copy */
struct ahead {
    cudaStream_t stream; /* NULL: nobody has asked for it */
    struct staging staging;
    cudaEvent_t copied, used;
};

/* Which attention is asked first, VNEVA_CUDA_ATTENTION: own kernels do what it does not.
 * auto: cuDNN for shapes that come again and have no lengths; own: never cuDNN;
 * cudnn: whatever cuDNN does; cudnn-any-order: likewise, with gradients that are faster
 * and have other bits every time. */
enum attention_choice {
    ATTENTION_AUTO,
    ATTENTION_OWN,
    ATTENTION_CUDNN,
    ATTENTION_CUDNN_ANY_ORDER
};

struct matmul_plans; /* matmul.c */
struct nccl_set;     /* model/comm/nccl.h */
struct nccl_stretch; /* likewise */
struct sdpa;         /* attention_cudnn.c */
struct cuda_graphs;  /* graph.c */

struct cuda {
    struct backend base;
    int device, n_processors;
    size_t shared_bytes_max; /* that a block may have */
    cudaStream_t stream;
    struct staging staging;
    struct ahead ahead;
    void *scratch; /* of one operation */
    size_t scratch_bytes;
    struct letter letter;
    struct rope_args rope;
    double *rope_turns; /* device: half turns a position, of each pair of `rope` */
    struct matmul_plans *matmul;
    bool is_tf32; /* products of F32 on units for TF32 */
    struct sdpa *sdpa;
    struct cuda_graphs *graphs;
    enum attention_choice attention_choice;
    const char *attention; /* whose code did the last one */
    struct comm_devices devices;
    struct nccl_set *nccl; /* NULL: no group is open */
};

static inline struct cuda *cuda_of(struct backend *b)
{
    return (struct cuda *)b;
}

/* 0, or -1 with err filled when a call of the runtime failed. */
int cuda_check(cudaError_t error, const char *what, struct err *err);
/* The same for kernels launched since the last check. */
int cuda_launched(const char *what, struct err *err);

/* Kernels that take more than 48 KiB of shared memory must be allowed to, on each device. */
int cuda_allow_shared(const void *kernel, size_t n_bytes, struct err *err);

/* ---- about.c, and a line of it from each library ---- */

void cuda_about(const struct backend *b, struct backend_about *out);
void cuda_matmul_about(char *out, size_t n_bytes); /* matmul_plan.c */
void cuda_attention_about(const struct cuda *cuda, char *out,
                          size_t n_bytes); /* attention.c */

/* ---- memory.c ---- */

int cuda_alloc(struct backend *b, void **out, size_t n_bytes, struct err *err);
void cuda_free(struct backend *b, void *data);
void cuda_memory(struct backend *b, struct backend_memory *out);
int cuda_upload(struct backend *b, void *dst, const void *host, size_t n_bytes,
                struct err *err);
int cuda_download(struct backend *b, void *host, const void *src, size_t n_bytes,
                  struct err *err);
int cuda_download_begin(struct backend *b, void *host, const void *src, size_t n_bytes,
                        struct err *err);
int cuda_download_end(struct backend *b, struct err *err);
int cuda_copy(struct backend *b, void *dst, const void *src, size_t n_bytes,
              struct err *err);
int cuda_zero(struct backend *b, void *dst, size_t n_bytes, struct err *err);
int cuda_sync(struct backend *b, struct err *err);

int cuda_staging_init(struct staging *s, struct err *err);
void cuda_staging_fini(struct staging *s);
/* dst = host, in the order of `stream`, through a ring that only this stream uses. The array
 * may be changed as soon as this returns. */
int cuda_send(struct cuda *cuda, struct staging *s, cudaStream_t stream, void *dst,
              const void *host, size_t n_bytes, struct err *err);

int cuda_letter_init(struct cuda *cuda, struct err *err);
void cuda_letter_fini(struct cuda *cuda);

/* *out: n_bytes of device memory for the operation at hand, shared by all. */
int cuda_scratch(struct cuda *cuda, void **out, size_t n_bytes, struct err *err);

/* ---- graph.c ---- */

int cuda_graphs_init(struct cuda *cuda, struct err *err);
void cuda_graphs_fini(struct cuda *cuda);
/* Before memory or code goes that recorded operations may use. */
void cuda_graphs_drop(struct cuda *cuda);
/* First in whatever cannot be recorded. 0, or, while operations are recorded, -1: that
 * recording fails, saying `what`, and the operations are asked for again. */
int cuda_graph_refuses(struct cuda *cuda, const char *what, struct err *err);
int cuda_replay(struct backend *b, const struct backend_stretch *key,
                int (*run)(void *context, struct err *err), void *context,
                struct err *err);

/* ---- ahead.c ---- */

void cuda_ahead_fini(struct cuda *cuda);
int cuda_ahead_upload(struct backend *b, void *dst, const void *host, size_t n_bytes,
                      struct err *err);
int cuda_ahead_take(struct backend *b, struct err *err);
int cuda_ahead_used(struct backend *b, struct err *err);

/* ---- group.c ---- */

const struct comm_devices *cuda_devices(struct backend *b);
void cuda_groups_fini(struct cuda *cuda);
/* Collectives in what the stream records, as nccl_record_begin, nccl_record_end and so on;
 * nothing happens where no group is open. */
int cuda_groups_record_begin(struct cuda *cuda, struct err *err);
int cuda_groups_record_end(struct cuda *cuda, struct nccl_stretch **out);
int cuda_groups_launch_begin(struct nccl_stretch *stretch, struct err *err);
int cuda_groups_launch_end(struct nccl_stretch *stretch, struct err *err);
void cuda_groups_forget(struct nccl_stretch *stretch);
/* Until the stream is through, or (event) is there. With communicators open the host asks
 * again and again, and a peer that is gone ends the wait. */
int cuda_wait(struct cuda *cuda, struct err *err);
int cuda_wait_event(struct cuda *cuda, cudaEvent_t event, struct err *err);

/* ---- matmul.c ---- */

int cuda_matmul_init(struct cuda *cuda, struct err *err);
void cuda_matmul_fini(struct cuda *cuda);
int cuda_matmul(struct backend *b, struct tensor *c, const struct tensor *a,
                const struct tensor *bb, const struct matmul_args *args, struct err *err);

/* ---- kernels/ ---- */

/* y [N,n] F32 or T += bias [n] T, in place: where a product cannot do it itself */
int cuda_add_bias(struct cuda *cuda, struct tensor *y, const struct tensor *bias,
                  struct err *err);
int cuda_bias_bwd(struct backend *b, struct tensor *db, const struct tensor *dy,
                  struct err *err);
int cuda_layernorm_fwd(struct backend *b, struct tensor *y, struct tensor *mean,
                       struct tensor *rstd, const struct tensor *x,
                       const struct tensor *w, const struct tensor *bias, float shift,
                       float eps, struct err *err);
int cuda_add_layernorm_fwd(struct backend *b, struct tensor *y, struct tensor *mean,
                           struct tensor *rstd, struct tensor *sum,
                           const struct tensor *x, const struct tensor *added,
                           const struct tensor *w, const struct tensor *bias, float shift,
                           float eps, struct err *err);
int cuda_layernorm_bwd(struct backend *b, struct tensor *dx, struct tensor *dw,
                       struct tensor *dbias, const struct tensor *dy,
                       const struct tensor *d_residual, const struct tensor *x,
                       const struct tensor *w, const struct tensor *mean,
                       const struct tensor *rstd, float shift, struct err *err);
int cuda_rmsnorm_fwd(struct backend *b, struct tensor *y, struct tensor *rstd,
                     const struct tensor *x, const struct tensor *w, float eps,
                     struct err *err);
int cuda_add_rmsnorm_fwd(struct backend *b, struct tensor *y, struct tensor *rstd,
                         struct tensor *sum, const struct tensor *x,
                         const struct tensor *added, const struct tensor *w, float eps,
                         struct err *err);
int cuda_rmsnorm_bwd(struct backend *b, struct tensor *dx, struct tensor *dw,
                     const struct tensor *dy, const struct tensor *d_residual,
                     const struct tensor *x, const struct tensor *w,
                     const struct tensor *rstd, struct err *err);

int cuda_rope(struct backend *b, struct tensor *x, int64_t n_heads,
              const struct tensor *positions, const struct rope_args *args, bool inverse,
              struct err *err);
int cuda_attention_init(struct cuda *cuda, struct err *err); /* attention.c */
void cuda_attention_fini(struct cuda *cuda);
int cuda_attention_fwd(struct backend *b, struct tensor *o, struct tensor *lse,
                       const struct tensor *q, const struct tensor *k,
                       const struct tensor *v, const struct attention_args *args,
                       struct err *err);
int cuda_attention_bwd(struct backend *b, struct tensor *dq, struct tensor *dk,
                       struct tensor *dv, const struct tensor *d_o,
                       const struct tensor *q, const struct tensor *k,
                       const struct tensor *v, const struct tensor *o,
                       const struct tensor *lse, const struct attention_args *args,
                       struct err *err);

int cuda_act_fwd(struct backend *b, struct tensor *y, const struct tensor *x,
                 enum activation act, struct err *err);
int cuda_act_bwd(struct backend *b, struct tensor *dx, const struct tensor *dy,
                 const struct tensor *x, enum activation act, struct err *err);
int cuda_swiglu_fwd(struct backend *b, struct tensor *y, const struct tensor *x,
                    struct err *err);
int cuda_swiglu_bwd(struct backend *b, struct tensor *dx, const struct tensor *dy,
                    const struct tensor *x, struct err *err);
int cuda_add(struct backend *b, struct tensor *y, const struct tensor *a,
             const struct tensor *bb, float s, struct err *err);
int cuda_scale(struct backend *b, struct tensor *x, float s, struct err *err);
int cuda_cast(struct backend *b, struct tensor *y, const struct tensor *x,
              struct err *err);

int cuda_embed_fwd(struct backend *b, struct tensor *y, const struct tensor *w,
                   const struct tensor *ids, int32_t first, struct err *err);
int cuda_embed_bwd(struct backend *b, struct tensor *dw, const struct tensor *dy,
                   const struct tensor *ids, int32_t first, struct err *err);
int cuda_scatter_rows(struct backend *b, struct tensor *y, const struct tensor *x,
                      const struct tensor *rows, struct err *err);
int cuda_gather_rows(struct backend *b, struct tensor *y, const struct tensor *x,
                     const struct tensor *rows, struct err *err);
int cuda_patchify(struct backend *b, struct tensor *y, const struct tensor *pixels,
                  int64_t patch, const float mean[3], const float std[3],
                  struct err *err);

int cuda_xent_max(struct backend *b, struct tensor *max, const struct tensor *logits,
                  int64_t n_real, struct err *err);
int cuda_xent_sum(struct backend *b, struct tensor *sum, struct tensor *target,
                  const struct tensor *logits, const struct tensor *max,
                  const struct tensor *labels, int32_t first, int64_t n_real,
                  struct err *err);
int cuda_xent_bwd(struct backend *b, struct tensor *logits, const struct tensor *max,
                  const struct tensor *sum, const struct tensor *labels, int32_t first,
                  int64_t n_real, struct err *err);
int cuda_xent_total(struct backend *b, double *total, const struct tensor *max,
                    const struct tensor *sum, const struct tensor *target,
                    const struct tensor *labels, struct err *err);
int cuda_argmax(struct backend *b, struct tensor *value, struct tensor *index,
                const struct tensor *logits, int64_t n_real, struct err *err);
int cuda_sample(struct backend *b, struct tensor *value, struct tensor *tokens,
                struct tensor *logits, struct tensor *seen, const struct tensor *streams,
                const struct tensor *steps, const struct sample_args *args,
                struct err *err);

int cuda_sum_squares(struct backend *b, double *squares, const struct update_list *list,
                     struct err *err);
int cuda_judge(struct backend *b, struct update_verdict *verdict, const double *squares,
               int64_t n, double divisor, double clip, struct err *err);
int cuda_adamw(struct backend *b, const struct update_list *list,
               const struct update_verdict *verdict, const struct adamw_args *args,
               struct err *err);

#ifdef __cplusplus
}
#endif

#endif
