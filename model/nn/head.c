#include "model/nn/head.h"

#include <math.h>

static int64_t rows_max(int64_t n_rows)
{
    return n_rows < HEAD_ROWS_MAX ? n_rows : HEAD_ROWS_MAX;
}

void head_scratch_layout(struct head_scratch *scratch, const struct head *head,
                         int64_t n_rows, enum dtype dtype, float *host,
                         struct arena *arena)
{
    int64_t n = rows_max(n_rows), d = head->w.dims[1], v = head->w.dims[0];

    scratch->n_rows_max = n;
    scratch->host = host;
    scratch->x = arena_take_2d(arena, dtype, n, d);
    scratch->d_x = arena_take_2d(arena, dtype, n, d);
    scratch->normed = arena_take_2d(arena, dtype, n, d);
    scratch->rstd = arena_take_1d(arena, DTYPE_F32, n);
    if (head->norm.kind != NN_NORM_RMS)
        scratch->mean = arena_take_1d(arena, DTYPE_F32, n);
    scratch->max = arena_take_1d(arena, DTYPE_F32, n);
    scratch->sums = arena_take_2d(arena, DTYPE_F32, 2, n);
    scratch->logits = arena_take_2d(arena, DTYPE_F32, n, v);
    scratch->d_logits = scratch->logits;
    if (dtype != DTYPE_F32)
        scratch->d_logits = arena_take_2d(arena, dtype, n, v);
}

/* As many of the rows from `first` on as fit into the scratch tensors: *at, and these as
 * they are for them. */
static struct head_scratch cut(const struct head_scratch *all, const struct tensor *rows,
                               int64_t first, struct tensor *at)
{
    struct head_scratch part = *all;
    int64_t left = rows->dims[0] - first;
    int64_t n = left < all->n_rows_max ? left : all->n_rows_max;

    *at = tensor_rows(rows, first, n);
    part.x = tensor_rows(&all->x, 0, n);
    part.d_x = tensor_rows(&all->d_x, 0, n);
    part.normed = tensor_rows(&all->normed, 0, n);
    part.rstd = tensor_rows(&all->rstd, 0, n);
    if (all->mean.n_dims > 0)
        part.mean = tensor_rows(&all->mean, 0, n);
    part.logits = tensor_rows(&all->logits, 0, n);
    part.d_logits = tensor_rows(&all->d_logits, 0, n);
    part.max = tensor_rows(&all->max, 0, n);
    part.sums = tensor_of(all->sums.data, DTYPE_F32, 2, (const int64_t[]){2, n});
    return part;
}

static int logits_fwd(struct nn *nn, struct head *head, struct head_scratch *s,
                      const struct tensor *x, const struct tensor *rows, struct err *err)
{
    const struct backend_ops *ops = nn->backend->ops;

    if (ops->gather_rows(nn->backend, &s->x, x, rows, err) < 0 ||
        nn_norm_fwd(nn, &head->norm, &s->normed, &s->mean, &s->rstd, &s->x, &head->norm_w,
                    &head->norm_b, err) < 0)
        return -1;
    return nn_linear_fwd(nn, &s->logits, &s->normed, &head->w, NULL, err);
}

static int reduce(struct nn *nn, struct tensor *x, enum comm_op op, struct err *err)
{
    return nn_is_split(nn) ? nn_all_reduce(nn, nn->group, x, op, err) : 0;
}

/* Leaves max and both sums of every row, over the whole vocabulary, in s. */
static int log_sums(struct nn *nn, struct head *head, struct head_scratch *s,
                    const struct tensor *labels, double *sum, struct err *err)
{
    int64_t n = labels->dims[0];
    const struct backend_ops *ops = nn->backend->ops;
    struct tensor exps = tensor_of(s->sums.data, DTYPE_F32, 1, &n);
    struct tensor targets = tensor_rows(&s->sums, 1, 1);

    if (ops->xent_max(nn->backend, &s->max, &s->logits, head->n_real, err) < 0 ||
        reduce(nn, &s->max, COMM_MAX, err) < 0)
        return -1;
    targets = tensor_of(targets.data, DTYPE_F32, 1, &n);
    if (ops->xent_sum(nn->backend, &exps, &targets, &s->logits, &s->max, labels,
                      head->first, head->n_real, err) < 0 ||
        reduce(nn, &s->sums, COMM_SUM, err) < 0)
        return -1;
    return ops->xent_total(nn->backend, sum, &s->max, &exps, &targets, labels, err);
}

