/* op_compare.h - a backend against `ref`, over all cases */
#ifndef VNEVA_TESTS_OP_OP_COMPARE_H
#define VNEVA_TESTS_OP_OP_COMPARE_H

#include "tests/op/op_run.h"

struct op_bounds {
    double nmse, max_rel; /* of struct distance */
};

/* How far what a run gave, stored in this type, may be from ref's. */
struct op_bounds op_bounds_of(const struct op_run *got, enum dtype dtype);

/* Compares what two runs kept; the number of outputs that are too far apart. */
int op_compare(const struct op_run *got, const struct op_run *want, bool is_loud);

bool op_has_same_bits(const struct op_run *a, const struct op_run *b);

/* The CUDA backend, or NULL and a failed check. order: in which the stand-in runs threads
 * (cuda_host; NULL: as it is set). */
struct backend *op_open_cuda(struct check *check, const char *order);

/* These cases in every type on both, twice on b, which must give the same bits again. */
void op_check_cases(struct check *check, struct backend *b, const struct op_case *cases,
                    size_t n);
/* The same for all of op_cases. */
void op_check_backend(struct check *check, struct backend *b);

#endif
