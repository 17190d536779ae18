/* test_op_backends.c - every operation on every backend there is, against `ref` */
#include "tests/op/op_compare.h"

#ifdef VNEVA_HAVE_ONEDNN
#include "model/backend/cpu/cpu.h"
#endif

#include <string.h>

static void ref_gives_the_same_bits_again(struct check *check)
{
    struct backend *b;

    if (backend_create(&b, "ref", 0, 1, NULL) == 0)
        op_check_backend(check, b);
    backend_destroy(b);
}

#ifdef VNEVA_HAVE_ONEDNN
static void cpu_agrees_with_ref_at_every_instruction_set(struct check *check)
{
    static const char *const levels[] = {"base", "avx2", "avx512"};

    for (size_t i = 0; i < sizeof(levels) / sizeof(levels[0]); i++)
        for (int n_threads = 1; n_threads <= 3; n_threads += 2) {
            struct err err = {0};
            struct backend *b;

            if (cpu_create(&b, n_threads, levels[i], &err) == 0) {
                op_check_backend(check, b);
                backend_destroy(b);
            } else {
                check_that(check, err.code == ERR_UNSUPPORTED, "%s", err.text);
                check_skip(check, err.text);
            }
        }
}

/* Everything but matmul where oneDNN decides: with units for the type. */
static void bits_do_not_depend_on_the_number_of_threads(struct check *check)
{
    struct backend *one, *many;

    if (cpu_create(&one, 1, NULL, NULL) < 0 || cpu_create(&many, 3, NULL, NULL) < 0) {
        check_that(check, false, "cannot create backend 'cpu'");
        return;
    }
    for (int i = 0; i < op_n_cases; i++) {
        struct op_run a, b;

        if (strncmp(op_cases[i].name, "matmul", 6) == 0 &&
            backend_is_fast(one, DTYPE_BF16))
            continue;
        op_run(&a, one, &op_cases[i], DTYPE_BF16);
        op_run(&b, many, &op_cases[i], DTYPE_BF16);
        check_that(check, op_has_same_bits(&a, &b), "'%s' differs with three threads",
                   op_cases[i].name);
        op_run_free(&a);
        op_run_free(&b);
    }
    backend_destroy(one);
    backend_destroy(many);
}

#define FEW_ROWS 11
#define FEW_COLS 37
#define FEW_K 75

/* Rows [0, n_rows) of a product in one call, or each in a call of its own. */
static void few_rows(struct op_run *r, int64_t n_rows, bool is_alone)
{
    struct tensor a = op_input(r, "a", r->dtype, 1, 0, OP_DIMS(FEW_ROWS, FEW_K));
    struct tensor w = op_input(r, "w", r->dtype, 1, 0, OP_DIMS(FEW_COLS, FEW_K));
    struct tensor c = op_output(r, r->dtype, OP_DIMS(FEW_ROWS, FEW_COLS));
    struct matmul_args args = {.trans_b = true};
    int64_t step = is_alone ? 1 : n_rows;

    for (int64_t i = 0; i < n_rows; i += step) {
        struct tensor from = tensor_rows(&a, i, step), to = tensor_rows(&c, i, step);

        op_check(r, r->b->ops->matmul(r->b, &to, &from, &w, &args, &r->err));
    }
    op_keep(r, "c", &c);
}

static void run_few_rows(struct op_run *r)
{
    few_rows(r, r->op->n[0], false);
}

static void run_each_row(struct op_run *r)
{
    few_rows(r, r->op->n[0], true);
}

static void check_few_rows(struct check *check, struct backend *b, int64_t n)
{
    static const enum dtype types[] = {DTYPE_F32, DTYPE_BF16, DTYPE_F16};
    const struct op_case all = {"few rows", run_few_rows, {n}, 0};
    const struct op_case each = {"few rows", run_each_row, {n}, 0};

    for (size_t t = 0; t < sizeof(types) / sizeof(types[0]); t++) {
        struct op_run together, alone;

        op_run(&together, b, &all, types[t]);
        op_run(&alone, b, &each, types[t]);
        check_that(check, !together.has_failed && op_has_same_bits(&together, &alone),
                   "%s: %lld rows together differ from each alone", dtype_name(types[t]),
                   (long long)n);
        op_run_free(&together);
        op_run_free(&alone);
    }
}

/* So that generation gives a row the same tokens whatever else is in the batch. */
static void few_rows_get_the_bits_they_get_alone(struct check *check)
{
    static const char *const levels[] = {"base", "avx2", "avx512"};

    for (size_t i = 0; i < sizeof(levels) / sizeof(levels[0]); i++) {
        struct backend *b;

        if (cpu_create(&b, 2, levels[i], NULL) < 0) {
            check_skip(check, levels[i]);
            continue;
        }
        for (int64_t n = 2; n <= FEW_ROWS; n++)
            check_few_rows(check, b, n);
        backend_destroy(b);
    }
}
#endif