static int logits_bwd(struct nn *nn, struct head *head, struct head_scratch *s,
                      const struct tensor *rows, const struct tensor *labels,
                      struct tensor *d, struct err *err)
{
    int64_t n = rows->dims[0];
    const struct backend_ops *ops = nn->backend->ops;
    struct tensor exps = tensor_of(s->sums.data, DTYPE_F32, 1, &n);

    if (ops->xent_bwd(nn->backend, &s->logits, &s->max, &exps, labels, head->first,
                      head->n_real, err) < 0)
        return -1;
    /* in fp32, before anything is rounded to fp16 */
    if (head->loss_scale != 1 &&
        ops->scale(nn->backend, &s->logits, (float)head->loss_scale, err) < 0)
        return -1;
    if (s->d_logits.data != s->logits.data &&
        ops->cast(nn->backend, &s->d_logits, &s->logits, err) < 0)
        return -1;
    if (head->dw.data &&
        nn_linear_bwd_w(nn, &head->dw, NULL, &s->d_logits, &s->normed, err) < 0)
        return -1;
    /* from here on `normed` holds gradients: of the norm's output, then of its input */
    if (nn_linear_column_bwd_x(nn, &s->normed, &s->d_logits, &head->w, err) < 0 ||
        nn_norm_bwd(nn, &head->norm, &s->d_x, &head->d_norm_w, &head->d_norm_b,
                    &s->normed, NULL, &s->x, &head->norm_w, &s->mean, &s->rstd, err) < 0)
        return -1;
    return ops->scatter_rows(nn->backend, d, &s->d_x, rows, err);
}

int head_loss(struct nn *nn, struct head *head, struct head_scratch *scratch,
              const struct tensor *x, const struct tensor *rows,
              const struct tensor *labels, struct tensor *d, double *sum, struct err *err)
{
    int64_t n = rows->dims[0];

    for (int64_t first = 0; first < n; first += scratch->n_rows_max) {
        struct tensor at;
        struct head_scratch part = cut(scratch, rows, first, &at);
        int64_t count = at.dims[0];
        struct tensor wanted = tensor_rows(labels, first, count);

        if (logits_fwd(nn, head, &part, x, &at, err) < 0 ||
            log_sums(nn, head, &part, &wanted, sum, err) < 0)
            return -1;
        if (d && logits_bwd(nn, head, &part, &at, &wanted, d, err) < 0)
            return -1;
    }
    return 0;
}

static int fail_not_finite(int64_t row, struct err *err)
{
    return err_set(err, ERR_FORMAT, "logits of row %lld are not finite: are the weights?",
                   (long long)row);
}

/* Of every rank's best the largest, of equals the lowest number (exact in a float: see
 * HEAD_VOCAB_MAX). value, index: host [n]. */
static int best_of_ranks(struct nn *nn, float *value, float *minus_index, float *best,
                         int64_t n, struct err *err)
{
    for (int64_t i = 0; i < n; i++)
        best[i] = value[i];
    if (nn_is_split(nn) && comm_all_reduce(nn->group, best, n, COMM_MAX, err) < 0)
        return -1;
    for (int64_t i = 0; i < n; i++)
        if (value[i] != best[i])
            minus_index[i] = -INFINITY;
    if (nn_is_split(nn) && comm_all_reduce(nn->group, minus_index, n, COMM_MAX, err) < 0)
        return -1;
    for (int64_t i = 0; i < n; i++)
        if (!isfinite(best[i]) || !isfinite(minus_index[i]))
            return fail_not_finite(i, err);
    return 0;
}

int head_greedy_ask(struct nn *nn, struct head *head, struct head_scratch *scratch,
                    const struct tensor *x, const struct tensor *rows,
                    struct tensor *value, struct tensor *index, struct err *err)
{
    int64_t n = rows->dims[0];

    for (int64_t first = 0; first < n; first += scratch->n_rows_max) {
        struct tensor at;
        struct head_scratch part = cut(scratch, rows, first, &at);
        int64_t count = at.dims[0];
        struct tensor best = tensor_rows(value, first, count);
        struct tensor which = tensor_rows(index, first, count);

        if (logits_fwd(nn, head, &part, x, &at, err) < 0 ||
            (head->n_real > 0 &&
             nn->backend->ops->argmax(nn->backend, &best, &which, &part.logits,
                                      head->n_real, err) < 0))
            return -1;
    }
    return 0;
}

