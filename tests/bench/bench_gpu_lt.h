/* bench_gpu_lt.h - products asked of cuBLASLt directly, with the fastest algorithm it has
 *
 * What our call path is measured against: of many algorithms that cuBLASLt suggests (64
 * here) each is timed, with more workspace than ours and any way of adding parts along k.
 * Owns its stream and memory, beside the backend's, on the same device.
 */
#ifndef VNEVA_TESTS_BENCH_BENCH_GPU_LT_H
#define VNEVA_TESTS_BENCH_BENCH_GPU_LT_H

#include "common/base/err.h"
#include "model/tensor.h"

#include <stdbool.h>

/* c [m,n] = op(a) op(b), row-major, as in backend.h */
struct lt_shape {
    int64_t m, n, k;
    bool trans_a, trans_b, adds; /* adds: c += */
    enum dtype type, c_type;     /* halves; halves or F32 */
    int n_copies;                /* of all three, used in turn, so that caches are cold */
};

struct lt;

int lt_open(struct lt **out, struct err *err);
void lt_close(struct lt *lt); /* NULL is fine */
/* Memory for the shape, random numbers in it, the best algorithm. *n_tried: of how many. */
int lt_prepare(struct lt *lt, const struct lt_shape *shape, int *n_tried,
               struct err *err);
/* n products, one behind the other; returns when they are done. arg: the struct lt */
int lt_run(void *arg, int64_t n, struct err *err);

#endif
