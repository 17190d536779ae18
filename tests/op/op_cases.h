/* op_cases.h - what the files of cases share: op_cases.c has the table of all
 *
 * Each function runs one operation, and its gradient where it has one; the comment above it
 * says what the numbers of a case are.
 */
#ifndef VNEVA_TESTS_OP_OP_CASES_H
#define VNEVA_TESTS_OP_OP_CASES_H

#include "tests/op/op_run.h"

#define D OP_DIMS
#define IDS_MAX 640 /* ids, labels or positions of a case */

enum {
    TRANS_A = 1,
    TRANS_B = 2,
    BIAS = 4,
    BETA = 8,
    C_F32 = 16, /* c is F32 whatever T is */
    CAUSAL = 32,
    JOINT = 64,        /* q, k, v are columns of one product */
    LENS = 128,        /* rows have fewer keys than there is room for */
    FROZEN = 256,      /* no gradients of parameters wanted */
    AROUND_ZERO = 512, /* LayerNorm1P */
    LINEAR = 1024,     /* scaling of rope */
    LLAMA3 = 2048,
    RESIDUAL = 4096,   /* is added to what is multiplied, or normed, and to gradients */
    PRE_ACT = 8192,    /* what an activation is taken of is kept */
    SLOPE = 16384,     /* back through an activation */
    BIAS_GRAD = 32768, /* with a product */
    SHIFTED = 65536, /* vectors and matrices beside the product begin one element later */
    ADDED_F32 = 131072, /* the residual of a norm is F32 whatever T is */
    INFINITE = 262144,  /* one of the gradients is */
    NOT_A_NUMBER = 524288
};

void run_act(struct op_run *r);
void run_add_scale_cast(struct op_run *r);
void run_attention(struct op_run *r);
void run_bias_bwd(struct op_run *r);
void run_embed(struct op_run *r);
void run_fused_matmul(struct op_run *r);
void run_layernorm(struct op_run *r);
void run_matmul(struct op_run *r);
void run_patchify(struct op_run *r);
void run_rmsnorm(struct op_run *r);
void run_rope(struct op_run *r);
void run_scatter_gather(struct op_run *r);
void run_swiglu(struct op_run *r);
void run_update(struct op_run *r);
void run_sample(struct op_run *r);
void run_xent(struct op_run *r);

#endif
