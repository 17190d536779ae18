/* Bounds. An fp32 result differs by the order of sums and by elementary functions good to
 * a unit in the last place: errors near 1e-7 each, random, so far below 1e-6 relative;
 * 1e-5 for the largest, 1e-11 for the normalised mean square, leave room for sums over a
 * few hundred terms that cancel. A rounded result may fall to the other side of a tie:
 * one unit in the last place, 2^-8 for bf16 and 2^-11 for fp16, on a few elements, also
 * where a rounded result is read again (o in the backward pass, in-place sums), so twice
 * that for the largest. Where one side rounds what the other does not (OP_ROUNDS_TWICE), the
 * error of that rounding goes through an activation, whose squared ReLU doubles it: four
 * times its square, and the last rounding goes another way on most elements.
 * Attention of a device in halves multiplies rounded weights p and ds, and takes the mean of
 * dp from a rounded output: three or four roundings where ref has one, two of them of terms
 * that cancel in ds, most of all where a query sees few keys: of one key they leave the
 * rounding of o times sqrt(K), at most 12. Four times the error, eight for the largest.
 */
#include "tests/op/op_compare.h"

#include <stdlib.h>
#include <string.h>

static struct op_bounds bounds_of(enum dtype dtype)
{
    if (dtype == DTYPE_BF16)
        return (struct op_bounds){4e-6, 0x1p-7};
    if (dtype == DTYPE_F16)
        return (struct op_bounds){6e-8, 0x1p-10};
    return (struct op_bounds){1e-11, 1e-5};
}

struct op_bounds op_bounds_of(const struct op_run *got, enum dtype dtype)
{
    const struct op_case *op = got->op;
    struct op_bounds most = bounds_of(dtype);

    if (dtype != DTYPE_F32 && !got->b->ops->is_host &&
        strncmp(op->name, "attention", strlen("attention")) == 0) {
        most.nmse *= 16;
        most.max_rel *= 8;
    }
    if (op->flags & OP_ROUNDS_TWICE && dtype != DTYPE_F32) {
        most.nmse *= 8;
        most.max_rel *= 2;
    }
    return most;
}

int op_compare(const struct op_run *got, const struct op_run *want, bool is_loud)
{
    int n_bad = got->n_kept != want->n_kept || got->n_kept == 0;

    for (int i = 0; i < got->n_kept && i < want->n_kept; i++) {
        const struct op_kept *g = &got->kept[i], *w = &want->kept[i];
        struct distance d = distance_of(g->values, w->values, w->n);
        struct op_bounds most = op_bounds_of(got, g->dtype);

        if (g->n == w->n && d.nmse <= most.nmse && d.max_rel <= most.max_rel)
            continue;
        n_bad++;
        if (is_loud)
            printf("  '%s' %s, output '%s': nmse %.3g (bound %.3g), largest %.3g (bound "
                   "%.3g)\n",
                   got->op->name, dtype_name(got->dtype), g->name, d.nmse, most.nmse,
                   d.max_rel, most.max_rel);
    }
    return n_bad;
}

bool op_has_same_bits(const struct op_run *a, const struct op_run *b)
{
    for (int i = 0; i < a->n_kept; i++)
        if (memcmp(a->kept[i].values, b->kept[i].values,
                   (size_t)a->kept[i].n * sizeof(float)) != 0)
            return false;
    return a->n_kept == b->n_kept;
}

/* One case on both backends, twice on the one under test. */
static void check_case(struct check *check, struct backend *b, struct backend *ref,
                       const struct op_case *op, enum dtype dtype)
{
    struct op_run want, got, again;

    op_run(&want, ref, op, dtype);
    op_run(&got, b, op, dtype);
    op_run(&again, b, op, dtype);
    check_that(check, !got.has_failed, "'%s' on %s: %s", op->name, b->ops->name,
               got.err.text);
    check_that(check, op_compare(&got, &want, true) == 0, "'%s' %s is wrong on %s",
               op->name, dtype_name(dtype), b->ops->name);
    check_that(check, op_has_same_bits(&got, &again),
               "'%s' %s gives other bits on %s again", op->name, dtype_name(dtype),
               b->ops->name);
    op_run_free(&want);
    op_run_free(&got);
    op_run_free(&again);
}

void op_check_cases(struct check *check, struct backend *b, const struct op_case *cases,
                    size_t n)
{
    static const enum dtype types[] = {DTYPE_F32, DTYPE_BF16, DTYPE_F16};
    struct err err = {0};
    struct backend *ref;

    if (backend_create(&ref, "ref", 0, 1, &err) < 0) {
        check_that(check, false, "%s", err.text);
        return;
    }
    for (size_t i = 0; i < n; i++)
        for (size_t t = 0; t < sizeof(types) / sizeof(types[0]); t++)
            check_case(check, b, ref, &cases[i], types[t]);
    backend_destroy(ref);
}

void op_check_backend(struct check *check, struct backend *b)
{
    op_check_cases(check, b, op_cases, (size_t)op_n_cases);
}

struct backend *op_open_cuda(struct check *check, const char *order)
{
    struct backend *b = NULL;
    struct err err = {0};

    if (order)
        setenv("CUDA_HOST_ORDER", order, 1);
    check_that(check, backend_create(&b, "cuda", 0, 0, &err) == 0, "%s", err.text);
    return b;
}
