/* test_cuda_cudnn.c - which attention the CUDA backend takes, over host stand-ins, and
 * that each of them computes what `ref` does
 */
#include "tests/op/op_compare.h"

#include <stdlib.h>
#include <string.h>

#define CHOICE "VNEVA_CUDA_ATTENTION"

static const enum dtype types[] = {DTYPE_BF16, DTYPE_F16};
#define N_TYPES (sizeof(types) / sizeof(types[0]))

/* choice NULL: as users have it. */
static struct backend *open_cuda(struct check *check, const char *choice)
{
    struct backend *b;

    if (choice)
        setenv(CHOICE, choice, 1);
    else
        unsetenv(CHOICE);
    b = op_open_cuda(check, NULL);
    unsetenv(CHOICE);
    return b;
}

static bool is_attention(const struct op_case *op)
{
    return strncmp(op->name, "attention", strlen("attention")) == 0;
}

/* *n_other: how many cases give other bits again. */
static void compare_cases(struct check *check, struct backend *b, struct backend *ref,
                          int *n_other)
{
    struct op_run want, got, again;

    for (int i = 0; i < op_n_cases; i++)
        for (size_t t = 0; is_attention(&op_cases[i]) && t < N_TYPES; t++) {
            op_run(&want, ref, &op_cases[i], types[t]);
            op_run(&got, b, &op_cases[i], types[t]);
            op_run(&again, b, &op_cases[i], types[t]);
            check_that(check, !got.has_failed, "'%s': %s", op_cases[i].name,
                       got.err.text);
            check_that(check, op_compare(&got, &want, true) == 0, "'%s' %s is wrong",
                       op_cases[i].name, dtype_name(types[t]));
            *n_other += !op_has_same_bits(&got, &again);
            op_run_free(&want);
            op_run_free(&got);
            op_run_free(&again);
        }
}

static void every_choice_agrees_with_ref(struct check *check)
{
    static const char *const choices[] = {"auto", "own", "cudnn", "cudnn-any-order"};
    struct backend *ref = NULL;
    struct err err = {0};

    check_that(check, backend_create(&ref, "ref", 0, 1, &err) == 0, "%s", err.text);
    for (size_t i = 0; ref && i < sizeof(choices) / sizeof(choices[0]); i++) {
        struct backend *b = open_cuda(check, choices[i]);
        bool is_any_order = strcmp(choices[i], "cudnn-any-order") == 0;
        int n_other = 0;

        if (b)
            compare_cases(check, b, ref, &n_other);
        check_that(check, (n_other > 0) == is_any_order,
                   "'%s' gives other bits again in %d cases", choices[i], n_other);
        backend_destroy(b);
    }
    backend_destroy(ref);
}

/* ---- who computes ---- */

struct shape {
    const char *choice, *fwd, *bwd;
    int64_t b, tq, tk, h, g, k;
    bool is_causal, has_lens, one_off;
};

#define C "cuDNN"
#define O "own kernels"

static const struct shape shapes[] = {
    {NULL, C, C, 1, 24, 24, 2, 2, 64, .is_causal = true},
    {NULL, C, C, 1, 24, 24, 4, 1, 128, .is_causal = true},
    {NULL, C, C, 2, 17, 17, 4, 4, 64, .is_causal = false},
    {NULL, C, C, 1, 5, 24, 4, 2, 64, .is_causal = true},
    {NULL, C, C, 1, 1, 24, 4, 2, 64, .is_causal = true},
    {NULL, O, O, 1, 24, 24, 2, 2, 64, .is_causal = true, .one_off = true},
    {NULL, O, O, 2, 1, 24, 2, 2, 64, .is_causal = true, .has_lens = true},
    {"cudnn", C, C, 1, 24, 24, 2, 2, 64, .is_causal = true, .one_off = true},
    {"cudnn", C, O, 2, 1, 24, 2, 2, 64, .is_causal = true, .has_lens = true},
    {"cudnn", C, O, 2, 4, 24, 4, 2, 64, .is_causal = true, .has_lens = true},
    {"cudnn", C, O, 2, 4, 24, 4, 2, 64, .has_lens = true},
    {"cudnn-any-order", C, C, 1, 24, 24, 2, 2, 64, .is_causal = true},
    {"own", O, O, 1, 24, 24, 2, 2, 64, .is_causal = true},
    /* blind queries; heads of 13 and of 160; rows whose gradients do not fit at once,
     * and whose lse would not be aligned apart */
    {"cudnn", O, O, 1, 24, 7, 2, 2, 64, .is_causal = true},
    {"cudnn", O, O, 1, 24, 24, 2, 2, 13, .is_causal = true},
    {"cudnn", O, O, 1, 24, 24, 2, 2, 160, .is_causal = true},
    {"cudnn", C, O, 3, 17, 17, 2, 1, 64, .is_causal = true},
};

