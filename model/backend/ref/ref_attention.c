/* ref_attention.c - scaled dot-product attention (Vaswani et al. 2017), one query at a time
 *
 * For one query with p = softmax(s), s_j = scale q.k_j over the keys j it sees:
 *   o = sum_j p_j v_j,  lse = log sum_j exp(s_j)
 *   dp_j = do.v_j,  ds_j = p_j (dp_j - sum_i p_i dp_i)
 *   dq = scale sum_j ds_j k_j,  dk_j += scale ds_j q,  dv_j += p_j do
 * (Dao et al. 2022, "FlashAttention", appendix B; sum_i p_i dp_i equals do.o there.)
 * Grouped queries (Ainslie et al. 2023): head h reads key-value head h / (H/G).
 */
#include "model/backend/attention_mask.h"
#include "model/backend/ref/ref.h"

#include <math.h>
#include <stdlib.h>

struct shape {
    int64_t b, tq, tk, h, g, k;
    int64_t q_stride, kv_stride; /* elements from a position to the next */
};

static struct shape shape_of(const struct tensor *q, const struct tensor *k,
                             const struct attention_args *args)
{
    return (struct shape){
        .b = q->dims[0],
        .tq = q->dims[1],
        .tk = k->dims[1],
        .h = args->n_heads,
        .g = args->n_kv_heads,
        .k = q->dims[2] / args->n_heads,
        .q_stride = args->q_stride ? args->q_stride : q->dims[2],
        .kv_stride = args->kv_stride ? args->kv_stride : k->dims[2],
    };
}

/* One query: how many keys it sees, and where its first elements are. */
struct query {
    int64_t n_seen;
    int64_t q;        /* in q and dq */
    int64_t kv;       /* key 0 in k, v, dk, dv */
    int64_t o;        /* in o, d_o and in contiguous sums of dq */
    int64_t kv_dense; /* key 0 in contiguous sums of dk, dv */
};

/* Query i of [B,H,Tq]. */
static struct query query_of(const struct shape *s, const struct attention_args *args,
                             int64_t i)
{
    int64_t row = i / (s->h * s->tq), head = i / s->tq % s->h, t = i % s->tq;
    int64_t kv_head = head / (s->h / s->g), len = attention_len(args, row, s->tk);

    return (struct query){
        .n_seen = attention_visible(args, len, s->tq, t),
        .q = (row * s->tq + t) * s->q_stride + head * s->k,
        .kv = row * s->tk * s->kv_stride + kv_head * s->k,
        .o = ((row * s->tq + t) * s->h + head) * s->k,
        .kv_dense = (row * s->tk * s->g + kv_head) * s->k,
    };
}

static double dot(const struct tensor *x, int64_t ix, const struct tensor *y, int64_t iy,
                  int64_t n)
{
    double sum = 0;

    for (int64_t i = 0; i < n; i++)
        sum += (double)ref_get(x, ix + i) * ref_get(y, iy + i);
    return sum;
}

/* p [n_seen] = softmax of the query's scores; returns their log-sum-exp */
static double softmax_row(double *p, const struct shape *s, const struct query *at,
                          const struct tensor *q, const struct tensor *k, double scale)
{
    double max = -INFINITY, sum = 0;

    for (int64_t j = 0; j < at->n_seen; j++) {
        p[j] = scale * dot(q, at->q, k, at->kv + j * s->kv_stride, s->k);
        if (!(p[j] <= max)) /* so that NaN gets through */
            max = p[j];
    }
    for (int64_t j = 0; j < at->n_seen; j++) {
        p[j] = exp(p[j] - max);
        sum += p[j];
    }
    for (int64_t j = 0; j < at->n_seen; j++)
        p[j] /= sum;
    return max + log(sum);
}

int ref_attention_fwd(struct backend *b, struct tensor *o, struct tensor *lse,
                      const struct tensor *q, const struct tensor *k,
                      const struct tensor *v, const struct attention_args *args,
                      struct err *err)
{
    struct shape s = shape_of(q, k, args);
    double *p = malloc((size_t)(s.tk + 1) * sizeof(*p));

