/* cpu.h - the cpu backend: oneDNN for large matmul in types the processor has units for,
 * own vectorised loops for everything else
 *
 * How an operation is built: its slot (cpu_<group>.c) divides the work into fixed parts
 * and hands them to cpu_parallel; a part reads rows or pieces as fp32 (cpu_read), calls a
 * kernel of the chosen instruction set (kern/), and stores the result (cpu_write).
 * Determinism: parts depend on shapes alone and sums of parts are added in order, so the
 * bits do not depend on the number of threads, except where matmul goes to oneDNN
 * (cpu_matmul.c), which may divide the sum over k among threads: there the bits are the
 * same for the same number.
 * Threads: one caller; cpu_parallel's workers touch only their own scratch.
 */
#ifndef VNEVA_MODEL_BACKEND_CPU_CPU_H
#define VNEVA_MODEL_BACKEND_CPU_CPU_H

#include "model/backend/backend.h"
#include "model/backend/cpu/kern/kern.h"

#define CPU_CHUNK 1024      /* elements of a pointwise piece: 4 KiB, stays in L1 */
#define CPU_SUM_PARTS 64    /* at most so many partial sums over rows */
#define CPU_SUM_ROWS_MIN 32 /* rows a partial sum is worth */

struct onednn;

struct cpu {
    struct backend base;
    const struct kern *kern;
    struct onednn *onednn;
    int n_threads;
    /* grown on demand, contents valid within one call */
    float *scratch;
    size_t scratch_floats;
    /* cosines and sines of rope, [n_positions][2][rot_dims/2] */
    float *rope;
    int64_t rope_positions;
    struct rope_args rope_args;
};

static inline struct cpu *cpu_of(struct backend *b)
{
    return (struct cpu *)b; /* base comes first */
}

/* As backend_cpu_create, at a named level of kern_find (NULL: the best). For tests. */
int cpu_create(struct backend **out, int n_threads, const char *level, struct err *err);

/* Work on items [first, last) as worker `thread`. */
typedef void cpu_part_fn(void *context, int64_t first, int64_t last, int thread);

/* Calls `part` for contiguous shares of [0, n), one a thread; with fewer than `grain`
 * items a thread, for fewer threads. Returns when all are done. */
void cpu_parallel(const struct cpu *cpu, int64_t n, int64_t grain, cpu_part_fn *part,
                  void *context);

/* Room for n_shared floats used by all and n_each of every thread, aligned to 64 bytes. */
struct cpu_scratch {
    float *shared, *each;
    int64_t stride; /* from one thread's part to the next */
};
int cpu_scratch(struct cpu *cpu, int64_t n_shared, int64_t n_each,
                struct cpu_scratch *out, struct err *err);

/* Elements [first, first+n) of x as fp32: where they are when x is F32, else in buf. */
const float *cpu_read(const struct cpu *cpu, const struct tensor *x, int64_t first,
                      int64_t n, float *buf);

/* Where to compute elements of y from `first`: in place when y is F32, else in buf... */
static inline float *cpu_target(const struct tensor *y, int64_t first, float *buf)
{
    return y->dtype == DTYPE_F32 ? (float *)y->data + first : buf;
}
/* ...and stores them: rounds into y unless values are there already. */
void cpu_write(const struct cpu *cpu, const struct tensor *y, int64_t first, int64_t n,
               const float *values);

/* Partial sums over n rows: how many, and where the i-th begins. */
static inline int64_t cpu_sum_parts(int64_t n)
{
    int64_t parts = (n + CPU_SUM_ROWS_MIN - 1) / CPU_SUM_ROWS_MIN;

    return parts < CPU_SUM_PARTS ? parts : CPU_SUM_PARTS;
}

#endif