/* One tensor a name, all of them 0. */
struct tensors {
    struct tensor q, kv, lse, lens;
};

static bool make(struct backend *b, const struct shape *s, struct tensors *x,
                 struct err *err)
{
    const int32_t lens[] = {7, 24, 1};

    return backend_tensor(b, &x->q, DTYPE_BF16, 3, OP_DIMS(s->b, s->tq, s->h * s->k),
                          err) == 0 &&
           backend_tensor(b, &x->kv, DTYPE_BF16, 3, OP_DIMS(s->b, s->tk, s->g * s->k),
                          err) == 0 &&
           backend_tensor(b, &x->lse, DTYPE_F32, 3, OP_DIMS(s->b, s->h, s->tq), err) ==
               0 &&
           backend_tensor(b, &x->lens, DTYPE_I32, 1, OP_DIMS(s->b), err) == 0 &&
           b->ops->upload(b, x->lens.data, lens, (size_t)s->b * sizeof(*lens), err) == 0;
}

static const char *last(struct backend *b)
{
    struct backend_about about;

    b->ops->about(b, &about);
    return about.attention;
}

static void check_shape(struct check *check, struct backend *b, const struct shape *s,
                        int number)
{
    struct tensors in = {0}, out = {0};
    struct tensor dv = {0};
    struct err err = {0};
    struct attention_args args = {.n_heads = s->h,
                                  .n_kv_heads = s->g,
                                  .causal = s->is_causal,
                                  .scale = 1,
                                  .one_off = s->one_off};

    if (make(b, s, &in, &err) && make(b, s, &out, &err) &&
        backend_tensor(b, &dv, DTYPE_BF16, 3, OP_DIMS(s->b, s->tk, s->g * s->k), &err) ==
            0) {
        args.kv_lens = s->has_lens ? &in.lens : NULL;
        if (b->ops->attention_fwd(b, &out.q, &out.lse, &in.q, &in.kv, &in.kv, &args,
                                  &err) == 0)
            check_that(check, strcmp(last(b), s->fwd) == 0, "shape %d: %s forward",
                       number, last(b));
        if (b->ops->attention_bwd(b, &in.q, &out.kv, &dv, &out.q, &out.q, &in.kv, &in.kv,
                                  &out.q, &out.lse, &args, &err) == 0)
            check_that(check, strcmp(last(b), s->bwd) == 0, "shape %d: %s backward",
                       number, last(b));
        b->ops->sync(b, &err);
    }
    check_that(check, !err.code, "shape %d: %s", number, err.text);
    for (struct tensors *x = &in; x; x = x == &in ? &out : NULL) {
        b->ops->free(b, x->q.data);
        b->ops->free(b, x->kv.data);
        b->ops->free(b, x->lse.data);
        b->ops->free(b, x->lens.data);
    }
    b->ops->free(b, dv.data);
}

static void cudnn_does_what_it_is_asked_for_and_can(struct check *check)
{
    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
        struct backend *b = open_cuda(check, shapes[i].choice);

        if (b)
            check_shape(check, b, &shapes[i], (int)i);
        backend_destroy(b);
    }
}

static void what_cudnn_refused_is_told(struct check *check)
{
    const struct shape wide = {NULL, O, O, 1, 24, 24, 2, 2, 160, .is_causal = true};
    struct backend *b = open_cuda(check, NULL);
    struct backend_about about;

    if (!b)
        return;
    check_shape(check, b, &wide, -1);
    b->ops->about(b, &about);
    check_that(check,
               strstr(about.libraries, "cuDNN 9.19.0 (refused: plan of cuDNN: "
                                       "CUDNN_STATUS_NOT_SUPPORTED") != NULL,
               "'%s'", about.libraries);
    backend_destroy(b);
}

static void an_unknown_choice_is_refused(struct check *check)
{
    struct backend *b = NULL;
    struct err err = {0};

    setenv(CHOICE, "fast", 1);
    check_that(check,
               backend_create(&b, "cuda", 0, 0, &err) < 0 && err.code == ERR_INVALID &&
                   strstr(err.text, "'fast'") && strstr(err.text, "cudnn-any-order"),
               "'%s'", err.text);
    unsetenv(CHOICE);
}

int main(void)
{
    struct check check = {0};

    check_run(&check, every_choice_agrees_with_ref);
    check_run(&check, cudnn_does_what_it_is_asked_for_and_can);
    check_run(&check, what_cudnn_refused_is_told);
    check_run(&check, an_unknown_choice_is_refused);
    return check_end(&check);
}
