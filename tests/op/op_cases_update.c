/* Cases of norm, verdict and AdamW over a list of tensors. */
#include "tests/op/op_cases.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- optimizer: n = first item, items, step, clip in tenths ---- */

/* nothing at either end and between, less than a pack, a whole chunk, two and a part */
static const int64_t update_sizes[] = {
    0, 1, 7, UPDATE_CHUNK, 0, 2 * UPDATE_CHUNK + 1031, 8, 131, 0};

struct update_case {
    struct tensor master, m, v, grad, weight;
    int64_t offsets[sizeof(update_sizes) / sizeof(update_sizes[0])];
    int64_t n_elements;
};

static void make_update(struct op_run *r, struct update_case *u)
{
    const int64_t *n = r->op->n;

    *u = (struct update_case){0};
    for (int64_t i = 0; i < n[1]; i++) { /* joined: behind each other, so not aligned */
        u->offsets[i] = u->n_elements;
        u->n_elements += update_sizes[n[0] + i];
        if (!(r->op->flags & JOINT))
            u->n_elements = (u->n_elements + 15) / 16 * 16;
    }
    u->n_elements++; /* a tensor has elements */
    u->master = op_input(r, "master", DTYPE_F32, 1, 0, D(u->n_elements));
    u->m = op_input(r, "m", DTYPE_F32, 0.1, 0, D(u->n_elements));
    u->v = op_input(r, "v", DTYPE_F32, 0.001, 0.1, D(u->n_elements));
    u->grad = op_input(r, "grad", DTYPE_F32, 1, 0, D(u->n_elements));
    u->weight = op_output(r, r->dtype, D(u->n_elements));
}

/* Every other item has decay, every third no weight, one is counted elsewhere. */
static void list_update(struct op_run *r, const struct update_case *u,
                        struct update_list *list)
{
    const int64_t *n = r->op->n;
    struct update_item *items = calloc((size_t)n[1], sizeof(*items));

    for (int64_t i = 0; items && i < n[1]; i++) {
        int64_t at = u->offsets[i];

        items[i] = (struct update_item){
            .master = (float *)u->master.data + at,
            .m = (float *)u->m.data + at,
            .v = (float *)u->v.data + at,
            .grad = (float *)u->grad.data + at,
            .weight = i % 3 == 2
                          ? NULL
                          : (char *)u->weight.data + (size_t)at * dtype_bytes(r->dtype),
            .n = update_sizes[n[0] + i],
            .has_decay = i % 2 == 0,
            .is_counted = n[0] + i != 2,
        };
    }
    op_check(
        r, update_list_init(list, r->b, items, items ? (int)n[1] : 0, r->dtype, &r->err));
}

static void spoil(struct op_run *r, const struct update_case *u, float value)
{
    int64_t at = u->n_elements - 1 - update_sizes[7] / 2; /* in one that is not empty */

    op_check(r, r->b->ops->upload(r->b, (float *)u->grad.data + at, &value, sizeof(value),
                                  &r->err));
}

/* Fails the run when x is not, bit by bit, what it was made of. */
static void expect_untouched(struct op_run *r, const char *name, const struct tensor *x,
                             double spread, double mean)
{
    struct tensor same = op_input(r, name, DTYPE_F32, spread, mean, D(tensor_count(x)));
    size_t n_bytes = tensor_bytes(x);
    char *host = malloc(2 * n_bytes);

    if (host && !r->has_failed) {
        op_check(r, r->b->ops->download(r->b, host, x->data, n_bytes, &r->err));
        op_check(r,
                 r->b->ops->download(r->b, host + n_bytes, same.data, n_bytes, &r->err));
        if (memcmp(host, host + n_bytes, n_bytes) != 0)
            op_check(r, err_set(&r->err, ERR_STATE, "%s has changed", name));
    }
    free(host);
}

static void keep_verdict(struct op_run *r, const struct update_verdict *verdict)
{
    struct update_verdict host = {0};
    struct tensor out = op_output(r, DTYPE_F32, D(3));
    float values[3];

    op_check(r, r->b->ops->download(r->b, &host, verdict, sizeof(host), &r->err));
    values[0] = host.is_finite ? (float)host.norm : 0;
    values[1] = host.is_finite ? host.scale : 0;
    values[2] = (float)host.is_finite;
    op_check(r, r->b->ops->upload(r->b, out.data, values, sizeof(values), &r->err));
    op_keep(r, "verdict", &out);
}

void run_update(struct op_run *r)
{
    const int64_t *n = r->op->n;
    struct update_case u;
    struct update_list list = {0};
    struct tensor memory = op_output(r, DTYPE_I32, D(4 + 2 * n[1]));
    struct update_verdict *verdict = memory.data;
    double *squares = (double *)memory.data + 2;
    struct adamw_args args = {.lr = 0.01F,
                              .beta1 = 0.9F,
                              .beta2 = 0.98F,
                              .eps = 1e-8F,
                              .weight_decay = 0.1F,
                              .step = n[2]};

    make_update(r, &u);
    list_update(r, &u, &list);
    if (r->op->flags & (INFINITE | NOT_A_NUMBER))
        spoil(r, &u, r->op->flags & INFINITE ? -INFINITY : NAN);
    op_check(r, r->b->ops->sum_squares(r->b, squares, &list, &r->err));
    op_check(
        r, r->b->ops->judge(r->b, verdict, squares, n[1], 4, (double)n[3] / 10, &r->err));
    op_check(r, r->b->ops->adamw(r->b, &list, verdict, &args, &r->err));
    op_keep_doubles(r, "squares", squares, n[1]);
    keep_verdict(r, verdict);
    op_keep(r, "weight", &u.weight);
    op_keep(r, "master", &u.master);
    op_keep(r, "m", &u.m);
    op_keep(r, "v", &u.v);
    op_keep(r, "grad", &u.grad);
    if (r->op->flags & (INFINITE | NOT_A_NUMBER)) {
        expect_untouched(r, "master", &u.master, 1, 0);
        expect_untouched(r, "m", &u.m, 0.1, 0);
        expect_untouched(r, "v", &u.v, 0.001, 0.1);
    }
    update_list_fini(&list, r->b);
}
