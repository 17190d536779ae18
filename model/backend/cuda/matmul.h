/* matmul.h - inside of cuda's products: what is asked of cuBLASLt, and the plans for it
 *
 * A plan is how one kind of product is done: which of its epilogues cuBLASLt takes over, and
 * by which algorithm. It is made when that kind is met first, and remembered.
 * Threads: one, the backend's.
 */
#ifndef VNEVA_MODEL_BACKEND_CUDA_MATMUL_H
#define VNEVA_MODEL_BACKEND_CUDA_MATMUL_H

#include "model/backend/cuda/cuda.h"

#include <cublasLt.h>

/* What NVIDIA recommends for Hopper ("cuBLAS Library", section cublasSetWorkspace). */
#define MATMUL_WORKSPACE_BYTES ((size_t)32 << 20)

/* What cuBLASLt does with a product before it stores it. */
enum {
    FUSED_BIAS = 1,
    FUSED_ACT = 2,       /* GELU's tanh form; the others are kernels' */
    FUSED_PRE_ACT = 4,   /* stores what the activation is taken of */
    FUSED_SLOPE = 8,     /* times the slope of GELU's tanh form */
    FUSED_BIAS_GRAD = 16 /* column sums of a */
};

enum { C_UNUSED, C_IN_PLACE, C_RESIDUAL }; /* what is added to the product */

/* All that an algorithm depends on. Without holes: it is hashed and compared as bytes. */
struct matmul_key {
    int64_t m, n, k;
    int32_t type, c_type, is_tf32;
    int32_t trans_a, trans_b, c_use, wanted; /* wanted: FUSED_ bits */
    int32_t align_a, align_b, align_c, align_d, align_aux, align_bias;
    int32_t unused; /* 0 */
};

struct matmul_plan {
    bool is_used;
    struct matmul_key key;
    int32_t fused; /* of key.wanted */
    cublasLtMatmulDesc_t desc;
    cublasLtMatrixLayout_t a, b, c;
    cublasLtMatmulAlgo_t algo;
};

/* One product: where its matrices lie. */
struct matmul_call {
    const void *a, *b, *c; /* c: what is added, or d */
    void *d, *aux;         /* aux: pre_act or slope_at */
    const void *bias;      /* or where the gradient of the bias goes */
    float beta;
};

struct matmul_choices; /* matmul_tune.c */

struct matmul_plans {
    cublasLtHandle_t lt;
    void *workspace;
    struct matmul_choices *choices; /* NULL: algorithms are not timed */
    unsigned n_used;
    struct matmul_plan *slots;
};

int matmul_check(cublasStatus_t status, const char *what, struct err *err);

/* The plan for a key, made for a call where there is none yet; NULL with err filled. */
struct matmul_plan *matmul_plan_get(struct cuda *cuda, const struct matmul_key *key,
                                    const struct matmul_call *call, struct err *err);

/* Asks for the product, by the plan's algorithm or (not NULL) another. */
cublasStatus_t matmul_run(struct cuda *cuda, struct matmul_plan *plan,
                          const struct matmul_call *call,
                          const cublasLtMatmulAlgo_t *algo);

/* ---- matmul_tune.c ---- */

int matmul_choices_open(struct matmul_choices **out, const struct cuda *cuda,
                        struct err *err);
void matmul_choices_close(struct matmul_choices *choices); /* NULL is fine */

/* True when several algorithms are worth timing for this kind of product. */
bool matmul_is_tuned(const struct cuda *cuda, const struct matmul_key *key);

/* plan->algo = the one that was chosen for this kind of product before, on this machine;
 * else the fastest of those given, timed on the call's own matrices, whose results are
 * written; the choice is kept. Without room for a trial, or a file: the first. */
int matmul_tune(struct cuda *cuda, struct matmul_plan *plan,
                const struct matmul_call *call, const cublasLtMatmulAlgo_t *algos, int n,
                struct err *err);

#endif
