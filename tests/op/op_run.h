/* op_run.h - runs one case of one operation on any backend and keeps what comes out
 *
 * Inputs are random numbers that depend on the case, the name of the tensor and the
 * element alone, so two runs on different backends differ only in what the backends do.
 * Outputs are filled with NaN first: what is not written is found.
 */
#ifndef VNEVA_TESTS_OP_OP_RUN_H
#define VNEVA_TESTS_OP_OP_RUN_H

#include "model/backend/backend.h"
#include "tests/op/check.h"

#define OP_TENSORS_MAX 24
#define OP_KEPT_MAX 12

struct op_kept {
    const char *name;
    float *values;
    int64_t n;
    enum dtype dtype; /* that it was stored in */
};

struct op_run {
    struct backend *b;
    const struct op_case *op;
    enum dtype dtype; /* T of backend.h */
    struct err err;
    bool has_failed;
    void *memory[OP_TENSORS_MAX];
    int n_memory;
    struct op_kept kept[OP_KEPT_MAX];
    int n_kept;
};

/* Of op_case.flags; the other bits are the function's. A backend may round between the two
 * steps of the operation, or not. */
#define OP_ROUNDS_TWICE (1U << 31)

struct op_case {
    const char *name;
    void (*run)(struct op_run *run);
    int64_t n[8]; /* sizes, as the function reads them */
    unsigned flags;
};

extern const struct op_case op_cases[];
extern const int op_n_cases;

/* Runs `op` on b; outputs are in run->kept. Check run->has_failed. */
void op_run(struct op_run *run, struct backend *b, const struct op_case *op,
            enum dtype dtype);
void op_run_free(struct op_run *run);

/* ---- for the cases ---- */

/* A tensor of up to four dimensions, 0 ends them: normal numbers times spread plus mean. */
struct tensor op_input(struct op_run *run, const char *name, enum dtype dtype,
                       double spread, double mean, const int64_t dims[4]);
/* The same filled with NaN. */
struct tensor op_output(struct op_run *run, enum dtype dtype, const int64_t dims[4]);
/* A table of n numbers in the backend's memory, for positions, rows, ids, labels. */
struct tensor op_table(struct op_run *run, const int32_t *host, int64_t n);
/* Fills rows [first, last) of a tensor with NaN: they must not be read. */
void op_poison_rows(struct op_run *run, struct tensor *x, int64_t first, int64_t last);
/* Downloads an output for the comparison. */
void op_keep(struct op_run *run, const char *name, const struct tensor *x);
/* The same for doubles in the backend's memory. */
void op_keep_doubles(struct op_run *run, const char *name, const double *x, int64_t n);
/* Notes the result of a call to the backend. */
void op_check(struct op_run *run, int rc);

#define OP_DIMS(...) ((const int64_t[4]){__VA_ARGS__})

#endif