int head_greedy_join(struct nn *nn, struct head *head, struct head_scratch *scratch,
                     int64_t n, float *value, int32_t *tokens, struct err *err)
{
    float *minus_index = scratch->host, *best = minus_index + HEAD_ROWS_MAX;

    for (int64_t first = 0; first < n; first += HEAD_ROWS_MAX) {
        int64_t count = n - first < HEAD_ROWS_MAX ? n - first : HEAD_ROWS_MAX;

        for (int64_t i = 0; i < count; i++) {
            if (head->n_real <= 0) {
                value[first + i] = -INFINITY;
                tokens[first + i] = -1;
            }
            minus_index[i] = -(float)(tokens[first + i] + head->first);
        }
        if (best_of_ranks(nn, value + first, minus_index, best, count, err) < 0)
            return -1;
        for (int64_t i = 0; i < count; i++)
            tokens[first + i] = (int32_t)-minus_index[i];
    }
    return 0;
}

/* ---- drawing ---- */

void head_draw_layout(struct head_draw *draw, const struct nn *nn,
                      const struct head *head, int64_t n, struct arena *arena)
{
    int64_t n_ranks = nn_is_split(nn) ? comm_size(nn->group) : 1, v = head->w.dims[0];
    const int64_t dims[] = {n_ranks, n, v};

    if (n_ranks == 1)
        return;
    draw->gathered = arena_take(arena, DTYPE_F32, 3, dims);
    draw->whole = arena_take_2d(arena, DTYPE_F32, n, n_ranks * v);
}

/* All ranks' logits beside each other: *out [n, V], the padding behind them. */
static int gather_logits(struct nn *nn, const struct tensor *part, struct head_draw *draw,
                         struct tensor *out, struct err *err)
{
    struct backend *b = nn->backend;
    int64_t n = part->dims[0], v = part->dims[1], n_ranks = comm_size(nn->group);
    const int64_t dims[] = {n_ranks, n, v};
    struct tensor gathered = tensor_of(draw->gathered.data, DTYPE_F32, 3, dims);
    size_t n_bytes = (size_t)v * sizeof(float);

    *out = tensor_rows(&draw->whole, 0, n);
    if (nn_all_gather(nn, nn->group, &gathered, part, err) < 0)
        return -1;
    for (int64_t i = 0; i < n; i++)
        for (int64_t r = 0; r < n_ranks; r++)
            if (b->ops->copy(b, (char *)out->data + (size_t)(i * n_ranks + r) * n_bytes,
                             (char *)gathered.data + (size_t)(r * n + i) * n_bytes,
                             n_bytes, err) < 0)
                return -1;
    return 0;
}

int head_draw_ask(struct nn *nn, struct head *head, struct head_scratch *scratch,
                  const struct tensor *x, const struct tensor *rows,
                  struct head_draw *draw, struct tensor *value, struct tensor *tokens,
                  struct err *err)
{
    int64_t n = rows->dims[0];

    for (int64_t first = 0; first < n; first += scratch->n_rows_max) {
        struct tensor at;
        struct head_scratch part = cut(scratch, rows, first, &at);
        int64_t count = at.dims[0];
        struct tensor best = tensor_rows(value, first, count);
        struct tensor drawn = tensor_rows(tokens, first, count);
        struct tensor streams = tensor_rows(&draw->streams, first, count);
        struct tensor steps = tensor_rows(&draw->steps, first, count);
        struct tensor seen = {0}, logits = part.logits;

        if (draw->seen.data)
            seen = tensor_rows(&draw->seen, first, count);
        if (logits_fwd(nn, head, &part, x, &at, err) < 0 ||
            (nn_is_split(nn) &&
             gather_logits(nn, &part.logits, draw, &logits, err) < 0) ||
            nn->backend->ops->sample(nn->backend, &best, &drawn, &logits, &seen, &streams,
                                     &steps, &draw->args, err) < 0)
            return -1;
    }
    return 0;
}

int head_draw_join(int64_t n, const float *value, struct err *err)
{
    for (int64_t i = 0; i < n; i++)
        if (!isfinite(value[i]))
            return fail_not_finite(i, err);
    return 0;
}