    (void)b;
    if (!p)
        return err_set(err, ERR_NOMEM, "cannot allocate a row of attention scores");
    for (int64_t i = 0; i < s.b * s.h * s.tq; i++) {
        struct query at = query_of(&s, args, i);

        ref_put(lse, i, softmax_row(p, &s, &at, q, k, args->scale));
        for (int64_t c = 0; c < s.k; c++) {
            double sum = 0;

            for (int64_t j = 0; j < at.n_seen; j++)
                sum += p[j] * ref_get(v, at.kv + j * s.kv_stride + c);
            ref_put(o, at.o + c, sum);
        }
    }
    free(p);
    return 0;
}

/* Gradient sums of the whole call, in double until the end. */
struct sums {
    double *p, *dp;       /* [Tk] */
    double *dq, *dk, *dv; /* contiguous */
};

static void bwd_query(struct sums *sums, const struct shape *s, const struct query *at,
                      const struct tensor *d_o, const struct tensor *q,
                      const struct tensor *k, const struct tensor *v, double scale)
{
    double mean_dp = 0;

    softmax_row(sums->p, s, at, q, k, scale);
    for (int64_t j = 0; j < at->n_seen; j++) {
        sums->dp[j] = dot(d_o, at->o, v, at->kv + j * s->kv_stride, s->k);
        mean_dp += sums->p[j] * sums->dp[j];
    }
    for (int64_t j = 0; j < at->n_seen; j++) {
        double ds = scale * sums->p[j] * (sums->dp[j] - mean_dp);
        int64_t to = at->kv_dense + j * s->g * s->k;

        for (int64_t c = 0; c < s->k; c++) {
            sums->dq[at->o + c] += ds * ref_get(k, at->kv + j * s->kv_stride + c);
            sums->dk[to + c] += ds * ref_get(q, at->q + c);
            sums->dv[to + c] += sums->p[j] * ref_get(d_o, at->o + c);
        }
    }
}

/* y, whose rows lie `stride` apart, = values, whose rows lie close */
static void put_rows(struct tensor *y, int64_t stride, const double *values)
{
    struct tensor rows = tensor_flat(y);

    for (int64_t i = 0; i < rows.dims[0]; i++)
        for (int64_t j = 0; j < rows.dims[1]; j++)
            ref_put(y, i * stride + j, values[i * rows.dims[1] + j]);
}

int ref_attention_bwd(struct backend *b, struct tensor *dq, struct tensor *dk,
                      struct tensor *dv, const struct tensor *d_o, const struct tensor *q,
                      const struct tensor *k, const struct tensor *v,
                      const struct tensor *o, const struct tensor *lse,
                      const struct attention_args *args, struct err *err)
{
    struct shape s = shape_of(q, k, args);
    size_t n_q = (size_t)tensor_count(q), n_k = (size_t)tensor_count(k);
    double *all = calloc(n_q + 2 * n_k + 2 * (size_t)s.tk + 1, sizeof(*all));
    struct sums sums;

    (void)b;
    (void)o; /* for backends that keep no scores; the softmax is taken afresh here */
    (void)lse;
    if (!all)
        return err_set(err, ERR_NOMEM, "cannot allocate sums of attention gradients");
    sums = (struct sums){.dq = all,
                         .dk = all + n_q,
                         .dv = all + n_q + n_k,
                         .p = all + n_q + 2 * n_k,
                         .dp = all + n_q + 2 * n_k + s.tk};
    for (int64_t i = 0; i < s.b * s.h * s.tq; i++) {
        struct query at = query_of(&s, args, i);

        bwd_query(&sums, &s, &at, d_o, q, k, v, args->scale);
    }
    put_rows(dq, s.q_stride, sums.dq);
    put_rows(dk, s.kv_stride, sums.dk);
    put_rows(dv, s.kv_stride, sums.dv);
    free(all);
    return 0;
}
