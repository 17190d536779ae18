/* Cases of rows by table, and of the loss. */
#include "tests/op/op_cases.h"

#include "common/base/rng.h"
#include "model/backend/sample.h"

/* ids [n], each below `limit` or -1 (every seventh); fixed by the case's name */
static struct tensor make_ids(struct op_run *run, int64_t n, int64_t limit)
{
    int32_t ids[IDS_MAX];
    struct rng_key key = {rng_stream(run->op->name), rng_stream("ids")};

    for (int64_t i = 0; i < n; i++)
        ids[i] = i % 7 == 6 ? -1 : (int32_t)rng_below(key, (uint64_t)i, (uint64_t)limit);
    return op_table(run, ids, n);
}

/* ---- rows: n = N, D, rows of the table, first ---- */

void run_embed(struct op_run *r)
{
    const int64_t *n = r->op->n;
    struct tensor w = op_input(r, "w", r->dtype, 1, 0, D(n[2], n[1]));
    struct tensor dw = op_input(r, "dw", DTYPE_F32, 1, 0, D(n[2], n[1]));
    struct tensor dy = op_input(r, "dy", r->dtype, 1, 0, D(n[0], n[1]));
    struct tensor y = op_output(r, r->dtype, D(n[0], n[1]));
    /* some fall outside on either side */
    struct tensor ids = make_ids(r, n[0], n[2] + 2 * n[3]);

    op_check(r, r->b->ops->embed_fwd(r->b, &y, &w, &ids, (int32_t)n[3], &r->err));
    op_check(r, r->b->ops->embed_bwd(r->b, &dw, &dy, &ids, (int32_t)n[3], &r->err));
    op_keep(r, "y", &y);
    op_keep(r, "dw", &dw);
}

/* n = rows moved, D, rows there are */
void run_scatter_gather(struct op_run *r)
{
    const int64_t *n = r->op->n;
    struct tensor x = op_input(r, "x", r->dtype, 1, 0, D(n[0], n[1]));
    struct tensor y = op_input(r, "y", r->dtype, 1, 0, D(n[2], n[1]));
    struct tensor back = op_output(r, r->dtype, D(n[0], n[1]));
    int32_t numbers[IDS_MAX];
    struct tensor rows;

    for (int64_t i = 0; i < n[0]; i++) /* distinct, not in order */
        numbers[i] = (int32_t)rng_permute(5, 0, (uint64_t)i, (uint64_t)n[2]);
    rows = op_table(r, numbers, n[0]);
    op_check(r, r->b->ops->scatter_rows(r->b, &y, &x, &rows, &r->err));
    op_keep(r, "y", &y);
    op_check(r, r->b->ops->gather_rows(r->b, &back, &y, &rows, &r->err));
    op_keep(r, "back", &back);
}

/* n = frames, size, patch */
void run_patchify(struct op_run *r)
{
    const int64_t *n = r->op->n;
    int64_t side = n[1] / n[2];
    const float mean[3] = {0.48F, 0.46F, 0.41F}, std[3] = {0.27F, 0.26F, 0.28F};
    struct tensor rgb = op_input(r, "rgb", DTYPE_U8, 0, 0, D(n[0], n[1], n[1], 3));
    struct tensor y = op_output(r, r->dtype, D(n[0] * side * side, 3 * n[2] * n[2]));

    op_check(r, r->b->ops->patchify(r->b, &y, &rgb, n[2], mean, std, &r->err));
    op_keep(r, "y", &y);
}

/* ---- drawing: n = N, V, real columns, which of the settings ---- */

static const struct sample_args draws[] = {
    {.temperature = 1, .top_p = 1, .repetition_penalty = 1, .end_token = -1},
    {.temperature = 0.7F, .top_k = 5, .top_p = 1, .repetition_penalty = 1.2F},
    {.temperature = 1.5F, .top_p = 0.8F, .repetition_penalty = 1, .min_tokens = 2},
    {.temperature = 0.9F, .top_k = 20, .top_p = 0.5F, .repetition_penalty = 2},
    {.temperature = 0, .top_p = 1, .repetition_penalty = 1.3F, .min_tokens = 1},
};

void run_sample(struct op_run *r)
{
    const int64_t *n = r->op->n;
    int64_t n_words = sample_words(n[2]);
    struct sample_args args = draws[n[3]];
    struct tensor logits = op_input(r, "logits", DTYPE_F32, 4, 0, D(n[0], n[1]));
    struct tensor seen = op_output(r, DTYPE_I32, D(n[0], n_words));
    struct tensor streams = make_ids(r, n[0], 1000);
    struct tensor steps = make_ids(r, n[0], 4);
    struct tensor tokens = op_output(r, DTYPE_I32, D(n[0]));
    struct tensor value = op_output(r, DTYPE_F32, D(n[0]));

    args.n_real = n[2];
    args.seed = 42;
    args.end_token = args.min_tokens > 0 ? (int32_t)n[2] - 1 : -1;
    op_check(r, r->b->ops->zero(r->b, seen.data, tensor_bytes(&seen), &r->err));
    for (int i = 0; i < 3; i++) { /* what was drawn before counts */
        op_check(r, r->b->ops->sample(r->b, &value, &tokens, &logits, &seen, &streams,
                                      &steps, &args, &r->err));
        op_keep(r, "tokens", &tokens);
        op_keep(r, "value", &value);
    }
    op_keep(r, "seen", &seen);
}

/* ---- loss: n = N, V/R, real columns, first ---- */

void run_xent(struct op_run *r)
{
    const int64_t *n = r->op->n;
    struct tensor logits = op_input(r, "logits", r->dtype, 4, 0, D(n[0], n[1]));
    struct tensor max = op_output(r, DTYPE_F32, D(n[0]));
    struct tensor sum = op_output(r, DTYPE_F32, D(n[0]));
    struct tensor target = op_output(r, DTYPE_F32, D(n[0]));
    struct tensor index = op_output(r, DTYPE_I32, D(n[0]));
    struct tensor value = op_output(r, DTYPE_F32, D(n[0]));
    struct tensor labels = make_ids(r, n[0], n[1] + 2 * n[3]);
    struct tensor total = op_output(r, DTYPE_I32, D(2)); /* a double */
    int32_t first = (int32_t)n[3];

    op_check(r, r->b->ops->zero(r->b, total.data, tensor_bytes(&total), &r->err));
    op_check(r, r->b->ops->argmax(r->b, &value, &index, &logits, n[2], &r->err));
    op_check(r, r->b->ops->xent_max(r->b, &max, &logits, n[2], &r->err));
    op_check(r, r->b->ops->xent_sum(r->b, &sum, &target, &logits, &max, &labels, first,
                                    n[2], &r->err));
    op_check(
        r, r->b->ops->xent_bwd(r->b, &logits, &max, &sum, &labels, first, n[2], &r->err));
    op_keep(r, "argmax", &index);
    op_keep(r, "value", &value);
    op_keep(r, "max", &max);
    op_keep(r, "sum", &sum);
    op_keep(r, "target", &target);
    op_keep(r, "dlogits", &logits);
    for (int i = 0; i < 2; i++) /* two micro batches */
        op_check(r, r->b->ops->xent_total(r->b, total.data, &max, &sum, &target, &labels,
                                          &r->err));
    op_keep_doubles(r, "total", total.data, 1);
}
