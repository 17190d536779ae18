/* onednn.h - matrix products through oneDNN, the only file that knows it
 *
 * Owns: engine, stream, and the primitives made so far, one for each (shape, types,
 * transposes, beta, bias). Threads: one caller per object.
 */
#ifndef VNEVA_MODEL_BACKEND_CPU_ONEDNN_H
#define VNEVA_MODEL_BACKEND_CPU_ONEDNN_H

#include "common/base/err.h"
#include "model/tensor.h"

#include <stdbool.h>

struct onednn;

/* c [m,n] = op(a) op(b) + bias + residual + beta c; ld*: elements from one stored row to the
 * next. Types: a and b both F32, or both BF16; c F32 or theirs; bias [n] or NULL, as a;
 * residual [m,n] or NULL, as c. */
struct onednn_gemm {
    int64_t m, n, k;
    int64_t lda, ldb, ldc;
    bool trans_a, trans_b; /* stored as [k,m], [n,k] */
    enum dtype ab_type, c_type;
    float beta;
    const void *a, *b, *bias, *residual;
    void *c;
};

int onednn_create(struct onednn **out, int n_threads, struct err *err);
void onednn_destroy(struct onednn *onednn); /* NULL is fine */

/* The processor multiplies bf16 in its own units; without them no BF16 product is made. */
bool onednn_has_bf16(const struct onednn *onednn);

int onednn_gemm(struct onednn *onednn, const struct onednn_gemm *gemm, struct err *err);

#endif