static void cuda_agrees_with_ref(struct check *check)
{
    struct err err = {0};
    struct backend *b;

    if (backend_create(&b, "cuda", 0, 0, &err) == 0) {
        op_check_backend(check, b);
        backend_destroy(b);
    } else {
        check_that(check, err.code == ERR_UNSUPPORTED, "%s", err.text);
        check_skip(check, err.text);
    }
}

/* ---- the harness itself: kernels with one fault each must be found out ---- */

/* A backend that computes as `right` does and then spoils what came out. */
struct faulty {
    struct backend base;
    struct backend_ops ops;
    struct backend *right;
};

static struct backend *right_of(struct backend *b)
{
    return ((struct faulty *)b)->right;
}

static int matmul_off_by_one_part_in_a_thousand(struct backend *b, struct tensor *c,
                                                const struct tensor *a,
                                                const struct tensor *bb,
                                                const struct matmul_args *args,
                                                struct err *err)
{
    int rc = right_of(b)->ops->matmul(right_of(b), c, a, bb, args, err);

    ((float *)c->data)[0] *= 1.001F;
    return rc;
}

/* does not do the last element */
static int act_fwd_short(struct backend *b, struct tensor *y, const struct tensor *x,
                         enum activation act, struct err *err)
{
    struct tensor flat = tensor_of(x->data, x->dtype, 1, OP_DIMS(tensor_count(x) - 1));

    return right_of(b)->ops->act_fwd(right_of(b), y, &flat, act, err);
}

/* overwrites instead of adding */
static int bias_bwd_overwriting(struct backend *b, struct tensor *db,
                                const struct tensor *dy, struct err *err)
{
    memset(db->data, 0, tensor_bytes(db));
    return right_of(b)->ops->bias_bwd(right_of(b), db, dy, err);
}

/* sees one key too many */
static int attention_fwd_not_causal(struct backend *b, struct tensor *o,
                                    struct tensor *lse, const struct tensor *q,
                                    const struct tensor *k, const struct tensor *v,
                                    const struct attention_args *args, struct err *err)
{
    struct attention_args other = *args;

    other.causal = false;
    return right_of(b)->ops->attention_fwd(right_of(b), o, lse, q, k, v, &other, err);
}

static const struct op_case *find_case(const char *name)
{
    for (int i = 0; i < op_n_cases; i++)
        if (strcmp(op_cases[i].name, name) == 0)
            return &op_cases[i];
    return &op_cases[0];
}

static void a_wrong_kernel_is_found_out(struct check *check)
{
    static const char *const names[] = {"matmul 7x5x3", "gelu 3x1031", "bias_bwd 333x97",
                                        "attention 2x37 causal"};
    struct faulty faulty;
    struct op_run want, got;

    if (backend_create(&faulty.right, "ref", 0, 1, NULL) < 0) {
        check_that(check, false, "cannot create backend 'ref'");
        return;
    }
    faulty.ops = *faulty.right->ops;
    faulty.ops.matmul = matmul_off_by_one_part_in_a_thousand;
    faulty.ops.act_fwd = act_fwd_short;
    faulty.ops.bias_bwd = bias_bwd_overwriting;
    faulty.ops.attention_fwd = attention_fwd_not_causal;
    faulty.base.ops = &faulty.ops;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        op_run(&want, faulty.right, find_case(names[i]), DTYPE_F32);
        op_run(&got, &faulty.base, find_case(names[i]), DTYPE_F32);
        check_that(check, strcmp(want.op->name, names[i]) == 0, "no case '%s'", names[i]);
        check_that(check, op_compare(&got, &want, false) > 0, "a wrong '%s' passed",
                   names[i]);
        op_run_free(&want);
        op_run_free(&got);
    }
    backend_destroy(faulty.right);
}

int main(void)
{
    struct check check = {0};

    check_run(&check, a_wrong_kernel_is_found_out);
    check_run(&check, ref_gives_the_same_bits_again);
#ifdef VNEVA_HAVE_ONEDNN
    check_run(&check, cpu_agrees_with_ref_at_every_instruction_set);
    check_run(&check, bits_do_not_depend_on_the_number_of_threads);
    check_run(&check, few_rows_get_the_bits_they_get_alone);
#endif
    check_run(&check, cuda_agrees_with_ref);
    return check_end(&check);
}
