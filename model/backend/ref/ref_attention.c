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
};

static struct shape shape_of(const struct tensor *q, const struct tensor *k,
                             const struct attention_args *args)
{
    return (struct shape){.b = q->dims[0],
                          .tq = q->dims[1],
                          .tk = k->dims[1],
                          .h = args->n_heads,
                          .g = args->n_kv_heads,
                          .k = q->dims[2] / args->n_heads};
}

/* Where element 0 of (row b, position t, head) is in [B,T,heads*K]. */
static int64_t at(int64_t b, int64_t t, int64_t n_t, int64_t head, int64_t n_heads,
                  int64_t k)
{
    return ((b * n_t + t) * n_heads + head) * k;
}

static double dot(const struct tensor *x, int64_t ix, const struct tensor *y, int64_t iy,
                  int64_t n)
{
    double sum = 0;

    for (int64_t i = 0; i < n; i++)
        sum += (double)ref_get(x, ix + i) * ref_get(y, iy + i);
    return sum;
}

/* p [n_seen] = softmax of the scores of the query at `iq`; returns their log-sum-exp */
static double softmax_row(double *p, int64_t n_seen, const struct tensor *q, int64_t iq,
                          const struct tensor *k, int64_t ik, int64_t k_stride,
                          int64_t head_size, double scale)
{
    double max = -INFINITY, sum = 0;

    for (int64_t j = 0; j < n_seen; j++) {
        p[j] = scale * dot(q, iq, k, ik + j * k_stride, head_size);
        if (!(p[j] <= max)) /* so that NaN gets through */
            max = p[j];
    }
    for (int64_t j = 0; j < n_seen; j++) {
        p[j] = exp(p[j] - max);
        sum += p[j];
    }
    for (int64_t j = 0; j < n_seen; j++)
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
        int64_t row = i / (s.h * s.tq), head = i / s.tq % s.h, t = i % s.tq;
        int64_t iq = at(row, t, s.tq, head, s.h, s.k);
        int64_t ik = at(row, 0, s.tk, head / (s.h / s.g), s.g, s.k);
        int64_t n_seen = attention_visible(args, attention_len(args, row, s.tk), s.tq, t);

        ref_put(lse, i,
                softmax_row(p, n_seen, q, iq, k, ik, s.g * s.k, s.k, args->scale));
        for (int64_t c = 0; c < s.k; c++) {
            double sum = 0;

            for (int64_t j = 0; j < n_seen; j++)
                sum += p[j] * ref_get(v, ik + j * s.g * s.k + c);
            ref_put(o, iq + c, sum);
        }
    }
    free(p);
    return 0;
}

/* Gradient sums of the whole call, in double until the end. */
struct sums {
    double *p, *dp;       /* [Tk] */
    double *dq, *dk, *dv; /* as the tensors */
};

static void bwd_query(struct sums *sums, const struct shape *s, const struct tensor *d_o,
                      const struct tensor *q, const struct tensor *k,
                      const struct tensor *v, double scale, int64_t n_seen, int64_t iq,
                      int64_t ik)
{
    int64_t stride = s->g * s->k;
    double mean_dp = 0;

    softmax_row(sums->p, n_seen, q, iq, k, ik, stride, s->k, scale);
    for (int64_t j = 0; j < n_seen; j++) {
        sums->dp[j] = dot(d_o, iq, v, ik + j * stride, s->k);
        mean_dp += sums->p[j] * sums->dp[j];
    }
    for (int64_t j = 0; j < n_seen; j++) {
        double ds = scale * sums->p[j] * (sums->dp[j] - mean_dp);

        for (int64_t c = 0; c < s->k; c++) {
            int64_t jc = ik + j * stride + c;

            sums->dq[iq + c] += ds * ref_get(k, jc);
            sums->dk[jc] += ds * ref_get(q, iq + c);
            sums->dv[jc] += sums->p[j] * ref_get(d_o, iq + c);
        }
    }
}

static void put_all(struct tensor *y, const double *values)
{
    int64_t n = tensor_count(y);

    for (int64_t i = 0; i < n; i++)
        ref_put(y, i, values[i]);
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
    (void)o; /* kept for backends that need them; the softmax is taken afresh here */
    (void)lse;
    if (!all)
        return err_set(err, ERR_NOMEM, "cannot allocate sums of attention gradients");
    sums = (struct sums){.dq = all,
                         .dk = all + n_q,
                         .dv = all + n_q + n_k,
                         .p = all + n_q + 2 * n_k,
                         .dp = all + n_q + 2 * n_k + s.tk};
    for (int64_t i = 0; i < s.b * s.h * s.tq; i++) {
        int64_t row = i / (s.h * s.tq), head = i / s.tq % s.h, t = i % s.tq;
        int64_t n_seen = attention_visible(args, attention_len(args, row, s.tk), s.tq, t);

        bwd_query(&sums, &s, d_o, q, k, v, args->scale, n_seen,
                  at(row, t, s.tq, head, s.h, s.k),
                  at(row, 0, s.tk, head / (s.h / s.g), s.g, s.k));
    }
    put_all(dq, sums.dq);
    put_all(dk, sums.dk);
    put_all(dv, sums.dv);
    free(all);
    return 0;
}
